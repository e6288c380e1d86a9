//! A ReplicaSet has as many active pods as it asks for, and so has a ReplicationController, its predecessor.
//!
//! Matching orphans are adopted, pods that no longer match are released. Too many: the least useful go first (not
//! scheduled, not ready, ready for the shortest time). `status` counts what is there, and says if pods cannot be made.

use std::cmp::Reverse;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::change::{Change, controller_of};
use crate::controller::{Controller, Failure, Key, Outcome};
use crate::objects::{Kind, Pod, ReplicaSet, ReplicaSetSpec, ReplicationController, deleting};
use crate::ownership;
use crate::pods::{is_active, is_ready, ready_since, until_available};
use crate::selector;
use crate::view::{Tabled, View};
use crate::write::{Happening, Target, Write};

/// Pods made or deleted in one look; the rest follows in the next.
const BURST: usize = 500;
/// The condition that is there while pods cannot be made or deleted.
const FAILURE: &str = "ReplicaFailure";

/// A kind whose objects keep a number of pods that are alike.
pub(crate) trait Replicating: Tabled {
    const KIND: &'static str;
    /// What upstream calls its controller.
    const COMPONENT: &'static str;

    fn spec(&self) -> &ReplicaSetSpec;
    fn status(&self) -> &ReplicaSetStatus;
}

impl Replicating for ReplicaSet {
    const KIND: &'static str = "ReplicaSet";
    const COMPONENT: &'static str = "replicaset-controller";

    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }

    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Replicating for ReplicationController {
    const KIND: &'static str = "ReplicationController";
    const COMPONENT: &'static str = "replication-controller";

    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec.0
    }

    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

#[derive(Debug, Default)]
pub(crate) struct ReplicaController<T>(PhantomData<T>);

impl<T: Replicating> Controller for ReplicaController<T> {
    fn name(&self) -> &'static str {
        T::COMPONENT
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is(T::RESOURCE) {
            return vec![change.key.clone()];
        }
        if !change.is(Pod::RESOURCE) {
            return Vec::new();
        }
        let mut keys = change.controllers(T::KIND);
        if let Some(orphan) = change.new.filter(|meta| controller_of(meta).is_none()) {
            let matching = T::table(view)
                .within(&change.key.namespace)
                .filter(|(_, set)| selector::matches(&set.spec().selector, orphan.labels.as_ref()));
            keys.extend(matching.map(|(key, _)| key.clone()));
        }
        keys
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(set) = T::table(view).row(key) else { return Outcome::nothing() };
        let mut outcome = Outcome::nothing();
        let claim = ownership::claim::<Pod>(view, set.meta(), &set.spec().selector, &owner_reference(&**set));
        outcome.writes = claim.writes;
        if claim.adopts {
            return outcome;
        }
        let active: Vec<&Arc<Pod>> = claim.owned.into_iter().filter(|pod| is_active(pod)).collect();
        if deleting(set.meta()).is_none() {
            scale(key, &**set, &active, now, &mut outcome);
        }
        let (mut status, wait) = counted(&**set, &active, now);
        status.conditions.iter_mut().for_each(|all| all.retain(|one| one.type_ != FAILURE));
        outcome.writes.extend(written(key, &**set, status));
        outcome.again = wait;
        outcome
    }

    fn failed(&self, key: &Key, view: &View, failure: &Failure, now: Timestamp) -> Vec<Write> {
        let Some(set) = T::table(view).row(key) else { return Vec::new() };
        let (reason, message) = match (failure.verb, failure.resource.as_str()) {
            ("create", Pod::RESOURCE) => ("FailedCreate", format!("Error creating: {}", failure.message)),
            ("delete", Pod::RESOURCE) => ("FailedDelete", format!("Error deleting: {}", failure.message)),
            _ => return Vec::new(),
        };
        let active: Vec<&Arc<Pod>> =
            view.controlled::<Pod>(set.meta()).into_iter().filter(|pod| is_active(pod)).collect();
        let (mut status, _) = counted(&**set, &active, now);
        let conditions = status.conditions.get_or_insert_default();
        // The first reason stays, as upstream's does.
        if !conditions.iter().any(|one| one.type_ == FAILURE) {
            conditions.push(ReplicaSetCondition {
                type_: FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(Time(now)),
            });
        }
        let told = event(key, &**set, true, reason, message, now);
        written(key, &**set, status).into_iter().chain([told]).collect()
    }
}

fn owner_reference<T: Replicating>(set: &T) -> Value {
    ownership::reference(&T::api_version(&()), T::KIND, set.meta())
}

/// Makes missing pods and deletes surplus ones.
fn scale<T: Replicating>(key: &Key, set: &T, active: &[&Arc<Pod>], now: Timestamp, outcome: &mut Outcome) {
    let want = usize::try_from(set.spec().replicas.unwrap_or(1)).unwrap_or(0);
    let missing = want.saturating_sub(active.len()).min(BURST);
    for _ in 0..missing {
        outcome.writes.push(Write::Create {
            target: Target::new("v1", "pods", Key::new(&key.namespace, format!("{}-", key.name))),
            body: pod(key, set),
        });
    }
    if missing > 0 {
        outcome.writes.push(event(
            key,
            set,
            false,
            "SuccessfulCreate",
            format!("Created {missing} pods"),
            now,
        ));
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
        outcome.writes.push(event(
            key,
            set,
            false,
            "SuccessfulDelete",
            format!("Deleted {surplus} pods"),
            now,
        ));
    }
}

fn event<T: Replicating>(
    key: &Key,
    set: &T,
    warning: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Write {
    Happening {
        component: T::COMPONENT,
        api_version: &T::api_version(&()),
        kind: T::KIND,
        key,
        uid: set.meta().uid.as_deref().unwrap_or_default(),
        warning,
        reason,
        message,
        now,
    }
    .write()
}

/// A pod of the set's template.
fn pod<T: Replicating>(key: &Key, set: &T) -> Value {
    let template = &set.spec().template;
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

/// The status as the pods say it, and when it changes next without anybody doing anything.
fn counted<T: Replicating>(
    set: &T,
    active: &[&Arc<Pod>],
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready = Duration::from_secs(u64::try_from(set.spec().min_ready_seconds).unwrap_or(0));
    let waits: Vec<Duration> = active.iter().filter_map(|pod| until_available(pod, min_ready, now)).collect();
    let next = waits.iter().filter(|wait| !wait.is_zero()).min().copied();
    let template_labels = set.spec().template["metadata"]["labels"].as_object();
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
        observed_generation: set.meta().generation,
        terminating_replicas: set.status().terminating_replicas,
        conditions: set.status().conditions.clone(),
    };
    (status, next)
}

/// The write of a status, if it is another one.
fn written<T: Replicating>(key: &Key, set: &T, mut status: ReplicaSetStatus) -> Option<Write> {
    status.conditions = status.conditions.filter(|all| !all.is_empty());
    if status == *set.status() {
        return None;
    }
    let mut body = json!({"status": {
        "replicas": status.replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "observedGeneration": status.observed_generation,
    }});
    if status.conditions != set.status().conditions {
        body["status"]["conditions"] = json!(status.conditions);
    }
    let target = Target::new(&T::api_version(&()), &T::plural(&()), key.clone());
    Some(Write::Patch { target, subresource: Some("status"), body })
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
        ReplicaController::<ReplicaSet>::default().reconcile(&Key::new("d", "web"), &world(objects), now)
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
    fn nothing_is_made_or_deleted_before_orphans_are_adopted() {
        for (replicas, owned) in [(1, 0), (2, 0), (1, 1), (0, 1)] {
            let mut objects = vec![set(replicas), orphan("web-9")];
            objects.extend((0..owned).map(|at| owned_pod(&format!("web-{at}"), true)));
            assert_eq!(lines(&look(&objects)), ["patch pods web-9"], "{replicas} {owned}");
        }
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
    fn a_replication_controller_does_the_same_under_its_own_name() {
        let mut older = set(1);
        older["apiVersion"] = json!("v1");
        older["kind"] = json!("ReplicationController");
        older["metadata"]["uid"] = json!("rc");
        older["spec"]["selector"] = json!({"app": "web"});
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let look = |objects: &[Value]| {
            let controller = ReplicaController::<ReplicationController>::default();
            controller.reconcile(&Key::new("d", "web"), &world(objects), now)
        };
        let outcome = look(&[older.clone(), set(9), owned_pod("other", true)]);
        assert_eq!(lines(&outcome), ["create pods web-", "patch replicationcontrollers web"]);
        let Write::Create { body, .. } = &outcome.writes[0] else { panic!() };
        let owner = &body["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["apiVersion"], &owner["kind"]), (&json!("v1"), &json!("ReplicationController")));
        let Write::Patch { target, .. } = outcome.writes.last().unwrap() else { panic!() };
        assert_eq!(target.api_version, "v1");
        let adopted = look(&[older, orphan("web-1")]);
        assert_eq!(lines(&adopted)[0], "patch pods web-1");
    }

    #[test]
    fn pods_wake_the_set_that_controls_them_and_orphans_those_that_select_them() {
        let view = world(&[set(1)]);
        let meta = |pod: Value| serde_json::from_value(pod["metadata"].clone()).unwrap();
        let (owned, free, key) = (meta(owned_pod("a", true)), meta(orphan("b")), Key::new("d", "p"));
        let wakes = |old, new| {
            let change = Change { resource: "pods", key: &key, old, new };
            ReplicaController::<ReplicaSet>::default().wakes(&change, &view)
        };
        assert_eq!(wakes(Some(&owned), None), [Key::new("d", "web")]);
        assert_eq!(wakes(None, Some(&free)), [Key::new("d", "web")]);
        assert_eq!(wakes(Some(&free), None), []);
        let change = Change { resource: "pods", key: &key, old: None, new: Some(&owned) };
        assert_eq!(ReplicaController::<ReplicationController>::default().wakes(&change, &view), []);
    }

    #[test]
    fn pods_that_cannot_be_made_are_a_condition_until_they_can() {
        let controller = ReplicaController::<ReplicaSet>::default();
        let (key, now) = (Key::new("d", "web"), "2026-01-01T00:01:00Z".parse().unwrap());
        let failed = |objects: &[Value], verb: &'static str, resource: &str| {
            let failure = Failure { verb, resource: resource.into(), message: "exceeded quota".into() };
            controller.failed(&key, &world(objects), &failure, now)
        };
        let writes = failed(&[set(2), owned_pod("web-1", true)], "create", "pods");
        let [Write::Patch { body, .. }, Write::Create { body: event, .. }] = &writes[..] else {
            panic!("{writes:?}")
        };
        let condition = json!({"type": FAILURE, "status": "True", "reason": "FailedCreate",
            "message": "exceeded quota", "lastTransitionTime": "2026-01-01T00:01:00Z"});
        assert_eq!(body["status"]["conditions"], json!([condition]));
        assert_eq!(body["status"]["replicas"], 1);
        assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("FailedCreate")));

        let mut failing = set(2);
        failing["status"] = body["status"].clone();
        let again = failed(&[failing.clone(), owned_pod("web-1", true)], "create", "pods");
        assert_eq!(again.len(), 1, "the first reason stays");
        let cured = look(&[failing, owned_pod("web-1", true), owned_pod("web-2", true)]);
        let Some(Write::Patch { body, .. }) = cured.writes.last() else { panic!("{cured:?}") };
        assert_eq!(body["status"].get("conditions"), Some(&Value::Null));
        assert_eq!(failed(&[set(2)], "patch", "pods"), []);
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
