//! Pods in every state, and what is done about them.

use std::sync::LazyLock;

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::pods::memory::{Hindrance, Verdicts, Waits};

static NOW: LazyLock<Timestamp> = LazyLock::new(|| Timestamp::from_second(1_000).unwrap());

fn pod(extra: serde_json::Value) -> core::Pod {
    let mut spec = json!({
        "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 7,
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u" }, "spec": spec })).unwrap()
}

fn deleted(mut pod: core::Pod) -> core::Pod {
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(*NOW));
    pod.metadata.deletion_grace_period_seconds = Some(7);
    pod
}

fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox { id: format!("s{attempt}"), attempt, ready, created: *NOW, addresses: Vec::new() }
}

fn container(name: &str, attempt: u32, state: State) -> Container {
    let definition = core::Container { name: name.into(), image: Some("i".into()), ..Default::default() };
    Container {
        id: format!("{name}{attempt}"),
        name: name.into(),
        attempt,
        sandbox: "s0".into(),
        state,
        image: "i".into(),
        image_ref: String::new(),
        hash: names::hash(&definition),
        created: *NOW,
    }
}

fn running(name: &str) -> Container {
    container(name, 0, State::Running { started: *NOW })
}

fn exited(name: &str, attempt: u32, code: i32) -> Container {
    let (reason, message) = (String::new(), String::new());
    container(name, attempt, State::Exited { started: *NOW, finished: *NOW, code, reason, message })
}

fn words(plan: &Plan) -> String {
    let word = |action: &Action| match action {
        Action::PrepareVolumes => "volumes".to_owned(),
        Action::RunSandbox { attempt } => format!("sandbox#{attempt}"),
        Action::Start { name, attempt, .. } => format!("start {name}#{attempt}"),
        Action::Kill { id, grace, .. } => format!("kill {id} {}s", grace.as_secs()),
        Action::Remove { id } => format!("remove {id}"),
        Action::StopSandbox { id } => format!("stop {id}"),
        Action::RemoveSandbox { id } => format!("remove {id}"),
        Action::Finish => "finish".to_owned(),
    };
    plan.actions.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn ready() -> Memory {
    Memory { volumes: true, ..Memory::default() }
}

fn healthy(mut memory: Memory, id: &str) -> Memory {
    memory.verdicts.insert(id.into(), Verdicts { started: true, ready: true, unhealthy: None });
    memory
}

struct Case {
    name: &'static str,
    pod: core::Pod,
    sandboxes: Vec<Sandbox>,
    containers: Vec<Container>,
    memory: Memory,
    want: &'static str,
}

fn check(cases: Vec<Case>) {
    for case in cases {
        let observed = Observed { sandboxes: case.sandboxes, containers: case.containers };
        let situation = Situation {
            pod: &case.pod,
            removed: false,
            observed: &observed,
            memory: &case.memory,
            now: *NOW,
        };
        assert_eq!(words(&decide(&situation)), case.want, "{}", case.name);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_pod_is_brought_up_in_order_and_kept_up() {
    let up = || vec![sandbox(0, true)];
    let init = || {
        pod(
            json!({ "initContainers": [{ "name": "i", "image": "i" }, { "name": "s", "image": "i", "restartPolicy": "Always" }] }),
        )
    };
    check(vec![
        Case {
            name: "nothing is there",
            pod: pod(json!({})),
            sandboxes: vec![],
            containers: vec![],
            memory: Memory::default(),
            want: "volumes, sandbox#0",
        },
        Case {
            name: "the sandbox is up",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![],
            memory: ready(),
            want: "start a#0, start b#0",
        },
        Case {
            name: "all run",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![running("a"), running("b")],
            memory: ready(),
            want: "",
        },
        Case {
            name: "one has exited",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![running("a"), exited("b", 0, 0)],
            memory: ready(),
            want: "start b#1",
        },
        Case {
            name: "one was made but not started",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![running("a"), container("b", 0, State::Created)],
            memory: ready(),
            want: "remove b0, start b#1",
        },
        Case {
            name: "the sandbox died",
            pod: pod(json!({})),
            sandboxes: vec![sandbox(0, false)],
            containers: vec![exited("a", 0, 1), running("b")],
            memory: ready(),
            want: "kill b0 7s, sandbox#1",
        },
        Case {
            name: "the second sandbox is fresh",
            pod: pod(json!({})),
            sandboxes: vec![sandbox(1, true), sandbox(0, false)],
            containers: vec![exited("a", 0, 1), exited("b", 0, 1)],
            memory: ready(),
            want: "start a#1, start b#1",
        },
        Case {
            name: "an old sandbox is still up",
            pod: pod(json!({})),
            sandboxes: vec![sandbox(1, true), sandbox(0, true)],
            containers: vec![],
            memory: ready(),
            want: "stop s0, start a#0, start b#0",
        },
        Case {
            name: "the first init container starts alone",
            pod: init(),
            sandboxes: up(),
            containers: vec![],
            memory: ready(),
            want: "start i#0",
        },
        Case {
            name: "a running init container holds the others up",
            pod: init(),
            sandboxes: up(),
            containers: vec![running("i")],
            memory: ready(),
            want: "",
        },
        Case {
            name: "a failed init container is tried again",
            pod: init(),
            sandboxes: up(),
            containers: vec![exited("i", 0, 1)],
            memory: ready(),
            want: "start i#1",
        },
        Case {
            name: "a sidecar follows",
            pod: init(),
            sandboxes: up(),
            containers: vec![exited("i", 0, 0)],
            memory: ready(),
            want: "start s#0",
        },
        Case {
            name: "a sidecar that has not started holds the others up",
            pod: init(),
            sandboxes: up(),
            containers: vec![running("s"), exited("i", 0, 0)],
            memory: ready(),
            want: "",
        },
        Case {
            name: "a started sidecar lets the others go",
            pod: init(),
            sandboxes: up(),
            containers: vec![running("s"), exited("i", 0, 0)],
            memory: healthy(ready(), "s0"),
            want: "start a#0, start b#0",
        },
        Case {
            name: "a sidecar that died is restarted beside the others",
            pod: init(),
            sandboxes: up(),
            containers: vec![running("a"), running("b"), exited("s", 0, 1)],
            memory: ready(),
            want: "start s#1",
        },
        Case {
            name: "the third dead container of a name goes",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![
                running("b"),
                container("a", 3, State::Running { started: *NOW }),
                exited("a", 2, 1),
                exited("a", 1, 1),
            ],
            memory: ready(),
            want: "remove a1",
        },
    ]);
}

#[test]
fn restart_policies_say_what_is_started_again_and_when_a_pod_is_over() {
    let up = || vec![sandbox(0, true)];
    let policy = |policy: &str| pod(json!({ "restartPolicy": policy }));
    check(vec![
        Case {
            name: "OnFailure, one succeeded, one failed",
            pod: policy("OnFailure"),
            sandboxes: up(),
            containers: vec![exited("a", 0, 0), exited("b", 0, 3)],
            memory: ready(),
            want: "start b#1",
        },
        Case {
            name: "OnFailure, both succeeded",
            pod: policy("OnFailure"),
            sandboxes: up(),
            containers: vec![exited("a", 0, 0), exited("b", 0, 0)],
            memory: ready(),
            want: "stop s0",
        },
        Case {
            name: "Never, one still runs",
            pod: policy("Never"),
            sandboxes: up(),
            containers: vec![exited("a", 0, 1), running("b")],
            memory: ready(),
            want: "",
        },
        Case {
            name: "Never, both ended",
            pod: policy("Never"),
            sandboxes: up(),
            containers: vec![exited("a", 0, 1), exited("b", 0, 0)],
            memory: ready(),
            want: "stop s0",
        },
        Case {
            name: "Never, over and stopped",
            pod: policy("Never"),
            sandboxes: vec![sandbox(0, false)],
            containers: vec![exited("a", 0, 1), exited("b", 0, 0)],
            memory: ready(),
            want: "",
        },
        Case {
            name: "Never, an init container failed",
            pod: pod(json!({ "restartPolicy": "Never", "initContainers": [{ "name": "i", "image": "i" }] })),
            sandboxes: up(),
            containers: vec![exited("i", 0, 1)],
            memory: ready(),
            want: "stop s0",
        },
    ]);
}

#[test]
fn what_failed_waits_and_what_is_sick_is_killed() {
    let up = || vec![sandbox(0, true)];
    let mut backing_off = ready();
    backing_off.backoff.insert("b".into(), Backoff { delay: SignedDuration::from_secs(10), set: *NOW });
    let mut hindered = ready();
    hindered
        .hindrances
        .insert("b".into(), Hindrance::new(None, Waits::IMAGE, "ErrImagePull", String::new(), *NOW));
    let mut sick = ready();
    sick.verdicts
        .insert("a0".into(), Verdicts { started: true, ready: false, unhealthy: Some("503".into()) });
    let changed =
        pod(json!({ "containers": [{ "name": "a", "image": "other" }, { "name": "b", "image": "i" }] }));
    check(vec![
        Case {
            name: "a crash loop waits",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![running("a"), exited("b", 1, 1)],
            memory: backing_off,
            want: "",
        },
        Case {
            name: "a failed pull waits",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![running("a")],
            memory: hindered,
            want: "",
        },
        Case {
            name: "a failed probe kills",
            pod: pod(json!({})),
            sandboxes: up(),
            containers: vec![running("a"), running("b")],
            memory: sick,
            want: "kill a0 7s",
        },
        Case {
            name: "another image kills",
            pod: changed,
            sandboxes: up(),
            containers: vec![running("a"), running("b")],
            memory: ready(),
            want: "kill a0 7s",
        },
    ]);
}

#[test]
fn a_deleted_pod_ends_in_order() {
    let up = || vec![sandbox(0, true)];
    let with_sidecars = || {
        deleted(pod(json!({ "initContainers": [
            { "name": "s", "image": "i", "restartPolicy": "Always" },
            { "name": "t", "image": "i", "restartPolicy": "Always" }] })))
    };
    let later = Memory { ending: Some(*NOW - SignedDuration::from_secs(5)), ..ready() };
    check(vec![
        Case {
            name: "all at once",
            pod: deleted(pod(json!({}))),
            sandboxes: up(),
            containers: vec![running("a"), running("b")],
            memory: ready(),
            want: "kill a0 7s, kill b0 7s",
        },
        Case {
            name: "the rest of the grace period",
            pod: deleted(pod(json!({}))),
            sandboxes: up(),
            containers: vec![running("a")],
            memory: later,
            want: "kill a0 2s",
        },
        Case {
            name: "sidecars after the others",
            pod: with_sidecars(),
            sandboxes: up(),
            containers: vec![running("a"), running("s"), running("t")],
            memory: ready(),
            want: "kill a0 7s",
        },
        Case {
            name: "the last sidecar first",
            pod: with_sidecars(),
            sandboxes: up(),
            containers: vec![running("s"), running("t")],
            memory: ready(),
            want: "kill t0 7s",
        },
        Case {
            name: "then the sandbox",
            pod: deleted(pod(json!({}))),
            sandboxes: up(),
            containers: vec![exited("a", 0, 0)],
            memory: ready(),
            want: "stop s0",
        },
        Case {
            name: "then it is done",
            pod: deleted(pod(json!({}))),
            sandboxes: vec![sandbox(0, false)],
            containers: vec![],
            memory: ready(),
            want: "finish",
        },
    ]);
}

#[test]
fn a_deadline_ends_the_pod_and_is_waited_for() {
    let mut pod = pod(json!({ "activeDeadlineSeconds": 60 }));
    let started = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(*NOW);
    pod.status = Some(core::PodStatus { start_time: Some(started), ..Default::default() });
    let observed =
        Observed { sandboxes: vec![sandbox(0, true)], containers: vec![running("a"), running("b")] };
    let memory = ready();
    let due = *NOW + SignedDuration::from_secs(60);
    let at =
        |now| decide(&Situation { pod: &pod, removed: false, observed: &observed, memory: &memory, now });
    assert_eq!(at(*NOW), Plan { actions: vec![], wake: Some(due) });
    assert_eq!(words(&at(due)), "kill a0 7s, kill b0 7s");
}
