//! Pods and what was observed of them, and the status that follows.

use std::sync::LazyLock;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::pods::memory::{Backoff, Hindrance, Memory, Verdicts, Waits};
use crate::pods::observed::{Observed, Sandbox};

static NOW: LazyLock<Timestamp> = LazyLock::new(|| Timestamp::from_second(1_000).unwrap());

fn pod(spec: Value) -> core::Pod {
    let mut whole = json!({ "containers": [{ "name": "a", "image": "i" }], "restartPolicy": "Always" });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata = json!({ "name": "p", "namespace": "n", "uid": "u", "generation": 3 });
    serde_json::from_value(json!({ "metadata": metadata, "spec": whole })).unwrap()
}

fn container(attempt: u32, state: State) -> Container {
    Container {
        id: format!("a{attempt}"),
        name: "a".into(),
        attempt,
        sandbox: "s".into(),
        state,
        image: "i".into(),
        image_ref: "sha256:0".into(),
        hash: String::new(),
        created: *NOW,
    }
}

fn running(attempt: u32) -> Container {
    container(attempt, State::Running { started: *NOW })
}

fn exited(attempt: u32, code: i32) -> Container {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let state =
        State::Exited { started: *NOW, finished: *NOW, code, reason: reason.into(), message: String::new() };
    container(attempt, state)
}

fn observed(containers: Vec<Container>) -> Observed {
    let addresses = vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
    let sandbox = Sandbox { id: "s".into(), attempt: 0, ready: true, created: *NOW, addresses };
    Observed { sandboxes: vec![sandbox], containers }
}

fn verdicts(id: &str, started: bool, ready: bool) -> Memory {
    let verdicts = Verdicts { started, ready, unhealthy: None };
    Memory { verdicts: [(id.to_owned(), verdicts)].into(), ..Memory::default() }
}

fn compute(pod: &core::Pod, observed: &Observed, memory: &Memory, later: i64) -> core::PodStatus {
    let now = *NOW + SignedDuration::from_secs(later);
    let situation = Situation { pod, removed: false, observed, memory, now };
    status(&situation, "containerd", &["192.0.2.1".parse().unwrap()])
}

/// Phase, state of the container, and the conditions that hold.
fn words(status: &core::PodStatus) -> String {
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let state = container.state.as_ref().unwrap();
    let word = match (&state.waiting, &state.running, &state.terminated) {
        (Some(waiting), ..) => waiting.reason.clone().unwrap(),
        (_, Some(_), _) => "running".to_owned(),
        (_, _, Some(terminated)) => format!("terminated {}", terminated.exit_code),
        _ => "?".to_owned(),
    };
    let holding = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let holding: Vec<&str> = holding.map(|condition| condition.type_.as_str()).collect();
    format!("{} | {word} | {}", status.phase.as_deref().unwrap(), holding.join(" "))
}

#[test]
fn each_stage_of_a_life_has_its_status() {
    let always = pod(json!({}));
    let never = pod(json!({ "restartPolicy": "Never" }));
    let mut backing_off = Memory::default();
    backing_off.backoff.insert("a".into(), Backoff { delay: SignedDuration::from_secs(10), set: *NOW });
    let mut hindered = Memory::default();
    let hindrance = Hindrance::new(None, Waits::IMAGE, "ErrImagePull", "no".into(), *NOW);
    hindered.hindrances.insert("a".into(), hindrance);
    let none = Memory::default();
    let scheduled = "PodScheduled";
    for (name, pod, observed, memory, want) in [
        (
            "nothing yet",
            &always,
            Observed::default(),
            &none,
            format!("Pending | ContainerCreating | Initialized {scheduled}"),
        ),
        (
            "a sandbox",
            &always,
            observed(vec![]),
            &none,
            format!("Pending | ContainerCreating | PodReadyToStartContainers Initialized {scheduled}"),
        ),
        (
            "no image",
            &always,
            observed(vec![]),
            &hindered,
            format!("Pending | ErrImagePull | PodReadyToStartContainers Initialized {scheduled}"),
        ),
        (
            "runs, not ready",
            &always,
            observed(vec![running(0)]),
            &verdicts("a0", true, false),
            format!("Running | running | PodReadyToStartContainers Initialized {scheduled}"),
        ),
        (
            "ready",
            &always,
            observed(vec![running(0)]),
            &verdicts("a0", true, true),
            format!(
                "Running | running | PodReadyToStartContainers Initialized Ready ContainersReady {scheduled}"
            ),
        ),
        (
            "crashed",
            &always,
            observed(vec![exited(1, 1), exited(0, 1)]),
            &backing_off,
            format!("Running | CrashLoopBackOff | PodReadyToStartContainers Initialized {scheduled}"),
        ),
        (
            "succeeded",
            &never,
            observed(vec![exited(0, 0)]),
            &none,
            format!("Succeeded | terminated 0 | PodReadyToStartContainers Initialized {scheduled}"),
        ),
        (
            "failed",
            &never,
            observed(vec![exited(0, 2)]),
            &none,
            format!("Failed | terminated 2 | PodReadyToStartContainers Initialized {scheduled}"),
        ),
    ] {
        assert_eq!(words(&compute(pod, &observed, memory, 1)), want, "{name}");
    }
}

#[test]
fn a_crash_loop_shows_the_last_end_and_the_wait() {
    let mut memory = Memory::default();
    memory.backoff.insert("a".into(), Backoff { delay: SignedDuration::from_secs(10), set: *NOW });
    let status = compute(&pod(json!({})), &observed(vec![exited(1, 7), exited(0, 1)]), &memory, 1);
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.restart_count, 1);
    assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 7);
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p"));
}

#[test]
fn what_has_not_changed_keeps_its_time_and_what_others_wrote_stays() {
    let mut pod = pod(json!({}));
    let first = compute(&pod, &observed(vec![running(0)]), &verdicts("a0", true, false), 0);
    let mut known = first.clone();
    let foreign = core::PodCondition { type_: "Foreign".into(), status: "True".into(), ..Default::default() };
    known.conditions.as_mut().unwrap().push(foreign.clone());
    pod.status = Some(known);
    let second = compute(&pod, &observed(vec![running(0)]), &verdicts("a0", true, true), 5);
    let since = |status: &core::PodStatus, kind: &str| {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        condition.last_transition_time.as_ref().unwrap().0.as_second()
    };
    assert_eq!((since(&second, "Initialized"), since(&second, "Ready")), (1_000, 1_005));
    assert!(second.conditions.as_ref().unwrap().contains(&foreign));
    assert_eq!(second.start_time, first.start_time);
    assert_eq!(second.observed_generation, Some(3));
    let ips: Vec<String> = second.pod_ips.unwrap().into_iter().map(|ip| ip.ip).collect();
    assert_eq!(
        (ips, second.host_ip.as_deref()),
        (vec!["10.0.0.9".into(), "fd00::9".into()], Some("192.0.2.1"))
    );
}

#[test]
fn a_status_that_is_final_is_not_computed_anew() {
    let mut pod = pod(json!({ "restartPolicy": "Never" }));
    let last = compute(&pod, &observed(vec![exited(0, 2)]), &Memory::default(), 0);
    pod.status = Some(last.clone());
    let after = compute(&pod, &Observed::default(), &Memory::default(), 60);
    assert_eq!(after.phase, last.phase);
    assert_eq!(after.container_statuses, last.container_statuses);
}

#[test]
fn a_container_the_runtime_has_lost_counts_as_restarted() {
    let mut pod = pod(json!({}));
    pod.status = Some(compute(&pod, &observed(vec![running(2)]), &verdicts("a2", true, true), 0));
    let lost = compute(&pod, &Observed::default(), &Memory::default(), 9);
    let container = &lost.container_statuses.as_ref().unwrap()[0];
    assert_eq!((container.restart_count, container.ready), (2, false));
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
    pod.status = Some(lost);
    let again = compute(&pod, &Observed::default(), &Memory::default(), 10);
    assert_eq!(again, pod.status.clone().unwrap());
    let memory = Memory { volumes: true, ..Memory::default() };
    let observed = observed(vec![]);
    let situation = Situation { pod: &pod, removed: false, observed: &observed, memory: &memory, now: *NOW };
    let plan = decide::decide(&situation);
    assert!(matches!(&plan.actions[..], [decide::Action::Start { attempt: 3, .. }]), "{plan:?}");
}
