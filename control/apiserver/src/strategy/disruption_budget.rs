//! PodDisruptionBudgets.

use serde_json::json;

use super::Change;
use super::conditions::validate_conditions;
use super::workload::{part_of_all, validate_label_selector};
use crate::resources::Sub;
use crate::tree::{at, int, list};
use crate::validate::Errors;

pub fn validate_disruption_budget(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let [available, unavailable, selector, policy] =
        ["minAvailable", "maxUnavailable", "selector", "unhealthyPodEvictionPolicy"]
            .map(|field| at(spec, &[field]));
    if !available.is_null() && !unavailable.is_null() {
        // Upstream shows it as its server has it.
        let shown = json!({ "MinAvailable": available, "Selector": selector, "MaxUnavailable": unavailable,
                            "UnhealthyPodEvictionPolicy": policy });
        errors.invalid("spec", &shown, "minAvailable and maxUnavailable cannot be both set");
    }
    part_of_all("spec.minAvailable", available, errors);
    part_of_all("spec.maxUnavailable", unavailable, errors);
    validate_label_selector(selector, "spec.selector", errors);
    if let Some(policy) = policy.as_str() {
        errors.must_be("spec.unhealthyPodEvictionPolicy", policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

pub fn validate_budget_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    let status = at(change.new, &["status"]);
    validate_conditions(list(status, &["conditions"]), "status.conditions", errors);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        errors.not_negative(format!("status.{field}"), int(status, &[field]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(errors: Errors) -> Vec<String> {
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_budget_says_one_of_how_many_stay_and_how_many_go() {
        let percent = "a valid percent string must be a numeric string followed by an ending '%'";
        for (spec, want) in [
            (json!({}), vec![]),
            (json!({ "minAvailable": "100%" }), vec![]),
            (json!({ "maxUnavailable": 5, "unhealthyPodEvictionPolicy": "AlwaysAllow" }), vec![]),
            (
                json!({ "minAvailable": 1, "maxUnavailable": 2 }),
                vec![
                    "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":null,\"MaxUnavailable\":2,\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set".to_owned(),
                ],
            ),
            (
                json!({ "minAvailable": "101%" }),
                vec!["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%".to_owned()],
            ),
            (
                json!({ "maxUnavailable": -1 }),
                vec!["spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0".to_owned()],
            ),
            (json!({ "maxUnavailable": "a" }), vec![format!("spec.maxUnavailable: Invalid value: \"a\": {percent}")]),
            (
                json!({ "selector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } }),
                vec!["spec.selector.matchExpressions[0].values: Required value: must be specified".to_owned()],
            ),
            (
                json!({ "unhealthyPodEvictionPolicy": "" }),
                vec!["spec.unhealthyPodEvictionPolicy: Unsupported value: \"\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"".to_owned()],
            ),
        ] {
            let mut errors = Errors::default();
            validate_disruption_budget(&Change { old: None, new: &mut json!({ "spec": spec }) }, &mut errors);
            let found = told(errors);
            assert_eq!(found.len(), want.len(), "{found:?}");
            found.iter().zip(&want).for_each(|(found, want)| assert!(found.starts_with(want), "{found}, not {want}"));
        }
    }

    #[test]
    fn its_numbers_are_not_negative() {
        let mut new = json!({ "status": { "disruptionsAllowed": -1, "currentHealthy": -1, "desiredHealthy": -1,
                                          "expectedPods": -1, "conditions": [{}] } });
        let mut errors = Errors::default();
        validate_budget_status(Sub::Status, &Change { old: None, new: &mut new }, &mut errors);
        let fields: Vec<String> = errors.into_causes().into_iter().map(|cause| cause.field).collect();
        assert_eq!(
            fields[fields.len() - 4..].join(" "),
            "status.disruptionsAllowed status.currentHealthy status.desiredHealthy status.expectedPods"
        );
        assert!(fields[0].starts_with("status.conditions[0]."));
    }
}
