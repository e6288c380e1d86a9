//! What a tunnel needs over netlink: forwarding entries, neighbours, routes in a table of their own, and the rules that lead
//! there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::IpVersion;

use super::{Netlink, ROUTE_PROTOCOL, accept, base_route, failed, unbuildable};
use crate::kernel::KernelError;

/// The routing table for what our pods send to nodes behind tunnels; `ip route show table 75` lists it.
pub const TABLE: u32 = 75;

/// Where our rules stand: after the kernel's own for local addresses, before the main table.
const PRIORITY: u32 = 750;

/// The next hop of a route through a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Through {
    /// The next hop's address.
    pub via: IpAddr,
    /// Index of the tunnel's device.
    pub device: u32,
    /// The host's own address for what it sends itself.
    pub source: Option<IpAddr>,
    /// The routing table.
    pub table: u32,
}

impl Netlink {
    /// A route through a tunnel.
    pub fn add_route_through(&self, to: IpNetwork, hop: Through) -> Result<(), KernelError> {
        let action = format!("add route {to} through {}", hop.via);
        let mut route = base_route(to.network(), to.prefix(), &action)?
            .gateway(hop.via)
            .map_err(unbuildable(&action))?
            .output_interface(hop.device)
            .table_id(hop.table)
            .onlink();
        if let Some(source) = hop.source {
            route = route.pref_source(source).map_err(unbuildable(&action))?;
        }
        self.put_route(route.build(), &action)
    }

    /// Removes a route of ours from a table; one that is gone already is what we want.
    pub fn delete_route_from(&self, to: IpNetwork, table: u32) -> Result<(), KernelError> {
        let action = format!("remove route {to} from table {table}");
        let route = base_route(to.network(), to.prefix(), &action)?
            .kind(netlink_packet_route::route::RouteType::Unspec)
            .table_id(table)
            .build();
        let done = self.runtime.block_on(self.handle.route().del(route).execute());
        accept(done, &[libc::ESRCH, libc::ENOENT], action)
    }

    /// Frames for a hardware address leave for the node with this address.
    pub fn add_forwarding(&self, device: u32, mac: [u8; 6], to: IpAddr) -> Result<(), KernelError> {
        let request = self
            .handle
            .neighbours()
            .add_bridge(device, &mac)
            .destination(to)
            .flags(NeighbourFlags::Own)
            .state(NeighbourState::Permanent)
            .replace();
        self.runtime.block_on(request.execute()).map_err(failed(format!("forward frames to {to}")))
    }

    /// They do no longer.
    pub fn delete_forwarding(&self, device: u32, mac: [u8; 6], to: IpAddr) -> Result<(), KernelError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = device;
        message.header.flags = NeighbourFlags::Own;
        message.header.state = NeighbourState::Permanent;
        message.attributes =
            vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec()), NeighbourAttribute::Destination(of(to))];
        let done = self.runtime.block_on(self.handle.neighbours().del(message).execute());
        accept(done, &[libc::ENOENT], format!("stop forwarding frames to {to}"))
    }

    /// Forgets a neighbour; one that is gone already is what we want.
    pub fn delete_neighbour(&self, device: u32, address: IpAddr) -> Result<(), KernelError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = device;
        message.attributes = vec![NeighbourAttribute::Destination(of(address))];
        let done = self.runtime.block_on(self.handle.neighbours().del(message).execute());
        accept(done, &[libc::ENOENT], format!("forget neighbour {address}"))
    }

    /// The permanent neighbours of a device, or with [`AddressFamily::Bridge`] the nodes its frames leave for, by address.
    pub fn neighbours(
        &self,
        device: u32,
        family: AddressFamily,
    ) -> Result<BTreeMap<IpAddr, Vec<u8>>, KernelError> {
        let request = self.handle.neighbours().get().set_address_family(family);
        let list = self.runtime.block_on(request.execute().try_collect::<Vec<_>>());
        let mut found = BTreeMap::new();
        for message in list.map_err(failed("list neighbours"))? {
            if message.header.ifindex != device || message.header.state != NeighbourState::Permanent {
                continue;
            }
            let (mut address, mut mac) = (None, Vec::new());
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(to) => address = ip(to),
                    NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes,
                    _ => {}
                }
            }
            found.extend(address.map(|address| (address, mac)));
        }
        Ok(found)
    }

    /// Packets from this prefix look into [`TABLE`] first.
    pub fn add_rule(&self, from: IpNetwork) -> Result<(), KernelError> {
        let mut request =
            self.handle.rule().add().table_id(TABLE).priority(PRIORITY).action(RuleAction::ToTable);
        let message = request.message_mut();
        message.header.family = family(from.network());
        message.header.src_len = from.prefix();
        message.attributes.push(RuleAttribute::Source(from.network()));
        message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)));
        let done = self.runtime.block_on(request.execute());
        accept(done, &[libc::EEXIST], format!("add rule for packets from {from}"))
    }

    /// Removes such a rule; one that is gone already is what we want.
    pub fn delete_rule(&self, from: IpNetwork) -> Result<(), KernelError> {
        for (prefix, message) in self.our_rules()? {
            if prefix == from {
                let done = self.runtime.block_on(self.handle.rule().del(message).execute());
                accept(done, &[libc::ENOENT], format!("remove rule for packets from {from}"))?;
            }
        }
        Ok(())
    }

    /// The prefixes that our rules are for.
    pub fn rules(&self) -> Result<Vec<IpNetwork>, KernelError> {
        Ok(self.our_rules()?.into_iter().map(|(prefix, _)| prefix).collect())
    }

    fn our_rules(&self) -> Result<Vec<(IpNetwork, RuleMessage)>, KernelError> {
        let mut found = Vec::new();
        let ours = RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
        for version in [IpVersion::V4, IpVersion::V6] {
            let list =
                self.runtime.block_on(self.handle.rule().get(version).execute().try_collect::<Vec<_>>());
            for message in list.map_err(failed("list rules"))? {
                let source = message.attributes.iter().find_map(|attribute| match attribute {
                    RuleAttribute::Source(address) => Some(*address),
                    _ => None,
                });
                if let Some(source) = source.filter(|_| message.attributes.contains(&ours))
                    && let Ok(prefix) = IpNetwork::new(source, message.header.src_len)
                {
                    found.push((prefix, message));
                }
            }
        }
        Ok(found)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn of(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }
}

/// The destination of a forwarding entry comes without its family.
fn ip(address: NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some(IpAddr::V4(v4)),
        NeighbourAddress::Inet6(v6) => Some(IpAddr::V6(v6)),
        NeighbourAddress::Other(bytes) => match <[u8; 4]>::try_from(bytes.as_slice()) {
            Ok(v4) => Some(IpAddr::from(v4)),
            Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
        },
        _ => None,
    }
}
