//! A small valid object of every kind.

use serde_json::{Value, json};

/// Group and version, plural, whether it is namespaced, and the object; from `objects.json`.
pub fn all() -> Vec<(&'static str, &'static str, bool, Value)> {
    serde_json::from_str(include_str!("objects.json")).unwrap()
}

/// The same of kinds and versions of beta and alpha; from `previews.json`.
pub fn previews() -> Vec<(&'static str, &'static str, bool, Value)> {
    serde_json::from_str(include_str!("previews.json")).unwrap()
}

/// Path of a collection in the namespace `default`.
pub fn collection(version: &str, plural: &str, namespaced: bool) -> String {
    let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    if namespaced { format!("{root}/namespaces/default/{plural}") } else { format!("{root}/{plural}") }
}

/// The object with its version and this name.
pub fn named(version: &str, mut object: Value, name: &str) -> Value {
    object["apiVersion"] = json!(version);
    object["metadata"] = json!({ "name": name });
    object
}

/// A pod with these labels.
pub fn pod(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
           "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

/// A ConfigMap with one value.
pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": value}})
}
