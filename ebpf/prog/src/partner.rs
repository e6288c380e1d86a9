//! Who a packet that belongs to no flow is meant for: a backend of the service it asks for, or the one that took the place of
//! a backend that is gone.

use abi::Addr16;
use abi::drops::Drop;

use crate::maps::{Work, work};
use crate::service::{self, Ask, Client, Lookup, is_candidate, is_service_address};
use crate::{nat, tombstone};

/// Nobody: the packet stays as it is.
const NONE: i32 = 0;
/// The backend in `work.scratch.picked`.
const FOUND: i32 = 1;

/// Finds the partner of the packet; answers whether it has one.
#[inline(always)]
pub fn find(client: Client) -> Result<bool, Drop> {
    match partner(u32::from(matches!(client, Client::Outside))) {
        NONE => Ok(false),
        FOUND => Ok(true),
        code => Err(reason(code)),
    }
}

/// Verified by itself, and with its buffers off the callers' stacks. A negative answer is a reason to drop.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn partner(outside: u32) -> i32 {
    let Some(work) = work() else {
        return -(Drop::FlowTable as i32);
    };
    let found = if outside != 0 {
        ask(work, Client::Outside)
    } else if asks_for_a_service(&work.packet.tuple().dst) {
        ask(work, Client::Inside)
    } else {
        tombstone::replacement(&work.packet, &mut work.scratch.picked)
    };
    match found {
        Ok(false) => NONE,
        Ok(true) => FOUND,
        Err(reason) => -(reason as i32),
    }
}

/// Addresses of the service prefixes that no service has are asked for as well: packets for them go nowhere.
#[inline(always)]
fn asks_for_a_service(dst: &Addr16) -> bool {
    is_candidate(dst) || is_service_address(dst)
}

#[inline(always)]
fn ask(work: &mut Work, client: Client) -> Result<bool, Drop> {
    let asked = work.packet.tuple();
    let proto = work.packet.proto();
    let spread = service::spread(&asked.src, nat::pair(asked), proto);
    let ask = Ask { addr: &asked.dst, port: asked.dport, proto, client, spread };
    match service::lookup(&ask, &mut work.scratch, |client| *client = asked.src) {
        Lookup::Picked => Ok(true),
        Lookup::NotAService => Ok(false),
        Lookup::Nobody => Err(Drop::NoBackend),
        Lookup::NobodyHere => Err(Drop::NoLocalBackend),
        Lookup::NotAdmitted => Err(Drop::SourceRange),
        Lookup::UnknownPort => Err(Drop::UnknownPort),
        Lookup::Unallocated => Err(Drop::Unallocated),
    }
}

/// The reason behind a code: one of those that [`partner`] gives.
#[inline(always)]
fn reason(code: i32) -> Drop {
    const NO_LOCAL_BACKEND: i32 = -(Drop::NoLocalBackend as i32);
    const SOURCE_RANGE: i32 = -(Drop::SourceRange as i32);
    const UNKNOWN_PORT: i32 = -(Drop::UnknownPort as i32);
    const UNALLOCATED: i32 = -(Drop::Unallocated as i32);
    const BACKEND_GONE: i32 = -(Drop::BackendGone as i32);
    const FLOW_TABLE: i32 = -(Drop::FlowTable as i32);
    match code {
        NO_LOCAL_BACKEND => Drop::NoLocalBackend,
        SOURCE_RANGE => Drop::SourceRange,
        UNKNOWN_PORT => Drop::UnknownPort,
        UNALLOCATED => Drop::Unallocated,
        BACKEND_GONE => Drop::BackendGone,
        FLOW_TABLE => Drop::FlowTable,
        _ => Drop::NoBackend,
    }
}
