//! Schemas of custom resources for OpenAPI, made from the stored definition each time somebody asks.

use serde_json::{Map, Value, json};

use super::openapi::Form;
use crate::resources::{Custom, Row};
use crate::tree::{at, flag, list as list_of, text};

/// The published name of a custom kind, such as `com.example.stable.v1.CronTab`.
pub fn type_name(row: &Row, kind: &str) -> String {
    let mut parts: Vec<&str> = row.group.split('.').rev().collect();
    parts.extend([&*row.version, kind]);
    parts.join(".")
}

/// The definitions of a custom kind and of its list.
pub fn definitions(row: &Row, custom: &Custom, form: Form) -> [(String, Value); 2] {
    let version = custom.version();
    let name = type_name(row, &row.kind);
    let mut own = whole(at(&version, &["schema", "openAPIV3Schema"]), form);
    let mut items = described(json!({ "type": "array" }), &format!("All {} of the list.", row.plural));
    items["items"] = form.bare_reference(&name);
    let mut list =
        described(json!({ "type": "object" }), &format!("{} is a list of {}", row.list_kind, row.kind));
    list["required"] = json!(["items"]);
    list["properties"] = type_meta(API_VERSION, KIND);
    list["properties"]["items"] = items;
    list["properties"]["metadata"] = described(form.reference(LIST_META), "Standard list metadata.");
    let selectable: Value = list_of(&version, &["selectableFields"])
        .iter()
        .map(|field| json!({ "fieldPath": text(field, &["jsonPath"]).trim_start_matches('.') }))
        .collect();
    for (kind, definition) in [(&row.kind, &mut own), (&row.list_kind, &mut list)] {
        definition["x-kubernetes-group-version-kind"] =
            json!([{ "group": row.group, "version": row.version, "kind": kind }]);
        if selectable.as_array().is_some_and(|fields| !fields.is_empty()) {
            definition["x-kubernetes-selectable-fields"] = selectable.clone();
        }
    }
    [(name, own), (type_name(row, &row.list_kind), list)]
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const API_VERSION: &str = "APIVersion defines the group and version of the schema this object is written in.";
const KIND: &str = "Kind of this object, in CamelCase; it cannot be changed.";
const METADATA: &str = "Standard object's metadata.";

fn described(mut node: Value, text: &str) -> Value {
    node["description"] = json!(text);
    node
}

/// The fields that say what an object is.
fn type_meta(version: &str, kind: &str) -> Value {
    json!({ "apiVersion": { "type": "string", "description": version }, "kind": { "type": "string", "description": kind } })
}

/// The schema of whole objects: as given, with what every object has.
fn whole(given: &Value, form: Form) -> Value {
    // Fields of version 2 say that nothing else is there, which is not true of an open root.
    if !given.is_object() || form == Form::V2 && flag(given, &[OPEN]) {
        return json!({ "type": "object" });
    }
    let mut out = published(given, form);
    add_properties(&mut out, type_meta(API_VERSION, KIND), form);
    out
}

fn add_properties(node: &mut Value, type_meta: Value, form: Form) {
    if !node["properties"].is_object() {
        node["properties"] = json!({});
    }
    for field in ["apiVersion", "kind"] {
        node["properties"][field] = type_meta[field].clone();
    }
    node["properties"]["metadata"] = described(form.reference(OBJECT_META), METADATA);
}

const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const EITHER: &str = "x-kubernetes-int-or-string";
const JUNCTORS: &[&str] = &["allOf", "anyOf", "not", "oneOf"];

/// A schema as a document of this form has it, with all that is below it.
fn published(given: &Value, form: Form) -> Value {
    let Value::Object(fields) = given else { return given.clone() };
    let below = |(name, value): (&String, &Value)| {
        let value = match (name.as_str(), value) {
            ("properties", Value::Object(own)) => {
                own.iter().map(|(name, field)| (name.clone(), published(field, form))).collect()
            }
            ("items" | "additionalProperties", value) => published(value, form),
            (_, value) => value.clone(),
        };
        (name.clone(), value)
    };
    let mut out: Map<String, Value> = fields.iter().map(below).collect();
    match form {
        Form::V2 => reduce(given, &mut out),
        Form::V3 => unfold(given, &mut out),
    }
    let mut out = Value::Object(out);
    if flag(given, &[EMBEDDED]) && !(form == Form::V2 && flag(given, &[OPEN])) {
        embed(&mut out, form);
    }
    out
}

/// Says of an object within an object what every object has, and must have.
fn embed(node: &mut Value, form: Form) {
    add_properties(node, type_meta("Group and version of the object.", "Kind of the object."), form);
    let mut required = list_of(node, &["required"]).to_vec();
    for field in ["kind", "apiVersion"] {
        if !required.contains(&json!(field)) {
            required.push(json!(field));
        }
    }
    node["required"] = json!(required);
}

/// Says in plain alternatives what a place for numbers and strings takes.
fn unfold(given: &Value, out: &mut Map<String, Value>) {
    let either = json!([{ "type": "integer" }, { "type": "string" }]);
    if !flag(given, &[EITHER]) || given["anyOf"] == either || given["allOf"][0]["anyOf"] == either {
        return;
    }
    if given["anyOf"].is_null() {
        out.insert("anyOf".to_owned(), either);
    } else {
        let rest = list_of(given, &["allOf"]).iter().cloned();
        out.insert("allOf".to_owned(), std::iter::once(json!({ "anyOf": either })).chain(rest).collect());
    }
}

/// Leaves out what version 2 does not know, or its clients understand wrongly: alternatives, null, objects that are open.
/// Such places have no type there. Defaults are left out of all of version 2.
fn reduce(given: &Value, out: &mut Map<String, Value>) {
    out.retain(|name, _| !JUNCTORS.contains(&name.as_str()) && name != "default" && name != "nullable");
    let (open, nullable) = (flag(given, &[OPEN]), flag(given, &["nullable"]));
    if open || nullable {
        out.shift_remove("items");
        out.shift_remove("properties");
    }
    let kind = text(given, &["type"]);
    if nullable || kind == "array" && !out.contains_key("items") || open && kind == "object" {
        out.shift_remove("type");
    }
    let is_null = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        out.contains_key("properties") && flag(given, &["properties", name, "nullable"])
    };
    let all = list_of(given, &["required"]);
    let required: Vec<Value> = all.iter().filter(|name| !is_null(name)).cloned().collect();
    if required.is_empty() || flag(given, &["additionalProperties", "nullable"]) {
        out.shift_remove("required");
    } else {
        out.insert("required".to_owned(), json!(required));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_is_told_only_what_it_understands() {
        let given = json!({ "type": "object", "required": ["a", "b"], "oneOf": [{ "required": ["b"] }], "properties": {
            "a": { "type": "string", "nullable": true, "description": "d", "default": "x" },
            "b": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] },
            "c": { "type": "object", "required": ["x"], "x-kubernetes-preserve-unknown-fields": true,
                   "properties": { "x": { "type": "string" } } },
            "d": { "type": "array", "items": { "type": "object", "additionalProperties": { "type": "string", "nullable": true } } } } });
        let want = json!({ "type": "object", "required": ["b"], "properties": {
            "a": { "description": "d" }, "b": { "x-kubernetes-int-or-string": true },
            "c": { "required": ["x"], "x-kubernetes-preserve-unknown-fields": true },
            "d": { "type": "array", "items": { "type": "object", "additionalProperties": {} } } } });
        assert_eq!(published(&given, Form::V2), want);
    }

    #[test]
    fn an_open_root_is_an_object_and_nothing_more_in_version_two() {
        let given =
            json!({ "type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": true });
        assert_eq!(whole(&given, Form::V2), json!({ "type": "object" }));
        assert_eq!(whole(&given, Form::V3)["description"], "d");
    }

    #[test]
    fn version_three_names_what_is_implied() {
        let either = json!([{ "type": "integer" }, { "type": "string" }]);
        let of = |given: Value| published(&given, Form::V3);
        assert_eq!(of(json!({ "x-kubernetes-int-or-string": true }))["anyOf"], either);
        let both = of(json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "minimum": 1 }] }));
        assert_eq!(both["allOf"], json!([{ "anyOf": either }]));
        let inner =
            of(json!({ "type": "object", "x-kubernetes-embedded-resource": true, "required": ["spec"] }));
        assert_eq!(inner["required"], json!(["spec", "kind", "apiVersion"]));
        assert_eq!(inner["properties"]["kind"]["type"], "string");
    }
}
