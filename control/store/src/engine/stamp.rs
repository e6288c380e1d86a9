//! A value as it is stored: behind a stamp.
//!
//! The stamp is the CRC-32 of the key and of all that follows (4 bytes), `create_revision`, `mod_revision` and `expires`
//! (8 bytes each, all big endian). Every entry is read at open, so bytes that changed on the disk are found before
//! anybody is served.

use bytes::Bytes;

use super::Record;

/// Bytes in front of every value.
pub(super) const STAMP: usize = 28;

/// Appends the value with its stamp.
pub(super) fn put(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for number in [record.create_revision, record.mod_revision, record.expires] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&record.value);
    let sum = crc(record.key.as_bytes(), &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_be_bytes());
}

/// CRC-32 of a key and what is stored under it.
pub(super) fn crc(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

/// `None` when it is not what was written under the key.
pub(super) fn read(key: &str, bytes: &[u8]) -> Option<Record> {
    let (sum, rest) = bytes.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*sum) != crc(key.as_bytes(), rest) {
        return None;
    }
    let (create_revision, rest) = number(rest)?;
    let (mod_revision, rest) = number(rest)?;
    let (expires, value) = number(rest)?;
    let value = Bytes::copy_from_slice(value);
    Some(Record { key: key.to_owned(), value, create_revision, mod_revision, expires })
}

/// The same of the layout that had two revisions in front of the value, and no checksum.
pub(super) fn read_unsummed(key: &str, bytes: &[u8]) -> Option<Record> {
    let (create_revision, rest) = number(bytes)?;
    let (mod_revision, value) = number(rest)?;
    let value = Bytes::copy_from_slice(value);
    Some(Record { key: key.to_owned(), value, create_revision, mod_revision, expires: 0 })
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_anywhere_is_found() {
        let value = Bytes::from_static(b"value");
        let record = Record { key: "/r/a".into(), value, create_revision: 1, mod_revision: 2, expires: 3 };
        let mut bytes = Vec::new();
        put(&mut bytes, &record);
        assert_eq!(bytes.len(), STAMP + 5);
        assert_eq!(read("/r/a", &bytes), Some(record));
        assert_eq!(read("/r/b", &bytes), None, "another key's entry");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read("/r/a", &bad), None, "bit {bit}");
        }
    }
}
