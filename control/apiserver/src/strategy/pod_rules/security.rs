//! What a pod and its containers may do on their node, and as whom.

use serde_json::Value;

use super::windows;
use crate::strategy::sysctls;
use crate::tree::{at, flag, list, text};
use crate::validate::Errors;

const LONGEST_PROFILE: usize = 4095;

pub fn validate_of_pod(spec: &Value, old: Option<&Value>, here: &str, errors: &mut Errors) {
    let (context, place) = (at(spec, &["securityContext"]), format!("{here}.securityContext"));
    let of_all_hosts = flag(spec, &["shareProcessNamespace"]) && flag(spec, &["hostPID"]);
    if context.is_object() {
        for field in ["fsGroup", "runAsUser", "runAsGroup"] {
            validate_id(at(context, &[field]), &format!("{place}.{field}"), errors);
        }
        for (index, group) in list(context, &["supplementalGroups"]).iter().enumerate() {
            validate_id(group, &format!("{place}.supplementalGroups[{index}]"), errors);
        }
    }
    if of_all_hosts {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(format!("{place}.shareProcessNamespace"), &Value::from(true), why);
    }
    if !context.is_object() {
        return;
    }
    sysctls::validate(spec, old, here, errors);
    choice(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], &place, errors);
    validate_seccomp(at(context, &["seccompProfile"]), &format!("{place}.seccompProfile"), errors);
    windows::validate(at(context, &["windowsOptions"]), &format!("{place}.windowsOptions"), errors);
    validate_apparmor(at(context, &["appArmorProfile"]), &format!("{place}.appArmorProfile"), errors);
    choice(context, "supplementalGroupsPolicy", &["Merge", "Strict"], &place, errors);
    choice(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], &place, errors);
}

fn choice(context: &Value, field: &str, known: &[&str], here: &str, errors: &mut Errors) {
    if let Some(value) = at(context, &[field]).as_str() {
        errors.must_be(format!("{here}.{field}"), value, known);
    }
}

fn validate_id(id: &Value, here: &str, errors: &mut Errors) {
    if id.as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
        errors.invalid(here, id, "must be between 0 and 2147483647, inclusive");
    }
}

pub fn validate_of_container(container: &Value, host_users: bool, here: &str, errors: &mut Errors) {
    let (context, place) = (at(container, &["securityContext"]), format!("{here}.securityContext"));
    if !context.is_object() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        validate_id(at(context, &[field]), &format!("{place}.{field}"), errors);
    }
    choice(context, "procMount", &["Default", "Unmasked"], &place, errors);
    if host_users && text(context, &["procMount"]) == "Unmasked" {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.invalid(format!("{place}.procMount"), &Value::from("Unmasked"), why);
    }
    validate_seccomp(at(context, &["seccompProfile"]), &format!("{place}.seccompProfile"), errors);
    if at(context, &["allowPrivilegeEscalation"]) == false {
        if flag(context, &["privileged"]) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(&place, context, why);
        }
        // Told once however often it is asked for: with it the whole context is told.
        if list(context, &["capabilities", "add"]).iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(&place, context, why);
        }
    }
    windows::validate(at(context, &["windowsOptions"]), &format!("{place}.windowsOptions"), errors);
    validate_apparmor(at(context, &["appArmorProfile"]), &format!("{place}.appArmorProfile"), errors);
}

const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn validate_seccomp(profile: &Value, here: &str, errors: &mut Errors) {
    if !profile.is_object() {
        return;
    }
    let kind = text(profile, &["type"]);
    match kind {
        "" => errors.required(format!("{here}.type"), "type is required when seccompProfile is set"),
        _ => errors.must_be(format!("{here}.type"), kind, TYPES),
    }
    let place = format!("{here}.localhostProfile");
    match at(profile, &["localhostProfile"]).as_str() {
        Some(path) if kind == "Localhost" => validate_path(path, &place, errors),
        None if kind == "Localhost" => {
            errors.required(place, "must be set when seccomp type is Localhost");
        }
        Some(_) => errors.invalid(place, profile, "can only be set when seccomp type is Localhost"),
        None => {}
    }
}

/// A path that leads down from where it begins.
pub fn validate_path(path: &str, here: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(here, &Value::from(path), "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        errors.invalid(here, &Value::from(path), "must not contain '..'");
    }
}

fn validate_apparmor(profile: &Value, here: &str, errors: &mut Errors) {
    if !profile.is_object() {
        return;
    }
    let (place, local) = (format!("{here}.localhostProfile"), at(profile, &["localhostProfile"]));
    match text(profile, &["type"]) {
        "Localhost" => {
            let name = local.as_str().unwrap_or_default();
            if name != name.trim() {
                errors.invalid(&place, local, "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&place, "must be set when AppArmor type is Localhost");
            }
            if name.len() > LONGEST_PROFILE {
                errors.too_long(place, LONGEST_PROFILE);
            }
        }
        "RuntimeDefault" | "Unconfined" if !local.is_null() => {
            errors.invalid(place, local, "can only be set when AppArmor type is Localhost");
        }
        "" => errors.required(format!("{here}.type"), "type is required when appArmorProfile is set"),
        kind => errors.must_be(format!("{here}.type"), kind, TYPES),
    }
}

/// Users of its own go with no other namespace of the host's.
pub fn validate_users_of_host(spec: &Value, old: Option<&Value>, here: &str, errors: &mut Errors) {
    if at(spec, &["hostUsers"]) != false {
        return;
    }
    // Two of them upstream names as they are called in Go.
    for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        let before = field == "hostNetwork" && old.is_some_and(|old| flag(old, &[field]) && own_users(old));
        if flag(spec, &[field]) && !before {
            errors.forbidden(format!("{here}.{name}"), "when `hostUsers` is false");
        }
    }
    if old.is_some_and(|old| own_users(old) && devices(old, here).next().is_some()) {
        return;
    }
    for place in devices(spec, here) {
        errors.forbidden(format!("{place}.volumeDevices"), "when `hostUsers` is false");
    }
}

fn own_users(spec: &Value) -> bool {
    at(spec, &["hostUsers"]) == false
}

fn devices<'a>(spec: &'a Value, here: &'a str) -> impl Iterator<Item = String> {
    let with = |(_, container): &(String, &Value)| !list(container, &["volumeDevices"]).is_empty();
    super::every_container(spec, here).filter(with).map(|(place, _)| place)
}
