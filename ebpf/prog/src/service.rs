//! Services: from the address a client asked for to a backend.

use core::intrinsics::AtomicOrdering;

use abi::endpoint::Link;
use abi::service::{
    Affinity, AffinityKey, Backend, BackendState, FrontendKey, Segment, Service, SourceRange, bits,
    filter_place, frontend,
};
use abi::{Addr16, Be16};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_get_prandom_u32;

use crate::maps::{BACKEND_STATES, BACKENDS, FRONTENDS, SERVICE_COUNTS, SERVICES, SLOTS, VIP_FILTER, node};
use crate::{affinity, source_range};

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A pod or process of the cluster.
    Inside,
    /// A process of this host, by its socket: the loopback's NodePorts are its own.
    Host,
    /// Behind an uplink.
    Outside,
}

/// Who asks for what.
pub struct Ask<'a> {
    /// The address asked for.
    pub addr: &'a Addr16,
    /// The port asked for.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Where the client is.
    pub client: Client,
    /// What services that pick by hash go by: equal for equal flows on every node.
    pub spread: u32,
}

/// The answer to "who serves this address and port?".
pub enum Lookup {
    /// No service does: the packet is none of ours.
    NotAService,
    /// A service does, and there is nobody anywhere: the client is told.
    Nobody,
    /// A service does, and has somebody, but not on this node, where its policy wants one: silence.
    NobodyHere,
    /// The service does not admit this client: silence.
    NotAdmitted,
    /// A service has this address, but not this port: the client is told.
    UnknownPort,
    /// The address is one for services, and none has it: silence.
    Unallocated,
    /// The backend in [`Scratch::picked`].
    Picked,
}

/// A backend, and whose it is.
#[repr(C)]
pub struct Picked {
    pub backend: Backend,
    pub generation: u32,
    /// Index of the service.
    pub service: u32,
    /// `abi::service::bits` of the service.
    pub bits: u32,
}

/// Where a lookup keeps its keys and its answer: on the stack of a socket hook, in [`crate::maps::Work`] elsewhere.
#[repr(C)]
pub struct Scratch {
    pub front: FrontendKey,
    pub client: AffinityKey,
    pub kept: Affinity,
    pub range: Key<SourceRange>,
    pub picked: Picked,
}

impl Scratch {
    pub const EMPTY: Self = Self {
        front: FrontendKey { addr: Addr16::NONE, port: Be16::new(0), proto: 0, zero: 0 },
        client: AffinityKey { client: Addr16::NONE, service: 0 },
        kept: Affinity { backend: Backend::NONE, generation: 0, seen: 0 },
        range: Key::new(0, SourceRange { service: 0, client: Addr16::NONE }),
        picked: Picked { backend: Backend::NONE, generation: 0, service: 0, bits: 0 },
    };
}

/// Whether `addr` may have frontends: one load and one compare instead of a hash lookup.
#[inline(always)]
pub fn is_candidate(addr: &Addr16) -> bool {
    let (word, bit) = filter_place(addr);
    let Some(word) = VIP_FILTER.get_ptr(word) else {
        return false;
    };
    // SAFETY: array elements live as long as the map; the agent stores whole words.
    unsafe { core::ptr::read_volatile(word) & bit != 0 }
}

/// Whether `addr` is one of those that services are given.
#[inline(always)]
pub fn is_service_address(addr: &Addr16) -> bool {
    let node = node();
    node.services[0].contains(addr) || node.services[1].contains(addr)
}

/// Word-wise equality: the compiler would call `memcmp` for the derived one.
#[inline(always)]
pub fn same(a: &Addr16, b: &Addr16) -> bool {
    let (a, b) = (a.words(), b.words());
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

/// The address of a pod or host in a family.
#[inline(always)]
pub fn address_of(link: &Link, v4: bool) -> &Addr16 {
    if v4 { &link.v4 } else { &link.v6 }
}

/// Looks a frontend up and picks one of its backends. `tell` writes the client's address when it is needed.
#[inline(always)]
pub fn lookup(ask: &Ask<'_>, scratch: &mut Scratch, tell: impl FnOnce(&mut Addr16)) -> Lookup {
    scratch.front.addr = *ask.addr;
    scratch.front.port = ask.port;
    scratch.front.proto = ask.proto;
    scratch.front.zero = 0;
    let Some(front) = FRONTENDS.get_ptr(&scratch.front) else {
        return absent(&mut scratch.front);
    };
    // SAFETY: both fields are read once; an update replaces the whole element.
    let (index, flags) = unsafe { ((*front).service, (*front).flags) };
    if flags & frontend::HOST_ONLY != 0 && !matches!(ask.client, Client::Host) {
        return Lookup::NotAService;
    }
    let Some(service) = SERVICES.get_ptr(index) else {
        return Lookup::Nobody;
    };
    // SAFETY: array elements live as long as the map.
    let (bits, patience) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*service).flags),
            core::ptr::read_volatile(&raw const (*service).affinity),
        )
    };
    if patience != 0 || flags & frontend::SOURCE_RANGES != 0 {
        tell(&mut scratch.client.client);
    }
    if flags & frontend::SOURCE_RANGES != 0 && !source_range::admits(index, scratch) {
        return Lookup::NotAdmitted;
    }
    scratch.picked.service = index;
    scratch.picked.bits = bits;
    let segment = segment(service, flags, ask.client);
    let served = if patience == 0 {
        pick(segment, bits, ask.spread, &mut scratch.picked)
    } else {
        scratch.client.service = index;
        affinity::pick(segment, ask.spread, patience, scratch)
    };
    count(index, served);
    if served {
        Lookup::Picked
    } else if bits & bits::SOMEBODY != 0 {
        Lookup::NobodyHere
    } else {
        Lookup::Nobody
    }
}

/// The backends a client may get: those of this node where the policy that applies to the client wants it. Policies for clients
/// outside do not bind those inside, who could go to the pods themselves.
#[inline(always)]
fn segment(service: *const Service, flags: u32, client: Client) -> *const Segment {
    let local = match client {
        Client::Inside | Client::Host => flags & frontend::INTERNAL_LOCAL != 0,
        Client::Outside => flags & (frontend::EXTERNAL_LOCAL | frontend::INTERNAL_LOCAL) != 0,
    };
    // SAFETY: array elements live as long as the map.
    unsafe { if local { &raw const (*service).local } else { &raw const (*service).cluster } }
}

/// What it means that a port has no frontend.
#[inline(always)]
fn absent(key: &mut FrontendKey) -> Lookup {
    key.port = Be16::new(0);
    key.proto = 0;
    match FRONTENDS.get_ptr(&*key) {
        // SAFETY: the field is read once; an update replaces the whole element.
        Some(front) if unsafe { (*front).flags } & frontend::EXTERNAL == 0 => Lookup::UnknownPort,
        Some(_) => Lookup::NotAService,
        None if is_service_address(&key.addr) => Lookup::Unallocated,
        None => Lookup::NotAService,
    }
}

/// Picks from a segment: by hash, the less busy of two, or at random. Slots lead to backends by one more step. Answers
/// whether there was anybody.
#[inline(always)]
pub fn pick(segment: *const Segment, bits: u32, spread: u32, picked: &mut Picked) -> bool {
    // SAFETY: the segment is eight bytes at a multiple of eight; one load sees base and count of one update.
    let both = unsafe { core::ptr::read_volatile(segment.cast::<u64>()) };
    let segment = Segment { base: both as u32, count: (both >> 32) as u32 };
    if segment.is_empty() {
        return false;
    }
    let number = if bits & bits::HASH != 0 { spread } else { random() };
    let Some(mut backend) = member(&segment, number) else {
        return false;
    };
    if bits & bits::LEAST != 0
        && let Some(other) = member(&segment, random())
        && connections(other.id) < connections(backend.id)
    {
        backend = other;
    }
    picked.backend = *backend;
    picked.generation = generation(backend.id);
    true
}

#[inline(always)]
fn member(segment: &Segment, number: u32) -> Option<&'static Backend> {
    let at = segment.base + number % segment.len();
    let at = if segment.has_slots() { *SLOTS.get(at)? } else { at };
    BACKENDS.get(at)
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// The generation of a backend: it changes when the backend goes.
#[inline(always)]
pub fn generation(id: u32) -> u32 {
    BACKEND_STATES.get_ptr(id).map_or(0, |state| {
        // SAFETY: array elements live as long as the map.
        unsafe { core::ptr::read_volatile(&raw const (*state).generation) }
    })
}

/// The connections of a backend. A conversion of maps copies the count a moment before flows that have begun by then, whose ends
/// are counted down all the same: less than none is none.
#[inline(always)]
fn connections(id: u32) -> i64 {
    BACKEND_STATES.get_ptr(id).map_or(0, |state| {
        // SAFETY: array elements live as long as the map.
        let count = unsafe { core::ptr::read_volatile(&raw const (*state).connections) } as i64;
        count.max(0)
    })
}

/// Counts a connection of a backend, for services that pick the less busy.
#[inline(always)]
pub fn connected(id: u32) {
    if let Some(state) = BACKEND_STATES.get_ptr_mut(id) {
        add(state, 1);
    }
}

/// Counts the end of a connection, unless the backend has gone since and its number may be another's.
#[inline(always)]
pub fn disconnected(id: u32, since: u32) {
    if generation(id) != since {
        return;
    }
    if let Some(state) = BACKEND_STATES.get_ptr_mut(id) {
        add(state, u64::MAX);
    }
}

#[inline(always)]
fn add(state: *mut BackendState, what: u64) {
    // `core` offers no atomic arithmetic on this target, though the machine has it.
    // SAFETY: array elements live as long as the map; every writer of this word is atomic.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
            &raw mut (*state).connections,
            what,
        );
    }
}

#[inline(always)]
fn count(service: u32, served: bool) {
    if let Some(cell) = SERVICE_COUNTS.get_ptr_mut(service) {
        // SAFETY: the cell belongs to this CPU.
        unsafe {
            if served {
                (*cell).connections += 1;
            } else {
                (*cell).refused += 1;
            }
        }
    }
}

/// Mixes a flow into the number that services pick by hash with. Every node computes the same.
#[inline(always)]
pub fn spread(client: &Addr16, ports: u32, proto: u8) -> u32 {
    let words = client.words();
    let mut hash = 0x811c_9dc5 ^ u32::from(proto);
    for word in [words[0], words[1], words[2], words[3], ports] {
        hash = (hash ^ word).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 15;
    }
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
