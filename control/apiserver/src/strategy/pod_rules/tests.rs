//! Rules of pod specs, one row each: what is written into a good pod, and what is said of it.

mod containers;
mod placement;
mod security;
mod sizes;

use serde_json::{Value, json};

use super::{Whole, annotations, validate_spec};
use crate::strategy::pod::default_pod;
use crate::validate::Errors;

const CONTAINER: &str = "spec.containers[0]";

fn good() -> Value {
    json!({"metadata": {"name": "p", "annotations": {}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// A pod with `value` at `pointer` of its spec, on top of what it has.
fn with(pointer: &str, value: &Value) -> Value {
    let mut pod = good();
    let mut place = &mut pod["spec"];
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    json_patch::merge(place, value);
    default_pod(&mut pod);
    pod
}

fn told(old: Option<&Value>, pod: &Value, whole: Whole) -> Vec<String> {
    let mut errors = Errors::default();
    annotations::validate(pod, old, "metadata.annotations", &mut errors);
    validate_spec(&pod["spec"], old.map(|old| &old["spec"]), whole, "spec", &mut errors);
    annotations::validate_agreement(pod, "spec", &mut errors);
    errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// Each row is a value and what is said of it, in order: the field after `place`, and how the message begins.
fn check(pointer: &str, place: &str, rows: Vec<(Value, Vec<&str>)>) {
    for (value, want) in rows {
        let found = told(None, &with(pointer, &value), Whole::Pod);
        let fits = found.len() == want.len()
            && found.iter().zip(&want).all(|(one, want)| one.starts_with(&format!("{place}{want}")));
        assert!(fits, "{value}\nfound {found:#?}\nwanted {place} {want:#?}");
    }
}
