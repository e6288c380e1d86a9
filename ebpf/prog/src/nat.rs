//! Rewriting: a packet takes another tuple, and its checksums stay right.

use abi::drops::Drop;
use abi::node::feature;
use abi::{Addr16, Tuple};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;

use crate::maps::{Work, node};
use crate::packet::{ETHERNET, ICMP, ICMPV6, Packet, Ports, TCP, UDP};

/// `BPF_F_IPV6` of `bpf_l4_csum_replace`, kernel 6.15: not in the bindings yet.
const BPF_F_IPV6: u64 = 1 << 7;

/// Gives the packet the tuple `work.to`.
#[inline(always)]
pub fn rewrite(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    let (packet, to) = (&mut work.packet, &work.to);
    let l4 = packet.l4 as usize;
    let (checksum, flags) = match packet.proto() {
        TCP => (l4 + 16, 0),
        UDP if packet.v4() => (l4 + 6, u64::from(BPF_F_MARK_MANGLED_0)),
        UDP => (l4 + 6, 0),
        ICMP | ICMPV6 => (l4 + 2, 0),
        _ => return Err(Drop::UnknownProtocol),
    };
    let difference = addresses(ctx, packet, to)?;
    if packet.proto() != ICMP {
        l4_checksum(ctx, checksum, difference, pseudo(packet, flags))?;
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
        l4_checksum(ctx, work.packet.l4 as usize + 2, difference, pseudo(&work.packet, 0))?;
    }
    work.packet.key.tuple.src = work.to.src;
    work.packet.key.tuple.dst = work.to.dst;
    Ok(())
}

/// Flags for a difference that is part of the pseudo header.
#[inline(always)]
fn pseudo(packet: &Packet, flags: u64) -> u64 {
    let ipv6 = !packet.v4() && node().features & feature::CSUM_IPV6 != 0;
    flags | u64::from(BPF_F_PSEUDO_HDR) | if ipv6 { BPF_F_IPV6 } else { 0 }
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
        Ports::Error | Ports::None => return Err(Drop::UnknownProtocol),
    };
    if old == new {
        return Ok(());
    }
    l4_checksum(ctx, checksum, diff(&old, &new), flags)?;
    if packet.has_ports() { store(ctx, at, &new) } else { store(ctx, at, &(new as u16)) }
}

#[inline(always)]
pub fn pair(tuple: &Tuple) -> u32 {
    u32::from(tuple.sport.be) | (u32::from(tuple.dport.be) << 16)
}

/// Stores both addresses and returns the difference for the checksum of the next header.
#[inline(always)]
fn addresses(ctx: &TcContext, packet: &Packet, to: &Tuple) -> Result<u64, Drop> {
    let old = packet.tuple();
    if packet.v4() {
        let new = [to.src.words()[3], to.dst.words()[3]];
        let difference = diff(&[old.src.words()[3], old.dst.words()[3]], &new);
        // SAFETY: the context is the program's own.
        let code =
            unsafe { bpf_l3_csum_replace(ctx.as_ptr().cast(), (ETHERNET + 10) as u32, 0, difference, 0) };
        if code != 0 {
            return Err(Drop::Rewrite);
        }
        store(ctx, ETHERNET + 12, &new)?;
        Ok(difference)
    } else {
        // Source and destination lie side by side in the tuple as in the header.
        let difference = addresses_diff(old, to);
        store_bytes(ctx, ETHERNET + 8, (&raw const to.src).cast(), 32)?;
        Ok(difference)
    }
}

/// The difference both addresses of a tuple make.
#[inline(always)]
pub fn addresses_diff(old: &Tuple, new: &Tuple) -> u64 {
    csum_diff((&raw const old.src).cast(), (&raw const new.src).cast(), 32)
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
pub fn diff<T>(old: &T, new: &T) -> u64 {
    csum_diff(core::ptr::from_ref(old).cast(), core::ptr::from_ref(new).cast(), size_of::<T>() as u32)
}

#[inline(always)]
fn csum_diff(old: *const u32, new: *const u32, size: u32) -> u64 {
    // SAFETY: both pointers lead to `size` readable bytes, which the verifier proves; the helper does not write.
    (unsafe { bpf_csum_diff(old.cast_mut(), size, new.cast_mut(), size, 0) }) as u64
}

#[inline(always)]
pub fn l3_checksum(ctx: &TcContext, offset: usize, difference: u64) -> Result<(), Drop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_l3_csum_replace(ctx.as_ptr().cast(), offset as u32, 0, difference, 0) } {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}

#[inline(always)]
pub fn l4_checksum(ctx: &TcContext, offset: usize, difference: u64, flags: u64) -> Result<(), Drop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_l4_csum_replace(ctx.as_ptr().cast(), offset as u32, 0, difference, flags) } {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}

/// Writes a value into the packet.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, offset: usize, value: &T) -> Result<(), Drop> {
    store_bytes(ctx, offset, core::ptr::from_ref(value).cast(), size_of::<T>() as u32)
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
