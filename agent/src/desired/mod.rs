//! What should be in the kernel, computed from the tables; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::service::FrontendKey;
use abi::{Addr16, Be16};
use ipnetwork::IpNetwork;
use overlay::{Overlay, Tunnelling};
use serde::Serialize;

use crate::tables::{Attachment, Endpoint, Limits, ObjectName, Protocol, Snapshot, Source};

pub mod backends;
pub mod endpoints;
pub mod host_ports;
pub mod node_ports;
pub mod overlay;
pub mod peers;
pub mod policy;
pub mod services;

/// Facts of this node that do not come from tables.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Name of the Node object.
    pub name: String,
    /// Addresses of the node, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Largest packet of pods.
    pub mtu: u32,
    /// How nodes on other links are reached.
    pub tunnelling: Tunnelling,
    /// Which of the host's addresses NodePorts answer on.
    pub nodeport: NodePortAddresses,
    /// Networks outside the cluster that pods reach under their own addresses.
    pub unmasked: BTreeSet<IpNetwork>,
}

/// Which of the host's addresses NodePorts answer on (`--nodeport-addresses`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// The node's own, and for the host's sockets the loopback's.
    #[default]
    Primary,
    /// Those inside one of these prefixes.
    Within(Vec<IpNetwork>),
}

/// Names a service's port in one family: what has one segment of backends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortId {
    /// The Service; for a port of the host the Pod.
    pub service: ObjectName,
    /// The port's name.
    pub port: String,
    /// The port's protocol.
    pub protocol: Protocol,
    /// Whether this is its IPv4 half.
    pub v4: bool,
}

/// Address and port of a backend.
pub type BackendKey = (Addr16, Be16);

/// A backend that takes new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// Who.
    pub backend: BackendKey,
    /// How often, relative to the others; at least one.
    pub weight: u16,
}

/// One service port of one family, as the kernel should have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRow {
    /// Where it answers, with `abi::service::frontend` bits.
    pub frontends: BTreeMap<FrontendKey, u32>,
    /// All usable backends, in order.
    pub cluster: Vec<Choice>,
    /// Those on this node, in order.
    pub local: Vec<Choice>,
    /// Backends that take no new flows, but whose flows go on.
    pub kept: Vec<BackendKey>,
    /// Clients its load balancers' addresses admit; empty is everybody.
    pub ranges: BTreeSet<IpNetwork>,
    /// Seconds a client keeps its backend; zero is no affinity.
    pub affinity: u32,
    /// `abi::service::bits` without `LIVE`.
    pub flags: u32,
    /// Second its Service was made.
    pub created: i64,
}

/// A local pod's link as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// What CNI asked for.
    pub endpoint: Endpoint,
    /// `abi::endpoint::link` bits.
    pub flags: u32,
    /// Names, addresses and sizes of both ends.
    pub attachment: Attachment,
    /// What policies let it do; `None` until that is known.
    pub policed: Option<policy::Policed>,
    /// How fast it may be; `None` as long as its Pod is not known.
    pub limits: Option<Limits>,
}

/// Where a prefix of pods is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Behind this node, on one of our links.
    Via(IpAddr),
    /// Behind this node, at the other end of a tunnel.
    Tunnel(IpAddr),
    /// On this node: pods have routes of their own, and an address that no pod has is nowhere. Without this, packets for it
    /// would leave by the default route, and come back.
    Nowhere,
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Via(address) => write!(f, "via {address}"),
            Self::Tunnel(address) => write!(f, "tunnel to {address}"),
            Self::Nowhere => f.write_str("unreachable"),
        }
    }
}

/// A node that cannot be reached, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    /// The node.
    pub node: String,
    /// What is missing.
    pub reason: String,
}

/// Everything that should be in the kernel.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Service ports.
    pub services: BTreeMap<Arc<PortId>, ServiceRow>,
    /// Links of local pods by the name of the host's end.
    pub endpoints: BTreeMap<String, EndpointRow>,
    /// Pod prefixes of all nodes and where they are.
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// The device for tunnels.
    pub overlay: Option<Overlay>,
    /// Ends of tunnels, with the addresses of their nodes that our pods reach through them.
    pub tunnels: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// Prefixes of our own pods, whose packets to those addresses go that way.
    pub rules: BTreeSet<IpNetwork>,
    /// Networks that pods reach under their own addresses, beside the pods'.
    pub unmasked: BTreeSet<IpNetwork>,
    /// Peers without a route.
    pub unreachable: Vec<Unreachable>,
    /// Devices that lead out of the node.
    pub uplinks: BTreeSet<String>,
    /// Zone of this node.
    pub zone: Option<String>,
    /// Every address of the host.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Whether services are known as a whole; until then theirs are left as they are.
    pub services_known: bool,
    /// Whether all endpoints are known: until then none is removed.
    pub endpoints_known: bool,
    /// Whether all nodes are known: until then no route is removed.
    pub nodes_known: bool,
}

/// What the rows of a service depend on beside the service.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Facts of this node.
    pub facts: &'a NodeFacts,
    /// Its zone.
    pub zone: Option<&'a str>,
    /// Every address of the host.
    pub host_addresses: &'a BTreeSet<IpAddr>,
}

impl<'a> View<'a> {
    /// From the tables.
    pub fn of(tables: &'a Snapshot, facts: &'a NodeFacts) -> Self {
        let zone = tables.nodes.get(&facts.name).and_then(|node| node.zone.as_deref());
        Self { facts, zone, host_addresses: &tables.host_addresses }
    }
}

/// Computes everything but services, which are computed one by one.
pub fn node(tables: &Snapshot, facts: &NodeFacts, desired: &mut Desired) {
    let has = |source| tables.synced.contains(&source);
    desired.overlay = peers::overlay(facts, &tables.links);
    let peers = peers::peers(&tables.nodes, facts, &tables.links);
    desired.rules = if peers.tunnels.is_empty() { BTreeSet::new() } else { peers.own };
    desired.unmasked.clone_from(&facts.unmasked);
    // Nodes behind tunnels are reached as pods are: their answers come back the same way.
    desired.unmasked.extend(peers.tunnels.values().flatten().map(|address| IpNetwork::from(*address)));
    (desired.routes, desired.tunnels, desired.unreachable) = (peers.routes, peers.tunnels, peers.unreachable);
    desired.endpoints = endpoints::endpoints(&tables.endpoints, &tables.pods, facts.mtu);
    desired.uplinks.clone_from(&tables.uplinks);
    desired.uplinks.extend(desired.overlay.as_ref().map(|_| overlay::DEVICE.to_owned()));
    desired.zone = tables.nodes.get(&facts.name).and_then(|node| node.zone.clone());
    desired.host_addresses.clone_from(&tables.host_addresses);
    desired.services_known = has(Source::Services) && has(Source::Slices);
    desired.endpoints_known = has(Source::Endpoints);
    desired.nodes_known = has(Source::Nodes);
}
