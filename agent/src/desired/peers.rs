//! Nodes into routes: the pods of others are reached through their node address where that is on one of our links.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{Hop, NodeFacts, Unreachable};
use crate::tables::Node;

/// Routes to the pods of every node, and the nodes that have none.
pub fn routes(
    nodes: &BTreeMap<String, Arc<Node>>,
    facts: &NodeFacts,
) -> (BTreeMap<IpNetwork, Hop>, Vec<Unreachable>) {
    let mut routes = BTreeMap::new();
    let mut unreachable = Vec::new();
    for (name, node) in nodes {
        for cidr in &node.pod_cidrs {
            if *name == facts.name {
                routes.insert(*cidr, Hop::Nowhere);
                continue;
            }
            match gateway(node, cidr, facts) {
                Ok(gateway) => {
                    routes.insert(*cidr, Hop::Via(gateway));
                }
                Err(reason) => unreachable.push(Unreachable { node: name.clone(), reason }),
            }
        }
    }
    (routes, unreachable)
}

fn gateway(node: &Node, cidr: &IpNetwork, facts: &NodeFacts) -> Result<IpAddr, String> {
    let family = if cidr.is_ipv4() { "IPv4" } else { "IPv6" };
    let address = node
        .addresses
        .iter()
        .find(|address| address.is_ipv4() == cidr.is_ipv4())
        .ok_or_else(|| format!("{cidr}: the node has no {family} address"))?;
    if facts.on_link.iter().any(|link| link.contains(*address)) {
        Ok(*address)
    } else {
        Err(format!("{cidr}: {address} is on none of this node's links, and overlays are not built yet"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_on_our_link_is_routed_and_another_is_reported() {
        let node = |address: &str, cidr: &str| {
            Arc::new(Node {
                addresses: vec![address.parse().unwrap()],
                pod_cidrs: vec![cidr.parse().unwrap()],
                ..Node::default()
            })
        };
        let nodes = BTreeMap::from([
            ("n1".to_owned(), node("192.0.2.1", "10.244.0.0/24")),
            ("n2".to_owned(), node("192.0.2.2", "10.244.1.0/24")),
            ("n3".to_owned(), node("198.51.100.3", "10.244.2.0/24")),
        ]);
        let facts = NodeFacts {
            name: "n1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            on_link: vec!["192.0.2.0/24".parse().unwrap()],
            mtu: 1500,
            ..NodeFacts::default()
        };
        let (routes, unreachable) = routes(&nodes, &facts);
        assert_eq!(
            routes,
            BTreeMap::from([
                ("10.244.0.0/24".parse().unwrap(), Hop::Nowhere),
                ("10.244.1.0/24".parse().unwrap(), Hop::Via("192.0.2.2".parse().unwrap())),
            ])
        );
        assert_eq!(unreachable[0].node, "n3");
    }
}
