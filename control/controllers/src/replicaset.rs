//! A ReplicaSet has as many active pods as it asks for.
//!
//! Matching orphans are adopted, pods that no longer match are released. Too many: the least useful go first (not
//! scheduled, not ready, ready for the shortest time). `status` counts what is there.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use serde_json::{Value, json};

use crate::change::{Change, controller_of};
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{Pod, ReplicaSet, deleting};
use crate::ownership;
use crate::pods::{is_active, is_ready, ready_since, until_available};
use crate::selector;
use crate::view::View;
use crate::write::{Happening, Target, Write};

/// Pods made or deleted in one look; the rest follows in the next.
const BURST: usize = 500;
const COMPONENT: &str = "replicaset-controller";

pub(crate) struct ReplicaSetController;

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("replicasets.apps") {
            return vec![change.key.clone()];
        }
        if !change.is("pods") {
            return Vec::new();
        }
        let mut keys = change.controllers("ReplicaSet");
        if let Some(orphan) = change.new.filter(|meta| controller_of(meta).is_none()) {
            let matching = view
                .replica_sets
                .within(&change.key.namespace)
                .filter(|(_, set)| selector::matches(&set.spec.selector, orphan.labels.as_ref()));
            keys.extend(matching.map(|(key, _)| key.clone()));
        }
        keys
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(set) = view.replica_sets.row(key) else { return Outcome::nothing() };
        let mut outcome = Outcome::nothing();
        let claim = ownership::claim::<Pod>(view, &set.metadata, &set.spec.selector, &owner_reference(set));
        outcome.writes = claim.writes;
        let active: Vec<&Arc<Pod>> = claim.owned.into_iter().filter(|pod| is_active(pod)).collect();
        if deleting(&set.metadata).is_none() {
            scale(key, set, &active, now, &mut outcome);
        }
        update_status(key, set, &active, now, &mut outcome);
        outcome
    }
}

fn owner_reference(set: &ReplicaSet) -> Value {
    ownership::reference("apps/v1", "ReplicaSet", &set.metadata)
}

/// Makes missing pods and deletes surplus ones.
fn scale(key: &Key, set: &ReplicaSet, active: &[&Arc<Pod>], now: Timestamp, outcome: &mut Outcome) {
    let want = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    let uid = set.metadata.uid.clone().unwrap_or_default();
    let missing = want.saturating_sub(active.len()).min(BURST);
    for _ in 0..missing {
        outcome.writes.push(Write::Create {
            target: Target::new("v1", "pods", Key::new(&key.namespace, format!("{}-", key.name))),
            body: pod(key, set),
        });
    }
    if missing > 0 {
        outcome.writes.push(event(key, &uid, "SuccessfulCreate", format!("Created {missing} pods"), now));
    }
    let surplus = active.len().saturating_sub(want).min(BURST);
    for pod in least_useful(active).into_iter().take(surplus) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        outcome.writes.push(Write::Delete {
            target: Target::new("v1", "pods", Key::new(&key.namespace, name)),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            propagation: None,
        });
    }
    if surplus > 0 {
        outcome.writes.push(event(key, &uid, "SuccessfulDelete", format!("Deleted {surplus} pods"), now));
    }
}

fn event(key: &Key, uid: &str, reason: &str, message: String, now: Timestamp) -> Write {
    Happening {
        component: COMPONENT,
        api_version: "apps/v1",
        kind: "ReplicaSet",
        key,
        uid,
        warning: false,
        reason,
        message,
        now,
    }
    .write()
}

/// A pod of the set's template.
fn pod(key: &Key, set: &ReplicaSet) -> Value {
    let template = &set.spec.template;
    let mut metadata = json!({
        "generateName": format!("{}-", key.name),
        "namespace": key.namespace,
        "ownerReferences": [owner_reference(set)],
    });
    for part in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(part) {
            metadata[part] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Order in which surplus pods are deleted, after upstream's `ActivePodsWithRanks`.
fn least_useful<'a>(active: &[&'a Arc<Pod>]) -> Vec<&'a Arc<Pod>> {
    let mut pods = active.to_vec();
    pods.sort_by_cached_key(|pod| {
        let restarts =
            pod.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0);
        let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (
            pod.spec.node_name.is_some(),
            match pod.status.phase.as_str() {
                "Pending" => 0,
                "Running" => 2,
                _ => 1,
            },
            is_ready(pod),
            deletion_cost(pod),
            Reverse(ready_since(pod)),
            Reverse(restarts),
            Reverse(made),
            pod.metadata.name.clone(),
        )
    });
    pods
}

/// Annotation `controller.kubernetes.io/pod-deletion-cost`; the cheaper goes first.
fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost"))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

fn update_status(key: &Key, set: &ReplicaSet, active: &[&Arc<Pod>], now: Timestamp, outcome: &mut Outcome) {
    let min_ready = Duration::from_secs(u64::try_from(set.spec.min_ready_seconds).unwrap_or(0));
    let waits: Vec<Duration> = active.iter().filter_map(|pod| until_available(pod, min_ready, now)).collect();
    if let Some(wait) = waits.iter().filter(|wait| !wait.is_zero()).min() {
        outcome.look_again(*wait);
    }
    let template_labels = set.spec.template["metadata"]["labels"].as_object();
    let labeled = active.iter().filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        template_labels.into_iter().flatten().all(|(name, value)| {
            labels.and_then(|labels| labels.get(name)).map(String::as_str) == value.as_str()
        })
    });
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        ready_replicas: Some(count(waits.len())).filter(|count| *count > 0),
        available_replicas: Some(count(waits.iter().filter(|wait| wait.is_zero()).count()))
            .filter(|count| *count > 0),
        fully_labeled_replicas: Some(count(labeled.count())).filter(|count| *count > 0),
        observed_generation: set.metadata.generation,
        terminating_replicas: set.status.terminating_replicas,
        conditions: set.status.conditions.clone(),
    };
    if status == set.status {
        return;
    }
    let body = json!({"status": {
        "replicas": status.replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "observedGeneration": status.observed_generation,
    }});
    let target = Target::new("apps/v1", "replicasets", key.clone());
    outcome.writes.push(Write::Patch { target, subresource: Some("status"), body });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    fn set(replicas: i32) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "d", "uid": "rs", "generation": 1},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
            },
        })
    }

    fn owned_pod(name: &str, ready: bool) -> Value {
        let mut pod = orphan(name);
        pod["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true},
        ]);
        let status = if ready { "True" } else { "False" };
        pod["status"] = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]});
        pod
    }

    fn orphan(name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running"},
        })
    }

    fn look(objects: &[Value]) -> Outcome {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        ReplicaSetController.reconcile(&Key::new("d", "web"), &world(objects), now)
    }

    /// The writes as `verb resource name`, without Events.
    fn lines(outcome: &Outcome) -> Vec<String> {
        let told = outcome.writes.iter().filter(|write| write.target().resource != "events");
        told.map(|write| format!("{} {} {}", write.verb(), write.target().plural, write.target().key.name))
            .collect()
    }

    #[test]
    fn missing_pods_are_made_from_the_template() {
        let outcome = look(&[set(2), owned_pod("web-1", true)]);
        assert_eq!(lines(&outcome), ["create pods web-", "patch replicasets web"]);
        let Write::Create { body, .. } = &outcome.writes[0] else { panic!() };
        assert_eq!(body["metadata"]["labels"]["app"], "web");
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "rs");
        assert_eq!(body["spec"]["containers"][0]["name"], "c");
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let mut costly = owned_pod("web-2", false);
        costly["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "10"});
        let outcome = look(&[set(1), owned_pod("web-1", true), costly, owned_pod("web-3", false)]);
        assert_eq!(lines(&outcome)[..2], ["delete pods web-3", "delete pods web-2"]);
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        let mut stranger = owned_pod("web-1", true);
        stranger["metadata"]["labels"] = json!({"app": "other"});
        let outcome = look(&[set(0), stranger, orphan("web-2")]);
        let owners = outcome.writes.iter().filter_map(|write| match write {
            Write::Patch { target, subresource: None, body } => Some((
                target.key.name.as_str(),
                body["metadata"]["ownerReferences"].as_array().unwrap().len(),
            )),
            _ => None,
        });
        assert_eq!(owners.collect::<Vec<_>>(), [("web-1", 0), ("web-2", 1)]);
    }

    #[test]
    fn status_counts_and_waits_for_minimum_ready_time() {
        let mut slow = set(1);
        slow["spec"]["minReadySeconds"] = json!(90);
        let outcome = look(&[slow, owned_pod("web-1", true)]);
        let Some(Write::Patch { body, .. }) = outcome.writes.last() else { panic!("{outcome:?}") };
        assert_eq!(
            (&body["status"]["readyReplicas"], &body["status"]["availableReplicas"]),
            (&json!(1), &json!(null))
        );
        assert_eq!(outcome.again, Some(Duration::from_secs(30)));
    }

    #[test]
    fn nothing_is_written_when_nothing_is_to_do() {
        let mut settled = set(1);
        settled["status"] = json!({
            "replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "fullyLabeledReplicas": 1, "observedGeneration": 1,
        });
        assert_eq!(look(&[settled, owned_pod("web-1", true)]), Outcome::nothing());
    }
}
