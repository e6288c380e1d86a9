//! Revisioned key-value store with etcd's contract: one global revision, compare-and-swap transactions, ranges at a
//! revision, watches from a revision, compaction. It knows no kinds of objects.
//!
//! The store is the watch cache: current entries and a bounded log of recent events live in memory once. `header` is
//! what the caller extracts from a value, computed once per write and shared by every reader.

use std::sync::Arc;

use bytes::Bytes;

/// A global, strictly increasing number; every successful transaction that writes takes the next one.
pub type Revision = u64;

/// One stored value. Shared, immutable.
#[derive(Debug)]
pub struct Entry<H> {
    pub key: Arc<str>,
    pub value: Bytes,
    /// Revision of the write that made this version.
    pub mod_revision: Revision,
    /// Revision of the write that created the key.
    pub create_revision: Revision,
    /// What the caller's [`Extract`] function read from the value.
    pub header: H,
}

/// Reads the header of a value; called once per write and once per entry at open.
pub type Extract<H> = fn(key: &str, value: &[u8]) -> H;

/// One change of one key, in the log. Events of one transaction share their revision.
#[derive(Debug)]
pub struct Event<H> {
    pub revision: Revision,
    pub key: Arc<str>,
    /// The new version; `None` for a deletion.
    pub entry: Option<Arc<Entry<H>>>,
    /// The version that was replaced or deleted.
    pub previous: Option<Arc<Entry<H>>>,
}
