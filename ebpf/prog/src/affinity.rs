//! Session affinity: a client keeps its backend for as long as the service says, counted from its last new connection.

use abi::Addr16;
use abi::service::{Affinity, AffinityKey, Backend, Segment};
use aya_ebpf::bindings::BPF_ANY;

use crate::flow::now;
use crate::maps::AFFINITY;
use crate::service;

/// What [`pick_kept`] is asked, in one place: a BPF function takes five arguments.
struct Asked {
    key: AffinityKey,
    bits: u32,
    spread: u32,
    patience: u32,
}

/// The backend of `client` in the service with this index and its generation, picked now if it has none that lives.
#[inline(always)]
pub fn pick(
    segment: *const Segment,
    bits: u32,
    spread: u32,
    service: u32,
    client: &Addr16,
    patience: u32,
) -> Option<(Backend, u32)> {
    let mut kept = Affinity { backend: Backend::NONE, generation: 0, seen: 0 };
    let asked = Asked { key: AffinityKey { client: *client, service }, bits, spread, patience };
    // A function of its own keeps its buffers off the caller's stack.
    if pick_kept(segment, &raw const asked, &raw mut kept) == 0 {
        return None;
    }
    Some((kept.backend, kept.generation))
}

#[inline(never)]
extern "C" fn pick_kept(segment: *const Segment, asked: *const Asked, out: *mut Affinity) -> i32 {
    let now = now();
    // SAFETY: the caller's own, for the length of the call.
    let (asked, out) = unsafe { (&*asked, &mut *out) };
    if let Some(entry) = AFFINITY.get_ptr_mut(&asked.key) {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        unsafe {
            if now - (*entry).seen <= asked.patience
                && service::generation((*entry).backend.id) == (*entry).generation
            {
                (*entry).seen = now;
                *out = *entry;
                return 1;
            }
        }
    }
    let Some((backend, generation)) = service::pick(segment, asked.bits, asked.spread) else {
        return 0;
    };
    *out = Affinity { backend, generation, seen: now };
    // A client that cannot be remembered gets another backend next time.
    _ = AFFINITY.insert(&asked.key, &*out, u64::from(BPF_ANY));
    1
}
