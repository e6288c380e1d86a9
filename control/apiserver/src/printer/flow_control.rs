//! Tables of flow schemas and priority levels.

use serde_json::json;

use super::{AGE, NAME, Printer, age, column, count, name, or_none};
use crate::tree::{at, list, text};

pub static FLOW_SCHEMA: Printer = Printer {
    columns: &[
        NAME,
        column("PriorityLevel").of("flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
        column("MatchingPrecedence").of("flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence"),
        column("DistinguisherMethod").of("flowcontrol.v1.FlowSchemaSpec", "distinguisherMethod"),
        AGE,
        column("MissingPL").says("references a broken or non-existent PriorityLevelConfiguration"),
    ],
    cells: |object, now| {
        let conditions = list(object, &["status", "conditions"]);
        let dangling = conditions.iter().find(|condition| text(condition, &["type"]) == "Dangling");
        vec![
            name(object),
            json!(text(object, &["spec", "priorityLevelConfiguration", "name"])),
            json!(count(object, &["spec", "matchingPrecedence"])),
            json!(or_none(text(object, &["spec", "distinguisherMethod", "type"]))),
            age(object, now),
            json!(dangling.map_or("?", |condition| text(condition, &["status"]))),
        ]
    },
};

pub static PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        NAME,
        column("Type").of("flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
        column("NominalConcurrencyShares")
            .of("flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares"),
        column("Queues").of("flowcontrol.v1.QueuingConfiguration", "queues"),
        column("HandSize").of("flowcontrol.v1.QueuingConfiguration", "handSize"),
        column("QueueLengthLimit").of("flowcontrol.v1.QueuingConfiguration", "queueLengthLimit"),
        AGE,
    ],
    cells: |object, now| {
        let told = |path: &[&str]| match at(object, path) {
            serde_json::Value::Null => json!("<none>"),
            number => number.clone(),
        };
        let queuing = |field: &str| told(&["spec", "limited", "limitResponse", "queuing", field]);
        vec![
            name(object),
            json!(text(object, &["spec", "type"])),
            told(&["spec", "limited", "nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(object, now),
        ]
    },
};
