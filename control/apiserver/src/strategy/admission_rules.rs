//! What webhooks and admission policies have in common: which requests they are asked about.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::workload::validate_label_selector;
use crate::tree::{at, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MAX_CONDITIONS: usize = 64;

/// Completes the rules below `path`.
pub fn default_rules(object: &mut Value, path: &[&str]) {
    for rule in list_mut(object, path) {
        set_default(rule, &["scope"], "*");
    }
}

/// Completes `matchPolicy` and both selectors of a webhook or of match resources.
pub fn default_match(object: &mut Value) {
    set_default(object, &["matchPolicy"], "Equivalent");
    set_default(object, &["namespaceSelector"], json!({}));
    set_default(object, &["objectSelector"], json!({}));
}

/// Completes the `MatchResources` in a field of a spec, if it is there.
pub fn default_match_resources(spec: &mut Value, field: &str) {
    let Some(resources) = spec.get_mut(field).filter(|resources| resources.is_object()) else { return };
    default_match(resources);
    default_rules(resources, &["resourceRules"]);
    default_rules(resources, &["excludeResourceRules"]);
}

/// Checks `failurePolicy`.
pub fn validate_failure_policy(object: &Value, here: &str, errors: &mut Errors) {
    errors.one_of(format!("{here}.failurePolicy"), text(object, &["failurePolicy"]), FAILURE_POLICIES);
}

/// Checks `matchPolicy` and both selectors.
pub fn validate_match(object: &Value, here: &str, errors: &mut Errors) {
    errors.one_of(format!("{here}.matchPolicy"), text(object, &["matchPolicy"]), MATCH_POLICIES);
    for field in ["namespaceSelector", "objectSelector"] {
        validate_label_selector(at(object, &[field]), &format!("{here}.{field}"), errors);
    }
}

/// Checks a `MatchResources`.
pub fn validate_match_resources(resources: &Value, here: &str, errors: &mut Errors) {
    validate_match(resources, here, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in list(resources, &[field]).iter().enumerate() {
            let here = format!("{here}.{field}[{index}]");
            validate_rule(rule, &here, errors);
            validate_resource_names(rule, &here, errors);
        }
    }
}

fn validate_resource_names(rule: &Value, here: &str, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, name) in list(rule, &["resourceNames"]).iter().enumerate() {
        let place = format!("{here}.resourceNames[{index}]");
        errors.check(place.clone(), name.as_str().unwrap_or_default(), validate::path_segment);
        if !seen.insert(name.as_str()) {
            errors.duplicate(place, name);
        }
    }
}

/// Checks a `RuleWithOperations`.
pub fn validate_rule(rule: &Value, here: &str, errors: &mut Errors) {
    let all = |field: &str, others: &str, errors: &mut Errors| {
        let (words, place) = (list(rule, &[field]), format!("{here}.{field}"));
        if words.is_empty() {
            errors.required(place, "");
        } else if words.len() > 1 && words.iter().any(|word| word == "*") {
            let detail = format!("if '*' is present, must not specify other {others}");
            errors.invalid(place, at(rule, &[field]), &detail);
        }
    };
    all("operations", "operations", errors);
    for (index, operation) in list(rule, &["operations"]).iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.unsupported(format!("{here}.operations[{index}]"), operation, OPERATIONS);
        }
    }
    all("apiGroups", "API groups", errors);
    all("apiVersions", "API versions", errors);
    for (index, _) in list(rule, &["apiVersions"]).iter().enumerate().filter(|(_, one)| **one == "") {
        errors.required(format!("{here}.apiVersions[{index}]"), "");
    }
    validate_resources(rule, &format!("{here}.resources"), errors);
    errors.one_of(format!("{here}.scope"), text(rule, &["scope"]), SCOPES);
}

/// Resources and subresources, of which none may say what another has said.
fn validate_resources(rule: &Value, place: &str, errors: &mut Errors) {
    let given = list(rule, &["resources"]);
    if given.is_empty() {
        return errors.required(place, "");
    }
    let (mut whole, mut everywhere) = (HashSet::new(), HashSet::new());
    for (index, one) in given.iter().enumerate() {
        let word = one.as_str().unwrap_or_default();
        let place = format!("{place}[{index}]");
        if word.is_empty() {
            errors.required(place, "");
            continue;
        }
        let Some((resource, part)) = word.split_once('/') else { continue };
        if whole.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {word}");
            errors.invalid(place.clone(), one, &detail);
        }
        if everywhere.contains(part) {
            errors.invalid(place, one, &format!("if '*/{part}' is present, must not specify {word}"));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(part);
        }
    }
    let has = |word: &str| given.iter().any(|one| one == word);
    let plain = given.iter().filter_map(Value::as_str).any(|one| one != "*" && !one.contains('/'));
    if given.len() > 1 && has("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.invalid(place, at(rule, &["resources"]), detail);
    }
    if has("*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(place, at(rule, &["resources"]), detail);
    }
}

/// Checks `matchConditions`; what their expressions say is not looked at.
pub fn validate_conditions(object: &Value, here: &str, errors: &mut Errors) {
    let (conditions, here) = (list(object, &["matchConditions"]), format!("{here}.matchConditions"));
    if conditions.len() > MAX_CONDITIONS {
        errors.too_many(here.clone(), conditions.len() as u64, MAX_CONDITIONS as u64);
    }
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let here = format!("{here}[{index}]");
        require_expression(condition, "expression", &here, "", errors);
        match text(condition, &["name"]) {
            "" => errors.required(format!("{here}.name"), ""),
            name => {
                errors.check(format!("{here}.name"), name, validate::label_key);
                if !seen.insert(name) {
                    errors.duplicate(format!("{here}.name"), at(condition, &["name"]));
                }
            }
        }
    }
}

/// Checks that an expression is there.
pub fn require_expression(object: &Value, field: &str, here: &str, detail: &str, errors: &mut Errors) {
    if text(object, &[field]).trim().is_empty() {
        errors.required(format!("{here}.{field}"), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Value {
        json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]})
    }

    fn fields(check: impl Fn(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn rules_say_what_they_are_about_once() {
        let none: &[&str] = &[];
        for (field, value, want) in [
            ("operations", json!(["*"]), none),
            ("operations", json!([]), &["r.operations"]),
            ("operations", json!(["*", "CREATE"]), &["r.operations"]),
            ("operations", json!(["create"]), &["r.operations[0]"]),
            ("apiGroups", json!([""]), none),
            ("apiGroups", json!(["*", "apps"]), &["r.apiGroups"]),
            ("apiVersions", json!([""]), &["r.apiVersions[0]"]),
            ("resources", json!([]), &["r.resources"]),
            ("resources", json!(["*", "pods/status", "*/scale"]), none),
            ("resources", json!(["*", "pods"]), &["r.resources"]),
            ("resources", json!(["*/*", "pods"]), &["r.resources"]),
            ("resources", json!(["pods/*", "pods/status", ""]), &["r.resources[1]", "r.resources[2]"]),
            ("resources", json!(["*/status", "pods/status"]), &["r.resources[1]"]),
            ("scope", json!("Cluster"), none),
            ("scope", json!("All"), &["r.scope"]),
        ] {
            let mut rule = rule();
            rule[field] = value.clone();
            assert_eq!(fields(|errors| validate_rule(&rule, "r", errors)), want, "{field} {value}");
        }
    }

    #[test]
    fn resources_are_matched_by_rules_selectors_and_names() {
        let mut good = json!({"matchConstraints": {"resourceRules": [rule()]}});
        default_match_resources(&mut good, "matchConstraints");
        let good = good["matchConstraints"].take();
        assert_eq!(good["resourceRules"][0]["scope"], "*");
        assert_eq!((&good["matchPolicy"], &good["objectSelector"]), (&json!("Equivalent"), &json!({})));
        for (path, value, want) in [
            ("/matchPolicy", json!("Same"), vec!["m.matchPolicy"]),
            (
                "/resourceRules/0/resourceNames",
                json!(["a", "b", "a"]),
                vec!["m.resourceRules[0].resourceNames[2]"],
            ),
            ("/resourceRules/0/resourceNames", json!(["a/b"]), vec!["m.resourceRules[0].resourceNames[0]"]),
            (
                "/namespaceSelector",
                json!({"matchLabels": {"-": "a"}}),
                vec!["m.namespaceSelector.matchLabels"],
            ),
        ] {
            let mut resources = good.clone();
            resources["resourceRules"][0]["resourceNames"] = json!([]);
            *resources.pointer_mut(path).unwrap() = value;
            let found = fields(|errors| validate_match_resources(&resources, "m", errors));
            assert_eq!(found, want, "{path}");
        }
    }

    #[test]
    fn conditions_have_names_of_their_own() {
        let condition = |name: &str, expression: &str| json!({"name": name, "expression": expression});
        let check = |conditions: Value| {
            let object = json!({ "matchConditions": conditions });
            fields(|errors| validate_conditions(&object, "w", errors))
        };
        let none: [&str; 0] = [];
        assert_eq!(check(json!([condition("a", "true"), condition("b.io/b", "true")])), none);
        assert_eq!(
            check(json!([condition("a", "true"), condition("a", " ")])),
            ["w.matchConditions[1].expression", "w.matchConditions[1].name"]
        );
        assert_eq!(
            check(json!([condition("", "true"), condition("a b", "true")])),
            ["w.matchConditions[0].name", "w.matchConditions[1].name"]
        );
        let many: Vec<Value> = (0..65).map(|number| condition(&format!("c{number}"), "true")).collect();
        assert_eq!(check(json!(many)), ["w.matchConditions"]);
    }
}
