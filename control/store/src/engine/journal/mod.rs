//! A journal: a file of fixed size into which commits are written one behind the other, each with one sync.
//!
//! ```text
//!  0     MAGIC, the number that this journal and its store file share (8 bytes), CRC-32 of both (4 bytes)
//!  4096  records (record.rs), then zeros to the end
//! ```
//!
//! It has its size and its zeros from the beginning, so that a sync writes the record's sectors and nothing of the file
//! system's. How it is read after a crash says scan.rs.

pub mod record;
mod scan;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use self::scan::Found;
use super::EngineError;
use crate::entry::Revision;

const MAGIC: &[u8; 17] = b"hawser journal 1\n";
/// Where the records begin.
const START: usize = 4096;
/// Bytes for records.
pub const CAPACITY: usize = 4 << 20;
const SUM: usize = 4;
const HEAD: usize = MAGIC.len() + 8 + SUM;

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    end: usize,
    /// Behind `end`, which may hold what is not zero.
    unclean: Range<usize>,
}

impl Journal {
    /// Makes the file `path`, or takes over the one that is there, which must hold nothing. What it holds is on disk
    /// then; its name is when the folder is.
    pub fn make(path: &Path, number: u64) -> Result<Self, EngineError> {
        let Some(journal) = Self::existing(path)? else { return Self::create(path, number) };
        let written = journal.file.write_all_at(&head(number), 0).and_then(|()| journal.file.sync_all());
        written.map_err(|source| super::io(path, "write", source))?;
        Ok(Self { unclean: 0..0, ..journal })
    }

    /// Whether there is a file `path` with anything in it.
    pub fn holds_something(path: &Path) -> Result<bool, EngineError> {
        Self::existing(path)?.map_or(Ok(false), |journal| Ok(!journal.is_all_zeros()?))
    }

    fn is_all_zeros(&self) -> Result<bool, EngineError> {
        Ok(self.area()?.iter().all(|byte| *byte == 0))
    }

    /// Opens the journal with that number.
    pub fn open(path: &Path, number: u64) -> Result<Self, EngineError> {
        let damaged =
            |detail: &str| EngineError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let journal = Self::existing(path)?.ok_or_else(|| damaged("it is missing"))?;
        let mut found = [0; HEAD];
        journal.file.read_exact_at(&mut found, 0).map_err(|source| super::io(path, "read", source))?;
        if found == head(number) {
            Ok(journal)
        } else {
            Err(damaged("it belongs to another file, or to none"))
        }
    }

    /// A file has its size, its head and its zeros before it has its name.
    fn create(path: &Path, number: u64) -> Result<Self, EngineError> {
        let io = |action| move |source| super::io(path, action, source);
        let partial = path.with_added_extension("new");
        let file = options().create(true).truncate(true).open(&partial).map_err(io("create"))?;
        let mut whole = vec![0; START + CAPACITY];
        whole[..HEAD].copy_from_slice(&head(number));
        let written = file.write_all_at(&whole, 0).and_then(|()| file.sync_all()).map_err(io("write"));
        if let Err(error) = written {
            // It would take up the room that is missing.
            std::fs::remove_file(&partial).map_err(io("remove"))?;
            return Err(error);
        }
        std::fs::rename(&partial, path).map_err(io("rename"))?;
        Ok(Self { path: path.to_owned(), file, end: 0, unclean: 0..0 })
    }

    fn existing(path: &Path) -> Result<Option<Self>, EngineError> {
        let io = |source| super::io(path, "open", source);
        let file = match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io)?,
        };
        let size = file.metadata().map_err(io)?.len();
        if size != (START + CAPACITY) as u64 {
            let detail = format!("it has {size} bytes, not {}", START + CAPACITY);
            return Err(EngineError::Damaged { path: path.to_owned(), detail });
        }
        Ok(Some(Self { path: path.to_owned(), file, end: 0, unclean: 0..CAPACITY }))
    }

    fn area(&self) -> Result<Vec<u8>, EngineError> {
        let mut area = vec![0; CAPACITY];
        self.file
            .read_exact_at(&mut area, START as u64)
            .map_err(|source| super::io(&self.path, "read", source))?;
        Ok(area)
    }

    /// Reads what it holds after a crash, given the revision up to which everything is on disk elsewhere; from here on
    /// records are appended behind the last whole one.
    pub fn recover(&mut self, known: Revision) -> Result<(Vec<u8>, Found), EngineError> {
        let area = self.area()?;
        let found = scan::scan(&area, known).ok_or_else(|| self.damaged())?;
        let last = area.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.end = found.end;
        self.unclean = found.end..last.max(found.end);
        Ok((area, found))
    }

    /// The bytes of what was appended.
    pub fn read(&self) -> Result<Vec<u8>, EngineError> {
        let mut bytes = vec![0; self.end];
        self.file
            .read_exact_at(&mut bytes, START as u64)
            .map_err(|source| super::io(&self.path, "read", source))?;
        Ok(bytes)
    }

    /// That records are not what was written.
    pub fn damaged(&self) -> EngineError {
        EngineError::Damaged {
            path: self.path.clone(),
            detail: "a record is not what was written".to_owned(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Bytes that a further record may have.
    pub fn room(&self) -> usize {
        CAPACITY - self.end
    }

    /// Makes a record durable. One that fails is taken back, now or before the next is written.
    pub fn append(&mut self, record: &[u8]) -> Result<(), EngineError> {
        self.clean()?;
        let written = self.write(self.end, record);
        if let Err(error) = written {
            self.unclean = self.end..self.end + record.len();
            if let Err(error) = self.clean() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "half a record cannot be taken back"
                );
            }
            return Err(error);
        }
        self.end += record.len();
        Ok(())
    }

    /// Forgets all records, which are on disk elsewhere.
    pub fn clear(&mut self) -> Result<(), EngineError> {
        self.unclean = 0..self.unclean.end.max(self.end);
        self.end = 0;
        self.clean()
    }

    fn clean(&mut self) -> Result<(), EngineError> {
        if !self.unclean.is_empty() {
            self.write(self.unclean.start, &vec![0; self.unclean.len()])?;
            self.unclean = 0..0;
        }
        Ok(())
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<(), EngineError> {
        let written = self.file.write_all_at(bytes, (START + at) as u64).and_then(|()| self.file.sync_data());
        written.map_err(|source| super::io(&self.path, "write", source))
    }
}

/// Readable by the owner only, as the store file.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn head(number: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..MAGIC.len()].copy_from_slice(MAGIC);
    head[MAGIC.len()..HEAD - SUM].copy_from_slice(&number.to_be_bytes());
    let sum = crc32fast::hash(&head[..HEAD - SUM]);
    head[HEAD - SUM..].copy_from_slice(&sum.to_be_bytes());
    head
}
