//! HorizontalPodAutoscalers, in the version they are stored in.

use serde_json::{Value, json};

use super::Change;
use crate::resources::Sub;
use crate::schema::quantity_millis;
use crate::tree::{at, int, list, set, set_default, text};
use crate::validate::{self, Errors};

/// Percent of the requested CPU that is aimed at when no metric is given.
const DEFAULT_CPU: i64 = 80;
const MAX_PERIOD_SECONDS: i64 = 1800;
const MAX_WINDOW_SECONDS: i64 = 3600;

/// Types of metrics, with the field that says more, in the order in which upstream looks at them.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TARGETS: &[&str] = &["Utilization", "Value", "AverageValue"];

/// The metric that aims at a share of the requested CPU, in percent.
pub fn cpu_target(percent: Value) -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": percent });
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
}

pub fn default_autoscaler(autoscaler: &mut Value) {
    set_default(autoscaler, &["spec", "minReplicas"], 1);
    if list(autoscaler, &["spec", "metrics"]).is_empty() {
        set(autoscaler, &["spec", "metrics"], vec![cpu_target(json!(DEFAULT_CPU))]);
    }
    if !at(autoscaler, &["spec", "behavior"]).is_object() {
        return;
    }
    let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
    set_default(autoscaler, &["spec", "behavior", "scaleUp", "stabilizationWindowSeconds"], 0);
    for (side, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
        for (field, value) in [("selectPolicy", json!("Max")), ("policies", policies)] {
            // An empty text or list is one, and refused.
            if at(autoscaler, &["spec", "behavior", side, field]).is_null() {
                set(autoscaler, &["spec", "behavior", side, field], value);
            }
        }
    }
}

pub fn validate_autoscaler(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let min = int(spec, &["minReplicas"]).unwrap_or(1);
    let max = int(spec, &["maxReplicas"]).unwrap_or_default();
    // Who was let down to zero, where that is allowed, can still be changed.
    let was_zero = change.old.is_some_and(|old| int(old, &["spec", "minReplicas"]) == Some(0));
    let least = if was_zero { 0 } else { 1 };
    if min < least {
        let detail = format!("must be greater than or equal to {least}");
        errors.invalid("spec.minReplicas", &json!(min), &detail);
    }
    if max < 1 {
        errors.invalid("spec.maxReplicas", &json!(max), "must be greater than 0");
    }
    if max < min {
        errors.invalid("spec.maxReplicas", &json!(max), "must be greater than or equal to `minReplicas`");
    }
    let target = at(spec, &["scaleTargetRef"]);
    validate_reference(target, target_version(change), "spec.scaleTargetRef", errors);
    let metrics = list(spec, &["metrics"]);
    let version = metrics_version(change.old);
    for (index, metric) in metrics.iter().enumerate() {
        validate_metric(metric, version, &format!("spec.metrics[{index}]"), errors);
    }
    let wakes = |metric: &Value| matches!(text(metric, &["type"]), "Object" | "External");
    if min == 0 && !metrics.iter().any(wakes) {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden("spec.metrics", detail);
    }
    for side in ["scaleUp", "scaleDown"] {
        let rules = at(spec, &["behavior", side]);
        if rules.is_object() {
            validate_rules(rules, &format!("spec.behavior.{side}"), errors);
        }
    }
}

/// Checks what a write of the status says.
pub fn validate_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    for field in ["currentReplicas", "desiredReplicas"] {
        errors.not_negative(format!("status.{field}"), int(change.new, &["status", field]));
    }
}

/// What the `apiVersion` of a reference may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Anything: it was there before.
    Kept,
    Any,
    /// One with a group.
    Grouped,
}

fn target_version(change: &Change<'_>) -> Version {
    let target = at(change.new, &["spec", "scaleTargetRef"]);
    let is_kept = change.old.is_some_and(|old| {
        let before = at(old, &["spec", "scaleTargetRef"]);
        ["kind", "apiVersion"].iter().all(|field| text(before, &[field]) == text(target, &[field]))
    });
    match text(target, &["kind"]) {
        _ if is_kept => Version::Kept,
        // The one kind of the group without a name that can be scaled.
        "ReplicationController" => Version::Any,
        _ => Version::Grouped,
    }
}

fn metrics_version(old: Option<&Value>) -> Version {
    let metrics = old.map_or(&[][..], |old| list(old, &["spec", "metrics"]));
    let mut described = metrics.iter().filter(|metric| text(metric, &["type"]) == "Object");
    let is_wrong = |metric: &Value| {
        let version = text(metric, &["object", "describedObject", "apiVersion"]);
        fault(version, Version::Any).is_some()
    };
    if described.any(is_wrong) { Version::Kept } else { Version::Any }
}

/// What is wrong with an `apiVersion`.
fn fault(version: &str, may: Version) -> Option<String> {
    match may {
        Version::Kept => None,
        _ if version.matches('/').count() > 1 => Some(format!("unexpected GroupVersion string: {version}")),
        Version::Any => None,
        Version::Grouped => {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            group.is_empty().then(|| "apiVersion must specify API group".to_owned())
        }
    }
}

fn validate_reference(reference: &Value, version: Version, here: &str, errors: &mut Errors) {
    for field in ["kind", "name"] {
        match text(reference, &[field]) {
            "" => errors.required(format!("{here}.{field}"), ""),
            word => errors.check(format!("{here}.{field}"), word, validate::path_segment),
        }
    }
    let given = text(reference, &["apiVersion"]);
    if let Some(why) = fault(given, version) {
        errors.invalid(format!("{here}.apiVersion"), &Value::from(given), &why);
    }
}

fn validate_metric(metric: &Value, version: Version, here: &str, errors: &mut Errors) {
    let kind = text(metric, &["type"]);
    let known: Vec<&str> = SOURCES.iter().map(|(kind, _)| *kind).collect();
    if kind.is_empty() {
        errors.required(format!("{here}.type"), "must specify a metric source type");
    }
    if !known.contains(&kind) {
        errors.unsupported(format!("{here}.type"), kind, &known);
    }
    let given = |field: &str| !at(metric, &[field]).is_null();
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| given(field)).collect();
    if let Some(first) = present.first() {
        validate_source(first, at(metric, &[first]), version, &format!("{here}.{first}"), errors);
    }
    let expected = SOURCES.iter().find(|(one, _)| *one == kind).map(|(_, field)| *field);
    if let Some(field) = expected.filter(|field| !given(field)) {
        let detail = "must populate information for the given metric source";
        errors.required(format!("{here}.{field}"), detail);
    }
    if present.len() > 1 {
        for other in present.iter().filter(|field| Some(**field) != expected) {
            errors.forbidden(format!("{here}.{other}"), "must populate the given metric source only");
        }
    }
}

fn validate_source(field: &str, source: &Value, version: Version, here: &str, errors: &mut Errors) {
    if field == "object" {
        let described = at(source, &["describedObject"]);
        validate_reference(described, version, &format!("{here}.describedObject"), errors);
    }
    let of_resource = matches!(field, "resource" | "containerResource");
    if of_resource && text(source, &["name"]).is_empty() {
        errors.required(format!("{here}.name"), "must specify a resource name");
    }
    if field == "containerResource" && text(source, &["container"]).is_empty() {
        errors.required(format!("{here}.container"), "must specify a container");
    }
    if !of_resource {
        match text(source, &["metric", "name"]) {
            "" => errors.required(format!("{here}.metric.name"), "must specify a metric name"),
            name => errors.check(format!("{here}.metric.name"), name, validate::path_segment),
        }
    }
    validate_target(at(source, &["target"]), &format!("{here}.target"), errors);
    validate_fit(field, at(source, &["target"]), &format!("{here}.target"), errors);
}

fn validate_target(target: &Value, here: &str, errors: &mut Errors) {
    let kind = text(target, &["type"]);
    if kind.is_empty() {
        errors.required(format!("{here}.type"), "must specify a metric target type");
    }
    if !TARGETS.contains(&kind) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid(format!("{here}.type"), &json!(kind), detail);
    }
    for field in ["value", "averageValue"] {
        let given = at(target, &[field]);
        if given.as_str().and_then(quantity_millis).is_some_and(|millis| millis <= 0) {
            errors.invalid(format!("{here}.{field}"), given, "must be positive");
        }
    }
    if let Some(percent) = int(target, &["averageUtilization"]).filter(|percent| *percent < 1) {
        errors.invalid(format!("{here}.averageUtilization"), &json!(percent), "must be greater than 0");
    }
}

/// Which fields of a target go with a type of metric.
fn validate_fit(field: &str, target: &Value, here: &str, errors: &mut Errors) {
    let [value, average, utilization] =
        ["value", "averageValue", "averageUtilization"].map(|field| !at(target, &[field]).is_null());
    let (missing, why) = match field {
        "object" => (!value && !average, ("averageValue", "must set either a target value or averageValue")),
        "external" => (
            !value && !average,
            ("averageValue", "must set either a target value for metric or a per-pod target"),
        ),
        "pods" => (!average, ("averageValue", "must specify a positive target averageValue")),
        _ => (
            !utilization && !average,
            ("averageUtilization", "must set either a target raw value or a target utilization"),
        ),
    };
    if missing {
        errors.required(format!("{here}.{}", why.0), why.1);
    }
    match field {
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(format!("{here}.value"), detail);
        }
        "resource" | "containerResource" if utilization && average => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.forbidden(format!("{here}.averageValue"), detail);
        }
        _ => {}
    }
}

fn validate_rules(rules: &Value, here: &str, errors: &mut Errors) {
    if let Some(seconds) = int(rules, &["stabilizationWindowSeconds"]) {
        within(seconds, 0, MAX_WINDOW_SECONDS, &format!("{here}.stabilizationWindowSeconds"), errors);
    }
    let tolerance = at(rules, &["tolerance"]);
    if tolerance.as_str().and_then(quantity_millis).is_some_and(|millis| millis < 0) {
        errors.invalid(format!("{here}.tolerance"), tolerance, "must be greater than or equal to zero");
    }
    if let Some(policy) = at(rules, &["selectPolicy"]).as_str() {
        errors.must_be(format!("{here}.selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let policies = list(rules, &["policies"]);
    if policies.is_empty() {
        errors.required(format!("{here}.policies"), "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let here = format!("{here}.policies[{index}]");
        let (kind, known) = (text(policy, &["type"]), ["Percent", "Pods"]);
        if !known.contains(&kind) {
            errors.unsupported(format!("{here}.type"), kind, &known);
        }
        let number = |field: &str| int(policy, &[field]).unwrap_or_default();
        within(number("value"), 1, i64::MAX, &format!("{here}.value"), errors);
        within(number("periodSeconds"), 1, MAX_PERIOD_SECONDS, &format!("{here}.periodSeconds"), errors);
    }
}

/// Reports a number below 0 or 1, as `least` says, or above `most`.
fn within(number: i64, least: i64, most: i64, here: &str, errors: &mut Errors) {
    let detail = match number {
        _ if number < least && least == 0 => "must be greater than or equal to zero".to_owned(),
        _ if number < least => "must be greater than zero".to_owned(),
        _ if number > most => format!("must be less than or equal to {most}"),
        _ => return,
    };
    errors.invalid(here, &json!(number), &detail);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: Value) -> Vec<String> {
        let mut autoscaler = json!({ "spec": { "maxReplicas": 3,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" } } });
        for (field, value) in spec.as_object().unwrap() {
            set(&mut autoscaler, &["spec", field], value.clone());
        }
        default_autoscaler(&mut autoscaler);
        let mut errors = Errors::default();
        validate_autoscaler(&Change { old: None, new: &mut autoscaler }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn what_is_not_said_is_one_pod_at_least_and_eighty_percent_of_the_cpu() {
        let mut autoscaler = json!({ "spec": { "behavior": { "scaleDown": { "selectPolicy": "Min" } } } });
        default_autoscaler(&mut autoscaler);
        let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
        let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
        let up =
            json!({ "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent] });
        let down = json!({ "selectPolicy": "Min", "policies": [percent] });
        let want = json!({ "minReplicas": 1, "metrics": [cpu_target(json!(80))],
                           "behavior": { "scaleUp": up, "scaleDown": down } });
        assert_eq!(autoscaler["spec"], want);
        assert!(refused(json!({})).is_empty());
    }

    #[test]
    fn a_target_names_the_group_of_its_kind() {
        let with = |version: &str, kind: &str| {
            let target = json!({ "apiVersion": version, "kind": kind, "name": "web" });
            json!({ "spec": { "maxReplicas": 3, "scaleTargetRef": target } })
        };
        let group = Some("apiVersion must specify API group");
        let old = with("", "Deployment");
        for (old, version, kind, why) in [
            (None, "apps/v1", "Deployment", None),
            (None, "", "Deployment", group),
            (None, "v1", "Deployment", group),
            (None, "a/b/c", "Deployment", Some("unexpected GroupVersion string: a/b/c")),
            (None, "v1", "ReplicationController", None),
            (None, "", "ReplicationController", None),
            (Some(&old), "", "Deployment", None),
            (Some(&old), "v1", "Deployment", group),
            (Some(&old), "", "StatefulSet", group),
        ] {
            let mut new = with(version, kind);
            default_autoscaler(&mut new);
            let mut errors = Errors::default();
            validate_autoscaler(&Change { old, new: &mut new }, &mut errors);
            let found: Vec<_> =
                errors.into_causes().into_iter().map(|one| (one.field, one.message)).collect();
            let place = "spec.scaleTargetRef.apiVersion".to_owned();
            let want = why.map(|why| (place, format!("Invalid value: {version:?}: {why}")));
            assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{old:?} {version} {kind}");
        }
    }

    #[test]
    fn a_spec_is_refused_in_the_words_of_upstream() {
        let metric = |kind: &str, field: &str, target: Value| {
            json!({ "metrics": [{ "type": kind, field: { "name": "cpu", "metric": { "name": "m" }, "container": "c",
                     "describedObject": { "kind": "Service", "name": "s" }, "target": target } }] })
        };
        let average = |value: &str| json!({ "type": "AverageValue", "averageValue": value });
        let rules = |field: &str, value: Value| json!({ "behavior": { "scaleUp": { field: value } } });
        let policy = |policy: Value| rules("policies", json!([policy]));
        let cases = [
            (
                json!({ "minReplicas": 4 }),
                "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
            ),
            (json!({ "maxReplicas": 0 }), "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
            (
                json!({ "scaleTargetRef": { "apiVersion": "apps/v1", "name": "web" } }),
                "spec.scaleTargetRef.kind: Required value",
            ),
            (
                json!({ "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "a/b", "name": "web" } }),
                "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
            ),
            (
                json!({ "metrics": [{ "type": "Pods" }] }),
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ),
            (
                metric("Pods", "pods", json!({ "type": "Value", "value": "1" })),
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
            ),
            (
                metric("Pods", "pods", average("0")),
                "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
            ),
            (
                metric("Resource", "resource", json!({ "type": "Utilization" })),
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ),
            (
                metric("Resource", "resource", json!({ "type": "Utilization", "averageUtilization": 0 })),
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ),
            (
                metric("External", "external", json!({ "type": "Value", "value": "1", "averageValue": "1" })),
                "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
            ),
            (
                metric("Object", "object", json!({ "type": "Half", "value": "1" })),
                "spec.metrics[0].object.target.type: Invalid value: \"Half\": must be either Utilization, Value, or AverageValue",
            ),
            (
                metric("ContainerResource", "containerResource", json!({ "type": "Value", "value": "1" })),
                "spec.metrics[0].containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ),
            (
                rules("stabilizationWindowSeconds", json!(3601)),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            ),
            (
                rules("selectPolicy", json!("Best")),
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Best\": supported values: \"Disabled\", \"Max\", \"Min\"",
            ),
            (
                rules("policies", json!([])),
                "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
            ),
            (
                rules("tolerance", json!("-1")),
                "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to zero",
            ),
            (
                policy(json!({ "type": "Pods", "value": 0, "periodSeconds": 1 })),
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            ),
            (
                policy(json!({ "type": "Pods", "value": 1, "periodSeconds": 1801 })),
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ),
            (
                policy(json!({ "type": "Bits", "value": 1, "periodSeconds": 1 })),
                "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Bits\": supported values: \"Percent\", \"Pods\"",
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(refused(spec.clone())[0], want, "{spec}");
        }
        let mut two = metric("Pods", "pods", average("1"));
        set(&mut two["metrics"][0], &["resource"], json!({}));
        let want = "spec.metrics[0].resource: Forbidden: must populate the given metric source only";
        assert_eq!(refused(two), [want]);
        let zero = refused(json!({ "minReplicas": 0 }));
        let metrics = "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas";
        assert_eq!(zero, ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1", metrics]);
        let kinds = refused(json!({ "metrics": [{ "type": "Moon" }] }));
        assert!(kinds[0].starts_with("spec.metrics[0].type: Unsupported value: \"Moon\""), "{kinds:?}");
    }

    #[test]
    fn an_empty_policy_is_none_that_is_known() {
        let of = |rules: Value| refused(json!({ "behavior": { "scaleUp": rules } }));
        let want = "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"\": supported values: \"Disabled\", \"Max\", \"Min\"";
        assert_eq!(of(json!({ "selectPolicy": "" })), [want]);
        let want = "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy";
        assert_eq!(of(json!({ "policies": [] })), [want]);
    }
}
