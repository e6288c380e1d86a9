//! Chunks that are compressed as they leave.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Compressed bytes that are handed on together, at least.
const CHUNK: usize = 16 << 10;

/// The chunks of another, compressed. Only as many are asked for as fill the next one, so that a long list does not keep
/// others from their answers while it is made small.
pub struct Gzipped<I> {
    chunks: I,
    /// `None` once everything has been handed on.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Gzipped<I> {
    pub fn new(chunks: I) -> Self {
        Self { chunks, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Gzipped<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        for chunk in self.chunks.by_ref() {
            encoder.write_all(&chunk).expect("writing to memory does not fail");
            if encoder.get_ref().len() >= CHUNK {
                return Some(std::mem::take(encoder.get_mut()).into());
            }
        }
        let rest = self.encoder.take()?.finish().expect("writing to memory does not fail");
        Some(rest.into())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;

    use flate2::read::GzDecoder;
    use rand::RngCore;

    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed_and_is_asked_for_chunk_by_chunk() {
        let mut noise = vec![0; 10 * CHUNK];
        rand::rng().fill_bytes(&mut noise);
        let asked = Cell::new(0);
        let chunks = noise.chunks(1000).map(Bytes::copy_from_slice);
        let mut packed = Gzipped::new(chunks.inspect(|_| asked.set(asked.get() + 1)));
        let mut all = packed.next().unwrap().to_vec();
        assert!(asked.get() < noise.len() / 1000 / 2, "{} chunks for the first", asked.get());
        packed.for_each(|chunk| all.extend_from_slice(&chunk));
        let mut unpacked = Vec::new();
        GzDecoder::new(&*all).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, noise);
    }

    #[test]
    fn nothing_is_packed_too() {
        let all: Vec<u8> = Gzipped::new(std::iter::empty()).flatten().collect();
        let mut unpacked = Vec::new();
        GzDecoder::new(&*all).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked.is_empty());
        assert!(!all.is_empty());
    }
}
