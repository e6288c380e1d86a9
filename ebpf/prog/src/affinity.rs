//! Session affinity: a client keeps its backend for as long as the service says, counted from its last new connection.

use abi::service::Segment;
use aya_ebpf::bindings::BPF_ANY;

use crate::flow::now;
use crate::maps::AFFINITY;
use crate::service::{self, Scratch};

/// The backend that `scratch.client` keeps, picked now if it has none that lives; answers whether there is one.
#[inline(always)]
pub fn pick(segment: *const Segment, spread: u32, patience: u32, scratch: &mut Scratch) -> bool {
    let now = now();
    if let Some(entry) = AFFINITY.get_ptr_mut(&scratch.client) {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        unsafe {
            if now - (*entry).seen <= patience
                && service::generation((*entry).backend.id) == (*entry).generation
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
    _ = AFFINITY.insert(&scratch.client, &scratch.kept, u64::from(BPF_ANY));
    true
}
