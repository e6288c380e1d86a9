//! Flows: remembering translations, both directions at once.
//!
//! ```text
//!  first packet ----> embryo pair (LRU: the oldest give way)
//!                        | answered
//!                        v
//!                     flow pair (hash: never evicted; `expire` forgets the silent ones)
//! ```

use abi::count::Path;
use abi::drops::Drop;
use abi::event::kind;
use abi::flow::{Flow, FlowKey, bits};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::event;
use crate::maps::{EMBRYOS, FLOWS, Work};
use crate::packet::{FIN, Packet, RST, SYN};
use crate::verdict::count;

/// Seconds of the kernel's monotonic clock.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_ns() } / 1_000_000_000) as u32
}

/// The entry of the packet, if it belongs to a flow.
#[inline(always)]
pub fn find(work: &mut Work) -> Option<*mut Flow> {
    if let Some(entry) = FLOWS.get_ptr_mut(&work.packet.key) {
        touch(&work.packet, entry);
        return Some(entry);
    }
    let entry = EMBRYOS.get_ptr_mut(&work.packet.key)?;
    touch(&work.packet, entry);
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    if unsafe { (*entry).flags } & bits::FORWARD == 0 {
        promote(work, entry);
    }
    Some(entry)
}

/// Remembers the flow in `work`: `packet.key` becomes `forward.to`, and its answers `packet.key` reversed.
#[inline(always)]
pub fn create(work: &mut Work) -> Result<(), Drop> {
    prepare_answer(work);
    EMBRYOS.insert(&work.answer, &work.reverse, u64::from(BPF_ANY)).map_err(|_| Drop::FlowTable)?;
    complete(work)
}

/// Fills the half of the answers from the forward half.
#[inline(always)]
pub fn prepare_answer(work: &mut Work) {
    work.answer.tuple = work.forward.to.reversed();
    work.answer.proto = work.packet.key.proto;
    work.answer.zero = [0; 3];
    work.reverse.to = work.packet.key.tuple.reversed();
    work.reverse.backend = work.forward.backend;
    work.reverse.generation = work.forward.generation;
    work.reverse.last_seen = work.forward.last_seen;
    work.reverse.flags = work.forward.flags & !bits::FORWARD;
    work.reverse.service = work.forward.service;
}

/// Remembers the half of the answers, unless another flow has the same.
#[inline(always)]
pub fn claim_answer(work: &Work) -> bool {
    FLOWS.get_ptr(&work.answer).is_none()
        && EMBRYOS.insert(&work.answer, &work.reverse, u64::from(BPF_NOEXIST)).is_ok()
}

/// Remembers the forward half.
#[inline(always)]
pub fn complete(work: &Work) -> Result<(), Drop> {
    EMBRYOS.insert(&work.packet.key, &work.forward, u64::from(BPF_ANY)).map_err(|_| Drop::FlowTable)?;
    event::flow(kind::BEGUN, &work.packet.key, &work.forward);
    Ok(())
}

/// Forgets both halves of a flow.
#[inline(always)]
pub fn forget(key: &FlowKey, twin: &FlowKey) {
    // A key that is not in the map is what we want.
    _ = FLOWS.remove(key);
    _ = FLOWS.remove(twin);
    _ = EMBRYOS.remove(key);
    _ = EMBRYOS.remove(twin);
}

/// Moves both halves from the embryos to the flows. A full table leaves them where they are: they still work.
#[inline(always)]
fn promote(work: &mut Work, reverse: *const Flow) {
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let reverse = unsafe { &*reverse };
    work.answer.tuple = reverse.to.reversed();
    work.answer.proto = work.packet.key.proto;
    work.answer.zero = [0; 3];
    let Some(forward) = EMBRYOS.get_ptr(&work.answer) else {
        return;
    };
    // SAFETY: as above.
    let forward = unsafe { &*forward };
    if FLOWS.insert(&work.packet.key, reverse, u64::from(BPF_ANY)).is_err() {
        return;
    }
    if FLOWS.insert(&work.answer, forward, u64::from(BPF_ANY)).is_err() {
        _ = FLOWS.remove(&work.packet.key);
        return;
    }
    _ = EMBRYOS.remove(&work.packet.key);
    _ = EMBRYOS.remove(&work.answer);
    count(Path::Promoted, 0);
    event::flow(kind::ANSWERED, &work.answer, forward);
}

#[inline(always)]
fn touch(packet: &Packet, entry: *mut Flow) {
    let now = now();
    let closing = match packet.tcp_flags & (FIN | RST) {
        0 => 0,
        FIN => bits::FIN,
        _ => bits::RST,
    };
    // SAFETY: the program runs under RCU; racing writers store the same second, and flags only gain bits.
    unsafe {
        if (*entry).last_seen != now {
            (*entry).last_seen = now;
        }
        if closing != 0 {
            (*entry).flags |= closing;
        } else if packet.tcp_flags & SYN != 0 && (*entry).flags & (bits::FIN | bits::RST) != 0 {
            // The same ports begin again: the flow is not closing any more.
            (*entry).flags &= !(bits::FIN | bits::RST);
        }
    }
}
