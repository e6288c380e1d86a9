//! When a Job has failed, and when it has succeeded: `podFailurePolicy` and `successPolicy`.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::tree::{at, int, list, text};
use crate::validate::{self, Errors};

const MAX_RULES: usize = 20;
const MAX_PATTERNS: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

pub fn validate_failure_policy(spec: &Value, here: &str, errors: &mut Errors) {
    let rules = list(spec, &["podFailurePolicy", "rules"]);
    let here = format!("{here}.podFailurePolicy.rules");
    bounded(rules, MAX_RULES, &here, errors);
    let pod = at(spec, &["template", "spec"]);
    let containers = list(pod, &["containers"]).iter().chain(list(pod, &["initContainers"]));
    let names: HashSet<&str> = containers.map(|container| text(container, &["name"])).collect();
    for (index, rule) in rules.iter().enumerate() {
        let place = format!("{here}[{index}]");
        match text(rule, &["action"]) {
            "" => errors.required(format!("{place}.action"), &format!("valid values: {}", quoted(ACTIONS))),
            "FailIndex" if at(spec, &["backoffLimitPerIndex"]).is_null() => {
                let detail = "requires the backoffLimitPerIndex to be set";
                errors.invalid(format!("{place}.action"), &json!("FailIndex"), detail);
            }
            action => errors.one_of(format!("{place}.action"), action, ACTIONS),
        }
        let (codes, conditions) = (at(rule, &["onExitCodes"]), list(rule, &["onPodConditions"]));
        if !codes.is_null() {
            validate_exit_codes(codes, &names, &format!("{place}.onExitCodes"), errors);
        }
        validate_conditions(conditions, &format!("{place}.onPodConditions"), errors);
        match (codes.is_null(), conditions.is_empty()) {
            (true, true) => {
                errors.unfit(place, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (false, false) => {
                errors.unfit(place, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            _ => {}
        }
    }
}

fn bounded(all: &[Value], most: usize, here: &str, errors: &mut Errors) {
    if all.len() > most {
        errors.too_many(here, all.len() as u64, most as u64);
    }
}

/// Words in a list as Go prints one of quoted strings.
fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn validate_exit_codes(codes: &Value, names: &HashSet<&str>, here: &str, errors: &mut Errors) {
    let operators = ["In", "NotIn"];
    let operator = text(codes, &["operator"]);
    if operator.is_empty() {
        errors.required(format!("{here}.operator"), &format!("valid values: {}", quoted(&operators)));
    }
    errors.one_of(format!("{here}.operator"), operator, &operators);
    let name = at(codes, &["containerName"]);
    if name.as_str().is_some_and(|name| !names.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(format!("{here}.containerName"), name, detail);
    }
    let values: Vec<i64> = list(codes, &["values"]).iter().filter_map(Value::as_i64).collect();
    let place = format!("{here}.values");
    if values.is_empty() {
        errors.invalid(place.as_str(), at(codes, &["values"]), "at least one value is required");
    }
    bounded(list(codes, &["values"]), MAX_EXIT_CODES, &place, errors);
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        let one = format!("{place}[{index}]");
        if operator == "In" && *value == 0 {
            errors.invalid(one.as_str(), &0.into(), "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errors.duplicate(one, &(*value).into());
        }
    }
    if !values.is_sorted() {
        errors.invalid(place, at(codes, &["values"]), "must be ordered");
    }
}

fn validate_conditions(conditions: &[Value], here: &str, errors: &mut Errors) {
    bounded(conditions, MAX_PATTERNS, here, errors);
    for (index, condition) in conditions.iter().enumerate() {
        let place = format!("{here}[{index}]");
        errors.check(format!("{place}.type"), text(condition, &["type"]), validate::label_key);
        let known = ["False", "True", "Unknown"];
        match text(condition, &["status"]) {
            "" => errors.required(format!("{place}.status"), &format!("valid values: {}", quoted(&known))),
            status => errors.one_of(format!("{place}.status"), status, &known),
        }
    }
}

pub fn validate_success_policy(spec: &Value, here: &str, errors: &mut Errors) {
    if at(spec, &["successPolicy"]).is_null() {
        return;
    }
    let rules = list(spec, &["successPolicy", "rules"]);
    let here = format!("{here}.successPolicy.rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(here.as_str(), detail);
    }
    bounded(rules, MAX_RULES, &here, errors);
    let completions = int(spec, &["completions"]).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        validate_success_rule(rule, completions, &format!("{here}[{index}]"), errors);
    }
}

fn validate_success_rule(rule: &Value, completions: i64, here: &str, errors: &mut Errors) {
    let (count, indexes) = (at(rule, &["succeededCount"]), at(rule, &["succeededIndexes"]));
    if count.is_null() && indexes.is_null() {
        errors.required(here, "at least one of succeededCount or succeededIndexes must be specified");
        return;
    }
    let named = indexes.as_str().map(|text| count_indexes(text, completions));
    if let Some(Err(why)) = &named {
        let detail = format!("error parsing succeededIndexes: {why}");
        errors.invalid(format!("{here}.succeededIndexes"), indexes, &detail);
    }
    let Some(count) = count.as_i64() else { return };
    let place = format!("{here}.succeededCount");
    errors.not_negative(place.as_str(), Some(count));
    if count > completions {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(place.as_str(), &count.into(), &detail);
    }
    if let Some(Ok(named)) = named
        && count > named
    {
        let detail = format!(
            "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(place, &count.into(), &detail);
    }
}

/// How many indexes `0,2-4` names: numbers and ranges in order, each below the completions.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut count, mut last) = (0, None);
    if text.is_empty() {
        return Ok(0);
    }
    for interval in text.split(',') {
        let number = |word: &str| {
            word.parse::<i64>()
                .ok()
                .filter(|index| *index >= 0)
                .ok_or_else(|| format!("cannot convert string to integer for index: {word:?}"))
        };
        let (first, end) = match interval.split_once('-') {
            None => (number(interval)?, number(interval)?),
            Some((first, end)) => (number(first)?, number(end)?),
        };
        if last.is_some_and(|last| last >= first) {
            return Err(format!(
                "non-increasing order, previous: {}, current: {first}",
                last.unwrap_or_default()
            ));
        }
        if interval.contains('-') && end <= first {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        if end >= completions {
            return Err(format!("too large index: {:?}", end.to_string()));
        }
        count += end - first + 1;
        last = Some(end);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::device_claim::tests::fields;

    #[test]
    fn rules_of_failure_say_what_about_what() {
        let check = |rule: Value| {
            let spec = json!({"template": {"spec": {"containers": [{"name": "a"}]}}, "podFailurePolicy": {"rules": [rule]}});
            let found = fields(|errors| validate_failure_policy(&spec, "spec", errors));
            found
                .into_iter()
                .map(|field| field.replace("spec.podFailurePolicy.rules[0]", ""))
                .collect::<Vec<_>>()
        };
        let codes =
            |values: Value| json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": values}});
        assert_eq!(check(codes(json!([1, 2]))), Vec::<String>::new());
        assert_eq!(check(codes(json!([]))), [".onExitCodes.values"]);
        assert_eq!(
            check(codes(json!([0, 0]))),
            [".onExitCodes.values[0]", ".onExitCodes.values[1]", ".onExitCodes.values[1]"]
        );
        assert_eq!(check(codes(json!([2, 1]))), [".onExitCodes.values"]);
        let mut elsewhere = codes(json!([1]));
        elsewhere["onExitCodes"]["containerName"] = json!("b");
        assert_eq!(check(elsewhere), [".onExitCodes.containerName"]);
        let conditions = |status: &str| json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": status}]});
        assert_eq!(check(conditions("True")), Vec::<String>::new());
        assert_eq!(check(conditions("Maybe")), [".onPodConditions[0].status"]);
        let mut both = conditions("True");
        both["onExitCodes"] = json!({"operator": "In", "values": [1]});
        assert_eq!(check(both), [""]);
        assert_eq!(check(json!({"action": "Ignore"})), [""]);
        let mut index = conditions("True");
        index["action"] = json!("FailIndex");
        assert_eq!(check(index), [".action"]);
    }

    #[test]
    fn rules_of_success_count_what_there_is() {
        let check = |rules: Value| {
            let spec = json!({"completions": 5, "successPolicy": {"rules": rules}});
            let found = fields(|errors| validate_success_policy(&spec, "spec", errors));
            found.into_iter().map(|field| field.replace("spec.successPolicy.rules", "")).collect::<Vec<_>>()
        };
        assert_eq!(check(json!([{"succeededIndexes": "0,2-4", "succeededCount": 4}])), Vec::<String>::new());
        assert_eq!(check(json!([])), [""]);
        assert_eq!(check(json!([{}])), ["[0]"]);
        assert_eq!(check(json!([{"succeededCount": 6}])), ["[0].succeededCount"]);
        assert_eq!(check(json!([{"succeededIndexes": "1", "succeededCount": 2}])), ["[0].succeededCount"]);
        for indexes in ["5", "a", "2,1", "3-2", "1-1", "1,1", "-1", "1,,2"] {
            assert_eq!(check(json!([{"succeededIndexes": indexes}])), ["[0].succeededIndexes"], "{indexes}");
        }
    }
}
