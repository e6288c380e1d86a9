//! What disruption budgets allow: how many of the pods a budget selects may be evicted now.
//!
//! Written to the status, where the API server's eviction reads and spends it. Pods whose eviction was allowed and that have
//! not gone yet stand in `disruptedPods`; they count as gone for [`GOING`].

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::change::{Change, controller_of};
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{Pod, PodDisruptionBudget, PodDisruptionBudgetStatus, deleting};
use crate::pods::is_ready;
use crate::rollout::scaled;
use crate::selector::matches;
use crate::view::View;
use crate::write::{Target, Write};

/// How long an evicted pod may take to go before it counts again (upstream's `DeletionTimeout`).
const GOING: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

pub(crate) struct DisruptionController;

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        match change.resource {
            "poddisruptionbudgets.policy" => vec![change.key.clone()],
            "pods" | "replicasets.apps" | "replicationcontrollers" | "deployments.apps" => {
                let of_pods = change.is("pods");
                let within = view.pod_disruption_budgets.within(&change.key.namespace);
                let concerned = within.filter(|(_, budget)| {
                    // A set's replicas count for budgets of any selector that its pods meet, and sets change rarely.
                    !of_pods || change.metas().any(|meta| selects(budget, meta.labels.as_ref()))
                });
                concerned.map(|(key, _)| key.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(budget) = view.pod_disruption_budgets.row(key) else { return Outcome::nothing() };
        let pods: Vec<&Pod> = view
            .pods
            .within(&key.namespace)
            .filter(|(_, pod)| selects(budget, pod.metadata.labels.as_ref()))
            .map(|(_, pod)| &**pod)
            .collect();
        let going = going(budget, &pods, now);
        let mut outcome = Outcome::nothing();
        if let Some(first) = going.values().min() {
            let waited = Duration::try_from(now.duration_since(first.0)).unwrap_or_default();
            outcome.look_again(GOING.saturating_sub(waited).max(Duration::from_secs(1)));
        }
        let status = match expected(budget, &pods, view) {
            Ok(expected) => counted(budget, &pods, going, expected, now),
            Err(why) => failed(budget, &why, now),
        };
        if status != budget.status {
            outcome.writes.push(written(key, budget, &status));
        }
        outcome
    }
}

fn selects(budget: &PodDisruptionBudget, labels: Option<&BTreeMap<String, String>>) -> bool {
    budget.spec.selector.as_ref().is_some_and(|selector| matches(selector, labels))
}

/// Evicted pods that are still there and not being deleted, and not for too long.
fn going(budget: &PodDisruptionBudget, pods: &[&Pod], now: Timestamp) -> BTreeMap<String, Time> {
    let stays = |name: &str| {
        pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name) && deleting(&pod.metadata).is_none())
    };
    let recent = |since: &Time| Duration::try_from(now.duration_since(since.0)).unwrap_or_default() < GOING;
    let disrupted = budget.status.disrupted_pods.iter();
    let kept = disrupted.filter(|(name, since)| stays(name) && recent(since));
    kept.map(|(name, since)| (name.clone(), since.clone())).collect()
}

/// Pods there should be, and how many of them have to be healthy.
struct Expected {
    pods: i32,
    healthy: i32,
}

fn expected(budget: &PodDisruptionBudget, pods: &[&Pod], view: &View) -> Result<Expected, String> {
    let spec = &budget.spec;
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let pods = scale(pods, view)?;
            Ok(Expected { pods, healthy: (pods - scaled(most, pods, true)).max(0) })
        }
        (None, Some(IntOrString::Int(least))) => Ok(Expected { pods: count(pods.len()), healthy: *least }),
        (None, Some(least)) => {
            let pods = scale(pods, view)?;
            Ok(Expected { pods, healthy: scaled(least, pods, true) })
        }
        (None, None) => Ok(Expected { pods: count(pods.len()), healthy: 0 }),
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// The replicas that the controllers of the pods ask for, each counted once. Pods without a controller do not count.
fn scale(pods: &[&Pod], view: &View) -> Result<i32, String> {
    let mut asked = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else { continue };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let above = Key::new(namespace, &owner.name);
        let older = view.replication_controllers.row(&above);
        let older = older.filter(|older| is_owner(owner, "ReplicationController", &older.metadata));
        if let Some(older) = older {
            asked.insert(older.metadata.uid.as_ref(), older.spec.0.replicas.unwrap_or(1));
            continue;
        }
        let set = view.replica_sets.row(&above);
        let Some(set) = set.filter(|set| is_owner(owner, "ReplicaSet", &set.metadata)) else {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "the replicas of {} {:?}, which controls pod {name:?}, are not known",
                owner.kind, owner.name
            ));
        };
        // The sets of a Deployment change while it rolls out; what it wants in all does not.
        let above = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let deployment = above.and_then(|above| view.deployments.row(&Key::new(namespace, &above.name)));
        let (uid, replicas) = match deployment {
            Some(deployment) => (deployment.metadata.uid.as_ref(), deployment.spec.replicas),
            None => (set.metadata.uid.as_ref(), set.spec.replicas),
        };
        asked.insert(uid, replicas.unwrap_or(1));
    }
    Ok(asked.values().fold(0, |sum: i32, replicas| sum.saturating_add(*replicas)))
}

fn is_owner(reference: &OwnerReference, kind: &str, meta: &ObjectMeta) -> bool {
    reference.kind == kind && meta.uid.as_ref() == Some(&reference.uid)
}

fn counted(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    going: BTreeMap<String, Time>,
    expected: Expected,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let leaves = |pod: &Pod| pod.metadata.name.as_ref().is_some_and(|name| going.contains_key(name));
    let healthy =
        pods.iter().filter(|pod| deleting(&pod.metadata).is_none() && !leaves(pod) && is_ready(pod));
    let current_healthy = count(healthy.count());
    let room = current_healthy.saturating_sub(expected.healthy);
    let allowed = if expected.pods > 0 { room.max(0) } else { 0 };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: going,
        disruptions_allowed: allowed,
        current_healthy,
        desired_healthy: expected.healthy,
        expected_pods: expected.pods,
        conditions: conditions(budget, allowed > 0, reason, "", now),
    }
}

/// Nothing is allowed as long as nobody can count.
fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disruptions_allowed: 0,
        conditions: conditions(budget, false, "SyncFailed", why, now),
        ..budget.status.clone()
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    allowed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let status = if allowed { "True" } else { "False" };
    let old = budget.status.conditions.iter().find(|one| one.type_ == ALLOWED);
    let since =
        old.filter(|old| old.status == status).map_or(Time(now), |old| old.last_transition_time.clone());
    let own = Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    };
    budget.status.conditions.iter().filter(|one| one.type_ != ALLOWED).cloned().chain([own]).collect()
}

/// Only over the version that was seen: an eviction may have spent something meanwhile.
fn written(key: &Key, budget: &PodDisruptionBudget, status: &PodDisruptionBudgetStatus) -> Write {
    let body = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": budget.metadata,
        "status": {
            "observedGeneration": status.observed_generation, "disruptedPods": status.disrupted_pods,
            "disruptionsAllowed": status.disruptions_allowed, "currentHealthy": status.current_healthy,
            "desiredHealthy": status.desired_healthy, "expectedPods": status.expected_pods,
            "conditions": status.conditions,
        },
    });
    let target = Target::new("policy/v1", "poddisruptionbudgets", key.clone());
    Write::Replace { target, subresource: "status", body }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::view::tests::world;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn budget(spec: Value, status: Value) -> Value {
        let mut object = json!({ "kind": "PodDisruptionBudget", "apiVersion": "policy/v1",
            "metadata": { "name": "b", "namespace": "a", "uid": "b", "generation": 3, "labels": { "kept": "yes" } },
            "spec": spec, "status": status });
        object["spec"]["selector"] = json!({ "matchLabels": { "app": "web" } });
        object
    }

    fn pod(name: &str, ready: bool) -> Value {
        let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s", "uid": "s", "controller": true });
        let status = if ready { "True" } else { "False" };
        json!({ "kind": "Pod", "metadata": { "name": name, "namespace": "a", "uid": name, "labels": { "app": "web" },
                "ownerReferences": [owner] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] } })
    }

    fn set(replicas: i32) -> Value {
        json!({ "kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": { "name": "s", "namespace": "a", "uid": "s" },
                "spec": { "replicas": replicas } })
    }

    fn look(objects: &[Value]) -> Outcome {
        DisruptionController.reconcile(&Key::new("a", "b"), &world(objects), NOW.parse().unwrap())
    }

    fn status(objects: &[Value]) -> Value {
        let outcome = look(objects);
        let [Write::Replace { body, subresource: "status", .. }] = &outcome.writes[..] else {
            panic!("{outcome:?}")
        };
        assert_eq!(body["metadata"]["labels"]["kept"], "yes");
        body["status"].clone()
    }

    /// Allowed, healthy now, healthy wanted, expected.
    fn numbers(spec: Value, replicas: i32, ready: usize, waiting: usize) -> [i64; 4] {
        let mut objects = vec![budget(spec, json!({})), set(replicas)];
        objects.extend((0..ready + waiting).map(|at| pod(&format!("p{at}"), at < ready)));
        let status = status(&objects);
        ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]
            .map(|field| status[field].as_i64().unwrap())
    }

    #[test]
    fn what_is_allowed_follows_from_what_is_healthy_and_what_has_to_be() {
        for (spec, replicas, ready, waiting, want) in [
            (json!({ "minAvailable": 2 }), 3, 3, 0, [1, 3, 2, 3]),
            (json!({ "minAvailable": 2 }), 3, 1, 2, [0, 1, 2, 3]),
            (json!({ "minAvailable": 0 }), 0, 0, 0, [0, 0, 0, 0]),
            (json!({ "minAvailable": "30%" }), 10, 10, 0, [7, 10, 3, 10]),
            (json!({ "minAvailable": "31%" }), 10, 9, 1, [5, 9, 4, 10]),
            (json!({ "maxUnavailable": 1 }), 5, 5, 0, [1, 5, 4, 5]),
            (json!({ "maxUnavailable": 1 }), 5, 4, 0, [0, 4, 4, 5]),
            (json!({ "maxUnavailable": "1%" }), 5, 5, 0, [1, 5, 4, 5]),
            (json!({ "maxUnavailable": 9 }), 5, 5, 0, [5, 5, 0, 5]),
        ] {
            assert_eq!(
                numbers(spec.clone(), replicas, ready, waiting),
                want,
                "{spec} {replicas} {ready} {waiting}"
            );
        }
    }

    #[test]
    fn a_pod_that_leaves_is_not_healthy() {
        let mut leaving = pod("p", true);
        leaving["metadata"]["deletionTimestamp"] = json!(NOW);
        let budget = budget(json!({ "minAvailable": 1 }), json!({}));
        let status = status(&[budget, set(2), leaving, pod("q", true)]);
        assert_eq!((&status["currentHealthy"], &status["disruptionsAllowed"]), (&json!(1), &json!(0)));
    }

    #[test]
    fn the_sets_of_one_deployment_count_as_it_asks() {
        let mut one = set(3);
        let above = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": true });
        one["metadata"]["ownerReferences"] = json!([above]);
        let deployment = json!({ "kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": { "name": "d", "namespace": "a", "uid": "d" }, "spec": { "replicas": 8 } });
        let status =
            status(&[budget(json!({ "maxUnavailable": 1 }), json!({})), one, deployment, pod("p", true)]);
        assert_eq!((&status["expectedPods"], &status["desiredHealthy"]), (&json!(8), &json!(7)));
    }

    #[test]
    fn a_replication_controller_counts_as_a_set_does() {
        let mut older = set(3);
        (older["apiVersion"], older["kind"]) = (json!("v1"), json!("ReplicationController"));
        older["spec"]["selector"] = json!({});
        let mut pod = pod("p", true);
        pod["metadata"]["ownerReferences"][0]["kind"] = json!("ReplicationController");
        let status = status(&[budget(json!({ "maxUnavailable": 1 }), json!({})), older, pod]);
        assert_eq!((&status["expectedPods"], &status["desiredHealthy"]), (&json!(3), &json!(2)));
    }

    #[test]
    fn nothing_is_allowed_when_nobody_can_count() {
        let mut stray = pod("p", true);
        stray["metadata"]["ownerReferences"][0]["kind"] = json!("Fleet");
        let earlier = json!({ "disruptionsAllowed": 4, "currentHealthy": 5 });
        let status = status(&[budget(json!({ "maxUnavailable": 1 }), earlier), set(5), stray]);
        assert_eq!((&status["disruptionsAllowed"], &status["currentHealthy"]), (&json!(0), &json!(5)));
        assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
        assert!(status["conditions"][0]["message"].as_str().unwrap().contains("Fleet \"s\""), "{status}");
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_until_it_had_its_time() {
        let spec = || json!({ "minAvailable": 1 });
        let pods = || [set(3), pod("p", true), pod("q", true), pod("r", true)];
        let at = |time: &str| budget(spec(), json!({ "disruptedPods": { "p": time, "gone": time } }));
        let outcome = look(&[&[at("2025-12-31T23:59:30Z")], &pods()[..]].concat());
        assert_eq!(outcome.again, Some(Duration::from_secs(90)));
        let with = status(&[&[at("2025-12-31T23:59:30Z")], &pods()[..]].concat());
        assert_eq!(
            (&with["disruptionsAllowed"], &with["disruptedPods"]),
            (&json!(1), &json!({ "p": "2025-12-31T23:59:30Z" }))
        );
        let late = status(&[&[at("2025-12-31T23:58:00Z")], &pods()[..]].concat());
        assert_eq!((&late["disruptionsAllowed"], &late["disruptedPods"]), (&json!(2), &json!({})));
    }

    #[test]
    fn a_status_that_is_right_is_left_alone() {
        let made = status(&[budget(json!({ "minAvailable": 1 }), json!({})), pod("p", true), pod("q", true)]);
        assert_eq!(made["conditions"][0]["reason"], "SufficientPods");
        assert_eq!(made["observedGeneration"], 3);
        let again = look(&[budget(json!({ "minAvailable": 1 }), made), pod("p", true), pod("q", true)]);
        assert_eq!(again, Outcome::nothing());
    }

    #[test]
    fn a_pod_wakes_the_budgets_that_select_or_selected_it() {
        let view = world(&[budget(json!({ "minAvailable": 1 }), json!({}))]);
        let (key, labelled): (Key, k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) =
            (Key::new("a", "p"), serde_json::from_value(json!({ "labels": { "app": "web" } })).unwrap());
        let bare = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta::default();
        let wakes = |old, new| {
            DisruptionController.wakes(&Change { resource: "pods", key: &key, old, new }, &view).len()
        };
        assert_eq!(wakes(None, Some(&labelled)), 1);
        assert_eq!(wakes(Some(&labelled), Some(&bare)), 1);
        assert_eq!(wakes(None, Some(&bare)), 0);
    }
}
