//! Requests to rtnetlink that go to the kernel together, in one system call.
//!
//! The kernel carries them out one by one, in their order, within the call that sends them; what it has to say waits in the socket
//! when that returns. So nothing here waits for an event.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteMessage, RouteScope};
use parking_lot::Mutex;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::qdisc::attribute;
use super::{base_route, failed, unbuildable};
use crate::kernel::KernelError;

/// Room for what the kernel says about one request: it sends the request back with a refusal.
const ANSWER: usize = 8192;

/// `linux/if_link.h`, `linux/ip.h`.
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const NLA_F_NESTED: u16 = 1 << 15;

/// Requests in their order, each with the words for its refusal.
#[derive(Debug, Default)]
pub struct Requests {
    messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    actions: Vec<String>,
}

impl Requests {
    /// Adds one; `flags` beyond those of every request.
    pub(super) fn add(&mut self, message: RouteNetlinkMessage, flags: u16, action: String) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        self.messages.push(message);
        self.actions.push(action);
    }

    /// Makes a device, which must not be there.
    pub fn add_device(&mut self, message: LinkMessage, name: &str) {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.add(RouteNetlinkMessage::NewLink(message), flags, format!("create device {name}"));
    }

    /// Turns the device on.
    pub fn set_up(&mut self, index: u32) {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.add(RouteNetlinkMessage::SetLink(message), 0, format!("turn device {index} on"));
    }

    /// Turns the device on, for packets of IPv4 that are not for this host, from wherever they may be.
    pub fn set_up_to_forward(&mut self, index: u32) {
        let settings = [
            attribute(IPV4_DEVCONF_FORWARDING, &1_u32.to_ne_bytes()),
            attribute(IPV4_DEVCONF_RP_FILTER, &0_u32.to_ne_bytes()),
        ];
        let settings = attribute(NLA_F_NESTED | IFLA_INET_CONF, &settings.concat());
        let family = attribute(NLA_F_NESTED | libc::AF_INET as u16, &settings);
        let mut message = LinkUnspec::new_with_index(index).up().build();
        message.attributes.push(LinkAttribute::Other(DefaultNla::new(NLA_F_NESTED | IFLA_AF_SPEC, family)));
        self.add(RouteNetlinkMessage::SetLink(message), 0, format!("turn device {index} on"));
    }

    /// Labels the device.
    pub fn set_alias(&mut self, index: u32, alias: &str) {
        let message = LinkUnspec::new_with_index(index).alias(alias).build();
        self.add(RouteNetlinkMessage::SetLink(message), 0, format!("label device {index}"));
    }

    /// Gives the device an address that is usable at once.
    pub fn add_address(&mut self, index: u32, address: IpAddr) {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = family(address);
        message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Local(address)];
        let action = format!("add address {address} to device {index}");
        self.add(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, action);
    }

    /// A neighbour that needs no resolution.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        let to = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes =
            vec![NeighbourAttribute::Destination(to), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
        let action = format!("add neighbour {address}");
        self.add(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, action);
    }

    /// A route to one host on a device.
    pub fn add_host_route(
        &mut self,
        to: IpAddr,
        index: u32,
        source: Option<IpAddr>,
    ) -> Result<(), KernelError> {
        let length = if to.is_ipv4() { 32 } else { 128 };
        let scope = if to.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        let action = format!("add route {to}");
        let mut route = base_route(to, length, &action)?.output_interface(index).scope(scope);
        if let Some(source) = source {
            route = route.pref_source(source).map_err(unbuildable(&action))?;
        }
        self.put_route(route.build(), action);
        Ok(())
    }

    /// A route through a neighbour; with a device where no route leads to that neighbour.
    pub fn add_route(&mut self, to: IpNetwork, via: IpAddr, device: Option<u32>) -> Result<(), KernelError> {
        let action = format!("add route {to} via {via}");
        let mut route =
            base_route(to.network(), to.prefix(), &action)?.gateway(via).map_err(unbuildable(&action))?;
        if let Some(device) = device {
            route = route.output_interface(device).onlink();
        }
        self.put_route(route.build(), action);
        Ok(())
    }

    fn put_route(&mut self, message: RouteMessage, action: String) {
        self.add(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE, action);
    }
}

/// A connection to rtnetlink of the network namespace its maker was in.
pub struct RouteSocket {
    socket: Socket,
    /// The number of the next request; locked until the answers are there, so that nobody takes those of another.
    sequence: Mutex<u32>,
}

impl RouteSocket {
    /// Connects in the namespace of the calling thread.
    pub fn new() -> Result<Self, KernelError> {
        let socket = Socket::new(NETLINK_ROUTE).map_err(KernelError::io("open a netlink socket"))?;
        Ok(Self { socket, sequence: Mutex::new(0) })
    }

    /// Has the kernel carry out all of them; the error is that of the first it refuses, the others are carried out nevertheless.
    pub fn carry_out(&self, requests: Requests) -> Result<(), KernelError> {
        let Requests { mut messages, actions } = requests;
        let Some(last) = messages.last_mut() else { return Ok(()) };
        // The others only speak when they are refused.
        last.header.flags |= NLM_F_ACK;
        let mut sequence = self.sequence.lock();
        let first = *sequence;
        *sequence = self.send(&mut messages, first)?;
        let mut refused: Option<(usize, rtnetlink::Error)> = None;
        loop {
            let (number, error) = self.answer()?;
            // Left by a call that was broken off.
            let Some(place) =
                usize::try_from(number.wrapping_sub(first)).ok().filter(|at| *at < actions.len())
            else {
                continue;
            };
            refused = refused.or(error.map(|error| (place, error)));
            if place + 1 == actions.len() {
                break;
            }
        }
        match refused {
            Some((place, error)) => Err(failed(actions[place].as_str())(error)),
            None => Ok(()),
        }
    }

    /// Answers with the number after the last.
    fn send(
        &self,
        messages: &mut [NetlinkMessage<RouteNetlinkMessage>],
        mut number: u32,
    ) -> Result<u32, KernelError> {
        let mut bytes = Vec::new();
        for message in messages {
            message.header.sequence_number = number;
            number = number.wrapping_add(1);
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.socket.send(&bytes, 0).map_err(KernelError::io("send to rtnetlink"))?;
        Ok(number)
    }

    /// What the kernel says about one request, by its number; nothing where it was done.
    fn answer(&self) -> Result<(u32, Option<rtnetlink::Error>), KernelError> {
        let failed = || KernelError::io("hear from rtnetlink");
        let mut bytes = Vec::with_capacity(ANSWER);
        self.socket.recv(&mut bytes, 0).map_err(failed())?;
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
            .map_err(|error| failed()(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let error = match message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                Some(rtnetlink::Error::NetlinkError(error))
            }
            _ => None,
        };
        Ok((message.header.sequence_number, error))
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as this borrow lasts.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
