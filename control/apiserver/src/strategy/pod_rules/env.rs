//! Environment variables and where their values are from.

use serde_json::Value;

use super::references::{validate_field, validate_size};
use crate::tree::{at, list, text};
use crate::validate::{self, Errors};

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub fn validate(container: &Value, here: &str, errors: &mut Errors) {
    for (index, variable) in list(container, &["env"]).iter().enumerate() {
        let place = format!("{here}.env[{index}]");
        errors.named(format!("{place}.name"), text(variable, &["name"]), validate::env_name);
        let source = at(variable, &["valueFrom"]);
        if source.is_object() {
            let has_value = !text(variable, &["value"]).is_empty();
            validate_source(source, has_value, &format!("{place}.valueFrom"), errors);
        }
    }
    for (index, source) in list(container, &["envFrom"]).iter().enumerate() {
        validate_many(source, &format!("{here}.envFrom"), index, errors);
    }
}

fn validate_source(source: &Value, has_value: bool, here: &str, errors: &mut Errors) {
    type Check = fn(&Value, &str, &mut Errors);
    let kinds: [(&str, Check); 5] = [
        ("fieldRef", |source, here, errors| validate_field(source, FIELDS, here, errors)),
        ("resourceFieldRef", |source, here, errors| validate_size(source, false, here, errors)),
        ("configMapKeyRef", validate_key),
        ("secretKeyRef", validate_key),
        ("fileKeyRef", validate_file),
    ];
    let mut count = 0;
    for (kind, check) in kinds {
        let one = at(source, &[kind]);
        if one.is_object() {
            count += 1;
            check(one, &format!("{here}.{kind}"), errors);
        }
    }
    let why = match count {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(here, &Value::from(""), why);
}

fn validate_key(source: &Value, here: &str, errors: &mut Errors) {
    errors.check(format!("{here}.name"), text(source, &["name"]), validate::subdomain);
    errors.named(format!("{here}.key"), text(source, &["key"]), validate::config_key);
}

fn validate_file(source: &Value, here: &str, errors: &mut Errors) {
    errors.named(format!("{here}.key"), text(source, &["key"]), validate::env_name);
    errors.named(format!("{here}.volumeName"), text(source, &["volumeName"]), validate::label);
    errors.named(format!("{here}.path"), text(source, &["path"]), stays_below);
}

fn stays_below(path: &str) -> Result<(), String> {
    if path.split('/').any(|part| part == "..") { Err("must not contain '..'".to_owned()) } else { Ok(()) }
}

fn validate_many(source: &Value, all: &str, index: usize, errors: &mut Errors) {
    let here = format!("{all}[{index}]");
    let prefix = text(source, &["prefix"]);
    if !prefix.is_empty() {
        errors.check(format!("{here}.prefix"), prefix, validate::env_name);
    }
    let kinds = ["configMapRef", "secretRef"].into_iter().filter(|kind| at(source, &[kind]).is_object());
    let mut count = 0;
    for kind in kinds {
        count += 1;
        let name = text(source, &[kind, "name"]);
        errors.named(format!("{here}.{kind}.name"), name, validate::subdomain);
    }
    let why = match count {
        0 => "must specify one of: `configMapRef` or `secretRef`",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    // Upstream names the list.
    errors.invalid(all, &Value::from(""), why);
}

/// Files with variables are in volumes that begin empty.
pub fn validate_files(spec: &Value, here: &str, errors: &mut Errors) {
    for (place, container) in super::every_container(spec, here) {
        for (index, variable) in list(container, &["env"]).iter().enumerate() {
            let source = at(variable, &["valueFrom", "fileKeyRef"]);
            if !source.is_object() {
                continue;
            }
            let name = text(source, &["volumeName"]);
            let field = format!("{place}.env[{index}].valueFrom.fileKeyRef.volumeName");
            match list(spec, &["volumes"]).iter().rfind(|volume| text(volume, &["name"]) == name) {
                None => errors.not_found(field, &Value::from(name)),
                Some(volume) if !at(volume, &["emptyDir"]).is_object() => {
                    errors.invalid(field, &Value::from(name), "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    }
}
