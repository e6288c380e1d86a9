//! Answers questions about the addresses this node announces, and tells its links when they come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::frames;
use crate::kernel::KernelError;
use crate::kernel::link_socket::{Heard, LinkSocket};
use crate::tables::Tables;

/// An announcement may be lost: it is made so often, at this distance (RFC 5227, 1.1).
const TIMES: u32 = 3;
const DISTANCE: Duration = Duration::from_millis(700);
/// How long a device is left alone whose socket failed.
const REST: Duration = Duration::from_secs(5);

/// Announces on every uplink until `stop`. Sockets are only open while there is something to announce.
pub async fn run(tables: Arc<Tables>, addresses: watch::Receiver<BTreeSet<IpAddr>>, stop: CancellationToken) {
    let mut changes = tables.changes();
    let mut announced = addresses.clone();
    let mut attended: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        let idle = announced.borrow_and_update().is_empty();
        let devices = if idle { BTreeSet::new() } else { tables.look(|rows| rows.uplinks.clone()) };
        attended.retain(|device, token| {
            let stays = devices.contains(device);
            if !stays {
                token.cancel();
            }
            stays
        });
        for device in devices {
            attended.entry(device).or_insert_with_key(|device| {
                let token = stop.child_token();
                tokio::spawn(attend(device.clone(), addresses.clone(), token.clone()));
                token
            });
        }
        tokio::select! {
            changed = announced.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn attend(device: String, addresses: watch::Receiver<BTreeSet<IpAddr>>, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            ended = answer(&device, addresses.clone()) => ended,
            () = stop.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::warn!(device, %error, "addresses are not announced here for now");
        }
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Answers on one device; ends with an error, or when nobody changes the addresses any more.
pub async fn answer(
    device: &str,
    mut addresses: watch::Receiver<BTreeSet<IpAddr>>,
) -> Result<(), KernelError> {
    let arp = LinkSocket::open(device, Heard::Arp)?;
    let solicitations = LinkSocket::open(device, Heard::Solicitations)?;
    let failed = || KernelError::io(format!("announce on {device}"));
    let (mut one, mut other) = ([0; 128], [0; 256]);
    let mut known = BTreeSet::new();
    // What is still to be said, and how often.
    let mut due: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let mut tick = tokio::time::interval(DISTANCE);
    loop {
        let now = addresses.borrow_and_update().clone();
        for new in now.difference(&known) {
            if let IpAddr::V6(address) = new {
                solicitations.take_questions(*address).map_err(failed())?;
            }
            arp.say(&frames::announcement(*new, arp.mac())).map_err(failed())?;
            due.insert(*new, TIMES - 1);
        }
        due.retain(|address, _| now.contains(address));
        known = now;
        let asked = tokio::select! {
            read = arp.hear(&mut one) => frames::question(&one[..read.map_err(failed())?]),
            read = solicitations.hear(&mut other) => frames::question(&other[..read.map_err(failed())?]),
            changed = addresses.changed() => if changed.is_err() { return Ok(()) } else { None },
            _ = tick.tick(), if !due.is_empty() => {
                for (address, left) in &mut due {
                    arp.say(&frames::announcement(*address, arp.mac())).map_err(failed())?;
                    *left -= 1;
                }
                due.retain(|_, left| *left > 0);
                None
            }
        };
        if let Some(question) = asked.filter(|question| known.contains(&question.address)) {
            arp.say(&frames::answer(&question, arp.mac())).map_err(failed())?;
        }
    }
}
