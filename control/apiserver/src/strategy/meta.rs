//! Rules of `metadata` that hold for every kind.

use serde_json::Value;

use super::Change;
use crate::resources::Row;
use crate::tree::{at, list, strings, text};
use crate::validate::{self, Errors};

/// Upstream's bound on all annotations together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Checks the metadata of an object that is to be written.
pub fn validate(resource: &Row, change: &Change<'_>, errors: &mut Errors) {
    let object = &*change.new;
    let name = text(object, &["metadata", "name"]);
    if change.old.is_none() {
        if name.is_empty() {
            errors.required("metadata.name", "name or generateName is required");
        } else {
            errors.check("metadata.name", name, resource.name);
        }
    }
    for (key, value) in strings(object, &["metadata", "labels"]) {
        errors.check("metadata.labels", key, validate::label_key);
        errors.check("metadata.labels", value, validate::label_value);
    }
    let mut size = 0;
    for (key, value) in strings(object, &["metadata", "annotations"]) {
        errors.check("metadata.annotations", &key.to_ascii_lowercase(), validate::label_key);
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long("metadata.annotations", MAX_ANNOTATIONS);
    }
    for finalizer in list(object, &["metadata", "finalizers"]) {
        let finalizer = finalizer.as_str().unwrap_or_default();
        errors.check("metadata.finalizers", finalizer, validate::label_key);
    }
    validate_owners(object, errors);
    if let Some(old) = change.old {
        validate_kept(old, object, errors);
    }
}

fn validate_owners(object: &Value, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for (index, owner) in list(object, &["metadata", "ownerReferences"]).iter().enumerate() {
        let here = format!("metadata.ownerReferences[{index}]");
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[field]).is_empty() {
                errors.required(format!("{here}.{field}"), "must not be empty");
            }
        }
        if at(owner, &["controller"]) != true {
            continue;
        }
        let name = format!("{}/{}", text(owner, &["kind"]), text(owner, &["name"]));
        if let Some(first) = &controller {
            let owners = at(object, &["metadata", "ownerReferences"]);
            let why = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
            );
            errors.invalid("metadata.ownerReferences", owners, &why);
        } else {
            controller = Some(name);
        }
    }
}

/// What never changes after creation, and that a deleted object gets no new finalizers.
fn validate_kept(old: &Value, new: &Value, errors: &mut Errors) {
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let place = format!("metadata.{field}");
        errors.immutable(&place, at(old, &["metadata", field]), at(new, &["metadata", field]));
    }
    if !at(old, &["metadata", "deletionTimestamp"]).is_null() {
        let before = list(old, &["metadata", "finalizers"]);
        let added: Vec<String> = list(new, &["metadata", "finalizers"])
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .map(ToString::to_string)
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers [{}]",
                added.join(", ")
            );
            errors.forbidden("metadata.finalizers", &detail);
        }
    }
}
