//! The table of HorizontalPodAutoscalers.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, count, name, shown};
use crate::tree::{at, int, list, text};

pub static AUTOSCALER: Printer = Printer {
    columns: &[
        NAME,
        column("Reference").of("autoscaling.v2.HorizontalPodAutoscalerSpec", "scaleTargetRef"),
        column("Targets").of("autoscaling.v2.HorizontalPodAutoscalerSpec", "metrics"),
        column("MinPods").of("autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas"),
        column("MaxPods").of("autoscaling.v2.HorizontalPodAutoscalerSpec", "maxReplicas"),
        column("Replicas").of("autoscaling.v2.HorizontalPodAutoscalerStatus", "currentReplicas"),
        AGE,
    ],
    cells: |object, now| {
        let target = |field: &str| text(object, &["spec", "scaleTargetRef", field]);
        vec![
            name(object),
            json!(format!("{}/{}", target("kind"), target("name"))),
            json!(targets(object)),
            shown(object, &["spec", "minReplicas"]),
            json!(count(object, &["spec", "maxReplicas"])),
            json!(count(object, &["status", "currentReplicas"])),
            age(object, now),
        ]
    },
};

/// More metrics than this are counted instead of shown.
const MOST: usize = 2;

fn targets(object: &Value) -> String {
    let metrics = list(object, &["spec", "metrics"]);
    let current = list(object, &["status", "currentMetrics"]);
    let one = |(index, metric): (usize, &Value)| target(metric, current.get(index).unwrap_or(&Value::Null));
    let first: Vec<String> = metrics.iter().enumerate().take(MOST).map(one).collect();
    match metrics.len() {
        0 => "<none>".to_owned(),
        1..=MOST => first.join(", "),
        all => format!("{} + {} more...", first.join(", "), all - MOST),
    }
}

/// What is measured and what is aimed at. Upstream pairs metrics with what is measured by their position.
fn target(metric: &Value, current: &Value) -> String {
    let (field, of_resource) = match text(metric, &["type"]) {
        "External" => ("external", false),
        "Object" => ("object", false),
        "Pods" => ("pods", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let source = at(metric, &[field]);
    let average = !at(source, &["target", "averageValue"]).is_null();
    let quantity = |value: &Value| value.as_str().map_or_else(|| "<unknown>".to_owned(), str::to_owned);
    let percent = |value: Option<i64>, none: &str| value.map_or_else(|| none.to_owned(), |n| format!("{n}%"));
    let pair = |side: &str| {
        let now = quantity(at(current, &[field, "current", side]));
        format!("{now}/{}", quantity(at(source, &["target", side])))
    };
    match (of_resource, average) {
        (true, true) => format!("{}: {}", text(source, &["name"]), pair("averageValue")),
        (true, false) => {
            let now = percent(int(current, &[field, "current", "averageUtilization"]), "<unknown>");
            let aim = percent(int(source, &["target", "averageUtilization"]), "<auto>");
            format!("{}: {now}/{aim}", text(source, &["name"]))
        }
        (false, _) if field == "pods" => pair("averageValue"),
        (false, true) => format!("{} (avg)", pair("averageValue")),
        (false, false) => pair("value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_like_upstreams() {
        let source = |target: Value| json!({ "name": "cpu", "target": target });
        let metrics = [
            json!({ "type": "Resource", "resource": source(json!({ "averageUtilization": 80 })) }),
            json!({ "type": "ContainerResource", "containerResource": source(json!({ "averageValue": "500m" })) }),
            json!({ "type": "Pods", "pods": source(json!({ "averageValue": "1k" })) }),
            json!({ "type": "Object", "object": source(json!({ "averageValue": "2" })) }),
            json!({ "type": "External", "external": source(json!({ "value": "30" })) }),
            json!({ "type": "Moon" }),
        ];
        let currents = [
            json!({ "resource": { "current": { "averageUtilization": 3 } } }),
            json!({ "containerResource": { "current": { "averageValue": "20m" } } }),
            json!({ "pods": { "current": { "averageValue": "7" } } }),
            json!({ "object": { "current": { "averageValue": "1" } } }),
            json!({ "external": { "current": { "value": "9" } } }),
        ];
        let unknown = [
            "cpu: <unknown>/80%",
            "cpu: <unknown>/500m",
            "<unknown>/1k",
            "<unknown>/2 (avg)",
            "<unknown>/30",
            "<unknown type>",
        ];
        let known = ["cpu: 3%/80%", "cpu: 20m/500m", "7/1k", "1/2 (avg)", "9/30", "<unknown type>"];
        for (index, metric) in metrics.iter().enumerate() {
            let current = currents.get(index).cloned().unwrap_or_default();
            assert_eq!(target(metric, &Value::Null), unknown[index]);
            assert_eq!(target(metric, &current), known[index]);
        }
        let of = |count: usize| {
            targets(
                &json!({ "spec": { "metrics": metrics[..count] }, "status": { "currentMetrics": currents } }),
            )
        };
        assert_eq!([of(0), of(2)], ["<none>".to_owned(), "cpu: 3%/80%, cpu: 20m/500m".to_owned()]);
        assert_eq!(of(4), "cpu: 3%/80%, cpu: 20m/500m + 2 more...");
    }
}
