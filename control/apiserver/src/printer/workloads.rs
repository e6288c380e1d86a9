//! Tables of workloads.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, CONTAINERS, Column, IMAGES, NAME, Printer, age, boolean, column, containers, count, duration,
    labels, name, number, selector, shown, since, wide,
};
use crate::tree::{at, flag, int, list, text};

const TEMPLATE: &[&str] = &["spec", "template", "spec", "containers"];
const SELECTOR: &[&str] = &["spec", "selector"];

pub static DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        column("Ready").says("Number of the pod with ready state"),
        column("Up-to-date").says(
            "Total number of non-terminating pods targeted by this deployment that have the desired \
            template spec.",
        ),
        column("Available").says(
            "Total number of available non-terminating pods (ready for at least minReadySeconds) \
            targeted by this deployment.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector").says(
            "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be \
            the ones affected by this deployment.",
        ),
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
    columns: &[
        NAME,
        number("Desired").says(
            "Replicas is the number of desired pods. This is a pointer to distinguish between \
            explicit zero and unspecified. Defaults to 1. More info: \
            https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
        ),
        number("Current").says(
            "Replicas is the most recently observed number of non-terminating pods. More info: \
            https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
        ),
        number("Ready")
            .says("The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition."),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector").says(
            "Selector is a label query over pods that should match the replica count. If the \
            selector is empty, it is defaulted to the labels present on the pod template. Label \
            keys and values that must match in order to be controlled by this replica set. More \
            info: \
            https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ),
    ],
    cells: |object, now| replica_cells(object, now, selector(object, SELECTOR)),
};

pub static REPLICATION_CONTROLLER: Printer = Printer {
    columns: &[
        NAME,
        number("Desired").of("core.v1.ReplicationControllerSpec", "replicas"),
        number("Current").of("core.v1.ReplicationControllerStatus", "replicas"),
        number("Ready").of("core.v1.ReplicationControllerStatus", "readyReplicas"),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector").of("core.v1.ReplicationControllerSpec", "selector"),
    ],
    cells: |object, now| replica_cells(object, now, labels(object, SELECTOR)),
};

pub static STATEFUL_SET: Printer = Printer {
    columns: &[NAME, column("Ready").says("Number of the pod with ready state"), AGE, CONTAINERS, IMAGES],
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
        number("Desired").of("apps.v1.DaemonSetStatus", "desiredNumberScheduled"),
        number("Current").of("apps.v1.DaemonSetStatus", "currentNumberScheduled"),
        number("Ready").of("apps.v1.DaemonSetStatus", "numberReady"),
        number("Up-to-date").of("apps.v1.DaemonSetStatus", "updatedNumberScheduled"),
        number("Available").of("apps.v1.DaemonSetStatus", "numberAvailable"),
        column("Node Selector").of("core.v1.PodSpec", "nodeSelector"),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector").says(
            "A label query over pods that are managed by the daemon set. Must match in order to be \
            controlled. If empty, defaulted to labels on Pod template. More info: \
            https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ),
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
    columns: &[
        NAME,
        column("Controller").says("Controller of the object"),
        column("Revision").of("apps.v1.ControllerRevision", "revision"),
        AGE,
    ],
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
        column("Status").says("Status of the job."),
        column("Completions").of("batch.v1.JobStatus", "succeeded"),
        column("Duration").says("Time required to complete the job."),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector").of("batch.v1.JobSpec", "selector"),
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
        column("Schedule").of("batch.v1.CronJobSpec", "schedule"),
        column("Timezone").of("batch.v1.CronJobSpec", "timeZone"),
        boolean("Suspend").of("batch.v1.CronJobSpec", "suspend"),
        number("Active").of("batch.v1.CronJobStatus", "active"),
        column("Last Schedule").of("batch.v1.CronJobStatus", "lastScheduleTime"),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector").of("batch.v1.JobSpec", "selector"),
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
    columns: &[
        NAME,
        Column { priority: 0, ..CONTAINERS },
        Column { priority: 0, ..IMAGES },
        column("Pod Labels").says("The labels for the pod template."),
    ],
    cells: |object, _| {
        let [names, images] = containers(object, &["template", "spec", "containers"]);
        vec![name(object), names, images, json!(labels(object, &["template", "metadata", "labels"]))]
    },
};

pub static DISRUPTION_BUDGET: Printer = Printer {
    columns: &[
        NAME,
        column("Min Available").says("The minimum number of pods that must be available."),
        column("Max Unavailable").says("The maximum number of pods that may be unavailable."),
        number("Allowed Disruptions").says("Calculated number of pods that may be disrupted at this time."),
        AGE,
    ],
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
