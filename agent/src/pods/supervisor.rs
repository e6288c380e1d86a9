//! Gives every pod of this node a worker, and removes what no pod claims.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1 as core;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::execute::Executor;
use super::names::PodKey;
use super::relist::{self, Picture};
use super::worker::{Assignment, Worker, chain};

/// Changes nobody of us caused, such as an exit, are noticed so late at most.
const RELIST: Duration = Duration::from_secs(1);
/// How long a container nobody claims may take to stop.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// The pods of this node as last seen, for those who serve them.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<String, Arc<core::Pod>>>>);

impl Registry {
    /// All pods.
    pub fn pods(&self) -> Vec<Arc<core::Pod>> {
        self.0.lock().values().cloned().collect()
    }

    /// A pod by namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<core::Pod>> {
        let named = |pod: &&Arc<core::Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        self.0.lock().values().find(named).cloned()
    }
}

struct Handle {
    task: tokio::task::Id,
    assignments: watch::Sender<Assignment>,
    nudge: Arc<Notify>,
}

/// The supervisor.
pub struct Supervisor {
    executor: Executor,
    registry: Registry,
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<String>,
    picture: Picture,
    /// Has the watch delivered everything once? Before that nothing is an orphan.
    synced: bool,
    /// Did the runtime not answer the last time?
    deaf: bool,
    /// Were the folders of pods that went while we were away removed?
    swept: bool,
    stop: CancellationToken,
}

impl Supervisor {
    /// A supervisor without workers.
    pub fn new(executor: Executor, registry: Registry, stop: CancellationToken) -> Self {
        Self {
            executor,
            registry,
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
            picture: Picture::new(),
            synced: false,
            deaf: false,
            swept: false,
            stop,
        }
    }

    /// Works until stopped. Containers go on.
    pub async fn run(mut self) {
        let api: Api<core::Pod> = Api::all(self.executor.objects.client().clone());
        let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", self.executor.node.name));
        let mut pods = watcher::watcher(api, ours).default_backoff().boxed();
        let mut relist = tokio::time::interval(RELIST);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut listed: Vec<String> = Vec::new();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                event = pods.try_next() => match event {
                    Ok(Some(event)) => self.take_in(event, &mut listed),
                    Ok(None) => break,
                    Err(error) => tracing::warn!(error = chain(&error), "the watch of pods is begun anew"),
                },
                _ = relist.tick() => self.relist().await,
                Some(ended) = self.tasks.join_next() => self.bury(ended),
                () = stop.cancelled() => break,
            }
        }
        self.workers.clear();
        while self.tasks.join_next().await.is_some() {}
    }

    fn take_in(&mut self, event: Event<core::Pod>, listed: &mut Vec<String>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.clone());
                self.assign(pod, false);
            }
            Event::InitDone => {
                let gone: Vec<Arc<core::Pod>> = self
                    .registry
                    .pods()
                    .into_iter()
                    .filter(|pod| pod.metadata.uid.as_ref().is_none_or(|uid| !listed.contains(uid)))
                    .collect();
                for pod in gone {
                    self.assign(Arc::unwrap_or_clone(pod), true);
                }
                self.synced = true;
            }
            Event::Apply(pod) => self.assign(pod, false),
            Event::Delete(pod) => self.assign(pod, true),
        }
    }

    fn assign(&mut self, pod: core::Pod, removed: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let assignment = Assignment { pod: Arc::new(pod), removed };
        if removed {
            self.registry.0.lock().remove(&uid);
        } else {
            self.registry.0.lock().insert(uid.clone(), Arc::clone(&assignment.pod));
        }
        if let Some(handle) = self.workers.get(&uid) {
            handle.assignments.send_replace(assignment);
            return;
        }
        if removed {
            return;
        }
        self.employ(uid, assignment);
    }

    fn employ(&mut self, uid: String, assignment: Assignment) {
        let (assignments, inbox) = watch::channel(assignment);
        let nudge = Arc::new(Notify::new());
        let worker = Worker::new(inbox, Arc::clone(&nudge), self.executor.clone());
        let stop = self.stop.clone();
        let name = uid.clone();
        let task = self.tasks.spawn(async move {
            worker.run(stop).await;
            name
        });
        self.workers.insert(uid, Handle { task: task.id(), assignments, nudge });
    }

    fn bury(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.workers.remove(&uid);
            }
            Err(error) => {
                tracing::error!(%error, "the worker of a pod died; it gets another");
                let dead = self.workers.iter().find(|(_, handle)| handle.task == error.id());
                if let Some((uid, handle)) = dead {
                    let (uid, assignment) = (uid.clone(), handle.assignments.borrow().clone());
                    self.employ(uid, assignment);
                }
            }
        }
    }

    async fn relist(&mut self) {
        let picture = match relist::picture(&self.executor.cri).await {
            Ok(picture) => picture,
            Err(error) => {
                if !self.deaf {
                    tracing::warn!(error = chain(&error), "the runtime does not answer");
                }
                self.deaf = true;
                return;
            }
        };
        if std::mem::take(&mut self.deaf) {
            tracing::info!("the runtime answers again");
        }
        for key in relist::changed(&self.picture, &picture) {
            if let Some(handle) = self.workers.get(&key.uid) {
                handle.nudge.notify_one();
            }
        }
        if self.synced && !self.swept {
            self.swept = true;
            self.sweep(&picture);
        }
        if self.synced {
            let orphans: Vec<PodKey> = picture
                .keys()
                .filter(|key| {
                    !self.workers.contains_key(&key.uid) && !self.registry.0.lock().contains_key(&key.uid)
                })
                .cloned()
                .collect();
            for key in orphans {
                self.remove_orphan(key);
            }
        }
        self.picture = picture;
    }

    /// Removes the folders of pods that neither the API server nor the runtime knows.
    fn sweep(&self, picture: &Picture) {
        let known =
            |uid: &str| self.registry.0.lock().contains_key(uid) || picture.keys().any(|key| key.uid == uid);
        for key in self.executor.node.folders.present() {
            if known(&key.uid) {
                continue;
            }
            tracing::info!(pod = %key, "the folders of a pod that is gone are removed");
            if let Err(error) = self.executor.remove_files(&key) {
                tracing::error!(pod = %key, error = chain(&error), "folders of a pod stay");
            }
        }
    }

    /// A pod whose object went while we were away: an assignment without an object to report to.
    fn remove_orphan(&mut self, key: PodKey) {
        tracing::info!(pod = %key, "no object claims this pod; it is removed");
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(key.name),
            namespace: Some(key.namespace),
            uid: Some(key.uid.clone()),
            deletion_grace_period_seconds: i64::try_from(ORPHAN_GRACE.as_secs()).ok(),
            ..Default::default()
        };
        let pod = core::Pod { metadata, ..Default::default() };
        self.employ(key.uid, Assignment { pod: Arc::new(pod), removed: true });
    }
}
