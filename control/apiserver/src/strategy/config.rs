//! ConfigMaps and Secrets.

use base64::Engine;
use serde_json::Value;

use super::Change;
use crate::json_syntax;
use crate::tree::{at, flag, remove, set, set_default, strings, text};
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
        size += decoded_size(value);
    }
    if size > MAX_DATA {
        errors.too_long("data", MAX_DATA);
    }
    validate_type(change.new, errors);
    if let Some(old) = change.old {
        errors.immutable("type", at(old, &["type"]), at(change.new, &["type"]));
        validate_immutable(old, change.new, errors);
    }
}

/// How many bytes there are behind this text.
fn decoded_size(encoded: &str) -> usize {
    encoded.len() / 4 * 3 - encoded.bytes().rev().take_while(|c| *c == b'=').count().min(2)
}

/// What Secrets of a type have to hold.
fn validate_type(secret: &Value, errors: &mut Errors) {
    let is_missing = |key: &str| at(secret, &["data", key]).is_null();
    let required: &[&str] = match text(secret, &["type"]) {
        "kubernetes.io/service-account-token" => {
            let account = ["metadata", "annotations", "kubernetes.io/service-account.name"];
            if text(secret, &account).is_empty() {
                errors.required("metadata.annotations[kubernetes.io/service-account.name]", "");
            }
            &[]
        }
        "kubernetes.io/dockercfg" => return validate_document(secret, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => return validate_document(secret, ".dockerconfigjson", errors),
        // One is enough.
        "kubernetes.io/basic-auth" if ["username", "password"].iter().all(|key| is_missing(key)) => {
            &["username", "password"]
        }
        "kubernetes.io/ssh-auth" if text(secret, &["data", "ssh-privatekey"]).is_empty() => {
            return errors.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in required.iter().copied().filter(|key| is_missing(key)) {
        errors.required(format!("data[{key}]"), "");
    }
}

/// Checks that a JSON object lies under the key.
fn validate_document(secret: &Value, key: &str, errors: &mut Errors) {
    let place = format!("data[{key}]");
    let Some(encoded) = at(secret, &["data", key]).as_str() else { return errors.required(place, "") };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    let why = match serde_json::from_slice(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                go_kind(&other)
            )
        }
        Err(error) => json_syntax::fault(&bytes).unwrap_or_else(|| error.to_string()),
    };
    errors.invalid(place, &Value::from("<secret contents redacted>"), &why);
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    }
}

pub fn validate_config_map(change: &Change<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (section, other) in [("data", "binaryData"), ("binaryData", "data")] {
        let measure: fn(&str) -> usize = if section == "data" { str::len } else { decoded_size };
        for (key, value) in strings(change.new, &[section]) {
            let place = format!("{section}[{key}]");
            errors.check(place.clone(), key, validate::config_key);
            if !at(change.new, &[other, key]).is_null() {
                errors.invalid(place, &Value::from(key), &format!("duplicate of key present in {other}"));
            }
            size += measure(value);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(validate: fn(&Change<'_>, &mut Errors), old: Option<&Value>, mut new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn secret(kind: &str, plain: Value) -> Value {
        let mut secret = json!({ "metadata": {}, "type": kind, "stringData": plain });
        prepare_secret(&mut Change { old: None, new: &mut secret });
        secret
    }

    #[test]
    fn secrets_of_a_type_hold_what_it_is_for() {
        let syntax = "unexpected end of JSON input";
        let redacted = "Invalid value: \"<secret contents redacted>\"";
        let kind = "json: cannot unmarshal string into Go value of type map[string]interface {}";
        for (name, plain, want) in [
            ("Opaque", json!({ "a": "" }), vec![]),
            ("kubernetes.io/tls", json!({ "tls.crt": "", "tls.key": "" }), vec![]),
            ("kubernetes.io/basic-auth", json!({ "username": "" }), vec![]),
            ("kubernetes.io/dockercfg", json!({ ".dockercfg": "{}" }), vec![]),
            ("kubernetes.io/tls", json!({ "tls.crt": "" }), vec!["data[tls.key]: Required value".to_owned()]),
            (
                "kubernetes.io/basic-auth",
                json!({}),
                vec![
                    "data[username]: Required value".to_owned(),
                    "data[password]: Required value".to_owned(),
                ],
            ),
            (
                "kubernetes.io/ssh-auth",
                json!({ "ssh-privatekey": "" }),
                vec!["data[ssh-privatekey]: Required value".to_owned()],
            ),
            ("kubernetes.io/dockercfg", json!({}), vec!["data[.dockercfg]: Required value".to_owned()]),
            (
                "kubernetes.io/dockercfg",
                json!({ ".dockercfg": "" }),
                vec![format!("data[.dockercfg]: {redacted}: {syntax}")],
            ),
            (
                "kubernetes.io/dockerconfigjson",
                json!({ ".dockerconfigjson": "\"a\"" }),
                vec![format!("data[.dockerconfigjson]: {redacted}: {kind}")],
            ),
            (
                "kubernetes.io/service-account-token",
                json!({}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value".to_owned()],
            ),
            (
                "Opaque",
                json!({ "..a": "" }),
                vec!["data[..a]: Invalid value: \"..a\": must not start with '..'".to_owned()],
            ),
        ] {
            assert_eq!(refused(validate_secret, None, secret(name, plain)), want, "{name}");
        }
    }

    #[test]
    fn as_much_fits_as_upstream_takes() {
        let of = |size: usize| secret("Opaque", json!({ "a": "x".repeat(size) }));
        assert_eq!(refused(validate_secret, None, of(MAX_DATA)), [""; 0]);
        assert_eq!(
            refused(validate_secret, None, of(MAX_DATA + 1)),
            ["data: Too long: may not be more than 1048576 bytes"]
        );
    }

    #[test]
    fn a_key_is_of_text_or_of_bytes() {
        let map = json!({ "data": { "a": "" }, "binaryData": { "a": "" } });
        let want = [
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
            "binaryData[a]: Invalid value: \"a\": duplicate of key present in data",
        ];
        assert_eq!(refused(validate_config_map, None, map), want);
    }

    #[test]
    fn what_is_immutable_stays_so() {
        let old = json!({ "immutable": true, "data": { "a": "b" } });
        assert_eq!(refused(validate_config_map, Some(&old), old.clone()), [""; 0]);
        let want = [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ];
        assert_eq!(refused(validate_config_map, Some(&old), json!({ "data": {} })), want);
    }
}
