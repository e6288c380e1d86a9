//! Annotations that say something of a pod: of older days, and of what its controller or its node is to do.

use std::collections::HashSet;

use serde_json::Value;

use super::placement::validate_tolerations;
use super::security::validate_path;
use super::{every_container, windows};
use crate::tree::{at, strings, text};
use crate::validate::Errors;

pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Checks the annotations of a pod or template, which are at `here`.
pub fn validate(object: &Value, old: Option<&Value>, here: &str, errors: &mut Errors) {
    let annotations = at(object, &["metadata", "annotations"]);
    if !annotations.is_object() {
        return;
    }
    let spec = at(object, &["spec"]);
    let mut names = None;
    let cost_holds = old.is_none_or(|old| is_cost(text(old, &["metadata", "annotations", DELETION_COST])));
    for (key, value) in strings(annotations, &[]) {
        match key {
            MIRROR if text(spec, &["nodeName"]).is_empty() => {
                let why = "must set spec.nodeName if mirror pod annotation is set";
                errors.invalid(format!("{here}[{key}]"), &Value::from(value), why);
            }
            TOLERATIONS if !value.is_empty() => {
                if let Ok(Value::Array(tolerations)) = serde_json::from_str(value) {
                    validate_tolerations(&tolerations, &format!("{here}.{key}"), errors);
                }
            }
            DELETION_COST if cost_holds && !is_cost(value) => {
                errors.invalid(format!("{here}[{key}]"), &Value::from(value), "must be a 32bit integer");
            }
            SECCOMP_POD => validate_seccomp(value, &format!("{here}.{key}"), errors),
            _ if key.starts_with(SECCOMP_CONTAINER) => {
                validate_seccomp(value, &format!("{here}.{key}"), errors);
            }
            _ => {
                if let Some(container) = key.strip_prefix(APPARMOR) {
                    let names = names.get_or_insert_with(|| container_names(spec));
                    validate_apparmor(container, value, names, &format!("{here}[{key}]"), errors);
                }
            }
        }
    }
}

/// A whole number of 32 bits as upstream reads it; none is none.
fn is_cost(text: &str) -> bool {
    let plain = !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
    text.is_empty() || (plain && text.parse::<i32>().is_ok())
}

fn validate_seccomp(profile: &str, here: &str, errors: &mut Errors) {
    match profile.strip_prefix("localhost/") {
        Some(path) => validate_path(path, here, errors),
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => errors.invalid(here, &Value::from(profile), "must be a valid seccomp profile"),
    }
}

fn container_names(spec: &Value) -> HashSet<&str> {
    every_container(spec, "").map(|(_, one)| text(one, &["name"])).collect()
}

fn validate_apparmor(container: &str, profile: &str, names: &HashSet<&str>, here: &str, errors: &mut Errors) {
    if !names.contains(container) {
        errors.invalid(here, &Value::from(container), "container not found");
    }
    let known = matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
    if !known {
        let why = format!("invalid AppArmor profile name: {profile:?}");
        errors.invalid(here, &Value::from(profile), &why);
    }
}

/// Annotations that stay as they are, and are not added.
pub fn validate_kept(old: &Value, new: &Value, errors: &mut Errors) {
    let held = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APPARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    let [before, after] = [old, new].map(|pod| at(pod, &["metadata", "annotations"]));
    for (key, value) in strings(before, &[]) {
        if let Some(what) = held(key).filter(|_| after.get(key).is_none_or(|now| now != value)) {
            errors.forbidden(
                format!("metadata.annotations[{key}]"),
                &format!("may not remove or update {what}"),
            );
        }
    }
    for (key, _) in strings(after, &[]).filter(|(key, _)| before.get(key).is_none()) {
        if let Some(what) = held(key) {
            errors.forbidden(format!("metadata.annotations[{key}]"), &format!("may not add {what}"));
        }
    }
}

/// What profiles are called that both an annotation and a field name.
struct Profiles {
    what: &'static str,
    field: &'static str,
    default: &'static [&'static str],
}

const SECCOMP: Profiles =
    Profiles { what: "seccomp", field: "seccompProfile", default: &["runtime/default", "docker/default"] };
const APPARMOR_PROFILES: Profiles =
    Profiles { what: "apparmor", field: "appArmorProfile", default: &["runtime/default"] };

/// Where an annotation and a field say the same thing, they agree. `here` leads to the spec.
pub fn validate_agreement(object: &Value, here: &str, errors: &mut Errors) {
    let (annotations, spec) = (at(object, &["metadata", "annotations"]), at(object, &["spec"]));
    if !annotations.is_object() {
        return;
    }
    let field = |owner, profiles: &Profiles| at(owner, &["securityContext", profiles.field]);
    let said = |key: String| annotations.get(key).and_then(Value::as_str);
    SECCOMP.compare(said(SECCOMP_POD.to_owned()), field(spec, &SECCOMP), here, errors);
    for (place, container) in every_container(spec, here) {
        let annotation = said(format!("{SECCOMP_CONTAINER}{}", text(container, &["name"])));
        SECCOMP.compare(annotation, field(container, &SECCOMP), &place, errors);
    }
    if windows::is_meant(spec) {
        return;
    }
    for (place, container) in every_container(spec, here) {
        let annotation = said(format!("{APPARMOR}{}", text(container, &["name"])));
        let profile = match field(container, &APPARMOR_PROFILES) {
            Value::Null => field(spec, &APPARMOR_PROFILES),
            own => own,
        };
        APPARMOR_PROFILES.compare(annotation, profile, &place, errors);
    }
}

impl Profiles {
    fn compare(&self, annotation: Option<&str>, profile: &Value, owner: &str, errors: &mut Errors) {
        let (Some(annotation), true) = (annotation, profile.is_object()) else { return };
        let wrong = match (text(profile, &["type"]), annotation.strip_prefix("localhost/")) {
            ("Unconfined", _) => (annotation != "unconfined").then_some("type"),
            ("RuntimeDefault", _) => (!self.default.contains(&annotation)).then_some("type"),
            ("Localhost", None) => Some("type"),
            ("Localhost", Some(name)) => {
                (at(profile, &["localhostProfile"]) != name).then_some("localhostProfile")
            }
            _ => None,
        };
        if let Some(part) = wrong {
            let word = if part == "type" { "type" } else { "profile" };
            let why = format!("{} {word} in annotation and field must match", self.what);
            errors.forbidden(format!("{owner}.securityContext.{}.{part}", self.field), &why);
        }
    }
}
