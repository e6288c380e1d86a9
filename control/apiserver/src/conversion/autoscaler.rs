//! HorizontalPodAutoscalers of autoscaling/v1, which are stored as those of autoscaling/v2.
//!
//! v1 has a field for one metric: the CPU that pods use, in percent of what they request. What else there is stands as JSON in
//! annotations, metrics in the flat form they had before v2, and comes back from there. An annotation that cannot be read counts
//! as not given, as upstream.

use serde_json::{Value, json};

use super::Conversion;
use super::metrics::{CURRENTS, TARGETS, deepen, flatten};
use crate::resources::stored;
use crate::schema::decode;
use crate::strategy::autoscaler::cpu_target;
use crate::tree::{at, int, remove, set, set_default, text};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub static V1: Conversion = Conversion { store, show };

fn show(autoscaler: &mut Value) {
    for annotation in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        remove(autoscaler, &["metadata", "annotations", annotation]);
    }
    if let Some(Value::Array(metrics)) = remove(autoscaler, &["spec", "metrics"]) {
        if let Some(percent) = metrics.iter().find_map(|one| cpu(one, "target")) {
            set(autoscaler, &["spec", "targetCPUUtilizationPercentage"], percent);
        }
        let others = metrics.iter().filter(|one| cpu(one, "target").is_none());
        annotate(autoscaler, METRICS, others.map(|one| flatten(one, TARGETS)).collect());
    }
    if let Some(behavior) = remove(autoscaler, &["spec", "behavior"]) {
        annotate(autoscaler, BEHAVIOR, vec![capitalized(&behavior, BEHAVIOR_FIELDS)]);
    }
    if let Some(Value::Array(metrics)) = remove(autoscaler, &["status", "currentMetrics"]) {
        if let Some(percent) = metrics.iter().rev().find_map(|one| cpu(one, "current")) {
            set(autoscaler, &["status", "currentCPUUtilizationPercentage"], percent);
        }
        annotate(autoscaler, CURRENT_METRICS, metrics.iter().map(|one| flatten(one, CURRENTS)).collect());
    }
    if let Some(Value::Array(conditions)) = remove(autoscaler, &["status", "conditions"]) {
        annotate(autoscaler, CONDITIONS, conditions);
    }
    // Optional there, always written here.
    if at(autoscaler, &["status"]).is_object() {
        set_default(autoscaler, &["status", "currentReplicas"], 0);
    }
    if at(autoscaler, &["metadata", "annotations"]) == &json!({}) {
        remove(autoscaler, &["metadata", "annotations"]);
    }
}

fn store(autoscaler: &mut Value) {
    let target = remove(autoscaler, &["spec", "targetCPUUtilizationPercentage"]);
    let current = remove(autoscaler, &["status", "currentCPUUtilizationPercentage"]);
    if int(autoscaler, &["status", "currentReplicas"]) == Some(0) {
        remove(autoscaler, &["status", "currentReplicas"]);
    }
    let mut metrics = take_list(autoscaler, METRICS, &["spec", "metrics"], |one| deepen(one, TARGETS));
    metrics.extend(target.filter(Value::is_number).map(cpu_target));
    if !metrics.is_empty() {
        set(autoscaler, &["spec", "metrics"], metrics);
    }
    let behavior = take(autoscaler, BEHAVIOR).map(|text| lower_case(&text, BEHAVIOR_FIELDS));
    let behavior = behavior.filter(|behavior| *behavior != json!({}));
    if let Some(behavior) = behavior.and_then(|behavior| readable(&["spec", "behavior"], behavior)) {
        set(autoscaler, &["spec", "behavior"], behavior);
    }
    let mut currents =
        take_list(autoscaler, CURRENT_METRICS, &["status", "currentMetrics"], |one| deepen(one, CURRENTS));
    if let Some(percent) = current.filter(|percent| percent.is_number() && currents.is_empty()) {
        let resource = json!({ "name": "cpu", "current": { "averageUtilization": percent } });
        currents.push(json!({ "type": "Resource", "resource": resource }));
    }
    let conditions = take_list(autoscaler, CONDITIONS, &["status", "conditions"], Value::clone);
    for (field, items) in [("currentMetrics", currents), ("conditions", conditions)] {
        if !items.is_empty() {
            set(autoscaler, &["status", field], items);
        }
    }
    if at(autoscaler, &["metadata", "annotations"]) == &json!({}) {
        remove(autoscaler, &["metadata", "annotations"]);
    }
}

/// Percent of the requested CPU, where the metric says that; `side` is `target` or `current`.
fn cpu(metric: &Value, side: &str) -> Option<i64> {
    let is_cpu = text(metric, &["type"]) == "Resource" && text(metric, &["resource", "name"]) == "cpu";
    int(metric, &["resource", side, "averageUtilization"]).filter(|_| is_cpu)
}

/// Writes JSON into an annotation: a list, or the one behaviour. An empty list is not written.
fn annotate(autoscaler: &mut Value, annotation: &str, mut values: Vec<Value>) {
    if values.is_empty() {
        return;
    }
    let value = if annotation == BEHAVIOR { values.remove(0) } else { Value::Array(values) };
    set(autoscaler, &["metadata", "annotations", annotation], value.to_string());
}

/// The JSON of an annotation, which is taken away.
fn take(autoscaler: &mut Value, annotation: &str) -> Option<Value> {
    let text = remove(autoscaler, &["metadata", "annotations", annotation])?;
    serde_json::from_str(text.as_str()?).ok()
}

/// The items of an annotation's list, brought into the form of `path`; none when the stored kind could not hold them.
fn take_list(
    autoscaler: &mut Value,
    annotation: &str,
    path: &[&str],
    bring: fn(&Value) -> Value,
) -> Vec<Value> {
    let Some(Value::Array(items)) = take(autoscaler, annotation) else { return Vec::new() };
    match readable(path, items.iter().map(bring).collect()) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// The value as the stored kind holds it at `path`.
fn readable(path: &[&str], value: Value) -> Option<Value> {
    let row = stored("horizontalpodautoscalers").expect("the table has a row that is stored so");
    let mut object = json!({});
    set(&mut object, path, value);
    let mut read = decode::from_value(row.node(), object).ok()?.value;
    remove(&mut read, path)
}

/// Names of a behaviour's fields: upstream writes it with those of its own types, in which they begin with a capital.
const BEHAVIOR_FIELDS: &[&str] = &[
    "scaleUp",
    "scaleDown",
    "stabilizationWindowSeconds",
    "selectPolicy",
    "policies",
    "tolerance",
    "type",
    "value",
    "periodSeconds",
];

fn capitalized(value: &Value, known: &[&str]) -> Value {
    renamed(value, &|name| {
        known.iter().find(|one| **one == name).map_or_else(|| name.to_owned(), |one| capital(one))
    })
}

fn lower_case(value: &Value, known: &[&str]) -> Value {
    let lower = |name: &str| known.iter().find(|one| one.eq_ignore_ascii_case(name)).copied();
    without_nulls(renamed(value, &|name| lower(name).unwrap_or(name).to_owned()))
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_ascii_uppercase() + rest
}

fn renamed(value: &Value, name: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(field, value)| (name(field), renamed(value, name))).collect())
        }
        Value::Array(items) => items.iter().map(|item| renamed(item, name)).collect(),
        other => other.clone(),
    }
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        for (_, value) in fields.iter_mut() {
            *value = without_nulls(value.take());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "Deployment";

    /// Of v2, with everything that v1 has no field for.
    fn stored_one() -> Value {
        let metric = json!({ "name": "m", "selector": { "matchLabels": { "a": "b" } } });
        let policy = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "web", "annotations": { "mine": "kept" } },
            "spec": { "scaleTargetRef": { "kind": REFERENCE, "name": "web" }, "minReplicas": 1, "maxReplicas": 3,
                "metrics": [
                    { "type": "Resource", "resource": { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } },
                    { "type": "Pods", "pods": { "metric": metric, "target": { "type": "AverageValue", "averageValue": "5" } } },
                    { "type": "Object", "object": { "describedObject": { "kind": "Service", "name": "s" }, "metric": metric, "target": { "type": "AverageValue", "averageValue": "2" } } },
                    { "type": "Object", "object": { "describedObject": { "kind": "Service", "name": "s" }, "metric": metric, "target": { "type": "Value", "value": "9" } } },
                    { "type": "External", "external": { "metric": metric, "target": { "type": "Value", "value": "30" } } },
                    { "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "c", "target": { "type": "Utilization", "averageUtilization": 60 } } },
                    { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } },
                ],
                "behavior": { "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [policy], "tolerance": "100m" } } },
            "status": { "currentReplicas": 2, "desiredReplicas": 3, "observedGeneration": 1,
                "currentMetrics": [{ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 40, "averageValue": "20m" } } }],
                "conditions": [{ "type": "AbleToScale", "status": "True", "reason": "Ready" }] } })
    }

    fn shown() -> Value {
        let mut autoscaler = stored_one();
        show(&mut autoscaler);
        autoscaler
    }

    #[test]
    fn the_older_version_shows_one_metric_and_keeps_the_rest_in_annotations() {
        let shown = shown();
        assert_eq!(
            shown["spec"],
            json!({ "scaleTargetRef": { "kind": REFERENCE, "name": "web" },
            "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50 })
        );
        assert_eq!(
            shown["status"],
            json!({ "currentReplicas": 2, "desiredReplicas": 3, "observedGeneration": 1,
            "currentCPUUtilizationPercentage": 40 })
        );
        let annotation = |name: &str| text(&shown, &["metadata", "annotations", name]).to_owned();
        assert_eq!(annotation("mine"), "kept");
        let metrics: Value = serde_json::from_str(&annotation(METRICS)).unwrap();
        let selector = json!({ "matchLabels": { "a": "b" } });
        assert_eq!(
            metrics[0],
            json!({ "type": "Resource", "resource": { "name": "memory", "targetAverageValue": "1Gi" } })
        );
        assert_eq!(
            metrics[2]["object"],
            json!({ "target": { "kind": "Service", "name": "s" }, "metricName": "m",
            "targetValue": "0", "selector": selector, "averageValue": "2" })
        );
        assert_eq!(
            metrics[4]["external"],
            json!({ "metricName": "m", "metricSelector": selector, "targetValue": "30" })
        );
        assert_eq!(metrics[5]["containerResource"]["targetAverageUtilization"], 60);
        assert_eq!(metrics.as_array().unwrap().len(), 6);
        let current = r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":40,"currentAverageValue":"20m"}}]"#;
        assert_eq!(annotation(CURRENT_METRICS), current);
        assert_eq!(annotation(CONDITIONS), r#"[{"type":"AbleToScale","status":"True","reason":"Ready"}]"#);
        let behavior = r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":"100m"}}"#;
        assert_eq!(annotation(BEHAVIOR), behavior);
    }

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let mut back = shown();
        store(&mut back);
        assert_eq!(back, stored_one());
        let mut small = json!({ "metadata": { "name": "web" }, "spec": { "maxReplicas": 3 }, "status": { "desiredReplicas": 0 } });
        let before = small.clone();
        show(&mut small);
        assert_eq!(small["status"], json!({ "desiredReplicas": 0, "currentReplicas": 0 }));
        store(&mut small);
        assert_eq!(small, before);
    }

    #[test]
    fn annotations_that_cannot_be_read_count_as_not_given() {
        for (annotation, text) in [
            (METRICS, "{"),
            (METRICS, "7"),
            (METRICS, r#"[{"type":"Pods","pods":{"targetAverageValue":"much"}}]"#),
            (BEHAVIOR, r#"{"ScaleUp":{"StabilizationWindowSeconds":"long"}}"#),
            (BEHAVIOR, "{}"),
            (CONDITIONS, "[1]"),
            (CURRENT_METRICS, "null"),
        ] {
            let mut autoscaler = json!({ "spec": { "targetCPUUtilizationPercentage": 7 } });
            set(&mut autoscaler, &["metadata", "annotations", annotation], text);
            store(&mut autoscaler);
            assert_eq!(
                autoscaler,
                json!({ "spec": { "metrics": [cpu_target(json!(7))] }, "metadata": {} }),
                "{annotation} {text}"
            );
        }
        let mut lower = json!({ "spec": {} });
        set(
            &mut lower,
            &["metadata", "annotations", BEHAVIOR],
            r#"{"scaledown":{"SELECTPOLICY":"Min"},"ScaleUp":null}"#,
        );
        store(&mut lower);
        assert_eq!(lower["spec"], json!({ "behavior": { "scaleDown": { "selectPolicy": "Min" } } }));
    }
}
