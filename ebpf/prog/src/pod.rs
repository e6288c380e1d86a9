//! The two hooks on the host's end of a pod's link.

use abi::drops::Drop;
use abi::event::hook;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::deliver::{BEGIN, DELIVER, REST, TRACK, deliver};
use crate::echo;
use crate::forward::{Onward, forward_known, forward_plain};
use crate::maps::{Known, LINKS, work};
use crate::packet::{Frame, ICMPV6, Packet, parse, parse_plain};
use crate::service::{Client, same};
use crate::translate::{begin_and_deliver, entry, follow, track, track_and_deliver, translate};
use crate::verdict::{Then, Verdict, leave, leave_answering, then};

/// From a pod.
#[classifier]
pub fn tc_pod_out(ctx: TcContext) -> i32 {
    let code = match pod_out_known(ctx.skb.skb) {
        REST => pod_out_rest(ctx.skb.skb),
        code => code,
    };
    match code {
        DELIVER => deliver(&ctx, hook::POD_OUT),
        BEGIN => begin_and_deliver(&ctx, hook::POD_OUT),
        TRACK => track_and_deliver(&ctx, hook::POD_OUT),
        code => code,
    }
}

/// Towards a pod, from the host's stack. Other programs deliver to pods without passing here.
#[classifier]
pub fn tc_pod_in(ctx: TcContext) -> i32 {
    let code = match pod_in_known(ctx.skb.skb) {
        REST => pod_in_rest(ctx.skb.skb),
        code => code,
    };
    match code {
        TRACK => track(ctx.skb.skb, hook::POD_IN),
        code => code,
    }
}

/// Plain packets of known flows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pod_out_known(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    out_known(&ctx).map_or(REST, |result| leave(&ctx, hook::POD_OUT, result))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pod_in_known(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    forward_plain(&ctx, Onward::Stack).map_or(REST, |result| leave(&ctx, hook::POD_IN, result))
}

/// What is not a plain packet of a known flow. Verified once, by itself: so are all functions that keep their names.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pod_out_rest(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    match out(&ctx) {
        Ok(Then::Deliver | Then::Hide | Then::Arrive) => DELIVER,
        Ok(Then::Begin) => BEGIN,
        Ok(Then::Track) => TRACK,
        Ok(Then::Leave(verdict)) => leave(&ctx, hook::POD_OUT, Ok(verdict)),
        Err(reason) => leave_answering(&ctx, hook::POD_OUT, Err(reason)),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pod_in_rest(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    match inward(&ctx) {
        Ok(true) => TRACK,
        Ok(false) => leave(&ctx, hook::POD_IN, Ok(Verdict::Stack)),
        Err(reason) => leave(&ctx, hook::POD_IN, Err(reason)),
    }
}

#[inline(always)]
fn out_known(ctx: &TcContext) -> Option<Result<Verdict, Drop>> {
    let work = work()?;
    work.known = Known::Unseen;
    if !parse_plain(ctx, &mut work.packet) || !matches!(is_own_source(ctx, &work.packet), Ok(true)) {
        return None;
    }
    forward_known(ctx, work, Onward::Hop)
}

#[inline(always)]
fn out(ctx: &TcContext) -> Result<Then, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    match parse(ctx, &mut work.packet)? {
        Frame::Ip => {}
        Frame::Arp => return Ok(Then::Leave(Verdict::Stack)),
        Frame::Other => return Err(Drop::NotIp),
    }
    if is_neighbour_discovery(&work.packet) {
        return Ok(Then::Leave(Verdict::Stack));
    }
    // Who has looked for its flow has checked its source.
    if matches!(work.known, Known::Unseen) && !is_own_source(ctx, &work.packet)? {
        return Err(Drop::Spoofed);
    }
    if let Some(verdict) = echo::answer(ctx, &work.packet, 0)? {
        return Ok(Then::Leave(verdict));
    }
    let entry = entry(work);
    Ok(then(translate(ctx, work, Client::Inside, entry)?))
}

/// Whether the packet belongs to no flow yet.
#[inline(always)]
fn inward(ctx: &TcContext) -> Result<bool, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    if !matches!(parse(ctx, &mut work.packet)?, Frame::Ip) || is_neighbour_discovery(&work.packet) {
        return Ok(false);
    }
    let entry = entry(work);
    Ok(follow(ctx, work, entry)? == 0)
}

#[inline(always)]
fn is_own_source(ctx: &TcContext, packet: &Packet) -> Result<bool, Drop> {
    // SAFETY: a plain field of the context.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let link = LINKS.get_ptr(ifindex).ok_or(Drop::UnknownLink)?;
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let own = unsafe { if packet.v4() { (*link).v4 } else { (*link).v6 } };
    Ok(same(&own, &packet.tuple().src))
}

/// ICMPv6 between link-local or multicast addresses never leaves the link: the stack answers it.
#[inline(always)]
fn is_neighbour_discovery(packet: &Packet) -> bool {
    let (src, dst) = (&packet.tuple().src.bytes, &packet.tuple().dst.bytes);
    let local_source = (src[0] == 0xfe && src[1] & 0xc0 == 0x80) || packet.tuple().src.is_none();
    let local_destination = dst[0] == 0xff || (dst[0] == 0xfe && dst[1] & 0xc0 == 0x80);
    !packet.v4() && (packet.proto() == ICMPV6 || packet.proto() == 0) && local_source && local_destination
}
