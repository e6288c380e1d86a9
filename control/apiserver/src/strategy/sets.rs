//! StatefulSets and DaemonSets.

use serde_json::Value;

use super::Change;
use super::workload::{is_zero, part_of_all, strategy_as_shown, validate_pods, validate_selecting};
use crate::tree::{at, copy, int, text};
use crate::validate::Errors;

/// What of a StatefulSet may change, in the order in which the refusal names it.
const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub fn validate_stateful_set(change: &Change<'_>, errors: &mut Errors) {
    validate_pods(change, errors);
    let spec = at(change.new, &["spec"]);
    match text(spec, &["podManagementPolicy"]) {
        "" => errors.required("spec.podManagementPolicy", ""),
        "OrderedReady" | "Parallel" => {}
        _ => {
            let policy = at(spec, &["podManagementPolicy"]);
            errors.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'");
        }
    }
    validate_rollout(at(spec, &["updateStrategy"]), errors);
    for field in ["whenDeleted", "whenScaled"] {
        let value = text(spec, &["persistentVolumeClaimRetentionPolicy", field]);
        let place = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        errors.must_be(place, value, &["Retain", "Delete"]);
    }
    errors.not_negative("spec.revisionHistoryLimit", int(spec, &["revisionHistoryLimit"]));
    errors.not_negative("spec.ordinals.start", int(spec, &["ordinals", "start"]));
    if let Some(old) = change.old {
        let mut compared = change.new.clone();
        CHANGEABLE.iter().for_each(|field| copy(&mut compared, old, &["spec", field]));
        if at(&compared, &["spec"]) != at(old, &["spec"]) {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                          'minReadySeconds' are forbidden";
            errors.forbidden("spec", detail);
        }
    }
}

fn validate_rollout(strategy: &Value, errors: &mut Errors) {
    let rolling = at(strategy, &["rollingUpdate"]);
    match text(strategy, &["type"]) {
        "" => errors.required("spec.updateStrategy", ""),
        "OnDelete" if !rolling.is_null() => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid("spec.updateStrategy.rollingUpdate", rolling, detail);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let here = "spec.updateStrategy.rollingUpdate";
            errors.not_negative(format!("{here}.partition"), int(rolling, &["partition"]));
            let unavailable = at(rolling, &["maxUnavailable"]);
            part_of_all(&format!("{here}.maxUnavailable"), unavailable, errors);
            if is_zero(unavailable) {
                errors.invalid(format!("{here}.maxUnavailable"), unavailable, "cannot be 0");
            }
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.invalid("spec.updateStrategy", &strategy_as_shown(strategy), detail);
        }
    }
}

pub fn validate_daemon_set(change: &Change<'_>, errors: &mut Errors) {
    validate_selecting(change, errors);
    let spec = at(change.new, &["spec"]);
    errors.not_negative("spec.revisionHistoryLimit", int(spec, &["revisionHistoryLimit"]));
    let rolling = at(spec, &["updateStrategy", "rollingUpdate"]);
    match text(spec, &["updateStrategy", "type"]) {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => errors.required("spec.updateStrategy.rollingUpdate", ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
            let here = "spec.updateStrategy.rollingUpdate";
            for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                part_of_all(&format!("{here}.{field}"), value, errors);
            }
            match (is_zero(unavailable), is_zero(surge)) {
                (true, true) => {
                    errors.required(format!("{here}.maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                (false, false) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(format!("{here}.maxSurge"), surge, detail);
                }
                _ => {}
            }
        }
        _ => {
            let known = ["RollingUpdate", "OnDelete"].map(Value::from);
            let shown = strategy_as_shown(at(spec, &["updateStrategy"]));
            errors.not_among("spec.updateStrategy", &shown, &known);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::device_claim::tests::fields;
    use crate::strategy::workload::{default_daemon_set, default_stateful_set};

    fn set(kind: &str, default: fn(&mut Value), spec: &Value) -> Value {
        let mut object = json!({"kind": kind, "metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}});
        json_patch::merge(&mut object["spec"], spec);
        default(&mut object);
        object
    }

    fn stateful(old: Option<&Value>, spec: &Value) -> Vec<String> {
        let mut new = set("StatefulSet", default_stateful_set, spec);
        fields(|errors| validate_stateful_set(&Change { old, new: &mut new }, errors))
    }

    #[test]
    fn stateful_sets_say_how_pods_come_and_are_replaced() {
        for (spec, want) in [
            (json!({}), vec![]),
            (json!({"podManagementPolicy": "Random"}), vec!["spec.podManagementPolicy"]),
            (json!({"updateStrategy": {"type": "Recreate"}}), vec!["spec.updateStrategy"]),
            (
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
                vec!["spec.updateStrategy.rollingUpdate"],
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.partition",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable",
                ],
            ),
            (
                json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Keep", "whenScaled": "Retain"}}),
                vec!["spec.persistentVolumeClaimRetentionPolicy.whenDeleted"],
            ),
            (json!({"selector": {"matchLabels": null}}), vec!["spec.selector"]),
            (json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}), vec![]),
        ] {
            assert_eq!(stateful(None, &spec), want, "{spec}");
        }
    }

    #[test]
    fn a_stateful_set_changes_only_what_it_may() {
        let old = set("StatefulSet", default_stateful_set, &json!({"serviceName": "a"}));
        let old = Some(&old);
        let may = json!({"serviceName": "a", "replicas": 5, "minReadySeconds": 3, "ordinals": {"start": 1}});
        assert_eq!(stateful(old, &may), Vec::<String>::new());
        for spec in [
            json!({"serviceName": "b"}),
            json!({"serviceName": "a", "podManagementPolicy": "Parallel"}),
            json!({"serviceName": "a", "volumeClaimTemplates": [{"metadata": {"name": "d"}}]}),
        ] {
            assert_eq!(stateful(old, &spec), ["spec"], "{spec}");
        }
    }

    #[test]
    fn daemon_sets_replace_pods_in_one_way() {
        let check = |strategy: Value| {
            let mut new = set("DaemonSet", default_daemon_set, &json!({"updateStrategy": strategy}));
            fields(|errors| validate_daemon_set(&Change { old: None, new: &mut new }, errors))
        };
        let rolling = |unavailable: Value, surge: Value| json!({"rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        assert_eq!(check(json!({})), Vec::<String>::new());
        assert_eq!(check(rolling(json!(0), json!("10%"))), Vec::<String>::new());
        assert_eq!(check(json!({"type": "Recreate"})), ["spec.updateStrategy"]);
        assert_eq!(check(rolling(json!(0), json!(0))), ["spec.updateStrategy.rollingUpdate.maxUnavailable"]);
        assert_eq!(check(rolling(json!(1), json!(1))), ["spec.updateStrategy.rollingUpdate.maxSurge"]);
        assert_eq!(
            check(rolling(json!("101%"), json!(0))),
            ["spec.updateStrategy.rollingUpdate.maxUnavailable"]
        );
    }
}
