//! Flows: remembering translations, both directions at once.
//!
//! ```text
//!  first packet ----> embryo pair (LRU: the oldest give way)
//!                        | answered
//!                        v
//!                     flow pair (hash: never evicted; `expire` forgets the silent ones)
//! ```
//!
//! Of a connection that is not translated the embryo is one entry, for what the client sends: its answers say whose they are.

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

use crate::maps::{EMBRYOS, FLOWS, GAUGES, Known, Work, node, work};
use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::verdict::count;
use crate::{ending, event, older, policy, service, table};

/// What [`Work::settles`] is for a packet of a flow that began before.
pub const KNOWN: u32 = 1;
/// The same for the first packet of one.
pub const NEW: u32 = 2;

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

/// The entry of the packet, if it belongs to a flow. An answer makes its flow an established one.
#[inline(always)]
pub fn find(work: &mut Work) -> Option<Entry> {
    let is_new = matches!(work.known, Known::No);
    let mut found = if is_new { None } else { place(&work.packet.key) };
    if found.is_none()
        && ((!is_new && older::take_over(older::Which::Packet))
            || is_answer(&work.packet) && answer_plain() != 0)
    {
        found = place(&work.packet.key);
    }
    let (entry, is_embryo) = found?;
    // SAFETY: see `Entry`.
    if is_embryo && unsafe { (*entry.as_ptr()).flags } & bits::FORWARD == 0 {
        return promote(work, entry);
    }
    Some(entry)
}

/// An entry, and whether it is among the embryos.
#[inline(always)]
fn place(key: &FlowKey) -> Option<(Entry, bool)> {
    if let Some(entry) = FLOWS.get_ptr_mut(key) {
        return NonNull::new(entry).map(|entry| (entry, false));
    }
    EMBRYOS.get_ptr_mut(key).and_then(NonNull::new).map(|entry| (entry, true))
}

/// Whether the packet looks like the first answer to a connection. Unusual ones are found as well, when a flow of their own is about to
/// begin.
#[inline(always)]
fn is_answer(packet: &Packet) -> bool {
    packet.tcp_flags & (SYN | ACK) == SYN | ACK || packet.tcp_flags & RST != 0
}

/// The entry of the packet, if it belongs to a flow and does not change that flow's place.
#[inline(always)]
pub fn find_settled(work: &mut Work) -> Option<Entry> {
    work.known = Known::Yes;
    if let Some(entry) = FLOWS.get_ptr_mut(&work.packet.key) {
        return NonNull::new(entry);
    }
    let Some(entry) = EMBRYOS.get_ptr_mut(&work.packet.key).and_then(NonNull::new) else {
        // The rest of the program asks the older tables, if there are any.
        work.known = if older::is_there() { Known::Unseen } else { Known::No };
        return None;
    };
    // SAFETY: see `Entry`.
    if unsafe { (*entry.as_ptr()).flags } & bits::FORWARD != 0 { Some(entry) } else { None }
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
    work.reverse.epoch = work.forward.epoch;
    work.reverse.hop.seen = 0;
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
    work.answer.proto = work.packet.key.proto;
    work.answer.zero = [0; 3];
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

/// Moves both halves from the embryos to the flows. A full table leaves them where they are: they still work.
#[inline(always)]
fn promote(work: &mut Work, entry: Entry) -> Option<Entry> {
    // SAFETY: see `Entry`.
    let reverse = unsafe { entry.as_ref() };
    work.answer.tuple = reverse.to.reversed();
    work.answer.proto = work.packet.key.proto;
    work.answer.zero = [0; 3];
    let Some(forward) = EMBRYOS.get_ptr(&work.answer) else {
        return Some(entry);
    };
    // SAFETY: as above.
    let forward = unsafe { &*forward };
    if !add_both(&work.packet.key, reverse, &work.answer, forward) {
        return Some(entry);
    }
    table::forget(&work.packet.key);
    table::forget(&work.answer);
    // Counted now and not when they begin: nobody hears of those that the embryos' table gives up.
    if forward.flags & bits::COUNTED != 0 {
        service::connected(forward.backend);
    }
    count(Path::Promoted, 0);
    event::flow(kind::ANSWERED, &work.answer, forward);
    // What is written from here on has to reach the copy.
    NonNull::new(FLOWS.get_ptr_mut(&work.packet.key)?)
}

/// Moves an untranslated flow to the flows, if the packet is its first answer: one if so. As long as nobody has answered it, there is
/// an entry for its beginning only. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_plain() -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    work.answer.tuple = work.packet.key.tuple.reversed();
    work.answer.proto = work.packet.key.proto;
    work.answer.zero = [0; 3];
    let mut begun = EMBRYOS.get_ptr(&work.answer);
    if begun.is_none() && older::take_over(older::Which::Answer) {
        begun = EMBRYOS.get_ptr(&work.answer);
    }
    let Some(begun) = begun else {
        return 0;
    };
    // SAFETY: see `Entry`.
    let begun = unsafe { &*begun };
    if begun.flags & (bits::PLAIN | bits::FORWARD) != bits::PLAIN | bits::FORWARD {
        return 0;
    }
    work.reverse.to = work.packet.key.tuple;
    work.reverse.backend = 0;
    work.reverse.generation = 0;
    work.reverse.last_seen = begun.last_seen;
    work.reverse.flags = begun.flags & !bits::FORWARD;
    work.reverse.service = 0;
    work.reverse.epoch = begun.epoch;
    work.reverse.hop.seen = 0;
    if !add_both(&work.packet.key, &work.reverse, &work.answer, begun) {
        return i32::from(table::remember(&work.packet.key, &work.reverse).is_ok());
    }
    table::forget(&work.answer);
    count(Path::Promoted, 0);
    event::flow(kind::ANSWERED, &work.answer, begun);
    1
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
pub fn touch(packet: &Packet, entry: Entry, now: u32) {
    let entry = entry.as_ptr();
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

/// Lets the packet's flow keep the next hop that is looked up for it: one that is [`NEW`] or [`KNOWN`].
#[inline(always)]
pub fn keep_hop(work: &mut Work, which: u32) {
    work.origin = work.packet.key;
    work.settles = which;
}

/// Remembers where the packets of this direction go, if they go there every time.
#[inline(always)]
pub fn settle(work: &Work) {
    if work.settles == 0 {
        return;
    }
    let known = if work.settles == NEW { None } else { FLOWS.get_ptr_mut(&work.origin) };
    let Some(entry) = known.or_else(|| EMBRYOS.get_ptr_mut(&work.origin)) else {
        return;
    };
    // SAFETY: see `Entry`. Readers on other CPUs that see half of it send one packet of a moved route astray.
    unsafe {
        let at = &raw mut (*entry).hop;
        (*at).ifindex = work.hop.ifindex;
        (*at).dmac = work.hop.dmac;
        (*at).smac = work.hop.smac;
        (*at).mtu = work.hop.mtu;
        core::ptr::write_volatile(&raw mut (*at).seen, now());
    }
}
