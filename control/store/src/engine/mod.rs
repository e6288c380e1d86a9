//! Where committed entries live across restarts: one seam, an engine on disk and its twin in memory.

mod embedded;
mod journal;
mod memory;
mod redb;
mod restore;
mod rows;
mod stamp;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use self::embedded::Embedded;
pub use self::memory::Memory;
pub use self::restore::RestoreFileError;
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
    #[error(
        "{} holds writes that belong to another store file: put that file back, or move this one away too",
        path.display()
    )]
    Foreign { path: PathBuf },
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

fn io(path: &Path, action: &'static str, source: std::io::Error) -> EngineError {
    use std::io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull};
    let path = path.to_owned();
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => EngineError::Full { path },
        InvalidData => EngineError::Damaged { path, detail: source.to_string() },
        _ => EngineError::Disk { action, path, source: Box::new(source) },
    }
}

/// Makes the name of a file durable.
fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
