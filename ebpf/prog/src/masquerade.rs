//! Masquerade: a source port of the node for flows that leave it under the node's address.

use abi::Be16;
use abi::count::Path;
use abi::drops::Drop;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id};

use crate::flow;
use crate::maps::{Work, node, work};
use crate::nat::node_address;
use crate::packet::Ports;
use crate::verdict::count;

/// Ports tried in a row, and rows, before a destination counts as exhausted. Many, so that the last free ports of a destination
/// are found: a collision is one or two lookups.
const ROW: u32 = 32;
const ROWS: u32 = 64;

/// A run of source ports: those of one CPU, so that two CPUs never want the same.
struct Stripe {
    first: u32,
    count: u32,
}

#[inline(always)]
fn stripe() -> Stripe {
    let facts = node();
    let (min, max) = (u32::from(facts.port_min.host()), u32::from(facts.port_max.host()));
    let cpus = facts.cpus.max(1);
    let count = ((max - min + 1) / cpus).max(1);
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Stripe { first: min + (cpu % cpus) * count, count }
}

/// Remembers the flow in `work`, whose packets go to `forward.to` from the node's address and a port that is free.
///
/// A port may serve any number of destinations: only the whole tuple of the answer has to be unique.
#[inline(always)]
pub fn create(work: &mut Work) -> Result<(), Drop> {
    if !matches!(work.packet.ports, Ports::Pair | Ports::EchoRequest) {
        return Err(Drop::UnknownProtocol);
    }
    work.forward.to.src = *node_address(work.packet.v4()).ok_or(Drop::NoPort)?;
    flow::prepare_answer(work);
    if claim_port() == 0 {
        return Err(Drop::NoPort);
    }
    work.forward.to.sport = work.answer.tuple.dport;
    flow::complete(work)
}

/// Tries rows of ports until one of them is free. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_port() -> i32 {
    for _ in 0..ROWS {
        if claim_row() == 1 {
            return 1;
        }
    }
    0
}

/// Tries a row of ports at random, at a random distance from each other: taken ports would grow into long runs otherwise. One
/// if `work.answer` has got one of them. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_row() -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    let stripe = stripe();
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let stride = (random >> 16) | 1;
    for attempt in 0..ROW {
        let port = stripe.first + random.wrapping_add(attempt.wrapping_mul(stride)) % stripe.count;
        work.answer.tuple.dport = Be16::new(port as u16);
        if flow::claim_answer(work) {
            return 1;
        }
        count(Path::PortCollision, 0);
    }
    0
}
