//! Tables of configuration, quotas and events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, count, name, since, wide};
use crate::tree::{at, fields, int, list, text};

pub static CONFIG_MAP: Printer = Printer {
    columns: &[NAME, column("Data").of("core.v1.ConfigMap", "data"), AGE],
    cells: |object, now| {
        let keys = fields(object, &["data"]).count() + fields(object, &["binaryData"]).count();
        vec![name(object), json!(keys), age(object, now)]
    },
};

pub static SECRET: Printer = Printer {
    columns: &[
        NAME,
        column("Type").of("core.v1.Secret", "type"),
        column("Data").of("core.v1.Secret", "data"),
        AGE,
    ],
    cells: |object, now| {
        let keys = fields(object, &["data"]).count();
        vec![name(object), at(object, &["type"]).clone(), json!(keys), age(object, now)]
    },
};

pub static SERVICE_ACCOUNT: Printer = Printer {
    columns: &[NAME, column("Secrets").of("core.v1.ServiceAccount", "secrets"), AGE],
    cells: |object, now| vec![name(object), json!(list(object, &["secrets"]).len()), age(object, now)],
};

pub static RESOURCE_QUOTA: Printer = Printer {
    columns: &[
        NAME,
        column("Request")
            .says("Request represents a minimum amount of cpu/memory that a container may consume."),
        column("Limit").says(
            "Limits control the maximum amount of cpu/memory that a container may use independent of \
            contention on the node.",
        ),
        AGE,
    ],
    cells: |object, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in fields(object, &["status", "hard"]) {
            let used = text(object, &["status", "used", resource]);
            let shown = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
            if resource.starts_with("limits") { limits.push(shown) } else { requests.push(shown) }
        }
        vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)]
    },
};

pub static EVENT: Printer = Printer {
    columns: &[
        column("Last Seen").of("core.v1.Event", "lastTimestamp"),
        column("Type").of("core.v1.Event", "type"),
        column("Reason").of("core.v1.Event", "reason"),
        column("Object").of("core.v1.Event", "involvedObject"),
        wide("Subobject").of("core.v1.ObjectReference", "fieldPath"),
        wide("Source").of("core.v1.Event", "source"),
        column("Message").of("core.v1.Event", "message"),
        wide("First Seen").of("core.v1.Event", "firstTimestamp"),
        wide("Count").of("core.v1.Event", "count"),
        super::Column { priority: 1, ..super::NAME },
    ],
    cells: |event, now| {
        let object = at(event, &["involvedObject"]);
        let kind = text(object, &["kind"]).to_ascii_lowercase();
        vec![
            json!(last_seen(event, now)),
            at(event, &["type"]).clone(),
            at(event, &["reason"]).clone(),
            json!(format!("{kind}/{}", text(object, &["name"]))),
            json!(text(object, &["fieldPath"])),
            json!(source(event)),
            json!(text(event, &["message"]).trim()),
            json!(since(first_of(event, &["firstTimestamp", "eventTime"]), now)),
            json!(int(event, &["series", "count"]).unwrap_or_else(|| count(event, &["count"]).max(1))),
            name(event),
        ]
    },
};

fn first_of<'a>(event: &'a Value, names: &[&str]) -> &'a str {
    names.iter().map(|name| text(event, &[name])).find(|time| !time.is_empty()).unwrap_or_default()
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    let series = text(event, &["series", "lastObservedTime"]);
    let last = if series.is_empty() {
        first_of(event, &["lastTimestamp", "eventTime", "firstTimestamp"])
    } else {
        series
    };
    since(last, now)
}

fn source(event: &Value) -> String {
    let component = match text(event, &["source", "component"]) {
        "" => text(event, &["reportingComponent"]),
        component => component,
    };
    match text(event, &["source", "host"]) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
