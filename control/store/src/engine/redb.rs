//! The embedded engine: one redb file, one fsync per commit.
//!
//! A value is stored as `create_revision` and `mod_revision` (each 8 bytes, big endian) followed by the value itself.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::{Engine, EngineError, Record};
use crate::entry::Revision;

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Layout of the file; a file of another number is refused instead of guessed at.
const FORMAT_NUMBER: u64 = 1;
/// Bytes of the two revisions in front of every value.
const STAMP: usize = 16;
/// Readers are served from memory, so the engine's cache only has to hold the B-tree's inner pages.
const CACHE_BYTES: usize = 4 << 20;

/// A redb file. After an I/O error redb refuses further work until reopened, so the handle is dropped and made anew.
pub struct Redb {
    path: PathBuf,
    database: Option<Database>,
}

impl Redb {
    /// Opens or creates the file at `path`, whose folder must exist. The file is readable by its owner only.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let mut engine = Self { path: path.to_path_buf(), database: None };
        engine.database()?;
        Ok(engine)
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
            Some(other) => Err(EngineError::Damaged {
                path: self.path.clone(),
                detail: format!("it has layout {other}, this program writes layout {FORMAT_NUMBER}"),
            }),
        }
    }

    fn write(&mut self, revision: Revision, puts: &[Record], deletes: &[String]) -> Result<(), redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseAlreadyOpen) };
        let txn = database.begin_write()?;
        {
            let mut entries = txn.open_table(ENTRIES)?;
            for key in deletes {
                entries.remove(key.as_str())?;
            }
            for record in puts {
                entries.insert(record.key.as_str(), encode(record).as_slice())?;
            }
            txn.open_table(META)?.insert(REVISION, revision)?;
        }
        txn.commit()?;
        Ok(())
    }

    fn disk(&self, action: &'static str, error: impl Into<redb::Error>) -> EngineError {
        match error.into() {
            redb::Error::Io(source) => self.io(action, source),
            redb::Error::Corrupted(detail) => EngineError::Damaged { path: self.path.clone(), detail },
            other => EngineError::Disk { action, path: self.path.clone(), source: Box::new(other) },
        }
    }

    fn storage(&self, action: &'static str, error: StorageError) -> EngineError {
        self.disk(action, redb::Error::from(error))
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> EngineError {
        use std::io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull};
        let path = self.path.clone();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => EngineError::Full { path },
            InvalidData => EngineError::Damaged { path, detail: source.to_string() },
            _ => EngineError::Disk { action, path, source: Box::new(source) },
        }
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
                let record = decode(key.value(), value.value())
                    .ok_or_else(|| redb::Error::Corrupted(format!("{} has no revisions", key.value())))?;
                each(record);
            }
            Ok(txn.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value()))
        };
        let outcome = read();
        outcome.map_err(|error| Self { path, database: None }.disk("read", error))
    }

    fn commit(&mut self, revision: Revision, puts: &[Record], deletes: &[String]) -> Result<(), EngineError> {
        self.database()?;
        self.write(revision, puts, deletes).map_err(|error| {
            self.database = None;
            self.disk("write", error)
        })
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STAMP + record.value.len());
    bytes.extend_from_slice(&record.create_revision.to_be_bytes());
    bytes.extend_from_slice(&record.mod_revision.to_be_bytes());
    bytes.extend_from_slice(&record.value);
    bytes
}

fn decode(key: &str, bytes: &[u8]) -> Option<Record> {
    let (create, rest) = bytes.split_first_chunk::<8>()?;
    let (modified, value) = rest.split_first_chunk::<8>()?;
    Some(Record {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        create_revision: u64::from_be_bytes(*create),
        mod_revision: u64::from_be_bytes(*modified),
    })
}
