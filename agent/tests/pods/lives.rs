//! What a pod's worker does over a real runtime, case by case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::pods::worker::{Assignment, Worker};
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::notes::Notes;
use crate::runtime::{IMAGE, Runtime, container};

fn pod(name: &str, spec: Value) -> core::Pod {
    let mut whole = json!({
        "hostNetwork": true, "restartPolicy": "Always", "terminationGracePeriodSeconds": 3,
        "enableServiceLinks": false, "serviceAccountName": "default",
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
                      "labels": { "app": name } },
        "spec": whole,
    }))
    .unwrap()
}

struct Running {
    notes: Notes,
    assignments: watch::Sender<Assignment>,
    nudge: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    pod: core::Pod,
}

impl Running {
    fn start(runtime: &Runtime, notes: &Notes, pod: core::Pod) -> Self {
        notes.know(&pod);
        let assignment = Assignment { pod: Arc::new(pod.clone()), removed: false };
        let (assignments, inbox) = watch::channel(assignment);
        let nudge = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let worker = Worker::new(inbox, Arc::clone(&nudge), runtime.executor(notes));
        let task = tokio::spawn(worker.run(stop.clone()));
        Self { notes: notes.clone(), assignments, nudge, task, stop, pod }
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap()
    }

    /// The status once `good` holds of it.
    async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..300 {
            let status = self.notes.status(self.name());
            if good(&status) {
                return status;
            }
            self.nudge.notify_one();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {what}: {:#}\n{:#?}", self.notes.status(self.name()), self.notes.events());
    }

    fn delete(&self) {
        let mut pod = self.pod.clone();
        let now = k8s_openapi::jiff::Timestamp::now();
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        pod.metadata.deletion_grace_period_seconds = Some(3);
        self.assignments.send_replace(Assignment { pod: Arc::new(pod), removed: false });
    }

    async fn end(self) {
        self.delete();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap();
        assert!(self.notes.deleted().contains(&self.pod.metadata.name.clone().unwrap()));
    }
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn log(runtime: &Runtime, pod: &str, container: &str, attempt: u32) -> String {
    let path =
        runtime.folder.path().join(format!("agent/logs/default_{pod}_uid-{pod}/{container}/{attempt}.log"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_live_through_everything_a_kubelet_does() {
    let Some(runtime) = Runtime::start("lives") else { return };
    let notes = Notes::default();
    let runtime = &runtime;
    lives_and_ends(runtime, &notes).await;
    is_adopted_by_the_next_agent(runtime, &notes).await;
    tokio::join!(
        comes_up_in_order(runtime, &notes),
        crashes_and_backs_off(runtime, &notes),
        says_what_hinders_it(runtime, &notes),
        is_probed(runtime, &notes),
        runs_to_its_end(runtime, &notes),
        is_quoted(runtime, &notes),
        runs_as_its_class_says(runtime, &notes),
    );
    let left = std::fs::read_dir(runtime.folder.path().join("agent/pods")).unwrap().count();
    assert_eq!(left, 0, "folders of pods stay");
}

async fn lives_and_ends(runtime: &Runtime, notes: &Notes) {
    notes.put("secrets", "password", json!({ "data": { "word": "c2VzYW1l" } }));
    notes.put("configmaps", "settings", json!({ "data": { "color": "blue", "file": "hello" } }));
    let script = "echo $COLOR $GREETING; cat /settings/file /down/labels /password/word; grep ' /password ' /proc/mounts; ls /scratch; \
                  id -u; hostname; trap 'echo bye; exit 0' TERM; sleep 1000 & wait";
    let mut main = container("main", script);
    main["env"] = json!([
        { "name": "COLOR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "color" } } },
        { "name": "GREETING", "value": "hi-$(COLOR)" }]);
    main["volumeMounts"] = json!([
        { "name": "settings", "mountPath": "/settings" },
        { "name": "password", "mountPath": "/password" },
        { "name": "down", "mountPath": "/down" },
        { "name": "scratch", "mountPath": "/scratch" }]);
    main["resources"] = json!({ "limits": { "cpu": "500m", "memory": "64Mi" } });
    main["lifecycle"] =
        json!({ "postStart": { "exec": { "command": ["/bin/sh", "-c", "echo hooked > /scratch/hook"] } } });
    let pod = pod(
        "lives",
        json!({
            "containers": [main],
            "securityContext": { "runAsUser": 1000, "fsGroup": 2000 },
            "volumes": [
                { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "password", "secret": { "secretName": "password" } },
                { "name": "down", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
                { "name": "scratch", "emptyDir": { "medium": "Memory" } }],
        }),
    );
    let running = Running::start(runtime, notes, pod);
    let status = running.until("ready", is_ready).await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["qosClass"], "Guaranteed");
    assert_eq!(status["podIP"], "127.0.0.1");
    assert_eq!(status["containerStatuses"][0]["image"], IMAGE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let text = log(runtime, "lives", "main", 0);
    for part in ["blue hi-blue", "hello", "app=\"lives\"", "sesame", "tmpfs /password", "1000"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let scratch = runtime.folder.path().join("agent/pods/uid-lives/volumes/scratch/hook");
    assert_eq!(std::fs::read_to_string(scratch).unwrap(), "hooked\n");
    running.end().await;
    let status = notes.status("lives");
    assert_eq!(status["phase"], "Succeeded", "{status:#}");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    let reasons: Vec<String> =
        notes.events().iter().map(|e| e["reason"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reasons, ["Pulled", "Created", "Started", "Killing"]);
}

async fn is_adopted_by_the_next_agent(runtime: &Runtime, notes: &Notes) {
    let pod = pod("adopted", json!({ "containers": [container("main", "sleep 1000")] }));
    let running = Running::start(runtime, notes, pod.clone());
    let before = running.until("ready", is_ready).await;
    running.stop.cancel();
    running.task.await.unwrap();
    let mut known = pod;
    known.status = serde_json::from_value(before.clone()).unwrap();
    let writes = notes.writes("adopted");
    let running = Running::start(runtime, notes, known);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = notes.status("adopted");
    assert_eq!(before["containerStatuses"][0]["containerID"], after["containerStatuses"][0]["containerID"]);
    assert_eq!(notes.writes("adopted"), writes, "nothing changed, so nothing is to be said");
    running.end().await;
}

async fn comes_up_in_order(runtime: &Runtime, notes: &Notes) {
    let mut sidecar = container("side", "sleep 1000");
    sidecar["restartPolicy"] = json!("Always");
    let init = container("first", "echo first > /shared/order");
    let main = container("main", "cat /shared/order; sleep 1000");
    let mount = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let with_mount = |mut container: Value| {
        container["volumeMounts"] = mount.clone();
        container
    };
    let pod = pod(
        "order",
        json!({
        "initContainers": [with_mount(init), sidecar], "containers": [with_mount(main)],
        "volumes": [{ "name": "shared", "emptyDir": {} }] }),
    );
    let running = Running::start(runtime, notes, pod);
    let status = running.until("ready", is_ready).await;
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(status["initContainerStatuses"][1]["started"], true);
    assert!(log(runtime, "order", "main", 0).contains("first"));
    running.end().await;
}

async fn crashes_and_backs_off(runtime: &Runtime, notes: &Notes) {
    let mut main = container("main", "echo last words > /dev/termination-log; exit 3");
    main["terminationMessagePath"] = json!("/dev/termination-log");
    let running = Running::start(runtime, notes, pod("crash", json!({ "containers": [main] })));
    let status = running
        .until("backing off", |s| {
            s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let container = &status["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["lastState"]["terminated"]["message"], "last words\n");
    running.end().await;
    assert_eq!(notes.status("crash")["phase"], "Failed");
}

async fn is_quoted(runtime: &Runtime, notes: &Notes) {
    let mut quoted = container("main", "echo from the log; exit 1");
    quoted["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let spec = json!({ "restartPolicy": "Never", "containers": [quoted] });
    let running = Running::start(runtime, notes, pod("quoted", spec));
    let status = running.until("over", |status| status["phase"] == "Failed").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["message"], "from the log");
    running.end().await;
}

async fn says_what_hinders_it(runtime: &Runtime, notes: &Notes) {
    let waits = |reason: &'static str| {
        move |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    let mut absent = container("main", "true");
    absent["image"] = json!("localhost/absent:1");
    absent["imagePullPolicy"] = json!("Never");
    let never = Running::start(runtime, notes, pod("never", json!({ "containers": [absent] })));
    never.until("refused", waits("ErrImageNeverPull")).await;
    never.end().await;
    let mut unset = container("main", "true");
    unset["envFrom"] = json!([{ "configMapRef": { "name": "absent" } }]);
    let unset = Running::start(runtime, notes, pod("unset", json!({ "containers": [unset] })));
    let status = unset.until("refused", waits("CreateContainerConfigError")).await;
    let message = &status["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"absent\" not found");
    unset.end().await;
}

async fn runs_as_its_class_says(runtime: &Runtime, notes: &Notes) {
    notes.put("runtimeclasses", "usual", json!({ "handler": "runc" }));
    let spec =
        |class: &str| json!({ "runtimeClassName": class, "containers": [container("main", "sleep 600")] });
    let usual = Running::start(runtime, notes, pod("usual", spec("usual")));
    usual.until("ready", is_ready).await;
    usual.end().await;
    // The runtime has a handler of that name, but the cluster has no such class.
    let unknown = Running::start(runtime, notes, pod("unknown", spec("runc")));
    let told = |event: &Value| {
        event["involvedObject"]["name"] == "unknown" && event["reason"] == "FailedCreatePodSandBox"
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let message = loop {
        if let Some(event) = notes.events().iter().find(|event| told(event)) {
            break event["message"].clone();
        }
        assert!(Instant::now() < deadline, "nobody was told: {:?}", notes.events());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(message, "Failed to create pod sandbox: runtimeclass.node.k8s.io \"runc\" not found");
    unknown.end().await;
}

async fn is_probed(runtime: &Runtime, notes: &Notes) {
    let mut main = container("main", "touch /tmp/ready; sleep 2; touch /tmp/dead; sleep 1000");
    main["readinessProbe"] = json!({ "exec": { "command": ["cat", "/tmp/ready"] }, "periodSeconds": 1 });
    main["livenessProbe"] = json!({
        "exec": { "command": ["sh", "-c", "! test -e /tmp/dead"] }, "periodSeconds": 1, "failureThreshold": 2 });
    let running = Running::start(runtime, notes, pod("probed", json!({ "containers": [main] })));
    running.until("ready", is_ready).await;
    running.until("restarted", |s| s["containerStatuses"][0]["restartCount"] == 1).await;
    let unhealthy = notes.events().iter().any(|event| event["reason"] == "Unhealthy");
    assert!(unhealthy, "nobody was told");
    running.end().await;
}

async fn runs_to_its_end(runtime: &Runtime, notes: &Notes) {
    let spec = json!({ "restartPolicy": "Never", "containers": [container("main", "echo done")] });
    let running = Running::start(runtime, notes, pod("job", spec));
    let status = running.until("over", |status| status["phase"] == "Succeeded").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    running.end().await;
}
