//! Schemas of custom resources for OpenAPI, made from the stored definition each time somebody asks.

use serde_json::{Map, Value, json};

use super::openapi::Form;
use crate::resources::{Custom, Row};
use crate::tree::{at, flag};

/// The published name of a custom kind, such as `com.example.stable.v1.CronTab`.
pub fn type_name(row: &Row, kind: &str) -> String {
    let mut parts: Vec<&str> = row.group.split('.').rev().collect();
    parts.extend([&*row.version, kind]);
    parts.join(".")
}

/// The definitions of a custom kind and of its list.
pub fn definitions(row: &Row, custom: &Custom, form: Form) -> [(String, Value); 2] {
    let version = custom.version();
    let own = whole(row, at(&version, &["schema", "openAPIV3Schema"]), form);
    let name = type_name(row, &row.kind);
    let list = json!({
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string", "description": API_VERSION }, "kind": { "type": "string", "description": KIND },
            "items": { "type": "array", "items": form.reference(&name) },
            "metadata": described(form.reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"), "Standard list metadata."),
        },
        "x-kubernetes-group-version-kind": [gvk(row, &row.list_kind)],
    });
    [(name, own), (type_name(row, &row.list_kind), list)]
}

const API_VERSION: &str = "Group and version of the schema this object is written in.";
const KIND: &str = "Kind of this object, in CamelCase; it cannot be changed.";

fn gvk(row: &Row, kind: &str) -> Value {
    json!({ "group": row.group, "version": row.version, "kind": kind })
}

fn described(mut node: Value, text: &str) -> Value {
    node["description"] = json!(text);
    node
}

/// The schema of whole objects: as given, with what every object has.
fn whole(row: &Row, given: &Value, form: Form) -> Value {
    let mut out = if form == Form::V2 { reduced(given) } else { given.clone() };
    if !out.is_object() {
        out = json!({ "type": "object" });
    }
    out["x-kubernetes-group-version-kind"] = json!([gvk(row, &row.kind)]);
    // Fields of version 2 say that nothing else is there, which is not true of an open root.
    if form == Form::V2 && flag(given, &["x-kubernetes-preserve-unknown-fields"]) {
        return out;
    }
    if !out["properties"].is_object() {
        out["properties"] = json!({});
    }
    let metadata = form.reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    out["properties"]["apiVersion"] = json!({ "type": "string", "description": API_VERSION });
    out["properties"]["kind"] = json!({ "type": "string", "description": KIND });
    out["properties"]["metadata"] = described(metadata, "Standard object's metadata.");
    out
}

/// What clients of version 2 understand wrongly.
const NOT_IN_V2: &[&str] = &["allOf", "anyOf", "default", "not", "nullable", "oneOf"];

/// A schema in version 2, which knows neither alternatives nor null nor open objects: such places have no type there.
fn reduced(given: &Value) -> Value {
    let Value::Object(fields) = given else { return given.clone() };
    let open = flag(given, &["x-kubernetes-preserve-unknown-fields"]);
    let untyped = open || flag(given, &["nullable"]) || flag(given, &["x-kubernetes-int-or-string"]);
    let mut out = Map::new();
    for (name, value) in fields {
        let structure = matches!(name.as_str(), "type" | "properties" | "items" | "additionalProperties");
        if NOT_IN_V2.contains(&name.as_str()) || (untyped && structure) || (open && name == "required") {
            continue;
        }
        let value = match (name.as_str(), value) {
            ("properties", Value::Object(own)) => {
                own.iter().map(|(name, field)| (name.clone(), reduced(field))).collect()
            }
            ("items" | "additionalProperties", value) => reduced(value),
            (_, value) => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_is_told_only_what_it_understands() {
        let given = json!({ "type": "object", "required": ["a"], "oneOf": [{ "required": ["b"] }], "properties": {
            "a": { "type": "string", "nullable": true, "description": "d", "default": "x" },
            "b": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] },
            "c": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": { "x": { "type": "string" } } },
            "d": { "type": "array", "items": { "type": "object", "additionalProperties": { "type": "string", "nullable": true } } } } });
        let want = json!({ "type": "object", "required": ["a"], "properties": {
            "a": { "description": "d" }, "b": { "x-kubernetes-int-or-string": true },
            "c": { "x-kubernetes-preserve-unknown-fields": true },
            "d": { "type": "array", "items": { "type": "object", "additionalProperties": {} } } } });
        assert_eq!(reduced(&given), want);
    }
}
