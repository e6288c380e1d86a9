//! Tombstones: sockets that were connected to a backend by the socket hooks send to its address itself, also when it is gone.
//! Their datagrams move on to another backend, their connections end at once.

use abi::count::Path;
use abi::drops::Drop;
use abi::service::BackendKey;

use crate::maps::{CONTROL, SERVICES, TOMBSTONES};
use crate::packet::{ACK, Packet, SYN, UDP};
use crate::service::{self, Picked};
use crate::verdict::count;

/// Finds the backend to use instead of the one this packet is addressed to, if that one is gone; answers whether there is one.
#[inline(always)]
pub fn replacement(packet: &Packet, picked: &mut Picked) -> Result<bool, Drop> {
    if !are_there() {
        return Ok(false);
    }
    let (dst, dport) = (packet.tuple().dst, packet.tuple().dport);
    let key = BackendKey { addr: dst, port: dport, proto: packet.proto(), zero: 0 };
    let Some(stone) = TOMBSTONES.get_ptr(&key) else {
        return Ok(false);
    };
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let index = unsafe { (*stone).service };
    if packet.proto() == UDP {
        return Ok(succeed(index, picked));
    }
    if packet.tcp_flags & (SYN | ACK) == SYN {
        // Somebody connects to the address itself: somebody new has it.
        _ = TOMBSTONES.remove(&key);
        return Ok(false);
    }
    Err(Drop::BackendGone)
}

#[inline(always)]
fn are_there() -> bool {
    CONTROL.get_ptr(0).is_some_and(|control| {
        // SAFETY: array elements live as long as the map; the agent stores whole words.
        unsafe { core::ptr::read_volatile(&raw const (*control).tombstones) != 0 }
    })
}

#[inline(always)]
fn succeed(index: u32, picked: &mut Picked) -> bool {
    let Some(service) = SERVICES.get_ptr(index) else {
        return false;
    };
    // SAFETY: array elements live as long as the map.
    let (segment, bits) =
        unsafe { (&raw const (*service).cluster, core::ptr::read_volatile(&raw const (*service).flags)) };
    picked.service = index;
    picked.bits = bits;
    let found = service::pick(segment, bits, index, picked);
    if found {
        count(Path::Healed, 0);
    }
    found
}
