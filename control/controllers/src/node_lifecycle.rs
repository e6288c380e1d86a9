//! A node that is not heard of any more becomes `Unknown`, is tainted, its pods count as unready, and it loses those that do not
//! tolerate that.
//!
//! Its heartbeats are judged by when they are seen here. `node.kubernetes.io/not-ready` and `.../unreachable` follow the Ready
//! condition; pods are deleted when the time their toleration grants is over.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::heartbeats::{Heartbeats, Signs};
use crate::objects::{Node, Pod, deleting};
use crate::pods::is_finished;
use crate::view::View;
use crate::write::{Target, Write};

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions that only the node itself can know.
const OWN_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// How long a node may be there without a status.
const STARTUP: Duration = Duration::from_secs(60);
/// How long a node is missing before its pods go: it may come back, or be one that is not known here yet.
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) struct NodeLifecycleController {
    /// Time without heartbeat after which a node counts as unreachable.
    grace: Duration,
    heartbeats: Mutex<Heartbeats>,
    /// Since when nodes that have pods are missing.
    missing: Mutex<HashMap<Key, Timestamp>>,
}

impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("nodes") {
            return vec![change.key.clone()];
        }
        if change.is("pods") {
            // Pods of a healthy node are nobody's business here.
            let pod = view.pods.row(change.key);
            let node = pod.and_then(|pod| pod.spec.node_name.as_ref()).map(Key::cluster);
            return node
                .filter(|node| view.nodes.row(node).is_none_or(|node| !evicting(node).is_empty()))
                .into_iter()
                .collect();
        }
        Vec::new()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::nothing();
        let Some(node) = view.nodes.row(key) else {
            self.heartbeats.lock().forget(key);
            self.forget_pods(key, view, now, &mut outcome);
            return outcome;
        };
        self.missing.lock().remove(key);
        self.judge(key, node, view, now, &mut outcome);
        taint(key, node, now, &mut outcome);
        mark_unready(key, node, view, now, &mut outcome);
        evict(key, node, view, now, &mut outcome);
        outcome
    }
}

impl NodeLifecycleController {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, heartbeats: Mutex::default(), missing: Mutex::default() }
    }

    /// Pods of a node that no longer exists run nowhere: they have failed, and go at once, also those that were going.
    fn forget_pods(&self, node: &Key, view: &View, now: Timestamp, outcome: &mut Outcome) {
        let mut missing = self.missing.lock();
        if on_node(node, view).next().is_none() {
            missing.remove(node);
            return;
        }
        let since = *missing.entry(node.clone()).or_insert(now);
        let missed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if missed < QUARANTINE {
            outcome.look_again(QUARANTINE - missed);
            return;
        }
        outcome.writes.extend(on_node(node, view).filter_map(|(key, pod)| FORGOTTEN.mark(key, pod, now)));
        outcome.writes.extend(on_node(node, view).map(|(key, pod)| delete(key, pod)));
    }

    /// Sets the node's own conditions to `Unknown` when its heartbeat stopped.
    fn judge(&self, key: &Key, node: &Node, view: &View, now: Timestamp, outcome: &mut Outcome) {
        let lease = view.leases.row(&Key::new(LEASES, &key.name));
        let signs = Signs {
            born: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
            renewed: lease.and_then(|lease| lease.spec.renew_time.as_ref()).map(|time| time.0),
            ready: ready(node).map(|ready| ready.last_heartbeat_time.as_ref().map(|time| time.0)),
        };
        let heard = self.heartbeats.lock().listen(key, signs, now);
        let silent = Duration::try_from(now.duration_since(heard)).unwrap_or_default();
        let grace = if signs.ready.is_some() { self.grace } else { STARTUP };
        if silent < grace {
            outcome.look_again((grace - silent).max(Duration::from_secs(1)));
            return;
        }
        // The Lease may come back at any time; nothing else wakes the key then.
        outcome.look_again(Duration::from_secs(5));
        if ready_status(node) == "Unknown" {
            return;
        }
        let mut conditions = node.status.conditions.clone();
        for type_ in OWN_CONDITIONS {
            set_unknown(&mut conditions, type_, signs.born, now);
        }
        let metadata = json!({"resourceVersion": node.metadata.resource_version});
        let body = json!({"metadata": metadata, "status": {"conditions": conditions}});
        let target = Target::new("v1", "nodes", key.clone());
        outcome.writes.push(Write::Patch { target, subresource: Some("status"), body });
    }
}

/// A condition that was told becomes unknown; one that never was is there since the node is.
fn set_unknown(conditions: &mut Vec<NodeCondition>, type_: &str, born: Option<Timestamp>, now: Timestamp) {
    let told = conditions.iter().position(|condition| condition.type_ == type_);
    let (reason, message) = match told {
        Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
    };
    let mut unknown = NodeCondition {
        type_: type_.to_owned(),
        status: "Unknown".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: born.map(Time),
        last_transition_time: Some(Time(now)),
    };
    match told.and_then(|at| conditions.get_mut(at)) {
        Some(condition) if condition.status == "Unknown" => {}
        Some(condition) => {
            unknown.last_heartbeat_time = condition.last_heartbeat_time.take();
            *condition = unknown;
        }
        None => conditions.push(unknown),
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.conditions.iter().find(|condition| condition.type_ == "Ready")
}

fn ready_status(node: &Node) -> &str {
    ready(node).map_or("False", |condition| &condition.status)
}

/// The taint keys the Ready condition calls for.
fn wanted_taint(node: &Node) -> Option<&'static str> {
    match ready_status(node) {
        "True" => None,
        "Unknown" => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    }
}

/// Puts the node's lifecycle taints (with both effects) in line with its Ready condition.
fn taint(key: &Key, node: &Node, now: Timestamp, outcome: &mut Outcome) {
    let wanted = wanted_taint(node);
    let is_ours = |taint: &Taint| taint.key == NOT_READY || taint.key == UNREACHABLE;
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|taint| !is_ours(taint) || Some(taint.key.as_str()) == wanted)
        .cloned()
        .collect();
    for effect in ["NoSchedule", "NoExecute"] {
        let Some(wanted) = wanted else { break };
        if !taints.iter().any(|taint| taint.key == wanted && taint.effect == effect) {
            let time_added = (effect == "NoExecute").then(|| Time(next_second(now)));
            taints.push(Taint { key: wanted.to_owned(), effect: effect.to_owned(), value: None, time_added });
        }
    }
    // Who adds a taint by hand does not say when; the time that pods tolerate it has to begin somewhere.
    for taint in taints.iter_mut().filter(|taint| taint.effect == "NoExecute") {
        taint.time_added.get_or_insert_with(|| Time(next_second(now)));
    }
    if taints == node.spec.taints {
        return;
    }
    let metadata = json!({"resourceVersion": node.metadata.resource_version});
    let body = json!({"metadata": metadata, "spec": {"taints": taints}});
    outcome.writes.push(Write::Patch {
        target: Target::new("v1", "nodes", key.clone()),
        subresource: None,
        body,
    });
}

/// The time of a taint is kept in whole seconds: rounded up, for nobody is to leave before the time it tolerates is over.
fn next_second(now: Timestamp) -> Timestamp {
    if now.subsec_nanosecond() == 0 {
        return now;
    }
    Timestamp::from_second(now.as_second() + 1).unwrap_or(now)
}

/// Nobody is sent to pods of which nothing is known. Their node says again what they are when it is back.
fn mark_unready(key: &Key, node: &Node, view: &View, now: Timestamp, outcome: &mut Outcome) {
    if ready_status(node) != "Unknown" {
        return;
    }
    for (pod_key, pod) in on_node(key, view) {
        let mut conditions = pod.status.conditions.clone();
        let is_ready =
            |condition: &&mut PodCondition| condition.type_ == "Ready" && condition.status == "True";
        let Some(ready) = conditions.iter_mut().find(is_ready) else { continue };
        ready.status = "False".to_owned();
        ready.last_transition_time = Some(Time(now));
        let metadata = json!({"resourceVersion": pod.metadata.resource_version});
        outcome.writes.push(Write::Patch {
            target: Target::new("v1", "pods", pod_key.clone()),
            subresource: Some("status"),
            body: json!({"metadata": metadata, "status": {"conditions": conditions}}),
        });
    }
}

fn evicting(node: &Node) -> Vec<&Taint> {
    node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// Deletes pods whose patience with the node's NoExecute taints is over.
fn evict(key: &Key, node: &Node, view: &View, now: Timestamp, outcome: &mut Outcome) {
    let taints = evicting(node);
    if taints.is_empty() {
        return;
    }
    let mut leaving = Vec::new();
    for (pod_key, pod) in on_node(key, view) {
        if deleting(&pod.metadata).is_some() || is_finished(pod) {
            continue;
        }
        match patience(pod, &taints, now) {
            Patience::Forever => {}
            Patience::Left(left) => outcome.look_again(left),
            Patience::Over => leaving.push((pod_key, pod)),
        }
    }
    outcome.writes.extend(leaving.iter().filter_map(|(key, pod)| TAINTED.mark(key, pod, now)));
    outcome.writes.extend(leaving.iter().map(|(key, pod)| delete(key, pod)));
}

/// Why a pod goes that did nothing wrong, as its condition `DisruptionTarget` tells: those who count failures do not count it.
struct Disruption {
    reason: &'static str,
    message: &'static str,
    /// Whether the pod has ended with it: nobody is left to say so.
    ends: bool,
}

const TAINTED: Disruption = Disruption {
    reason: "DeletionByTaintManager",
    message: "Taint manager: deleting due to NoExecute taint",
    ends: false,
};
const FORGOTTEN: Disruption =
    Disruption { reason: "DeletionByPodGC", message: "PodGC: node no longer exists", ends: true };

impl Disruption {
    /// What has to be written before the pod is deleted, unless it says so already.
    fn mark(&self, key: &Key, pod: &Pod, now: Timestamp) -> Option<Write> {
        let mut conditions = pod.status.conditions.clone();
        let before = conditions.iter().position(|condition| condition.type_ == "DisruptionTarget");
        let before = before.map(|at| conditions.remove(at));
        let since = before.as_ref().filter(|before| before.status == "True");
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.to_owned()),
            last_transition_time: since
                .and_then(|since| since.last_transition_time.clone())
                .or(Some(Time(now))),
            ..PodCondition::default()
        };
        let ends = self.ends && !is_finished(pod);
        let told = before.is_some_and(|before| before.reason == condition.reason && before.status == "True");
        if told && !ends {
            return None;
        }
        conditions.push(condition);
        let mut body = json!({
            "metadata": {"resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        if ends {
            body["status"]["phase"] = json!("Failed");
        }
        let target = Target::new("v1", "pods", key.clone());
        Some(Write::Patch { target, subresource: Some("status"), body })
    }
}

fn on_node<'a>(node: &'a Key, view: &'a View) -> impl Iterator<Item = (&'a Key, &'a Pod)> {
    let pods = view.pods.all().map(|(key, pod)| (key, &**pod));
    pods.filter(|(_, pod)| pod.spec.node_name.as_ref() == Some(&node.name))
}

fn delete(key: &Key, pod: &Pod) -> Write {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    Write::Delete { target: Target::new("v1", "pods", key.clone()), uid, propagation: None }
}

#[derive(Debug, PartialEq, Eq)]
enum Patience {
    Forever,
    Left(Duration),
    Over,
}

fn patience(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Patience {
    let mut shortest = Patience::Forever;
    for taint in taints {
        let tolerating: Vec<_> = pod.spec.tolerations.iter().filter(|one| tolerates(one, taint)).collect();
        if tolerating.is_empty() {
            return Patience::Over;
        }
        let Some(seconds) = tolerating.iter().filter_map(|one| one.toleration_seconds).min() else {
            continue;
        };
        let granted = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if waited >= granted {
            return Patience::Over;
        }
        let left = granted - waited;
        shortest = match shortest {
            Patience::Left(other) => Patience::Left(other.min(left)),
            _ => Patience::Left(left),
        };
    }
    shortest
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        _ => {
            key == taint.key
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;
    use serde_json::Value;

    fn node(ready: &str, taints: &Value) -> Value {
        json!({
            "kind": "Node", "metadata": {"name": "n", "uid": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn lease(renewed: &str) -> Value {
        json!({"kind": "Lease", "metadata": {"name": "n", "namespace": LEASES, "uid": "l"}, "spec": {"renewTime": renewed}})
    }

    fn pod(seconds: Option<i64>) -> Value {
        let mut toleration = json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"});
        toleration["tolerationSeconds"] = json!(seconds);
        json!({
            "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "p"},
            "spec": {"nodeName": "n", "tolerations": [toleration]}, "status": {"phase": "Running"},
        })
    }

    fn look(objects: &[Value]) -> Outcome {
        let controller = NodeLifecycleController::new(Duration::from_secs(50));
        controller.reconcile(&Key::cluster("n"), &world(objects), "2026-01-01T01:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_node_becomes_unknown_when_it_has_been_silent_here() {
        let controller = NodeLifecycleController::new(Duration::from_secs(50));
        let look = |objects: &[Value], now: &str| {
            controller.reconcile(&Key::cluster("n"), &world(objects), now.parse().unwrap())
        };
        let quiet = |outcome: Outcome, seconds| {
            assert_eq!((outcome.writes.len(), outcome.again), (0, Some(Duration::from_secs(seconds))));
        };
        // The control plane was away as long as the Lease is old.
        let silent = [node("True", &json!([])), lease("2026-01-01T00:00:10.000000Z")];
        quiet(look(&silent, "2026-01-01T01:00:00Z"), 50);
        quiet(look(&silent, "2026-01-01T01:00:49Z"), 1);
        let renewed = [node("True", &json!([])), lease("2026-01-01T01:00:49.000000Z")];
        quiet(look(&renewed, "2026-01-01T01:00:50Z"), 49);
        let outcome = look(&renewed, "2026-01-01T01:01:39Z");
        let [Write::Patch { subresource: Some("status"), body, .. }] = outcome.writes.as_slice() else {
            panic!("{outcome:?}")
        };
        let told =
            |at: usize| ["status", "reason"].map(|field| body["status"]["conditions"][at][field].clone());
        assert_eq!(told(0), ["Unknown", "NodeStatusUnknown"]);
        assert_eq!(told(1), ["Unknown", "NodeStatusNeverUpdated"]);
    }

    #[test]
    fn a_node_that_never_says_anything_has_a_minute() {
        let mut mute = node(
            "",
            &json!([{"key": NOT_READY, "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]),
        );
        mute["status"] = json!({});
        for (now, writes) in [("2026-01-01T00:00:59Z", 0), ("2026-01-01T00:01:00Z", 1)] {
            let controller = NodeLifecycleController::new(Duration::from_secs(50));
            let outcome = controller.reconcile(
                &Key::cluster("n"),
                &world(std::slice::from_ref(&mute)),
                now.parse().unwrap(),
            );
            assert_eq!(outcome.writes.len(), writes, "{now}: {outcome:?}");
        }
    }

    #[test]
    fn taints_follow_the_ready_condition() {
        let fresh = lease("2026-01-01T00:59:50.000000Z");
        for (ready, before, want) in [
            (
                "True",
                json!([{"key": NOT_READY, "effect": "NoSchedule"}, {"key": "own", "effect": "NoSchedule"}]),
                vec!["own"],
            ),
            ("False", json!([]), vec![NOT_READY, NOT_READY]),
            ("Unknown", json!([{"key": NOT_READY, "effect": "NoExecute"}]), vec![UNREACHABLE, UNREACHABLE]),
        ] {
            let outcome = look(&[node(ready, &before), fresh.clone()]);
            let Some(Write::Patch { body, .. }) = outcome.writes.first() else {
                panic!("{ready}: {outcome:?}")
            };
            let keys: Vec<_> = body["spec"]["taints"]
                .as_array()
                .unwrap()
                .iter()
                .map(|taint| taint["key"].as_str().unwrap())
                .collect();
            assert_eq!(keys, want, "{ready}");
        }
    }

    #[test]
    fn pods_leave_an_unreachable_node_when_their_time_is_over() {
        let taint = |since: &str| json!([{"key": UNREACHABLE, "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": since}]);
        let deletes = |since: &str, seconds| {
            let outcome =
                look(&[node("Unknown", &taint(since)), lease("2026-01-01T00:59:50.000000Z"), pod(seconds)]);
            outcome.writes.iter().filter(|write| matches!(write, Write::Delete { .. })).count()
        };
        assert_eq!(deletes("2026-01-01T00:50:00Z", Some(300)), 1);
        assert_eq!(deletes("2026-01-01T00:58:00Z", Some(300)), 0);
        assert_eq!(deletes("2026-01-01T00:50:00Z", None), 0);
    }

    #[test]
    fn a_pod_says_that_a_taint_took_it_before_it_goes() {
        let taint = json!([{"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:50:00Z"},
                           {"key": UNREACHABLE, "effect": "NoSchedule"}]);
        let writes = |conditions: Value| {
            let mut pod = pod(Some(300));
            pod["metadata"]["resourceVersion"] = json!("7");
            pod["status"]["conditions"] = conditions;
            look(&[node("Unknown", &taint), lease("2026-01-01T00:59:50.000000Z"), pod]).writes
        };
        let scheduled = json!({"type": "PodScheduled", "status": "True"});
        let first = writes(json!([scheduled]));
        let [Write::Patch { body, subresource: Some("status"), .. }, Write::Delete { .. }] = first.as_slice()
        else {
            panic!("{first:?}")
        };
        let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": "2026-01-01T01:00:00Z"});
        let want =
            json!({"metadata": {"resourceVersion": "7"}, "status": {"conditions": [scheduled, target]}});
        assert_eq!(*body, want);
        assert!(matches!(writes(json!([target])).as_slice(), [Write::Delete { .. }]));
        let mut other = target.clone();
        other["reason"] = json!("EvictionByEvictionAPI");
        other["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        let again = writes(json!([other]));
        let Some(Write::Patch { body, .. }) = again.first() else { panic!("{again:?}") };
        assert_eq!(body["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        assert_eq!(body["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn the_time_a_taint_is_tolerated_begins_when_it_is_first_seen() {
        let by_hand = json!([{"key": "own", "effect": "NoExecute"}, {"key": "own", "effect": "NoSchedule"}]);
        let controller = NodeLifecycleController::new(Duration::from_secs(50));
        let objects = [node("True", &by_hand), lease("2026-01-01T00:59:50.000000Z")];
        for (now, since) in [
            ("2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z"),
            ("2026-01-01T01:00:00.000001Z", "2026-01-01T01:00:01Z"),
            ("2026-01-01T01:00:00.9Z", "2026-01-01T01:00:01Z"),
        ] {
            let outcome = controller.reconcile(&Key::cluster("n"), &world(&objects), now.parse().unwrap());
            let [Write::Patch { body, .. }] = outcome.writes.as_slice() else { panic!("{outcome:?}") };
            let want = json!([{"key": "own", "effect": "NoExecute", "timeAdded": since},
                              {"key": "own", "effect": "NoSchedule"}]);
            assert_eq!(body["spec"]["taints"], want, "{now}");
        }
    }

    #[test]
    fn pods_of_an_unreachable_node_are_not_ready() {
        let marked = |node_ready, pod_ready| {
            let mut pod = pod(None);
            pod["status"]["conditions"] =
                json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": pod_ready}]);
            let outcome = look(&[node(node_ready, &json!([])), lease("2026-01-01T00:59:50.000000Z"), pod]);
            let mut bodies = outcome.writes.into_iter().filter_map(|write| match write {
                Write::Patch { target, body, .. } if target.resource == "pods" => Some(body),
                _ => None,
            });
            bodies.next().map(|body| body["status"]["conditions"].clone())
        };
        let conditions = marked("Unknown", "True").unwrap();
        assert_eq!((&conditions[0]["status"], &conditions[1]["status"]), (&json!("True"), &json!("False")));
        for (node, pod) in [("Unknown", "False"), ("True", "True"), ("False", "True")] {
            assert_eq!(marked(node, pod), None, "{node}, {pod}");
        }
    }

    #[test]
    fn pods_of_a_deleted_node_are_forgotten() {
        for going in [false, true] {
            let mut pod = pod(None);
            if going {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:00Z");
            }
            let outcome = look_after_quarantine(pod);
            let [Write::Patch { body, .. }, Write::Delete { .. }] = outcome.writes.as_slice() else {
                panic!("{outcome:?}")
            };
            assert_eq!(body["status"]["phase"], "Failed");
            assert_eq!(body["status"]["conditions"][0]["reason"], "DeletionByPodGC");
        }
        let mut told = pod(None);
        told["status"] = json!({"phase": "Failed", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]});
        assert!(matches!(look_after_quarantine(told).writes.as_slice(), [Write::Delete { .. }]));
    }

    /// Looks at a pod whose node is missing twice, and returns what is done the second time, after forty seconds.
    fn look_after_quarantine(pod: Value) -> Outcome {
        let controller = NodeLifecycleController::new(Duration::from_secs(50));
        let (key, alone) = (Key::cluster("n"), world(std::slice::from_ref(&pod)));
        let at = |time: &str| time.parse().unwrap();
        let first = controller.reconcile(&key, &alone, at("2026-01-01T01:00:00Z"));
        assert_eq!((first.writes.len(), first.again), (0, Some(Duration::from_secs(40))));
        // A node that comes back has lost nothing, and is missing anew when it goes again.
        let back = world(&[node("True", &json!([])), lease("2026-01-01T01:00:00.000000Z"), pod]);
        assert_eq!(controller.reconcile(&key, &back, at("2026-01-01T01:00:10Z")).writes, []);
        let again = controller.reconcile(&key, &alone, at("2026-01-01T01:00:30Z"));
        assert_eq!((again.writes.len(), again.again), (0, Some(Duration::from_secs(40))));
        let waiting = controller.reconcile(&key, &alone, at("2026-01-01T01:01:00Z"));
        assert_eq!((waiting.writes.len(), waiting.again), (0, Some(Duration::from_secs(10))));
        controller.reconcile(&key, &alone, at("2026-01-01T01:01:10Z"))
    }
}
