//! What the sources know, as rows: the one place between the outside world and `desired`.
//!
//! A source writes rows and says once when it has seen everything ([`Tables::synced`]); until then nothing of its kind is
//! removed from the kernel, so that a restart, or an API server that is away, takes nothing down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub mod policy;
mod rows;

pub use policy::PolicyRows;
pub use rows::{Changes, PolicyChanges, Rows};

/// Names the attachment of one pod: a sandbox and the interface inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId {
    /// CNI's container id: the pod's sandbox.
    pub container_id: String,
    /// Name of the interface inside the pod, usually `eth0`.
    pub ifname: String,
}

/// A port of the host that leads to a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The host's address; `None` stands for all that NodePorts answer on.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A local pod's attachment, as CNI ADD asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// CNI's container id: the pod's sandbox.
    pub container_id: String,
    /// Name of the interface inside the pod, usually `eth0`.
    pub ifname: String,
    /// Path of the pod's network namespace.
    pub netns_path: PathBuf,
    /// Namespace of the Pod object.
    pub pod_namespace: String,
    /// Name of the Pod object.
    pub pod_name: String,
    /// Unique number of the Pod, as the runtime has written it; empty where it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// At most one address per family.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// Whether two numbers of pods with the same name are not of different pods; zero is not known.
pub fn is_same_pod(one: u128, other: u128) -> bool {
    one == 0 || other == 0 || one == other
}

/// A unique number as objects have it: hexadecimal digits, with hyphens or without; zero for anything else.
pub fn uid(text: &str) -> u128 {
    u128::from_str_radix(&text.replace('-', ""), 16).unwrap_or(0)
}

impl Endpoint {
    /// Whether it is this pod's, and not one's that had the same name before or has it since.
    pub fn is_of(&self, pod: &policy::ClusterPod) -> bool {
        is_same_pod(uid(&self.pod_uid), pod.uid)
    }

    /// The endpoint's key.
    pub fn id(&self) -> EndpointId {
        EndpointId { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}

/// How an endpoint was attached: what a CNI result reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Name of the veth's end on the host.
    pub host_link: String,
    /// Its hardware address.
    pub host_mac: [u8; 6],
    /// Hardware address of the interface inside the pod.
    pub pod_mac: [u8; 6],
    /// The default gateways inside the pod, one per family of the endpoint.
    pub gateways: Vec<IpAddr>,
    /// Largest packet of the interface inside the pod.
    pub mtu: u32,
}

/// Where the kernel is with one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointState {
    /// Not seen by the reconciler yet.
    Pending,
    /// In place; packets flow.
    Applied(Attachment),
    /// The last attempt failed; it is retried.
    Failed(Arc<str>),
}

/// Why waiting for an endpoint ended without it.
#[derive(Debug, Error)]
pub enum NotApplied {
    /// The row was removed while somebody waited for it.
    #[error("endpoint {0:?} was removed before it was attached")]
    Removed(EndpointId),
    /// The time was up; carries the last failure.
    #[error("endpoint {id:?} is not attached after {waited:?}: {reason}")]
    Timeout {
        /// The endpoint.
        id: EndpointId,
        /// How long was waited.
        waited: Duration,
        /// The last failure of the reconciler.
        reason: Arc<str>,
    },
}

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

/// The fields of a Service that reach the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Virtual addresses; empty for headless services.
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses in `status.loadBalancer.ingress` whose `ipMode` is not `Proxy`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `loadBalancerSourceRanges`, as they are written; a family with none, or with all of its addresses, is open.
    pub source_ranges: Vec<IpNetwork>,
    /// `healthCheckNodePort`, where the service wants one.
    pub health_check_node_port: Option<u16>,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Seconds a client keeps its backend; zero is no affinity.
    pub affinity: u32,
    /// How a backend is picked (`hawser.dev/load-balancing`).
    pub balancing: Balancing,
    /// Weights of backends by the name of their pod, the name of their node, or their address, the first that is there
    /// (`hawser.dev/weights`); others weigh one, and zero takes no new connections.
    pub weights: BTreeMap<String, u16>,
    /// Clients outside are answered by the backend's node (`hawser.dev/forwarding: dsr`).
    pub dsr: bool,
    /// Sockets are left alone, every packet is translated (`hawser.dev/socket-lb: disabled`).
    pub no_sockets: bool,
    /// Second it was made: where two want the same address and port, the older has it.
    pub created: i64,
    /// Its unique number, as events about it need it.
    pub uid: u128,
}

/// What a Pod of this node says about its own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodOptions {
    /// Its sockets are left alone, every packet is translated.
    pub no_sockets: bool,
    /// How fast it may send and receive (`kubernetes.io/egress-bandwidth`, `kubernetes.io/ingress-bandwidth`).
    pub limits: Limits,
}

/// Bytes per second of all traffic of a Pod; nothing is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// What it sends.
    pub egress: Option<u64>,
    /// What comes to it.
    pub ingress: Option<u64>,
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

/// How a backend is picked for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Balancing {
    /// At random.
    #[default]
    Random,
    /// By the flow's hash, on every node alike.
    Maglev,
    /// The less busy of two drawn at random.
    LeastConnections,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServicePort {
    /// Name that EndpointSlices use; empty when there is one port.
    pub name: String,
    /// Port of the virtual address.
    pub port: u16,
    /// Protocol; ports of other protocols are left out by the source.
    pub protocol: Protocol,
    /// Port on the nodes' addresses.
    pub node_port: Option<u16>,
}

/// The fields of an EndpointSlice that reach the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The Service it belongs to, in the slice's namespace.
    pub service: String,
    /// Who can answer.
    pub endpoints: Vec<SliceEndpoint>,
    /// Port name, protocol and number.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Whether it would still answer while it terminates.
    pub serving: bool,
    /// Whether it terminates.
    pub terminating: bool,
    /// Node it runs on.
    pub node: Option<Arc<str>>,
    /// Whose clients should use it; most endpoints say nothing.
    pub hints: Option<Box<Hints>>,
    /// Name of its pod, if its target is one.
    pub target: Option<Box<str>>,
}

/// Whose clients should use an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hints {
    /// Zones (`hints.forZones`).
    pub zones: Vec<String>,
    /// Nodes (`hints.forNodes`).
    pub nodes: Vec<String>,
}

impl Hints {
    /// None where nothing is said.
    pub fn new(zones: Vec<String>, nodes: Vec<String>) -> Option<Box<Self>> {
        (!zones.is_empty() || !nodes.is_empty()).then(|| Box::new(Self { zones, nodes }))
    }
}

impl SliceEndpoint {
    /// Zones whose clients should use it.
    pub fn zones(&self) -> &[String] {
        self.hints.as_ref().map_or(&[], |hints| &hints.zones)
    }

    /// Nodes whose clients should use it.
    pub fn nodes(&self) -> &[String] {
        self.hints.as_ref().map_or(&[], |hints| &hints.nodes)
    }

    /// An address that is ready, and nothing else known of it.
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            hints: None,
            target: None,
        }
    }
}

/// The fields of a Node that reach the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of its pods.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Whether it is about to go: deleted, or tainted by the cluster autoscaler.
    pub leaving: bool,
}

/// The links that lead out of the node, as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// Prefixes of the uplinks that are up: peers inside need no router.
    pub on_link: BTreeSet<IpNetwork>,
    /// Largest packet of the uplinks; zero while there is none.
    pub mtu: u32,
    /// Grows with every look at them: the kernel takes routes along with devices and addresses, and says nothing.
    pub looked: u64,
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
    states: watch::Sender<BTreeMap<EndpointId, EndpointState>>,
    pod_cidrs: watch::Sender<Vec<IpNetwork>>,
    arrivals: Mutex<Arrivals>,
    rule_sets: Mutex<BTreeMap<u32, policy::RuleSetName>>,
    without_room: Mutex<BTreeSet<ObjectName>>,
    unread: Mutex<BTreeMap<&'static str, String>>,
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

    /// Adds or replaces an endpoint. The CNI journal restores all of them at start, then calls
    /// [`Tables::synced`] with [`Source::Endpoints`].
    pub fn put_endpoint(&self, endpoint: Endpoint) {
        let id = endpoint.id();
        self.states.send_modify(|states| {
            states.insert(id.clone(), EndpointState::Pending);
        });
        self.write(|rows| {
            rows.changes.node = true;
            rows.snapshot.endpoints.insert(id, endpoint);
        });
    }

    /// Removes an endpoint; the reconciler takes its link away.
    pub fn remove_endpoint(&self, id: &EndpointId) -> Option<Endpoint> {
        self.states.send_modify(|states| {
            states.remove(id);
        });
        self.write(|rows| {
            rows.changes.node = true;
            rows.snapshot.endpoints.remove(id)
        })
    }

    /// Waits until the endpoint is in the kernel: packets flow when this returns.
    pub async fn attached(&self, id: &EndpointId, patience: Duration) -> Result<Attachment, NotApplied> {
        let mut states = self.states.subscribe();
        let found = tokio::time::timeout(
            patience,
            states.wait_for(|states| {
                !matches!(states.get(id), Some(EndpointState::Pending | EndpointState::Failed(_)))
            }),
        )
        .await;
        if let Ok(Ok(states)) = found {
            return match states.get(id) {
                Some(EndpointState::Applied(attachment)) => Ok(attachment.clone()),
                _ => Err(NotApplied::Removed(id.clone())),
            };
        }
        let reason = match self.states.borrow().get(id) {
            Some(EndpointState::Failed(reason)) => Arc::clone(reason),
            _ => Arc::from("the reconciler has not reached it"),
        };
        Err(NotApplied::Timeout { id: id.clone(), waited: patience, reason })
    }

    /// The state of one endpoint; `None` when no such row exists.
    pub fn endpoint_state(&self, id: &EndpointId) -> Option<EndpointState> {
        self.states.borrow().get(id).cloned()
    }

    /// Reported by the reconciler alone.
    pub fn report_endpoint(&self, id: &EndpointId, state: EndpointState) {
        self.states.send_if_modified(|states| match states.get_mut(id) {
            Some(known) if *known != state => {
                *known = state;
                true
            }
            _ => false,
        });
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
        self.version.send_modify(|version| *version += 1);
        result
    }

    fn write_if(&self, change: impl FnOnce(&mut Rows) -> bool) {
        if change(&mut self.rows.lock()) {
            self.version.send_modify(|version| *version += 1);
        }
    }
}
