//! The ends of flows: when they are over, and what is put right when they are forgotten.

use abi::event::kind;
use abi::flow::{Flow, FlowKey, bits, timeout};

use crate::maps::{EMBRYOS, FLOWS, work};
use crate::packet::{FIN, RST, SCTP, TCP};
use crate::{event, flow, key, older, service, table};

/// The key of the other direction.
#[inline(always)]
pub fn twin(key: &FlowKey, entry: &Flow) -> FlowKey {
    FlowKey { tuple: entry.to.reversed(), proto: key.proto, zero: [0; 3] }
}

/// Whether a flow has been silent for so long, or closed for `closed_for` seconds, that it is over.
#[inline(always)]
pub fn is_over(key: &FlowKey, entry: &Flow, twin: &FlowKey, closed_for: u32) -> bool {
    let mut seen = entry.last_seen;
    let mut flags = entry.flags;
    let mut answered = flags & bits::ANSWERED != 0;
    let mut both_closed = flags & bits::FIN != 0 && flags & bits::FIN_BACK != 0;
    let mut other = None;
    if flags & bits::BOTH == 0 {
        other = FLOWS.get_ptr(twin);
        answered = other.is_some();
        other = other.or_else(|| EMBRYOS.get_ptr(twin));
    }
    if let Some(other) = other {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        let (last_seen, other_flags) = unsafe { ((*other).last_seen, (*other).flags) };
        if last_seen > seen {
            seen = last_seen;
        }
        both_closed = flags & other_flags & bits::FIN != 0;
        flags |= other_flags;
    }
    // Of a flow that is answered elsewhere, only the client's end is seen.
    if flags & bits::DSR != 0 && flags & bits::FIN != 0 {
        both_closed = true;
    }
    let connection = key.proto == TCP || key.proto == SCTP;
    let patience = if !answered {
        timeout::EMBRYO
    } else if !connection {
        timeout::DATAGRAM
    } else if both_closed || flags & bits::RST != 0 {
        closed_for
    } else {
        timeout::TCP
    };
    flow::now().saturating_sub(seen) >= patience
}

/// Whether the same flow has begun anew among the flows: then this is its embryo, and over without an end.
#[inline(always)]
pub fn is_left_behind(key: &FlowKey, entry: &Flow) -> bool {
    entry.flags & bits::BOTH == 0
        && FLOWS.get_ptr(key).is_some_and(|anew| {
            // SAFETY: the program runs under RCU: the element's memory stays valid.
            unsafe { (*anew).flags & bits::BOTH != 0 }
        })
}

/// Forgets the flow that holds `work.answer`, if it is over: one if so. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_over() -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    let Some(holder) = FLOWS.get_ptr(&work.answer).or_else(|| EMBRYOS.get_ptr(&work.answer)) else {
        // One that was not taken over yet is left alone.
        return i32::from(!older::has_answer());
    };
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let holder = unsafe { &*holder };
    let other = twin(&work.answer, holder);
    if !is_over(&work.answer, holder, &other, work.closed_for) {
        return 0;
    }
    forget(&work.answer, &other);
    1
}

/// Forgets an untranslated connection with its last packet: whatever follows is nobody's to translate, and tables stay small.
/// Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn close(flags: u32) -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    let packet = &work.packet;
    if !packet.is_connection() || packet.tcp_flags & FIN != 0 {
        return 0;
    }
    let reset = packet.tcp_flags & RST != 0;
    key::reverse(work);
    let (own, answer) = (&work.packet.key, &work.answer);
    if flags & bits::BOTH != 0 {
        let over = reset || (flags & bits::FIN != 0 && flags & bits::FIN_BACK != 0);
        if over {
            if flags & bits::ANSWERED == 0 {
                flow::add_begun(-1);
            }
            end_plain(if work.back != 0 { answer } else { own });
            work.settles = 0;
        }
        return i32::from(over);
    }
    let over = reset || (flags & bits::FIN != 0 && has_finished(answer));
    if over {
        end_plain(own);
        end_plain(answer);
        work.settles = 0;
    }
    i32::from(over)
}

/// Forgets an entry that nothing counts.
#[inline(always)]
fn end_plain(key: &FlowKey) {
    if event::wanted(kind::ENDED) {
        end(key);
    } else if FLOWS.remove(key).is_err() {
        table::forget(key);
    }
}

#[inline(always)]
fn has_finished(key: &FlowKey) -> bool {
    FLOWS.get_ptr(key).is_some_and(|entry| {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        unsafe { (*entry).flags & bits::FIN != 0 }
    })
}

/// Forgets both halves of a flow, whose end is counted and told once.
#[inline(always)]
pub fn forget(key: &FlowKey, twin: &FlowKey) {
    end(key);
    end(twin);
}

#[inline(always)]
fn end(key: &FlowKey) {
    if let Some(entry) = FLOWS.get_ptr(key) {
        // SAFETY: the program runs under RCU: the element's memory stays valid, and is copied before another flow gets it.
        let (flags, backend, generation) = unsafe { ((*entry).flags, (*entry).backend, (*entry).generation) };
        if flags & bits::FORWARD != 0 {
            // SAFETY: as above.
            event::flow(kind::ENDED, key, unsafe { &*entry });
        }
        // Of several that forget a flow at once, one removes it.
        if FLOWS.remove(key).is_ok() && flags & bits::FORWARD != 0 && flags & bits::COUNTED != 0 {
            service::disconnected(backend, generation);
        }
    } else if let Some(entry) = EMBRYOS.get_ptr(key) {
        // SAFETY: as above.
        let embryo = unsafe { &*entry };
        if embryo.flags & bits::FORWARD != 0 {
            event::flow(kind::ENDED, key, embryo);
        }
        table::forget(key);
    }
}
