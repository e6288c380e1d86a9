//! The handle everybody holds: reads from memory, writes through the one writer.

use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::cursor::Cursor;
use crate::engine::{Embedded, Engine, EngineError, Memory};
use crate::entry::{Entry, Event, Extract, Intake, Mark, Revision, UnixSeconds};
use crate::etcd::{Etcd, EtcdOptions};
use crate::history;
use crate::log::{Compacted, Log};
use crate::marks::Marks;
use crate::shared::{Entries, Shared};
use crate::shelf::Scope;
use crate::snapshot::Snapshot;
use crate::txn::{Op, Txn, TxnError};
use crate::writer::{Prepared, Writer};

/// Deletions of entries whose time has come that are under way at once: they reach the disk together.
const TOGETHER: usize = 128;

/// Writes of one transaction at most, as etcd allows by default.
pub const MAX_OPS: usize = 128;

/// Bounds of the event log, and how values lie in memory.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub log_events: usize,
    /// Bytes of keys and values the log may keep alive.
    pub log_bytes: usize,
    /// Values of keys that begin with this are large and seldom read: they lie in memory compressed.
    pub packed: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self { log_events: 50_000, log_bytes: 32 << 20, packed: None }
    }
}

/// A store of entries with headers of type `H`. Clones are handles on the same store; dropping the last one closes it
/// and returns when the engine has let go of its file.
#[derive(Debug)]
pub struct Store<H> {
    shared: Arc<Shared<H>>,
    backend: Arc<Backend<H>>,
}

/// Who decides whether a transaction happens.
#[derive(Debug)]
enum Backend<H> {
    /// This process, alone.
    Embedded(Writer<H>),
    /// etcd, for this and other processes.
    Etcd(Box<Etcd<H>>),
}

impl<H> Clone for Store<H> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), backend: Arc::clone(&self.backend) }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("start the store's writer thread")]
    Thread(#[source] std::io::Error),
}

/// One page of a range, in key order.
#[derive(Debug)]
pub struct Page<H> {
    pub entries: Vec<Arc<Entry<H>>>,
    /// The revision the page shows; pass it as `at` to read on consistently.
    pub revision: Revision,
    /// Whether entries follow behind the last one, selected or not.
    pub more: bool,
}

/// Why a range at a revision cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error(transparent)]
    Compacted(#[from] Compacted),
    #[error("the store is at revision {current}, which is before the one asked for")]
    Future { current: Revision },
}

impl<H: Send + Sync + 'static> Store<H> {
    /// Opens the file at `path` with its journals, making them when absent.
    pub fn open(path: &Path, options: Options, extract: Extract<H>) -> Result<Self, OpenError> {
        Self::with_engine(Embedded::open(path)?, options, extract)
    }

    /// A store that forgets everything with its last handle.
    pub fn in_memory(options: Options, extract: Extract<H>) -> Result<Self, OpenError> {
        Self::with_engine(Memory::default(), options, extract)
    }

    /// A store over any engine.
    pub fn with_engine(
        mut engine: impl Engine,
        options: Options,
        extract: Extract<H>,
    ) -> Result<Self, OpenError> {
        let intake = Intake { extract, packed: options.packed };
        let mut entries = Entries::default();
        let revision = engine.load(&mut |record| {
            let key: Arc<str> = record.key.into();
            let (header, value) = intake.read(&key, record.value);
            let entry = Entry {
                header,
                key: Arc::clone(&key),
                value,
                mod_revision: record.mod_revision,
                create_revision: record.create_revision,
                expires: record.expires,
            };
            entries.insert(key, Arc::new(entry));
        })?;
        let (oldest, events) = history::replay(&engine.history()?, &entries, revision, intake);
        let mut log = Log::new(oldest, options.log_events, options.log_bytes);
        log.append(events.into_iter(), revision);
        let shared = Arc::new(Shared::new(entries, revision, log, intake));
        let writer = Writer::spawn(engine, Arc::clone(&shared)).map_err(OpenError::Thread)?;
        Ok(Self { shared, backend: Arc::new(Backend::Embedded(writer)) })
    }

    /// A store in etcd, which other processes may use too.
    pub async fn open_etcd(
        etcd: &EtcdOptions,
        options: Options,
        extract: Extract<H>,
    ) -> Result<Self, OpenError> {
        let (etcd, shared) = Etcd::open(etcd, options, extract).await?;
        Ok(Self { shared, backend: Arc::new(Backend::Etcd(Box::new(etcd))) })
    }

    /// Whether other processes may write to it.
    pub fn is_shared(&self) -> bool {
        matches!(*self.backend, Backend::Etcd(_))
    }

    /// Whether what others write arrives here; embedded stores have no others.
    pub fn is_connected(&self) -> bool {
        match &*self.backend {
            Backend::Embedded(_) => true,
            Backend::Etcd(etcd) => etcd.is_connected(),
        }
    }

    /// Returns when every transaction that was confirmed before the call, to whomever, is visible here. Embedded stores
    /// always show everything.
    ///
    /// # Errors
    /// When etcd does not answer, or its news do not arrive: what is here may be old.
    pub async fn sync(&self) -> Result<(), EngineError> {
        match &*self.backend {
            Backend::Embedded(_) => Ok(()),
            Backend::Etcd(etcd) => etcd.sync().await,
        }
    }

    /// Calls `observer` for every entry there is, as if it were created now, and then for every event in order, before
    /// the transaction's caller hears of it. It must be quick, and must not write to this store.
    pub fn observe(&self, observer: impl Fn(&Event<H>) + Send + Sync + 'static) {
        self.shared.observe(Box::new(observer));
    }

    /// Everything at the newest revision. Takes no time and no memory of its own.
    pub fn snapshot(&self) -> Snapshot<H> {
        let current = self.shared.current.read();
        Snapshot { entries: current.entries.clone(), revision: current.revision }
    }

    /// The revision of the newest committed transaction.
    pub fn revision(&self) -> Revision {
        self.shared.current.read().revision
    }

    /// The current version of `key`.
    pub fn get(&self, key: &str) -> Option<Arc<Entry<H>>> {
        self.shared.current.read().entries.get(key).cloned()
    }

    /// How many keys begin with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        let entries = self.shared.current.read().entries.clone();
        under(&entries, prefix, None).count()
    }

    /// How many keys begin with `prefix` and come after `after`, or did at the revision `at`.
    pub fn count_after(&self, prefix: &str, after: &str, at: Option<Revision>) -> Result<usize, RangeError> {
        let (entries, _) = self.entries_at(prefix, at)?;
        Ok(under(&entries, prefix, Some(after)).count())
    }

    /// Entries whose key begins with `prefix` and comes after `after`, at most `limit` of them (0: all).
    ///
    /// With `at`, the entries as they were at that revision, for as long as the log reaches back to it.
    pub fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page<H>, RangeError> {
        self.select(prefix, after, limit, at, |_| true)
    }

    /// The same of those that `is_selected`. None is looked at twice, and none behind the page but the next.
    pub fn select(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
        is_selected: impl Fn(&Entry<H>) -> bool,
    ) -> Result<Page<H>, RangeError> {
        let (entries, revision) = self.entries_at(prefix, at)?;
        let mut rest = under(&entries, prefix, after);
        let take = if limit == 0 { usize::MAX } else { limit };
        let page = rest.by_ref().filter(|entry| is_selected(entry)).take(take).cloned().collect();
        Ok(Page { entries: page, revision, more: rest.next().is_some() })
    }

    /// Entries whose key begins with `folder` and that have this mark; see [`Store::marked_by`]. Others are not looked at.
    pub fn marked(&self, folder: &str, mark: &str) -> Page<H> {
        let current = self.shared.current.read();
        let keys = current.marks.keys(folder, mark);
        let entries = keys.filter_map(|key| current.entries.get(key)).cloned().collect();
        Page { entries, revision: current.revision, more: false }
    }

    /// All entries (those of `prefix` exact) at a revision: the current map, with newer events undone.
    fn entries_at(&self, prefix: &str, at: Option<Revision>) -> Result<(Entries<H>, Revision), RangeError> {
        let current = self.shared.current.read();
        let mut entries = current.entries.clone();
        let Some(at) = at.filter(|at| *at != current.revision) else {
            return Ok((entries, current.revision));
        };
        if at > current.revision {
            return Err(RangeError::Future { current: current.revision });
        }
        let log = self.shared.log.read();
        for event in log.newest_first(at)?.filter(|event| event.key.starts_with(prefix)) {
            match &event.previous {
                Some(previous) => entries.insert(Arc::clone(&event.key), Arc::clone(previous)),
                None => entries.remove(&event.key),
            };
        }
        Ok((entries, at))
    }

    /// A cursor over the events after revision `from` of the keys that begin with `keys`, if that ends with a slash, else
    /// of this one key.
    pub fn watch(&self, keys: &str, from: Revision) -> Result<Cursor<H>, Compacted> {
        Cursor::new(&self.shared.log, Scope::Keys(keys.into()), from)
    }

    /// The same for those whose entries have this mark, before or after the event; see [`Store::marked_by`].
    pub fn watch_marked(&self, folder: &str, mark: &str, from: Revision) -> Result<Cursor<H>, Compacted> {
        let scope = Scope::Marked { folder: folder.into(), mark: mark.into() };
        Cursor::new(&self.shared.log, scope, from)
    }

    /// Says how entries are marked; before anybody watches.
    #[must_use]
    pub fn marked_by(self, mark: Mark<H>) -> Self {
        {
            let mut current = self.shared.current.write();
            current.marks = Marks::of(mark, &current.entries);
            self.shared.log.write().mark_by(mark);
        }
        self
    }

    /// Refuses ranges at revisions before `revision` from now on. Watches go on, and may begin where the log still
    /// reaches.
    pub fn compact(&self, revision: Revision) {
        self.shared.log.write().forget(revision);
    }

    /// Carries out `txn` if all its compares hold; returns after it is durable, with its revision.
    ///
    /// A transaction without effect (no operations, or only deletions of absent keys) returns the current revision.
    /// Dropping the future does not take the transaction back.
    pub async fn txn(&self, txn: Txn) -> Result<Revision, TxnError<H>> {
        if let Some(key) = txn.duplicate() {
            return Err(TxnError::Duplicate { key: key.to_owned() });
        }
        if txn.ops.len() > MAX_OPS || txn.compares.len() > MAX_OPS {
            let detail = format!("a transaction has {} writes, {MAX_OPS} are allowed", txn.ops.len());
            return Err(TxnError::TooLarge { detail });
        }
        match &*self.backend {
            Backend::Embedded(writer) => {
                let ops = txn.ops.into_iter().map(|op| self.prepare(op)).collect();
                writer.txn(txn.compares, ops, txn.expires).await
            }
            Backend::Etcd(etcd) => etcd.txn(txn).await,
        }
    }

    /// Deletes the entries whose time has come, each unless it is written meanwhile; returns how many. etcd does this by
    /// itself.
    pub async fn expire(&self, now: UnixSeconds) -> Result<usize, TxnError<H>> {
        let due = self.shared.current.read().due(now);
        let deletions = due.into_iter().map(|entry| async move {
            match self.txn(Txn::delete(&*entry.key, entry.mod_revision)).await {
                Ok(_) => Ok(1),
                Err(TxnError::Conflict { .. }) => Ok(0),
                Err(error) => Err(error),
            }
        });
        let deletions = futures::stream::iter(deletions).buffer_unordered(TOGETHER);
        deletions.try_fold(0, |sum, one| async move { Ok(sum + one) }).await
    }

    /// The header is read here, on the caller's thread, to keep the writer's work small.
    fn prepare(&self, op: Op) -> Prepared<H> {
        match op {
            Op::Put { key, value } => {
                let (header, value) = self.shared.intake.read(&key, value);
                Prepared::Put { key, value, header }
            }
            Op::Delete { key } => Prepared::Delete { key },
        }
    }
}

pub(crate) fn under<'a, H>(
    entries: &'a Entries<H>,
    prefix: &'a str,
    after: Option<&'a str>,
) -> impl Iterator<Item = &'a Arc<Entry<H>>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match after {
        Some(after) if after >= prefix => Excluded(after),
        _ => Included(prefix),
    };
    // Where it ends is looked for once, and no key is looked at on the way there.
    let beyond = beyond(prefix);
    let end = beyond.as_deref().map_or(Unbounded, Excluded);
    entries.range::<(std::ops::Bound<&str>, std::ops::Bound<&str>), str>((start, end)).map(|(_, entry)| entry)
}

/// The first key behind all that begin with `prefix`; `None` if there is none.
fn beyond(prefix: &str) -> Option<String> {
    let mut rest = prefix.chars();
    let next = loop {
        // Bytes are in the order of the characters they encode.
        let next = (rest.next_back()?..=char::MAX).nth(1);
        if let Some(next) = next {
            break next;
        }
    };
    Some(format!("{}{next}", rest.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_under_a_prefix_begins_with_it_and_comes_after() {
        let letters = ["", "/", "0", "\u{d7ff}", "\u{10ffff}"];
        let mut keys = BTreeSet::from([String::new()]);
        for _ in 0..3 {
            let longer = keys.iter().flat_map(|key| letters.map(|letter| format!("{key}{letter}")));
            keys = longer.collect();
        }
        let entries: Entries<()> = keys
            .iter()
            .map(|key| {
                let key: Arc<str> = key.as_str().into();
                let (value, header) = (Bytes::new().into(), ());
                let entry = Entry {
                    key: Arc::clone(&key),
                    value,
                    mod_revision: 1,
                    create_revision: 1,
                    expires: 0,
                    header,
                };
                (key, Arc::new(entry))
            })
            .collect();
        for prefix in &keys {
            for after in keys.iter().map(Some).chain([None]) {
                let found = under(&entries, prefix, after.map(String::as_str)).map(|entry| &*entry.key);
                let want = keys.iter().filter(|key| key.starts_with(prefix.as_str()) && Some(*key) > after);
                assert!(found.eq(want), "{prefix:?} after {after:?}");
            }
        }
    }
}
