//! Links, addresses, routes and neighbours over netlink, one request at a time; [`requests`] are many.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::runtime::Runtime;

use self::requests::{Requests, RouteSocket};
use super::KernelError;

mod everything;
pub mod filters;
pub mod qdisc;
pub mod requests;
pub mod tunnels;
pub mod visit;

/// The `proto` of every route and rule of ours; `ip route show proto 75` lists them.
pub const ROUTE_PROTOCOL: u8 = 75;

/// A device of the namespace the connection was made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet.
    pub mtu: u32,
    /// Whether it is turned on.
    pub up: bool,
    /// What `ip link set alias` stored.
    pub alias: String,
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: IpNetwork,
    /// The routing table.
    pub table: u32,
    /// The next hop, if it has one.
    pub via: Option<IpAddr>,
    /// Index of the device it leaves by.
    pub device: Option<u32>,
    /// Whether it says that nobody is there.
    pub unreachable: bool,
}

/// A connection to the kernel, tied to the network namespace of the thread that made it.
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
    socket: RouteSocket,
}

impl Netlink {
    /// Connects in the namespace of the calling thread, which must not run inside another runtime.
    pub fn new() -> Result<Self, KernelError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(KernelError::io("start a runtime for netlink"))?;
        let (connection, handle, _) = {
            let _guard = runtime.enter();
            rtnetlink::new_connection().map_err(KernelError::io("open a netlink socket"))?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle, socket: RouteSocket::new()? })
    }

    /// Has the kernel carry out requests, in one system call.
    pub fn carry_out(&self, requests: Requests) -> Result<(), KernelError> {
        self.socket.carry_out(requests)
    }

    /// All devices.
    pub fn devices(&self) -> Result<Vec<Device>, KernelError> {
        let links = self.runtime.block_on(self.handle.link().get().execute().try_collect::<Vec<_>>());
        Ok(links.map_err(failed("list devices"))?.iter().map(device).collect())
    }

    /// The device called `name`.
    pub fn device(&self, name: &str) -> Result<Option<Device>, KernelError> {
        Ok(self.link(name)?.as_ref().map(device))
    }

    /// Everything about the device called `name`.
    pub fn link(&self, name: &str) -> Result<Option<LinkMessage>, KernelError> {
        let found =
            self.runtime.block_on(self.handle.link().get().match_name(name.to_owned()).execute().try_next());
        match found {
            Ok(link) => Ok(link),
            Err(error) if code(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(format!("look for device {name}"))(error)),
        }
    }

    fn carry_out_one(&self, fill: impl FnOnce(&mut Requests)) -> Result<(), KernelError> {
        let mut requests = Requests::default();
        fill(&mut requests);
        self.carry_out(requests)
    }

    /// [`Requests::add_device`], alone.
    pub fn add_device(&self, message: LinkMessage, name: &str) -> Result<(), KernelError> {
        self.carry_out_one(|requests| requests.add_device(message, name))
    }

    /// [`Requests::set_up`], alone.
    pub fn set_up(&self, index: u32) -> Result<(), KernelError> {
        self.carry_out_one(|requests| requests.set_up(index))
    }

    /// [`Requests::set_alias`], alone.
    pub fn set_alias(&self, index: u32, alias: &str) -> Result<(), KernelError> {
        self.carry_out_one(|requests| requests.set_alias(index, alias))
    }

    /// [`Requests::add_neighbour`], alone.
    pub fn add_neighbour(&self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), KernelError> {
        self.carry_out_one(|requests| requests.add_neighbour(index, address, mac))
    }

    /// A route through a neighbour to which a route leads.
    pub fn add_route(&self, to: IpNetwork, via: IpAddr) -> Result<(), KernelError> {
        let mut requests = Requests::default();
        requests.add_route(to, via, None)?;
        self.carry_out(requests)
    }

    /// Sets the largest packet of the device.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.runtime
            .block_on(self.handle.link().set(message).execute())
            .map_err(failed(format!("set the MTU of device {index} to {mtu}")))
    }

    /// Removes the device; one that is gone already is what we want.
    pub fn delete_device(&self, index: u32) -> Result<(), KernelError> {
        accept(
            self.runtime.block_on(self.handle.link().del(index).execute()),
            &[libc::ENODEV],
            format!("remove device {index}"),
        )
    }

    /// The addresses of every device, with their prefixes.
    pub fn addresses(&self) -> Result<BTreeMap<u32, Vec<IpNetwork>>, KernelError> {
        let list = self.runtime.block_on(self.handle.address().get().execute().try_collect::<Vec<_>>());
        let mut found: BTreeMap<u32, Vec<IpNetwork>> = BTreeMap::new();
        for message in list.map_err(failed("list addresses"))? {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            if let Some(Ok(network)) =
                address.map(|address| IpNetwork::new(address, message.header.prefix_len))
            {
                found.entry(message.header.index).or_default().push(network);
            }
        }
        Ok(found)
    }

    /// A route that refuses what no longer route takes.
    pub fn add_unreachable(&self, to: IpNetwork) -> Result<(), KernelError> {
        let action = format!("add unreachable route {to}");
        let route = base_route(to.network(), to.prefix(), &action)?.kind(RouteType::Unreachable);
        self.put_route(route.build(), &action)
    }

    /// Removes a route of ours; one that is gone already is what we want.
    pub fn delete_route(&self, to: IpNetwork) -> Result<(), KernelError> {
        let action = format!("remove route {to}");
        let route = base_route(to.network(), to.prefix(), &action)?.kind(RouteType::Unspec).build();
        accept(
            self.runtime.block_on(self.handle.route().del(route).execute()),
            &[libc::ESRCH, libc::ENOENT],
            action,
        )
    }

    /// Where packets for an address leave, in words; none without a route.
    pub fn route_to(&self, to: IpAddr) -> Result<Option<String>, KernelError> {
        let action = format!("look for the route to {to}");
        let length = if to.is_ipv4() { 32 } else { 128 };
        let request = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, length)
            .map_err(unbuildable(&action))?
            .build();
        let found = self.runtime.block_on(self.handle.route().get(request).execute().try_next());
        let message = match found {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) if matches!(code(&error), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(action)(error)),
        };
        let (mut device, mut via) = (String::new(), String::new());
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => {
                    let name =
                        nix::net::if_::if_indextoname(*index).ok().and_then(|name| name.into_string().ok());
                    device = format!("device {}", name.unwrap_or_else(|| index.to_string()));
                }
                RouteAttribute::Gateway(address) => {
                    via = ip(address).map_or_else(String::new, |address| format!(" via {address}"));
                }
                _ => {}
            }
        }
        Ok(Some(format!("{device}{via}")))
    }

    /// Our routes of all tables.
    pub fn our_routes(&self) -> Result<Vec<Route>, KernelError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let list =
                self.runtime.block_on(self.handle.route().get(filter).execute().try_collect::<Vec<_>>());
            let list = list.map_err(failed("list routes"))?.into_iter();
            let ours = list.filter(|route| route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL));
            all.extend(ours.filter_map(|message| route(&message)));
        }
        Ok(all)
    }

    fn put_route(&self, message: RouteMessage, action: &str) -> Result<(), KernelError> {
        self.runtime
            .block_on(self.handle.route().add(message).replace().execute())
            .map_err(failed(action.to_owned()))
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    let (mut to, mut via, mut device) = (None, None, None);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => via = Some(IpAddr::V6(*address)),
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Table(id) => table = *id,
            _ => {}
        }
    }
    let to = IpNetwork::new(to?, message.header.destination_prefix_length).ok()?;
    Some(Route { to, table, via, device, unreachable: message.header.kind == RouteType::Unreachable })
}

fn base_route(to: IpAddr, length: u8, action: &str) -> Result<RouteMessageBuilder<IpAddr>, KernelError> {
    Ok(RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to, length)
        .map_err(unbuildable(action))?
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL)))
}

fn device(message: &LinkMessage) -> Device {
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut device =
        Device { index: message.header.index, name: String::new(), mtu: 0, up, alias: String::new() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => device.alias.clone_from(alias),
            _ => {}
        }
    }
    device
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> KernelError {
    let action = action.into();
    move |source| KernelError::Netlink { action, source: Box::new(source) }
}

fn unbuildable<E: std::error::Error + Send + Sync + 'static>(action: &str) -> impl FnOnce(E) -> KernelError {
    let action = action.to_owned();
    move |error| KernelError::Io { action, source: io::Error::new(io::ErrorKind::InvalidInput, error) }
}

fn accept(result: Result<(), rtnetlink::Error>, harmless: &[i32], action: String) -> Result<(), KernelError> {
    match result {
        Err(error) if !code(&error).is_some_and(|code| harmless.contains(&code)) => {
            Err(failed(action)(error))
        }
        _ => Ok(()),
    }
}

/// The errno of a refusal.
pub(super) fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}
