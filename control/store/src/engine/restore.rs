//! Makes a store file from a snapshot.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::embedded::{Embedded, journal_paths};
use super::journal::Journal;
use super::{Commit, Engine, EngineError, io, sync_folder};
use crate::entry::{Revision, UnixSeconds};
use crate::snapshot::{Reader, SnapshotError, restored_expiry};

/// Entries written by one commit of a restore.
const BATCH: usize = 4096;

/// Why a file was not made from a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFileError {
    #[error("{} exists: move it away first, nothing is overwritten", path.display())]
    Exists { path: PathBuf },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Embedded {
    /// Makes a file at `path`, where none may be, from a whole snapshot. Revisions continue `beyond` after the
    /// snapshot's, so that none is given out a second time to clients who saw what came after it.
    ///
    /// The file appears under its name when it is complete and on disk.
    pub fn restore(
        path: &Path,
        snapshot: &mut Reader<impl Read>,
        beyond: u64,
        now: UnixSeconds,
    ) -> Result<Revision, RestoreFileError> {
        let partial = path.with_extension("restoring");
        for journal in journal_paths(path) {
            if Journal::holds_something(&journal)? {
                return Err(RestoreFileError::Exists { path: journal });
            }
        }
        if path.exists() {
            return Err(RestoreFileError::Exists { path: path.to_path_buf() });
        }
        let in_the_way = |action| {
            let path = partial.clone();
            move |source| io(&path, action, source)
        };
        if partial.exists() {
            std::fs::remove_file(&partial).map_err(in_the_way("remove"))?;
        }
        let mut engine = Self::open_without_journals(&partial)?;
        let revision = snapshot.revision() + beyond;
        let mut batch = Vec::new();
        let commit = |engine: &mut Self, puts: &[_]| {
            engine.commit(&Commit { revision, puts, deletes: &[], history: &[] })
        };
        while let Some(mut record) = snapshot.record()? {
            record.expires = restored_expiry(record.expires, now);
            batch.push(record);
            if batch.len() == BATCH {
                commit(&mut engine, &std::mem::take(&mut batch))?;
            }
        }
        commit(&mut engine, &batch)?;
        drop(engine);
        std::fs::rename(&partial, path).map_err(in_the_way("rename"))?;
        sync_folder(path).map_err(in_the_way("sync the folder of"))?;
        Ok(revision)
    }
}
