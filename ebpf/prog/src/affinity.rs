//! Session affinity: a client keeps its backend for as long as the service says, counted from its last new connection.

use abi::service::Segment;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};

use crate::flow::now;
use crate::maps::{AFFINITY, BACKENDS};
use crate::service::{self, Scratch};
use crate::table;

/// Backends of a segment that are looked through.
const MOST: u32 = 64;

/// The backend that `scratch.client` keeps, picked now if it has none that lives; answers whether there is one.
#[inline(always)]
pub fn pick(segment: *const Segment, spread: u32, patience: u32, scratch: &mut Scratch) -> bool {
    let now = now();
    if let Some(entry) = AFFINITY.get_ptr_mut(&scratch.client) {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        unsafe {
            if now - (*entry).seen <= patience
                && service::generation((*entry).backend.id) == (*entry).generation
                && holds(segment, (*entry).backend.id)
            {
                (*entry).seen = now;
                scratch.picked.backend = (*entry).backend;
                scratch.picked.generation = (*entry).generation;
                return true;
            }
        }
    }
    let bits = scratch.picked.bits;
    if !service::pick(segment, bits, spread, &mut scratch.picked) {
        return false;
    }
    scratch.kept.backend = scratch.picked.backend;
    scratch.kept.generation = scratch.picked.generation;
    scratch.kept.seen = now;
    // A client that cannot be remembered gets another backend next time.
    if AFFINITY.insert(&scratch.client, &scratch.kept, u64::from(BPF_NOEXIST)).is_ok() {
        table::added(abi::count::table::AFFINITY);
    } else {
        _ = AFFINITY.insert(&scratch.client, &scratch.kept, u64::from(BPF_ANY));
    }
    true
}

/// Whether a backend is still one of those the client may get: it may live on, and not take new connections of this service, or
/// not of clients under this policy. In segments that are longer, and in slots, it is taken to be.
#[inline(always)]
fn holds(segment: *const Segment, id: u32) -> bool {
    // SAFETY: the segment is eight bytes at a multiple of eight; one load sees base and count of one update.
    let both = unsafe { core::ptr::read_volatile(segment.cast::<u64>()) };
    let segment = Segment { base: both as u32, count: (both >> 32) as u32 };
    if segment.has_slots() || segment.len() > MOST {
        return !segment.is_empty();
    }
    for at in 0..MOST {
        if at >= segment.len() {
            return false;
        }
        let Some(backend) = BACKENDS.get_ptr(segment.base + at) else {
            return false;
        };
        // SAFETY: array elements live as long as the map.
        if unsafe { (*backend).id } == id {
            return true;
        }
    }
    false
}
