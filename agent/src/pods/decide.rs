//! What should be done for a pod now: a pure function of the object, the runtime, our memory and the time.
//!
//! ```text
//!            volumes > sandbox > init containers and sidecars, in order > containers
//!  deleted:  containers > sidecars, last first > sandbox > finish
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use super::memory::{Backoff, Memory};
use super::names;
use super::observed::{Container, Observed, Sandbox, State};

/// A container that never says when it is done gets this long, as kubelets give it.
const DEFAULT_GRACE: i64 = 30;
/// Dead containers kept per name, the newest included: its logs and those of the one before can be read.
const KEEP: usize = 2;

/// What the pod is.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Its object, as last seen.
    pub pod: &'a core::Pod,
    /// The object is gone from the API server.
    pub removed: bool,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What we remember.
    pub memory: &'a Memory,
    /// Now.
    pub now: Timestamp,
}

/// The part a container plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next.
    Init,
    /// Runs beside, started in the order of init containers.
    Sidecar,
    /// The pod's purpose.
    Main,
}

/// Why a container is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The pod ends.
    PodEnds,
    /// A probe failed for good.
    Unhealthy(String),
    /// Its definition changed.
    Changed,
    /// Its sandbox is dead.
    SandboxDied,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put every volume in place.
    PrepareVolumes,
    /// Make a sandbox.
    RunSandbox {
        /// How many were before.
        attempt: u32,
    },
    /// Make and start a container in the sandbox.
    Start {
        /// Its name.
        name: String,
        /// The sandbox.
        sandbox: String,
        /// How many were before.
        attempt: u32,
        /// Its part.
        role: Role,
    },
    /// Stop a container, with its preStop hook.
    Kill {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// How long it may take.
        grace: Duration,
        /// Why.
        why: Why,
    },
    /// Remove a dead container.
    Remove {
        /// Its id.
        id: String,
    },
    /// Stop a sandbox.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Remove a dead sandbox.
    RemoveSandbox {
        /// Its id.
        id: String,
    },
    /// Nothing runs any more: clean up and let the object go.
    Finish,
}

/// What to do now, and when to look again at the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order; kills that follow each other at the same time.
    pub actions: Vec<Action>,
    /// When something is due by itself.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides.
pub fn decide(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    if situation.is_ending() {
        end(situation, &mut plan);
    } else if is_over(situation.pod, situation.observed) || has_ended(situation.pod) {
        rest(situation, &mut plan);
    } else {
        match deadline(situation.pod) {
            Some(deadline) if deadline <= situation.now => rest(situation, &mut plan),
            deadline => {
                keep_alive(situation, &mut plan);
                deadline.into_iter().for_each(|deadline| plan.wake_at(deadline));
            }
        }
    }
    plan
}

/// The containers of a pod in the order they start, with their parts.
pub fn containers(spec: &core::PodSpec) -> impl Iterator<Item = (&core::Container, Role)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (container, if sidecar { Role::Sidecar } else { Role::Init })
    });
    init.chain(spec.containers.iter().map(|container| (container, Role::Main)))
}

/// Is the API server's record of this pod final?
pub fn has_ended(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Has every main container, or an init container for all, come to an end that stays?
pub fn is_over(pod: &core::Pod, observed: &Observed) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init_failed = containers(spec).any(|(container, role)| {
        role == Role::Init
            && spec.restart_policy.as_deref() == Some("Never")
            && observed.latest(&container.name).and_then(Container::exit_code).is_some_and(|code| code != 0)
    });
    init_failed
        || spec.containers.iter().all(|container| {
            observed
                .latest(&container.name)
                .and_then(Container::exit_code)
                .is_some_and(|code| !restarts(spec, Role::Main, code))
        })
}

/// When `activeDeadlineSeconds` ends the pod.
pub fn deadline(pod: &core::Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?;
    Some(started.0 + SignedDuration::from_secs(seconds))
}

/// Is a container with this exit code started again?
pub fn restarts(spec: &core::PodSpec, role: Role, code: i32) -> bool {
    match (role, spec.restart_policy.as_deref()) {
        (Role::Sidecar, _) => true,
        (Role::Init, Some("Never")) => false,
        (Role::Init, _) => code != 0,
        (Role::Main, Some("Never")) => false,
        (Role::Main, Some("OnFailure")) => code != 0,
        (Role::Main, _) => true,
    }
}

impl Situation<'_> {
    /// Is the pod to end?
    pub fn is_ending(&self) -> bool {
        self.removed || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// What is left of the grace period.
    pub fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        let seconds = asked.or(spec).unwrap_or(DEFAULT_GRACE);
        let elapsed = self.memory.ending.map_or(0, |began| self.now.duration_since(began).as_secs());
        // Never less than a second: even a pod that is forced away may close its files.
        Duration::from_secs(u64::try_from(seconds - elapsed).unwrap_or(0).max(1))
    }
}

fn end(situation: &Situation<'_>, plan: &mut Plan) {
    let observed = situation.observed;
    let sidecars: Vec<&str> = situation
        .pod
        .spec
        .iter()
        .flat_map(containers)
        .filter(|(_, role)| *role == Role::Sidecar)
        .map(|(container, _)| container.name.as_str())
        .collect();
    let kill = |container: &Container| Action::Kill {
        id: container.id.clone(),
        name: container.name.clone(),
        grace: situation.grace(),
        why: Why::PodEnds,
    };
    let mains: Vec<Action> =
        observed.running().filter(|c| !sidecars.contains(&c.name.as_str())).map(kill).collect();
    if !mains.is_empty() {
        plan.actions = mains;
        return;
    }
    let last = sidecars.iter().rev().find_map(|name| observed.running().find(|c| c.name == *name));
    if let Some(sidecar) = last.or_else(|| observed.running().next()) {
        plan.actions.push(kill(sidecar));
        return;
    }
    let up: Vec<Action> = stop_sandboxes(observed.sandboxes.iter());
    plan.actions = if up.is_empty() { vec![Action::Finish] } else { up };
}

/// The pod is over but its object stays: logs can be read, nothing runs.
fn rest(situation: &Situation<'_>, plan: &mut Plan) {
    for container in situation.observed.running() {
        plan.actions.push(Action::Kill {
            id: container.id.clone(),
            name: container.name.clone(),
            grace: situation.grace(),
            why: Why::PodEnds,
        });
    }
    if plan.actions.is_empty() {
        plan.actions = stop_sandboxes(situation.observed.sandboxes.iter());
    }
    clean(situation.observed, plan);
}

fn stop_sandboxes<'a>(sandboxes: impl Iterator<Item = &'a Sandbox>) -> Vec<Action> {
    sandboxes
        .filter(|sandbox| sandbox.ready)
        .map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() })
        .collect()
}

fn keep_alive(situation: &Situation<'_>, plan: &mut Plan) {
    let (observed, memory) = (situation.observed, situation.memory);
    let Some(sandbox) = observed.sandbox() else {
        for container in observed.running() {
            plan.actions.push(Action::Kill {
                id: container.id.clone(),
                name: container.name.clone(),
                grace: situation.grace(),
                why: Why::SandboxDied,
            });
        }
        plan.actions.extend(stop_sandboxes(observed.sandboxes.iter()));
        match &memory.sandbox {
            Some(hindrance) if hindrance.retry > situation.now => plan.wake_at(hindrance.retry),
            _ => {
                if !memory.volumes {
                    plan.actions.push(Action::PrepareVolumes);
                }
                let attempt = observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
                plan.actions.push(Action::RunSandbox { attempt });
            }
        }
        return;
    };
    if !memory.volumes {
        // After a restart of ours: what updates volumes has to know them again.
        plan.actions.push(Action::PrepareVolumes);
    }
    plan.actions.extend(stop_sandboxes(observed.sandboxes.iter().filter(|other| other.id != sandbox.id)));
    advance(situation, sandbox, plan);
    clean(observed, plan);
}

/// Goes through the containers in order up to the first that holds the others up.
fn advance(situation: &Situation<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    let Some(spec) = &situation.pod.spec else { return };
    let begun =
        spec.containers.iter().any(|main| situation.observed.latest_in(&sandbox.id, &main.name).is_some());
    for (container, role) in containers(spec) {
        // Records of init containers may have been removed once the main ones have begun.
        if role == Role::Init && begun {
            continue;
        }
        let step = step(situation, sandbox, container, role, plan);
        if role != Role::Main && !step.passes && !begun {
            return;
        }
    }
}

struct Step {
    /// May the next container start?
    passes: bool,
}

fn step(
    situation: &Situation<'_>,
    sandbox: &Sandbox,
    container: &core::Container,
    role: Role,
    plan: &mut Plan,
) -> Step {
    let (observed, memory) = (situation.observed, situation.memory);
    let Some(latest) = observed.latest_in(&sandbox.id, &container.name) else {
        start(situation, sandbox, container, role, plan);
        return Step { passes: false };
    };
    match &latest.state {
        State::Created | State::Unknown => {
            plan.actions.push(Action::Remove { id: latest.id.clone() });
            start(situation, sandbox, container, role, plan);
            Step { passes: false }
        }
        State::Running { .. } => {
            let verdicts = memory.verdicts.get(&latest.id);
            let why = if let Some(reason) = verdicts.and_then(|verdicts| verdicts.unhealthy.clone()) {
                Some(Why::Unhealthy(reason))
            } else if latest.hash != names::hash(container) {
                Some(Why::Changed)
            } else {
                None
            };
            if let Some(why) = why {
                plan.actions.push(kill_one(situation, container, latest, why));
            }
            let started = verdicts.is_some_and(|verdicts| verdicts.started);
            Step { passes: role == Role::Sidecar && started }
        }
        State::Exited { code, finished, .. } => {
            let spec = situation.pod.spec.as_ref();
            if !spec.is_some_and(|spec| restarts(spec, role, *code)) {
                return Step { passes: *code == 0 };
            }
            match memory.backoff.get(&container.name) {
                Some(Backoff { delay, .. }) if *finished + *delay > situation.now => {
                    plan.wake_at(*finished + *delay);
                }
                _ => start(situation, sandbox, container, role, plan),
            }
            Step { passes: false }
        }
    }
}

fn kill_one(situation: &Situation<'_>, spec: &core::Container, latest: &Container, why: Why) -> Action {
    let of_probe = match &why {
        Why::Unhealthy(_) => {
            spec.liveness_probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds)
        }
        _ => None,
    };
    let of_pod = situation.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = of_probe.or(of_pod).unwrap_or(DEFAULT_GRACE);
    Action::Kill {
        id: latest.id.clone(),
        name: latest.name.clone(),
        grace: Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)),
        why,
    }
}

fn start(
    situation: &Situation<'_>,
    sandbox: &Sandbox,
    container: &core::Container,
    role: Role,
    plan: &mut Plan,
) {
    match situation.memory.hindrances.get(&container.name) {
        Some(hindrance) if hindrance.retry > situation.now => plan.wake_at(hindrance.retry),
        _ => plan.actions.push(Action::Start {
            name: container.name.clone(),
            sandbox: sandbox.id.clone(),
            attempt: next_attempt(situation, &container.name),
            role,
        }),
    }
}

/// Where the runtime has forgotten a container, as after a restart of the machine, the API server still knows the count.
fn next_attempt(situation: &Situation<'_>, name: &str) -> u32 {
    let status = situation.pod.status.iter();
    let mut known = status.flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let told = known
        .find(|status| status.name == name && status.container_id.is_some())
        .and_then(|status| u32::try_from(status.restart_count).ok())
        .map(|count| count + 1);
    match situation.observed.latest(name) {
        Some(latest) => latest.attempt + 1,
        None => told.unwrap_or(0),
    }
}

/// Old containers and sandboxes go once newer ones are there.
fn clean(observed: &Observed, plan: &mut Plan) {
    let mut seen: Vec<&str> = Vec::new();
    for container in &observed.containers {
        seen.push(&container.name);
        let nth = seen.iter().filter(|name| **name == container.name).count();
        if nth > KEEP && !container.is_running() {
            plan.actions.push(Action::Remove { id: container.id.clone() });
        }
    }
    for sandbox in observed.sandboxes.iter().skip(1) {
        let used = observed.containers.iter().any(|container| container.sandbox == sandbox.id);
        if !sandbox.ready && !used {
            plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
