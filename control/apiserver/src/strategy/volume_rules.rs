//! Validation of a pod's volumes.

use std::collections::HashMap;

use serde_json::Value;

use crate::tree::{list, text};
use crate::validate::{self, Errors};

/// Volumes that containers may mount, by name.
pub type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// Checks the volumes of a pod spec at `here`.
pub fn validate_volumes<'a>(spec: &'a Value, here: &str, errors: &mut Errors) -> Volumes<'a> {
    let mut volumes = Volumes::new();
    for (at, volume) in list(spec, &["volumes"]).iter().enumerate() {
        let place = format!("{here}.volumes[{at}]");
        let name = text(volume, &["name"]);
        if name.is_empty() {
            errors.required(format!("{place}.name"), "");
            continue;
        }
        errors.check(format!("{place}.name"), name, validate::label);
        if volumes.insert(name, volume).is_some() {
            errors.duplicate(format!("{place}.name"), &Value::from(name));
        }
        let sources: Vec<&String> =
            volume.as_object().into_iter().flat_map(|v| v.keys()).filter(|k| *k != "name").collect();
        if let [_, second, ..] = sources.as_slice() {
            errors.forbidden(format!("{place}.{second}"), "may not specify more than 1 volume type");
        }
        let needed: &[(&[&str], &str)] = &[
            (&["configMap"], "name"),
            (&["secret"], "secretName"),
            (&["hostPath"], "path"),
            (&["persistentVolumeClaim"], "claimName"),
        ];
        for (source, field) in needed {
            let source_value = crate::tree::at(volume, source);
            if source_value.is_object() && text(source_value, &[field]).is_empty() {
                errors.required(format!("{place}.{}.{field}", source.join(".")), "");
            }
        }
    }
    volumes
}
