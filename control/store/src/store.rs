//! The handle everybody holds: reads from memory, writes through the one writer.

use std::path::Path;
use std::sync::Arc;

use imbl::OrdMap;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::engine::{Engine, EngineError, Memory, Redb};
use crate::entry::{Entry, Extract, Revision};
use crate::log::{Compacted, Cursor, Log};
use crate::txn::{Op, Txn, TxnError};
use crate::writer::{Prepared, Write, Writer};

pub(crate) type Entries<H> = OrdMap<Arc<str>, Arc<Entry<H>>>;

/// Bounds of the event log.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub log_events: usize,
    /// Bytes of keys and values the log may keep alive.
    pub log_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { log_events: 50_000, log_bytes: 32 << 20 }
    }
}

/// A store of entries with headers of type `H`. Clones are handles on the same store; dropping the last one closes it
/// and returns when the engine has let go of its file.
#[derive(Debug)]
pub struct Store<H> {
    shared: Arc<Shared<H>>,
    writer: Arc<Writer<H>>,
}

impl<H> Clone for Store<H> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), writer: Arc::clone(&self.writer) }
    }
}

#[derive(Debug)]
pub(crate) struct Shared<H> {
    pub(crate) current: RwLock<Current<H>>,
    /// Taken while `current` is held, never the other way round.
    pub(crate) log: Arc<RwLock<Log<H>>>,
    pub(crate) extract: Extract<H>,
}

#[derive(Debug)]
pub(crate) struct Current<H> {
    pub(crate) entries: Entries<H>,
    pub(crate) revision: Revision,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("open the store")]
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
    /// How many entries follow after this page.
    pub remaining: usize,
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
    /// Opens the redb file at `path`, making it when absent.
    pub fn open(path: &Path, options: Options, extract: Extract<H>) -> Result<Self, OpenError> {
        Self::with_engine(Redb::open(path)?, options, extract)
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
        let mut entries = Entries::default();
        let revision = engine.load(&mut |record| {
            let key: Arc<str> = record.key.into();
            let entry = Entry {
                header: extract(&key, &record.value),
                key: Arc::clone(&key),
                value: record.value,
                mod_revision: record.mod_revision,
                create_revision: record.create_revision,
            };
            entries.insert(key, Arc::new(entry));
        })?;
        let log = Log::new(revision, options.log_events, options.log_bytes);
        let shared = Arc::new(Shared {
            current: RwLock::new(Current { entries, revision }),
            log: Arc::new(RwLock::new(log)),
            extract,
        });
        let writer = Writer::spawn(engine, Arc::clone(&shared)).map_err(OpenError::Thread)?;
        Ok(Self { shared, writer: Arc::new(writer) })
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
        let (entries, revision) = self.snapshot(prefix, at)?;
        let mut rest = under(&entries, prefix, after);
        let take = if limit == 0 { usize::MAX } else { limit };
        let page = rest.by_ref().take(take).cloned().collect();
        Ok(Page { entries: page, revision, remaining: rest.count() })
    }

    /// All entries (those of `prefix` exact) at a revision: the current map, with newer events undone.
    fn snapshot(&self, prefix: &str, at: Option<Revision>) -> Result<(Entries<H>, Revision), RangeError> {
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

    /// A cursor over the events of keys that begin with `prefix`, after revision `from`.
    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Cursor<H>, Compacted> {
        Cursor::new(&self.shared.log, prefix, from)
    }

    /// Forgets the events up to and including `revision`. Current entries are not touched.
    pub fn compact(&self, revision: Revision) {
        self.shared.log.write().compact(revision);
    }

    /// Carries out `txn` if all its compares hold; returns after it is durable, with its revision.
    ///
    /// A transaction without effect (no operations, or only deletions of absent keys) returns the current revision.
    /// Dropping the future does not take the transaction back.
    pub async fn txn(&self, txn: Txn) -> Result<Revision, TxnError<H>> {
        let Txn { compares, ops } = txn;
        let ops = ops.into_iter().map(|op| self.prepare(op)).collect();
        let (reply, answer) = oneshot::channel();
        self.writer.send(Write { compares, ops, reply }).await?;
        // A dropped reply means the writer ended between taking the write and answering.
        answer.await.unwrap_or(Err(TxnError::Unknown))
    }

    /// The header is read here, on the caller's thread, to keep the writer's work small.
    fn prepare(&self, op: Op) -> Prepared<H> {
        match op {
            Op::Put { key, value } => {
                Prepared::Put { header: (self.shared.extract)(&key, &value), key, value }
            }
            Op::Delete { key } => Prepared::Delete { key },
        }
    }
}

fn under<'a, H>(
    entries: &'a Entries<H>,
    prefix: &'a str,
    after: Option<&'a str>,
) -> impl Iterator<Item = &'a Arc<Entry<H>>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match after {
        Some(after) if after >= prefix => Excluded(after),
        _ => Included(prefix),
    };
    entries
        .range::<(std::ops::Bound<&str>, std::ops::Bound<&str>), str>((start, Unbounded))
        .map(|(_, entry)| entry)
        .take_while(move |entry| entry.key.starts_with(prefix))
}
