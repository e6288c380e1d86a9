//! Snapshots: everything a store holds at one revision, as one stream of bytes that proves itself.
//!
//! ```text
//!  "hawser snapshot 1\n"
//!  revision: u64, number of entries: u64
//!  entry: length of key: u32, length of value: u32, create_revision, mod_revision, expires: u64 each, key, value
//!  ...
//!  SHA-256 of all before
//! ```
//!
//! Numbers are big endian. Entries come in key order. An entry that etcd deletes some time ([`SOME_TIME`](crate::SOME_TIME))
//! gets [`UNKNOWN_LIFETIME`] when it is restored. A stream that was cut or altered is found at the latest at its end,
//! so a restore reads it twice: once to know that it is whole.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::engine::Record;
use crate::entry::{Entry, Revision, SOME_TIME, UnixSeconds};
use crate::shared::Entries;

const MAGIC: &[u8; 18] = b"hawser snapshot 1\n";
/// Seconds that an entry lives after a restore when nobody knew how long it had.
pub const UNKNOWN_LIFETIME: UnixSeconds = 3600;
/// Bytes are handed out in pieces of about this size.
const PIECE: usize = 64 << 10;
/// Longest key and value that are believed; the API allows far less.
const LONGEST_KEY: u32 = 64 << 10;
const LONGEST_VALUE: u32 = 64 << 20;

/// What a store held at one revision. It costs nothing to take, and keeps alive what it shows.
#[derive(Debug)]
pub struct Snapshot<H> {
    pub(crate) entries: Entries<H>,
    pub(crate) revision: Revision,
}

impl<H: Send + Sync + 'static> Snapshot<H> {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The same without the entries whose key begins with `prefix`.
    pub fn without(mut self, prefix: &str) -> Self {
        let keys: Vec<_> =
            crate::store::under(&self.entries, prefix, None).map(|entry| Arc::clone(&entry.key)).collect();
        for key in keys {
            self.entries.remove(&key);
        }
        self
    }

    /// The bytes, piece by piece.
    pub fn into_pieces(self) -> Pieces<H> {
        let mut head = BytesMut::from(&MAGIC[..]);
        head.put_u64(self.revision);
        head.put_u64(self.entries.len() as u64);
        let rest = self.entries.into_iter().map(|(_, entry)| entry);
        Pieces { rest: Some(Box::new(rest)), buffer: head, hasher: Sha256::new() }
    }
}

/// An iterator over the bytes of a snapshot.
pub struct Pieces<H> {
    rest: Option<Box<dyn Iterator<Item = Arc<Entry<H>>> + Send>>,
    buffer: BytesMut,
    hasher: Sha256,
}

impl<H> Iterator for Pieces<H> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let rest = self.rest.as_mut()?;
        while self.buffer.len() < PIECE {
            let Some(entry) = rest.next() else {
                self.rest = None;
                self.hasher.update(&self.buffer);
                let sum = std::mem::take(&mut self.hasher).finalize();
                self.buffer.extend_from_slice(&sum);
                return Some(self.buffer.split().freeze());
            };
            put(&mut self.buffer, &entry);
        }
        self.hasher.update(&self.buffer);
        Some(self.buffer.split().freeze())
    }
}

fn put<H>(out: &mut BytesMut, entry: &Entry<H>) {
    let length = |bytes: usize| u32::try_from(bytes).expect("an entry is far below 4 GiB");
    out.put_u32(length(entry.key.len()));
    out.put_u32(length(entry.value.len()));
    for number in [entry.create_revision, entry.mod_revision, entry.expires] {
        out.put_u64(number);
    }
    out.extend_from_slice(entry.key.as_bytes());
    out.extend_from_slice(&entry.value.bytes());
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("this is no snapshot of a Hawser store, or one of another version")]
    Magic,
    #[error("the snapshot ends too early: it was cut, or is still being written")]
    Cut,
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("read the snapshot")]
    Read(#[source] io::Error),
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Read(error),
        }
    }
}

/// When a restored entry is due, for one that was due at `expires` as far as its store knew.
pub(crate) fn restored_expiry(expires: UnixSeconds, now: UnixSeconds) -> UnixSeconds {
    if expires == SOME_TIME { now + UNKNOWN_LIFETIME } else { expires }
}

/// Reads a snapshot entry by entry. Only when [`Reader::record`] has returned `None` is it known to be whole.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    hasher: Sha256,
    revision: Revision,
    left: u64,
    last_key: Option<String>,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    pub fn new(input: R) -> Result<Self, SnapshotError> {
        let mut reader = Self { input, hasher: Sha256::new(), revision: 0, left: 0, last_key: None };
        let magic: [u8; MAGIC.len()] = reader.take().map_err(|error| match error {
            SnapshotError::Cut => SnapshotError::Magic,
            other => other,
        })?;
        if magic != *MAGIC {
            return Err(SnapshotError::Magic);
        }
        reader.revision = u64::from_be_bytes(reader.take()?);
        reader.left = u64::from_be_bytes(reader.take()?);
        Ok(reader)
    }

    /// The revision that the snapshot shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many entries are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next entry; `None` at the end of a snapshot that is whole.
    pub fn record(&mut self) -> Result<Option<Record>, SnapshotError> {
        if self.left == 0 {
            return self.finish().map(|()| None);
        }
        self.left -= 1;
        let key = u32::from_be_bytes(self.take()?);
        let value = u32::from_be_bytes(self.take()?);
        if key > LONGEST_KEY || value > LONGEST_VALUE {
            return Err(SnapshotError::Damaged("an entry is larger than any entry can be"));
        }
        let mut number = || -> Result<u64, SnapshotError> { Ok(u64::from_be_bytes(self.take()?)) };
        let (create_revision, mod_revision, expires) = (number()?, number()?, number()?);
        let key = String::from_utf8(self.bytes(key)?)
            .map_err(|_invalid| SnapshotError::Damaged("a key is not text"))?;
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Err(SnapshotError::Damaged("the keys are out of order"));
        }
        if create_revision > mod_revision || mod_revision > self.revision {
            return Err(SnapshotError::Damaged("an entry is newer than the snapshot"));
        }
        let value = Bytes::from(self.bytes(value)?);
        self.last_key = Some(key.clone());
        Ok(Some(Record { key, value, create_revision, mod_revision, expires }))
    }

    fn finish(&mut self) -> Result<(), SnapshotError> {
        let found = std::mem::take(&mut self.hasher).finalize();
        let mut said = [0; 32];
        self.input.read_exact(&mut said)?;
        if found.as_slice() != said {
            return Err(SnapshotError::Damaged("its checksum is wrong"));
        }
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(SnapshotError::Damaged("something follows its end")),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.hasher.update(bytes);
        Ok(bytes)
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(length.into()).read_to_end(&mut bytes)?;
        if read < length as usize {
            return Err(SnapshotError::Cut);
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }
}

/// What a snapshot holds, when it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    pub entries: u64,
    /// Bytes of all values.
    pub bytes: u64,
}

/// Reads a whole snapshot and says what is in it.
pub fn verify(input: impl Read) -> Result<Summary, SnapshotError> {
    let mut reader = Reader::new(input)?;
    let mut summary = Summary { revision: reader.revision(), entries: 0, bytes: 0 };
    while let Some(record) = reader.record()? {
        summary.entries += 1;
        summary.bytes += record.value.len() as u64;
    }
    Ok(summary)
}
