//! The device that tunnels begin and end at, and what leads through it.
//!
//! ```text
//!  pods of a peer       10.244.3.0/24 via 198.51.100.3 dev hawser-vxlan onlink src <our address>
//!  the peer itself      198.51.100.3 via 198.51.100.3 dev hawser-vxlan onlink      in table 75, for our pods only
//!  its hardware         neighbour 198.51.100.3 -> 0a:75:c6:33:64:03 -> forwarding entry, node 198.51.100.3
//! ```
//!
//! The peer's own address is routed for our pods so that answers to its host come back as the questions went; what the host
//! itself sends, the tunnel's packets among it, knows nothing of that table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::LinkVxlan;

use super::KernelError;
use super::netlink::tunnels::{TABLE, Through};
use super::netlink::{Device, Netlink, Route};
use super::pod_link::{ALIAS, set};
use crate::desired::Hop;
use crate::desired::overlay::{DEVICE, Overlay, gateway, hardware_address};

/// What is there.
#[derive(Debug, Default)]
pub struct Seen {
    /// The device.
    pub overlay: Option<Overlay>,
    /// Ends of tunnels, with the addresses of their nodes that our pods reach through them.
    pub tunnels: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// Prefixes whose packets look into our table.
    pub rules: BTreeSet<IpNetwork>,
    /// Routes to prefixes of pods.
    pub routes: BTreeMap<IpNetwork, Hop>,
}

/// Reads the device, tunnels, rules and routes.
pub fn read(netlink: &Netlink) -> Result<Seen, KernelError> {
    let message = netlink.link(DEVICE)?;
    // One that somebody has turned off has to be made right.
    let is_up = |message: &&LinkMessage| message.header.flags.contains(LinkFlags::Up);
    let overlay = message.as_ref().filter(is_up).and_then(described);
    let device = message.map(|message| message.header.index);
    let ends = match device {
        Some(index) => ends(netlink, index)?,
        None => Vec::new(),
    };
    let mut gateways = BTreeMap::new();
    for end in &ends {
        gateways.extend([true, false].map(|v4| (gateway(*end, v4), *end)));
    }
    let mut seen = Seen { overlay, rules: netlink.rules()?.into_iter().collect(), ..Seen::default() };
    seen.tunnels = ends.into_iter().map(|end| (end, BTreeSet::new())).collect();
    for route in netlink.our_routes()? {
        let end = route.via.filter(|_| device.is_some() && route.device == device);
        let end = end.and_then(|via| gateways.get(&via).copied());
        if route.table == TABLE {
            if let Some(beside) = end.and_then(|end| seen.tunnels.get_mut(&end)) {
                beside.insert(route.to.network());
            }
        } else if let Some(hop) = hop(&route, end) {
            seen.routes.insert(route.to, hop);
        }
    }
    Ok(seen)
}

fn hop(route: &Route, end: Option<IpAddr>) -> Option<Hop> {
    match (end, route.via) {
        (Some(end), _) => Some(Hop::Tunnel(end)),
        (None, Some(via)) => Some(Hop::Via(via)),
        (None, None) => route.unreachable.then_some(Hop::Nowhere),
    }
}

/// The nodes that frames leave for and whose gateways are known.
fn ends(netlink: &Netlink, index: u32) -> Result<Vec<IpAddr>, KernelError> {
    let mut known = netlink.neighbours(index, AddressFamily::Inet)?;
    known.extend(netlink.neighbours(index, AddressFamily::Inet6)?);
    let forwarded = netlink.neighbours(index, AddressFamily::Bridge)?;
    let complete = |end: &IpAddr, mac: &Vec<u8>| {
        *mac == hardware_address(*end)
            && [true, false].into_iter().all(|v4| known.get(&gateway(*end, v4)) == Some(mac))
    };
    Ok(forwarded.into_iter().filter(|(end, mac)| complete(end, mac)).map(|(end, _)| end).collect())
}

fn described(message: &LinkMessage) -> Option<Overlay> {
    let mut overlay = Overlay { local: IpAddr::from([0; 4]), port: 0, vni: 0, mtu: 0 };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => overlay.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                let data = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
                    _ => None,
                });
                for info in data? {
                    match info {
                        InfoVxlan::Id(vni) => overlay.vni = *vni,
                        InfoVxlan::Port(port) => overlay.port = *port,
                        InfoVxlan::Local(local) => overlay.local = IpAddr::V4(*local),
                        InfoVxlan::Local6(local) => overlay.local = IpAddr::V6(*local),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(overlay)
}

/// Whether a device is there that can become the wanted one.
pub fn is_there(netlink: &Netlink, wanted: &Overlay) -> Result<bool, KernelError> {
    let known = netlink.link(DEVICE)?.as_ref().and_then(described);
    Ok(known.is_some_and(|known| known.is_same_device(wanted)))
}

/// Makes the device, or makes it right.
pub fn ensure(netlink: &Netlink, wanted: &Overlay) -> Result<(), KernelError> {
    let known = netlink.link(DEVICE)?;
    let known = known.as_ref().map(|message| (message.header.index, described(message)));
    let index = match known {
        Some((index, Some(known))) if known.is_same_device(wanted) => {
            if known.mtu != wanted.mtu {
                netlink.set_mtu(index, wanted.mtu)?;
            }
            index
        }
        other => {
            if let Some((index, _)) = other {
                netlink.delete_device(index)?;
            }
            create(netlink, wanted)?.index
        }
    };
    for (setting, value) in [
        ("ipv4/conf", "forwarding=1"),
        ("ipv4/conf", "rp_filter=0"),
        ("ipv6/conf", "disable_ipv6=0"),
        ("ipv6/conf", "forwarding=1"),
        ("ipv6/conf", "accept_ra=0"),
    ] {
        set(setting, DEVICE, value)?;
    }
    netlink.set_alias(index, &format!("{ALIAS}tunnels"))?;
    netlink.set_up(index)
}

fn create(netlink: &Netlink, wanted: &Overlay) -> Result<Device, KernelError> {
    let builder = LinkVxlan::new(DEVICE, wanted.vni).port(wanted.port).learning(false);
    let builder = match wanted.local {
        IpAddr::V4(local) => builder.local(local),
        IpAddr::V6(local) => builder.local6(local),
    };
    let message = builder.mtu(wanted.mtu).address(hardware_address(wanted.local).to_vec()).build();
    netlink.add_device(message, DEVICE)?;
    netlink.device(DEVICE)?.ok_or_else(|| KernelError::NoDevice(DEVICE.to_owned()))
}

/// Removes the device with everything that leads through it.
pub fn remove(netlink: &Netlink) -> Result<(), KernelError> {
    match netlink.device(DEVICE)? {
        Some(device) => netlink.delete_device(device.index),
        None => Ok(()),
    }
}

/// Leads frames to a peer, and what our pods send to its node's addresses; other addresses of it are forgotten.
pub fn open(netlink: &Netlink, end: IpAddr, beside: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
    let device = device(netlink)?;
    let mac = hardware_address(end);
    netlink.add_forwarding(device, mac, end)?;
    for v4 in [true, false] {
        netlink.add_neighbour(device, gateway(end, v4), mac)?;
    }
    for address in beside {
        let through = Through { via: gateway(end, address.is_ipv4()), device, source: None, table: TABLE };
        netlink.add_route_through(IpNetwork::from(*address), through)?;
    }
    close_beside(netlink, end, device, beside)
}

/// Leads nothing to a peer any more.
pub fn close(netlink: &Netlink, end: IpAddr) -> Result<(), KernelError> {
    let device = device(netlink)?;
    close_beside(netlink, end, device, &BTreeSet::new())?;
    for v4 in [true, false] {
        netlink.delete_neighbour(device, gateway(end, v4))?;
    }
    netlink.delete_forwarding(device, hardware_address(end), end)
}

fn close_beside(
    netlink: &Netlink,
    end: IpAddr,
    device: u32,
    kept: &BTreeSet<IpAddr>,
) -> Result<(), KernelError> {
    let gateways = [true, false].map(|v4| gateway(end, v4));
    for route in netlink.our_routes()? {
        let leads_there =
            route.device == Some(device) && route.via.is_some_and(|via| gateways.contains(&via));
        if route.table == TABLE && leads_there && !kept.contains(&route.to.network()) {
            netlink.delete_route_from(route.to, TABLE)?;
        }
    }
    Ok(())
}

/// Routes a prefix of pods to a peer.
pub fn route(netlink: &Netlink, to: IpNetwork, end: IpAddr, own: &[IpAddr]) -> Result<(), KernelError> {
    let source = own.iter().find(|own| own.is_ipv4() == to.is_ipv4()).copied();
    let via = gateway(end, to.is_ipv4());
    let table = u32::from(netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN);
    netlink.add_route_through(to, Through { via, device: device(netlink)?, source, table })
}

fn device(netlink: &Netlink) -> Result<u32, KernelError> {
    let found = netlink.device(DEVICE)?.ok_or_else(|| KernelError::NoDevice(DEVICE.to_owned()))?;
    Ok(found.index)
}
