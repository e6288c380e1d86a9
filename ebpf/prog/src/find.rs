//! Finding the flow of a packet: by its own tuple, or, of flows that are not translated, by that of who began.

use core::ptr::NonNull;

use abi::count::Path;
use abi::event::kind;
use abi::flow::bits;
use aya_ebpf::bindings::BPF_ANY;

use crate::bytes::Bytes;
use crate::deliver::is_pod;
use crate::flow::{Entry, add_begun, promote};
use crate::maps::{EMBRYOS, FLOWS, Known, Work, work};
use crate::packet::{ACK, Packet, RST, SYN};
use crate::verdict::count;
use crate::{event, key, older, table, words};

/// The entry of the packet, if it belongs to a flow. An answer makes its flow an established one.
#[inline(always)]
pub fn find(work: &mut Work) -> Option<Entry> {
    if matches!(work.known, Known::No) && !is_answer(&work.packet) {
        return None;
    }
    let entry = match look() {
        NOWHERE => return None,
        AMONG_EMBRYOS => EMBRYOS.get_ptr_mut(&work.packet.key),
        OF_BOTH => FLOWS.get_ptr_mut(&work.answer),
        _ => FLOWS.get_ptr_mut(&work.packet.key),
    };
    entry.and_then(NonNull::new)
}

/// What [`look`] has found: nothing.
const NOWHERE: i32 = 0;
/// An entry of the packet's own among the flows.
const OWN: i32 = 1;
/// That of the flow it answers, under `work.answer`.
const OF_BOTH: i32 = 2;
/// One of its own among the embryos.
const AMONG_EMBRYOS: i32 = 3;

/// Looks for the packet's entry, and gives it its place. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look() -> i32 {
    let Some(work) = work() else {
        return NOWHERE;
    };
    let is_new = matches!(work.known, Known::No);
    let mut found = if is_new { None } else { place(work) };
    if found.is_none()
        && ((!is_new && (older::take_over(older::Which::Packet) || older::take_over(older::Which::Answer)))
            || is_answer(&work.packet) && answer_plain() != 0)
    {
        found = place(work);
    }
    let Some((entry, is_embryo)) = found else {
        return NOWHERE;
    };
    // SAFETY: see `Entry`.
    let flags = unsafe { (*entry.as_ptr()).flags };
    if work.back != 0 {
        if flags & bits::ANSWERED == 0 {
            answered(entry);
        }
        return OF_BOTH;
    }
    if !is_embryo || (flags & bits::FORWARD == 0 && promote(work, entry)) {
        return OWN;
    }
    AMONG_EMBRYOS
}

/// An entry, and whether it is among the embryos.
#[inline(always)]
fn place(work: &mut Work) -> Option<(Entry, bool)> {
    if let Some(entry) = established(work) {
        return Some((entry, false));
    }
    EMBRYOS.get_ptr_mut(&work.packet.key).and_then(NonNull::new).map(|entry| (entry, true))
}

/// The entry among the flows: one of its own, or of the flow that the packet answers. Servers mostly have the lower port (RFC 6056,
/// section 3.2), so that answers seldom cost a second look.
#[inline(always)]
fn established(work: &mut Work) -> Option<Entry> {
    let packet = &work.packet;
    let may_answer = !packet.asks();
    work.back = u32::from(may_answer && packet.tuple().sport.host() < packet.tuple().dport.host());
    if back(work) != 0 {
        key::reverse(work);
    }
    if let Some(entry) = held(work) {
        return Some(entry);
    }
    // Who finds nothing goes on with both keys.
    key::reverse(work);
    if may_answer {
        work.back = back(work) ^ 1;
        if let Some(entry) = held(work) {
            return Some(entry);
        }
    }
    work.back = 0;
    None
}

/// The entry in the direction that `work.back` says.
#[inline(always)]
fn held(work: &Work) -> Option<Entry> {
    let back = back(work);
    // SAFETY: both keys are parts of the work.
    let key = unsafe { &*(&raw const work.packet.key).byte_add(back as usize * KEYS_APART) };
    let entry = FLOWS.get_ptr_mut(key).and_then(NonNull::new)?;
    // SAFETY: see `Entry`.
    let both = unsafe { (*entry.as_ptr()).flags } & bits::BOTH;
    if back != 0 && both == 0 { None } else { Some(entry) }
}

/// From the packet's key to that of what it answers.
const KEYS_APART: usize = core::mem::offset_of!(Work, answer)
    - (core::mem::offset_of!(Work, packet) + core::mem::offset_of!(Packet, key));

/// Notes that the packet is the first answer to a flow of both directions.
#[inline(always)]
fn answered(entry: Entry) {
    // SAFETY: see `Entry`; flags only gain bits.
    unsafe { (*entry.as_ptr()).flags |= bits::ANSWERED };
    tell_answered();
}

/// Counts and tells that the flow of `work.answer` was answered. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_answered() -> i32 {
    add_begun(-1);
    count(Path::Promoted, 0);
    if event::wanted(kind::ANSWERED)
        && let Some(work) = work()
        && let Some(flow) = FLOWS.get_ptr(&work.answer)
    {
        // SAFETY: see `Entry`.
        event::flow(kind::ANSWERED, &work.answer, unsafe { &*flow });
    }
    0
}

/// Whether the packet looks like the first answer to a connection. Unusual ones are found as well, when a flow of their own is about to
/// begin.
#[inline(always)]
fn is_answer(packet: &Packet) -> bool {
    packet.tcp_flags & (SYN | ACK) == SYN | ACK || packet.tcp_flags & RST != 0
}

/// The entry of the packet, if it belongs to a flow and does not change that flow's place. An answer makes its flow an established one.
/// None of a packet whose sender is not who it says.
#[inline(always)]
pub fn find_settled<B: Bytes>(
    work: &mut Work,
    is_sender: impl Fn(&Work, Option<Entry>) -> bool,
) -> Option<Entry> {
    let found = if B::FOR_PODS {
        established(work)
    } else {
        work.back = 0;
        held(work)
    };
    if !is_sender(work, found) {
        return None;
    }
    work.known = Known::Yes;
    if let Some(entry) = found {
        // SAFETY: see `Entry`.
        if back(work) != 0 && unsafe { (*entry.as_ptr()).flags } & bits::ANSWERED == 0 {
            answered(entry);
        }
        return Some(entry);
    }
    let embryo =
        if begins_untranslated::<B>(&work.packet) { None } else { EMBRYOS.get_ptr_mut(&work.packet.key) };
    let Some(entry) = embryo.and_then(NonNull::new) else {
        // The rest of the program asks the older tables, if there are any.
        work.known = if older::is_there() { Known::Unseen } else { Known::No };
        return None;
    };
    // SAFETY: see `Entry`.
    if unsafe { (*entry.as_ptr()).flags } & bits::FORWARD != 0 { Some(entry) } else { None }
}

/// Whether the packet begins a connection of two pods: among the embryos there is at most one that it has begun before, which is the same
/// begun anew, and forgotten by the next walk. The look that this spares would find nothing in the cache.
#[inline(always)]
fn begins_untranslated<B: Bytes>(packet: &Packet) -> bool {
    B::FOR_PODS && packet.asks() && is_pod(&packet.tuple().src) && is_pod(&packet.tuple().dst)
}

/// One if the packet answers a flow of both directions. Read anew, so that the verifier does not follow either case to its end.
#[inline(always)]
pub fn back(work: &Work) -> u32 {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::read_volatile(&raw const work.back) & 1 }
}

/// Moves a flow that is not translated from the embryos to the flows, if the packet is its first answer: one if so. Verified by
/// itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_plain() -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    key::reverse(work);
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
    words::copy(&mut work.forward, begun);
    work.forward.flags |= bits::BOTH | bits::ANSWERED;
    work.forward.back.seen = 0;
    if FLOWS.insert(&work.answer, &work.forward, u64::from(BPF_ANY)).is_err() {
        return answer_embryo(work);
    }
    table::forget(&work.answer);
    count(Path::Promoted, 0);
    event::flow(kind::ANSWERED, &work.answer, &work.forward);
    1
}

/// Remembers the answers to the flow in `work.forward` by themselves: among the flows there is no room.
#[inline(always)]
fn answer_embryo(work: &mut Work) -> i32 {
    work.reverse = work.forward;
    work.reverse.to = work.packet.key.tuple;
    work.reverse.flags &= !(bits::FORWARD | bits::BOTH | bits::ANSWERED);
    work.reverse.hop.seen = 0;
    i32::from(table::remember(&work.packet.key, &work.reverse).is_ok())
}
