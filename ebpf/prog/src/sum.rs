//! Internet checksums, changed by what changed (RFC 1624).

use abi::Tuple;

/// Adds to a sum what replacing one word by another changes.
#[inline(always)]
pub fn replace(sum: u64, old: u32, new: u32) -> u64 {
    sum + u64::from(!old) + u64::from(new)
}

/// Brings a sum of few words into 32 bits.
#[inline(always)]
pub fn fold(sum: u64) -> u32 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    ((once & 0xffff_ffff) + (once >> 32)) as u32
}

/// The checksum after two differences.
#[inline(always)]
pub fn update(checksum: u16, one: u32, other: u32) -> u16 {
    let sum = u64::from(!checksum) + u64::from(one) + u64::from(other);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// What replacing one word by another changes.
#[inline(always)]
pub fn difference(old: u32, new: u32) -> u32 {
    fold(replace(0, old, new))
}

/// What IPv4 addresses change.
#[inline(always)]
pub fn addresses_v4(old: &Tuple, new: &Tuple) -> u32 {
    let sum = replace(0, old.src.words()[3], new.src.words()[3]);
    fold(replace(sum, old.dst.words()[3], new.dst.words()[3]))
}

/// What addresses of either family change: the bytes before a mapped IPv4 address are the same in both.
#[inline(always)]
pub fn addresses(old: &Tuple, new: &Tuple) -> u32 {
    let (a, b) = (old.src.words(), new.src.words());
    let sum = replace(replace(0, a[0], b[0]), a[1], b[1]);
    let sum = replace(replace(sum, a[2], b[2]), a[3], b[3]);
    let (a, b) = (old.dst.words(), new.dst.words());
    let sum = replace(replace(sum, a[0], b[0]), a[1], b[1]);
    fold(replace(replace(sum, a[2], b[2]), a[3], b[3]))
}
