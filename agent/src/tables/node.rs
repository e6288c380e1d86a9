//! Nodes, and the links of this one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::policy::Labels;

/// The fields of a Node that reach the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Its addresses of other kinds.
    pub outer_addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Prefixes of its pods.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Whether it is about to go: deleted, or tainted by the cluster autoscaler.
    pub leaving: bool,
}

impl Node {
    /// Its addresses of every kind.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().chain(&self.outer_addresses).copied()
    }
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
