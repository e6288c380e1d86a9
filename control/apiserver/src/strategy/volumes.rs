//! Defaults of volumes.

use serde_json::{Value, json};

use super::pod_spec::pull_policy;
use crate::tree::{list_mut, set_default, text};

const DEFAULT_MODE: i64 = 0o644;
/// A projected token lives an hour unless it asks for something else.
const TOKEN_SECONDS: i64 = 3600;

pub fn default_volume(volume: &mut Value) {
    let Some(fields) = volume.as_object_mut() else { return };
    if fields.keys().all(|name| name == "name") {
        fields.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = fields.get_mut(source) {
            set_default(source, &["defaultMode"], DEFAULT_MODE);
        }
    }
    if let Some(downward) = fields.get_mut("downwardAPI") {
        default_field_refs(downward);
    }
    if let Some(projected) = fields.get_mut("projected") {
        for source in list_mut(projected, &["sources"]) {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                set_default(token, &["expirationSeconds"], TOKEN_SECONDS);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                default_field_refs(downward);
            }
        }
    }
    if let Some(image) = fields.get_mut("image") {
        let policy = pull_policy(text(image, &["reference"]));
        set_default(image, &["pullPolicy"], policy);
    }
    if let Some(host) = fields.get_mut("hostPath") {
        host.as_object_mut().map(|host| host.entry("type").or_insert_with(|| json!("")));
    }
    if let Some(claim) = fields.get_mut("ephemeral").and_then(|e| e.pointer_mut("/volumeClaimTemplate/spec"))
    {
        set_default(claim, &["volumeMode"], "Filesystem");
    }
}

fn default_field_refs(downward: &mut Value) {
    for item in list_mut(downward, &["items"]) {
        if let Some(field) = item.get_mut("fieldRef") {
            set_default(field, &["apiVersion"], "v1");
        }
    }
}
