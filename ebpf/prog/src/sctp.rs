//! SCTP: its checksum is a CRC32c of the whole packet, changed here by what changed, without reading the packet.
//!
//! A CRC is linear: packets that differ in their first four bytes have checksums that differ by the CRC of that difference
//! followed by zeros. A zero byte multiplies by x^8 modulo the polynomial, so n of them multiply by x^8n, which is a product
//! of x^(8 * 2^k) for the bits k of n.

use abi::Tuple;
use abi::drops::Drop;
use aya_ebpf::bindings::BPF_F_RECOMPUTE_CSUM;
use aya_ebpf::programs::TcContext;

use crate::bytes::Bytes;
use crate::nat::{addresses, pair, store_summed};
use crate::packet::{ACK, Packet, Part, RST, SYN};

/// Offset of the checksum in the header.
pub const CHECKSUM: usize = 8;
/// The common header and the head of the first chunk.
pub const HEAD: usize = 16;

const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;

/// CRC32c's polynomial; the highest power is the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;
/// x^(8 * 2^k): what 2^k zero bytes multiply by.
const ZEROS: [u32; 16] = zeros();

const fn zeros() -> [u32; 16] {
    let mut all = [0; 16];
    // x^1, squared three times.
    let mut power = 1 << 30;
    let mut at = 0;
    while at < 3 {
        power = product(power, power);
        at += 1;
    }
    at = 0;
    while at < 16 {
        all[at] = power;
        power = product(power, power);
        at += 1;
    }
    all
}

/// The product of two polynomials modulo CRC32c's.
const fn product(one: u32, mut other: u32) -> u32 {
    let mut product = 0;
    let mut at = 32;
    while at > 0 {
        at -= 1;
        product ^= other & 0u32.wrapping_sub((one >> at) & 1);
        other = (other >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(other & 1));
    }
    product
}

/// [`product`], verified once for all its calls.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sctp_product(one: u32, other: u32) -> u32 {
    product(one, other)
}

/// What a difference in the first four of `length` bytes changes in their checksum. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sctp_difference(difference: u32, length: u32) -> u32 {
    let mut sum = difference;
    for (bit, zeros) in ZEROS.iter().enumerate() {
        // The product with one where the bit is clear: a branch would double the verifier's ways each time.
        let set = 0u32.wrapping_sub((length >> bit) & 1);
        sum = sctp_product((zeros & set) | (ONE & !set), sum);
    }
    sum
}

/// The first chunk of a packet in TCP's words: begins, ends, or neither.
#[inline(always)]
pub fn flags(chunk: u8) -> u32 {
    match chunk {
        INIT => SYN,
        ABORT | SHUTDOWN_COMPLETE => RST,
        _ => ACK,
    }
}

/// Gives the packet another tuple.
#[inline(always)]
pub fn rewrite(ctx: &TcContext, packet: &Packet, to: &Tuple) -> Result<(), Drop> {
    let (old, new) = (pair(packet.tuple()), pair(to));
    if old != new && !matches!(packet.part, Part::Whole) {
        // The first fragment does not say how long the datagram is.
        return Err(Drop::Fragment);
    }
    let difference = addresses(ctx, packet, to)?;
    if !packet.v4() {
        ctx.uncovered(difference);
    }
    if old == new {
        return Ok(());
    }
    let l4 = packet.l4 as usize;
    let sum: u32 = ctx.load(l4 + CHECKSUM).map_err(|_| Drop::Truncated)?;
    let sum = sum ^ sctp_difference(old ^ new, packet.length);
    store_summed(ctx, l4 + CHECKSUM, &sum, u64::from(BPF_F_RECOMPUTE_CSUM))?;
    store_summed(ctx, l4, &new, u64::from(BPF_F_RECOMPUTE_CSUM))
}
