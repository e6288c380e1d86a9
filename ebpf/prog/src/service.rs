//! Services: from the address a client asked for to a backend.

use abi::service::{Backend, FrontendKey, Segment, frontend};
use abi::{Addr16, Be16};
use aya_ebpf::helpers::bpf_get_prandom_u32;

use crate::affinity;
use crate::maps::{BACKEND_STATES, BACKENDS, FRONTENDS, SERVICE_COUNTS, SERVICES, node};

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A pod or process of the cluster.
    Inside,
    /// Behind an uplink.
    Outside,
}

/// The answer to "who serves this address and port?".
pub enum Lookup {
    /// No service does.
    NotAService,
    /// A service does, and has nobody to send to.
    Nobody,
    /// A service does, and has somebody, but not on this node, where its policy wants one.
    NobodyHere,
    /// This backend of service `index`.
    Picked(Picked),
}

pub struct Picked {
    pub backend: Backend,
    pub generation: u32,
    pub service: u32,
}

/// Whether `addr` can be a frontend for clients inside: one compare per prefix instead of a hash.
#[inline(always)]
pub fn is_candidate(addr: &Addr16) -> bool {
    let node = node();
    node.services[0].contains(addr)
        || node.services[1].contains(addr)
        || same(addr, &node.v4)
        || same(addr, &node.v6)
}

/// Word-wise equality: the compiler would call `memcmp` for the derived one.
#[inline(always)]
pub fn same(a: &Addr16, b: &Addr16) -> bool {
    let (a, b) = (a.words(), b.words());
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

/// Looks a frontend up and picks one of its backends: at random, or the one the client keeps. `who` tells the client's address
/// when it is needed.
#[inline(always)]
pub fn lookup(addr: &Addr16, port: Be16, proto: u8, client: Client, who: impl FnOnce() -> Addr16) -> Lookup {
    let key = FrontendKey { addr: *addr, port, proto, zero: 0 };
    let Some(front) = FRONTENDS.get_ptr(&key) else {
        return Lookup::NotAService;
    };
    // SAFETY: both fields are read once; an update replaces the whole element.
    let (index, flags) = unsafe { ((*front).service, (*front).flags) };
    let Some(service) = SERVICES.get_ptr(index) else {
        return Lookup::Nobody;
    };
    let local = match client {
        Client::Inside => flags & frontend::INTERNAL_LOCAL != 0,
        Client::Outside => flags & frontend::EXTERNAL_LOCAL != 0,
    };
    // SAFETY: array elements live as long as the map.
    let (segment, others) = unsafe {
        if local {
            (&raw const (*service).local, (*service).cluster.count)
        } else {
            (&raw const (*service).cluster, 0)
        }
    };
    // SAFETY: as above.
    let patience = unsafe { core::ptr::read_volatile(&raw const (*service).affinity) };
    let picked = if patience == 0 {
        pick(segment).map(|(backend, generation)| Picked { backend, generation, service: index })
    } else {
        affinity::pick(segment, index, &who(), patience)
    };
    count(index, picked.is_some());
    match picked {
        Some(picked) => Lookup::Picked(picked),
        None if others > 0 => Lookup::NobodyHere,
        None => Lookup::Nobody,
    }
}

#[inline(always)]
pub fn pick(segment: *const Segment) -> Option<(Backend, u32)> {
    // SAFETY: the segment is eight bytes at a multiple of eight; one load sees base and count of one update.
    let both = unsafe { core::ptr::read_volatile(segment.cast::<u64>()) };
    let (base, count) = (both as u32, (both >> 32) as u32);
    if count == 0 {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let backend = *BACKENDS.get(base + random % count)?;
    let generation = generation(backend.id);
    Some((backend, generation))
}

/// The generation of a backend: it changes when the backend goes.
#[inline(always)]
pub fn generation(id: u32) -> u32 {
    BACKEND_STATES.get_ptr(id).map_or(0, |cell| {
        // SAFETY: array elements live as long as the map.
        unsafe { core::ptr::read_volatile(&raw const (*cell).generation) }
    })
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
