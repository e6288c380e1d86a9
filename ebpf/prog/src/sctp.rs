//! SCTP: its checksum is a CRC32c of the whole packet, changed here by what changed, without reading the packet.
//!
//! A CRC is linear: packets that differ in their first four bytes have checksums that differ by the CRC of that difference
//! followed by zeros. A zero byte multiplies by x^8 modulo the polynomial, so n of them multiply by x^8n, which is a product
//! of x^(8 * 2^k) for the bits k of n.
//!
//! The number of zeros is what follows the ports in the whole packet. A first fragment does not say it, and the last one, which
//! does, may come after it or never: fragments whose ports would have to change are dropped.

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
const ERROR: u8 = 9;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
/// The sender of the chunk has no association, and reflects the tag (RFC 9260, 3.3.7).
const TAG_REFLECTED: u8 = 1;
/// Bytes of a packet with one chunk that has no value.
pub const SHORT: u16 = 16;

/// CRC32c's polynomial; the highest power is the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;
/// x^(8 * 2^k): what 2^k zero bytes multiply by.
const ZEROS: [u32; 16] = zeros();

/// The checksum of [`SHORT`] bytes of zeros.
const NOTHING: u32 = {
    let (mut sum, mut bit) = (u32::MAX, 0);
    while bit < 8 * SHORT {
        sum = (sum >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(sum & 1));
        bit += 1;
    }
    !sum
};

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

/// What a host answers to a packet of an association it does not have (RFC 9260, 5.1 and 8.4), without addresses: the common
/// header and one chunk. `tag` is the initiate tag of an INIT. None where silence is the answer.
#[inline(always)]
pub fn refusal(ports: u32, header: &[u32; 4], tag: u32) -> Option<[u32; 4]> {
    let chunk = header[3].to_ne_bytes()[0];
    let (kind, flags, tag) = match chunk {
        INIT => (ABORT, 0, tag),
        ABORT | ERROR | COOKIE_ACK | SHUTDOWN_COMPLETE => return None,
        SHUTDOWN_ACK => (SHUTDOWN_COMPLETE, TAG_REFLECTED, header[1]),
        _ => (ABORT, TAG_REFLECTED, header[1]),
    };
    let chunk = u32::from_ne_bytes([kind, flags, 0, 4]);
    let length = u32::from(SHORT);
    let sum = NOTHING
        ^ sctp_difference(ports, length)
        ^ sctp_difference(tag, length - 4)
        ^ sctp_difference(chunk, length - 12);
    Some([ports, tag, sum, chunk])
}

/// Gives the packet another tuple.
#[inline(always)]
pub fn rewrite(ctx: &TcContext, packet: &Packet, to: &Tuple) -> Result<(), Drop> {
    let (old, new) = (pair(packet.tuple()), pair(to));
    if old != new && !matches!(packet.part, Part::Whole) {
        return Err(Drop::SctpFragment);
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
