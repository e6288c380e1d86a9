//! Limits of bandwidth: programs and a queueing discipline on the device inside the pod.
//!
//! ```text
//!  sends     tc_pace_out stamps a time of departure, fq sends at that time; without fq: tbf, for all flows in one row
//!  receives  tc_pace_in takes from a bucket of tokens, and drops when it is empty
//! ```
//!
//! Inside, because there every packet passes, whichever shortcut the other programs take it by, and because a packet that waits
//! there still belongs to the socket that sent it, which is held up instead of losing anything.

use abi::name;
use abi::pace::{self, Pace, PaceKey};
use aya::Ebpf;
use aya::maps::{HashMap, MapData};

use super::linux::{gone, map, take};
use super::netlink::Netlink;
use super::netlink::qdisc::{Bucket, Discipline};
use super::netlink::visit::visit;
use super::objects::Objects;
use super::{Feature, KernelError};
use crate::desired::EndpointRow;
use crate::tables::Limits;

/// Fewest bytes that `tbf` sends at once: more than the largest packet a pod makes.
const BURST: u64 = 128 << 10;
/// Fewest bytes that wait in `tbf`: more than a socket sends ahead.
const QUEUE: u64 = 256 << 10;

/// What pods are limited to.
pub struct Paces {
    map: HashMap<MapData, PaceKey, Pace>,
    /// Whether the kernel has `fq`.
    has_stamps: bool,
}

/// Without `fq`: a bucket of a hundredth of a second, and a tenth of a second of what waits.
fn bucket(rate: u64) -> Bucket {
    let within = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Bucket { rate, burst: within((rate / 100).max(BURST)), limit: within((rate / 10).max(QUEUE)) }
}

/// Whether the kernel has `fq`: tried on the loopback of a network namespace that goes at once.
fn has_fair_queue() -> bool {
    const LOOPBACK: u32 = 1;
    let tried = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(std::io::Error::from)
            .map_err(KernelError::io("make a network namespace"))?;
        Netlink::new()?.set_root_qdisc(LOOPBACK, Discipline::Stamps)
    });
    tried.join().is_ok_and(|set| set.is_ok())
}

impl Paces {
    /// Over the map of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self { map: take(ebpf, name::PACES)?, has_stamps: has_fair_queue() })
    }

    /// For people.
    pub fn feature(&self) -> Feature {
        let note = "pods with a limit send by tbf, all flows in one row: no fq (CONFIG_NET_SCH_FQ)";
        let note = if self.has_stamps { "" } else { note };
        Feature { name: "fq".to_owned(), present: self.has_stamps, note: note.to_owned() }
    }

    /// Whether any limit of the pod with this hardware address is known.
    pub fn has(&self, mac: [u8; 6]) -> bool {
        [pace::OUT, pace::IN].iter().any(|direction| self.map.get(&key(mac, *direction), 0).is_ok())
    }

    /// Limits a pod that is attached; doing it twice is the same as once.
    pub fn limit(
        &mut self,
        objects: &mut Objects,
        row: &EndpointRow,
        limits: Limits,
    ) -> Result<(), KernelError> {
        let mac = row.attachment.pod_mac;
        self.write(mac, pace::OUT, limits.egress.map(Pace::outward))?;
        self.write(mac, pace::IN, limits.ingress.map(Pace::inward))?;
        let (device, has_stamps) = (&row.endpoint.ifname, self.has_stamps);
        visit(&row.endpoint.netns_path, || {
            let pod = Netlink::new()?;
            let index = pod.device(device)?.ok_or_else(|| KernelError::NoDevice(device.clone()))?.index;
            if limits.ingress.is_some() {
                objects.attach_filter(name::TC_PACE_IN, device, true)?;
            } else {
                objects.detach_filter(name::TC_PACE_IN, device, true);
            }
            match limits.egress {
                Some(_) if has_stamps => {
                    objects.attach_filter(name::TC_PACE_OUT, device, false)?;
                    pod.set_root_qdisc(index, Discipline::Stamps)
                }
                Some(rate) => pod.set_root_qdisc(index, Discipline::Bucket(bucket(rate))),
                None => {
                    objects.detach_filter(name::TC_PACE_OUT, device, false);
                    pod.delete_root_qdisc(index)
                }
            }
        })
    }

    /// What is spent already stays spent, where a limit only changes.
    fn write(&mut self, mac: [u8; 6], direction: u8, pace: Option<Pace>) -> Result<(), KernelError> {
        let key = key(mac, direction);
        let Some(pace) = pace else { return gone(self.map.remove(&key)).map_err(map(name::PACES)) };
        let next = self.map.get(&key, 0).map_or(0, |known| known.next);
        self.map.insert(key, Pace { next, ..pace }, 0).map_err(map(name::PACES))
    }

    /// Forgets a pod.
    pub fn forget(&mut self, mac: [u8; 6]) -> Result<(), KernelError> {
        self.write(mac, pace::OUT, None)?;
        self.write(mac, pace::IN, None)
    }

    /// Forgets pods that are gone.
    pub fn sweep(&mut self, exists: impl Fn([u8; 6]) -> bool) -> Result<(), KernelError> {
        let macs = self.map.keys().filter_map(Result::ok).map(|key| key.mac);
        let stale: Vec<[u8; 6]> = macs.filter(|mac| !exists(*mac)).collect();
        stale.into_iter().try_for_each(|mac| self.forget(mac))
    }
}

fn key(mac: [u8; 6], direction: u8) -> PaceKey {
    PaceKey { mac, direction, zero: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_the_largest_packet_and_any_rate_fits() {
        let slow = bucket(125);
        assert_eq!((slow.rate, u64::from(slow.burst), u64::from(slow.limit)), (125, BURST, QUEUE));
        let fast = bucket(1_000_000_000);
        assert_eq!((fast.burst, fast.limit), (10_000_000, 100_000_000));
        assert_eq!(bucket(125_000_000_000_000).limit, u32::MAX);
    }
}
