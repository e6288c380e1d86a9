//! Services and who answers for them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Protocol;

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
