//! ResourceQuotas.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Change;
use super::resource_names::{is_quota, validate_amount, validate_of_quota};
use crate::resources::Sub;
use crate::tree::{at, fields, list, text};
use crate::validate::Errors;

const PODS: &[&str] =
    &["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
/// What a quota may be for, and which of the standard resources it can bound for that.
const SCOPES: &[(&str, &[&str])] = &[
    ("Terminating", PODS),
    ("NotTerminating", PODS),
    ("BestEffort", &["pods"]),
    ("NotBestEffort", PODS),
    ("PriorityClass", PODS),
    ("CrossNamespacePodAffinity", PODS),
    ("VolumeAttributesClass", &["persistentvolumeclaims", "requests.storage"]),
];
const CONFLICTS: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

pub fn validate_quota(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_amounts(spec, "hard", "spec", errors);
    validate_scopes(spec, errors);
    validate_selector(spec, errors);
    if let Some(old) = change.old
        && names(list(old, &["spec", "scopes"])) != names(list(spec, &["scopes"]))
    {
        errors.invalid("spec.scopes", at(spec, &["scopes"]), "field is immutable");
    }
}

pub fn validate_quota_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    for field in ["hard", "used"] {
        validate_amounts(at(change.new, &["status"]), field, "status", errors);
    }
}

fn names(scopes: &[Value]) -> BTreeSet<&str> {
    scopes.iter().filter_map(Value::as_str).collect()
}

fn validate_amounts(holder: &Value, field: &str, here: &str, errors: &mut Errors) {
    for (name, amount) in fields(holder, &[field]) {
        let place = format!("{here}.{field}[{name}]");
        validate_of_quota(name, &place, errors);
        validate_amount(name, amount, &place, errors);
    }
}

/// The standard resources a quota bounds although it cannot for this scope.
fn out_of_scope<'a>(spec: &'a Value, scope: &'a str) -> impl Iterator<Item = &'a str> {
    let known = SCOPES.iter().find(|(name, _)| *name == scope).map(|(_, resources)| *resources);
    fields(spec, &["hard"])
        .map(|(name, _)| name)
        .filter(move |name| is_quota(name) && known.is_some_and(|known| !known.contains(name)))
}

fn validate_scopes(spec: &Value, errors: &mut Errors) {
    let (shown, scopes, place) = (at(spec, &["scopes"]), list(spec, &["scopes"]), "spec.scopes");
    for scope in scopes.iter().map(|scope| scope.as_str().unwrap_or_default()) {
        if !is_scope(scope) {
            errors.invalid(place, shown, "unsupported scope");
        }
        for _ in out_of_scope(spec, scope) {
            errors.invalid(place, shown, "unsupported scope applied to resource");
        }
    }
    if conflicts(&names(scopes)) {
        errors.invalid(place, shown, "conflicting scopes");
    }
}

fn is_scope(scope: &str) -> bool {
    SCOPES.iter().any(|(name, _)| *name == scope)
}

fn conflicts(scopes: &BTreeSet<&str>) -> bool {
    CONFLICTS.iter().any(|pair| pair.iter().all(|scope| scopes.contains(scope)))
}

fn validate_selector(spec: &Value, errors: &mut Errors) {
    let expressions = list(spec, &["scopeSelector", "matchExpressions"]);
    let place = "spec.scopeSelector.matchExpressions";
    for expression in expressions {
        let scope = text(expression, &["scopeName"]);
        if !is_scope(scope) {
            errors.invalid(format!("{place}.scopeName"), &Value::from(scope), "unsupported scope");
        }
        for _ in out_of_scope(spec, scope) {
            errors.invalid(place, &selector_as_shown(expressions), "unsupported scope applied to resource");
        }
        validate_operator(expression, place, errors);
    }
    let scopes: BTreeSet<&str> = expressions.iter().map(|one| text(one, &["scopeName"])).collect();
    if conflicts(&scopes) {
        errors.invalid(place, at(spec, &["scopes"]), "conflicting scopes");
    }
}

/// Upstream shows it as its server has it.
fn selector_as_shown(expressions: &[Value]) -> Value {
    let one = |expression: &Value| {
        let [scope, operator, values] =
            ["scopeName", "operator", "values"].map(|field| at(expression, &[field]));
        json!({ "ScopeName": scope, "Operator": operator, "Values": values })
    };
    json!({ "MatchExpressions": expressions.iter().map(one).collect::<Vec<_>>() })
}

fn validate_operator(expression: &Value, here: &str, errors: &mut Errors) {
    let (scope, operator) = (text(expression, &["scopeName"]), text(expression, &["operator"]));
    let (values, place) = (at(expression, &["values"]), format!("{here}.operator"));
    let only_exists =
        ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    if only_exists.contains(&scope) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                      or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.invalid(&place, &Value::from(operator), detail);
    }
    let has_values = !list(expression, &["values"]).is_empty();
    match operator {
        "In" | "NotIn" if !has_values => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.required(format!("{here}.values"), detail);
        }
        "Exists" | "DoesNotExist" if has_values => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.invalid(format!("{here}.values"), values, detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.invalid(place, &Value::from(operator), "not a valid selector operator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(old: Option<&Value>, spec: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate_quota(&Change { old, new: &mut json!({ "spec": spec }) }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_quota_bounds_what_is_counted() {
        assert_eq!(
            refused(None, &json!({ "hard": { "cpu": "1", "count/jobs.batch": "3", "pods": "2" } })),
            [""; 0]
        );
        let want = [
            "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
        ];
        assert_eq!(refused(None, &json!({ "hard": { "storage": "1", "pods": "500m" } })), want);
        let mut errors = Errors::default();
        let mut new = json!({ "status": { "hard": { "a": "1" }, "used": { "pods": "-1" } } });
        validate_quota_status(Sub::Status, &Change { old: None, new: &mut new }, &mut errors);
        let fields: Vec<String> = errors.into_causes().into_iter().map(|cause| cause.field).collect();
        assert_eq!(fields, ["status.hard[a]", "status.hard[a]", "status.used[pods]"]);
    }

    #[test]
    fn scopes_fit_each_other_and_what_is_bounded() {
        for (spec, want) in [
            (json!({ "scopes": ["BestEffort"], "hard": { "pods": "1", "x.io/a": "1" } }), vec![]),
            (json!({ "scopes": ["NotBestEffort", "Terminating"], "hard": { "cpu": "1" } }), vec![]),
            (json!({ "scopes": ["Any"] }), vec!["spec.scopes: Invalid value: [\"Any\"]: unsupported scope"]),
            (
                json!({ "scopes": ["BestEffort"], "hard": { "cpu": "1" } }),
                vec!["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
            ),
            (
                json!({ "scopes": ["Terminating", "NotTerminating"] }),
                vec!["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
            ),
        ] {
            assert_eq!(refused(None, &spec), want, "{spec}");
        }
    }

    #[test]
    fn the_scopes_of_a_quota_stay() {
        let old = json!({ "spec": { "scopes": ["BestEffort", "Terminating"] } });
        assert_eq!(refused(Some(&old), &json!({ "scopes": ["Terminating", "BestEffort"] })), [""; 0]);
        let want = "spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable";
        assert_eq!(refused(Some(&old), &json!({ "scopes": ["BestEffort"] })), [want]);
    }

    #[test]
    fn selectors_of_scopes_have_the_values_their_operators_want() {
        let place = "spec.scopeSelector.matchExpressions";
        let one = |scope: &str, operator: &str, values: &[&str]| {
            let expression = json!({ "scopeName": scope, "operator": operator, "values": values });
            refused(
                None,
                &json!({ "hard": { "services": "1" }, "scopeSelector": { "matchExpressions": [expression] } }),
            )
        };
        let unbounded = format!(
            "{place}: Invalid value: {{\"MatchExpressions\":[{{\"ScopeName\":\"PriorityClass\",\"Operator\":\"In\",\"Values\":[\"a\"]}}]}}: unsupported scope applied to resource"
        );
        assert_eq!(one("PriorityClass", "In", &["a"]), [unbounded]);
        let without = |scope: &str, operator: &str, values: &[&str]| {
            let mut found = one(scope, operator, values);
            found.retain(|told| !told.contains("applied to resource"));
            found
        };
        assert_eq!(without("PriorityClass", "Exists", &[]), [""; 0]);
        assert!(
            without("BestEffort", "DoesNotExist", &[])[0].contains("must be 'Exists' when scope is any of")
        );
        assert!(
            without("PriorityClass", "In", &[])[0].starts_with(&format!("{place}.values: Required value"))
        );
        assert!(
            without("PriorityClass", "Exists", &["a"])[0]
                .starts_with(&format!("{place}.values: Invalid value"))
        );
        let want = format!("{place}.operator: Invalid value: \"Like\": not a valid selector operator");
        assert_eq!(without("PriorityClass", "Like", &[]), [want]);
        let want = format!("{place}.scopeName: Invalid value: \"Any\": unsupported scope");
        assert_eq!(without("Any", "Exists", &[]), [want]);
    }
}
