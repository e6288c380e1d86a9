//! Flows: remembering translations, both directions at once.
//!
//! ```text
//!  first packet ----> embryo pair (LRU: the oldest give way)
//!                        | answered
//!                        v
//!                     flow pair (hash: never evicted; `expire` forgets the silent ones)
//! ```
//!
//! A flow that is not translated has one entry for both directions, that of who began: its answers are found by the tuple
//! reversed. It begins among the flows and stays there, as long as such beginnings have not more than their share of that table
//! ([`begin`]): a flood fills the share, and the embryos after that.

use core::intrinsics::AtomicOrdering;
use core::ptr::NonNull;

use abi::count::{Path, gauge};
use abi::drops::Drop;
use abi::event::kind;
use abi::flow::{Flow, FlowKey, bits};
use abi::node::feature;
use abi::{Addr16, Be16};
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

use crate::find::back;
use crate::maps::{EMBRYOS, FLOWS, GAUGES, Work, node};
use crate::packet::{FIN, RST, SYN};
use crate::verdict::count;
use crate::{ending, event, older, policy, service, table};

/// An entry of either table. The programs run under RCU: its memory stays valid, other CPUs change single words of it.
pub type Entry = NonNull<Flow>;

/// Seconds of the kernel's monotonic clock.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the first helper exists on this kernel, or the verifier removes its branch; neither has preconditions.
    let nanoseconds = unsafe {
        if node().features & feature::COARSE_CLOCK != 0 {
            bpf_ktime_get_coarse_ns()
        } else {
            bpf_ktime_get_ns()
        }
    };
    (nanoseconds / 1_000_000_000) as u32
}

/// Remembers the flow in `work`: `packet.key` becomes `forward.to`, and its answers `packet.key` reversed.
#[inline(always)]
pub fn create(work: &mut Work) -> Result<(), Drop> {
    prepare_answer(work);
    table::remember(&work.answer, &work.reverse)?;
    complete(work)
}

/// Fills a new flow that goes to `dst`.
#[inline(always)]
pub fn prepare(work: &mut Work, dst: &Addr16, dport: Be16) {
    let from = &work.packet.key.tuple;
    work.forward.to.src = from.src;
    work.forward.to.sport = from.sport;
    work.forward.to.dst = *dst;
    work.forward.to.dport = dport;
    work.forward.backend = 0;
    work.forward.generation = 0;
    work.forward.service = 0;
    work.forward.epoch = policy::epoch();
    work.forward.last_seen = now();
    work.forward.hop.seen = 0;
    work.forward.back.seen = 0;
}

/// Fills the half of the answers from the forward half.
#[inline(always)]
pub fn prepare_answer(work: &mut Work) {
    work.answer.tuple = work.forward.to.reversed();
    work.answer.set_proto(work.packet.key.proto);
    work.reverse.to = work.packet.key.tuple.reversed();
    work.reverse.backend = work.forward.backend;
    work.reverse.generation = work.forward.generation;
    work.reverse.last_seen = work.forward.last_seen;
    work.reverse.flags = work.forward.flags & !bits::FORWARD;
    work.reverse.service = work.forward.service;
    work.reverse.epoch = work.forward.epoch;
    work.reverse.hop.seen = 0;
    work.reverse.back.seen = 0;
}

/// Remembers the half of the answers, unless another flow that is not over has the same.
#[inline(always)]
pub fn claim_answer(work: &Work) -> bool {
    if answer_is_known(work) && ending::take_over() == 0 {
        return false;
    }
    table::remember_new(&work.answer, &work.reverse)
}

/// Remembers the forward half.
#[inline(always)]
pub fn complete(work: &Work) -> Result<(), Drop> {
    table::remember(&work.packet.key, &work.forward)?;
    event::flow(kind::BEGUN, &work.packet.key, &work.forward);
    Ok(())
}

/// Remembers the beginning of a flow that is not translated; answers whether it could.
#[inline(always)]
pub fn begin(work: &mut Work) -> bool {
    if has_room_for_begun(work) {
        work.forward.flags |= bits::BOTH;
        if FLOWS.insert(&work.packet.key, &work.forward, u64::from(BPF_ANY)).is_ok() {
            add_begun(1);
            event::flow(kind::BEGUN, &work.packet.key, &work.forward);
            return true;
        }
        work.forward.flags &= !bits::BOTH;
    }
    complete(work).is_ok()
}

/// Whether a beginning may be among the flows. One that has not met its way out yet may still be hidden: who does that looks among
/// the embryos.
#[inline(always)]
fn has_room_for_begun(work: &Work) -> bool {
    work.forward.flags & bits::OUTWARD == 0
        && GAUGES.get_ptr(gauge::BEGUN).is_some_and(|cell| {
            // SAFETY: array elements live as long as the map. Ends that were counted twice since the last walk make it negative.
            let begun = unsafe { core::ptr::read_volatile(cell) }.cast_signed();
            begun < i64::from(node().begun)
        })
}

/// Counts a beginning among the flows, or minus one that is answered.
#[inline(always)]
pub fn add_begun(number: i64) {
    if let Some(cell) = GAUGES.get_ptr_mut(gauge::BEGUN) {
        // SAFETY: array elements live as long as the map. The old value is not asked for: Linux before 5.12 cannot tell it.
        unsafe {
            core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
                cell,
                number.cast_unsigned(),
            );
        }
    }
}

/// Whether a flow has packets like `work.answer`.
#[inline(always)]
pub fn answer_is_known(work: &Work) -> bool {
    FLOWS.get_ptr(&work.answer).is_some() || EMBRYOS.get_ptr(&work.answer).is_some() || older::has_answer()
}

/// Notes that the packet's flow leaves the cluster under its own address.
#[inline(always)]
pub fn stays(work: &Work) {
    let entry = FLOWS.get_ptr_mut(&work.packet.key).or_else(|| EMBRYOS.get_ptr_mut(&work.packet.key));
    if let Some(entry) = entry {
        // SAFETY: see `Entry`; racing writers clear the same bit.
        unsafe { (*entry).flags &= !bits::OUTWARD };
    }
}

/// Moves both halves of a flow whose answers do not come by here: its client has acknowledged one.
///
/// Who has never seen that answer can say so as well, under any address. Such flows get no more than their share of the table, and
/// the rest stay embryos.
#[inline(always)]
pub fn establish(work: &mut Work) {
    if FLOWS.get_ptr(&work.packet.key).is_some() || !has_room_for_direct() {
        return;
    }
    work.answer.tuple = work.to.reversed();
    work.answer.set_proto(work.packet.key.proto);
    let Some(reverse) = EMBRYOS.get_ptr_mut(&work.answer).and_then(NonNull::new) else {
        return;
    };
    // The key of the half that is being moved, and that of the other.
    core::mem::swap(&mut work.packet.key, &mut work.answer);
    _ = promote(work, reverse);
    core::mem::swap(&mut work.packet.key, &mut work.answer);
}

/// Whether another flow that is answered elsewhere may be established. It counts as such until the next walk.
#[inline(always)]
fn has_room_for_direct() -> bool {
    GAUGES.get_ptr_mut(gauge::DIRECT).is_some_and(|cell| {
        // SAFETY: array elements live as long as the map; an addition that is lost is found by the next walk.
        unsafe {
            let flows = core::ptr::read_volatile(cell);
            let has_room = flows < u64::from(node().direct);
            core::ptr::write_volatile(cell, flows + u64::from(has_room));
            has_room
        }
    })
}

/// Moves both halves from the embryos to the flows; answers whether it did. A full table leaves them where they are: they still work.
#[inline(always)]
pub fn promote(work: &mut Work, entry: Entry) -> bool {
    // SAFETY: see `Entry`.
    let reverse = unsafe { entry.as_ref() };
    work.answer.tuple = reverse.to.reversed();
    work.answer.set_proto(work.packet.key.proto);
    let Some(forward) = EMBRYOS.get_ptr(&work.answer) else {
        return false;
    };
    // SAFETY: as above.
    let forward = unsafe { &*forward };
    if !add_both(&work.packet.key, reverse, &work.answer, forward) {
        return false;
    }
    table::forget(&work.packet.key);
    table::forget(&work.answer);
    // Counted now and not when they begin: nobody hears of those that the embryos' table gives up.
    if forward.flags & bits::COUNTED != 0 {
        service::connected(forward.backend);
    }
    count(Path::Promoted, 0);
    event::flow(kind::ANSWERED, &work.answer, forward);
    true
}

/// Adds both halves of a flow to the flows; answers whether there was room.
#[inline(always)]
fn add_both(key: &FlowKey, flow: &Flow, twin: &FlowKey, other: &Flow) -> bool {
    if FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_err() {
        return false;
    }
    if FLOWS.insert(twin, other, u64::from(BPF_ANY)).is_err() {
        _ = FLOWS.remove(key);
        return false;
    }
    true
}

/// Notes that a packet of the flow passed.
#[inline(always)]
pub fn touch(work: &Work, entry: Entry, now: u32) {
    let (packet, entry) = (&work.packet, entry.as_ptr());
    let closing = match packet.tcp_flags & (FIN | RST) {
        0 => 0,
        FIN => bits::FIN << (back(work) * (bits::FIN_BACK / bits::FIN).trailing_zeros()),
        _ => bits::RST,
    };
    // SAFETY: the program runs under RCU; racing writers store the same second, and flags only gain bits.
    unsafe {
        if (*entry).last_seen != now {
            (*entry).last_seen = now;
        }
        if closing != 0 {
            (*entry).flags |= closing;
        } else if packet.tcp_flags & SYN != 0 && (*entry).flags & CLOSING != 0 {
            // The same ports begin again: the flow is not closing any more.
            (*entry).flags &= !CLOSING;
        }
    }
}

/// What is left of a flow that has begun to end.
const CLOSING: u32 = bits::FIN | bits::FIN_BACK | bits::RST;
