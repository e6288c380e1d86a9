//! The devices that lead out of the node: which of the configured ones exist.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::desired::NodeFacts;
use crate::kernel::KernelError;
use crate::kernel::netlink::Netlink;
use crate::tables::Tables;

/// How often devices are looked at. They come and go with cables and drivers, not with pods.
const PERIOD: Duration = Duration::from_secs(5);

/// What was found out about the node when it started.
#[derive(Debug, Clone)]
pub struct Uplinks {
    /// Facts for `desired`.
    pub facts: NodeFacts,
    /// Names of the uplinks.
    pub devices: BTreeSet<String>,
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
    let facts = NodeFacts {
        name: node.to_owned(),
        addresses: addresses.to_vec(),
        on_link: uplinks.iter().flat_map(|device| of(device.index).iter().copied()).collect(),
        mtu: uplinks.iter().map(|device| device.mtu).min().unwrap_or(1500).min(65_535),
        ..NodeFacts::default()
    };
    // The loopback needs no programs: what the host says to itself does not leave it.
    let devices =
        uplinks.iter().filter(|device| device.name != "lo").map(|device| device.name.clone()).collect();
    Ok(Uplinks { facts, devices })
}

/// Keeps the table of existing uplinks current until `stop`.
pub async fn run(wanted: BTreeSet<String>, tables: Arc<Tables>, stop: CancellationToken) {
    loop {
        let names = wanted.clone();
        let existing = tokio::task::spawn_blocking(move || existing(&names)).await;
        match existing {
            Ok(Ok(found)) => tables.update_if(|rows| {
                let changed = rows.uplinks != found;
                rows.uplinks = found;
                changed
            }),
            Ok(Err(error)) => tracing::warn!(%error, "devices could not be listed"),
            Err(error) => tracing::warn!(%error, "devices could not be listed"),
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn existing(wanted: &BTreeSet<String>) -> Result<BTreeSet<String>, KernelError> {
    let found = std::thread::scope(|scope| {
        scope
            .spawn(|| Netlink::new()?.devices())
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(found.into_iter().map(|device| device.name).filter(|name| wanted.contains(name)).collect())
}
