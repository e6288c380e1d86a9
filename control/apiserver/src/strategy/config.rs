//! ConfigMaps, Secrets and events.

use base64::Engine;
use serde_json::Value;

use super::Change;
use crate::tree::{at, fields, flag, remove, set, set_default, strings, text};
use crate::validate::{self, Errors};

/// Upstream's bound on the data of one ConfigMap or Secret.
const MAX_DATA: usize = 1 << 20;

pub fn default_secret(secret: &mut Value) {
    set_default(secret, &["type"], "Opaque");
}

/// `stringData` is a way to write, never to read.
pub fn prepare_secret(change: &mut Change<'_>) {
    let Some(Value::Object(plain)) = remove(change.new, &["stringData"]) else { return };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        set(change.new, &["data", &key], encoded);
    }
}

pub fn validate_secret(change: &Change<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in strings(change.new, &["data"]) {
        errors.check(format!("data[{key}]"), key, validate::config_key);
        size += value.len() / 4 * 3;
    }
    if size > MAX_DATA {
        errors.too_long("data", MAX_DATA);
    }
    let required: &[&str] = match text(change.new, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if at(change.new, &["data", key]).is_null() {
            errors.required(format!("data[{key}]"), "");
        }
    }
    let account = ["metadata", "annotations", "kubernetes.io/service-account.name"];
    let of_account = text(change.new, &["type"]) == "kubernetes.io/service-account-token";
    if of_account && text(change.new, &account).is_empty() {
        errors.required("metadata.annotations[kubernetes.io/service-account.name]", "");
    }
    if let Some(old) = change.old {
        errors.immutable("type", at(old, &["type"]), at(change.new, &["type"]));
        validate_immutable(old, change.new, errors);
    }
}

pub fn validate_config_map(change: &Change<'_>, errors: &mut Errors) {
    let mut size = 0;
    for section in ["data", "binaryData"] {
        for (key, value) in strings(change.new, &[section]) {
            errors.check(format!("{section}[{key}]"), key, validate::config_key);
            size += value.len();
        }
    }
    for (key, _) in fields(change.new, &["binaryData"]) {
        if !at(change.new, &["data", key]).is_null() {
            errors.invalid(
                format!("data[{key}]"),
                &Value::from(key),
                "duplicate of key present in binaryData",
            );
        }
    }
    if size > MAX_DATA {
        errors.too_long("", MAX_DATA);
    }
    if let Some(old) = change.old {
        validate_immutable(old, change.new, errors);
    }
}

fn validate_immutable(old: &Value, new: &Value, errors: &mut Errors) {
    if !flag(old, &["immutable"]) {
        return;
    }
    if !flag(new, &["immutable"]) {
        errors.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for section in ["data", "binaryData"] {
        if at(old, &[section]) != at(new, &[section]) {
            errors.forbidden(section, "field is immutable when `immutable` is set");
        }
    }
}

/// The two generations of events name the reporter in two places.
pub fn default_event(event: &mut Value) {
    let component = text(event, &["source", "component"]).to_owned();
    if !component.is_empty() && at(event, &["reportingComponent"]).is_null() {
        set(event, &["reportingComponent"], component);
    }
    if at(event, &["reportingInstance"]).is_null() && !at(event, &["source", "host"]).is_null() {
        let host = at(event, &["source", "host"]).clone();
        set(event, &["reportingInstance"], host);
    }
    for field in ["reportingComponent", "reportingInstance"] {
        set_default(event, &[field], "");
    }
    set_default(event, &["type"], "Normal");
}
