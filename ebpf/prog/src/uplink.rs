//! The two hooks on devices that leave the node.

use abi::Addr16;
use abi::drops::Drop;
use abi::event::hook;
use abi::flow::bits;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::deliver::{deliver, to_pod};
use crate::forward::{Onward, forward};
use crate::maps::{node, work};
use crate::nat::node_address;
use crate::packet::{Frame, Packet, parse};
use crate::service::{Client, same};
use crate::translate::{entry, follow, hide, remember_stranger, translate};
use crate::verdict::{Verdict, leave, leave_answering};

/// From outside: NodePorts, answers to what left under the node's address, packets for pods.
#[classifier]
pub fn tc_uplink_in(ctx: TcContext) -> i32 {
    leave_answering(&ctx, hook::UPLINK_IN, inward(&ctx))
}

/// To the outside: pods take the node's address, the host's answers the service's.
#[classifier]
pub fn tc_uplink_out(ctx: TcContext) -> i32 {
    leave(&ctx, hook::UPLINK_OUT, out(&ctx))
}

#[inline(always)]
fn inward(ctx: &TcContext) -> Result<Verdict, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    if !matches!(parse(ctx, &mut work.packet)?, Frame::Ip) {
        return Ok(Verdict::Stack);
    }
    let entry = entry(work);
    if let Some(result) = entry.and_then(|entry| forward(ctx, &work.packet, entry, Onward::Hop)) {
        return result;
    }
    let mut translated = translate(ctx, work, Client::Outside, entry)?;
    let flags = translated.flags;
    if flags == 0 {
        let Some(verdict) = to_pod(ctx, &work.packet, None)? else {
            return Ok(Verdict::Stack);
        };
        if !is_pod(&work.packet.tuple().src) {
            remember_stranger(work)?;
        }
        return Ok(verdict);
    }
    if flags & (bits::FORWARD | bits::MASQUERADE | bits::SERVICE) == bits::MASQUERADE {
        // The pod's own end of the conversation may have been translated as well; such a packet needs both flows every time.
        let own = self::entry(work);
        if own.is_some() {
            follow(ctx, work, own)?;
            translated.entry = None;
        }
    }
    deliver(ctx, &work.packet, translated.entry)
}

#[inline(always)]
fn out(ctx: &TcContext) -> Result<Verdict, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    if !matches!(parse(ctx, &mut work.packet)?, Frame::Ip) {
        return Ok(Verdict::Stack);
    }
    let leaves = leaves_the_cluster(&work.packet);
    if !leaves && (work.packet.is_fragment() || !is_from_host(&work.packet)) {
        return Ok(Verdict::Stack);
    }
    let entry = entry(work);
    if let Some(result) = entry.and_then(|entry| forward(ctx, &work.packet, entry, Onward::Stack)) {
        return result;
    }
    if leaves {
        hide(ctx, work, entry)?;
    } else {
        follow(ctx, work, entry)?;
    }
    Ok(Verdict::Stack)
}

#[inline(always)]
fn is_from_host(packet: &Packet) -> bool {
    node_address(packet.v4()).is_some_and(|own| same(own, &packet.tuple().src))
}

#[inline(always)]
fn leaves_the_cluster(packet: &Packet) -> bool {
    is_pod(&packet.tuple().src) && !is_pod(&packet.tuple().dst)
}

#[inline(always)]
fn is_pod(address: &Addr16) -> bool {
    let pods = &node().pods;
    pods[0].contains(address) || pods[1].contains(address)
}
