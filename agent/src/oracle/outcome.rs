//! What can happen to a packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use abi::drops::Drop;
use serde::{Deserialize, Serialize};

use crate::tables::ObjectName;

/// What happens to the first packet of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No service is asked: the packet goes where its address leads.
    NotAService,
    /// It is answered in the name of a service's address.
    Echo,
    /// The client is told that it is not served.
    Refused(Drop),
    /// The client is told nothing.
    Dropped(Drop),
    /// It goes to one of these backends.
    Forwarded(Forwarded),
}

/// The backends a packet may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The Service; for a host port the Pod.
    pub owner: ObjectName,
    /// Name of its port.
    pub port: String,
    /// What kind of address was asked.
    pub kind: Kind,
    /// Which of its backends count.
    pub set: Set,
    /// Seconds a client keeps its backend; zero is no affinity.
    pub affinity: u32,
    /// Who they are, and how packets get there.
    pub backends: BTreeMap<SocketAddr, Way>,
}

/// Kinds of addresses a service answers on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The virtual address of the cluster.
    ClusterIp,
    /// One that a load balancer announced.
    LoadBalancer,
    /// One of `externalIPs`.
    ExternalIp,
    /// A port of the nodes' addresses.
    NodePort,
    /// A port of the host that a pod of this node has taken.
    HostPort,
}

/// Which backends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Set {
    /// Those of the cluster that this node should use.
    Cluster,
    /// Those on this node.
    Local,
}

/// How a packet gets to its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Way {
    /// With the client's address as source.
    Kept,
    /// With an address of this node as source.
    Hidden,
    /// In a tunnel: the backend's node answers the client.
    Tunnelled,
}
