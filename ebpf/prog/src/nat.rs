//! Rewriting: a packet takes another tuple, and its checksums stay right.

use abi::drops::Drop;
use abi::{Addr16, Tuple};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;

use crate::bytes::{Bytes, PSEUDO, make_up, zero_is_none};
use crate::maps::{Work, node, work};
use crate::packet::{ETHERNET, ICMP, ICMPV6, Packet, Part, Ports, SCTP, TCP, UDP};
use crate::verdict::{decode, encode};
use crate::{sctp, sum};

/// Gives the packet the tuple `work.to`.
#[inline(always)]
pub fn rewrite(ctx: &TcContext) -> Result<(), Drop> {
    decode(rewrite_skb(ctx.skb.skb)).map(|_| ())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rewrite_skb(skb: *mut __sk_buff) -> i32 {
    encode(work().ok_or(Drop::Rewrite).and_then(|work| try_rewrite(&TcContext::new(skb), work)).map(|()| 0))
}

#[inline(always)]
fn try_rewrite(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    let (packet, to) = (&mut work.packet, &work.to);
    if matches!(packet.part, Part::Later) {
        let difference = addresses(ctx, packet, to)?;
        if !packet.v4() {
            // The checksum that makes up for it is in the first fragment.
            ctx.uncovered(difference);
        }
        packet.key.tuple = *to;
        return Ok(());
    }
    if packet.proto() == SCTP {
        sctp::rewrite(ctx, packet, to)?;
        packet.key.tuple = *to;
        return Ok(());
    }
    let l4 = packet.l4 as usize;
    let checksum = match packet.proto() {
        TCP => l4 + 16,
        UDP => l4 + 6,
        ICMP | ICMPV6 => l4 + 2,
        _ => return Err(Drop::UnknownProtocol),
    };
    let flags = zero_is_none(packet);
    let difference = addresses(ctx, packet, to)?;
    if packet.proto() != ICMP {
        l4_checksum(ctx, checksum, difference, PSEUDO | flags)?;
        make_up(ctx, packet, difference);
    }
    numbers(ctx, packet, to, checksum, flags)?;
    packet.key.tuple = *to;
    Ok(())
}

/// Gives only the IP header of an ICMP error the addresses of `work.to`.
#[inline(always)]
pub fn rewrite_outer(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    let difference = addresses(ctx, &work.packet, &work.to)?;
    if !work.packet.v4() {
        l4_checksum(ctx, work.packet.l4 as usize + 2, difference, PSEUDO)?;
        make_up(ctx, &work.packet, difference);
    }
    work.packet.key.tuple.src = work.to.src;
    work.packet.key.tuple.dst = work.to.dst;
    Ok(())
}

/// Stores what tells flows apart: both ports, or the echo identifier.
#[inline(always)]
fn numbers(ctx: &TcContext, packet: &Packet, to: &Tuple, checksum: usize, flags: u64) -> Result<(), Drop> {
    let l4 = packet.l4 as usize;
    let old = packet.tuple();
    let (old, new, at) = match packet.ports {
        Ports::Pair => (pair(old), pair(to), l4),
        Ports::EchoRequest => (u32::from(old.sport.be), u32::from(to.sport.be), l4 + 4),
        Ports::EchoReply => (u32::from(old.dport.be), u32::from(to.dport.be), l4 + 4),
        Ports::Error | Ports::Unread | Ports::None => return Err(Drop::UnknownProtocol),
    };
    if old == new {
        return Ok(());
    }
    l4_checksum(ctx, checksum, sum::difference(old, new), flags)?;
    if packet.has_ports() { store(ctx, at, &new) } else { store(ctx, at, &(new as u16)) }
}

#[inline(always)]
pub fn pair(tuple: &Tuple) -> u32 {
    u32::from(tuple.sport.be) | (u32::from(tuple.dport.be) << 16)
}

/// Stores both addresses and returns the difference for the checksum of the next header.
#[inline(always)]
pub fn addresses(ctx: &TcContext, packet: &Packet, to: &Tuple) -> Result<u32, Drop> {
    let old = packet.tuple();
    if packet.v4() {
        let difference = sum::addresses_v4(old, to);
        l3_checksum(ctx, ETHERNET + 10, difference)?;
        store(ctx, ETHERNET + 12, &[to.src.words()[3], to.dst.words()[3]])?;
        Ok(difference)
    } else {
        // Source and destination lie side by side in the tuple as in the header.
        store_bytes(ctx, ETHERNET + 8, (&raw const to.src).cast(), 32)?;
        Ok(sum::addresses(old, to))
    }
}

/// Reads part of the packet into a buffer that is not on the stack.
#[inline(always)]
pub fn load_into(ctx: &TcContext, offset: usize, to: &mut [u32], words: usize) -> Result<(), Drop> {
    // SAFETY: the verifier proves that `words` words may be written.
    let code = unsafe {
        bpf_skb_load_bytes(ctx.as_ptr().cast(), offset as u32, to.as_mut_ptr().cast(), words as u32 * 4)
    };
    if code == 0 { Ok(()) } else { Err(Drop::Truncated) }
}

#[inline(always)]
pub fn l3_checksum(ctx: &TcContext, offset: usize, difference: u32) -> Result<(), Drop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_l3_csum_replace(ctx.as_ptr().cast(), offset as u32, 0, u64::from(difference), 0) } {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}

#[inline(always)]
pub fn l4_checksum(ctx: &TcContext, offset: usize, difference: u32, flags: u64) -> Result<(), Drop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_l4_csum_replace(ctx.as_ptr().cast(), offset as u32, 0, u64::from(difference), flags) }
    {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}

/// Writes a value into the packet.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, offset: usize, value: &T) -> Result<(), Drop> {
    store_bytes(ctx, offset, core::ptr::from_ref(value).cast(), size_of::<T>() as u32)
}

/// The same, where the checksum that a device has computed over the packet has to follow: `flags` say how.
#[inline(always)]
pub fn store_summed(ctx: &TcContext, offset: usize, value: &u32, flags: u64) -> Result<(), Drop> {
    let from = core::ptr::from_ref(value).cast();
    // SAFETY: the pointer leads to a word.
    match unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset as u32, from, 4, flags) } {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}

#[inline(always)]
pub fn store_bytes(
    ctx: &TcContext,
    offset: usize,
    from: *const core::ffi::c_void,
    size: u32,
) -> Result<(), Drop> {
    // SAFETY: the pointer leads to `size` readable bytes, which the verifier proves.
    match unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset as u32, from, size, 0) } {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}

/// The node's address of a family, if it has one.
#[inline(always)]
pub fn node_address(v4: bool) -> Option<&'static Addr16> {
    let node = node();
    let address = if v4 { &node.v4 } else { &node.v6 };
    if address.is_none() { None } else { Some(address) }
}
