//! Validation of where a container finds its volumes.

use std::collections::HashSet;

use serde_json::Value;

use super::volume_rules::Volumes;
use crate::tree::{list, text};
use crate::validate::Errors;

/// Checks the mounts of a container at `here`.
pub fn validate_mounts(container: &Value, here: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut mounted = HashSet::new();
    for (at, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
        let place = format!("{here}.volumeMounts[{at}]");
        let name = text(mount, &["name"]);
        if name.is_empty() {
            errors.required(format!("{place}.name"), "");
        } else if !volumes.contains_key(name) {
            errors.not_found(format!("{place}.name"), &Value::from(name));
        }
        let path = text(mount, &["mountPath"]);
        if path.is_empty() {
            errors.required(format!("{place}.mountPath"), "");
        } else if !mounted.insert(path) {
            errors.invalid(format!("{place}.mountPath"), &Value::from(path), "must be unique");
        }
        if text(mount, &["subPath"]).split('/').any(|part| part == "..") {
            errors.invalid(
                format!("{place}.subPath"),
                crate::tree::at(mount, &["subPath"]),
                "must not contain '..'",
            );
        }
    }
}
