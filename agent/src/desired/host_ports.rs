//! Ports of the host that lead to a pod of this node: services with one backend.

use abi::service::{FrontendKey, bits, frontend};
use abi::{Addr16, Be16};

use super::{Choice, PortId, ServiceRow, View, node_ports};
use crate::tables::{Endpoint, HostPort, ObjectName, Snapshot};

/// What no name of a service's port begins with.
pub const PREFIX: &str = "host:";

/// The rows of all pods.
pub fn host_ports(tables: &Snapshot, view: View<'_>) -> Vec<(PortId, ServiceRow)> {
    let mut rows = Vec::new();
    for endpoint in tables.endpoints.values() {
        for port in &endpoint.host_ports {
            rows.extend([true, false].into_iter().filter_map(|v4| row(endpoint, port, view, v4)));
        }
    }
    rows
}

fn row(endpoint: &Endpoint, port: &HostPort, view: View<'_>, v4: bool) -> Option<(PortId, ServiceRow)> {
    let pod = endpoint.addresses.iter().find(|address| address.is_ipv4() == v4)?;
    let on = match port.host_ip {
        Some(address) => vec![(address, 0)],
        None => node_ports::addresses(view, v4),
    };
    let key = |address| FrontendKey {
        addr: Addr16::from(address),
        port: Be16::new(port.host_port),
        proto: port.protocol.number(),
        zero: 0,
    };
    let of_family = on.into_iter().filter(|(address, _)| address.is_ipv4() == v4);
    let frontends: std::collections::BTreeMap<_, _> = of_family
        .map(|(address, bits)| {
            let bits = if address.is_loopback() { frontend::HOST_ONLY } else { bits };
            (key(address), frontend::EXTERNAL | bits)
        })
        .collect();
    if frontends.is_empty() {
        return None;
    }
    let backend = (Addr16::from(*pod), Be16::new(port.container_port));
    let choice = vec![Choice { backend, weight: 1 }];
    let id = PortId {
        service: ObjectName { namespace: endpoint.pod_namespace.clone(), name: endpoint.pod_name.clone() },
        port: format!(
            "{PREFIX}{}{}",
            port.host_ip.map(|ip| format!("{ip}:")).unwrap_or_default(),
            port.host_port
        ),
        protocol: port.protocol,
        v4,
    };
    let row = ServiceRow {
        frontends,
        cluster: choice.clone(),
        local: choice,
        flags: bits::SOMEBODY,
        // Whoever is a Service was here first.
        created: i64::MAX,
        ..ServiceRow::default()
    };
    Some((id, row))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::desired::NodeFacts;
    use crate::tables::Protocol;

    #[test]
    fn a_port_is_on_its_address_or_on_all_that_node_ports_have() {
        let facts = NodeFacts {
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ..NodeFacts::default()
        };
        let host_addresses = BTreeSet::new();
        let view = View { facts: &facts, zone: None, host_addresses: &host_addresses };
        let shown = |host_ip: Option<&str>| {
            let endpoint = Endpoint {
                addresses: vec!["10.244.0.5".parse().unwrap(), "fd00:244::5".parse().unwrap()],
                host_ports: vec![HostPort {
                    host_ip: host_ip.map(|ip| ip.parse().unwrap()),
                    host_port: 8080,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                }],
                ..Endpoint::default()
            };
            let mut tables = Snapshot::default();
            tables.endpoints.insert(endpoint.id(), endpoint);
            let all = host_ports(&tables, view).into_iter().flat_map(|(_, row)| {
                let to = row.cluster[0].backend.0.ip();
                row.frontends.into_iter().map(move |(key, bits)| format!("{} {bits} {to}", key.addr.ip()))
            });
            all.collect::<Vec<_>>()
        };
        assert_eq!(
            shown(None),
            [
                "127.0.0.1 20 10.244.0.5",
                "192.0.2.1 4 10.244.0.5",
                "::1 20 fd00:244::5",
                "2001:db8::1 4 fd00:244::5"
            ]
        );
        assert_eq!(shown(Some("192.0.2.1")), ["192.0.2.1 4 10.244.0.5"]);
    }
}
