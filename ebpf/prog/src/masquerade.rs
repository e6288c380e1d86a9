//! Masquerade: a source port of the node for flows that leave it under the node's address.

use abi::Be16;
use abi::drops::Drop;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id};

use crate::flow;
use crate::maps::{Work, node};
use crate::nat::node_address;
use crate::packet::Ports;

/// Ports tried before a destination counts as exhausted.
const ATTEMPTS: u32 = 16;

/// Remembers the flow in `work`, whose packets go to `forward.to` from the node's address and a port that is free.
///
/// Each CPU draws from its own stripe of the port range, so that two CPUs never want the same port. A port may serve any
/// number of destinations: only the whole tuple of the answer has to be unique.
#[inline(always)]
pub fn create(work: &mut Work) -> Result<(), Drop> {
    let facts = node();
    let (min, max) = (u32::from(facts.port_min.host()), u32::from(facts.port_max.host()));
    let cpus = facts.cpus.max(1);
    let stripe = ((max - min + 1) / cpus).max(1);
    // SAFETY: the helpers have no preconditions.
    let (cpu, random) = unsafe { (bpf_get_smp_processor_id(), bpf_get_prandom_u32()) };
    let base = min + (cpu % cpus) * stripe;
    if !matches!(work.packet.ports, Ports::Pair | Ports::EchoRequest) {
        return Err(Drop::UnknownProtocol);
    }
    work.forward.to.src = *node_address(work.packet.v4()).ok_or(Drop::NoPort)?;
    flow::prepare_answer(work);
    for attempt in 0..ATTEMPTS {
        let port = Be16::new((base + random.wrapping_add(attempt) % stripe) as u16);
        work.answer.tuple.dport = port;
        if flow::claim_answer(work) {
            work.forward.to.sport = port;
            return flow::complete(work);
        }
    }
    Err(Drop::NoPort)
}
