//! The two hooks on the host's end of a pod's link.

use abi::drops::Drop;
use abi::endpoint::Link;
use abi::event::hook;
use abi::flow::Hop;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::bytes::{Bytes, get};
use crate::deliver::{BEGIN, DELIVER, REST, TRACK, deliver};
use crate::echo;
use crate::flow::Entry;
use crate::forward::{Onward, forward_known, forward_plain};
use crate::hop;
use crate::maps::{Known, LINKS, Work, work};
use crate::packet::{ETHERNET, Frame, ICMPV6, Packet, parse, parse_plain};
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
    if !parse_plain(ctx, &mut work.packet) {
        return None;
    }
    forward_known(ctx, work, Onward::Hop, |work, entry| {
        entry.is_some_and(|entry| is_known_sender(ctx, work, entry))
            || check_source(ctx, &work.packet).is_ok()
    })
}

/// Whether the packet's flow leads its other direction to the pod at the other end of this link: then the packet comes from there, and the
/// table of links need not say so.
#[inline(always)]
fn is_known_sender(ctx: &TcContext, work: &Work, entry: Entry) -> bool {
    // SAFETY: see `Entry` and the field.
    let (hop, ifindex) = unsafe { (&*hop::of_answers(work, entry.as_ref()), (*ctx.skb.skb).ifindex) };
    hop.seen != 0 && hop.mtu == 0 && hop.ifindex == ifindex && sends_frames(ctx, mac(&hop.dmac)) == Ok(true)
}

/// The words of a hardware address that is aligned to them: those of [`Hop`] and [`Link`] are.
#[inline(always)]
fn mac(bytes: &[u8; 6]) -> (u32, u16) {
    let at = bytes.as_ptr();
    // SAFETY: six bytes, aligned as the assertion says. Volatile, or they would be read one by one.
    unsafe { (at.cast::<u32>().read_volatile(), at.byte_add(4).cast::<u16>().read_volatile()) }
}

const _: () = assert!(core::mem::offset_of!(Hop, dmac) % 4 == 0 && core::mem::offset_of!(Link, mac) % 4 == 0);

#[inline(always)]
fn out(ctx: &TcContext) -> Result<Then, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    // Who has looked for its flow has checked its source.
    let checked = !matches!(work.known, Known::Unseen);
    let frame = parse(ctx, &mut work.packet)?;
    match frame {
        Frame::Ip if !is_neighbour_discovery(&work.packet) => {
            if !checked {
                check_source(ctx, &work.packet)?;
            }
        }
        Frame::Ip | Frame::Arp => {
            check_hardware(ctx, own(ctx)?)?;
            return Ok(Then::Leave(Verdict::Stack));
        }
        Frame::Other => return Err(Drop::NotIp),
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

/// Whether the packet says truly who sends it.
#[inline(always)]
fn check_source(ctx: &TcContext, packet: &Packet) -> Result<(), Drop> {
    let link = own(ctx)?;
    if !same(if packet.v4() { &link.v4 } else { &link.v6 }, &packet.tuple().src) {
        return Err(Drop::Spoofed);
    }
    check_hardware(ctx, link)
}

/// Whether the frame does.
#[inline(always)]
fn check_hardware(ctx: &TcContext, link: &Link) -> Result<(), Drop> {
    let mac = mac(&link.mac);
    let is_known = mac != (0, 0);
    if sends_frames(ctx, mac)? || !is_known { Ok(()) } else { Err(Drop::SpoofedMac) }
}

/// Whether the frame comes from a hardware address.
#[inline(always)]
fn sends_frames(ctx: &TcContext, mac: (u32, u16)) -> Result<bool, Drop> {
    let (start, end) = ctx.range();
    if start + ETHERNET > end {
        return Err(Drop::Truncated);
    }
    // SAFETY: compared with the end.
    let sender: (u32, u16) = unsafe { (get(start + 6), get(start + 10)) };
    Ok(sender == mac)
}

/// The pod at the other end of this link.
#[inline(always)]
fn own(ctx: &TcContext) -> Result<&Link, Drop> {
    // SAFETY: a plain field of the context.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let link = LINKS.get_ptr(ifindex).ok_or(Drop::UnknownLink)?;
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    Ok(unsafe { &*link })
}

/// ICMPv6 between link-local or multicast addresses never leaves the link: the stack answers it.
#[inline(always)]
fn is_neighbour_discovery(packet: &Packet) -> bool {
    let (src, dst) = (&packet.tuple().src.bytes, &packet.tuple().dst.bytes);
    let local_source = (src[0] == 0xfe && src[1] & 0xc0 == 0x80) || packet.tuple().src.is_none();
    let local_destination = dst[0] == 0xff || (dst[0] == 0xfe && dst[1] & 0xc0 == 0x80);
    !packet.v4() && (packet.proto() == ICMPV6 || packet.proto() == 0) && local_source && local_destination
}
