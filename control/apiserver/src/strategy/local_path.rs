//! Paths inside of volumes and containers, and the modes of files there.

use serde_json::Value;

use crate::tree::{at, int, text};
use crate::validate::Errors;

/// A path that does not lead up.
pub fn no_backsteps(path: &str, here: &str, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(here, &Value::from(path), "must not contain '..'");
    }
}

/// A path from somewhere downwards.
pub fn descending(path: &str, here: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(here, &Value::from(path), "must be a relative path");
    }
    no_backsteps(path, here, errors);
}

/// A path downwards, whose first name the kubelet does not use for itself.
pub fn not_reserved(path: &str, here: &str, errors: &mut Errors) {
    descending(path, here, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        errors.invalid(here, &Value::from(path), "must not start with '..'");
    }
}

/// The bits of a file that say who may do what.
pub fn mode(owner: &Value, field: &str, here: &str, errors: &mut Errors) {
    if int(owner, &[field]).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(format!("{here}.{field}"), at(owner, &[field]), why);
    }
}

/// Which key becomes which file.
pub fn key_to_path(item: &Value, here: &str, errors: &mut Errors) {
    for field in ["key", "path"] {
        if text(item, &[field]).is_empty() {
            errors.required(format!("{here}.{field}"), "");
        }
    }
    not_reserved(text(item, &["path"]), &format!("{here}.path"), errors);
    mode(item, "mode", here, errors);
}
