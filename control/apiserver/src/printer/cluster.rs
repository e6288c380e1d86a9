//! Tables of nodes, namespaces, leases and priority classes.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, boolean, column, count, name, number, or_none, wide};
use crate::tree::{at, fields, flag, list, text};

pub static NODE: Printer = Printer {
    columns: &[
        NAME,
        column("Status").says("The status of the node"),
        column("Roles").says("The roles of the node"),
        AGE,
        column("Version").of("core.v1.NodeSystemInfo", "kubeletVersion"),
        wide("Internal-IP").of("core.v1.NodeStatus", "addresses"),
        wide("External-IP").of("core.v1.NodeStatus", "addresses"),
        wide("OS-Image").of("core.v1.NodeSystemInfo", "osImage"),
        wide("Kernel-Version").of("core.v1.NodeSystemInfo", "kernelVersion"),
        wide("Container-Runtime").of("core.v1.NodeSystemInfo", "containerRuntimeVersion"),
    ],
    cells: |node, now| {
        let told = |field: &str| {
            let text = text(node, &["status", "nodeInfo", field]);
            json!(if text.is_empty() { "<unknown>" } else { text })
        };
        vec![
            name(node),
            json!(state(node)),
            json!(roles(node)),
            age(node, now),
            at(node, &["status", "nodeInfo", "kubeletVersion"]).clone(),
            json!(address(node, "InternalIP")),
            json!(address(node, "ExternalIP")),
            told("osImage"),
            told("kernelVersion"),
            told("containerRuntimeVersion"),
        ]
    },
};

fn state(node: &Value) -> String {
    let ready = list(node, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == "Ready");
    let mut state = match ready.map(|condition| text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(node, &["spec", "unschedulable"]) {
        state.push_str(",SchedulingDisabled");
    }
    state
}

fn roles(node: &Value) -> String {
    const ROLE: &str = "node-role.kubernetes.io/";
    let mut roles: Vec<&str> = fields(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix(ROLE),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    or_none(&roles.join(","))
}

fn address(node: &Value, kind: &str) -> String {
    let found = list(node, &["status", "addresses"]).iter().find(|one| text(one, &["type"]) == kind);
    or_none(found.map_or("", |one| text(one, &["address"])))
}

pub static COMPONENT: Printer = Printer {
    columns: &[
        NAME,
        column("Status").says("Status of the component conditions"),
        column("Message").says("Message of the component conditions"),
        column("Error").says("Error of the component conditions"),
    ],
    cells: |object, _| {
        let healthy = list(object, &["conditions"]).iter().find(|one| text(one, &["type"]) == "Healthy");
        let healthy = healthy.unwrap_or(&Value::Null);
        let status = match text(healthy, &["status"]) {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![
            name(object),
            json!(status),
            json!(text(healthy, &["message"])),
            json!(text(healthy, &["error"])),
        ]
    },
};

pub static NAMESPACE: Printer = Printer {
    columns: &[NAME, column("Status").says("The status of the namespace"), AGE],
    cells: |object, now| vec![name(object), at(object, &["status", "phase"]).clone(), age(object, now)],
};

pub static LEASE: Printer = Printer {
    columns: &[NAME, column("Holder").of("coordination.v1.LeaseSpec", "holderIdentity"), AGE],
    cells: |object, now| {
        vec![name(object), json!(text(object, &["spec", "holderIdentity"])), age(object, now)]
    },
};

pub static PRIORITY_CLASS: Printer = Printer {
    columns: &[
        NAME,
        number("Value").of("scheduling.v1.PriorityClass", "value"),
        boolean("Global-Default").of("scheduling.v1.PriorityClass", "globalDefault"),
        AGE,
        column("PreemptionPolicy").of("scheduling.v1.PriorityClass", "preemptionPolicy"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            json!(count(object, &["value"])),
            json!(flag(object, &["globalDefault"]).to_string()),
            age(object, now),
            at(object, &["preemptionPolicy"]).clone(),
        ]
    },
};

pub static RUNTIME_CLASS: Printer = Printer {
    columns: &[NAME, column("Handler"), AGE],
    cells: |object, now| vec![name(object), at(object, &["handler"]).clone(), age(object, now)],
};
