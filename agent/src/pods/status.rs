//! What the API server is told of a pod: a pure function of the object, the runtime, our memory and the time.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{self, Role, Situation};
use super::observed::{Container, State};
use super::resources;

/// The conditions that are the node's to set; others are passed on.
const OURS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Computes the status.
pub fn status(situation: &Situation<'_>, runtime: &str, node_addresses: &[IpAddr]) -> core::PodStatus {
    let pod = situation.pod;
    let before = pod.status.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return before };
    let statuses = |wanted: fn(Role) -> bool| -> Vec<core::ContainerStatus> {
        decide::containers(spec)
            .filter(|(_, role)| wanted(*role))
            .map(|(container, role)| container_status(situation, container, role, runtime))
            .collect()
    };
    let init = statuses(|role| role != Role::Main);
    let main = statuses(|role| role == Role::Main);
    let (phase, reason, message) = phase(situation, spec, &before);
    let host_network = spec.host_network == Some(true);
    let addresses = match situation.observed.sandbox() {
        _ if host_network => node_addresses.to_vec(),
        Some(sandbox) => sandbox.addresses.clone(),
        None => Vec::new(),
    };
    let conditions = conditions(situation, spec, &before, &phase, (&init, &main));
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    core::PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(main),
        host_ip: node_addresses.first().map(ToString::to_string),
        host_ips: Some(node_addresses.iter().map(|ip| core::HostIP { ip: ip.to_string() }).collect()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        message,
        observed_generation: pod.metadata.generation,
        phase: Some(phase),
        pod_ip: texts.first().cloned(),
        pod_ips: (!texts.is_empty()).then(|| texts.into_iter().map(|ip| core::PodIP { ip }).collect()),
        qos_class: Some(resources::qos(spec).as_str().to_owned()),
        reason,
        start_time: before.start_time.clone().or(Some(Time(whole_second(situation.now)))),
        ..before
    }
}

/// Kubernetes' times have no fractions.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

type PhaseReasonMessage = (String, Option<String>, Option<String>);

fn phase(situation: &Situation<'_>, spec: &core::PodSpec, before: &core::PodStatus) -> PhaseReasonMessage {
    let plain = |phase: &str| (phase.to_owned(), None, None);
    if decide::has_ended(situation.pod) {
        return (before.phase.clone().unwrap_or_default(), before.reason.clone(), before.message.clone());
    }
    let observed = situation.observed;
    let nothing_runs = observed.running().next().is_none();
    let overdue = decide::deadline(situation.pod).is_some_and(|deadline| deadline <= situation.now);
    if overdue && nothing_runs && !situation.is_ending() {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        return ("Failed".to_owned(), Some("DeadlineExceeded".to_owned()), Some(message));
    }
    let codes: Vec<Option<i32>> =
        spec.containers.iter().map(|c| observed.latest(&c.name).and_then(Container::exit_code)).collect();
    let ended = situation.is_ending() && nothing_runs;
    if decide::is_over(situation.pod, observed) || ended {
        let good = codes.iter().all(|code| *code == Some(0));
        return plain(if good { "Succeeded" } else { "Failed" });
    }
    // A container that waits for its restart counts as begun.
    let begun = spec.containers.iter().any(|container| observed.latest(&container.name).is_some());
    plain(if begun { "Running" } else { "Pending" })
}

fn container_status(
    situation: &Situation<'_>,
    container: &core::Container,
    role: Role,
    runtime: &str,
) -> core::ContainerStatus {
    let (observed, memory) = (situation.observed, situation.memory);
    let mut records = observed.containers.iter().filter(|record| record.name == container.name);
    let latest = records.next();
    let previous = records.next();
    let Some(latest) = latest else {
        return unborn(situation, container, role);
    };
    let verdicts = memory.verdicts.get(&latest.id);
    let mut state = state_of(latest, runtime);
    let mut last_state = previous.map(|previous| state_of(previous, runtime));
    if let Some(waiting) = waiting(situation, container, role, latest) {
        last_state = Some(std::mem::replace(&mut state, waiting));
    }
    let done = latest.exit_code() == Some(0) && role == Role::Init;
    let running = latest.is_running();
    core::ContainerStatus {
        container_id: Some(format!("{runtime}://{}", latest.id)),
        image: if latest.image.is_empty() || latest.image.starts_with("sha256:") {
            container.image.clone().unwrap_or_default()
        } else {
            latest.image.clone()
        },
        image_id: latest.image_ref.clone(),
        last_state,
        name: container.name.clone(),
        ready: done || (running && verdicts.is_some_and(|verdicts| verdicts.ready)),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        started: Some(running && verdicts.is_some_and(|verdicts| verdicts.started)),
        state: Some(state),
        ..core::ContainerStatus::default()
    }
}

/// A container without a record: not made yet, or made so long ago that only the API server remembers.
fn unborn(situation: &Situation<'_>, container: &core::Container, role: Role) -> core::ContainerStatus {
    let before = situation.pod.status.as_ref();
    let list = match role {
        Role::Main => before.and_then(|status| status.container_statuses.as_ref()),
        Role::Init | Role::Sidecar => before.and_then(|status| status.init_container_statuses.as_ref()),
    };
    let known = list.into_iter().flatten().find(|status| status.name == container.name);
    if let Some(known) = known
        && known.state.as_ref().is_some_and(|state| state.terminated.is_some())
    {
        return known.clone();
    }
    let hindrance = situation.memory.hindrances.get(&container.name);
    let initializing = role == Role::Main
        && situation.pod.spec.as_ref().is_some_and(|spec| spec.init_containers.is_some())
        && situation.observed.sandbox().is_some();
    let usual = if initializing { "PodInitializing" } else { "ContainerCreating" };
    let waiting = core::ContainerStateWaiting {
        reason: Some(hindrance.map_or(usual, |hindrance| &hindrance.reason).to_owned()),
        message: hindrance.map(|hindrance| hindrance.message.clone()),
    };
    let before = known.filter(|known| known.container_id.is_some());
    core::ContainerStatus {
        container_id: before.and_then(|known| known.container_id.clone()),
        image: container.image.clone().unwrap_or_default(),
        last_state: before.map(lost),
        name: container.name.clone(),
        started: Some(false),
        state: Some(core::ContainerState { waiting: Some(waiting), ..Default::default() }),
        restart_count: before.map_or(0, |known| known.restart_count),
        ..core::ContainerStatus::default()
    }
}

/// The end of a container nobody saw end: the machine was restarted, or the runtime lost it.
fn lost(known: &core::ContainerStatus) -> core::ContainerState {
    match &known.state {
        Some(state) if state.running.is_some() => core::ContainerState {
            terminated: Some(core::ContainerStateTerminated {
                container_id: known.container_id.clone(),
                exit_code: 137,
                message: Some("The container could not be located when the pod was looked at".to_owned()),
                reason: Some("ContainerStatusUnknown".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        _ => known.last_state.clone().unwrap_or_default(),
    }
}

/// The waiting state of a container that has ended and is to be started again, but not now.
fn waiting(
    situation: &Situation<'_>,
    container: &core::Container,
    role: Role,
    latest: &Container,
) -> Option<core::ContainerState> {
    let State::Exited { finished, code, .. } = latest.state else { return None };
    let spec = situation.pod.spec.as_ref()?;
    if situation.is_ending() || !decide::restarts(spec, role, code) || decide::has_ended(situation.pod) {
        return None;
    }
    let waiting = if let Some(hindrance) = situation.memory.hindrances.get(&container.name) {
        core::ContainerStateWaiting {
            reason: Some(hindrance.reason.clone()),
            message: Some(hindrance.message.clone()),
        }
    } else {
        let backoff = situation.memory.backoff.get(&container.name)?;
        if finished + backoff.delay <= situation.now {
            return None;
        }
        core::ContainerStateWaiting {
            reason: Some("CrashLoopBackOff".to_owned()),
            message: Some(format!(
                "back-off {}s restarting failed container={} pod={}",
                backoff.delay.as_secs(),
                container.name,
                situation.pod.metadata.name.as_deref().unwrap_or_default()
            )),
        }
    };
    Some(core::ContainerState { waiting: Some(waiting), ..Default::default() })
}

fn state_of(container: &Container, runtime: &str) -> core::ContainerState {
    let time = |at: Timestamp| (at > Timestamp::UNIX_EPOCH).then(|| Time(whole_second(at)));
    match &container.state {
        State::Created | State::Unknown => core::ContainerState {
            waiting: Some(core::ContainerStateWaiting {
                reason: Some("ContainerCreating".to_owned()),
                message: None,
            }),
            ..Default::default()
        },
        State::Running { started } => core::ContainerState {
            running: Some(core::ContainerStateRunning { started_at: time(*started) }),
            ..Default::default()
        },
        State::Exited { started, finished, code, reason, message } => core::ContainerState {
            terminated: Some(core::ContainerStateTerminated {
                container_id: Some(format!("{runtime}://{}", container.id)),
                exit_code: *code,
                finished_at: time(*finished),
                message: (!message.is_empty()).then(|| message.clone()),
                reason: (!reason.is_empty()).then(|| reason.clone()),
                signal: None,
                started_at: time(*started),
            }),
            ..Default::default()
        },
    }
}

type Statuses<'a> = (&'a [core::ContainerStatus], &'a [core::ContainerStatus]);

fn conditions(
    situation: &Situation<'_>,
    spec: &core::PodSpec,
    before: &core::PodStatus,
    phase: &str,
    (init, main): Statuses<'_>,
) -> Vec<core::PodCondition> {
    let over = matches!(phase, "Succeeded" | "Failed");
    let unready: Vec<&str> =
        main.iter().filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    let begun = main.iter().any(|status| status.container_id.is_some());
    let waiting: Vec<&str> = decide::containers(spec)
        .filter(|(_, role)| *role != Role::Main)
        .zip(init)
        .filter(|((_, role), status)| match role {
            Role::Sidecar => status.started != Some(true),
            Role::Init | Role::Main => !status.ready,
        })
        .map(|((container, _), _)| container.name.as_str())
        .collect();
    let containers_ready = unready.is_empty() && !over;
    let gates = gates_missing(spec, before);
    let because = |ok: bool, reason: &str, message: String| {
        if ok { (true, None, None) } else { (false, Some(reason.to_owned()), Some(message)) }
    };
    let unready_message = format!("containers with unready status: [{}]", unready.join(" "));
    let not_ready = match phase {
        "Succeeded" => (false, Some("PodCompleted".to_owned()), None),
        "Failed" => (false, Some("PodFailed".to_owned()), None),
        _ => because(containers_ready, "ContainersNotReady", unready_message),
    };
    let ready = if not_ready.0 && !gates.is_empty() {
        because(
            false,
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {gates:?} does not exist."),
        )
    } else {
        not_ready.clone()
    };
    let initialized = if over && phase == "Succeeded" {
        (true, Some("PodCompleted".to_owned()), None)
    } else {
        because(
            waiting.is_empty() || begun,
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", waiting.join(" ")),
        )
    };
    let network = (situation.observed.sandbox().is_some(), None, None);
    let verdicts = [network, initialized, ready, not_ready, (true, None, None)];
    let mut conditions: Vec<core::PodCondition> = before
        .conditions
        .iter()
        .flatten()
        .filter(|known| !OURS.contains(&known.type_.as_str()))
        .cloned()
        .collect();
    for (kind, (holds, reason, message)) in OURS.into_iter().zip(verdicts) {
        let value = if holds { "True" } else { "False" };
        let known = before.conditions.iter().flatten().find(|known| known.type_ == kind);
        let since = known
            .filter(|known| known.status == value)
            .and_then(|known| known.last_transition_time.clone())
            .unwrap_or_else(|| Time(whole_second(situation.now)));
        conditions.push(core::PodCondition {
            last_probe_time: None,
            last_transition_time: Some(since),
            message,
            observed_generation: situation.pod.metadata.generation,
            reason,
            status: value.to_owned(),
            type_: kind.to_owned(),
        });
    }
    conditions
}

fn gates_missing<'a>(spec: &'a core::PodSpec, before: &core::PodStatus) -> Vec<&'a str> {
    let holds = |kind: &str| {
        before.conditions.iter().flatten().any(|known| known.type_ == kind && known.status == "True")
    };
    let gates = spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
    gates.filter(|kind| !holds(kind)).collect()
}

#[cfg(test)]
mod tests;
