//! Copies of many bytes, in pieces.
//!
//! The GNU C library copies what is longer than about two KiB by `rep movsb` where the processor calls that fast
//! (tunable `glibc.cpu.x86_rep_movsb_threshold`). On AMD's Zen 4 it is not (glibc bug 30994): a list of pods took a third
//! of its CPU time more.

use std::io::IoSlice;

use bytes::BufMut;

/// Shorter than what is copied so anywhere.
pub const PIECE: usize = 2 << 10;

/// Appends bytes.
pub fn append(out: &mut impl BufMut, bytes: &[u8]) {
    bytes.chunks(PIECE).for_each(|piece| out.put_slice(piece));
}

/// The first `N` pieces of some bytes and of those behind them, for one who copies slice by slice; and how many they are.
pub fn slices<'a, const N: usize>(parts: [&'a [u8]; 2]) -> ([IoSlice<'a>; N], usize) {
    let mut slices = [IoSlice::new(&[]); N];
    let mut count = 0;
    for (slice, piece) in slices.iter_mut().zip(parts.into_iter().flat_map(|bytes| bytes.chunks(PIECE))) {
        *slice = IoSlice::new(piece);
        count += 1;
    }
    (slices, count)
}

/// Bytes that are asked for at most.
#[cfg(target_arch = "x86_64")]
const FETCHED: usize = 4 << 10;
/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Asks for bytes that are copied soon, so that memory is waited for while something else is done. Objects lie apart from
/// each other, and the processor does not guess where the next one begins.
#[cfg(target_arch = "x86_64")]
pub fn prefetch(bytes: &[u8]) {
    for line in bytes[..bytes.len().min(FETCHED)].chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing the program could see, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// Nothing, where the language has no way to ask.
#[cfg(not(target_arch = "x86_64"))]
pub fn prefetch(_: &[u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut out = b"before".to_vec();
            append(&mut out, &bytes);
            assert_eq!(out, [&b"before"[..], &bytes].concat());
            let (slices, count) = slices::<5>([b"before", &bytes]);
            let found: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(found, out);
            assert!(slices[..count].iter().all(|slice| slice.len() <= PIECE));
        }
    }
}
