//! Which nodes a pod is drawn to, and which other pods.

use serde_json::Value;

use super::placement::validate_keys;
use crate::strategy::workload::{validate_label_selector, validate_selector_of};
use crate::tree::{at, int, list, text};
use crate::validate::{self, Errors};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(spec: &Value, old: Option<&Value>, here: &str, errors: &mut Errors) {
    let affinity = at(spec, &["affinity"]);
    if !affinity.is_object() {
        return;
    }
    let here = format!("{here}.affinity");
    let before = old.map(|old| at(old, &["affinity"]));
    let values_hold = before.is_none_or(has_good_node_values);
    validate_nodes(at(affinity, &["nodeAffinity"]), values_hold, &format!("{here}.nodeAffinity"), errors);
    let values_hold = before.is_none_or(has_good_selector_values);
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (place, term, weight) in terms(at(affinity, &[kind]), &format!("{here}.{kind}")) {
            validate_weight(weight, &place, errors);
            let place = if weight.is_some() { format!("{place}.podAffinityTerm") } else { place };
            validate_pods(term, values_hold, &place, errors);
        }
    }
}

/// Terms that have to hold, then those that had better, with their weights.
fn terms<'a>(affinity: &'a Value, here: &str) -> Vec<(String, &'a Value, Option<i64>)> {
    let required = list(affinity, &[REQUIRED]).iter().enumerate();
    let preferred = list(affinity, &[PREFERRED]).iter().enumerate();
    let required = required.map(|(index, term)| (format!("{here}.{REQUIRED}[{index}]"), term, None));
    let preferred = preferred.map(|(index, term)| {
        let weight = int(term, &["weight"]).unwrap_or_default();
        (format!("{here}.{PREFERRED}[{index}]"), at(term, &["podAffinityTerm"]), Some(weight))
    });
    required.chain(preferred).collect()
}

fn validate_weight(weight: Option<i64>, here: &str, errors: &mut Errors) {
    if let Some(weight) = weight.filter(|weight| !(1..=100).contains(weight)) {
        errors.invalid(format!("{here}.weight"), &weight.into(), "must be in the range 1-100");
    }
}

fn validate_pods(term: &Value, values_hold: bool, here: &str, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        validate_selector_of(at(term, &[field]), values_hold, &format!("{here}.{field}"), errors);
    }
    for namespace in list(term, &["namespaces"]) {
        let namespace = namespace.as_str().unwrap_or_default();
        errors.check(format!("{here}.namespace"), namespace, validate::label);
    }
    validate_keys(term, here, errors);
    let key = text(term, &["topologyKey"]);
    if key.is_empty() {
        errors.required(format!("{here}.topologyKey"), "can not be empty");
    }
    errors.check(format!("{here}.topologyKey"), key, validate::label_key);
}

fn has_good_selector_values(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().flat_map(|kind| terms(at(affinity, &[kind]), "")).all(
        |(_, term, _)| {
            ["labelSelector", "namespaceSelector"]
                .iter()
                .all(|field| super::passes(|errors| validate_label_selector(at(term, &[field]), "", errors)))
        },
    )
}

fn has_good_node_values(affinity: &Value) -> bool {
    let terms = list(affinity, &["nodeAffinity", REQUIRED, "nodeSelectorTerms"]).iter();
    terms
        .flat_map(|term| list(term, &["matchExpressions"]))
        .flat_map(|one| list(one, &["values"]))
        .all(|value| validate::label_value(value.as_str().unwrap_or_default()).is_ok())
}

fn validate_nodes(affinity: &Value, values_hold: bool, here: &str, errors: &mut Errors) {
    let required = at(affinity, &[REQUIRED]);
    if required.is_object() {
        validate_node_selector(required, values_hold, &format!("{here}.{REQUIRED}"), errors);
    }
    for (index, term) in list(affinity, &[PREFERRED]).iter().enumerate() {
        let place = format!("{here}.{PREFERRED}[{index}]");
        validate_weight(Some(int(term, &["weight"]).unwrap_or_default()), &place, errors);
        validate_node_term(at(term, &["preference"]), false, &format!("{place}.preference"), errors);
    }
}

/// Checks a node selector. Values are not looked at where bad ones were before.
pub fn validate_node_selector(selector: &Value, values_hold: bool, here: &str, errors: &mut Errors) {
    let terms = list(selector, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        errors.required(format!("{here}.nodeSelectorTerms"), "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        validate_node_term(term, values_hold, &format!("{here}.nodeSelectorTerms[{index}]"), errors);
    }
}

fn validate_node_term(term: &Value, values_hold: bool, here: &str, errors: &mut Errors) {
    for (index, requirement) in list(term, &["matchExpressions"]).iter().enumerate() {
        validate_labels(requirement, values_hold, &format!("{here}.matchExpressions[{index}]"), errors);
    }
    for (index, requirement) in list(term, &["matchFields"]).iter().enumerate() {
        validate_fields(requirement, &format!("{here}.matchFields[{index}]"), errors);
    }
}

const NO_OPERATOR: &str = "not a valid selector operator";

fn validate_labels(requirement: &Value, values_hold: bool, here: &str, errors: &mut Errors) {
    let (operator, values) = (text(requirement, &["operator"]), list(requirement, &["values"]));
    let place = format!("{here}.values");
    match (operator, values.len()) {
        ("In" | "NotIn", 0) => {
            errors.required(place, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        ("In" | "NotIn", _) | ("Exists" | "DoesNotExist", 0) | ("Gt" | "Lt", 1) => {}
        ("Exists" | "DoesNotExist", _) => {
            errors.forbidden(place, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        ("Gt" | "Lt", _) => {
            errors.required(place, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        _ => errors.invalid(format!("{here}.operator"), &Value::from(operator), NO_OPERATOR),
    }
    errors.check(format!("{here}.key"), text(requirement, &["key"]), validate::label_key);
    for (index, value) in values.iter().enumerate().filter(|_| values_hold) {
        let value = value.as_str().unwrap_or_default();
        errors.check(format!("{here}.values[{index}]"), value, validate::label_value);
    }
}

fn validate_fields(requirement: &Value, here: &str, errors: &mut Errors) {
    let (operator, values) = (text(requirement, &["operator"]), list(requirement, &["values"]));
    match (operator, values.len()) {
        ("In" | "NotIn", 1) => {}
        ("In" | "NotIn", _) => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(format!("{here}.values"), why);
        }
        _ => errors.invalid(format!("{here}.operator"), &Value::from(operator), NO_OPERATOR),
    }
    let key = text(requirement, &["key"]);
    if key != "metadata.name" {
        errors.invalid(format!("{here}.key"), &Value::from(key), "not a valid field selector key");
        return;
    }
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        errors.check(format!("{here}.values[{index}]"), value, validate::subdomain);
    }
}
