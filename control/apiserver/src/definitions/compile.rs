//! From the schema of a CustomResourceDefinition to the tree that decoding, defaults, field ownership and checks walk.
//!
//! Descriptions and everything else that only documents are left behind. What a valid definition cannot hold is not
//! looked at: a definition is checked before it is stored.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::name::Name;
use crate::schema::rules::{Format, Pattern, Rule, Rules};
use crate::schema::{ListType, Node, Shape, Type, schema};
use crate::tree::{at, fields, flag, list, text};

/// The node of whole objects of a version with this `openAPIV3Schema`.
pub fn root(given: &Value) -> Node {
    let mut names = Names::default();
    let mut node = names.node(given);
    // Without a schema everything is kept.
    if !matches!(node.shape, Shape::Struct(_)) {
        node.shape = names.object(given, true);
    }
    names.identify(&mut node, given);
    node
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Makes every name of one schema once.
#[derive(Default)]
struct Names(HashSet<Name>);

impl Names {
    fn keep(&mut self, word: &str) -> Name {
        if let Some(known) = self.0.get(word) {
            return known.clone();
        }
        let name = Name::from(word);
        self.0.insert(name.clone());
        name
    }

    fn words(&mut self, schema: &Value, field: &str) -> Vec<Name> {
        list(schema, &[field]).iter().filter_map(Value::as_str).map(|word| self.keep(word)).collect()
    }

    fn node(&mut self, schema: &Value) -> Node {
        let rules = self.rules(schema, true);
        let mut node = Node {
            default: schema.get("default").map(|default| Box::new(default.clone())),
            list: match text(schema, &["x-kubernetes-list-type"]) {
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::Atomic,
            },
            keys: self.words(schema, "x-kubernetes-list-map-keys"),
            atomic: text(schema, &["x-kubernetes-map-type"]) == "atomic",
            custom: true,
            nullable: flag(schema, &["nullable"]),
            rules: (!rules.is_empty()).then(|| Box::new(rules)),
            ..Node::of(self.shape(schema))
        };
        if flag(schema, &["x-kubernetes-embedded-resource"]) {
            self.identify(&mut node, schema);
        }
        node
    }

    fn shape(&mut self, schema: &Value) -> Shape {
        if flag(schema, &["x-kubernetes-int-or-string"]) {
            return Shape::IntOrString;
        }
        match text(schema, &["type"]) {
            "string" => Shape::String,
            "boolean" => Shape::Bool,
            "integer" => Shape::Int64,
            "number" => Shape::Number,
            "array" => Shape::List(Box::new(self.node(at(schema, &["items"])))),
            "object" => match at(schema, &["additionalProperties"]) {
                Value::Object(_) => Shape::Map(Box::new(self.node(at(schema, &["additionalProperties"])))),
                Value::Bool(true) => Shape::Map(Box::new(Node::of(Shape::Any))),
                _ => self.object(schema, false),
            },
            _ => Shape::Any,
        }
    }

    fn object(&mut self, schema: &Value, open: bool) -> Shape {
        let mut own: Vec<(Name, Node)> = fields(schema, &["properties"])
            .map(|(name, field)| (self.keep(name), self.node(field)))
            .collect();
        own.sort_by(|(a, _), (b, _)| a.cmp(b));
        own.shrink_to_fit();
        Shape::Struct(Box::new(Type {
            name: self.keep(""),
            kind: None,
            fields: own,
            required: Vec::new(),
            atomic: false,
            open: open || flag(schema, &["x-kubernetes-preserve-unknown-fields"]),
        }))
    }

    /// Gives an object the fields that say what it is, whatever the schema says about them.
    fn identify(&mut self, node: &mut Node, given: &Value) {
        // Names may be restricted further than the server does.
        let rules = self.rules(at(given, &["properties", "metadata"]), false);
        let Shape::Struct(own) = &mut node.shape else { return };
        let metadata = schema().named(OBJECT_META).expect("the table has the type of metadata");
        for (name, shape) in
            [("apiVersion", Shape::String), ("kind", Shape::String), ("metadata", Shape::Object(metadata))]
        {
            own.fields.retain(|(known, _)| *known != *name);
            own.fields.push((self.keep(name), Node::of(shape)));
        }
        own.fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        if !rules.is_empty() {
            node.rules.get_or_insert_default().push(Rule::Field(self.keep("metadata"), rules));
        }
    }

    /// The rules of a place. Where the schema is no structure of its own, those of the places below come along.
    fn rules(&mut self, schema: &Value, structure: bool) -> Rules {
        let mut out: Rules = self.words(schema, "required").into_iter().map(Rule::Required).collect();
        let Value::Object(given) = schema else { return out };
        scalars(given, &mut out);
        if let Some(Value::Array(known)) = given.get("enum") {
            out.push(Rule::Enum(known.clone()));
        }
        if flag(schema, &["x-kubernetes-embedded-resource"]) {
            out.push(Rule::Embedded);
        }
        for (name, rule) in
            [("allOf", Rule::AllOf as fn(_) -> _), ("anyOf", Rule::AnyOf), ("oneOf", Rule::OneOf)]
        {
            let all: Vec<Rules> = list(schema, &[name]).iter().map(|one| self.rules(one, false)).collect();
            if !all.is_empty() {
                out.push(rule(all));
            }
        }
        if let Some(not) = given.get("not") {
            out.push(Rule::Not(self.rules(not, false)));
        }
        if !structure {
            for (name, field) in fields(schema, &["properties"]) {
                let rules = self.rules(field, false);
                if !rules.is_empty() {
                    out.push(Rule::Field(self.keep(name), rules));
                }
            }
            for (name, rule) in [("items", Rule::Items as fn(_) -> _), ("additionalProperties", Rule::Values)]
            {
                let rules = self.rules(at(schema, &[name]), false);
                if !rules.is_empty() {
                    out.push(rule(rules));
                }
            }
        }
        out.shrink_to_fit();
        out
    }
}

/// Rules that hold one number or word.
fn scalars(given: &Map<String, Value>, out: &mut Rules) {
    let whole = |name: &str| given.get(name).and_then(Value::as_u64);
    let number = |name: &str| given.get(name).and_then(Value::as_number).cloned();
    let exclusive = |name: &str| given.get(name) == Some(&Value::Bool(true));
    let word = |name: &str| given.get(name).and_then(Value::as_str);
    out.extend(word("format").and_then(Format::named).map(Rule::Format));
    out.extend(word("pattern").map(|text| Rule::Pattern(Pattern::new(text))));
    for (name, rule) in [
        ("minLength", Rule::MinLength as fn(u64) -> Rule),
        ("maxLength", Rule::MaxLength),
        ("minItems", Rule::MinItems),
        ("maxItems", Rule::MaxItems),
        ("minProperties", Rule::MinProperties),
        ("maxProperties", Rule::MaxProperties),
    ] {
        out.extend(whole(name).map(rule));
    }
    let minimum = if exclusive("exclusiveMinimum") { Rule::AboveMinimum } else { Rule::Minimum };
    let maximum = if exclusive("exclusiveMaximum") { Rule::BelowMaximum } else { Rule::Maximum };
    out.extend(number("minimum").map(minimum));
    out.extend(number("maximum").map(maximum));
    out.extend(number("multipleOf").map(Rule::MultipleOf));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::decode::from_value;
    use crate::schema::{apply_defaults, check};
    use crate::validate::Errors;

    fn decoded(spec: &Value, value: &Value) -> (Value, Vec<String>) {
        let node = root(&json!({ "type": "object", "properties": { "spec": spec } }));
        let decoded = from_value(&node, json!({ "spec": value })).unwrap();
        let mut value = decoded.value;
        apply_defaults(&node, &mut value);
        (value["spec"].take(), decoded.strange)
    }

    fn broken(spec: &Value, value: &Value) -> Vec<String> {
        let node = root(&json!({ "type": "object", "properties": { "spec": spec } }));
        let mut errors = Errors::default();
        check(&node, &json!({ "spec": value }), None, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn unknown_fields_are_dropped_unless_the_schema_keeps_them() {
        let known = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
        let given = json!({ "a": "1", "b": { "c": [null] } });
        assert_eq!(
            decoded(&known, &given),
            (json!({ "a": "1" }), vec![r#"unknown field "spec.b""#.to_owned()])
        );
        let mut open = known.clone();
        open["x-kubernetes-preserve-unknown-fields"] = json!(true);
        assert_eq!(decoded(&open, &given), (given.clone(), vec![]));
        let any = json!({ "x-kubernetes-preserve-unknown-fields": true });
        assert_eq!(decoded(&any, &given), (given.clone(), vec![]));
        let map = json!({ "type": "object", "additionalProperties": known });
        assert_eq!(decoded(&map, &json!({ "x": given })).0, json!({ "x": { "a": "1" } }));
        let list = json!({ "type": "array", "items": known });
        assert_eq!(decoded(&list, &json!([given])).1, [r#"unknown field "spec[0].b""#]);
    }

    #[test]
    fn nulls_and_empty_values_are_kept_where_they_may_be() {
        let spec = json!({ "type": "object", "properties": {
            "no": { "type": "string" }, "yes": { "type": "string", "nullable": true },
            "none": { "type": "string", "default": "x" }, "kept": { "type": "string", "nullable": true, "default": "x" },
            "list": { "type": "array", "items": { "type": "string" } }, "map": { "type": "object" } } });
        let given = json!({ "no": null, "yes": null, "none": null, "kept": null, "list": [], "map": {} });
        let want = json!({ "yes": null, "kept": null, "list": [], "map": {}, "none": "x" });
        assert_eq!(decoded(&spec, &given).0, want);
    }

    #[test]
    fn defaults_reach_into_defaults() {
        let leaf = json!({ "type": "integer", "default": 3 });
        let spec = json!({ "type": "object", "default": {}, "properties": {
            "a": { "type": "object", "default": {}, "properties": { "b": leaf } },
            "c": { "type": "array", "items": { "type": "object", "properties": { "b": leaf } } } } });
        assert_eq!(decoded(&spec, &json!({ "c": [{}] })).0, json!({ "a": { "b": 3 }, "c": [{ "b": 3 }] }));
        let node = root(&json!({ "type": "object", "properties": { "spec": spec } }));
        let mut empty = json!({});
        apply_defaults(&node, &mut empty);
        assert_eq!(empty, json!({ "spec": { "a": { "b": 3 } } }));
    }

    #[test]
    fn an_embedded_object_keeps_what_says_what_it_is() {
        let spec = json!({ "type": "object", "x-kubernetes-embedded-resource": true,
            "properties": { "data": { "type": "string" } } });
        let given = json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "a", "odd": 1 }, "data": "x", "odd": 1 });
        let want = json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "a" }, "data": "x" });
        let (value, strange) = decoded(&spec, &given);
        assert_eq!(value, want);
        assert_eq!(strange, [r#"unknown field "spec.metadata.odd""#, r#"unknown field "spec.odd""#]);
        assert_eq!(broken(&spec, &json!({ "kind": "X" })), ["spec.apiVersion: Required value"]);
    }

    /// Schema, value, and what is wrong with it.
    const BROKEN: &str = r#"
{"type":"integer"} | "x" | Invalid value: "string": spec in body must be of type integer: "string"
{"type":"integer"} | null | Invalid value: "null": spec in body must be of type integer: "null"
{"type":"string"} | {"a":1} | Invalid value: "object": spec in body must be of type string: "object"
{"x-kubernetes-int-or-string":true} | true | Invalid value: "boolean": spec in body must be of type integer,string: "boolean"
{"type":"string","pattern":"^a+$"} | "b" | Invalid value: "b": spec in body should match '^a+$'
{"type":"string","enum":["a","b"]} | "c" | Unsupported value: "c": supported values: "a", "b"
{"type":"string","minLength":2} | "ä" | Invalid value: "ä": spec in body should be at least 2 chars long
{"type":"string","maxLength":2} | "abc" | Too long: may not be more than 2 bytes
{"type":"string","format":"date-time"} | "x" | Invalid value: "x": spec in body must be of type date-time: "x"
{"type":"integer","minimum":2} | 1 | Invalid value: 1: spec in body should be greater than or equal to 2
{"type":"integer","minimum":2,"exclusiveMinimum":true} | 2 | Invalid value: 2: spec in body should be greater than 2
{"type":"number","maximum":2.5} | 3 | Invalid value: 3: spec in body should be less than or equal to 2.5
{"type":"integer","maximum":2,"exclusiveMaximum":true} | 2 | Invalid value: 2: spec in body should be less than 2
{"type":"integer","multipleOf":3} | 4 | Invalid value: 4: spec in body should be a multiple of 3
{"type":"array","items":{"type":"string"},"minItems":1} | [] | Invalid value: []: spec in body should have at least 1 items
{"type":"array","items":{"type":"string"},"maxItems":1} | ["a","b"] | Too many: 2: must have at most 1 items
{"type":"object","minProperties":1} | {} | Invalid value: {}: spec in body should have at least 1 properties
{"type":"object","additionalProperties":true,"maxProperties":1} | {"a":1,"b":1} | Too many: 2: must have at most 1 items
"#;

    #[test]
    fn every_rule_is_told_in_upstreams_words() {
        for line in BROKEN.lines().filter(|line| !line.is_empty()) {
            let parts: Vec<&str> = line.splitn(3, " | ").collect();
            let [schema, value] = [0, 1].map(|at| serde_json::from_str::<Value>(parts[at]).unwrap());
            assert_eq!(broken(&schema, &value), [format!("spec: {}", parts[2])], "{line}");
        }
    }

    #[test]
    fn errors_name_the_place_below() {
        let set = json!({ "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "set" });
        assert_eq!(broken(&set, &json!(["a", "a"])), [r#"spec[1]: Duplicate value: "a""#]);
        let required = json!({ "type": "object", "required": ["a"] });
        assert_eq!(broken(&required, &json!({})), ["spec.a: Required value"]);
        let map = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        let want = r#"spec.a: Invalid value: "integer": spec.a in body must be of type string: "integer""#;
        assert_eq!(broken(&map, &json!({ "a": 1 })), [want]);
    }

    #[test]
    fn names_can_be_restricted_further() {
        let node = root(&json!({ "type": "object", "properties": { "metadata": { "type": "object",
            "properties": { "name": { "type": "string", "maxLength": 3 } } } } }));
        let told = |name: &str| {
            let mut errors = Errors::default();
            check(&node, &json!({ "metadata": { "name": name, "labels": { "a": "b" } } }), None, &mut errors);
            errors.into_causes().into_iter().map(|cause| cause.field).collect::<Vec<_>>()
        };
        assert_eq!(told("abc"), [""; 0]);
        assert_eq!(told("abcd"), ["metadata.name"]);
    }

    #[test]
    fn items_of_a_keyed_list_are_unique_by_key_and_defaults_of_keys_count() {
        let spec = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": { "type": "object", "properties": { "port": { "type": "integer" }, "protocol": { "type": "string", "default": "TCP" } } } });
        let given =
            json!([{ "port": 1 }, { "port": 1, "protocol": "UDP" }, { "port": 1, "protocol": "TCP" }]);
        assert_eq!(broken(&spec, &given), [r#"spec[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#]);
    }

    #[test]
    fn alternatives_are_counted() {
        let field = |name: &str| json!({ "required": [name] });
        let object = |junction: &str, all: Value| {
            json!({ "type": "object", "properties": {
            "a": { "type": "integer" }, "b": { "type": "integer" } }, junction: all })
        };
        let both = json!({ "a": 1, "b": 1 });
        let told =
            |junction: &str, value: &Value| broken(&object(junction, json!([field("a"), field("b")])), value);
        assert_eq!(told("oneOf", &json!({ "a": 1 })), [""; 0]);
        assert!(
            told("oneOf", &both)[0].ends_with("Found 2 valid alternatives"),
            "{:?}",
            told("oneOf", &both)
        );
        let none = told("oneOf", &json!({}));
        assert!(
            none[0].contains(r#""spec" must validate one and only one schema (oneOf). Found none valid"#),
            "{none:?}"
        );
        assert_eq!(told("anyOf", &both), [""; 0]);
        assert!(
            told("anyOf", &json!({}))[0].ends_with(r#""spec" must validate at least one schema (anyOf)"#)
        );
        assert_eq!(told("allOf", &both), [""; 0]);
        assert_eq!(told("allOf", &json!({ "a": 1 }))[1], "spec.b: Required value");
        let not = object("not", json!({ "properties": { "a": { "enum": [1] } }, "required": ["a"] }));
        assert!(
            broken(&not, &json!({ "a": 1 }))[0].ends_with(r#""spec" must not validate the schema (not)"#)
        );
        assert_eq!(broken(&not, &json!({ "a": 2 })), [""; 0]);
    }

    #[test]
    fn int_or_string_with_its_usual_alternatives_takes_both() {
        let spec = json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] });
        assert_eq!(broken(&spec, &json!(1)), [""; 0]);
        assert_eq!(broken(&spec, &json!("1")), [""; 0]);
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_checked_again() {
        let node =
            root(&json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
            "a": { "type": "integer", "maximum": 5 }, "b": { "type": "integer", "maximum": 5 } } } } }));
        let told = |old: Value, new: Value| {
            let mut errors = Errors::default();
            check(&node, &json!({ "spec": new }), Some(&json!({ "spec": old })), &mut errors);
            errors.len()
        };
        assert_eq!(told(json!({ "a": 9 }), json!({ "a": 9, "b": 1 })), 0);
        assert_eq!(told(json!({ "a": 9 }), json!({ "a": 8, "b": 1 })), 1);
        assert_eq!(told(json!({ "a": 1 }), json!({ "a": 1, "b": 9 })), 1);
    }
}
