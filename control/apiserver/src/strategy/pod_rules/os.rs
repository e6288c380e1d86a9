//! What a pod may not say that is for one kind of node.

use serde_json::Value;

use super::windows;
use crate::tree::{at, flag, list, text};
use crate::validate::Errors;

const NOT_LINUX: &str = "windows options cannot be set for a linux pod";
const NOT_WINDOWS: &str = "cannot be set for a windows pod";

pub fn validate(spec: &Value, here: &str, errors: &mut Errors) {
    if !at(spec, &["os"]).is_object() {
        return;
    }
    match text(spec, &["os", "name"]) {
        "" => errors.required(format!("{here}.os.name"), ""),
        "linux" => validate_linux(spec, here, errors),
        _ if windows::is_meant(spec) => validate_windows(spec, here, errors),
        other => errors.must_be(format!("{here}.os"), other, &["linux", "windows"]),
    }
}

fn validate_linux(spec: &Value, here: &str, errors: &mut Errors) {
    let containers = super::every_container(spec, here);
    for (place, owner) in std::iter::once((here.to_owned(), spec)).chain(containers) {
        if !at(owner, &["securityContext", "windowsOptions"]).is_null() {
            errors.forbidden(format!("{place}.securityContext.windowsOptions"), NOT_LINUX);
        }
    }
}

/// Fields in the order in which they are refused; those in `securityContext` after a dot.
const OF_POD: &[&str] = &[
    ".appArmorProfile",
    ".seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    ".seccompProfile",
    ".fsGroup",
    ".fsGroupChangePolicy",
    ".sysctls",
    "shareProcessNamespace",
    ".runAsUser",
    ".runAsGroup",
    ".supplementalGroups",
    ".supplementalGroupsPolicy",
    ".seLinuxChangePolicy",
];
const OF_CONTAINER: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn validate_windows(spec: &Value, here: &str, errors: &mut Errors) {
    for field in OF_POD {
        let (place, is_set) = match field.strip_prefix('.') {
            Some("sysctls") => (
                format!("{here}.securityContext.sysctls"),
                !list(spec, &["securityContext", "sysctls"]).is_empty(),
            ),
            Some(name) => {
                (format!("{here}.securityContext.{name}"), !at(spec, &["securityContext", name]).is_null())
            }
            None if matches!(*field, "hostPID" | "hostIPC") => {
                (format!("{here}.{field}"), flag(spec, &[field]))
            }
            None => (format!("{here}.{field}"), !at(spec, &[field]).is_null()),
        };
        if is_set {
            errors.forbidden(place, NOT_WINDOWS);
        }
    }
    for (place, container) in super::every_container(spec, here) {
        for field in OF_CONTAINER {
            if !at(container, &["securityContext", field]).is_null() {
                errors.forbidden(format!("{place}.securityContext.{field}"), NOT_WINDOWS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_that_is_not_for_windows_is_refused_there() {
        let found = |spec: Value| {
            let mut errors = Errors::default();
            validate(&spec, "spec", &mut errors);
            errors.into_causes().into_iter().map(|cause| cause.field).collect::<Vec<_>>()
        };
        for field in OF_POD {
            let name = field.trim_start_matches('.');
            let value = if name == "sysctls" { json!([{"name": "a"}]) } else { json!(true) };
            let (owner, place) = match field.starts_with('.') {
                true => (json!({"securityContext": {name: value}}), format!("spec.securityContext.{name}")),
                false => (json!({name: value}), format!("spec.{name}")),
            };
            let mut spec = owner;
            spec["os"] = json!({"name": "windows"});
            assert_eq!(found(spec), [place]);
        }
        for field in OF_CONTAINER {
            let container = json!({"securityContext": {*field: true}});
            let spec = json!({"os": {"name": "windows"}, "containers": [container]});
            assert_eq!(found(spec), [format!("spec.containers[0].securityContext.{field}")]);
        }
        assert_eq!((OF_POD.len(), OF_CONTAINER.len()), (15, 10));
    }
}
