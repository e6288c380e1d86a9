//! Which endpoints of a service take new flows.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Here;
use super::frontend::Found;
use crate::tables::{Service, SliceEndpoint, Snapshot};

/// The backends of one port in one family.
pub struct Sets {
    /// For clients that may go anywhere.
    pub cluster: BTreeSet<SocketAddr>,
    /// Those on this node.
    pub local: BTreeSet<SocketAddr>,
    /// Rule 3: whether anybody anywhere would answer.
    pub somebody: bool,
}

type Candidate<'a> = (&'a SliceEndpoint, u16);

impl Sets {
    pub fn of(cluster: &Snapshot, here: Here<'_>, found: &Found<'_>, v4: bool) -> Self {
        let all = candidates(cluster, found, v4);
        let node = here.facts.name.as_str();
        let zone = cluster.nodes.get(node).and_then(|node| node.zone.as_deref());
        let ready: Vec<Candidate<'_>> = all.iter().copied().filter(|(endpoint, _)| endpoint.ready).collect();
        let local: Vec<Candidate<'_>> =
            all.iter().copied().filter(|(endpoint, _)| endpoint.node.as_deref() == Some(node)).collect();
        Self {
            // Rule 2: hints are about ready endpoints; who terminates serves everybody.
            cluster: if ready.is_empty() { usable(&all) } else { addresses(&nearby(&ready, node, zone)) },
            local: usable(&local),
            somebody: !usable(&all).is_empty(),
        }
    }
}

/// Endpoints of the port by its name and protocol, whichever slice they are in.
fn candidates<'a>(cluster: &'a Snapshot, found: &Found<'_>, v4: bool) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    for (name, slice) in &cluster.slices {
        if name.namespace != found.owner.namespace || slice.service != found.owner.name {
            continue;
        }
        for (port, protocol, number) in &slice.ports {
            if *port == found.port.name && *protocol == found.port.protocol {
                let own = slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == v4);
                // Weight zero takes no new flows: as if it were not there.
                let takes = own.filter(|endpoint| weight(found.service, endpoint) != 0);
                all.extend(takes.map(|endpoint| (endpoint, *number)));
            }
        }
    }
    all
}

/// Rule 1: the ready ones; where there is none, those that still serve while they terminate.
fn usable(all: &[Candidate<'_>]) -> BTreeSet<SocketAddr> {
    let ready: Vec<Candidate<'_>> = all.iter().copied().filter(|(endpoint, _)| endpoint.ready).collect();
    if !ready.is_empty() {
        return addresses(&ready);
    }
    let serving = all.iter().copied().filter(|(endpoint, _)| endpoint.serving && endpoint.terminating);
    addresses(&serving.collect::<Vec<_>>())
}

/// Rule 2: this node's, if every endpoint has a hint for nodes and one is for this; else this zone's in the same way; else all.
fn nearby<'a>(ready: &[Candidate<'a>], node: &str, zone: Option<&str>) -> Vec<Candidate<'a>> {
    let chosen = |hints: fn(&SliceEndpoint) -> &[String], own: &str| {
        let all_hinted = ready.iter().all(|(endpoint, _)| !hints(endpoint).is_empty());
        let ours: Vec<Candidate<'a>> = ready
            .iter()
            .copied()
            .filter(|(endpoint, _)| hints(endpoint).iter().any(|hint| hint == own))
            .collect();
        (all_hinted && !ours.is_empty()).then_some(ours)
    };
    chosen(SliceEndpoint::nodes, node)
        .or_else(|| chosen(SliceEndpoint::zones, zone?))
        .unwrap_or_else(|| ready.to_vec())
}

fn weight(service: &Service, endpoint: &SliceEndpoint) -> u16 {
    let address = endpoint.address.to_string();
    let names = [endpoint.target.as_deref(), endpoint.node.as_deref(), Some(address.as_str())];
    names.into_iter().flatten().find_map(|name| service.weights.get(name)).copied().unwrap_or(1)
}

fn addresses(candidates: &[Candidate<'_>]) -> BTreeSet<SocketAddr> {
    candidates.iter().map(|(endpoint, port)| SocketAddr::new(endpoint.address, *port)).collect()
}
