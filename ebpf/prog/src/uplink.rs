//! The two hooks on devices that leave the node.

use abi::Addr16;
use abi::drops::Drop;
use abi::event::hook;
use abi::flow::bits;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::deliver::{deliver, to_pod};
use crate::maps::{node, work};
use crate::nat::node_address;
use crate::packet::{Frame, Packet, parse};
use crate::service::{Client, same};
use crate::translate::{follow, hide, remember_stranger, translate};
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
    let flags = translate(ctx, work, Client::Outside)?;
    if flags == 0 {
        let Some(verdict) = to_pod(ctx, &work.packet)? else {
            return Ok(Verdict::Stack);
        };
        if !is_pod(&work.packet.tuple().src) {
            remember_stranger(work)?;
        }
        return Ok(verdict);
    }
    if flags & (bits::FORWARD | bits::MASQUERADE | bits::SERVICE) == bits::MASQUERADE {
        // The pod's own end of the conversation may have been translated as well.
        follow(ctx, work)?;
    }
    deliver(ctx, &work.packet)
}

#[inline(always)]
fn out(ctx: &TcContext) -> Result<Verdict, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    if !matches!(parse(ctx, &mut work.packet)?, Frame::Ip) {
        return Ok(Verdict::Stack);
    }
    if leaves_the_cluster(&work.packet) {
        hide(ctx, work)?;
    } else if !work.packet.is_fragment() && is_from_host(&work.packet) {
        follow(ctx, work)?;
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
