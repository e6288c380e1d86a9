//! The oracle: what should happen to the first packet of a flow, by the rules of services and from the tables alone.
//!
//! It shares no code with [`desired`](crate::desired): rows are computed there and followed by programs, the same answer is
//! found here by reading the rules. Where both disagree, one of them is wrong. Rules are numbered as in `agent/tests/oracle`.

mod backends;
mod frontend;
pub mod outcome;
pub mod policy;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use abi::drops::Drop;
use ipnetwork::IpNetwork;

use crate::desired::NodeFacts;
use crate::tables::{Endpoint, HostPort, ObjectName, Protocol, ServicePort, Snapshot};
use backends::Sets;
use frontend::{Asked, Found};
pub use outcome::{Forwarded, Kind, Outcome, Set, Way};

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A pod of this node.
    Pod,
    /// A socket of the node itself, or of a pod that shares its network.
    Host,
    /// Behind an uplink: outside of the cluster, or on another node.
    Outside,
}

/// What a packet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A port of a protocol.
    Port(Protocol, u16),
    /// An answer to a ping.
    Echo,
}

/// The first packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub client: Client,
    /// Its source address.
    pub src: IpAddr,
    /// Its destination address.
    pub dst: IpAddr,
    /// What it wants there.
    pub ask: Ask,
}

/// The node that sees the packet.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// What is known of it.
    pub facts: &'a NodeFacts,
    /// Prefixes of virtual addresses.
    pub services: &'a [IpNetwork],
}

/// What happens to `packet` on this node.
pub fn decide(cluster: &Snapshot, here: Here<'_>, packet: &Packet) -> Outcome {
    let found = match frontend::find(cluster, here, packet) {
        Asked::Frontend(found) => found,
        Asked::HostPort(pod, port) => return host_port(pod, port, packet),
        Asked::Address(_) if packet.ask == Ask::Echo => return Outcome::Echo,
        // Rule 11: a service has the address, but not the port. External addresses may be somebody else's as well.
        Asked::Address(Kind::ClusterIp) => return Outcome::Refused(Drop::UnknownPort),
        Asked::Address(_) => return Outcome::NotAService,
        Asked::Unallocated => return Outcome::Dropped(Drop::Unallocated),
        Asked::Nothing => return Outcome::NotAService,
    };
    // Rule 8: before everything else, whoever asks.
    if !found.admits(here, packet) {
        return Outcome::Dropped(Drop::SourceRange);
    }
    let sets = Sets::of(cluster, here, &found, packet.dst.is_ipv4());
    let set = which(&found, packet);
    let chosen = match set {
        Set::Cluster => &sets.cluster,
        Set::Local => &sets.local,
    };
    if chosen.is_empty() {
        // Rule 4: nobody anywhere is a refusal, nobody here a drop.
        return if sets.somebody {
            Outcome::Dropped(Drop::NoLocalBackend)
        } else {
            Outcome::Refused(Drop::NoBackend)
        };
    }
    let way = |backend: &SocketAddr| (*backend, way(cluster, here, &found, packet, backend.ip()));
    Outcome::Forwarded(Forwarded {
        owner: found.owner.clone(),
        port: found.port.name.clone(),
        kind: found.kind,
        set,
        affinity: found.service.affinity,
        backends: chosen.iter().map(way).collect::<BTreeMap<_, _>>(),
    })
}

/// A pod's own port leads to the pod, which is on this node and sees its clients, but for itself.
fn host_port(pod: &Endpoint, port: &HostPort, packet: &Packet) -> Outcome {
    let own = pod.addresses.iter().filter(|own| own.is_ipv4() == packet.dst.is_ipv4());
    let way = |own: &IpAddr| if *own == packet.src { Way::Hidden } else { Way::Kept };
    Outcome::Forwarded(Forwarded {
        owner: ObjectName { namespace: pod.pod_namespace.clone(), name: pod.pod_name.clone() },
        port: port.host_port.to_string(),
        kind: Kind::HostPort,
        set: Set::Cluster,
        affinity: 0,
        backends: own.map(|own| (SocketAddr::new(*own, port.container_port), way(own))).collect(),
    })
}

/// Whose address and port a packet asks for, as `namespace/name:port`.
pub fn owner(cluster: &Snapshot, here: Here<'_>, packet: &Packet) -> Option<String> {
    match frontend::find(cluster, here, packet) {
        Asked::Frontend(Found { owner, port, .. }) => {
            Some(format!("{}/{}:{}", owner.namespace, owner.name, port_label(port)))
        }
        Asked::HostPort(pod, port) => {
            Some(format!("{}/{}:{}", pod.pod_namespace, pod.pod_name, port.container_port))
        }
        Asked::Address(_) | Asked::Unallocated | Asked::Nothing => None,
    }
}

/// A port's name, or its number if it has none.
fn port_label(port: &ServicePort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { port.name.clone() }
}

/// Rules 4 and 5: the internal policy counts for the cluster's own address; the external one for clients outside, everybody
/// inside takes a short cut past it.
fn which(found: &Found<'_>, packet: &Packet) -> Set {
    let local = match (found.kind, packet.client) {
        (Kind::ClusterIp, _) => found.service.internal_local,
        (_, Client::Outside) => found.service.external_local,
        (_, Client::Pod | Client::Host) => false,
    };
    if local { Set::Local } else { Set::Cluster }
}

/// Rules 5, 6 and 7: who keeps its address. A backend on this node answers through this node, so that only clients outside of
/// backends elsewhere, and pods that talk to themselves, need to hide.
fn way(cluster: &Snapshot, here: Here<'_>, found: &Found<'_>, packet: &Packet, backend: IpAddr) -> Way {
    let is_here = here.facts.addresses.contains(&backend)
        || cluster.endpoints.values().any(|endpoint| endpoint.addresses.contains(&backend));
    match packet.client {
        Client::Pod if backend == packet.src => Way::Hidden,
        Client::Pod | Client::Host => Way::Kept,
        Client::Outside if is_here => Way::Kept,
        Client::Outside if found.service.dsr => Way::Tunnelled,
        Client::Outside => Way::Hidden,
    }
}
