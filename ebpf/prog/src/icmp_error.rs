//! ICMP errors about translated packets: the packet inside and the one around it are translated back together.
//!
//! Without this, "packet too big" never finds the pod it is meant for, and large transfers stall.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, bits};
use abi::{Addr16, Be16};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;

use crate::maps::{EMBRYOS, FLOWS, Work, work};
use crate::nat::{l3_checksum, l4_checksum, load_into, rewrite_outer, store};
use crate::older;
use crate::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::service::same;
use crate::sum;
use crate::verdict::count;

/// Where things are in the packet inside.
struct Inside {
    at: usize,
    l4: usize,
    /// Echo requests have their identifier where others have the destination's checksum.
    numbers: usize,
}

/// Translates the error if the packet inside belongs to a flow; answers with the flow's flags.
#[inline(always)]
pub fn follow(ctx: &TcContext) -> Result<u32, Drop> {
    // A function of its own keeps its buffers off the caller's stack. It fails in one way only.
    match follow_skb(ctx.skb.skb) {
        flags if flags >= 0 => Ok(flags as u32),
        _ => Err(Drop::Rewrite),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_skb(skb: *mut __sk_buff) -> i64 {
    let Some(work) = work() else {
        return 0;
    };
    try_follow(&TcContext::new(skb), work).map_or(-1, i64::from)
}

#[inline(always)]
fn try_follow(ctx: &TcContext, work: &mut Work) -> Result<u32, Drop> {
    let Some(inside) = parse(ctx, work) else {
        return Ok(0);
    };
    // `answer` is the key under which an answer to the packet inside would be found.
    let Some(entry) = find(work) else {
        return Ok(begun(work));
    };
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let flags = unsafe {
        work.to = (*entry).to;
        (*entry).flags
    };
    if flags & bits::PLAIN != 0 {
        return Ok(flags);
    }
    rewrite_inside(ctx, work, &inside)?;
    // The error goes to whoever sent the packet inside; it comes from where that was meant to go, or from a router.
    if !same(&work.packet.tuple().src, &work.answer.tuple.src) {
        work.to.src = work.packet.tuple().src;
    }
    rewrite_outer(ctx, work)?;
    count(Path::Reply, u64::from(ctx.len()));
    Ok(flags)
}

#[inline(always)]
fn find(work: &Work) -> Option<*const Flow> {
    let place = || FLOWS.get_ptr(&work.answer).or_else(|| EMBRYOS.get_ptr(&work.answer));
    place().or_else(|| if older::take_over(older::Which::Answer) { place() } else { None })
}

/// The flags of the flow that the packet inside belongs to, if that is not translated and nobody has answered yet: there is
/// no entry for its answers.
#[inline(always)]
fn begun(work: &mut Work) -> u32 {
    work.twin.tuple = work.answer.tuple.reversed();
    work.twin.set_proto(work.answer.proto);
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    let entry = FLOWS.get_ptr(&work.twin).or_else(|| EMBRYOS.get_ptr(&work.twin));
    let flags = entry.map_or(0, |entry| unsafe { (*entry).flags });
    if flags & bits::PLAIN != 0 { flags & !bits::FORWARD } else { 0 }
}

/// Reads the packet inside into `work.answer`, reversed.
#[inline(always)]
fn parse(ctx: &TcContext, work: &mut Work) -> Option<Inside> {
    let at = work.packet.l4 as usize + 8;
    let (proto, l4) = if work.packet.v4() {
        load_into(ctx, at, &mut work.buffer, 5).ok()?;
        let header = &work.buffer;
        // Options and later fragments inside are left alone.
        let fragment = u16::from_be((header[1] >> 16) as u16) & 0x1fff;
        if header[0] & 0x0f != 5 || fragment != 0 {
            return None;
        }
        work.answer.tuple.dst = Addr16::from_v4_word(header[3]);
        work.answer.tuple.src = Addr16::from_v4_word(header[4]);
        ((header[2] >> 8) as u8, at + 20)
    } else {
        load_into(ctx, at, &mut work.buffer, 10).ok()?;
        let header = &work.buffer;
        work.answer.tuple.dst = Addr16::from_words([header[2], header[3], header[4], header[5]]);
        work.answer.tuple.src = Addr16::from_words([header[6], header[7], header[8], header[9]]);
        ((header[1] >> 16) as u8, at + 40)
    };
    load_into(ctx, l4, &mut work.buffer, 2).ok()?;
    let head = &work.buffer;
    let numbers = match proto {
        TCP | UDP | SCTP => {
            work.answer.tuple.dport = Be16 { be: head[0] as u16 };
            work.answer.tuple.sport = Be16 { be: (head[0] >> 16) as u16 };
            l4
        }
        ICMP | ICMPV6 => {
            work.answer.tuple.dport = Be16 { be: head[1] as u16 };
            work.answer.tuple.sport = Be16::new(0);
            l4 + 4
        }
        _ => return None,
    };
    work.answer.set_proto(proto);
    Some(Inside { at, l4, numbers })
}

/// Gives the packet inside the tuple it was sent with. Its own transport checksum is left: it may be cut off, and nobody
/// looks at it.
#[inline(always)]
fn rewrite_inside(ctx: &TcContext, work: &Work, inside: &Inside) -> Result<(), Drop> {
    // The packet inside was `answer` reversed and becomes `to` reversed; a sum does not mind the order.
    let (answer, to) = (&work.answer.tuple, &work.to);
    let icmp = work.packet.l4 as usize + 2;
    if work.packet.v4() {
        let words = [to.dst.words()[3], to.src.words()[3]];
        // The header inside keeps its sum, so the ICMP checksum around it does not change.
        l3_checksum(ctx, inside.at + 10, sum::addresses_v4(answer, to))?;
        store(ctx, inside.at + 12, &words)?;
    } else {
        l4_checksum(ctx, icmp, sum::addresses(answer, to), 0)?;
        store(ctx, inside.at + 8, &to.dst)?;
        store(ctx, inside.at + 24, &to.src)?;
    }
    if inside.numbers == inside.l4 {
        let ports = u32::from(to.dport.be) | (u32::from(to.sport.be) << 16);
        let old = u32::from(answer.dport.be) | (u32::from(answer.sport.be) << 16);
        l4_checksum(ctx, icmp, sum::difference(old, ports), 0)?;
        store(ctx, inside.numbers, &ports)
    } else {
        let (old, new) = (u32::from(answer.dport.be), u32::from(to.dport.be));
        l4_checksum(ctx, icmp, sum::difference(old, new), 0)?;
        store(ctx, inside.numbers, &to.dport.be)
    }
}
