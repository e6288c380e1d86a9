//! What is stored: a version of a value, and the change from one version to the next.

use std::sync::Arc;

use bytes::Bytes;

use crate::content::Content;

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
    pub value: Content,
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

/// Reads from a header what watchers single entries out by, such as the node of a pod; see [`Store::watch_marked`].
///
/// [`Store::watch_marked`]: crate::Store::watch_marked
pub type Mark<H> = for<'a> fn(key: &str, header: &'a H) -> Option<&'a str>;

/// How keys and values become entries.
pub(crate) struct Intake<H> {
    pub(crate) extract: Extract<H>,
    /// Values of keys that begin with it lie in memory compressed.
    pub(crate) packed: Option<&'static str>,
}

impl<H> Clone for Intake<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Intake<H> {}

impl<H> Intake<H> {
    /// The header of a value and how it lies in memory.
    pub(crate) fn read(&self, key: &str, value: Bytes) -> (H, Content) {
        let header = (self.extract)(key, &value);
        let is_packed = self.packed.is_some_and(|prefix| key.starts_with(prefix));
        (header, if is_packed { Content::packed(value) } else { value.into() })
    }
}

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
        let value = |entry: &Option<Arc<Entry<H>>>| entry.as_ref().map_or(0, |entry| entry.value.weight());
        value(&self.entry) + value(&self.previous) + self.key.len()
    }
}
