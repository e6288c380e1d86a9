//! Keys of flows, written and read by words of eight bytes: the kernel hashes a key by words of four and compares it by words of
//! eight, and a load waits where what it wants was stored in smaller pieces.

use abi::flow::FlowKey;

use crate::maps::Work;
use crate::packet::Packet;

/// A key's words.
const WORDS: usize = size_of::<FlowKey>() / 8;

const _: () = assert!(size_of::<FlowKey>() == WORDS * 8 && cfg!(target_endian = "little"));
// Values of maps are aligned to eight bytes.
const _: () = assert!(
    (core::mem::offset_of!(Work, packet) + core::mem::offset_of!(Packet, key)) % 8 == 0
        && core::mem::offset_of!(Work, answer) % 8 == 0
);

/// The second half of an IPv4 address.
#[inline(always)]
pub fn v4(word: u32) -> u64 {
    u64::from(u32::from_ne_bytes([0, 0, 0xff, 0xff])) | (u64::from(word) << 32)
}

/// Ports as they lie in a header, protocol, and zeros.
#[inline(always)]
pub fn last(ports: u32, proto: u8) -> u64 {
    u64::from(ports) | (u64::from(proto) << 32)
}

/// Fills a key of the work: source and destination, two words each, and [`last`].
///
/// # Safety
/// The key is one of those that the assertions above are about.
#[inline(always)]
pub unsafe fn put(key: &mut FlowKey, words: [u64; WORDS]) {
    let key = (&raw mut *key).cast::<u64>();
    for (at, word) in words.into_iter().enumerate() {
        // SAFETY: see above. Volatile, or it may be split.
        unsafe { key.add(at).write_volatile(word) };
    }
}

/// Fills the key of what answers the packet, or what the packet answers.
#[inline(always)]
pub fn reverse(work: &mut Work) {
    let from = (&raw const work.packet.key).cast::<u64>();
    // SAFETY: both keys are aligned, see above.
    unsafe {
        let word = |at| from.add(at).read_volatile();
        let ports = (word(4) as u32).rotate_left(16);
        let last = (word(4) >> 32 << 32) | u64::from(ports);
        put(&mut work.answer, [word(2), word(3), word(0), word(1), last]);
    }
}
