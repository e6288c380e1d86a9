//! Checks a custom object against its schema, in upstream's words.
//!
//! Where an update leaves a part of an object as it was, that part is not checked again, so that a schema can become
//! stricter without holding objects hostage (upstream's ratcheting).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::rules::{Format, Rule, Rules};
use super::{ListType, Node, Shape};
use crate::tree::strings;
use crate::validate::{self, Errors};

/// Checks `value`, which was `old` before.
pub fn check(node: &Node, value: &Value, old: Option<&Value>, errors: &mut Errors) {
    at(node, &mut String::new(), value, old, errors);
}

/// How a place is called where it stands for a field of an error; the whole object has no name.
fn field(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn below<T>(path: &mut String, step: &str, inner: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    if length > 0 && !step.starts_with('[') {
        path.push('.');
    }
    path.push_str(step);
    let result = inner(path);
    path.truncate(length);
    result
}

fn at(node: &Node, path: &mut String, value: &Value, old: Option<&Value>, errors: &mut Errors) {
    if !node.custom || old == Some(value) || (value.is_null() && node.nullable) {
        return;
    }
    if !fits(node, value) {
        let (wanted, given) = misfit(node, value);
        let detail = format!("{path} in body must be of type {wanted}: {given:?}");
        errors.type_invalid(field(path), given, detail.trim_start());
        range(node, path, value, errors);
        for rule in node.rules.iter().flat_map(|rules| rules.iter()) {
            if matches!(rule, Rule::Enum(_)) || (value.is_number() && rule.is_of_numbers()) {
                obey(std::slice::from_ref(rule), path, value, errors);
            }
        }
        return;
    }
    range(node, path, value, errors);
    if let Some(rules) = &node.rules {
        obey(rules, path, value, errors);
    }
    match (&node.shape, value) {
        (Shape::List(item), Value::Array(items)) => {
            list(node, item, path, items, old.and_then(Value::as_array), errors);
        }
        (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
            for (name, value) in fields {
                let Some(child) = node.child(name) else { continue };
                let old = old.and_then(|old| old.get(name));
                below(path, name, |path| at(child, path, value, old, errors));
            }
        }
        _ => {}
    }
}

fn list(
    node: &Node,
    item: &Node,
    path: &mut String,
    items: &[Value],
    old: Option<&Vec<Value>>,
    errors: &mut Errors,
) {
    let identity = |item: &Value| match node.list {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map => {
            let key = |name: &crate::name::Name| {
                let default =
                    node.item().and_then(|item| item.child(name)).and_then(|child| child.default.as_deref());
                let value = item.get(&**name).or(default)?;
                Some((name.to_string(), value.clone()))
            };
            Some(Value::Object(node.keys.iter().filter_map(key).collect::<Map<_, _>>()))
        }
    };
    let mut seen = HashSet::new();
    for (index, value) in items.iter().enumerate() {
        let own = identity(value);
        // Items are compared with what they were only where something tells which they were.
        let before = own.as_ref().and_then(|own| old?.iter().find(|old| identity(old).as_ref() == Some(own)));
        below(path, &format!("[{index}]"), |path| {
            if let Some(own) = &own
                && !seen.insert(own.to_string())
            {
                errors.duplicate(field(path), own);
            }
            at(item, path, value, before, errors);
        });
    }
}

/// The largest number up to which doubles hold every whole one; those above count as none, as in JSON schema for Go.
const MAX_WHOLE: f64 = 9_007_199_254_740_991.0;

/// The format of a node, if it is one that is checked.
fn format(node: &Node) -> Option<Format> {
    node.rules.iter().flat_map(|rules| rules.iter()).find_map(|rule| match rule {
        Rule::Format(format) => Some(*format),
        _ => None,
    })
}

/// What a value should have been, and what it is: in formats where the node has one, as upstream tells it.
fn misfit(node: &Node, value: &Value) -> (&'static str, &'static str) {
    let given = match value {
        Value::String(_) | Value::Array(_) | Value::Null => return (wanted(node), type_of(value)),
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        _ => "",
    };
    format(node).map_or_else(|| (wanted(node), type_of(value)), |format| (format.name(), given))
}

fn fits(node: &Node, value: &Value) -> bool {
    match (&node.shape, value) {
        (Shape::String, Value::String(_))
        | (Shape::Bool, Value::Bool(_))
        | (Shape::Number, Value::Number(_))
        | (Shape::IntOrString, Value::String(_))
        | (Shape::List(_), Value::Array(_))
        | (Shape::Map(_) | Shape::Struct(_) | Shape::Object(_), Value::Object(_)) => true,
        (Shape::Int64 | Shape::IntOrString, Value::Number(number)) => {
            let is_whole = |number: f64| number.fract() == 0.0 && number.abs() <= MAX_WHOLE;
            number.is_i64() || number.as_f64().is_some_and(is_whole)
        }
        (Shape::Any, _) => true,
        _ => false,
    }
}

/// Whole numbers have bounds. Who checks them upstream does not name the field.
fn range(node: &Node, path: &str, value: &Value, errors: &mut Errors) {
    let (Shape::Int64, Value::Number(number)) = (&node.shape, value) else { return };
    let format = format(node);
    if Format::bounds(format, number) {
        return;
    }
    let kind =
        format.map_or("(default format)".to_owned(), |format| format!("with format {}", format.name()));
    let detail = format!("Checked value must be of type integer {kind} in {path}");
    errors.invalid(field(""), &Value::from(""), &detail);
}

fn wanted(node: &Node) -> &'static str {
    match node.shape {
        Shape::String => "string",
        Shape::Bool => "boolean",
        Shape::Number => "number",
        Shape::Int64 => "integer",
        Shape::IntOrString => "integer,string",
        Shape::List(_) => "array",
        _ => "object",
    }
}

/// The type of a value as JSON schema calls it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn obey(rules: &[Rule], path: &mut String, value: &Value, errors: &mut Errors) {
    for rule in rules {
        match rule {
            Rule::AllOf(_) | Rule::AnyOf(_) | Rule::OneOf(_) | Rule::Not(_) => {
                junction(rule, path, value, errors);
            }
            Rule::Field(name, rules) => {
                if let Some(value) = value.get(&**name) {
                    below(path, name, |path| obey(rules, path, value, errors));
                }
            }
            Rule::Items(rules) => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    below(path, &format!("[{index}]"), |path| obey(rules, path, value, errors));
                }
            }
            Rule::Values(rules) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    below(path, name, |path| obey(rules, path, value, errors));
                }
            }
            Rule::Required(name) => {
                if value.is_object() && value.get(&**name).is_none() {
                    below(path, name, |path| errors.required(field(path), ""));
                }
            }
            Rule::Embedded => embedded(path, value, errors),
            Rule::Enum(known) => {
                if !known.contains(value) {
                    errors.not_among(field(path), value, known);
                }
            }
            rule => bound(rule, path, value, errors),
        }
    }
}

/// Rules about numbers, lengths and forms: one sentence each.
fn bound(rule: &Rule, path: &str, value: &Value, errors: &mut Errors) {
    let length = || value.as_str().map(|text| text.chars().count() as u64);
    let items = || value.as_array().map(|items| items.len() as u64);
    let fields = || value.as_object().map(|fields| fields.len() as u64);
    let number = |bound: &serde_json::Number| value.as_f64().zip(bound.as_f64());
    let broken = match rule {
        Rule::Format(format) if !format.holds(value) => {
            let detail = format!("{path} in body must be of type {}: {value}", format.name());
            return errors.form_invalid(field(path), value, detail.trim_start());
        }
        Rule::Pattern(pattern) if value.as_str().is_some_and(|text| !pattern.matches(text)) => {
            Some(format!("should match '{}'", pattern.text()))
        }
        Rule::MinLength(min) if length().is_some_and(|n| n < *min) => {
            Some(format!("should be at least {min} chars long"))
        }
        Rule::MaxLength(max) if length().is_some_and(|n| n > *max) => {
            return errors.too_long(field(path), usize::try_from(*max).unwrap_or(usize::MAX));
        }
        Rule::MinItems(min) if items().is_some_and(|n| n < *min) => {
            Some(format!("should have at least {min} items"))
        }
        Rule::MinProperties(min) if fields().is_some_and(|n| n < *min) => {
            Some(format!("should have at least {min} properties"))
        }
        Rule::MaxItems(max) | Rule::MaxProperties(max) => {
            let count = if matches!(rule, Rule::MaxItems(_)) { items() } else { fields() };
            if let Some(count) = count.filter(|count| count > max) {
                errors.too_many(field(path), count, *max);
            }
            None
        }
        Rule::Minimum(bound) if number(bound).is_some_and(|(n, b)| n < b) => {
            Some(format!("should be greater than or equal to {bound}"))
        }
        Rule::AboveMinimum(bound) if number(bound).is_some_and(|(n, b)| n <= b) => {
            Some(format!("should be greater than {bound}"))
        }
        Rule::Maximum(bound) if number(bound).is_some_and(|(n, b)| n > b) => {
            Some(format!("should be less than or equal to {bound}"))
        }
        Rule::BelowMaximum(bound) if number(bound).is_some_and(|(n, b)| n >= b) => {
            Some(format!("should be less than {bound}"))
        }
        Rule::MultipleOf(bound) if number(bound).is_some_and(|(n, b)| (n / b).fract() != 0.0) => {
            Some(format!("should be a multiple of {bound}"))
        }
        _ => None,
    };
    if let Some(sentence) = broken {
        errors.invalid(field(path), value, format!("{path} in body {sentence}").trim_start());
    }
}

/// An object inside an object says what it is, and is labelled as every object.
fn embedded(path: &mut String, value: &Value, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        if value.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
            below(path, name, |path| errors.required(field(path), ""));
        }
    }
    below(path, "metadata", |path| {
        for (key, value) in strings(value, &["metadata", "labels"]) {
            errors.check(format!("{path}.labels"), key, validate::label_key);
            errors.check(format!("{path}.labels"), value, validate::label_value);
        }
        for (key, _) in strings(value, &["metadata", "annotations"]) {
            errors.check(format!("{path}.annotations"), &key.to_ascii_lowercase(), validate::label_key);
        }
    });
}

/// Reports what no single field can be blamed for, as upstream does: its sentence alone names the place.
fn whole_invalid(errors: &mut Errors, sentence: &str) {
    errors.invalid("<nil>", &Value::from(""), sentence);
}

fn junction(rule: &Rule, path: &mut String, value: &Value, errors: &mut Errors) {
    let mut outcome = |rules: &Rules| {
        let mut errors = Errors::default();
        obey(rules, path, value, &mut errors);
        errors
    };
    match rule {
        Rule::AllOf(all) => {
            let broken: Vec<Errors> =
                all.iter().map(&mut outcome).filter(|errors| !errors.is_empty()).collect();
            if !broken.is_empty() {
                whole_invalid(errors, &format!("{path:?} must validate all the schemas (allOf)"));
                broken.into_iter().for_each(|one| errors.append(one));
            }
        }
        Rule::AnyOf(alternatives) | Rule::OneOf(alternatives) => {
            let outcomes: Vec<Errors> = alternatives.iter().map(&mut outcome).collect();
            let valid = outcomes.iter().filter(|errors| errors.is_empty()).count();
            let sentence = match (rule, valid) {
                (Rule::AnyOf(_), 0) => format!("{path:?} must validate at least one schema (anyOf)"),
                (Rule::OneOf(_), 0) => {
                    format!("{path:?} must validate one and only one schema (oneOf). Found none valid")
                }
                (Rule::OneOf(_), 2..) => {
                    format!(
                        "{path:?} must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                    )
                }
                _ => return,
            };
            whole_invalid(errors, &sentence);
            // What the nearest alternative lacks helps most.
            if valid == 0
                && let Some(nearest) = outcomes.into_iter().min_by_key(Errors::len)
            {
                errors.append(nearest);
            }
        }
        Rule::Not(rules) if outcome(rules).is_empty() => {
            whole_invalid(errors, &format!("{path:?} must not validate the schema (not)"));
        }
        _ => {}
    }
}
