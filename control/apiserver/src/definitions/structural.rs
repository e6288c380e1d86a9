//! A schema must be structural: every place has one type, said outside of `allOf`, `anyOf`, `oneOf` and `not`.

use regex::Regex;
use serde_json::{Value, json};

use super::alternatives::junctions;
use super::compile;
use crate::schema::{apply_defaults, check, decode};
use crate::tree::{at, fields, flag, list, text};
use crate::validate::Errors;

/// Schemas may be this deep.
pub const MAX_DEPTH: usize = 100;

/// Checks an `openAPIV3Schema` at `here`.
pub fn validate(here: &str, schema: &Value, errors: &mut Errors) {
    match text(schema, &["type"]) {
        "object" => {}
        "" => errors.required(format!("{here}.type"), "must not be empty at the root"),
        other => errors.invalid(format!("{here}.type"), &json!(other), "must be object at the root"),
    }
    if flag(schema, &["nullable"]) {
        errors.forbidden(format!("{here}.nullable"), "nullable cannot be true at the root");
    }
    let before = errors.len();
    structure(here, schema, Place::Root, 0, errors);
    // Defaults are checked with the compiled schema, which only a sound one has.
    if errors.len() == before {
        defaults(here, schema, errors);
    }
}

/// What a schema is the schema of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    Value,
}

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// What is not part of structural schemas.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("$ref", "$ref is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("id", "id is not supported"),
    ("$schema", "$schema is not supported"),
];

fn structure(here: &str, schema: &Value, place: Place, depth: usize, errors: &mut Errors) {
    if depth > MAX_DEPTH {
        return errors.forbidden(here, &format!("schemas may not be deeper than {MAX_DEPTH} levels"));
    }
    if !schema.is_object() {
        return errors.forbidden(here, "must be a schema object");
    }
    for (field, detail) in UNSUPPORTED {
        if !at(schema, &[field]).is_null() {
            errors.forbidden(format!("{here}.{field}"), detail);
        }
    }
    validate_type(here, schema, place, errors);
    validate_extensions(here, schema, errors);
    values(here, schema, errors);
    if flag(schema, &["uniqueItems"]) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(format!("{here}.uniqueItems"), detail);
    }
    for (name, field) in fields(schema, &["properties"]) {
        let below = format!("{here}.properties[{name}]");
        if name == "metadata" && (place == Place::Root || flag(schema, &["x-kubernetes-embedded-resource"])) {
            metadata(&below, field, errors);
        } else {
            structure(&below, field, Place::Field, depth + 1, errors);
        }
    }
    match at(schema, &["items"]) {
        Value::Null => {}
        Value::Array(_) => {
            errors.forbidden(format!("{here}.items"), "items must be a schema object and not an array");
        }
        items => structure(&format!("{here}.items"), items, Place::Item, depth + 1, errors),
    }
    match at(schema, &["additionalProperties"]) {
        Value::Null | Value::Bool(true) => {}
        Value::Bool(false) => {
            let detail = "additionalProperties cannot be set to false";
            errors.forbidden(format!("{here}.additionalProperties"), detail);
        }
        values => structure(&format!("{here}.additionalProperties"), values, Place::Value, depth + 1, errors),
    }
    if at(schema, &["properties"]).is_object() && !at(schema, &["additionalProperties"]).is_null() {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(format!("{here}.additionalProperties"), detail);
    }
    junctions(here, schema, schema, depth, errors);
}

fn validate_type(here: &str, schema: &Value, place: Place, errors: &mut Errors) {
    let kind = text(schema, &["type"]);
    let int_or_string = flag(schema, &["x-kubernetes-int-or-string"]);
    let open = flag(schema, &["x-kubernetes-preserve-unknown-fields"]);
    let (here, items) = (format!("{here}.type"), format!("{here}.items"));
    match kind {
        "" if int_or_string || open || place == Place::Root => {}
        "" => {
            let detail = match place {
                Place::Item => "must not be empty for specified array items",
                _ => "must not be empty for specified object fields",
            };
            errors.required(here, detail);
        }
        _ if int_or_string => {
            errors.forbidden(here, "must be empty if x-kubernetes-int-or-string is true");
        }
        "null" => errors.forbidden(here, "type cannot be set to null, use nullable as an alternative"),
        kind => errors.one_of(here, kind, TYPES),
    }
    if kind == "array" && at(schema, &["items"]).is_null() {
        errors.required(items, "must be specified");
    }
}

fn validate_extensions(here: &str, schema: &Value, errors: &mut Errors) {
    let kind = text(schema, &["type"]);
    let open = at(schema, &["x-kubernetes-preserve-unknown-fields"]);
    if *open == false {
        let detail = "must be true or undefined";
        errors.invalid(format!("{here}.x-kubernetes-preserve-unknown-fields"), open, detail);
    }
    if flag(schema, &["x-kubernetes-embedded-resource"]) {
        let here = format!("{here}.x-kubernetes-embedded-resource");
        if kind != "object" {
            errors.invalid(&*here, &json!(true), "must be used with type object only");
        }
        if *open != true && fields(schema, &["properties"]).next().is_none() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.required(here.replace("x-kubernetes-embedded-resource", "properties"), detail);
        }
    }
    let map_type = text(schema, &["x-kubernetes-map-type"]);
    errors.one_of(format!("{here}.x-kubernetes-map-type"), map_type, &["atomic", "granular"]);
    if !map_type.is_empty() && kind != "object" {
        errors.invalid(
            format!("{here}.type"),
            &json!(kind),
            "must be object if x-kubernetes-map-type is specified",
        );
    }
    validate_list(here, schema, errors);
}

fn validate_list(here: &str, schema: &Value, errors: &mut Errors) {
    let list_type = text(schema, &["x-kubernetes-list-type"]);
    errors.one_of(format!("{here}.x-kubernetes-list-type"), list_type, &["atomic", "map", "set"]);
    if !list_type.is_empty() && text(schema, &["type"]) != "array" {
        let kind = text(schema, &["type"]);
        errors.invalid(
            format!("{here}.type"),
            &json!(kind),
            "must be array if x-kubernetes-list-type is specified",
        );
    }
    let keys = list(schema, &["x-kubernetes-list-map-keys"]);
    let here_keys = format!("{here}.x-kubernetes-list-map-keys");
    if list_type != "map" {
        if !keys.is_empty() {
            errors.required(
                format!("{here}.x-kubernetes-list-type"),
                "must be map if x-kubernetes-list-map-keys is non-empty",
            );
        }
        return;
    }
    if keys.is_empty() {
        return errors.required(here_keys, "must not be empty if x-kubernetes-list-type is map");
    }
    let items = at(schema, &["items"]);
    if text(items, &["type"]) != "object" {
        let kind = text(items, &["type"]);
        errors.invalid(
            format!("{here}.items.type"),
            &json!(kind),
            "must be object if parent array's x-kubernetes-list-type is map",
        );
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let field = at(items, &["properties", name]);
        let here_field = format!("{here}.items.properties[{name}]");
        if field.is_null() {
            errors.invalid(
                format!("{here_keys}[{index}]"),
                key,
                "entries must all be names of item properties",
            );
            continue;
        }
        if matches!(text(field, &["type"]), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(format!("{here_field}.type"), &json!(text(field, &["type"])), detail);
        }
        let required = list(items, &["required"]).contains(key);
        if !required && at(field, &["default"]).is_null() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(format!("{here_field}.default"), detail);
        }
    }
}

/// Rules whose own form may be wrong.
pub fn values(here: &str, schema: &Value, errors: &mut Errors) {
    let pattern = text(schema, &["pattern"]);
    if !pattern.is_empty()
        && let Err(error) = Regex::new(pattern)
    {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim();
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(format!("{here}.pattern"), &json!(pattern), &detail);
    }
    for field in ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] {
        if let Some(number) = at(schema, &[field]).as_i64() {
            errors.not_negative(format!("{here}.{field}"), Some(number));
        }
    }
    if at(schema, &["multipleOf"]).as_f64().is_some_and(|number| number <= 0.0) {
        errors.invalid(format!("{here}.multipleOf"), at(schema, &["multipleOf"]), "must be greater than 0");
    }
}

/// Metadata has a structure already; only names can be restricted further.
fn metadata(here: &str, schema: &Value, errors: &mut Errors) {
    let kind = text(schema, &["type"]);
    if kind != "object" {
        errors.invalid(format!("{here}.type"), &json!(kind), "must be object");
    }
    let known = |name: &str| matches!(name, "name" | "generateName");
    let allowed = |name: &str| matches!(name, "type" | "properties" | "description");
    let own = schema.as_object().into_iter().flatten();
    let odd = own.map(|(name, _)| name.as_str()).find(|name| !allowed(name));
    let odd_field = fields(schema, &["properties"]).map(|(name, _)| name).find(|name| !known(name));
    if odd.or(odd_field).is_some() {
        errors.forbidden(here, "must not specify anything other than name and generateName, but metadata is implicitly specified");
    }
}

/// A default must be valid itself, and know no unknown fields.
fn defaults(here: &str, schema: &Value, errors: &mut Errors) {
    if let Some(default) = schema.get("default") {
        let here = format!("{here}.default");
        // The schema of the one field `default`, so that errors name it.
        let node = compile::root(&json!({ "type": "object", "properties": { "default": schema } }));
        let given = json!({ "default": default });
        match decode::from_value(&node, &given) {
            Err(error) => errors.invalid(&*here, default, &error.to_string()),
            Ok(decoded) => {
                for strange in &decoded.strange {
                    errors.invalid(&*here, default, &format!("must be pruned to be valid: {strange}"));
                }
                let mut value = decoded.value;
                apply_defaults(&node, &mut value);
                let mut found = Errors::default();
                check(&node, &value, None, &mut found);
                for cause in found.into_causes() {
                    errors.invalid(&*here, default, &cause.message);
                }
            }
        }
    }
    for (name, field) in fields(schema, &["properties"]) {
        defaults(&format!("{here}.properties[{name}]"), field, errors);
    }
    for name in ["items", "additionalProperties"] {
        if at(schema, &[name]).is_object() {
            defaults(&format!("{here}.{name}"), at(schema, &[name]), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(spec: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate("s", &json!({ "type": "object", "properties": { "spec": spec } }), &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_structural_schema_is_taken() {
        for spec in [
            json!({ "type": "string", "pattern": "^a", "default": "ab" }),
            json!({ "x-kubernetes-preserve-unknown-fields": true }),
            json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] }),
            json!({ "type": "object", "properties": { "a": { "type": "integer" } }, "oneOf": [{ "required": ["a"] }, { "properties": { "a": { "minimum": 1 } } }] }),
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                    "items": { "type": "object", "required": ["a"], "properties": { "a": { "type": "string" } } } }),
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        ] {
            assert_eq!(broken(spec.clone()), [""; 0], "{spec}");
        }
    }

    #[test]
    fn what_is_not_structural_is_named() {
        for (spec, want) in [
            (
                json!({}),
                "s.properties[spec].type: Required value: must not be empty for specified object fields",
            ),
            (json!({ "type": "array" }), "s.properties[spec].items: Required value: must be specified"),
            (
                json!({ "type": "array", "items": {} }),
                "s.properties[spec].items.type: Required value: must not be empty for specified array items",
            ),
            (
                json!({ "type": "text" }),
                "s.properties[spec].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ),
            (
                json!({ "type": "string", "$ref": "#/x" }),
                "s.properties[spec].$ref: Forbidden: $ref is not supported",
            ),
            (
                json!({ "type": "object", "additionalProperties": false }),
                "s.properties[spec].additionalProperties: Forbidden: additionalProperties cannot be set to false",
            ),
            (
                json!({ "type": "object", "properties": {}, "additionalProperties": true }),
                "s.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                json!({ "type": "object", "anyOf": [{ "type": "object" }] }),
                "s.properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({ "type": "object", "allOf": [{ "properties": { "a": {} } }] }),
                "s.properties[spec].allOf[0].properties[a]: Required value: because it is defined in an alternative, it must be defined in the structure as well",
            ),
            (
                json!({ "x-kubernetes-int-or-string": true, "oneOf": [{ "type": "string" }] }),
                "s.properties[spec].oneOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({ "type": "string", "x-kubernetes-int-or-string": true }),
                "s.properties[spec].type: Forbidden: must be empty if x-kubernetes-int-or-string is true",
            ),
            (
                json!({ "type": "array", "items": { "type": "string" }, "uniqueItems": true }),
                "s.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ),
            (
                json!({ "type": "array", "items": { "type": "object" }, "x-kubernetes-list-type": "map" }),
                "s.properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ),
            (
                json!({ "type": "integer", "default": "x" }),
                "s.properties[spec].default: Invalid value: \"x\": Invalid value: \"string\": default in body must be of type integer: \"string\"",
            ),
            (
                json!({ "type": "object", "default": { "a": 1 } }),
                "s.properties[spec].default: Invalid value: {\"a\":1}: must be pruned to be valid: unknown field \"default.a\"",
            ),
            (
                json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": false }),
                "s.properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ),
        ] {
            assert_eq!(broken(spec.clone()), [want], "{spec}");
        }
        let pattern = broken(json!({ "type": "string", "pattern": "(" }));
        assert!(pattern[0].contains("must be a valid regular expression"), "{pattern:?}");
    }

    #[test]
    fn metadata_can_only_restrict_names() {
        let told = |metadata: Value| {
            let mut errors = Errors::default();
            validate("s", &json!({ "type": "object", "properties": { "metadata": metadata } }), &mut errors);
            errors.len()
        };
        assert_eq!(told(json!({ "type": "object" })), 0);
        assert_eq!(
            told(json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": 3 } } })),
            0
        );
        assert_eq!(told(json!({ "type": "object", "properties": { "labels": { "type": "object" } } })), 1);
    }

    #[test]
    fn a_schema_without_end_is_refused() {
        let mut spec = json!({ "type": "string" });
        for _ in 0..200 {
            spec = json!({ "type": "object", "properties": { "a": spec } });
        }
        assert_eq!(broken(spec).len(), 1);
    }
}
