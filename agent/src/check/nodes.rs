//! Which nodes take part, and whether who asks is one of them. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;

/// A node that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
}

/// The first node and the other one, or why there is none: those that are named, else those that are Ready.
pub fn choose(nodes: &[Node], named: &[String]) -> Result<(Chosen, Result<Chosen, String>), String> {
    let mut chosen = Vec::new();
    if named.is_empty() {
        chosen.extend(nodes.iter().filter(|node| is_ready(node)).map(describe).take(2));
    }
    for name in named {
        let node = nodes.iter().find(|node| node.metadata.name.as_ref() == Some(name));
        chosen.push(describe(node.ok_or_else(|| format!("there is no node {name}"))?));
    }
    if chosen.len() > 2 || (chosen.len() == 2 && chosen[0] == chosen[1]) {
        return Err("--nodes names one node or two different ones".to_owned());
    }
    let mut chosen = chosen.into_iter();
    let first = chosen.next().ok_or("no node is Ready")?;
    let why = if named.is_empty() { "only one node is Ready" } else { "only one node is named" };
    Ok((first, chosen.next().ok_or_else(|| why.to_owned())))
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn describe(node: &Node) -> Chosen {
    Chosen {
        name: node.metadata.name.clone().unwrap_or_default(),
        addresses: addresses(node, "InternalIP").collect(),
    }
}

fn addresses(node: &Node, only: &str) -> impl Iterator<Item = IpAddr> {
    let listed = node.status.as_ref().and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    listed.filter(move |address| address.type_ == only).filter_map(|address| address.address.parse().ok())
}

/// Why the machine with these addresses is not outside of the cluster, if it is not.
pub fn not_outside(nodes: &[Node], own: &BTreeSet<IpAddr>) -> Option<String> {
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if ["InternalIP", "ExternalIP"].iter().any(|kind| addresses(node, kind).any(|one| own.contains(&one)))
        {
            return Some(format!("check runs on {name}; on a machine that is no node it asks from outside"));
        }
        let networks = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
        let networks: Vec<IpNetwork> = networks.filter_map(|network| network.parse().ok()).collect();
        if own.iter().any(|address| networks.iter().any(|network| network.contains(*address))) {
            return Some("check runs in a pod; on a machine that is no node it asks from outside".to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: bool, address: &str) -> Node {
        let status = if ready { "True" } else { "Unknown" };
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "podCIDRs": [format!("10.244.{}.0/24", &name[1..])] },
            "status": {
                "conditions": [{ "type": "Ready", "status": status }],
                "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": address }],
            },
        }))
        .unwrap()
    }

    fn cluster() -> [Node; 3] {
        [node("n1", false, "192.0.2.1"), node("n2", true, "192.0.2.2"), node("n3", true, "192.0.2.3")]
    }

    fn named(names: &[&str]) -> Result<(String, Result<String, String>), String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&cluster(), &names).map(|(first, other)| (first.name, other.map(|other| other.name)))
    }

    #[test]
    fn nodes_that_are_ready_are_taken_or_those_that_are_named() {
        assert_eq!(named(&[]), Ok(("n2".to_owned(), Ok("n3".to_owned()))));
        assert_eq!(named(&["n3", "n1"]), Ok(("n3".to_owned(), Ok("n1".to_owned()))));
        assert_eq!(named(&["n1"]), Ok(("n1".to_owned(), Err("only one node is named".to_owned()))));
        assert_eq!(named(&["n9"]), Err("there is no node n9".to_owned()));
        assert!(named(&["n1", "n1"]).is_err() && named(&["n1", "n2", "n3"]).is_err());
        let (first, other) = choose(&cluster()[..2], &[]).unwrap();
        assert_eq!((first.addresses.len(), other.is_err()), (1, true));
        assert!(choose(&cluster()[..1], &[]).is_err());
    }

    #[test]
    fn nodes_and_pods_are_not_outside() {
        let own = |text: &str| BTreeSet::from([text.parse().unwrap()]);
        let on_node = not_outside(&cluster(), &own("192.0.2.3")).unwrap();
        assert!(on_node.contains("on n3"), "{on_node}");
        assert!(not_outside(&cluster(), &own("10.244.1.9")).unwrap().contains("in a pod"));
        assert_eq!(not_outside(&cluster(), &own("192.0.2.200")), None);
    }
}
