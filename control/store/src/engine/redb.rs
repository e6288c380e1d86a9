//! The embedded engine: one redb file, one fsync per commit.
//!
//! A value is stored behind a stamp: CRC-32 of the key and of all that follows (4 bytes), `create_revision`,
//! `mod_revision` and `expires` (8 bytes each, all big endian). Every entry is read at open, so bytes that changed on the
//! disk are found before anybody is served.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::rows::{self, Kept};
use super::{Commit, Engine, EngineError, Record};
use crate::entry::{Revision, UnixSeconds};
use crate::snapshot::{Reader, SnapshotError, restored_expiry};

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Layout of the file; a file of another number is refused instead of guessed at.
const FORMAT_NUMBER: u64 = 2;
/// The layout before: two revisions in front of every value and no checksum. Such a file is rewritten at open.
const OLD_FORMAT_NUMBER: u64 = 1;
/// Bytes in front of every value.
const STAMP: usize = 28;
/// Readers are served from memory, so the engine's cache only has to hold the B-tree's inner pages.
const CACHE_BYTES: usize = 4 << 20;
/// Entries written by one commit of a restore.
const RESTORE_BATCH: usize = 4096;

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

/// A redb file. After an I/O error redb refuses further work until reopened, so the handle is dropped and made anew.
pub struct Redb {
    path: PathBuf,
    database: Option<Database>,
    kept: Kept,
}

impl Redb {
    /// Opens or creates the file at `path`, whose folder must exist. The file is readable by its owner only.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let mut engine = Self { path: path.to_path_buf(), database: None, kept: Kept::default() };
        engine.database()?;
        Ok(engine)
    }

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
        if path.exists() {
            return Err(RestoreFileError::Exists { path: path.to_path_buf() });
        }
        let io = |action| {
            let path = partial.clone();
            move |source| EngineError::Disk { action, path, source: Box::new(source) }
        };
        if partial.exists() {
            std::fs::remove_file(&partial).map_err(io("remove"))?;
        }
        let mut engine = Self::open(&partial)?;
        let revision = snapshot.revision() + beyond;
        let mut batch = Vec::new();
        while let Some(mut record) = snapshot.record()? {
            record.expires = restored_expiry(record.expires, now);
            batch.push(record);
            if batch.len() == RESTORE_BATCH {
                engine.commit(&Commit {
                    revision,
                    puts: &std::mem::take(&mut batch),
                    deletes: &[],
                    history: &[],
                })?;
            }
        }
        engine.commit(&Commit { revision, puts: &batch, deletes: &[], history: &[] })?;
        drop(engine);
        std::fs::rename(&partial, path).map_err(io("rename"))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))?;
        Ok(revision)
    }

    fn database(&mut self) -> Result<&Database, EngineError> {
        if self.database.is_none() {
            self.database = Some(self.open_file()?);
        }
        Ok(self.database.as_ref().expect("set just above"))
    }

    fn open_file(&self) -> Result<Database, EngineError> {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(|source| self.io("open", source))?;
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(&self.path).map_err(|error| {
                use redb::DatabaseError::{DatabaseAlreadyOpen, RepairAborted, Storage, UpgradeRequired};
                let path = self.path.clone();
                match error {
                    DatabaseAlreadyOpen => EngineError::InUse { path },
                    RepairAborted => EngineError::Damaged { path, detail: "repair was aborted".to_owned() },
                    UpgradeRequired(version) => {
                        EngineError::Damaged { path, detail: format!("file format {version} is too old") }
                    }
                    Storage(error) => self.storage("open", error),
                    other => self.disk("open", other),
                }
            })?;
        self.check_format(&database)?;
        Ok(database)
    }

    fn check_format(&self, database: &Database) -> Result<(), EngineError> {
        let txn = database.begin_write().map_err(|error| self.disk("open", error))?;
        let found = {
            let mut meta = txn.open_table(META).map_err(|error| self.disk("open", error))?;
            txn.open_table(ENTRIES).map_err(|error| self.disk("open", error))?;
            let found =
                meta.get(FORMAT).map_err(|error| self.storage("read", error))?.map(|guard| guard.value());
            if found.is_none() {
                meta.insert(FORMAT, FORMAT_NUMBER).map_err(|error| self.storage("write", error))?;
            }
            found
        };
        match found {
            Some(FORMAT_NUMBER) => Ok(()),
            None => txn.commit().map_err(|error| self.disk("create", error)),
            Some(OLD_FORMAT_NUMBER) => rewrite(txn).map_err(|error| self.disk("rewrite", error)),
            Some(other) => Err(EngineError::Damaged {
                path: self.path.clone(),
                detail: format!("it has layout {other}, this program writes layout {FORMAT_NUMBER}"),
            }),
        }
    }

    fn write(&mut self, commit: &Commit<'_>) -> Result<(), redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseAlreadyOpen) };
        let excess = self.kept.excess();
        let txn = database.begin_write()?;
        {
            let mut entries = txn.open_table(ENTRIES)?;
            for key in commit.deletes {
                entries.remove(key.as_str())?;
            }
            for record in commit.puts {
                entries.insert(record.key.as_str(), encode(record).as_slice())?;
            }
            self.kept.write(&mut txn.open_table(rows::HISTORY)?, excess, commit)?;
            txn.open_table(META)?.insert(REVISION, commit.revision)?;
        }
        txn.commit()?;
        self.kept.committed(excess, commit);
        Ok(())
    }

    fn disk(&self, action: &'static str, error: impl Into<redb::Error>) -> EngineError {
        disk(&self.path, action, error)
    }

    fn storage(&self, action: &'static str, error: StorageError) -> EngineError {
        self.disk(action, redb::Error::from(error))
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> EngineError {
        io(&self.path, action, source)
    }
}

fn disk(path: &Path, action: &'static str, error: impl Into<redb::Error>) -> EngineError {
    match error.into() {
        redb::Error::Io(source) => io(path, action, source),
        redb::Error::Corrupted(detail) => EngineError::Damaged { path: path.to_owned(), detail },
        other => EngineError::Disk { action, path: path.to_owned(), source: Box::new(other) },
    }
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

impl Engine for Redb {
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> Result<Revision, EngineError> {
        let path = self.path.clone();
        let database = self.database()?;
        let mut read = || -> Result<Revision, redb::Error> {
            let txn = database.begin_read()?;
            for item in txn.open_table(ENTRIES)?.iter()? {
                let (key, value) = item?;
                let record = decode(key.value(), value.value());
                each(record.ok_or_else(|| altered(&format!("the entry {}", key.value())))?);
            }
            Ok(txn.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value()))
        };
        let outcome = read();
        outcome.map_err(|error| disk(&path, "read", error))
    }

    fn history(&mut self) -> Result<Vec<(Revision, Vec<u8>)>, EngineError> {
        let path = self.path.clone();
        let rows = rows::read(self.database()?).map_err(|error| disk(&path, "read", error))?;
        self.kept = Kept::of(&rows);
        Ok(rows)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), EngineError> {
        self.database()?;
        self.write(commit).map_err(|error| {
            self.database = None;
            self.disk("write", error)
        })
    }
}

/// Brings a file of the old layout to this one, all or nothing.
fn rewrite(txn: redb::WriteTransaction) -> Result<(), redb::Error> {
    {
        let mut entries = txn.open_table(ENTRIES)?;
        let mut records = Vec::new();
        for item in entries.iter()? {
            let (key, value) = item?;
            let record = decode_old(key.value(), value.value());
            records.push(record.ok_or_else(|| altered(&format!("the entry {}", key.value())))?);
        }
        for record in records {
            entries.insert(record.key.as_str(), encode(&record).as_slice())?;
        }
        txn.open_table(META)?.insert(FORMAT, FORMAT_NUMBER)?;
    }
    Ok(txn.commit()?)
}

pub(super) fn altered(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("{what} is not what was written"))
}

fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STAMP + record.value.len());
    bytes.extend_from_slice(&[0; 4]);
    for number in [record.create_revision, record.mod_revision, record.expires] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&record.value);
    let sum = crc(record.key.as_bytes(), &bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// CRC-32 of a key and what is stored under it.
pub(super) fn crc(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

fn decode(key: &str, bytes: &[u8]) -> Option<Record> {
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

fn decode_old(key: &str, bytes: &[u8]) -> Option<Record> {
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

    fn record() -> Record {
        let value = Bytes::from_static(b"value");
        Record { key: "/r/a".into(), value, create_revision: 1, mod_revision: 2, expires: 3 }
    }

    #[test]
    fn a_changed_bit_anywhere_is_found() {
        let record = record();
        let bytes = encode(&record);
        assert_eq!(decode("/r/a", &bytes), Some(record));
        assert_eq!(decode("/r/b", &bytes), None, "another key's entry");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode("/r/a", &bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_file_of_the_old_layout_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let database = Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let old = [&1_u64.to_be_bytes()[..], &2_u64.to_be_bytes(), b"value"].concat();
        txn.open_table(ENTRIES).unwrap().insert("/r/a", old.as_slice()).unwrap();
        txn.open_table(META).unwrap().insert(FORMAT, OLD_FORMAT_NUMBER).unwrap();
        txn.open_table(META).unwrap().insert(REVISION, 2).unwrap();
        txn.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let mut found = Vec::new();
            let revision = Redb::open(&path).unwrap().load(&mut |record| found.push(record)).unwrap();
            assert_eq!((revision, found), (2, vec![Record { expires: 0, ..record() }]));
        }
    }
}
