//! Tables of workloads.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, NAME, Printer, age, column, containers, count, duration, labels, name, number, selector, shown,
    since, wide,
};
use crate::tree::{at, flag, int, list, text};

const TEMPLATE: &[&str] = &["spec", "template", "spec", "containers"];
const SELECTOR: &[&str] = &["spec", "selector"];

pub static DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        column("Ready"),
        number("Up-to-date"),
        number("Available"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, TEMPLATE);
        let ready = format!(
            "{}/{}",
            count(object, &["status", "readyReplicas"]),
            count(object, &["spec", "replicas"])
        );
        vec![
            name(object),
            json!(ready),
            json!(count(object, &["status", "updatedReplicas"])),
            json!(count(object, &["status", "availableReplicas"])),
            age(object, now),
            names,
            images,
            json!(selector(object, SELECTOR)),
        ]
    },
};

const REPLICAS: &[super::Column] = &[
    NAME,
    number("Desired"),
    number("Current"),
    number("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn replica_cells(object: &Value, now: Timestamp, selected: String) -> Vec<Value> {
    let [names, images] = containers(object, TEMPLATE);
    vec![
        name(object),
        json!(count(object, &["spec", "replicas"])),
        json!(count(object, &["status", "replicas"])),
        json!(count(object, &["status", "readyReplicas"])),
        age(object, now),
        names,
        images,
        json!(selected),
    ]
}

pub static REPLICA_SET: Printer = Printer {
    columns: REPLICAS,
    cells: |object, now| replica_cells(object, now, selector(object, SELECTOR)),
};

pub static REPLICATION_CONTROLLER: Printer =
    Printer { columns: REPLICAS, cells: |object, now| replica_cells(object, now, labels(object, SELECTOR)) };

pub static STATEFUL_SET: Printer = Printer {
    columns: &[NAME, column("Ready"), AGE, wide("Containers"), wide("Images")],
    cells: |object, now| {
        let [names, images] = containers(object, TEMPLATE);
        let ready = format!(
            "{}/{}",
            count(object, &["status", "readyReplicas"]),
            count(object, &["spec", "replicas"])
        );
        vec![name(object), json!(ready), age(object, now), names, images]
    },
};

pub static DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        column("Node Selector"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, TEMPLATE);
        let status = |field: &str| json!(count(object, &["status", field]));
        vec![
            name(object),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            json!(labels(object, &["spec", "template", "spec", "nodeSelector"])),
            age(object, now),
            names,
            images,
            json!(selector(object, SELECTOR)),
        ]
    },
};

pub static CONTROLLER_REVISION: Printer = Printer {
    columns: &[NAME, column("Controller"), number("Revision"), AGE],
    cells: |object, now| {
        let owner =
            list(object, &["metadata", "ownerReferences"]).iter().find(|owner| flag(owner, &["controller"]));
        let controller = owner.map_or("<none>".to_owned(), |owner| {
            format!("{}/{}", text(owner, &["kind"]).to_ascii_lowercase(), text(owner, &["name"]))
        });
        vec![name(object), json!(controller), json!(count(object, &["revision"])), age(object, now)]
    },
};

pub static JOB: Printer = Printer {
    columns: &[
        NAME,
        column("Status"),
        column("Completions"),
        column("Duration"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, TEMPLATE);
        let succeeded = count(object, &["status", "succeeded"]);
        let completions =
            match (int(object, &["spec", "completions"]), count(object, &["spec", "parallelism"])) {
                (Some(wanted), _) => format!("{succeeded}/{wanted}"),
                (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
                (None, _) => format!("{succeeded}/1"),
            };
        vec![
            name(object),
            json!(job_state(object)),
            json!(completions),
            json!(job_duration(object, now)),
            age(object, now),
            names,
            images,
            json!(selector(object, SELECTOR)),
        ]
    },
};

fn job_state(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        list(job, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if !at(job, &["metadata", "deletionTimestamp"]).is_null() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| text(job, &["status", field]).parse::<Timestamp>().ok();
    match (time("startTime"), time("completionTime")) {
        (Some(start), end) => duration(end.unwrap_or(now).as_second() - start.as_second()),
        (None, _) => String::new(),
    }
}

pub static CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        column("Schedule"),
        column("Timezone"),
        column("Suspend"),
        number("Active"),
        column("Last Schedule"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let path = ["spec", "jobTemplate", "spec", "template", "spec", "containers"];
        let [names, images] = containers(object, &path);
        let last = text(object, &["status", "lastScheduleTime"]);
        let zone = text(object, &["spec", "timeZone"]);
        vec![
            name(object),
            at(object, &["spec", "schedule"]).clone(),
            json!(super::or_none(zone)),
            json!(if flag(object, &["spec", "suspend"]) { "True" } else { "False" }),
            json!(list(object, &["status", "active"]).len()),
            json!(if last.is_empty() { "<none>".to_owned() } else { since(last, now) }),
            age(object, now),
            names,
            images,
            json!(selector(object, &["spec", "jobTemplate", "spec", "selector"])),
        ]
    },
};

pub static POD_TEMPLATE: Printer = Printer {
    columns: &[NAME, column("Containers"), column("Images"), column("Pod Labels")],
    cells: |object, _| {
        let [names, images] = containers(object, &["template", "spec", "containers"]);
        vec![name(object), names, images, json!(labels(object, &["template", "metadata", "labels"]))]
    },
};

pub static DISRUPTION_BUDGET: Printer = Printer {
    columns: &[NAME, column("Min Available"), column("Max Unavailable"), number("Allowed Disruptions"), AGE],
    cells: |object, now| {
        let bound = |field: &str| match shown(object, &["spec", field]) {
            Value::String(text) if text == "<unset>" => json!("N/A"),
            value => value,
        };
        vec![
            name(object),
            bound("minAvailable"),
            bound("maxUnavailable"),
            json!(count(object, &["status", "disruptionsAllowed"])),
            age(object, now),
        ]
    },
};
