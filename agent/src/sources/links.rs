//! The devices that lead out of the node, and the addresses of the host: followed as the kernel tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio_util::sync::CancellationToken;

use crate::desired::NodeFacts;
use crate::kernel::KernelError;
use crate::kernel::netlink::{Device, Netlink};
use crate::kernel::news::News;
use crate::tables::{Links, Snapshot, Tables};

/// How often is looked without being told, in case the kernel had more to tell than its queue holds.
const PERIOD: Duration = Duration::from_secs(300);

/// What was found out about the node when it started.
#[derive(Debug, Clone)]
pub struct Uplinks {
    /// Facts for `desired`.
    pub facts: NodeFacts,
    /// Names of the uplinks.
    pub devices: BTreeSet<String>,
    /// What they lead to.
    pub links: Links,
    /// Every address of the host.
    pub addresses: BTreeSet<IpAddr>,
}

/// Finds the uplinks: those named, or those that hold a node address. Must not run inside an async runtime.
pub fn discover(node: &str, addresses: &[IpAddr], named: &[String]) -> Result<Uplinks, KernelError> {
    let netlink = Netlink::new()?;
    let devices = netlink.devices()?;
    let networks = netlink.addresses()?;
    let of = |index: u32| networks.get(&index).map_or(&[][..], Vec::as_slice);
    let uplinks: Vec<_> = devices
        .iter()
        .filter(|device| {
            if named.is_empty() {
                of(device.index).iter().any(|network| addresses.contains(&network.ip()))
            } else {
                named.contains(&device.name)
            }
        })
        .collect();
    if let Some(missing) = named.iter().find(|name| devices.iter().all(|device| device.name != **name)) {
        return Err(KernelError::NoDevice(missing.clone()));
    }
    if uplinks.is_empty() {
        return Err(KernelError::NoDevice(format!("that holds one of the node addresses {addresses:?}")));
    }
    let links = links(&uplinks, &networks, 0);
    let facts = NodeFacts {
        name: node.to_owned(),
        addresses: addresses.to_vec(),
        mtu: links.mtu,
        ..NodeFacts::default()
    };
    // The loopback needs no programs: what the host says to itself does not leave it.
    let devices =
        uplinks.iter().filter(|device| device.name != "lo").map(|device| device.name.clone()).collect();
    Ok(Uplinks { facts, devices, links, addresses: host_addresses(&networks) })
}

impl Uplinks {
    /// Writes what was found into the tables.
    pub fn tell(&self, rows: &mut Snapshot) {
        rows.uplinks.clone_from(&self.devices);
        rows.links.clone_from(&self.links);
        rows.host_addresses.clone_from(&self.addresses);
    }
}

/// Keeps uplinks and the host's addresses current until `stop`.
pub async fn run(wanted: BTreeSet<String>, tables: Arc<Tables>, stop: CancellationToken) {
    let mut news = News::listen();
    for look in 1.. {
        let names = wanted.clone();
        match tokio::task::spawn_blocking(move || existing(&names, look)).await {
            Ok(Ok(seen)) => tables.update_node(|rows| {
                (rows.uplinks, rows.links, rows.host_addresses) = seen;
                true
            }),
            Ok(Err(error)) => tracing::warn!(%error, "devices could not be listed"),
            Err(error) => tracing::warn!(%error, "devices could not be listed"),
        }
        tokio::select! {
            () = news.told() => {}
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The uplinks that exist, what they lead to, and all addresses of the host but those that mean nothing beyond one link.
fn existing(
    wanted: &BTreeSet<String>,
    look: u64,
) -> Result<(BTreeSet<String>, Links, BTreeSet<IpAddr>), KernelError> {
    let (devices, addresses) = std::thread::scope(|scope| {
        let look = || {
            let netlink = Netlink::new()?;
            Ok::<_, KernelError>((netlink.devices()?, netlink.addresses()?))
        };
        scope.spawn(look).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let uplinks: Vec<_> = devices.iter().filter(|device| wanted.contains(&device.name)).collect();
    let links = links(&uplinks, &addresses, look);
    let names = uplinks.into_iter().map(|device| device.name.clone());
    Ok((names.collect(), links, host_addresses(&addresses)))
}

fn links(uplinks: &[&Device], networks: &BTreeMap<u32, Vec<IpNetwork>>, looked: u64) -> Links {
    let on_link = uplinks.iter().filter(|device| device.up);
    let on_link = on_link.filter_map(|device| networks.get(&device.index)).flatten().copied();
    let mtu = uplinks.iter().map(|device| device.mtu).min().unwrap_or_default().min(65_535);
    Links { on_link: on_link.collect(), mtu, looked }
}

fn host_addresses(networks: &BTreeMap<u32, Vec<IpNetwork>>) -> BTreeSet<IpAddr> {
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    networks.values().flatten().map(IpNetwork::ip).filter(|address| !is_link_local(address)).collect()
}
