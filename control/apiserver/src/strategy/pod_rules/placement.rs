//! What a pod tolerates, waits for, and how it is spread.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::strategy::workload::validate_label_selector;
use crate::tree::{at, int, list, strings, text};
use crate::validate::{self, Errors};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks tolerations at `here`.
pub fn validate_tolerations(tolerations: &[Value], here: &str, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let place = format!("{here}[{index}]");
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(toleration, &[field]));
        if !key.is_empty() {
            errors.check(format!("{place}.key"), key, validate::label_key);
        } else if operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(format!("{place}.operator"), &Value::from(operator), why);
        }
        if !at(toleration, &["tolerationSeconds"]).is_null() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(format!("{place}.effect"), &Value::from(effect), why);
        }
        let place_of_operator = format!("{place}.operator");
        match operator {
            "" | "Equal" => errors.check(place_of_operator, value, validate::label_value),
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.invalid(place_of_operator, &Value::from(value), why);
            }
            "Exists" => {}
            // Upstream names them although it does not take them yet.
            "Lt" | "Gt" => {
                let known = ["Equal", "Exists", "Lt", "Gt"].map(Value::from);
                errors.not_among(place_of_operator, &Value::from(operator), &known);
            }
            _ => errors.must_be(place_of_operator, operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.must_be(format!("{place}.effect"), effect, EFFECTS);
        }
    }
}

pub fn validate_gates(spec: &Value, here: &str, errors: &mut Errors) {
    for (index, gate) in list(spec, &["readinessGates"]).iter().enumerate() {
        let place = format!("{here}.readinessGates[{index}].conditionType");
        errors.check(place, text(gate, &["conditionType"]), validate::label_key);
    }
    let mut seen = HashSet::new();
    for (index, gate) in list(spec, &["schedulingGates"]).iter().enumerate() {
        let (place, name) = (format!("{here}.schedulingGates[{index}]"), text(gate, &["name"]));
        errors.check(&place, name, validate::label_key);
        if !seen.insert(name) {
            errors.duplicate(place, &Value::from(name));
        }
    }
}

pub fn validate_spread(spec: &Value, old: Option<&Value>, here: &str, errors: &mut Errors) {
    let all = list(spec, &["topologySpreadConstraints"]);
    if all.is_empty() {
        return;
    }
    let before = || old.into_iter().flat_map(|old| list(old, &["topologySpreadConstraints"]));
    let fine = |check: fn(&Value, &str, &mut Errors)| {
        before().all(|one| super::passes(|errors| check(one, "", errors)))
    };
    let (keys_hold, selectors_hold) = (fine(validate_keys), fine(validate_selector));
    // Of constraints of one kind all but the last are reported.
    let last: HashMap<_, usize> = all.iter().enumerate().map(|(index, one)| (kind(one), index)).collect();
    for (index, constraint) in all.iter().enumerate() {
        let place = format!("{here}.topologySpreadConstraints[{index}]");
        validate_constraint(constraint, last[&kind(constraint)] > index, &place, errors);
        if keys_hold {
            validate_keys(constraint, &place, errors);
        } else {
            validate_keys_as_before(constraint, &format!("{place}.matchLabelKeys"), errors);
        }
        if selectors_hold {
            validate_selector(constraint, &place, errors);
        }
    }
}

/// Over what pods are spread, and what happens where they cannot be.
fn kind(constraint: &Value) -> [&str; 2] {
    ["topologyKey", "whenUnsatisfiable"].map(|field| text(constraint, &[field]))
}

fn validate_constraint(constraint: &Value, comes_again: bool, here: &str, errors: &mut Errors) {
    errors.positive(format!("{here}.maxSkew"), int(constraint, &["maxSkew"]).unwrap_or_default());
    let [key, action] = kind(constraint);
    if key.is_empty() {
        errors.required(format!("{here}.topologyKey"), "can not be empty");
    }
    errors.must_be(format!("{here}.whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
    if comes_again {
        let pair = Value::from(format!("{{{key}, {action}}}"));
        errors.duplicate(format!("{here}.{{topologyKey, whenUnsatisfiable}}"), &pair);
    }
    if let Some(domains) = int(constraint, &["minDomains"]) {
        errors.positive(format!("{here}.minDomains"), domains);
        if action != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.invalid(format!("{here}.minDomains"), &domains.into(), &why);
        }
    }
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        if let Some(policy) = at(constraint, &[field]).as_str() {
            errors.must_be(format!("{here}.{field}"), policy, &["Honor", "Ignore"]);
        }
    }
}

fn validate_selector(constraint: &Value, here: &str, errors: &mut Errors) {
    validate_label_selector(at(constraint, &["labelSelector"]), &format!("{here}.labelSelector"), errors);
}

/// Labels whose values are those of the pod itself, or are not, besides what the selector says.
pub fn validate_keys(owner: &Value, here: &str, errors: &mut Errors) {
    let selector = at(owner, &["labelSelector"]);
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let place = format!("{here}.{field}");
        let keys = list(owner, &[field]);
        if !keys.is_empty() && !selector.is_object() {
            errors.forbidden(place, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            errors.check(format!("{place}[{index}]"), key.as_str().unwrap_or_default(), validate::label_key);
        }
    }
    let matched = || list(owner, &["matchLabelKeys"]).iter().filter_map(Value::as_str).enumerate();
    if selector.is_object() {
        let matched: BTreeMap<&str, usize> = matched().map(|(index, key)| (key, index)).collect();
        // The keys themselves have become expressions before this is looked at: a second one is another's.
        let mut seen: HashSet<&str> = strings(selector, &["matchLabels"]).map(|(key, _)| key).collect();
        for expression in list(selector, &["matchExpressions"]) {
            let key = text(expression, &["key"]);
            if let Some(index) = matched.get(key).filter(|_| seen.contains(key)) {
                let why = "exists in both matchLabelKeys and labelSelector";
                errors.invalid(format!("{here}[{index}]"), &Value::from(key), why);
            }
            seen.insert(key);
        }
    }
    for (index, key) in matched() {
        if list(owner, &["mismatchLabelKeys"]).iter().any(|other| other == key) {
            let why = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.invalid(format!("{here}.matchLabelKeys[{index}]"), &Value::from(key), why);
        }
    }
}

/// What the keys had to be when they did not become expressions.
fn validate_keys_as_before(constraint: &Value, here: &str, errors: &mut Errors) {
    let (keys, selector) = (list(constraint, &["matchLabelKeys"]), at(constraint, &["labelSelector"]));
    if keys.is_empty() {
        return;
    }
    if !selector.is_object() {
        errors.forbidden(here, "must not be specified when labelSelector is not set");
    }
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let place = format!("{here}[{index}]");
        errors.check(&place, key, validate::label_key);
        let selected = at(selector, &["matchLabels", key]) != &Value::Null
            || list(selector, &["matchExpressions"]).iter().any(|one| text(one, &["key"]) == key);
        if selected {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(place, &Value::from(key), why);
        }
    }
}
