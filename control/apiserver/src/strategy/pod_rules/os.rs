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
