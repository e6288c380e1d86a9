//! The loop: watches pods and nodes, runs cycles, binds beside it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as WatchEvent};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Cluster, Demand, NodeChange};
use crate::cycle::{Rejection, decide};
use crate::objects::{Node, Pod};
use crate::queue::Queue;
use crate::verdict::Event;

/// Bindings that wait for their answer.
const BINDINGS: usize = 256;

/// Which pods are ours.
#[derive(Debug, Clone)]
pub struct Config {
    /// `spec.schedulerName` of the pods to place.
    pub name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: "default-scheduler".to_owned() }
    }
}

/// Why the scheduler ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}

/// Schedules until `stop` is cancelled. Survives an API server that is away.
pub async fn run(client: Client, config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let pods = watcher::watcher(
        Api::<Pod>::all_with(client.clone(), &()),
        watcher::Config::default().any_semantic(),
    );
    let nodes = watcher::watcher(
        Api::<Node>::all_with(client.clone(), &()),
        watcher::Config::default().any_semantic(),
    );
    let mut pods = std::pin::pin!(pods.default_backoff());
    let mut nodes = std::pin::pin!(nodes.default_backoff());
    let (failures, mut failed) = mpsc::channel(BINDINGS);
    let mut scheduler = Scheduler::new(client, config, failures);
    loop {
        let rest = scheduler.rest();
        tokio::select! {
            () = stop.cancelled() => break,
            event = pods.next() => match event.ok_or(RunError::WatchEnded("pods"))? {
                Ok(event) => scheduler.pod_event(event),
                Err(error) => tracing::debug!(%error, "the watch of pods broke and is started again"),
            },
            event = nodes.next() => match event.ok_or(RunError::WatchEnded("nodes"))? {
                Ok(event) => scheduler.node_event(event),
                Err(error) => tracing::debug!(%error, "the watch of nodes broke and is started again"),
            },
            Some(failure) = failed.recv() => scheduler.binding_failed(failure),
            () = tokio::time::sleep(rest) => {}
        }
        scheduler.cycles();
    }
    scheduler.bindings.close();
    scheduler.bindings.wait().await;
    Ok(())
}

/// A binding the API server refused.
struct Failure {
    pod: Pod,
    attempts: u32,
}

struct Scheduler {
    client: Client,
    config: Config,
    began: Instant,
    cluster: Cluster,
    queue: Queue,
    /// Uids by namespace and name, to notice what a new list no longer holds.
    known: HashMap<(String, String), String>,
    listed: HashSet<(String, String)>,
    known_nodes: HashSet<String>,
    listed_nodes: HashSet<String>,
    pods_synced: bool,
    nodes_synced: bool,
    turn: usize,
    bindings: TaskTracker,
    failures: mpsc::Sender<Failure>,
}

impl Scheduler {
    fn new(client: Client, config: Config, failures: mpsc::Sender<Failure>) -> Self {
        Self {
            client,
            config,
            began: Instant::now(),
            cluster: Cluster::default(),
            queue: Queue::default(),
            known: HashMap::new(),
            listed: HashSet::new(),
            known_nodes: HashSet::new(),
            listed_nodes: HashSet::new(),
            pods_synced: false,
            nodes_synced: false,
            turn: 0,
            bindings: TaskTracker::new(),
            failures,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long nothing is to do unless something happens.
    fn rest(&self) -> Duration {
        let due = self.queue.next_due().map_or(Duration::from_secs(60), |due| due.saturating_sub(self.now()));
        due.max(Duration::from_millis(1))
    }

    fn pod_event(&mut self, event: WatchEvent<Pod>) {
        match event {
            WatchEvent::Init => self.listed.clear(),
            WatchEvent::InitApply(pod) => {
                self.listed.insert(key(&pod.metadata));
                self.set_pod(pod);
            }
            WatchEvent::InitDone => {
                let gone: Vec<_> =
                    self.known.keys().filter(|key| !self.listed.contains(*key)).cloned().collect();
                gone.iter().for_each(|key| self.remove_pod(key));
                self.pods_synced = true;
            }
            WatchEvent::Apply(pod) => self.set_pod(pod),
            WatchEvent::Delete(pod) => self.remove_pod(&key(&pod.metadata)),
        }
    }

    fn set_pod(&mut self, mut pod: Pod) {
        pod.metadata.managed_fields = None;
        let key = key(&pod.metadata);
        let uid = pod.uid().to_owned();
        if self.known.get(&key).is_some_and(|known| *known != uid) {
            self.remove_pod(&key);
        }
        self.known.insert(key, uid.clone());
        if pod.is_finished() {
            self.queue.remove(&uid);
            if self.cluster.forget(&uid) {
                self.queue.happened(Event::PodGone, self.now());
            }
        } else if let Some(node) = &pod.spec.node_name {
            self.queue.remove(&uid);
            self.cluster.place(&uid, node, Demand::of(&pod));
        } else if pod.is_waiting(&self.config.name) {
            // An assumed pod is on its way: the watch has not seen its binding yet.
            if !self.cluster.holds(&uid) {
                self.queue.set(pod);
            }
        } else {
            self.queue.remove(&uid);
        }
    }

    fn remove_pod(&mut self, key: &(String, String)) {
        let Some(uid) = self.known.remove(key) else { return };
        self.queue.remove(&uid);
        if self.cluster.forget(&uid) {
            self.queue.happened(Event::PodGone, self.now());
        }
    }

    fn node_event(&mut self, event: WatchEvent<Node>) {
        match event {
            WatchEvent::Init => self.listed_nodes.clear(),
            WatchEvent::InitApply(node) => {
                self.listed_nodes.extend(node.metadata.name.clone());
                self.set_node(&node);
            }
            WatchEvent::InitDone => {
                let gone: Vec<_> = self.known_nodes.difference(&self.listed_nodes).cloned().collect();
                for name in gone {
                    self.remove_node(&name);
                }
                self.nodes_synced = true;
            }
            WatchEvent::Apply(node) => self.set_node(&node),
            WatchEvent::Delete(node) => self.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn set_node(&mut self, node: &Node) {
        self.known_nodes.extend(node.metadata.name.clone());
        let event = match self.cluster.set_node(node) {
            NodeChange::Added => Event::NodeAdded,
            NodeChange::Changed => Event::NodeChanged,
            NodeChange::None => return,
        };
        self.queue.happened(event, self.now());
    }

    fn remove_node(&mut self, name: &str) {
        self.known_nodes.remove(name);
        self.cluster.remove_node(name);
    }

    fn binding_failed(&mut self, Failure { pod, attempts }: Failure) {
        let now = self.now();
        self.cluster.forget(pod.uid());
        // A pod deleted meanwhile was refused for that very reason.
        if self.known.get(&key(&pod.metadata)).is_some_and(|uid| uid == pod.uid()) {
            self.queue.failed(pod, attempts, now);
        }
    }

    /// Places every pod that is due, once both kinds have been listed.
    fn cycles(&mut self) {
        if !self.pods_synced || !self.nodes_synced {
            return;
        }
        while let Some((pod, attempts)) = self.queue.take(self.now()) {
            let demand = Demand::of(&pod);
            match decide(&pod, &demand, &self.cluster, self.turn) {
                Ok(node) => {
                    self.turn = self.turn.wrapping_add(1);
                    self.cluster.place(pod.uid(), &node, demand);
                    self.bind(pod, node, attempts);
                }
                Err(rejection) => {
                    self.tell_rejected(&pod, &rejection);
                    let now = self.now();
                    self.queue.rejected(pod, attempts, rejection.plugins, now);
                }
            }
        }
    }

    fn bind(&self, pod: Pod, node: String, attempts: u32) {
        let (client, failures, component) =
            (self.client.clone(), self.failures.clone(), self.config.name.clone());
        self.bindings.spawn(async move {
            let (namespace, name) = key(&pod.metadata);
            let body = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
            if let Err(error) = send(&client, "POST", &path, "application/json", &body).await {
                tracing::warn!(pod = format!("{namespace}/{name}"), node, %error, "binding failed");
                // Nobody receives any more only when the scheduler is ending.
                drop(failures.send(Failure { pod, attempts }).await);
                return;
            }
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            record(&client, &component, &pod, "Normal", "Scheduled", &message).await;
        });
    }

    /// Says on the pod, and in an Event, why it has no node.
    fn tell_rejected(&self, pod: &Pod, rejection: &Rejection) {
        let (client, component, pod) = (self.client.clone(), self.config.name.clone(), pod.clone());
        let message = rejection.message.clone();
        self.bindings.spawn(async move {
            let (namespace, name) = key(&pod.metadata);
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            });
            let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
            let media = "application/strategic-merge-patch+json";
            if let Err(error) = send(&client, "PATCH", &path, media, &body).await {
                tracing::debug!(pod = format!("{namespace}/{name}"), %error, "the pod's condition was not written");
            }
            record(&client, &component, &pod, "Warning", "FailedScheduling", &message).await;
        });
    }
}

fn key(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

async fn send(client: &Client, method: &str, path: &str, media: &str, body: &Value) -> Result<(), SendError> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, media)
        .body(body.to_string().into_bytes())?;
    client.request::<Value>(request).await?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the API server refused")]
    Refused(#[from] kube::Error),
    #[error("the request cannot be built")]
    Request(#[from] http::Error),
}

/// Records an Event about a pod. Losing one is no harm to scheduling, so it is only logged.
async fn record(client: &Client, component: &str, pod: &Pod, type_: &str, reason: &str, message: &str) {
    let (namespace, name) = key(&pod.metadata);
    let now = Timestamp::now();
    let seconds = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": pod.metadata.uid,
        },
        "type": type_, "reason": reason, "message": message,
        "source": {"component": component}, "reportingComponent": component,
        "firstTimestamp": seconds, "lastTimestamp": seconds, "count": 1,
    });
    let path = format!("/api/v1/namespaces/{namespace}/events");
    if let Err(error) = send(client, "POST", &path, "application/json", &body).await {
        tracing::debug!(pod = format!("{namespace}/{name}"), reason, %error, "an event was not recorded");
    }
}
