//! Validation of where a container finds its volumes, as directories and as devices.

use std::collections::HashSet;

use serde_json::Value;

use super::local_path::descending;
use super::volume_rules::Volumes;
use crate::tree::{at, flag, list, text};
use crate::validate::Errors;

/// Checks the mounts and devices of a container at `here`.
pub fn validate_mounts(container: &Value, here: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut paths = HashSet::new();
    let all = format!("{here}.volumeMounts");
    let devices = ["name", "devicePath"].map(|field| said(container, "volumeDevices", field));
    for (index, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
        let place = format!("{all}[{index}]");
        validate_name(mount, &devices[0], &place, volumes, errors);
        let path = text(mount, &["mountPath"]);
        if path.is_empty() {
            errors.required(format!("{place}.mountPath"), "");
        }
        if !paths.insert(path) {
            errors.invalid(format!("{place}.mountPath"), &Value::from(path), "must be unique");
        }
        if devices[1].contains(path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(format!("{place}.mountPath"), &Value::from(path), why);
        }
        // Upstream does not say of which mount what follows is.
        validate_part(mount, &place, &all, errors);
        validate_propagation(mount, container, &format!("{all}.mountPropagation"), errors);
        validate_read_only(mount, &format!("{all}.recursiveReadOnly"), errors);
    }
    validate_devices(container, here, volumes, errors);
}

fn validate_name(
    mount: &Value,
    devices: &HashSet<&str>,
    here: &str,
    volumes: &Volumes<'_>,
    errors: &mut Errors,
) {
    let (name, place) = (text(mount, &["name"]), format!("{here}.name"));
    if name.is_empty() {
        errors.required(&place, "");
    }
    if !volumes.contains_key(name) {
        errors.not_found(&place, &Value::from(name));
    }
    if devices.contains(name) {
        errors.invalid(place, &Value::from(name), "must not already exist in volumeDevices");
    }
}

/// What all of a list say in a field.
fn said<'a>(container: &'a Value, group: &str, field: &str) -> HashSet<&'a str> {
    list(container, &[group]).iter().map(|one| text(one, &[field])).collect()
}

fn validate_part(mount: &Value, here: &str, all: &str, errors: &mut Errors) {
    let (path, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
    descending(path, &format!("{all}.subPath"), errors);
    if !path.is_empty() && !expression.is_empty() {
        let why = "subPathExpr and subPath are mutually exclusive";
        errors.invalid(format!("{here}.subPathExpr"), &Value::from(expression), why);
    }
    descending(expression, &format!("{all}.subPathExpr"), errors);
}

fn validate_propagation(mount: &Value, container: &Value, here: &str, errors: &mut Errors) {
    let Some(propagation) = at(mount, &["mountPropagation"]).as_str() else { return };
    errors.must_be(here, propagation, &["Bidirectional", "HostToContainer", "None"]);
    if propagation == "Bidirectional" && !flag(container, &["securityContext", "privileged"]) {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(here, why);
    }
}

fn validate_read_only(mount: &Value, here: &str, errors: &mut Errors) {
    match at(mount, &["recursiveReadOnly"]).as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, &["readOnly"]) {
                errors.forbidden(here, "may only be specified when readOnly is true");
            }
            if at(mount, &["mountPropagation"]).as_str().is_some_and(|one| one != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(here, why);
            }
        }
        Some(other) => errors.must_be(here, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn validate_devices(container: &Value, here: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    if list(container, &["volumeDevices"]).is_empty() {
        return;
    }
    let mounts = ["name", "mountPath"].map(|field| said(container, "volumeMounts", field));
    for (index, device) in list(container, &["volumeDevices"]).iter().enumerate() {
        let place = format!("{here}.volumeDevices[{index}]");
        let name = text(device, &["name"]);
        validate_device(name, !names.insert(name), &format!("{place}.name"), volumes, errors);
        let (path, at) = (text(device, &["devicePath"]), format!("{place}.devicePath"));
        if path.is_empty() {
            errors.required(&at, "");
        }
        if paths.contains(path) {
            errors.invalid(&at, &Value::from(path), "must be unique");
        }
        if path.split('/').any(|part| part == "..") {
            errors.invalid(&at, &Value::from(path), "can not contain backsteps ('..')");
        } else {
            paths.insert(path);
        }
        if mounts[0].contains(name) {
            let why = "must not already exist in volumeMounts";
            errors.invalid(format!("{place}.name"), &Value::from(name), why);
        }
        if mounts[1].contains(path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(at, &Value::from(path), why);
        }
    }
}

/// Devices are made from claims only.
fn validate_device(name: &str, repeated: bool, here: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(here, "");
    } else if repeated {
        errors.invalid(here, &Value::from(name), "must be unique");
    }
    let is_claim = |volume: &Value| {
        ["persistentVolumeClaim", "ephemeral"].iter().any(|kind| at(volume, &[kind]).is_object())
    };
    match volumes.get(name) {
        None => errors.not_found(here, &Value::from(name)),
        Some(volume) if !is_claim(volume) => {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.invalid(here, &Value::from(name), why);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::told;

    fn found(container: &Value) -> String {
        let (empty, claim, image) = (
            json!({"name": "e", "emptyDir": {}}),
            json!({"name": "c", "persistentVolumeClaim": {"claimName": "c"}}),
            json!({"name": "i", "image": {"reference": "i"}}),
        );
        let volumes: Volumes<'_> = [("e", &empty), ("c", &claim), ("i", &image)].into();
        told(|errors| validate_mounts(container, "c", &volumes, errors)).join("; ")
    }

    #[test]
    fn mounts_are_of_volumes_and_each_has_its_place() {
        for (mount, want) in [
            (json!({"name": "e", "mountPath": "/m:n", "subPath": "a/b"}), ""),
            (json!({"name": "i", "mountPath": "/m", "subPath": "a"}), ""),
            (
                json!({"name": "e", "mountPath": "/m", "readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "None"}),
                "",
            ),
            (
                json!({"mountPath": "/m"}),
                "c.volumeMounts[0].name: Required value; c.volumeMounts[0].name: Not found: \"\"",
            ),
            (json!({"name": "x", "mountPath": "/m"}), "c.volumeMounts[0].name: Not found: \"x\""),
            (json!({"name": "e"}), "c.volumeMounts[0].mountPath: Required value"),
            (
                json!({"name": "e", "mountPath": "/m", "subPath": "/a"}),
                "c.volumeMounts.subPath: Invalid value: \"/a\": must be a relative path",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "subPathExpr": "a/.."}),
                "c.volumeMounts.subPathExpr: Invalid value: \"a/..\": must not contain '..'",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "subPath": "a", "subPathExpr": "b"}),
                "c.volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "mountPropagation": "Up"}),
                "c.volumeMounts.mountPropagation: Unsupported value: \"Up\": supported values: \"Bidirectional\", \"HostToContainer\", \"None\"",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "mountPropagation": "Bidirectional"}),
                "c.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "recursiveReadOnly": "IfPossible"}),
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"}),
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            ),
            (
                json!({"name": "e", "mountPath": "/m", "recursiveReadOnly": "No"}),
                "c.volumeMounts.recursiveReadOnly: Unsupported value: \"No\": supported values: \"Disabled\", \"Enabled\", \"IfPossible\"",
            ),
        ] {
            assert_eq!(found(&json!({ "volumeMounts": [mount] })), want, "{mount}");
        }
        let twice = json!({"name": "e", "mountPath": "/m"});
        assert_eq!(
            found(&json!({ "volumeMounts": [twice, twice] })),
            "c.volumeMounts[1].mountPath: Invalid value: \"/m\": must be unique"
        );
        let privileged = json!({"securityContext": {"privileged": true}, "volumeMounts": [{"name": "e", "mountPath": "/m", "mountPropagation": "Bidirectional"}]});
        assert_eq!(found(&privileged), "");
    }

    #[test]
    fn devices_are_of_claims() {
        for (devices, want) in [
            (json!([{"name": "c", "devicePath": "/d"}]), ""),
            (
                json!([{"name": "e", "devicePath": "/d"}]),
                "c.volumeDevices[0].name: Invalid value: \"e\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            (json!([{"name": "x", "devicePath": "/d"}]), "c.volumeDevices[0].name: Not found: \"x\""),
            (
                json!([{"name": "c", "devicePath": "/../d"}]),
                "c.volumeDevices[0].devicePath: Invalid value: \"/../d\": can not contain backsteps ('..')",
            ),
            (
                json!([{"name": "c", "devicePath": "/d"}, {"name": "c", "devicePath": "/d"}]),
                "c.volumeDevices[1].name: Invalid value: \"c\": must be unique; c.volumeDevices[1].devicePath: Invalid value: \"/d\": must be unique",
            ),
            (json!([{"name": "c"}]), "c.volumeDevices[0].devicePath: Required value"),
        ] {
            assert_eq!(found(&json!({ "volumeDevices": devices })), want, "{devices}");
        }
        let both = json!({"volumeDevices": [{"name": "c", "devicePath": "/d"}], "volumeMounts": [{"name": "c", "mountPath": "/d"}]});
        assert_eq!(
            found(&both),
            "c.volumeMounts[0].name: Invalid value: \"c\": must not already exist in volumeDevices; \
             c.volumeMounts[0].mountPath: Invalid value: \"/d\": must not already exist as a path in volumeDevices; \
             c.volumeDevices[0].name: Invalid value: \"c\": must not already exist in volumeMounts; \
             c.volumeDevices[0].devicePath: Invalid value: \"/d\": must not already exist as a path in volumeMounts"
        );
    }
}
