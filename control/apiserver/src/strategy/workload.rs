//! Workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController.

use serde_json::{Value, json};

use super::Change;
use super::pod::validate_template;
use super::pod_spec::default_spec;
use crate::tree::{at, int, set_default, strings, text};
use crate::validate::{self, Errors};

pub fn default_deployment(object: &mut Value) {
    default_spec(object, &["spec", "template", "spec"]);
    set_default(object, &["spec", "replicas"], 1);
    set_default(object, &["spec", "strategy", "type"], "RollingUpdate");
    if text(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], "25%");
        set_default(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%");
    }
    set_default(object, &["spec", "revisionHistoryLimit"], 10);
    set_default(object, &["spec", "progressDeadlineSeconds"], 600);
}

pub fn default_replica_set(object: &mut Value) {
    default_spec(object, &["spec", "template", "spec"]);
    set_default(object, &["spec", "replicas"], 1);
}

pub fn default_replication_controller(object: &mut Value) {
    if at(object, &["spec", "template"]).is_object() {
        default_spec(object, &["spec", "template", "spec"]);
    }
    set_default(object, &["spec", "replicas"], 1);
    let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
    if labels.is_object() {
        set_default(object, &["spec", "selector"], labels.clone());
        set_default(object, &["metadata", "labels"], labels);
    }
}

pub fn default_stateful_set(object: &mut Value) {
    default_spec(object, &["spec", "template", "spec"]);
    set_default(object, &["spec", "replicas"], 1);
    set_default(object, &["spec", "podManagementPolicy"], "OrderedReady");
    set_default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
    if text(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
    }
    set_default(object, &["spec", "revisionHistoryLimit"], 10);
    for field in ["whenDeleted", "whenScaled"] {
        set_default(object, &["spec", "persistentVolumeClaimRetentionPolicy", field], "Retain");
    }
    for claim in crate::tree::list_mut(object, &["spec", "volumeClaimTemplates"]) {
        super::claim::default_claim(claim);
        set_default(claim, &["apiVersion"], "v1");
        set_default(claim, &["kind"], "PersistentVolumeClaim");
    }
}

pub fn default_daemon_set(object: &mut Value) {
    default_spec(object, &["spec", "template", "spec"]);
    set_default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
    if text(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], 0);
    }
    set_default(object, &["spec", "revisionHistoryLimit"], 10);
}

pub fn validate_deployment(change: &Change<'_>, errors: &mut Errors) {
    validate_selecting(change, errors);
    let strategy = at(change.new, &["spec", "strategy"]);
    let kind = text(strategy, &["type"]);
    if !matches!(kind, "Recreate" | "RollingUpdate") {
        let known = ["Recreate", "RollingUpdate"].map(Value::from);
        errors.not_among("spec.strategy", &strategy_as_shown(strategy), &known);
    }
    if kind == "Recreate" && !at(strategy, &["rollingUpdate"]).is_null() {
        errors.forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        );
    }
    let (unavailable, surge) =
        (at(strategy, &["rollingUpdate", "maxUnavailable"]), at(strategy, &["rollingUpdate", "maxSurge"]));
    if is_zero(unavailable) && is_zero(surge) {
        errors.invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            unavailable,
            "may not be 0 when `maxSurge` is 0",
        );
    }
    part_of_all("spec.strategy.rollingUpdate.maxUnavailable", unavailable, errors);
    int_or_percent("spec.strategy.rollingUpdate.maxSurge", surge, errors);
    for field in ["revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.not_negative(format!("spec.{field}"), int(change.new, &["spec", field]));
    }
    let ready = int(change.new, &["spec", "minReadySeconds"]).unwrap_or_default();
    if let Some(deadline) = int(change.new, &["spec", "progressDeadlineSeconds"]).filter(|at| *at <= ready) {
        let place = "spec.progressDeadlineSeconds";
        errors.invalid(place, &deadline.into(), "must be greater than minReadySeconds");
    }
}

/// Upstream shows a strategy it does not know as its server has it.
pub fn strategy_as_shown(strategy: &Value) -> Value {
    json!({ "Type": text(strategy, &["type"]), "RollingUpdate": at(strategy, &["rollingUpdate"]) })
}

/// Whether nothing, or no percent of anything, is meant.
pub fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Number(number) if number.as_i64() == Some(0)) || value == "0%"
}

/// A count that is not negative, or a percentage of at most 100.
pub fn part_of_all(place: &str, value: &Value, errors: &mut Errors) {
    int_or_percent(place, value, errors);
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.invalid(place, value, "must not be greater than 100%");
    }
}

/// A count that is not negative, or a percentage.
fn int_or_percent(place: &str, value: &Value, errors: &mut Errors) {
    match value {
        Value::Number(number) => errors.not_negative(place, number.as_i64()),
        Value::String(text) => {
            let number =
                text.strip_suffix('%').filter(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()));
            if number.is_none() {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', \
                              or '93%', regex used for validation is '[0-9]+%')";
                errors.invalid(place, value, detail);
            }
        }
        _ => {}
    }
}

/// Kinds that own pods by selector: the selector matches the template and never changes.
pub fn validate_selecting(change: &Change<'_>, errors: &mut Errors) {
    validate_pods(change, errors);
    if let Some(old) = change.old {
        let selector = at(change.new, &["spec", "selector"]);
        errors.immutable("spec.selector", at(old, &["spec", "selector"]), selector);
    }
}

/// How many pods there are to be, which they are, and what they are made of.
pub fn validate_pods(change: &Change<'_>, errors: &mut Errors) {
    let object = &*change.new;
    errors.not_negative("spec.replicas", int(object, &["spec", "replicas"]));
    errors.not_negative("spec.minReadySeconds", int(object, &["spec", "minReadySeconds"]));
    validate_selector(object, errors);
    validate_template(change, &["spec", "template"], &["Always"], errors);
}

/// A selector is there, and selects the pods that are made.
fn validate_selector(object: &Value, errors: &mut Errors) {
    let (selector, place) = (at(object, &["spec", "selector"]), "spec.selector");
    // Upstream calls a ReplicaSet a deployment, too.
    let kind = match text(object, &["kind"]) {
        "StatefulSet" => "statefulset",
        "DaemonSet" => "daemonset",
        _ => "deployment",
    };
    if !selector.is_object() && kind != "daemonset" {
        errors.required(place, "");
    }
    let found = errors.len();
    validate_label_selector(selector, place, errors);
    let is_broken = errors.len() > found;
    let is_empty = selector.is_object()
        && strings(selector, &["matchLabels"]).next().is_none()
        && crate::tree::list(selector, &["matchExpressions"]).is_empty();
    if is_empty {
        errors.invalid(place, selector, &format!("empty selector is invalid for {kind}"));
    }
    let labels = at(object, &["spec", "template", "metadata", "labels"]);
    match kind {
        "deployment" if is_broken => errors.invalid(place, selector, "invalid label selector"),
        "statefulset" if is_broken => errors.invalid(place, selector, ""),
        _ if is_broken || (selector.is_object() && selects(selector, labels)) => {}
        _ => {
            let detail = "`selector` does not match template `labels`";
            errors.invalid("spec.template.metadata.labels", labels, detail);
        }
    }
}

/// Whether a LabelSelector selects these labels.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let all_labels = strings(selector, &["matchLabels"])
        .all(|(key, value)| text(labels, &[key]) == value && labels.get(key).is_some());
    all_labels
        && crate::tree::list(selector, &["matchExpressions"]).iter().all(|expression| {
            let value = labels.get(text(expression, &["key"])).and_then(Value::as_str);
            let named = |value: &str| crate::tree::list(expression, &["values"]).iter().any(|v| v == value);
            match text(expression, &["operator"]) {
                "In" => value.is_some_and(named),
                "NotIn" => value.is_none_or(|value| !named(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Syntax of a LabelSelector.
pub fn validate_label_selector(selector: &Value, here: &str, errors: &mut Errors) {
    validate_selector_of(selector, true, here, errors);
}

/// Syntax of a LabelSelector, in whose expressions values are not looked at where bad ones were before.
pub fn validate_selector_of(selector: &Value, values_hold: bool, here: &str, errors: &mut Errors) {
    for (key, value) in strings(selector, &["matchLabels"]) {
        errors.check(format!("{here}.matchLabels"), key, validate::label_key);
        errors.check(format!("{here}.matchLabels"), value, validate::label_value);
    }
    for (index, expression) in crate::tree::list(selector, &["matchExpressions"]).iter().enumerate() {
        let place = format!("{here}.matchExpressions[{index}]");
        let operator = text(expression, &["operator"]);
        let values = crate::tree::list(expression, &["values"]);
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    format!("{place}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(
                    format!("{place}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(
                format!("{place}.operator"),
                &Value::from(operator),
                "not a valid selector operator",
            ),
        }
        errors.check(format!("{place}.key"), text(expression, &["key"]), validate::label_key);
        for (position, value) in values.iter().enumerate().filter(|_| values_hold) {
            let value = value.as_str().unwrap_or_default();
            errors.check(format!("{place}.values[{position}]"), value, validate::label_value);
        }
    }
}

pub fn validate_replication_controller(change: &Change<'_>, errors: &mut Errors) {
    errors.not_negative("spec.minReadySeconds", int(change.new, &["spec", "minReadySeconds"]));
    errors.not_negative("spec.replicas", int(change.new, &["spec", "replicas"]));
    if strings(change.new, &["spec", "selector"]).next().is_none() {
        errors.required("spec.selector", "");
    }
    if !at(change.new, &["spec", "template"]).is_object() {
        errors.required("spec.template", "");
        return;
    }
    let labels = at(change.new, &["spec", "template", "metadata", "labels"]);
    let is_there = |(key, value): (&str, &str)| at(labels, &[key]).as_str() == Some(value);
    if !strings(change.new, &["spec", "selector"]).all(is_there) {
        errors.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        );
    }
    validate_template(change, &["spec", "template"], &["Always"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_selects_its_own_pods_also_by_empty_values() {
        let told = |labels: Value| {
            let mut errors = Errors::default();
            let mut new = serde_json::json!({"kind": "ReplicationController", "spec": {"selector": {"a": ""},
                "template": {"metadata": {"labels": labels}, "spec": {}}}});
            validate_replication_controller(&Change { old: None, new: &mut new }, &mut errors);
            errors.into_causes().iter().any(|cause| cause.message.contains("does not match template"))
        };
        assert!(told(serde_json::json!({"b": ""})));
        assert!(!told(serde_json::json!({"a": ""})));
    }

    #[test]
    fn a_controller_has_a_template() {
        let mut new = json!({"kind": "ReplicationController", "spec": {"selector": {"a": "b"}}});
        default_replication_controller(&mut new);
        assert_eq!(told(new, validate_replication_controller), ["spec.template: Required value"]);
    }

    fn causes(old: Option<&Value>, mut new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        default_deployment(&mut new);
        validate_deployment(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    fn deployment(app: &str) -> Value {
        json!({"spec": {"selector": {"matchLabels": {"app": app}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}})
    }

    #[test]
    fn a_good_deployment_has_no_errors() {
        assert_eq!(causes(None, deployment("web")), Vec::<String>::new());
    }

    #[test]
    fn the_selector_must_match_the_template_and_stay() {
        assert_eq!(causes(None, deployment("api")), ["spec.template.metadata.labels"]);
        let old = deployment("api");
        assert_eq!(causes(Some(&old), deployment("web")), ["spec.selector"]);
    }

    fn told(mut object: Value, check: fn(&Change<'_>, &mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&Change { old: None, new: &mut object }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_selector_is_there_and_selects_the_template() {
        let of = |kind: &str, selector: Value| {
            let mut object = deployment("web");
            object["kind"] = json!(kind);
            object["spec"]["selector"] = selector;
            default_deployment(&mut object);
            told(object, |change, errors| validate_selector(change.new, errors))
        };
        let unlike = "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`";
        assert_eq!(of("Deployment", json!(null)), ["spec.selector: Required value", unlike]);
        assert_eq!(of("DaemonSet", json!(null)), [unlike]);
        let broken = of("ReplicaSet", json!({ "matchExpressions": [{ "key": "app", "operator": "Like" }] }));
        assert!(broken[1].ends_with(": invalid label selector") && broken.len() == 2, "{broken:?}");
        let want = "spec.selector: Invalid value: {}: empty selector is invalid for statefulset";
        assert_eq!(of("StatefulSet", json!({})), [want]);
    }

    #[test]
    fn a_strategy_nobody_knows_is_shown_whole() {
        let mut object = deployment("web");
        object["spec"]["strategy"] = json!({ "type": "Swap" });
        default_deployment(&mut object);
        let want = "spec.strategy: Unsupported value: {\"Type\":\"Swap\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"";
        assert_eq!(told(object, validate_deployment), [want]);
    }
}
