//! Services and EndpointSlices into frontends and backends, by kube-proxy's rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::service::{FrontendKey, frontend};
use abi::{Addr16, Be16};

use super::{BackendKey, NodeFacts, PortId, ServiceRow};
use crate::tables::{Protocol, Service, ServicePort, Slice, SliceEndpoint, Snapshot};

/// All service ports of the cluster, as this node serves them.
pub fn services(tables: &Snapshot, facts: &NodeFacts) -> BTreeMap<PortId, ServiceRow> {
    let mut slices: BTreeMap<(&str, &str), Vec<&Arc<Slice>>> = BTreeMap::new();
    for (name, slice) in &tables.slices {
        slices.entry((&name.namespace, &slice.service)).or_default().push(slice);
    }
    let mut rows = BTreeMap::new();
    for (name, service) in &tables.services {
        let own = slices.get(&(name.namespace.as_str(), name.name.as_str())).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            for v4 in [true, false] {
                let frontends = frontends(service, port, facts, v4);
                if frontends.is_empty() {
                    continue;
                }
                let id =
                    PortId { service: name.clone(), port: port.name.clone(), protocol: port.protocol, v4 };
                let row = ServiceRow { affinity: service.affinity, ..row(frontends, port, own, facts, v4) };
                rows.insert(id, row);
            }
        }
    }
    rows
}

fn row(
    frontends: BTreeMap<FrontendKey, u32>,
    port: &ServicePort,
    slices: &[&Arc<Slice>],
    facts: &NodeFacts,
    v4: bool,
) -> ServiceRow {
    let candidates: Vec<(&SliceEndpoint, u16)> = slices
        .iter()
        .flat_map(|slice| {
            let number = port_number(slice, &port.name, port.protocol);
            slice.endpoints.iter().filter_map(move |endpoint| Some((endpoint, number?)))
        })
        .filter(|(endpoint, _)| endpoint.address.is_ipv4() == v4)
        .collect();
    let is_local = |endpoint: &SliceEndpoint| endpoint.node.as_deref() == Some(facts.name.as_str());
    ServiceRow {
        frontends,
        cluster: usable(candidates.iter().copied()),
        local: usable(candidates.iter().copied().filter(|(endpoint, _)| is_local(endpoint))),
        affinity: 0,
    }
}

fn port_number(slice: &Slice, name: &str, protocol: Protocol) -> Option<u16> {
    slice.ports.iter().find(|(own, proto, _)| own == name && *proto == protocol).map(|(_, _, number)| *number)
}

/// Ready endpoints; where there is none, those that still serve while they terminate.
fn usable<'a>(candidates: impl Iterator<Item = (&'a SliceEndpoint, u16)> + Clone) -> BTreeSet<BackendKey> {
    let key = |(endpoint, port): (&SliceEndpoint, u16)| (Addr16::from(endpoint.address), Be16::new(port));
    let ready: BTreeSet<_> = candidates.clone().filter(|(endpoint, _)| endpoint.ready).map(key).collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates.filter(|(endpoint, _)| endpoint.serving && endpoint.terminating).map(key).collect()
}

fn frontends(
    service: &Service,
    port: &ServicePort,
    facts: &NodeFacts,
    v4: bool,
) -> BTreeMap<FrontendKey, u32> {
    let internal = if service.internal_local { frontend::INTERNAL_LOCAL } else { 0 };
    let external = if service.external_local { frontend::EXTERNAL_LOCAL } else { 0 };
    let key = |address: &IpAddr, number: u16| FrontendKey {
        addr: Addr16::from(*address),
        port: Be16::new(number),
        proto: port.protocol.number(),
        zero: 0,
    };
    let of_family = |address: &&IpAddr| address.is_ipv4() == v4;
    let mut all: BTreeMap<FrontendKey, u32> = service
        .cluster_ips
        .iter()
        .filter(of_family)
        .map(|address| (key(address, port.port), internal))
        .collect();
    // A service with one family has no NodePort in the other.
    if let (Some(number), false) = (port.node_port, all.is_empty()) {
        all.extend(
            facts
                .addresses
                .iter()
                .filter(of_family)
                .map(|address| (key(address, number), frontend::EXTERNAL | external)),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::ObjectName;

    fn endpoint(address: &str, ready: bool, terminating: bool, node: &str) -> SliceEndpoint {
        SliceEndpoint {
            ready,
            serving: ready || terminating,
            terminating,
            node: Some(node.to_owned()),
            ..SliceEndpoint::new(address.parse().unwrap())
        }
    }

    fn tables(endpoints: Vec<SliceEndpoint>) -> Snapshot {
        let name = ObjectName { namespace: "default".into(), name: "web".into() };
        let service = Service {
            cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
            ports: vec![ServicePort {
                name: String::new(),
                port: 80,
                protocol: Protocol::Tcp,
                node_port: Some(30080),
            }],
            ..Service::default()
        };
        let slice =
            Slice { service: "web".into(), endpoints, ports: vec![(String::new(), Protocol::Tcp, 8080)] };
        let mut tables = Snapshot::default();
        tables.services.insert(name.clone(), Arc::new(service));
        tables.slices.insert(name, Arc::new(slice));
        tables
    }

    fn facts() -> NodeFacts {
        NodeFacts {
            name: "n1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            on_link: Vec::new(),
            mtu: 1500,
            ..NodeFacts::default()
        }
    }

    #[test]
    fn each_family_has_its_own_backends_and_its_own_frontends() {
        let tables = tables(vec![
            endpoint("10.244.0.5", true, false, "n1"),
            endpoint("fd00:244::5", true, false, "n2"),
        ]);
        let rows = services(&tables, &facts());
        assert_eq!(rows.len(), 2);
        for (id, row) in rows {
            assert_eq!(row.cluster.len(), 1);
            assert_eq!(row.cluster.first().unwrap().0.is_v4(), id.v4);
            assert_eq!(row.local.len(), usize::from(id.v4), "only the IPv4 endpoint is on this node");
            assert_eq!(row.frontends.len(), if id.v4 { 2 } else { 1 }, "the node has no IPv6 address");
        }
    }

    #[test]
    fn terminating_endpoints_serve_only_when_nobody_is_ready() {
        let both = tables(vec![
            endpoint("10.244.0.5", true, false, "n1"),
            endpoint("10.244.0.6", false, true, "n1"),
        ]);
        let one = tables(vec![endpoint("10.244.0.6", false, true, "n1")]);
        let cluster =
            |tables: &Snapshot| services(tables, &facts()).into_values().next_back().unwrap().cluster;
        assert_eq!(cluster(&both).first().unwrap().0.ip().to_string(), "10.244.0.5");
        assert_eq!(cluster(&both).len(), 1);
        assert_eq!(cluster(&one).first().unwrap().0.ip().to_string(), "10.244.0.6");
    }
}
