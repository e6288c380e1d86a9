//! The only loop: informers feed the world, changes wake keys, workers reconcile them and write.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use kube::Client;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::change::Change;
use crate::controller::{Controller, Key};
use crate::discovery::discover;
use crate::informer::{Applied, Step, inform, withdraw};
use crate::node_cidr::CidrError;
use crate::objects::{
    ClusterRole, ConfigMap, CronJob, Deployment, EndpointSlice, Endpoints, FlowSchema, IpAddress, Job, Kind,
    Lease, Namespace, Node, PersistentVolumeClaim, Pod, PodDisruptionBudget, PriorityLevelConfiguration,
    ReplicaSet, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount, ServiceCidr,
};
use crate::queue::Queue;
use crate::view::World;
use crate::write::{Target, Write, WriteError, Written};
use crate::{Config, controllers};

/// Keys of one controller that are worked on at the same time.
const WORKERS: usize = 4;
/// Creations and deletions of one look that are under way at the same time.
const BURST: usize = 16;
/// Steps the informers may be ahead of the dispatcher.
const STEPS: usize = 1024;
/// How long a key waits at most for its own writes to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the controllers could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the cluster CIDRs cannot be used")]
    Cidr(#[from] CidrError),
    #[error("a controller task ended early")]
    Ended,
}

/// Runs every controller until `stop` is cancelled. Survives an API server that is away.
pub async fn run(client: Client, config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let lanes: Vec<Arc<Lane>> = controllers(&config)?.into_iter().map(Lane::new).map(Arc::new).collect();
    let world = Arc::new(RwLock::new(World::default()));
    let (steps, receiver) = mpsc::channel(STEPS);
    let mut tasks = JoinSet::new();
    let typed = start_informers(&mut tasks, &client, &steps);
    let mut tabled = typed.clone();
    // Config maps, leases and secrets have a table, but it holds some only; the graph wants them all.
    tabled.remove(ConfigMap::RESOURCE);
    tabled.remove(Lease::RESOURCE);
    tabled.remove(Secret::RESOURCE);
    tasks.spawn(discover(client.clone(), tabled, steps));
    tasks.spawn(dispatch(Arc::clone(&world), lanes.clone(), typed, receiver));
    for lane in &lanes {
        for _ in 0..WORKERS {
            tasks.spawn(work(Arc::clone(lane), Arc::clone(&world), client.clone()));
        }
    }
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        Some(_) = tasks.join_next() => Err(RunError::Ended),
    }
}

/// Starts the informers of all kinds with a table; returns their resources.
fn start_informers(tasks: &mut JoinSet<()>, client: &Client, steps: &mpsc::Sender<Step>) -> BTreeSet<String> {
    let mut typed = BTreeSet::new();
    macro_rules! start {
        ($($kind:ty $(, $fields:literal)?);* $(;)?) => {
            $({
                typed.insert(<$kind>::RESOURCE.to_owned());
                let fields: Option<&'static str> = None $(.or(Some($fields)))?;
                tasks.spawn(inform::<$kind>(client.clone(), fields, steps.clone()));
            })*
        };
    }
    start! {
        ClusterRole;
        ConfigMap, "metadata.name=kube-root-ca.crt";
        CronJob;
        Deployment;
        EndpointSlice;
        Endpoints;
        FlowSchema;
        IpAddress;
        Job;
        Lease, "metadata.namespace=kube-node-lease";
        Namespace;
        Node;
        PersistentVolumeClaim;
        Pod;
        PodDisruptionBudget;
        PriorityLevelConfiguration;
        ReplicaSet;
        ReplicationController;
        ResourceQuota;
        Secret, "type=kubernetes.io/service-account-token";
        Service;
        ServiceAccount;
        ServiceCidr;
    }
    typed
}

/// Applies steps to the world, and wakes keys once every kind with a table has been listed; controllers that need every
/// kind there is are told when all of them have been.
async fn dispatch(
    world: Arc<RwLock<World>>,
    lanes: Vec<Arc<Lane>>,
    typed: BTreeSet<String>,
    mut steps: mpsc::Receiver<Step>,
) {
    let (patient, eager): (Vec<_>, Vec<_>) =
        lanes.into_iter().partition(|lane| lane.controller.needs_every_kind());
    let mut listing =
        Listing { typed: typed.into_iter().collect(), others: HashSet::new(), discovered: false };
    let (mut for_eager, mut for_patient) = (Vec::new(), Vec::new());
    let mut batch = Vec::new();
    while steps.recv_many(&mut batch, STEPS).await > 0 {
        {
            let mut world = world.write();
            for step in batch.drain(..) {
                match step {
                    Step::Apply(apply) => for_eager.push(apply(&mut world)),
                    Step::Listed(resource) => {
                        listing.done(&resource);
                        world.listed.insert(resource);
                    }
                    Step::Discovered(resources) => listing.discovered(resources),
                    Step::Withdrawn(resource) => {
                        listing.done(&resource);
                        for_eager.extend(withdraw(&mut world, &resource));
                        world.listed.remove(&resource);
                    }
                }
            }
            world.graph.complete = listing.is_complete();
        }
        if !listing.typed.is_empty() {
            continue;
        }
        let world = world.read();
        for lane in &eager {
            lane.wake(&for_eager, &world);
        }
        for_patient.append(&mut for_eager);
        if world.graph.complete {
            for lane in &patient {
                lane.wake(&for_patient, &world);
            }
            for_patient.clear();
        }
    }
}

/// Which kinds have not been listed yet.
struct Listing {
    typed: HashSet<String>,
    others: HashSet<String>,
    discovered: bool,
}

impl Listing {
    fn done(&mut self, resource: &str) {
        self.typed.remove(resource);
        self.others.remove(resource);
    }

    fn discovered(&mut self, resources: Vec<String>) {
        self.discovered = true;
        self.others.extend(resources);
    }

    fn is_complete(&self) -> bool {
        self.discovered && self.typed.is_empty() && self.others.is_empty()
    }
}

/// A controller with its queue.
struct Lane {
    controller: Box<dyn Controller>,
    began: Instant,
    queue: Mutex<Queue>,
    awaited: Mutex<HashMap<Key, Awaited>>,
    notify: Notify,
}

/// Own writes a key waits for, so that it is not judged by a view from before them.
struct Awaited {
    until: Instant,
    conditions: Vec<Condition>,
}

enum Condition {
    Seen { target: Target, revision: u64 },
    Gone { uid: String },
}

impl Condition {
    fn holds(&self, world: &World) -> bool {
        match self {
            Self::Seen { target, revision } => {
                let seen = if target.is_of_graph { World::seen_by_graph } else { World::seen_by_table };
                seen(world, &target.resource).is_none_or(|seen| seen >= *revision)
            }
            Self::Gone { uid } => world.graph.item(uid).is_none_or(|item| item.deleting),
        }
    }
}

impl Lane {
    fn new(controller: Box<dyn Controller>) -> Self {
        Self {
            controller,
            began: Instant::now(),
            queue: Mutex::default(),
            awaited: Mutex::default(),
            notify: Notify::new(),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wake(&self, changes: &[Applied], world: &World) {
        let now = self.now();
        let mut woken = false;
        let mut queue = self.queue.lock();
        for Applied { resource, key, old, new } in changes {
            let change = Change {
                resource,
                key,
                old: old.as_ref().map(|old| old.described()),
                new: new.as_ref().map(|new| new.described()),
            };
            for key in self.controller.wakes(&change, world) {
                queue.add(key, now);
                woken = true;
            }
        }
        drop(queue);
        if woken {
            self.notify.notify_waiters();
        }
    }

    /// The next key, as soon as one is due.
    async fn next(&self) -> Key {
        loop {
            let notified = self.notify.notified();
            let next_due = {
                let mut queue = self.queue.lock();
                if let Some(key) = queue.take(self.now()) {
                    return key;
                }
                queue.next_due()
            };
            match next_due {
                Some(due) => {
                    let pause = due.saturating_sub(self.now());
                    tokio::select! { () = notified => {}, () = tokio::time::sleep(pause) => {} }
                }
                None => notified.await,
            }
        }
    }

    /// Whether the view holds what this key wrote last; if not, the key is looked at again shortly.
    fn is_current(&self, key: &Key, world: &World) -> bool {
        let mut awaited = self.awaited.lock();
        let Some(waiting) = awaited.get(key) else { return true };
        if waiting.until > Instant::now()
            && !waiting.conditions.iter().all(|condition| condition.holds(world))
        {
            return false;
        }
        awaited.remove(key);
        true
    }

    fn done(&self, key: &Key, failed: bool, again: Option<Duration>, rest: Duration) {
        let now = self.now();
        let mut queue = self.queue.lock();
        if !rest.is_zero() {
            queue.rest(key, now + rest);
        }
        queue.done(key, failed, now);
        if let Some(again) = again {
            queue.add(key.clone(), now + again);
        }
        drop(queue);
        self.notify.notify_waiters();
    }
}

/// Takes keys of one controller, one after the other.
async fn work(lane: Arc<Lane>, world: Arc<RwLock<World>>, client: Client) {
    loop {
        let key = lane.next().await;
        let outcome = {
            let world = world.read();
            lane.is_current(&key, &world).then(|| lane.controller.reconcile(&key, &world, Timestamp::now()))
        };
        let Some(outcome) = outcome else {
            lane.done(&key, false, Some(Duration::from_millis(10)), Duration::ZERO);
            continue;
        };
        let (conditions, result) = carry_out(&client, &outcome.writes).await;
        if !conditions.is_empty() {
            let awaited = Awaited { until: Instant::now() + PATIENCE, conditions };
            lane.awaited.lock().insert(key.clone(), awaited);
        }
        if let Err(error) = &result {
            report(lane.controller.name(), &key, error);
            tell(&lane, &key, error, &world, &client).await;
        }
        lane.done(&key, result.is_err(), outcome.again, outcome.rest);
    }
}

/// Writes what the controller has to say about a refusal.
async fn tell(lane: &Lane, key: &Key, error: &WriteError, world: &RwLock<World>, client: &Client) {
    if error.is_race() {
        return;
    }
    let writes = lane.controller.failed(key, &world.read(), &error.failure(), Timestamp::now());
    if let (_, Err(error)) = carry_out(client, &writes).await {
        report(lane.controller.name(), key, &error);
    }
}

fn report(controller: &str, key: &Key, error: &WriteError) {
    let reason = error as &dyn std::error::Error;
    if error.is_race() {
        tracing::debug!(controller, %key, error = reason, "lost a race, looking again");
    } else {
        tracing::warn!(controller, %key, error = reason, "a write failed and is tried again");
    }
}

/// Carries out writes in order; neighbours of the same verb and kind go out side by side, the first [`BURST`] of them alone:
/// where one is refused, so will be many.
async fn carry_out(client: &Client, writes: &[Write]) -> (Vec<Condition>, Result<(), WriteError>) {
    let mut conditions = Vec::new();
    let mut rest = writes;
    let mut most = BURST;
    while let Some(first) = rest.first() {
        let alike = |write: &&Write| {
            write.verb() == first.verb()
                && write.target().resource == first.target().resource
                && write.verb() != "patch"
        };
        let count = rest.iter().take_while(alike).take(most).count().max(1);
        let (group, later) = rest.split_at(count);
        let mut sent = stream::iter(group.to_vec())
            .map(|write| {
                let client = client.clone();
                async move {
                    let result = write.send(&client).await;
                    (write, result)
                }
            })
            .buffer_unordered(BURST);
        let mut failure = None;
        while let Some((write, result)) = sent.next().await {
            match result {
                Ok(written) => conditions.extend(condition(&write, &written)),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return (conditions, Err(error));
        }
        most = most.saturating_mul(2);
        rest = later;
    }
    (conditions, Ok(()))
}

fn condition(write: &Write, written: &Written) -> Option<Condition> {
    match (write, written) {
        (Write::Delete { uid, .. }, _) => Some(Condition::Gone { uid: uid.clone() }),
        (_, Written::At(revision)) => {
            Some(Condition::Seen { target: write.target().clone(), revision: *revision })
        }
        (_, Written::Gone) => None,
    }
}
