//! Ways: where packets between two addresses went a moment ago, so that connections of one client do not each ask the routing table.

use abi::Addr16;
use abi::flow::{HOP_SECONDS, Hop};
use abi::name::WAYS_SIZE;
use aya_ebpf::programs::TcContext;

use crate::bytes::Bytes;
use crate::flow::now;
use crate::maps::WAYS;
use crate::packet::Packet;
use crate::service::same;
use crate::words;

/// The next hop of packets like this, if it was looked up not long ago and takes one of this length.
#[inline(always)]
pub fn known(ctx: &TcContext, packet: &Packet, device: u32) -> Option<&'static Hop> {
    let hop = between(&packet.tuple().src, &packet.tuple().dst, packet.proto(), device)?;
    if ctx.largest(packet) <= hop.mtu { Some(hop) } else { None }
}

/// The next hop of packets that answer this one and come by `device`, if it was looked up not long ago.
#[inline(always)]
pub fn back(packet: &Packet, device: u32) -> Option<&'static Hop> {
    between(&packet.tuple().dst, &packet.tuple().src, packet.proto(), device)
}

#[inline(always)]
fn between(src: &Addr16, dst: &Addr16, proto: u8, device: u32) -> Option<&'static Hop> {
    let way = WAYS.get_ptr(place(src, dst))?;
    // SAFETY: array elements live as long as the map, and this one belongs to this CPU.
    let way = unsafe { &*way };
    let is_its =
        way.device == device && way.proto == u32::from(proto) && same(&way.src, src) && same(&way.dst, dst);
    let is_fresh = now().wrapping_sub(way.hop.seen) <= HOP_SECONDS;
    if is_its && is_fresh { Some(&way.hop) } else { None }
}

/// Remembers what the routing table has just said.
#[inline(always)]
pub fn remember(packet: &Packet, device: u32, hop: &Hop) {
    if let Some(way) = WAYS.get_ptr_mut(place(&packet.tuple().src, &packet.tuple().dst)) {
        // SAFETY: as above.
        unsafe {
            (*way).src = packet.tuple().src;
            (*way).dst = packet.tuple().dst;
            (*way).device = device;
            (*way).proto = u32::from(packet.proto());
            words::copy(&mut (*way).hop, hop);
        }
    }
}

/// Pods of a node and nodes of a cluster differ in the last bits of their addresses.
#[inline(always)]
fn place(src: &Addr16, dst: &Addr16) -> u32 {
    let ([.., src], [.., dst]) = (src.words(), dst.words());
    (src.wrapping_mul(0x9e37_79b1) ^ dst.wrapping_mul(0x85eb_ca6b)) >> 24 & (WAYS_SIZE as u32 - 1)
}
