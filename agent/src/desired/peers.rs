//! Nodes into routes: the pods of a node are reached through its address where that is on one of our links, and through a
//! tunnel where it is not. Each peer is decided by itself, and each family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::overlay::{Overlay, When};
use super::{Hop, NodeFacts, Unreachable};
use crate::tables::{Links, Node};

/// How all nodes are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// Where the pods of every node are.
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// Ends of the tunnels, with the addresses of their nodes that our pods reach through them.
    pub tunnels: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// Prefixes of our own pods: what they send to those addresses goes through the tunnels.
    pub own: BTreeSet<IpNetwork>,
    /// Nodes that have no route.
    pub unreachable: Vec<Unreachable>,
}

/// The device for tunnels of this node, wherever there may be some: peers may use it that share a link with us by our
/// reckoning, but not by theirs.
pub fn overlay(facts: &NodeFacts, links: &Links) -> Option<Overlay> {
    if facts.tunnelling.when == When::Never {
        return None;
    }
    // An uplink that is away for a moment takes no tunnel along.
    let mtu = if links.mtu == 0 { facts.mtu } else { links.mtu };
    // Every node decides alike: IPv4 where it can.
    let local = facts.addresses.iter().min_by_key(|address| address.is_ipv6())?;
    Some(Overlay::new(*local, facts.tunnelling, mtu))
}

/// Decides about every node.
pub fn peers(nodes: &BTreeMap<String, Arc<Node>>, facts: &NodeFacts, links: &Links) -> Peers {
    let overlay = overlay(facts, links);
    let mut peers = Peers::default();
    for (name, node) in nodes {
        for cidr in &node.pod_cidrs {
            if *name == facts.name {
                peers.routes.insert(*cidr, Hop::Nowhere);
                peers.own.insert(*cidr);
                continue;
            }
            match hop(node, *cidr, overlay.as_ref(), facts.tunnelling.when, links) {
                Ok(hop) => {
                    peers.routes.insert(*cidr, hop);
                    if let Hop::Tunnel(end) = hop {
                        let beside = node.addresses.iter().filter(|own| own.is_ipv4() == cidr.is_ipv4());
                        peers.tunnels.entry(end).or_default().extend(beside);
                    }
                }
                Err(reason) => peers.unreachable.push(Unreachable { node: name.clone(), reason }),
            }
        }
    }
    peers
}

fn hop(
    node: &Node,
    cidr: IpNetwork,
    overlay: Option<&Overlay>,
    when: When,
    links: &Links,
) -> Result<Hop, String> {
    let beside = node
        .addresses
        .iter()
        .filter(|address| address.is_ipv4() == cidr.is_ipv4())
        .find(|address| links.on_link.iter().any(|link| link.contains(**address)));
    if let (Some(address), When::Auto | When::Never) = (beside, when) {
        return Ok(Hop::Via(*address));
    }
    let Some(overlay) = overlay else {
        return Err(format!(
            "{cidr}: the node is on none of this node's links, and tunnels are switched off"
        ));
    };
    let v4 = overlay.local.is_ipv4();
    let family = if v4 { "IPv4" } else { "IPv6" };
    let end = node.addresses.iter().find(|address| address.is_ipv4() == v4).ok_or_else(|| {
        format!("{cidr}: tunnels of this node are over {family}, and the node has no such address")
    })?;
    Ok(Hop::Tunnel(*end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::overlay::Tunnelling;

    fn node(addresses: &[&str], cidrs: &[&str]) -> Arc<Node> {
        Arc::new(Node {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pod_cidrs: cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            ..Node::default()
        })
    }

    fn decide(when: When, own: &[&str], link: &[&str], peer: &[&str]) -> Peers {
        let cidrs = ["10.244.1.0/24", "fd00:244:0:1::/64"];
        let nodes = BTreeMap::from([
            ("n1".to_owned(), node(own, &["10.244.0.0/24"])),
            ("n2".to_owned(), node(peer, &cidrs)),
        ]);
        let facts = NodeFacts {
            name: "n1".into(),
            addresses: own.iter().map(|text| text.parse().unwrap()).collect(),
            tunnelling: Tunnelling { when, ..Tunnelling::default() },
            ..NodeFacts::default()
        };
        let on_link = link.iter().map(|text| text.parse().unwrap()).collect();
        peers(&nodes, &facts, &Links { on_link, mtu: 1500, looked: 0 })
    }

    #[test]
    fn every_peer_is_decided_by_its_addresses_and_our_links() {
        const DUAL: &[&str] = &["192.0.2.1", "2001:db8::1"];
        const LINKS: &[&str] = &["192.0.2.1/24", "2001:db8::1/64"];
        let none = "none";
        // Our addresses, our links, those of the peer; where its pods of both families are, and what is routed beside them.
        for (when, own, links, peer, v4, v6, beside) in [
            (When::Auto, DUAL, LINKS, &["192.0.2.2", "2001:db8::2"][..], "192.0.2.2", "2001:db8::2", 0),
            (When::Auto, DUAL, LINKS, &["192.0.2.2"], "192.0.2.2", "tunnel 192.0.2.2", 0),
            (
                When::Auto,
                DUAL,
                LINKS,
                &["198.51.100.2", "2001:db8::2"],
                "tunnel 198.51.100.2",
                "2001:db8::2",
                1,
            ),
            (When::Auto, DUAL, LINKS, &["2001:db8:1::2"], none, none, 0),
            (
                When::Auto,
                &DUAL[1..],
                LINKS,
                &["2001:db8:1::2"],
                "tunnel 2001:db8:1::2",
                "tunnel 2001:db8:1::2",
                1,
            ),
            (When::Auto, DUAL, &[], &["192.0.2.2", "2001:db8::2"], "tunnel 192.0.2.2", "tunnel 192.0.2.2", 2),
            (
                When::Always,
                DUAL,
                LINKS,
                &["192.0.2.2", "2001:db8::2"],
                "tunnel 192.0.2.2",
                "tunnel 192.0.2.2",
                2,
            ),
            (When::Never, DUAL, LINKS, &["192.0.2.2", "2001:db8:1::2"], "192.0.2.2", none, 0),
        ] {
            let decided = decide(when, own, links, peer);
            let said = |cidr: &str| match decided.routes.get(&cidr.parse().unwrap()) {
                Some(Hop::Via(address)) => address.to_string(),
                Some(Hop::Tunnel(end)) => format!("tunnel {end}"),
                Some(Hop::Nowhere) => "nowhere".to_owned(),
                None => none.to_owned(),
            };
            let shown = format!("{when:?} {own:?} on {links:?} to {peer:?}: {decided:?}");
            assert_eq!(
                (said("10.244.1.0/24"), said("fd00:244:0:1::/64")),
                (v4.to_owned(), v6.to_owned()),
                "{shown}"
            );
            assert_eq!(decided.tunnels.values().map(BTreeSet::len).sum::<usize>(), beside, "{shown}");
            let unreached = [v4, v6].into_iter().filter(|hop| *hop == none).count();
            assert_eq!(decided.unreachable.len(), unreached, "{shown}");
            assert_eq!(said("10.244.0.0/24"), "nowhere", "{shown}");
        }
    }
}
