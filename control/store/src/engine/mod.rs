//! Where committed entries live across restarts: one seam, an engine on disk and its twin in memory.

mod memory;
mod redb;
mod rows;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub use self::memory::Memory;
pub use self::redb::{Redb, RestoreFileError};
use crate::entry::{Revision, UnixSeconds};

/// What an engine keeps of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub expires: UnixSeconds,
}

/// A durable map with one number beside it. Called from one thread at a time.
pub trait Engine: Send + 'static {
    /// Every record in key order, given to `each`; returns the last committed revision.
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> Result<Revision, EngineError>;

    /// The rows of history that are kept, the newest first, each with the revision it led to.
    fn history(&mut self) -> Result<Vec<(Revision, Vec<u8>)>, EngineError>;

    /// Makes all of it durable together, or changes nothing and returns the reason.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), EngineError>;
}

/// What becomes durable together.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The last revision.
    pub revision: Revision,
    pub puts: &'a [Record],
    pub deletes: &'a [String],
    /// A row for the history; empty where what was there before is not known.
    pub history: &'a [u8],
}

/// What went wrong under the store.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the disk of {} is full", path.display())]
    Full { path: PathBuf },
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{} is damaged ({detail}): restore a snapshot, or move the file away to start empty", path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{action} {}", path.display())]
    Disk {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{action}")]
    Remote {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("etcd does not answer")]
    Unreachable(#[source] Arc<EngineError>),
    #[error("the store is closing")]
    Closing,
    /// A read that has to be consistent cannot be answered.
    #[error("etcd is at revision {revision}, of which {seen} has arrived here")]
    Behind { revision: Revision, seen: Revision },
    #[error(
        "etcd went back from revision {from} to {to}: if it was restored from a snapshot, restart this server"
    )]
    WentBack { from: Revision, to: Revision },
    #[error("a restore into this etcd was not finished: empty it and restore again")]
    HalfRestored,
    /// Raised by [`Memory`] on request, so that callers can be tested against failures.
    #[error("injected failure")]
    Injected,
}
