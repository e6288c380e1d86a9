//! What may stand in `allOf`, `anyOf`, `oneOf` and `not`: values, but no structure.

use serde_json::Value;

use super::structural::{MAX_DEPTH, values};
use crate::tree::{at, fields, flag, list, text};
use crate::validate::Errors;

/// What says something about structure, and so does not belong into alternatives.
const STRUCTURE: &[&str] = &[
    "type",
    "default",
    "nullable",
    "description",
    "title",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Checks the alternatives below `schema` against the structure they speak about.
pub fn junctions(here: &str, schema: &Value, structure: &Value, depth: usize, errors: &mut Errors) {
    let both = flag(structure, &["x-kubernetes-int-or-string"]);
    for (word, types) in [("allOf", both), ("anyOf", both), ("oneOf", false)] {
        for (index, one) in list(schema, &[word]).iter().enumerate() {
            alternative(&format!("{here}.{word}[{index}]"), one, structure, types, depth + 1, errors);
        }
    }
    if let Some(not) = schema.get("not") {
        alternative(&format!("{here}.not"), not, structure, false, depth + 1, errors);
    }
}

fn alternative(here: &str, schema: &Value, structure: &Value, both: bool, depth: usize, errors: &mut Errors) {
    if depth > MAX_DEPTH {
        return errors.forbidden(here, &format!("schemas may not be deeper than {MAX_DEPTH} levels"));
    }
    for word in STRUCTURE {
        // Integers and strings may be told apart.
        let types = both && *word == "type" && matches!(text(schema, &["type"]), "integer" | "string");
        if !at(schema, &[word]).is_null() && !types {
            errors.forbidden(format!("{here}.{word}"), "must be empty to be structural");
        }
    }
    values(here, schema, errors);
    let open = flag(structure, &["x-kubernetes-preserve-unknown-fields"]);
    let mut below = |here: String, schema: &Value, structure: &Value| {
        if structure.is_null() && !open {
            return errors.required(
                here,
                "because it is defined in an alternative, it must be defined in the structure as well",
            );
        }
        let both = flag(structure, &["x-kubernetes-int-or-string"]);
        alternative(&here, schema, structure, both, depth + 1, errors);
    };
    for (name, field) in fields(schema, &["properties"]) {
        // Metadata is there whether it is named or not.
        let own = match at(structure, &["properties", name]) {
            Value::Null if name == "metadata" => &Value::Bool(true),
            own => own,
        };
        below(format!("{here}.properties[{name}]"), field, own);
    }
    if schema.get("items").is_some() {
        below(format!("{here}.items"), at(schema, &["items"]), at(structure, &["items"]));
    }
    if schema.get("additionalProperties").is_some_and(Value::is_object) {
        let (own, structure) =
            (at(schema, &["additionalProperties"]), at(structure, &["additionalProperties"]));
        below(format!("{here}.additionalProperties"), own, structure);
    }
    junctions(here, schema, structure, depth, errors);
}
