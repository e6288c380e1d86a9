//! Fragments: the first of a datagram has its ports, which the others borrow.

use abi::flow::Fragment;
use aya_ebpf::bindings::BPF_ANY;

use crate::flow::now;
use crate::maps::{FRAGMENTS, Work};
use crate::packet::{Part, Ports};

/// Seconds after which a receiver has given a datagram up (RFC 8200, 4.5), and its identification may be another's.
const PATIENCE: u32 = 60;

/// Gives a later fragment the ports of its first, if that has passed and was translated.
#[inline(always)]
pub fn recall(work: &mut Work) {
    if !matches!(work.packet.part, Part::Later) {
        return;
    }
    name(work);
    let Some(first) = FRAGMENTS.get_ptr(&work.fragment) else {
        return;
    };
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let first = unsafe { &*first };
    if now().wrapping_sub(first.seen) > PATIENCE {
        return;
    }
    work.packet.key.tuple.sport = first.sport;
    work.packet.key.tuple.dport = first.dport;
    work.packet.ports = Ports::Pair;
}

/// Remembers the ports of a first fragment that is to be translated; a table without room loses the datagram.
#[inline(always)]
pub fn record(work: &mut Work) {
    if !matches!(work.packet.part, Part::First) {
        return;
    }
    name(work);
    let tuple = work.packet.tuple();
    let first = Fragment { sport: tuple.sport, dport: tuple.dport, seen: now() };
    _ = FRAGMENTS.insert(&work.fragment, &first, u64::from(BPF_ANY));
}

#[inline(always)]
fn name(work: &mut Work) {
    let (key, fragment) = (&work.packet.key, &mut work.fragment);
    fragment.src = key.tuple.src;
    fragment.dst = key.tuple.dst;
    fragment.id = work.packet.id;
    fragment.proto = key.proto;
    fragment.zero = [0; 3];
}
