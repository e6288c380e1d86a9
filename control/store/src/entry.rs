//! What is stored: a version of a value, and the change from one version to the next.

use std::sync::Arc;

use bytes::Bytes;

/// A global, strictly increasing number; every transaction that writes takes the next one. 0 is before all writes.
pub type Revision = u64;

/// Seconds since 1970 of the wall clock, because they outlive the process.
pub type UnixSeconds = u64;

/// etcd deletes the entry when its lease ends; when that is, is not known here.
pub const SOME_TIME: UnixSeconds = UnixSeconds::MAX;

/// One version of one key. Immutable and shared.
#[derive(Debug)]
pub struct Entry<H> {
    pub key: Arc<str>,
    pub value: Bytes,
    /// Revision of the write that made this version.
    pub mod_revision: Revision,
    /// Revision of the write that created the key.
    pub create_revision: Revision,
    /// Unix seconds from which on the entry is due to be deleted; 0: never; [`SOME_TIME`]: the engine knows.
    pub expires: UnixSeconds,
    /// What the caller's [`Extract`] function read from the value.
    pub header: H,
}

/// Reads the header of a value; called once per write and once per entry at open.
pub type Extract<H> = fn(key: &str, value: &[u8]) -> H;

/// One change of one key. Events of one transaction share their revision and stand in the order of its operations.
#[derive(Debug)]
pub struct Event<H> {
    pub revision: Revision,
    pub key: Arc<str>,
    /// The new version; `None` for a deletion.
    pub entry: Option<Arc<Entry<H>>>,
    /// The version that was replaced or deleted.
    pub previous: Option<Arc<Entry<H>>>,
}

impl<H> Event<H> {
    /// Bytes of values this event keeps alive, for the log's bound.
    pub(crate) fn weight(&self) -> usize {
        let value = |entry: &Option<Arc<Entry<H>>>| entry.as_ref().map_or(0, |entry| entry.value.len());
        value(&self.entry) + value(&self.previous) + self.key.len()
    }
}
