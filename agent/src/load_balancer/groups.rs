//! Which Leases there are, what each is about, and whether this node may hold them: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::pools::{Kind, Pool};
use crate::tables::{ObjectName, Rows};

/// The Lease of whoever gives addresses to Services.
pub const GIVER: &str = "hawser-load-balancer";

/// Addresses that one node announces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether this node may announce them.
    pub wanted: bool,
}

/// All groups by the name of their Lease. Addresses of Services with `externalTrafficPolicy: Local` are announced by a node that
/// has a backend; all others of a pool by one node.
pub fn groups(rows: &Rows, pools: &[Pool], node: &str) -> BTreeMap<String, Group> {
    let pools: Vec<&Pool> = pools.iter().filter(|pool| pool.kind == Kind::LoadBalancer).collect();
    let mut groups = BTreeMap::new();
    if pools.is_empty() {
        return groups;
    }
    let stays = !rows.snapshot().nodes.get(node).is_some_and(|own| own.leaving);
    groups.insert(GIVER.to_owned(), Group { addresses: BTreeSet::new(), wanted: stays });
    for (name, service) in rows.balanced() {
        for address in &service.load_balancer_ips {
            let holds = |pool: &&&Pool| pool.cidrs.iter().any(|cidr| cidr.contains(*address));
            let Some(pool) = pools.iter().find(holds).filter(|pool| pool.announce) else { continue };
            let lease = if service.external_local {
                format!("hawser-announce.{}.{}", name.namespace, name.name)
            } else {
                format!("hawser-announce-{}", pool.name)
            };
            let group = groups.entry(lease).or_default();
            group.addresses.insert(*address);
            group.wanted = stays && (!service.external_local || has_backend(rows, name, node));
        }
    }
    groups
}

fn has_backend(rows: &Rows, service: &ObjectName, node: &str) -> bool {
    let mut endpoints = rows.slices_of(service).iter().flat_map(|slice| &slice.endpoints);
    endpoints.any(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tables::{Node, Service, Slice, SliceEndpoint, Snapshot, Tables};

    fn rows() -> Snapshot {
        let name = |name: &str| ObjectName { namespace: "default".into(), name: name.into() };
        let service = |address: &str, external_local| {
            let load_balancer_ips = vec![address.parse().unwrap()];
            Arc::new(Service { load_balancer_ips, external_local, ..Service::default() })
        };
        let endpoint =
            SliceEndpoint { node: Some("n1".into()), ..SliceEndpoint::new("10.244.1.2".parse().unwrap()) };
        let slice = Slice { service: "near".into(), endpoints: vec![endpoint], ports: Vec::new() };
        Snapshot {
            services: BTreeMap::from([
                (name("far"), service("192.0.2.1", false)),
                (name("near"), service("192.0.2.2", true)),
                (name("foreign"), service("203.0.113.1", false)),
            ]),
            slices: BTreeMap::from([(name("near-x"), Arc::new(slice))]),
            ..Snapshot::default()
        }
    }

    fn found(snapshot: Snapshot, pools: &[Pool], node: &str) -> BTreeMap<String, Group> {
        let tables = Tables::default();
        tables.update(|rows| *rows = snapshot);
        tables.consult(|rows| groups(rows, pools, node))
    }

    fn pool(announce: bool) -> Pool {
        Pool {
            name: "a".into(),
            kind: Kind::LoadBalancer,
            cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            block_sizes: Vec::new(),
            auto_assign: true,
            announce,
        }
    }

    #[test]
    fn a_local_service_is_announced_where_it_has_a_backend() {
        let group =
            |address: &str, wanted| Group { addresses: BTreeSet::from([address.parse().unwrap()]), wanted };
        for (node, near) in [("n1", true), ("n2", false)] {
            let found = found(rows(), &[pool(true)], node);
            assert_eq!(found.len(), 3);
            assert_eq!(found["hawser-announce-a"], group("192.0.2.1", true));
            assert_eq!(found["hawser-announce.default.near"], group("192.0.2.2", near));
            assert!(found[GIVER].wanted);
        }
    }

    #[test]
    fn without_pools_there_are_no_leases_and_who_leaves_wants_none() {
        assert!(found(rows(), &[], "n1").is_empty());
        assert_eq!(found(rows(), &[pool(false)], "n1").len(), 1);
        let mut rows = rows();
        rows.nodes.insert("n1".into(), Arc::new(Node { leaving: true, ..Node::default() }));
        assert!(found(rows, &[pool(true)], "n1").values().all(|group| !group.wanted));
    }
}
