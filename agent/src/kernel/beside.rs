//! A machine beside the nodes, for as long as a question takes: a network namespace with a device on their link.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_route::link::{LinkAttribute, MacVlanMode};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkMacVlan;

use super::KernelError;
use super::netlink::Netlink;
use super::netlink::requests::{Requests, RouteSocket};
use super::pod_link::index_of;

/// Name of the device inside.
const DEVICE: &str = "beside";

/// What the machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The device of this machine that leads to the nodes.
    pub link: String,
    /// Addresses that nobody else has.
    pub addresses: Vec<IpAddr>,
    /// Whom it reaches, by which neighbour; by none, as a neighbour.
    pub routes: Vec<(IpAddr, Option<IpAddr>)>,
}

impl Machine {
    /// Runs `work` there. The namespace goes with the threads in it, and takes the device along, however they end.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.plug()?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into a namespace of its own, and makes the device, addresses and routes there.
    fn plug(&self) -> Result<(), KernelError> {
        let host = Netlink::new()?;
        let base = host.device(&self.link)?.ok_or_else(|| KernelError::NoDevice(self.link.clone()))?.index;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(KernelError::io("make a network namespace"))?;
        let own = "/proc/thread-self/ns/net";
        let own = File::open(own).map_err(KernelError::io(format!("open {own}")))?;
        let device = LinkMacVlan::new(DEVICE, base, MacVlanMode::Bridge)
            .append_extra_attribute(LinkAttribute::NetNsFd(own.as_raw_fd()))
            .build();
        host.add_device(device, DEVICE)?;
        let index = index_of(DEVICE)?.ok_or_else(|| KernelError::NoDevice(DEVICE.to_owned()))?;
        let mut requests = Requests::default();
        requests.set_up(index);
        for address in &self.addresses {
            requests.add_address(index, *address);
        }
        for (to, hop) in &self.routes {
            match hop {
                None => requests.add_host_route(*to, index, None)?,
                Some(hop) => requests.add_route((*to).into(), *hop, Some(index))?,
            }
        }
        RouteSocket::new()?.carry_out(requests)
    }
}
