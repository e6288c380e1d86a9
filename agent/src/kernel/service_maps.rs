//! The maps of services: read once at start, then written.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use abi::event::Control;
use abi::service::{
    Backend, BackendKey, BackendState, Frontend, FrontendKey, SLOTS, Segment, Service, SourceRange, Tombstone,
};
use abi::{Addr16, name};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData};
use ipnetwork::IpNetwork;

use super::bpf::update_batch;
use super::linux::{gone, map, take};
use super::mapped::Mapped;
use super::{KernelError, bpf};
use crate::reconcile::actual::{Actual, Op};

/// Bits of a source range before its network.
const SERVICE_BITS: u32 = 32;
/// Bits of a mapped address before its IPv4 part.
const MAPPED_BITS: u32 = 96;

/// The maps.
pub struct ServiceMaps {
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    /// The same map, for writing many rows at once.
    frontends_fd: OwnedFd,
    services: Mapped<Service>,
    backends: Mapped<Backend>,
    slots: Mapped<u32>,
    states: Mapped<BackendState>,
    filter: Mapped<u64>,
    control: Mapped<Control>,
    source_ranges: LpmTrie<MapData, SourceRange, u32>,
    tombstones: HashMap<MapData, BackendKey, Tombstone>,
}

impl ServiceMaps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let frontends = ebpf.take_map(name::FRONTENDS);
        let Some(Map::HashMap(data)) = frontends else {
            return Err(KernelError::Missing(format!("map {}", name::FRONTENDS)));
        };
        let frontends_fd = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            frontends_fd: frontends_fd.map_err(KernelError::io("duplicate a descriptor"))?,
            frontends: HashMap::try_from(Map::HashMap(data)).map_err(map(name::FRONTENDS))?,
            services: mapped(ebpf, name::SERVICES)?,
            backends: mapped(ebpf, name::BACKENDS)?,
            slots: mapped(ebpf, name::SLOTS)?,
            states: mapped(ebpf, name::BACKEND_STATES)?,
            filter: mapped(ebpf, name::VIP_FILTER)?,
            control: mapped(ebpf, name::CONTROL)?,
            source_ranges: take(ebpf, name::SOURCE_RANGES)?,
            tombstones: take(ebpf, name::TOMBSTONES)?,
        })
    }

    /// Reads everything about services.
    pub fn read(&self, actual: &mut Actual) -> Result<(), KernelError> {
        for row in &self.frontends {
            let (key, frontend) = row.map_err(map(name::FRONTENDS))?;
            actual.frontends.insert(key, frontend);
        }
        for index in 0..self.services.len() {
            let Some(service) = self.services.read(index).filter(|service| service.flags != 0) else {
                continue;
            };
            actual.services.insert(index, service);
            for segment in [service.cluster, service.local] {
                self.read_segment(segment, actual);
            }
        }
        for row in &self.source_ranges {
            let (key, _) = row.map_err(map(name::SOURCE_RANGES))?;
            if let Some((service, range)) = range_of(&key) {
                actual.source_ranges.entry(service).or_default().insert(range);
            }
        }
        for row in &self.tombstones {
            let (key, tombstone) = row.map_err(map(name::TOMBSTONES))?;
            actual.tombstones.insert(key, tombstone.service);
        }
        let words = (0..self.filter.len()).filter_map(|word| Some((word, self.filter.read(word)?)));
        actual.filter = words.filter(|(_, bits)| *bits != 0).collect();
        Ok(())
    }

    /// A segment that leaves its array is left out: nobody can have meant it.
    fn read_segment(&self, segment: Segment, actual: &mut Actual) {
        let within = |base: u32, length: u32| base.checked_add(length).map(|end| base..end);
        let mut run = within(segment.base, segment.len());
        if segment.has_slots() {
            let cells: Option<Vec<u32>> = run.and_then(|cells| cells.map(|at| self.slots.read(at)).collect());
            let cells = cells.unwrap_or_default();
            // Neighbours by construction; whoever has no slot at the end has no flows.
            run =
                cells.iter().min().copied().zip(cells.iter().max().copied()).map(|(low, high)| low..high + 1);
            if segment.count != SLOTS {
                actual.slots.insert(segment.base, cells);
            }
        }
        let Some(run) = run.filter(|run| !run.is_empty()) else { return };
        let base = run.start;
        if let Some(backends) = run.map(|at| self.backends.read(at)).collect::<Option<Vec<_>>>() {
            actual.segments.insert(base, backends);
        }
    }

    /// Writes frontends in one system call, until one is refused.
    pub fn write_frontends(&mut self, rows: &[(FrontendKey, Frontend)]) -> (usize, Option<KernelError>) {
        let (keys, values): (Vec<FrontendKey>, Vec<Frontend>) = rows.iter().copied().unzip();
        let (written, outcome) = update_batch(self.frontends_fd.as_fd(), &keys, &values);
        (written, outcome.err().map(KernelError::io(format!("write {}", name::FRONTENDS))))
    }

    /// Carries out an operation on services; `None` if it is about something else.
    pub fn apply(&mut self, op: &Op) -> Option<Result<(), KernelError>> {
        let done = match op {
            Op::WriteBackends { base, backends } => {
                fill(&self.backends, *base, backends).ok_or_else(|| missing(*base, name::BACKENDS))
            }
            Op::WriteSlots { base, cells } => {
                fill(&self.slots, *base, cells).ok_or_else(|| missing(*base, name::SLOTS))
            }
            Op::WriteService { index, service } => {
                self.services.write(*index, service).ok_or_else(|| missing(*index, name::SERVICES))
            }
            Op::WriteFilter { word, bits } => {
                self.filter.write(*word, bits).ok_or_else(|| missing(*word, name::VIP_FILTER))
            }
            Op::RetireBackend { id } => self.retire(*id).ok_or_else(|| missing(*id, name::BACKEND_STATES)),
            Op::CountTombstones { count } => {
                self.count_tombstones(*count).ok_or_else(|| missing(0, name::CONTROL))
            }
            Op::NextEpoch => self.next_epoch().ok_or_else(|| missing(0, name::CONTROL)),
            Op::WriteFrontend { key, frontend } => {
                self.frontends.insert(key, frontend, 0).map_err(map(name::FRONTENDS))
            }
            Op::DeleteFrontend { key } => gone(self.frontends.remove(key)).map_err(map(name::FRONTENDS)),
            Op::WriteSourceRange { service, range } => self
                .source_ranges
                .insert(&range_key(*service, *range), 1, 0)
                .map_err(map(name::SOURCE_RANGES)),
            Op::DeleteSourceRange { service, range } => {
                gone(self.source_ranges.remove(&range_key(*service, *range)))
                    .map_err(map(name::SOURCE_RANGES))
            }
            Op::Bury { key, service } => {
                let tombstone = Tombstone { service: *service, buried: bpf::monotonic_second() };
                self.tombstones.insert(key, tombstone, 0).map_err(map(name::TOMBSTONES))
            }
            Op::Unbury { key } => gone(self.tombstones.remove(key)).map_err(map(name::TOMBSTONES)),
            _ => return None,
        };
        Some(done)
    }

    fn retire(&self, id: u32) -> Option<()> {
        let generation = self.states.half(id, std::mem::offset_of!(BackendState, generation))?;
        generation.fetch_add(1, Ordering::AcqRel);
        Some(())
    }

    fn count_tombstones(&self, count: u32) -> Option<()> {
        let cell = self.control.half(0, std::mem::offset_of!(Control, tombstones))?;
        cell.store(count, Ordering::Release);
        Some(())
    }

    fn next_epoch(&self) -> Option<()> {
        let cell = self.control.half(0, std::mem::offset_of!(Control, epoch))?;
        cell.fetch_add(1, Ordering::AcqRel);
        Some(())
    }

    /// Until this second, packets of unknown connections are dropped instead of refused.
    pub fn set_grace(&self, second: u32) -> Result<(), KernelError> {
        let cell = self.control.half(0, std::mem::offset_of!(Control, grace));
        cell.ok_or_else(|| missing(0, name::CONTROL))?.store(second, Ordering::Release);
        Ok(())
    }

    /// Indices of the services that frontends lead to.
    pub fn indices(&self) -> std::collections::BTreeSet<u32> {
        self.frontends.iter().filter_map(Result::ok).map(|(_, frontend)| frontend.service).collect()
    }
}

fn mapped<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<Mapped<T>, KernelError>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Mapped::map(&data, name),
        _ => Err(KernelError::Missing(format!("array {name}"))),
    }
}

fn fill<T>(table: &Mapped<T>, base: u32, cells: &[T]) -> Option<()>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    (base..).zip(cells).try_for_each(|(at, cell)| table.write(at, cell))
}

fn missing(index: u32, name: &str) -> KernelError {
    KernelError::Missing(format!("place {index} in {name}"))
}

fn range_key(service: u32, range: IpNetwork) -> Key<SourceRange> {
    let length = SERVICE_BITS + u32::from(range.prefix()) + if range.is_ipv4() { MAPPED_BITS } else { 0 };
    Key::new(length, SourceRange { service: service.to_be(), client: Addr16::from(range.network()) })
}

fn range_of(key: &Key<SourceRange>) -> Option<(u32, IpNetwork)> {
    let SourceRange { service, client } = key.data();
    let length = key.prefix_len().checked_sub(SERVICE_BITS)?;
    let address = client.ip();
    let length = if address.is_ipv4() { length.checked_sub(MAPPED_BITS)? } else { length };
    Some((u32::from_be(service), IpNetwork::new(IpAddr::clone(&address), u8::try_from(length).ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_range_is_read_as_it_was_written() {
        for text in ["198.18.0.0/16", "192.0.2.1/32", "2001:db8::/32", "2001:db8::1/128"] {
            let range: IpNetwork = text.parse().unwrap();
            assert_eq!(range_of(&range_key(70_000, range)), Some((70_000, range)));
        }
        assert_eq!(range_key(1, "198.18.0.0/16".parse().unwrap()).prefix_len(), 32 + 96 + 16);
    }
}
