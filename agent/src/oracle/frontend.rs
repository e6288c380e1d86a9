//! Whose address and port a packet asks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{Ask, Client, Here, Kind, Packet};
use crate::desired::NodePortAddresses;
use crate::tables::{Endpoint, HostPort, ObjectName, Service, ServicePort, Snapshot};

/// What is found behind a destination.
pub enum Asked<'a> {
    /// A port of a service.
    Frontend(Found<'a>),
    /// A port of the host that a pod of this node has taken.
    HostPort(&'a Endpoint, &'a HostPort),
    /// An address of a service of this kind, and none of its ports.
    Address(Kind),
    /// An address that only services may have, and none has it.
    Unallocated,
    /// Nothing of ours.
    Nothing,
}

/// A port of a service, as it was asked for.
pub struct Found<'a> {
    pub owner: &'a ObjectName,
    pub service: &'a Service,
    pub port: &'a ServicePort,
    pub kind: Kind,
}

/// Looks for the destination of `packet` among the services.
pub fn find<'a>(cluster: &'a Snapshot, here: Here<'_>, packet: &Packet) -> Asked<'a> {
    let mut address = None;
    let node_port = answers_node_ports(cluster, here, packet);
    let mut found = None;
    for (owner, service) in &cluster.services {
        // Rule 15: headless services, and families a service does not have.
        if !service.cluster_ips.iter().any(|own| own.is_ipv4() == packet.dst.is_ipv4()) {
            continue;
        }
        let virtual_kind = virtual_kind(service, packet.dst);
        // The host's own addresses answer for themselves.
        if !is_own(cluster, here, packet.dst) {
            address = [address, virtual_kind].into_iter().flatten().min_by_key(|kind| rank(*kind));
        }
        for port in &service.ports {
            let Some(kind) = kind(service, port, packet, virtual_kind, node_port) else {
                continue;
            };
            let better = found.as_ref().is_none_or(|known: &Found<'_>| rank(kind) < rank(known.kind));
            if better {
                found = Some(Found { owner, service, port, kind });
            }
        }
    }
    match found {
        Some(found) => Asked::Frontend(found),
        None if let Some((pod, port)) = host_port(cluster, packet, node_port) => Asked::HostPort(pod, port),
        None if let Some(kind) = address => Asked::Address(kind),
        None if here.services.iter().any(|prefix| prefix.contains(packet.dst)) => Asked::Unallocated,
        None => Asked::Nothing,
    }
}

impl Found<'_> {
    /// Rule 8: whether the client is in the source ranges, which count for load balancers' addresses only. They are split by
    /// family; a family without one is open, and so is one with all of its addresses.
    ///
    /// A node that is inside may also ask with the address itself, when it has that on one of its devices.
    pub fn admits(&self, here: Here<'_>, packet: &Packet) -> bool {
        let own: Vec<&IpNetwork> = self
            .service
            .source_ranges
            .iter()
            .filter(|range| range.is_ipv4() == packet.dst.is_ipv4())
            .collect();
        self.kind != Kind::LoadBalancer
            || own.is_empty()
            || own.iter().any(|range| range.prefix() == 0 || range.contains(packet.src))
            || packet.src == packet.dst
                && here.facts.addresses.iter().any(|node| own.iter().any(|range| range.contains(*node)))
    }
}

/// A pod that has taken the port: of the address it names, or of all that NodePorts answer on. Whoever is a service was here
/// first.
fn host_port<'a>(
    cluster: &'a Snapshot,
    packet: &Packet,
    node_port: bool,
) -> Option<(&'a Endpoint, &'a HostPort)> {
    let Ask::Port(protocol, number) = packet.ask else {
        return None;
    };
    let answers = |port: &HostPort| match port.host_ip {
        Some(address) => address == packet.dst && (!address.is_loopback() || packet.client == Client::Host),
        None => node_port,
    };
    cluster
        .endpoints
        .values()
        .filter(|pod| pod.addresses.iter().any(|own| own.is_ipv4() == packet.dst.is_ipv4()))
        .flat_map(|pod| pod.host_ports.iter().map(move |port| (pod, port)))
        .find(|(_, port)| port.host_port == number && port.protocol == protocol && answers(port))
}

fn virtual_kind(service: &Service, dst: IpAddr) -> Option<Kind> {
    if service.cluster_ips.contains(&dst) {
        Some(Kind::ClusterIp)
    } else if service.load_balancer_ips.contains(&dst) {
        Some(Kind::LoadBalancer)
    } else if service.external_ips.contains(&dst) {
        Some(Kind::ExternalIp)
    } else {
        None
    }
}

fn kind(
    service: &Service,
    port: &ServicePort,
    packet: &Packet,
    virtual_kind: Option<Kind>,
    node_port: bool,
) -> Option<Kind> {
    let Ask::Port(protocol, number) = packet.ask else {
        return None;
    };
    if port.protocol != protocol {
        return None;
    }
    let by_address = virtual_kind.filter(|_| port.port == number);
    let has_family = service.cluster_ips.iter().any(|own| own.is_ipv4() == packet.dst.is_ipv4());
    by_address
        .or_else(|| (node_port && has_family && port.node_port == Some(number)).then_some(Kind::NodePort))
}

/// Rule 10: which of the host's addresses NodePorts answer on. The loopback's are for its own sockets.
fn answers_node_ports(cluster: &Snapshot, here: Here<'_>, packet: &Packet) -> bool {
    let is_loopback =
        packet.dst == IpAddr::V4(Ipv4Addr::LOCALHOST) || packet.dst == IpAddr::V6(Ipv6Addr::LOCALHOST);
    if is_loopback && packet.client != Client::Host {
        return false;
    }
    match &here.facts.nodeport {
        NodePortAddresses::Primary => is_loopback || here.facts.addresses.contains(&packet.dst),
        NodePortAddresses::Within(prefixes) => {
            is_own(cluster, here, packet.dst) && prefixes.iter().any(|prefix| prefix.contains(packet.dst))
        }
    }
}

fn is_own(cluster: &Snapshot, here: Here<'_>, address: IpAddr) -> bool {
    here.facts.addresses.contains(&address) || cluster.host_addresses.contains(&address)
}

/// Which kind wins where one address and port is asked for in two ways.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::ClusterIp => 0,
        Kind::LoadBalancer => 1,
        Kind::ExternalIp => 2,
        Kind::NodePort => 3,
        Kind::HostPort => 4,
    }
}
