//! What the sources know, as rows: the one place between the outside world and `desired`.
//!
//! A source writes rows and says once when it has seen everything ([`Tables::synced`]); until then nothing of its kind is
//! removed from the kernel, so that a restart, or an API server that is away, takes nothing down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

mod endpoint;
mod node;
pub mod policy;
mod rows;
mod service;

pub use endpoint::{
    Attachment, Endpoint, EndpointId, EndpointState, HostPort, Limits, NotApplied, PodOptions, is_same_pod,
    uid,
};
pub use node::{Links, Node};
pub use policy::PolicyRows;
pub use rows::{Changes, PolicyChanges, Rows};
pub use service::{Balancing, Hints, Service, ServicePort, Slice, SliceEndpoint};

/// A kind of rows that arrives as a whole before anything of it may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Endpoints restored from the CNI journal.
    Endpoints,
    /// Nodes of the API server.
    Nodes,
    /// Services of the API server.
    Services,
    /// EndpointSlices of the API server.
    Slices,
    /// Pods of this node.
    Pods,
    /// NetworkPolicies of the API server.
    Policies,
    /// Namespaces of the API server.
    Namespaces,
    /// All pods of the API server.
    ClusterPods,
    /// ClusterNetworkPolicies, where the API server has that kind.
    ClusterPolicies,
}

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// Namespace; empty for objects without one.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Transport protocols a service can have.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, clap::ValueEnum,
)]
pub enum Protocol {
    /// Protocol number 6.
    #[default]
    Tcp,
    /// Protocol number 17.
    Udp,
    /// Protocol number 132.
    Sctp,
}

impl Protocol {
    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Something about an object that its owner should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// `Service`, `Pod`, `Node`, `Namespace`, `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: &'static str,
    /// The object.
    pub object: ObjectName,
    /// Its unique number; zero when it is not known.
    pub uid: u128,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// Everything the sources know at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Services by name.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// EndpointSlices by name.
    pub slices: BTreeMap<ObjectName, Arc<Slice>>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Uplinks that exist, by name.
    pub uplinks: BTreeSet<String>,
    /// What the uplinks lead to.
    pub links: Links,
    /// Every address of the host, which NodePorts may answer on; follows the machine.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Local pods.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Pods of this node that have wishes.
    pub pods: BTreeMap<ObjectName, Arc<PodOptions>>,
    /// Who may talk to whom, by whose labels and addresses.
    pub policy: PolicyRows,
    /// Sources that have delivered everything once.
    pub synced: BTreeSet<Source>,
}

/// The tables. Cheap to share; every write wakes the reconciler.
#[derive(Debug)]
pub struct Tables {
    rows: Mutex<Rows>,
    complaints: (mpsc::Sender<Complaint>, Mutex<Option<mpsc::Receiver<Complaint>>>),
    version: watch::Sender<u64>,
    bell: Bell,
    states: watch::Sender<BTreeMap<EndpointId, EndpointState>>,
    pod_cidrs: watch::Sender<Vec<IpNetwork>>,
    arrivals: Mutex<Arrivals>,
    rule_sets: Mutex<BTreeMap<u32, policy::RuleSetName>>,
    without_room: Mutex<BTreeSet<ObjectName>>,
    unread: Mutex<BTreeMap<&'static str, String>>,
}

/// What is called with every change, on the thread of whoever changes something: a task that waits for changes would first have to
/// be woken, which is much of the time of a pod's attachment.
#[derive(Default)]
struct Bell(Mutex<Option<Box<dyn Fn() + Send + Sync>>>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bell").field(&self.0.lock().is_some()).finish()
    }
}

/// What has arrived, for whoever measures how fast it reaches the kernel.
#[derive(Debug, Default)]
struct Arrivals {
    changes: BTreeMap<Source, u64>,
    triggers: Vec<Timestamp>,
}

/// Complaints waiting to be written; more are dropped.
const COMPLAINTS: usize = 256;
/// Triggers kept for one round; what arrives beyond is not measured.
const TRIGGERS: usize = 10_000;

impl Default for Tables {
    fn default() -> Self {
        let (complaints, waiting) = mpsc::channel(COMPLAINTS);
        Self {
            rows: Mutex::default(),
            complaints: (complaints, Mutex::new(Some(waiting))),
            version: watch::Sender::new(0),
            bell: Bell::default(),
            states: watch::Sender::new(BTreeMap::new()),
            pod_cidrs: watch::Sender::new(Vec::new()),
            arrivals: Mutex::default(),
            rule_sets: Mutex::default(),
            without_room: Mutex::default(),
            unread: Mutex::default(),
        }
    }
}

impl Tables {
    /// A copy of all rows.
    pub fn snapshot(&self) -> Snapshot {
        self.rows.lock().snapshot.clone()
    }

    /// Looks at the rows while nobody changes them: for questions that need no copy.
    pub fn look<T>(&self, question: impl FnOnce(&Snapshot) -> T) -> T {
        question(&self.rows.lock().snapshot)
    }

    /// The same for questions about what belongs to what.
    pub fn consult<T>(&self, question: impl FnOnce(&Rows) -> T) -> T {
        let mut rows = self.rows.lock();
        rows.index();
        question(&rows)
    }

    /// Changes whenever a row changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Has `ring` called with every change from now on, instead of what was called before. It must not wait, nor change anything
    /// here.
    pub fn ring_with(&self, ring: impl Fn() + Send + Sync + 'static) {
        *self.bell.0.lock() = Some(Box::new(ring));
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
        if let Some(ring) = &*self.bell.0.lock() {
            ring();
        }
    }

    /// Counts a change that arrived after the first list, and remembers what triggered it in the cluster, and when.
    pub fn changed(&self, source: Source, trigger: Option<Timestamp>) {
        let mut arrivals = self.arrivals.lock();
        *arrivals.changes.entry(source).or_default() += 1;
        if arrivals.triggers.len() < TRIGGERS {
            arrivals.triggers.extend(trigger);
        }
    }

    /// How many changes of a kind have arrived.
    pub fn changes_of(&self, source: Source) -> u64 {
        self.arrivals.lock().changes.get(&source).copied().unwrap_or_default()
    }

    /// What triggered the changes since the last call.
    pub fn take_triggers(&self) -> Vec<Timestamp> {
        std::mem::take(&mut self.arrivals.lock().triggers)
    }

    /// Says that `source` has delivered everything it knows.
    pub fn synced(&self, source: Source) {
        self.write_if(|rows| {
            let is_first = rows.snapshot.synced.insert(source);
            rows.changes.node |= is_first;
            is_first
        });
    }

    /// Adds, replaces or takes away a Service.
    pub fn put_service(&self, name: ObjectName, row: Option<Arc<Service>>) {
        self.write_if(|rows| rows.put_service(name, row));
    }

    /// Adds, replaces or takes away an EndpointSlice.
    pub fn put_slice(&self, name: ObjectName, row: Option<Arc<Slice>>) {
        self.write_if(|rows| rows.put_slice(name, row));
    }

    /// These are all Services there are.
    pub fn replace_services(&self, all: BTreeMap<ObjectName, Arc<Service>>) {
        self.write(|rows| rows.replace_services(all));
    }

    /// These are all EndpointSlices there are.
    pub fn replace_slices(&self, all: BTreeMap<ObjectName, Arc<Slice>>) {
        self.write(|rows| rows.replace_slices(all));
    }

    /// Names the rule sets that are in the kernel, if they are not those that are known. By the reconciler alone.
    pub fn name_rule_sets(
        &self,
        numbers: impl Iterator<Item = u32>,
        name: impl Fn(u32) -> policy::RuleSetName,
    ) {
        let numbers: BTreeSet<u32> = numbers.collect();
        let mut known = self.rule_sets.lock();
        known.retain(|number, _| numbers.contains(number));
        for number in numbers {
            known.entry(number).or_insert_with(|| name(number));
        }
    }

    /// What a rule set stands for.
    pub fn rule_set(&self, number: u32) -> Option<policy::RuleSetName> {
        self.rule_sets.lock().get(&number).cloned()
    }

    /// Says which policies find no room in the kernel; those without a namespace are ClusterNetworkPolicies. By the reconciler
    /// alone.
    pub fn set_policies_without_room(&self, names: BTreeSet<ObjectName>) {
        *self.without_room.lock() = names;
    }

    /// The policies that find no room in the kernel.
    pub fn policies_without_room(&self) -> BTreeSet<ObjectName> {
        self.without_room.lock().clone()
    }

    /// Says that objects of a kind cannot be read, and what that means, or that they can. Answers whether that is new.
    pub fn set_unread(&self, kind: &'static str, why: Option<String>) -> bool {
        let mut unread = self.unread.lock();
        let was = match why.clone() {
            Some(why) => unread.insert(kind, why),
            None => unread.remove(kind),
        };
        was != why
    }

    /// The kinds whose objects cannot be read, and what that means.
    pub fn unread(&self) -> BTreeMap<&'static str, String> {
        self.unread.lock().clone()
    }

    /// Adds, replaces or takes away a NetworkPolicy.
    pub fn put_policy(&self, name: ObjectName, row: Option<Arc<policy::Policy>>) {
        self.write_if(|rows| rows.put_policy(name, row));
    }

    /// Adds, replaces or takes away a ClusterNetworkPolicy.
    pub fn put_cluster_policy(&self, name: String, row: Option<Arc<policy::ClusterPolicy>>) {
        self.write_if(|rows| rows.put_cluster_policy(name, row));
    }

    /// Adds, replaces or takes away a Namespace.
    pub fn put_namespace(&self, name: String, row: Option<Arc<policy::Namespace>>) {
        self.write_if(|rows| rows.put_namespace(name, row));
    }

    /// Adds, replaces or takes away a pod of the cluster.
    pub fn put_cluster_pod(&self, name: ObjectName, row: Option<Arc<policy::ClusterPod>>) {
        self.write_if(|rows| rows.put_cluster_pod(name, row));
    }

    /// These are all NetworkPolicies there are.
    pub fn replace_policies(&self, all: BTreeMap<ObjectName, Arc<policy::Policy>>) {
        self.write(|rows| rows.replace_policies(all));
    }

    /// These are all ClusterNetworkPolicies there are.
    pub fn replace_cluster_policies(&self, all: BTreeMap<String, Arc<policy::ClusterPolicy>>) {
        self.write_if(|rows| rows.replace_cluster_policies(all));
    }

    /// These are all Namespaces there are.
    pub fn replace_namespaces(&self, all: BTreeMap<String, Arc<policy::Namespace>>) {
        self.write(|rows| rows.replace_namespaces(all));
    }

    /// These are all pods of the cluster there are.
    pub fn replace_cluster_pods(&self, all: BTreeMap<ObjectName, Arc<policy::ClusterPod>>) {
        self.write(|rows| rows.replace_cluster_pods(all));
    }

    /// Changes rows that are not about services, and says whether that changed anything.
    pub fn update_node(&self, change: impl FnOnce(&mut Snapshot) -> bool) {
        self.write_if(|rows| {
            let changed = change(&mut rows.snapshot);
            rows.changes.node |= changed;
            changed
        });
    }

    /// Hands what changed since the last call to `work`, while nobody changes anything else.
    pub fn take_changes<T>(&self, work: impl FnOnce(&Rows, Changes) -> T) -> T {
        let mut rows = self.rows.lock();
        let changes = rows.take();
        work(&rows, changes)
    }

    /// Everything counts as changed: whoever takes changes next has seen none before.
    pub fn forget_taken(&self) {
        self.rows.lock().changes.everything = true;
    }

    /// Says something to the owner of an object. Nobody waits for that.
    pub fn complain(&self, complaint: Complaint) {
        tracing::warn!(
            kind = complaint.kind,
            object = format!("{}/{}", complaint.object.namespace, complaint.object.name),
            reason = complaint.reason,
            "{}",
            complaint.message
        );
        if let Err(error) = self.complaints.0.try_send(complaint) {
            tracing::debug!(%error, "an event is dropped");
        }
    }

    /// What is complained about; for one reader.
    pub fn complaints(&self) -> Option<mpsc::Receiver<Complaint>> {
        self.complaints.1.lock().take()
    }

    /// The pod prefixes of this node, empty until its Node object carries them.
    pub fn pod_cidrs(&self) -> watch::Receiver<Vec<IpNetwork>> {
        self.pod_cidrs.subscribe()
    }

    /// Sets the pod prefixes of this node.
    pub fn set_pod_cidrs(&self, cidrs: Vec<IpNetwork>) {
        self.pod_cidrs.send_if_modified(|known| {
            let changed = *known != cidrs;
            *known = cidrs;
            changed
        });
    }

    /// Changes any rows; everything is looked at again.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.write(|rows| {
            rows.changes.everything = true;
            change(&mut rows.snapshot);
        });
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.rows.lock().snapshot.nodes.get(name).cloned()
    }

    fn write<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> T {
        let result = change(&mut self.rows.lock());
        self.tell();
        result
    }

    fn write_if(&self, change: impl FnOnce(&mut Rows) -> bool) {
        if change(&mut self.rows.lock()) {
            self.tell();
        }
    }
}
