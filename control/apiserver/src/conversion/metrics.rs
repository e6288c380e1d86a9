//! Metrics of HorizontalPodAutoscalers in the flat form they had before v2, in which annotations keep them.

use serde_json::{Map, Value, json};

use crate::tree::{at, set, text};

/// How a metric of one type is written here (flat) and there.
pub struct Shape {
    kind: &'static str,
    field: &'static str,
    /// Names of the flat form in its order, each with its path in the stored one.
    fields: &'static [(&'static str, &'static [&'static str])],
    /// A quantity that the flat form always has.
    always: &'static str,
}

const METRIC: &[&str] = &["metric", "name"];
const SELECTOR: &[&str] = &["metric", "selector"];
const UTILIZATION: &[&str] = &["target", "averageUtilization"];
const AVERAGE: &[&str] = &["target", "averageValue"];
const VALUE: &[&str] = &["target", "value"];
const NOW_UTILIZATION: &[&str] = &["current", "averageUtilization"];
const NOW_AVERAGE: &[&str] = &["current", "averageValue"];
const NOW_VALUE: &[&str] = &["current", "value"];

/// Metrics of a spec.
pub const TARGETS: &[Shape] = &[
    Shape {
        kind: "Object",
        field: "object",
        fields: &[
            ("target", &["describedObject"]),
            ("metricName", METRIC),
            ("targetValue", VALUE),
            ("selector", SELECTOR),
            ("averageValue", AVERAGE),
        ],
        always: "targetValue",
    },
    Shape {
        kind: "Pods",
        field: "pods",
        fields: &[("metricName", METRIC), ("targetAverageValue", AVERAGE), ("selector", SELECTOR)],
        always: "targetAverageValue",
    },
    Shape {
        kind: "Resource",
        field: "resource",
        fields: &[
            ("name", &["name"]),
            ("targetAverageUtilization", UTILIZATION),
            ("targetAverageValue", AVERAGE),
        ],
        always: "",
    },
    Shape {
        kind: "ContainerResource",
        field: "containerResource",
        fields: &[
            ("name", &["name"]),
            ("targetAverageUtilization", UTILIZATION),
            ("targetAverageValue", AVERAGE),
            ("container", &["container"]),
        ],
        always: "",
    },
    Shape {
        kind: "External",
        field: "external",
        fields: &[
            ("metricName", METRIC),
            ("metricSelector", SELECTOR),
            ("targetValue", VALUE),
            ("targetAverageValue", AVERAGE),
        ],
        always: "",
    },
];

/// Metrics of a status.
pub const CURRENTS: &[Shape] = &[
    Shape {
        kind: "Object",
        field: "object",
        fields: &[
            ("target", &["describedObject"]),
            ("metricName", METRIC),
            ("currentValue", NOW_VALUE),
            ("selector", SELECTOR),
            ("averageValue", NOW_AVERAGE),
        ],
        always: "currentValue",
    },
    Shape {
        kind: "Pods",
        field: "pods",
        fields: &[("metricName", METRIC), ("currentAverageValue", NOW_AVERAGE), ("selector", SELECTOR)],
        always: "currentAverageValue",
    },
    Shape {
        kind: "Resource",
        field: "resource",
        fields: &[
            ("name", &["name"]),
            ("currentAverageUtilization", NOW_UTILIZATION),
            ("currentAverageValue", NOW_AVERAGE),
        ],
        always: "currentAverageValue",
    },
    Shape {
        kind: "ContainerResource",
        field: "containerResource",
        fields: &[
            ("name", &["name"]),
            ("currentAverageUtilization", NOW_UTILIZATION),
            ("currentAverageValue", NOW_AVERAGE),
            ("container", &["container"]),
        ],
        always: "currentAverageValue",
    },
    Shape {
        kind: "External",
        field: "external",
        fields: &[
            ("metricName", METRIC),
            ("metricSelector", SELECTOR),
            ("currentValue", NOW_VALUE),
            ("currentAverageValue", NOW_AVERAGE),
        ],
        always: "currentValue",
    },
];

/// A metric as it is written here.
pub fn flatten(metric: &Value, shapes: &[Shape]) -> Value {
    let mut out = json!({ "type": text(metric, &["type"]) });
    for shape in shapes.iter().filter(|shape| at(metric, &[shape.field]).is_object()) {
        let source = at(metric, &[shape.field]);
        let mut flat = Map::new();
        for (name, path) in shape.fields {
            match at(source, path) {
                Value::Null if *name == shape.always => _ = flat.insert((*name).to_owned(), json!("0")),
                Value::Null => {}
                value => _ = flat.insert((*name).to_owned(), value.clone()),
            }
        }
        set(&mut out, &[shape.field], flat);
    }
    out
}

/// A metric as it is stored.
pub fn deepen(metric: &Value, shapes: &[Shape]) -> Value {
    let mut out = json!({ "type": text(metric, &["type"]) });
    for shape in shapes.iter().filter(|shape| at(metric, &[shape.field]).is_object()) {
        let flat = at(metric, &[shape.field]);
        let mut deep = json!({});
        for (name, path) in shape.fields {
            let value = at(flat, &[name]);
            // No target is zero: that stands for one that was not given.
            let ungiven = value.is_null() || (path[0] == "target" && *value == "0");
            if !ungiven {
                set(&mut deep, path, value.clone());
            }
        }
        if let Some(kind) = target_type(shape, at(&deep, &["target"])) {
            set(&mut deep, &["target", "type"], kind);
        }
        set(&mut out, &[shape.field], deep);
    }
    out
}

/// The type of a target, which the flat form leaves to the fields that are given.
fn target_type(shape: &Shape, target: &Value) -> Option<&'static str> {
    let given = |field: &str| !at(target, &[field]).is_null();
    if !shape.fields.iter().any(|(_, path)| path[0] == "target") {
        return None;
    }
    Some(match shape.kind {
        "Resource" | "ContainerResource" if given("averageUtilization") => "Utilization",
        "Object" if !given("averageValue") => "Value",
        "External" if given("value") => "Value",
        _ => "AverageValue",
    })
}
