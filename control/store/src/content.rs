//! The bytes of a value as they lie in memory: plain, or compressed where they are large and seldom read.

use std::borrow::Cow;
use std::fmt;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Shorter values are not worth it.
const SHORT: usize = 4 << 10;

/// The bytes of one version of a value.
#[derive(Clone)]
pub struct Content(Form);

#[derive(Clone)]
enum Form {
    Plain(Bytes),
    Packed { packed: Box<[u8]>, length: usize },
}

impl Content {
    /// Compresses a value, unless that saves less than half of it.
    pub(crate) fn packed(value: Bytes) -> Self {
        if value.len() < SHORT {
            return value.into();
        }
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(value.len() / 4), Compression::fast());
        let written = encoder.write_all(&value).and_then(|()| encoder.finish());
        let packed = written.expect("memory takes what is written");
        if packed.len() > value.len() / 2 {
            return value.into();
        }
        // A copy of its own, because an allocator leaves a longer piece as long as it is.
        Self(Form::Packed { packed: packed.as_slice().into(), length: value.len() })
    }

    /// The bytes; those of a compressed value are made anew each time.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Form::Plain(bytes) => Cow::Borrowed(bytes),
            Form::Packed { packed, length } => Cow::Owned(unpacked(packed, *length)),
        }
    }

    /// The same to keep.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Form::Plain(bytes) => bytes.clone(),
            Form::Packed { packed, length } => unpacked(packed, *length).into(),
        }
    }

    /// How many bytes they are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Plain(bytes) => bytes.len(),
            Form::Packed { length, .. } => *length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory they take.
    pub fn weight(&self) -> usize {
        match &self.0 {
            Form::Plain(bytes) => bytes.len(),
            Form::Packed { packed, .. } => packed.len(),
        }
    }

    /// Where they lie, for whoever wants them fetched before their turn.
    pub fn place(&self) -> &[u8] {
        match &self.0 {
            Form::Plain(bytes) => bytes,
            Form::Packed { packed, .. } => packed,
        }
    }
}

fn unpacked(packed: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    DeflateDecoder::new(packed).read_to_end(&mut bytes).expect("it was compressed in this process");
    bytes
}

impl From<Bytes> for Content {
    fn from(value: Bytes) -> Self {
        Self(Form::Plain(value))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().fmt(formatter)
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Content {}

impl<T: AsRef<[u8]>> PartialEq<T> for Content {
    fn eq(&self, other: &T) -> bool {
        *self.bytes() == *other.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn what_repeats_itself_takes_less_memory_and_is_the_same() {
        let text = Bytes::from("a word, and again ".repeat(1000));
        let content = Content::packed(text.clone());
        assert!(content.weight() < text.len() / 10, "{}", content.weight());
        assert_eq!((content.len(), content.to_bytes()), (text.len(), text.clone()));
        assert_eq!(content, text);
    }

    #[test]
    fn short_values_and_those_that_hold_no_air_stay_as_they_are() {
        let noise: Bytes = (0..500_u32).flat_map(|number| Sha256::digest(number.to_be_bytes())).collect();
        for plain in [Bytes::from("a".repeat(100)), noise] {
            let content = Content::packed(plain.clone());
            assert_eq!(content.place().as_ptr(), plain.as_ptr());
            assert_eq!(content, plain);
        }
    }
}
