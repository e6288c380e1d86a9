//! The table of pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, name, or_none, since, wide};
use crate::tree::{at, flag, int, list, text};

pub static POD: Printer = Printer {
    columns: &[
        NAME,
        column("Ready").says("The aggregate readiness state of this pod for accepting traffic."),
        column("Status").says("The aggregate status of the containers in this pod."),
        column("Restarts").says(
            "The number of times the containers in this pod have been restarted and when the last \
             container in this pod has restarted.",
        ),
        AGE,
        wide("IP").of("core.v1.PodStatus", "podIP"),
        wide("Node").of("core.v1.PodSpec", "nodeName"),
        wide("Nominated Node").of("core.v1.PodStatus", "nominatedNodeName"),
        wide("Readiness Gates").of("core.v1.PodSpec", "readinessGates"),
    ],
    cells: |pod, now| {
        let containers = list(pod, &["spec", "containers"]).len() + sidecars(pod).count();
        let ready = ready_count(pod);
        vec![
            name(pod),
            json!(format!("{ready}/{containers}")),
            json!(reason(pod)),
            json!(restarts(pod, now)),
            age(pod, now),
            json!(or_none(text(pod, &["status", "podIP"]))),
            json!(or_none(text(pod, &["spec", "nodeName"]))),
            json!(or_none(text(pod, &["status", "nominatedNodeName"]))),
            json!(gates(pod)),
        ]
    },
};

fn sidecars(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, &["spec", "initContainers"]).iter().filter(|c| text(c, &["restartPolicy"]) == "Always")
}

fn ready_count(pod: &Value) -> usize {
    let ready = |status: &&Value| flag(status, &["ready"]);
    let names: Vec<&str> = sidecars(pod).map(|c| text(c, &["name"])).collect();
    let main = list(pod, &["status", "containerStatuses"]).iter().filter(ready).count();
    let side = list(pod, &["status", "initContainerStatuses"]).iter().filter(ready);
    main + side.filter(|status| names.contains(&text(status, &["name"]))).count()
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let names: Vec<&str> = sidecars(pod).map(|c| text(c, &["name"])).collect();
    let side = list(pod, &["status", "initContainerStatuses"])
        .iter()
        .filter(|status| names.contains(&text(status, &["name"])));
    let (mut total, mut last) = (0, "");
    for status in list(pod, &["status", "containerStatuses"]).iter().chain(side) {
        total += int(status, &["restartCount"]).unwrap_or_default();
        last = last.max(text(status, &["lastState", "terminated", "finishedAt"]));
    }
    if total > 0 && !last.is_empty() {
        return format!("{total} ({} ago)", since(last, now));
    }
    total.to_string()
}

/// What kubectl shows as STATUS.
fn reason(pod: &Value) -> String {
    let mut reason = match text(pod, &["status", "reason"]) {
        "" => text(pod, &["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    for condition in list(pod, &["status", "conditions"]) {
        if text(condition, &["type"]) == "PodScheduled" && text(condition, &["reason"]) == "SchedulingGated" {
            "SchedulingGated".clone_into(&mut reason);
        }
    }
    match initialising(pod) {
        Some(init) => reason = init,
        None => running(pod, &mut reason),
    }
    if !at(pod, &["metadata", "deletionTimestamp"]).is_null() {
        let finished = matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed");
        if text(pod, &["status", "reason"]) == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !finished {
            return "Terminating".to_owned();
        }
    }
    reason
}

/// The first init container that is not done says what the pod is doing.
fn initialising(pod: &Value) -> Option<String> {
    let total = list(pod, &["spec", "initContainers"]).len();
    for (position, status) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let state = at(status, &["state"]);
        let name = text(status, &["name"]);
        if int(state, &["terminated", "exitCode"]) == Some(0) {
            continue;
        }
        if sidecars(pod).any(|c| text(c, &["name"]) == name) && flag(status, &["started"]) {
            continue;
        }
        let terminated = at(state, &["terminated"]);
        if terminated.is_object() {
            return Some(format!("Init:{}", exit_reason(terminated)));
        }
        let waiting = text(state, &["waiting", "reason"]);
        if !waiting.is_empty() && waiting != "PodInitializing" {
            return Some(format!("Init:{waiting}"));
        }
        return Some(format!("Init:{position}/{total}"));
    }
    None
}

fn exit_reason(terminated: &Value) -> String {
    match (text(terminated, &["reason"]), int(terminated, &["signal"]).unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", int(terminated, &["exitCode"]).unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn running(pod: &Value, reason: &mut String) {
    let mut any_running = false;
    for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
        let state = at(status, &["state"]);
        let waiting = text(state, &["waiting", "reason"]);
        let terminated = at(state, &["terminated"]);
        if !waiting.is_empty() {
            waiting.clone_into(reason);
        } else if terminated.is_object() {
            *reason = exit_reason(terminated);
        } else if flag(status, &["ready"]) && state.get("running").is_some() {
            any_running = true;
        }
    }
    if reason == "Completed" && any_running {
        let ready = list(pod, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True");
        *reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let held = gates.iter().filter(|gate| {
        list(pod, &["status", "conditions"])
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && text(c, &["status"]) == "True")
    });
    format!("{}/{}", held.count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_column_says_what_the_pod_is_doing() {
        let waiting = json!([{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        let done = json!([{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]);
        for (pod, want) in [
            (json!({"status": {"phase": "Pending"}}), "Pending"),
            (json!({"status": {"phase": "Running", "containerStatuses": waiting}}), "CrashLoopBackOff"),
            (json!({"status": {"phase": "Succeeded", "containerStatuses": done}}), "Completed"),
            (json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}}), "Terminating"),
            (
                json!({"spec": {"initContainers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Pending",
                    "initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0}}}, {"name": "b", "state": {}}]}}),
                "Init:1/2",
            ),
        ] {
            assert_eq!(reason(&pod), want, "{pod}");
        }
    }
}
