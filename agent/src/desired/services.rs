//! Services and EndpointSlices into frontends and backends, by kube-proxy's rules.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use abi::service::{FrontendKey, bits, frontend};
use abi::{Addr16, Be16};
use ipnetwork::IpNetwork;

use super::backends::{Backends, backends};
use super::{PortId, ServiceRow, View, node_ports};
use crate::tables::{Balancing, ObjectName, Service, ServicePort, Slice};

/// The rows of one Service, as this node serves it.
pub fn service(
    name: &ObjectName,
    service: &Service,
    slices: &[Arc<Slice>],
    view: View<'_>,
) -> BTreeMap<PortId, ServiceRow> {
    let mut rows = BTreeMap::new();
    for v4 in [true, false] {
        // Other addresses of a family the service does not have are not its own.
        if !service.cluster_ips.iter().any(|address| address.is_ipv4() == v4) {
            continue;
        }
        let mut whole = addresses(service, view, v4);
        let ranges = ranges(service, view, v4);
        for port in &service.ports {
            let id = PortId { service: name.clone(), port: port.name.clone(), protocol: port.protocol, v4 };
            let Entry::Vacant(place) = rows.entry(id) else { continue };
            let mut frontends = frontends(service, port, view, v4, !ranges.is_empty());
            // The rows of the addresses themselves go with the first port.
            frontends.append(&mut whole);
            let has_ranges = frontends.values().any(|bits| bits & frontend::SOURCE_RANGES != 0);
            let Backends { cluster, local, kept, somebody } = backends(service, port, slices, view, v4);
            place.insert(ServiceRow {
                frontends,
                cluster,
                local,
                kept,
                ranges: if has_ranges { ranges.iter().copied().collect() } else { [].into() },
                affinity: service.affinity,
                flags: flags(service) | if somebody { bits::SOMEBODY } else { 0 },
                created: service.created,
            });
        }
    }
    rows
}

fn flags(service: &Service) -> u32 {
    let bit = |set, bit| if set { bit } else { 0 };
    bit(service.balancing == Balancing::Maglev, bits::HASH)
        | bit(service.balancing == Balancing::LeastConnections, bits::LEAST)
        | bit(service.dsr, bits::DSR)
        | bit(service.no_sockets, bits::NO_SOCKETS)
}

/// Rows of the addresses themselves. The host's own are left out: their other ports are the host's. Other ports of external
/// addresses are left alone, and may be somebody else's; those of virtual addresses are refused.
fn addresses(service: &Service, view: View<'_>, v4: bool) -> BTreeMap<FrontendKey, u32> {
    let all = service.cluster_ips.iter().chain(&service.load_balancer_ips).chain(&service.external_ips);
    all.filter(|address| address.is_ipv4() == v4 && !node_ports::is_own(view, address))
        .map(|address| {
            let external = if service.cluster_ips.contains(address) { 0 } else { frontend::EXTERNAL };
            (key(address, 0, 0), frontend::ADDRESS | external)
        })
        .collect()
}

fn frontends(
    service: &Service,
    port: &ServicePort,
    view: View<'_>,
    v4: bool,
    has_ranges: bool,
) -> BTreeMap<FrontendKey, u32> {
    let bit = |set, bit| if set { bit } else { 0 };
    let proto = port.protocol.number();
    let external = frontend::EXTERNAL | bit(service.external_local, frontend::EXTERNAL_LOCAL);
    let of_family = |address: &&IpAddr| address.is_ipv4() == v4;
    let mut all = BTreeMap::new();
    if let Some(number) = port.node_port {
        let own = node_ports::addresses(view, v4);
        all.extend(own.iter().map(|(address, bits)| (key(address, number, proto), external | bits)));
    }
    let on_port = |address: &IpAddr| key(address, port.port, proto);
    // Where an address is of several kinds, the last counts.
    all.extend(service.external_ips.iter().filter(of_family).map(|address| (on_port(address), external)));
    let admitted = external | bit(has_ranges, frontend::SOURCE_RANGES);
    all.extend(
        service.load_balancer_ips.iter().filter(of_family).map(|address| (on_port(address), admitted)),
    );
    let internal = bit(service.internal_local, frontend::INTERNAL_LOCAL);
    all.extend(service.cluster_ips.iter().filter(of_family).map(|address| (on_port(address), internal)));
    all
}

fn key(address: &IpAddr, number: u16, proto: u8) -> FrontendKey {
    FrontendKey { addr: Addr16::from(*address), port: Be16::new(number), proto, zero: 0 }
}

/// The clients that load balancers' addresses of one family admit; empty is everybody.
///
/// A node that is inside may come with the address itself as source, where that is on one of its devices.
fn ranges(service: &Service, view: View<'_>, v4: bool) -> Vec<IpNetwork> {
    let own: Vec<IpNetwork> =
        service.source_ranges.iter().copied().filter(|range| range.is_ipv4() == v4).collect();
    if own.iter().any(|range| range.prefix() == 0) {
        return Vec::new();
    }
    let admits_node = view.facts.addresses.iter().any(|node| own.iter().any(|range| range.contains(*node)));
    let itself = service
        .load_balancer_ips
        .iter()
        .filter(|address| admits_node && address.is_ipv4() == v4)
        .map(|address| IpNetwork::from(*address));
    own.iter()
        .map(|range| IpNetwork::new(range.network(), range.prefix()).unwrap_or(*range))
        .chain(itself)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::desired::NodeFacts;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn full() -> Service {
        Service {
            cluster_ips: vec![ip("10.96.0.10"), ip("fd00:96::a")],
            external_ips: vec![ip("198.51.100.7")],
            load_balancer_ips: vec![ip("203.0.113.9")],
            ports: vec![ServicePort { port: 80, node_port: Some(30080), ..ServicePort::default() }],
            ..Service::default()
        }
    }

    fn shown(service_row: &Service) -> (Vec<String>, Vec<String>) {
        let facts = NodeFacts { addresses: vec![ip("192.0.2.1")], ..NodeFacts::default() };
        let host = BTreeSet::from([ip("192.0.2.1"), ip("198.51.100.8")]);
        let view = View { facts: &facts, zone: None, host_addresses: &host };
        let name = ObjectName { namespace: "default".into(), name: "web".into() };
        let (mut frontends, mut ranges) = (Vec::new(), Vec::new());
        for row in service(&name, service_row, &[], view).into_values() {
            frontends.extend(row.frontends.iter().map(|(key, bits)| {
                format!("{} {} {bits}", std::net::SocketAddr::new(key.addr.ip(), key.port.host()), key.proto)
            }));
            ranges.extend(row.ranges.iter().map(ToString::to_string));
        }
        frontends.sort();
        (frontends, ranges)
    }

    #[test]
    fn every_kind_of_address_has_its_rows_and_bits() {
        let (frontends, ranges) = shown(&Service { internal_local: true, external_local: true, ..full() });
        assert_eq!(
            frontends,
            [
                "10.96.0.10:0 0 32",
                "10.96.0.10:80 6 1",
                "127.0.0.1:30080 6 22",
                "192.0.2.1:30080 6 6",
                "198.51.100.7:0 0 36",
                "198.51.100.7:80 6 6",
                "203.0.113.9:0 0 36",
                "203.0.113.9:80 6 6",
                "[::1]:30080 6 22",
                "[fd00:96::a]:0 0 32",
                "[fd00:96::a]:80 6 1",
            ]
        );
        assert!(ranges.is_empty());
    }

    #[test]
    fn an_address_of_the_host_has_no_row_of_its_own() {
        let (frontends, _) = shown(&Service { external_ips: vec![ip("198.51.100.8")], ..full() });
        assert!(frontends.contains(&"198.51.100.8:80 6 4".to_owned()));
        assert!(!frontends.iter().any(|row| row.starts_with("198.51.100.8:0 ")));
    }

    #[test]
    fn source_ranges_are_for_load_balancers_of_their_family() {
        let ranged = |texts: &[&str]| {
            shown(&Service {
                source_ranges: texts.iter().map(|text| text.parse().unwrap()).collect(),
                ..full()
            })
        };
        let (frontends, ranges) = ranged(&["198.18.0.1/16"]);
        let with: Vec<&String> = frontends.iter().filter(|line| line.ends_with(" 12")).collect();
        assert_eq!(with, ["203.0.113.9:80 6 12"]);
        assert_eq!(ranges, ["198.18.0.0/16"]);
        // The node is inside: the address itself may ask.
        assert_eq!(ranged(&["192.0.2.0/24"]).1, ["192.0.2.0/24", "203.0.113.9/32"]);
        // All of a family opens it; another family's ranges say nothing.
        for open in [&["198.18.0.0/16", "0.0.0.0/0"][..], &["2001:db8::/32"]] {
            let (frontends, ranges) = ranged(open);
            assert!(ranges.is_empty());
            assert!(frontends.contains(&"203.0.113.9:80 6 4".to_owned()), "{open:?}");
        }
    }

    #[test]
    fn addresses_of_a_family_the_service_does_not_have_are_not_served() {
        let (frontends, _) = shown(&Service { cluster_ips: vec![ip("fd00:96::a")], ..full() });
        assert_eq!(frontends, ["[::1]:30080 6 20", "[fd00:96::a]:0 0 32", "[fd00:96::a]:80 6 0"]);
    }

    #[test]
    fn annotations_become_bits() {
        let facts = NodeFacts::default();
        let view = View { facts: &facts, zone: None, host_addresses: &BTreeSet::new() };
        let name = ObjectName { namespace: "default".into(), name: "web".into() };
        for (row, want) in [
            (Service { balancing: Balancing::Maglev, ..full() }, bits::HASH),
            (Service { balancing: Balancing::LeastConnections, ..full() }, bits::LEAST),
            (Service { dsr: true, ..full() }, bits::DSR),
            (Service { no_sockets: true, ..full() }, bits::NO_SOCKETS),
        ] {
            assert!(service(&name, &row, &[], view).values().all(|row| row.flags == want));
        }
    }
}
