//! A Deployment runs its template through ReplicaSets, one per template, and moves from the old ones to the new one.
//!
//! The new set is the one whose template equals the Deployment's. Rolling update moves replicas under the limits of
//! `rollout.rs`; Recreate empties the old sets first. Old sets stay for `kubectl rollout undo`, up to the history limit.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use serde_json::{Map, Value, json};

use crate::change::{Change, controller_of};
use crate::controller::{Controller, Key, Outcome};
use crate::deployment_status::update_status;
use crate::objects::{Deployment, Pod, ReplicaSet, deleting};
use crate::ownership;
use crate::pods::is_active;
use crate::rollout::{self, Limits, Set};
use crate::selector;
use crate::view::View;
use crate::write::{Happening, Target, Write};

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const COMPONENT: &str = "deployment-controller";
const DEFAULT_HISTORY: usize = 10;

pub(crate) struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("deployments.apps") {
            return vec![change.key.clone()];
        }
        if change.is("replicasets.apps") {
            let mut keys = change.controllers("Deployment");
            if let Some(orphan) = change.new.filter(|meta| controller_of(meta).is_none()) {
                let all = view.deployments.within(&change.key.namespace);
                let matching = all.filter(|(_, deployment)| {
                    selector::matches(&deployment.spec.selector, orphan.labels.as_ref())
                });
                keys.extend(matching.map(|(key, _)| key.clone()));
            }
            return keys;
        }
        // Recreate waits for the last old pod to be gone.
        if change.is("pods") && change.new.is_none() {
            let sets = change.controllers("ReplicaSet");
            let owners = sets.iter().filter_map(|set| view.replica_sets.row(set));
            return owners
                .filter_map(|set| controller_of(&set.metadata))
                .map(|owner| Key::new(&change.key.namespace, &owner.name))
                .collect();
        }
        Vec::new()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(deployment) = view.deployments.row(key) else { return Outcome::nothing() };
        let reference = ownership::reference("apps/v1", "Deployment", &deployment.metadata);
        let claim =
            ownership::claim::<ReplicaSet>(view, &deployment.metadata, &deployment.spec.selector, &reference);
        let mut outcome = Outcome::writes(claim.writes);
        if claim.adopts {
            return outcome;
        }
        let sets = Sets::sort(deployment, claim.owned);
        if deleting(&deployment.metadata).is_none() {
            Look { key, deployment, sets: &sets, view, now, reference }.act(&mut outcome);
        }
        update_status(key, deployment, &sets, now, &mut outcome);
        outcome
    }
}

/// The sets of a Deployment: the one of the current template, and the others from old to young.
pub(crate) struct Sets<'a> {
    pub(crate) new: Option<&'a Arc<ReplicaSet>>,
    pub(crate) old: Vec<&'a Arc<ReplicaSet>>,
}

impl<'a> Sets<'a> {
    fn sort(deployment: &Deployment, mut sets: Vec<&'a Arc<ReplicaSet>>) -> Self {
        sets.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
        });
        let position =
            sets.iter().position(|set| without_hash(&set.spec.template) == deployment.spec.template);
        let new = position.map(|position| sets.remove(position));
        Self { new, old: sets }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
        self.old.iter().copied().chain(self.new)
    }
}

pub(crate) fn limits(deployment: &Deployment) -> Limits {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    if is_recreate(deployment) {
        return Limits { replicas, max_surge: 0, max_unavailable: replicas };
    }
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    Limits::new(
        replicas,
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
    )
}

fn is_recreate(deployment: &Deployment) -> bool {
    deployment.spec.strategy.type_.as_deref() == Some("Recreate")
}

pub(crate) fn sum_of(set: &ReplicaSet) -> Set {
    Set { replicas: set.spec.replicas.unwrap_or(1), available: set.status.available_replicas.unwrap_or(0) }
}

/// One look at a Deployment that is not being deleted.
struct Look<'a> {
    key: &'a Key,
    deployment: &'a Deployment,
    sets: &'a Sets<'a>,
    view: &'a View,
    now: Timestamp,
    reference: Value,
}

impl Look<'_> {
    fn act(&self, outcome: &mut Outcome) {
        if self.was_resized() && self.rescale(outcome) {
            return;
        }
        if self.deployment.spec.paused {
            return;
        }
        match self.sets.new {
            None if is_recreate(self.deployment) && !self.old_are_gone() => self.empty_old(outcome),
            None => self.make_new(outcome),
            Some(new) => {
                self.number(new, outcome);
                if is_recreate(self.deployment) {
                    self.recreate(new, outcome);
                } else {
                    self.roll(new, outcome);
                }
            }
        }
        if outcome.writes.is_empty() {
            self.forget_history(outcome);
        }
    }

    /// Whether a running set was last sized for another number of replicas.
    fn was_resized(&self) -> bool {
        let want = self.deployment.spec.replicas.unwrap_or(1).to_string();
        self.sets
            .all()
            .filter(|set| sum_of(set).replicas > 0)
            .any(|set| annotation(set, DESIRED).is_some_and(|desired| *desired != want))
    }

    /// Follows `spec.replicas`: the only running set takes them all, several share. Says whether it wrote anything.
    fn rescale(&self, outcome: &mut Outcome) -> bool {
        let before = outcome.writes.len();
        let running: Vec<_> = self.sets.all().filter(|set| sum_of(set).replicas > 0).collect();
        let limits = limits(self.deployment);
        match running.as_slice() {
            [only] => self.resize(only, limits.replicas, outcome),
            several => {
                let allowed = if limits.replicas > 0 { limits.replicas + limits.max_surge } else { 0 };
                let sizes: Vec<i32> = several.iter().map(|set| sum_of(set).replicas).collect();
                for (set, size) in several.iter().zip(rollout::proportional(allowed, &sizes)) {
                    self.resize(set, size, outcome);
                }
            }
        }
        outcome.writes.len() > before
    }

    fn roll(&self, new: &ReplicaSet, outcome: &mut Outcome) {
        let limits = limits(self.deployment);
        let old: Vec<Set> = self.sets.old.iter().map(|set| sum_of(set)).collect();
        let replicas = rollout::new_replicas(limits, sum_of(new), &old);
        if replicas != sum_of(new).replicas {
            return self.resize(new, replicas, outcome);
        }
        for (set, replicas) in self.sets.old.iter().zip(rollout::old_replicas(limits, sum_of(new), &old)) {
            if replicas != sum_of(set).replicas {
                self.resize(set, replicas, outcome);
            }
        }
    }

    fn recreate(&self, new: &ReplicaSet, outcome: &mut Outcome) {
        let replicas = self.deployment.spec.replicas.unwrap_or(1);
        if !self.old_are_gone() {
            self.empty_old(outcome);
        } else if sum_of(new).replicas != replicas {
            self.resize(new, replicas, outcome);
        }
    }

    fn empty_old(&self, outcome: &mut Outcome) {
        for set in self.sets.old.iter().filter(|set| sum_of(set).replicas > 0) {
            self.resize(set, 0, outcome);
        }
    }

    /// No old set asks for pods, and none of their pods runs any more.
    fn old_are_gone(&self) -> bool {
        self.sets.old.iter().all(|set| {
            let pods = self.view.controlled::<Pod>(&set.metadata);
            sum_of(set).replicas == 0
                && pods.iter().all(|pod| !is_active(pod) && deleting(&pod.metadata).is_none())
        })
    }

    /// Makes the set of the current template, under a name derived from it.
    fn make_new(&self, outcome: &mut Outcome) {
        let Self { key, deployment, .. } = self;
        let collisions = deployment.status.collision_count.unwrap_or(0);
        let hash = template_hash(&deployment.spec.template, collisions);
        let name = Key::new(&key.namespace, format!("{}-{hash}", key.name));
        if self.view.replica_sets.row(&name).is_some() {
            let target = Target::new("apps/v1", "deployments", (*key).clone());
            let body = json!({"status": {"collisionCount": collisions + 1}});
            outcome.writes.push(Write::Patch { target, subresource: Some("status"), body });
            return;
        }
        let limits = limits(deployment);
        let old: Vec<Set> = self.sets.old.iter().map(|set| sum_of(set)).collect();
        let replicas = if is_recreate(deployment) {
            limits.replicas
        } else {
            rollout::new_replicas(limits, Set { replicas: 0, available: 0 }, &old)
        };
        let revision = self.highest_revision() + 1;
        let mut template = deployment.spec.template.clone();
        template["metadata"]["labels"][HASH] = json!(hash);
        let mut selector = json!(deployment.spec.selector);
        selector["matchLabels"][HASH] = json!(hash);
        let mut annotations = self.inherited_annotations();
        annotations.extend(self.size_annotations());
        annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
        let body = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name.name, "namespace": key.namespace, "labels": template["metadata"]["labels"],
                "annotations": annotations, "ownerReferences": [self.reference],
            },
            "spec": {
                "replicas": replicas, "minReadySeconds": deployment.spec.min_ready_seconds,
                "selector": selector, "template": template,
            },
        });
        let message = format!("Scaled up replica set {} from 0 to {replicas}", name.name);
        outcome.writes.push(Write::Create { target: Target::new("apps/v1", "replicasets", name), body });
        outcome.writes.push(self.number_deployment(revision));
        outcome.writes.push(self.event("ScalingReplicaSet", message));
    }

    /// Gives the new set the highest revision, as after an undo, and the Deployment the same.
    fn number(&self, new: &ReplicaSet, outcome: &mut Outcome) {
        let highest_old = self.sets.old.iter().map(|set| revision(set)).max().unwrap_or(0);
        let current = revision(new);
        let wanted = if current > highest_old { current } else { highest_old + 1 };
        if wanted != current {
            let body = json!({"metadata": {"annotations": {REVISION: wanted.to_string()}}});
            outcome.writes.push(patch_set(new, body));
        }
        let annotations = self.deployment.metadata.annotations.as_ref();
        if annotations.and_then(|annotations| annotations.get(REVISION)) != Some(&wanted.to_string()) {
            outcome.writes.push(self.number_deployment(wanted));
        }
    }

    fn number_deployment(&self, revision: i64) -> Write {
        Write::Patch {
            target: Target::new("apps/v1", "deployments", self.key.clone()),
            subresource: None,
            body: json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}),
        }
    }

    fn highest_revision(&self) -> i64 {
        self.sets.all().map(|set| revision(set)).max().unwrap_or(0)
    }

    fn resize(&self, set: &ReplicaSet, replicas: i32, outcome: &mut Outcome) {
        let before = sum_of(set).replicas;
        let annotations = self.size_annotations();
        outcome.writes.push(patch_set(
            set,
            json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}}),
        ));
        if before != replicas {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let direction = if replicas > before { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {before} to {replicas}");
            outcome.writes.push(self.event("ScalingReplicaSet", message));
        }
    }

    fn size_annotations(&self) -> Map<String, Value> {
        let limits = limits(self.deployment);
        let mut annotations = Map::new();
        annotations.insert(DESIRED.to_owned(), json!(limits.replicas.to_string()));
        annotations.insert(MAXIMUM.to_owned(), json!((limits.replicas + limits.max_surge).to_string()));
        annotations
    }

    fn inherited_annotations(&self) -> Map<String, Value> {
        let own = [LAST_APPLIED, REVISION, DESIRED, MAXIMUM];
        let all = self.deployment.metadata.annotations.iter().flatten();
        all.filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect()
    }

    fn event(&self, reason: &str, message: String) -> Write {
        Happening {
            component: COMPONENT,
            api_version: "apps/v1",
            kind: "Deployment",
            key: self.key,
            uid: self.deployment.metadata.uid.as_deref().unwrap_or_default(),
            warning: false,
            reason,
            message,
            now: self.now,
        }
        .write()
    }

    /// Deletes the oldest empty sets above the history limit.
    fn forget_history(&self, outcome: &mut Outcome) {
        let limit = self.deployment.spec.revision_history_limit;
        let keep = limit.map_or(DEFAULT_HISTORY, |limit| usize::try_from(limit).unwrap_or(0));
        let mut empty: Vec<_> = self.sets.old.iter().filter(|set| is_settled_empty(set)).collect();
        empty.sort_by_key(|set| revision(set));
        let surplus = empty.len().saturating_sub(keep);
        for set in empty.into_iter().take(surplus) {
            let target = Target::new("apps/v1", "replicasets", key_of(set));
            let uid = set.metadata.uid.clone().unwrap_or_default();
            outcome.writes.push(Write::Delete { target, uid, propagation: Some("Background") });
        }
    }
}

fn is_settled_empty(set: &ReplicaSet) -> bool {
    sum_of(set).replicas == 0
        && set.status.replicas == 0
        && set.status.observed_generation >= set.metadata.generation
        && deleting(&set.metadata).is_none()
}

fn patch_set(set: &ReplicaSet, mut body: Value) -> Write {
    body["metadata"]["resourceVersion"] = json!(set.metadata.resource_version);
    Write::Patch { target: Target::new("apps/v1", "replicasets", key_of(set)), subresource: None, body }
}

fn key_of(set: &ReplicaSet) -> Key {
    Key::new(
        set.metadata.namespace.clone().unwrap_or_default(),
        set.metadata.name.clone().unwrap_or_default(),
    )
}

fn annotation<'a>(set: &'a ReplicaSet, name: &str) -> Option<&'a String> {
    set.metadata.annotations.as_ref()?.get(name)
}

pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template
}

/// A short name of a template: FNV-1a over its JSON and the collision count, in letters that spell no words.
fn template_hash(template: &Value, collisions: i32) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = format!("{template}{collisions}");
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut name = String::new();
    for _ in 0..10 {
        name.push(char::from(LETTERS[usize::try_from(hash % 27).expect("a remainder of 27")]));
        hash /= 27;
    }
    name
}

/// The condition of one type.
pub(crate) fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// The progress deadline, unless it is the number that stands for none.
pub(crate) fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
