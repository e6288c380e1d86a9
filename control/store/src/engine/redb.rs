//! The redb file: every entry under its key, and the rows of history. Values are stored behind a stamp (stamp.rs).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::journal::record::Said;
use super::rows::{self, Kept};
use super::{EngineError, Record, io, stamp};
use crate::entry::Revision;

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// The number of the journals that belong to the file; absent while it is complete without them.
const JOURNALS: &str = "journals";
const FORMAT: &str = "format";
/// Layout of the file; a file of another number is refused instead of guessed at.
const FORMAT_NUMBER: u64 = 3;
/// The layout before: the same without journals, so that a program of that time would miss what they hold.
const FORMAT_WITHOUT_JOURNALS: u64 = 2;
/// The layout before that: two revisions in front of every value and no checksum. Such a file is rewritten at open.
const FORMAT_WITHOUT_SUMS: u64 = 1;
/// Readers are served from memory, so the cache only has to hold the B-tree's inner pages.
const CACHE_BYTES: usize = 4 << 20;

/// A redb file. After an I/O error redb refuses further work until reopened, so the handle is dropped and made anew.
pub(super) struct Redb {
    path: PathBuf,
    database: Option<Database>,
    kept: Kept,
}

impl Redb {
    /// Opens or creates the file at `path`, whose folder must exist. The file is readable by its owner only.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let mut file = Self { path: path.to_path_buf(), database: None, kept: Kept::default() };
        file.database()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Every record in key order, given to `each`.
    pub(super) fn load(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), EngineError> {
        self.read(|database| {
            for item in database.begin_read()?.open_table(ENTRIES)?.iter()? {
                let (key, value) = item?;
                let record = stamp::read(key.value(), value.value());
                each(record.ok_or_else(|| altered(&format!("the entry {}", key.value())))?);
            }
            Ok(())
        })
    }

    /// The rows of history, the newest first.
    pub(super) fn history(&mut self) -> Result<Vec<(Revision, Vec<u8>)>, EngineError> {
        let rows = self.read(rows::read)?;
        self.kept = Kept::of(&rows);
        Ok(rows)
    }

    /// The last revision in it.
    pub(super) fn revision(&mut self) -> Result<Revision, EngineError> {
        self.meta(REVISION).map(Option::unwrap_or_default)
    }

    /// The number of its journals, unless it is complete without.
    pub(super) fn journals(&mut self) -> Result<Option<u64>, EngineError> {
        self.meta(JOURNALS)
    }

    /// Has it need journals with that number from now on, or none.
    pub(super) fn set_journals(&mut self, number: Option<u64>) -> Result<(), EngineError> {
        self.write(|_, txn| {
            let mut meta = txn.open_table(META)?;
            match number {
                Some(number) => meta.insert(JOURNALS, number)?,
                None => meta.remove(JOURNALS)?,
            };
            Ok(())
        })
    }

    /// Makes all that records say durable together, or changes nothing.
    pub(super) fn apply(&mut self, records: &[Said<'_>]) -> Result<(), EngineError> {
        let Some(last) = records.last() else { return Ok(()) };
        let mut changes: BTreeMap<&str, Option<&[u8]>> = BTreeMap::new();
        for record in records {
            changes.extend(record.deletes.iter().map(|key| (*key, None)));
            changes.extend(record.puts.iter().map(|(key, value)| (*key, Some(*value))));
        }
        let rows = rows::joined(records);
        let excess = self.kept.excess(&rows);
        self.write(|kept, txn| {
            let mut entries = txn.open_table(ENTRIES)?;
            for (key, value) in changes {
                match value {
                    Some(value) => _ = entries.insert(key, value)?,
                    None => _ = entries.remove(key)?,
                }
            }
            kept.write(&mut txn.open_table(rows::HISTORY)?, excess, &rows)?;
            txn.open_table(META)?.insert(REVISION, last.revision)?;
            Ok(())
        })?;
        self.kept.written(excess, &rows);
        Ok(())
    }

    fn meta(&mut self, name: &str) -> Result<Option<u64>, EngineError> {
        self.read(|database| {
            Ok(database.begin_read()?.open_table(META)?.get(name)?.map(|guard| guard.value()))
        })
    }

    fn read<T>(&mut self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, EngineError> {
        let outcome = read(self.database()?);
        outcome.map_err(|error| self.disk("read", error))
    }

    /// One transaction.
    fn write(
        &mut self,
        change: impl FnOnce(&Kept, &redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), EngineError> {
        self.database()?;
        let database = self.database.as_ref().expect("opened just above");
        let write = || -> Result<(), redb::Error> {
            let txn = database.begin_write()?;
            change(&self.kept, &txn)?;
            Ok(txn.commit()?)
        };
        write().map_err(|error| {
            self.database = None;
            self.disk("write", error)
        })
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
            .map_err(|source| io(&self.path, "open", source))?;
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
        let mut txn = database.begin_write().map_err(|error| self.disk("open", error))?;
        let found = {
            let mut meta = txn.open_table(META).map_err(|error| self.disk("open", error))?;
            txn.open_table(ENTRIES).map_err(|error| self.disk("open", error))?;
            let found =
                meta.get(FORMAT).map_err(|error| self.storage("read", error))?.map(|guard| guard.value());
            if found.is_none_or(|found| found < FORMAT_NUMBER) {
                meta.insert(FORMAT, FORMAT_NUMBER).map_err(|error| self.storage("write", error))?;
            }
            found
        };
        if found.is_none() {
            // Of use only with what is written next, and that makes both durable.
            txn.set_durability(Durability::None).map_err(|error| self.disk("create", error))?;
        }
        match found {
            Some(FORMAT_NUMBER) => Ok(()),
            None | Some(FORMAT_WITHOUT_JOURNALS) => txn.commit().map_err(|error| self.disk("create", error)),
            Some(FORMAT_WITHOUT_SUMS) => rewrite(txn).map_err(|error| self.disk("rewrite", error)),
            Some(other) => Err(EngineError::Damaged {
                path: self.path.clone(),
                detail: format!("it has layout {other}, this program writes layout {FORMAT_NUMBER}"),
            }),
        }
    }

    fn disk(&self, action: &'static str, error: impl Into<redb::Error>) -> EngineError {
        let path = self.path.clone();
        match error.into() {
            redb::Error::Io(source) => io(&path, action, source),
            redb::Error::Corrupted(detail) => EngineError::Damaged { path, detail },
            other => EngineError::Disk { action, path, source: Box::new(other) },
        }
    }

    fn storage(&self, action: &'static str, error: StorageError) -> EngineError {
        self.disk(action, redb::Error::from(error))
    }
}

/// Gives every value of the layout without checksums its stamp, all or nothing.
fn rewrite(txn: redb::WriteTransaction) -> Result<(), redb::Error> {
    {
        let mut entries = txn.open_table(ENTRIES)?;
        let mut records = Vec::new();
        for item in entries.iter()? {
            let (key, value) = item?;
            let record = stamp::read_unsummed(key.value(), value.value());
            records.push(record.ok_or_else(|| altered(&format!("the entry {}", key.value())))?);
        }
        for record in records {
            let mut value = Vec::new();
            stamp::put(&mut value, &record);
            entries.insert(record.key.as_str(), value.as_slice())?;
        }
    }
    Ok(txn.commit()?)
}

pub(super) fn altered(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("{what} is not what was written"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn old_file(path: &Path, format: u64, value: &[u8]) {
        let database = Database::create(path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(ENTRIES).unwrap().insert("/r/a", value).unwrap();
        txn.open_table(META).unwrap().insert(FORMAT, format).unwrap();
        txn.open_table(META).unwrap().insert(REVISION, 2).unwrap();
        txn.commit().unwrap();
    }

    #[test]
    fn files_of_the_old_layouts_are_brought_to_this_one() {
        let value = Bytes::from_static(b"value");
        let record = Record { key: "/r/a".into(), value, create_revision: 1, mod_revision: 2, expires: 0 };
        let mut stamped = Vec::new();
        stamp::put(&mut stamped, &record);
        let unsummed = [&1_u64.to_be_bytes()[..], &2_u64.to_be_bytes(), b"value"].concat();
        for (format, value) in [(FORMAT_WITHOUT_SUMS, unsummed), (FORMAT_WITHOUT_JOURNALS, stamped)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.redb");
            old_file(&path, format, &value);
            for _ in 0..2 {
                let mut found = Vec::new();
                let mut file = Redb::open(&path).unwrap();
                file.load(&mut |record| found.push(record)).unwrap();
                assert_eq!((file.revision().unwrap(), &found[..]), (2, &[record.clone()][..]));
                assert_eq!(file.meta(FORMAT).unwrap(), Some(FORMAT_NUMBER));
            }
        }
    }

    #[test]
    fn a_file_of_a_layout_to_come_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        old_file(&path, FORMAT_NUMBER + 1, b"");
        let error = Redb::open(&path).err().unwrap().to_string();
        assert!(error.contains("layout 4, this program writes layout 3"), "{error}");
    }
}
