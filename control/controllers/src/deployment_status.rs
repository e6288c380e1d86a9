//! What a Deployment reports of itself: counts, and the conditions `Available` and `Progressing`.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::controller::{Key, Outcome};
use crate::deployment::{Sets, condition, deadline, limits, sum_of};
use crate::objects::Deployment;
use crate::write::{Target, Write};

/// Writes the status if it differs from the one that is there.
pub(crate) fn update_status(
    key: &Key,
    deployment: &Deployment,
    sets: &Sets<'_>,
    now: Timestamp,
    outcome: &mut Outcome,
) {
    let counts = Counts::of(deployment, sets);
    let mut status = counts.status(deployment);
    let available = available(deployment, &counts);
    let progressing = progressing(deployment, &counts, sets, now, outcome);
    status.conditions = Some(
        [Some(available), progressing]
            .into_iter()
            .flatten()
            .map(|new| stamped(new, deployment, now))
            .collect(),
    );
    if status == deployment.status {
        return;
    }
    let mut body: Value = json!({"status": status});
    for (name, count) in [
        ("replicas", status.replicas),
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
        ("unavailableReplicas", status.unavailable_replicas),
    ] {
        // A merge patch keeps what it does not name, so a count that fell to zero is removed by name.
        body["status"][name] = json!(count);
    }
    let target = Target::new("apps/v1", "deployments", key.clone());
    outcome.writes.push(Write::Patch { target, subresource: Some("status"), body });
}

struct Counts {
    replicas: i32,
    updated: i32,
    ready: i32,
    available: i32,
    /// Pods the sets ask for.
    wanted: i32,
}

impl Counts {
    fn of(deployment: &Deployment, sets: &Sets<'_>) -> Self {
        let sum = |read: fn(&crate::objects::ReplicaSet) -> i32| sets.all().map(|set| read(set)).sum();
        Self {
            replicas: sum(|set| set.status.replicas),
            updated: sets.new.map_or(0, |set| set.status.replicas),
            ready: sum(|set| set.status.ready_replicas.unwrap_or(0)),
            available: sum(|set| set.status.available_replicas.unwrap_or(0)),
            wanted: sets.all().map(|set| sum_of(set).replicas).sum::<i32>().max(limits(deployment).replicas),
        }
    }

    fn status(&self, deployment: &Deployment) -> DeploymentStatus {
        let nonzero = |count: i32| Some(count).filter(|count| *count > 0);
        DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: nonzero(self.replicas),
            updated_replicas: nonzero(self.updated),
            ready_replicas: nonzero(self.ready),
            available_replicas: nonzero(self.available),
            unavailable_replicas: nonzero(self.wanted - self.available),
            collision_count: deployment.status.collision_count,
            terminating_replicas: deployment.status.terminating_replicas,
            conditions: None,
        }
    }

    /// The whole template is out, and nothing else.
    fn is_complete(&self, deployment: &Deployment) -> bool {
        let want = deployment.spec.replicas.unwrap_or(1);
        self.updated == want && self.replicas == want && self.available == want
    }

    /// Whether these counts are nearer to the goal than the last reported ones.
    fn is_progress(&self, deployment: &Deployment) -> bool {
        let old = &deployment.status;
        let count = |value: Option<i32>| value.unwrap_or(0);
        let old_of_old = count(old.replicas) - count(old.updated_replicas);
        self.updated > count(old.updated_replicas)
            || self.replicas - self.updated < old_of_old
            || self.ready > count(old.ready_replicas)
            || self.available > count(old.available_replicas)
    }
}

fn made(type_: &str, status: bool, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
        last_update_time: None,
    }
}

fn available(deployment: &Deployment, counts: &Counts) -> DeploymentCondition {
    if counts.available >= limits(deployment).min_available() {
        let message = "Deployment has minimum availability.";
        return made("Available", true, "MinimumReplicasAvailable", message.to_owned());
    }
    let message = "Deployment does not have minimum availability.";
    made("Available", false, "MinimumReplicasUnavailable", message.to_owned())
}

/// `kubectl rollout status` reads this one: complete, moving, or stuck since longer than the deadline.
fn progressing(
    deployment: &Deployment,
    counts: &Counts,
    sets: &Sets<'_>,
    now: Timestamp,
    outcome: &mut Outcome,
) -> Option<DeploymentCondition> {
    let current = condition(deployment, "Progressing");
    let Some(deadline) = deadline(deployment) else { return current.cloned() };
    let set = sets.new.and_then(|set| set.metadata.name.clone()).unwrap_or_default();
    if deployment.spec.paused {
        return Some(match current {
            Some(current) if current.reason.as_deref() == Some("DeploymentPaused") => current.clone(),
            _ => unknown("DeploymentPaused", "Deployment is paused"),
        });
    }
    if sets.new.is_some() && counts.is_complete(deployment) {
        let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
        return Some(made("Progressing", true, "NewReplicaSetAvailable", message));
    }
    let moving =
        made("Progressing", true, "ReplicaSetUpdated", format!("ReplicaSet \"{set}\" is progressing."));
    let Some(current) = current else { return Some(moving) };
    let restarted = current.reason.as_deref().is_some_and(|reason| {
        matches!(reason, "NewReplicaSetAvailable" | "DeploymentPaused")
            && deployment.status.observed_generation != deployment.metadata.generation
    });
    if counts.is_progress(deployment) || restarted {
        // A changed message stamps the condition anew even when status and reason stay.
        return Some(DeploymentCondition { last_update_time: Some(Time(now)), ..moving });
    }
    if current.reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return Some(current.clone());
    }
    let since = current.last_update_time.as_ref().map_or(now, |time| time.0);
    let waited = std::time::Duration::try_from(now.duration_since(since)).unwrap_or_default();
    if waited >= deadline && current.reason.as_deref() != Some("NewReplicaSetAvailable") {
        let message = format!("ReplicaSet \"{set}\" has timed out progressing.");
        return Some(made("Progressing", false, "ProgressDeadlineExceeded", message));
    }
    outcome.look_again(deadline.saturating_sub(waited).max(std::time::Duration::from_secs(1)));
    Some(current.clone())
}

fn unknown(reason: &str, message: &str) -> DeploymentCondition {
    let mut condition = made("Progressing", false, reason, message.to_owned());
    condition.status = "Unknown".to_owned();
    condition
}

/// Keeps the times of a condition that did not change.
fn stamped(new: DeploymentCondition, deployment: &Deployment, now: Timestamp) -> DeploymentCondition {
    let old = condition(deployment, &new.type_);
    let restamp = new.last_update_time.is_some();
    if let Some(old) = old.filter(|old| old.status == new.status && old.reason == new.reason && !restamp) {
        return old.clone();
    }
    let transition =
        old.filter(|old| old.status == new.status).and_then(|old| old.last_transition_time.clone());
    let now = whole_second(now);
    DeploymentCondition {
        last_transition_time: Some(transition.unwrap_or(Time(now))),
        last_update_time: Some(Time(now)),
        ..new
    }
}

/// `metav1.Time` has seconds; a finer stamp would differ from what comes back.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
