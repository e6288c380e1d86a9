//! The embedded engine: a redb file, and two journals in front of it.
//!
//! ```text
//!  commit --> active journal (one sync: acknowledged) -- full --> spare journal --> redb file (one commit for all), emptied
//! ```
//!
//! A commit costs one write and one sync of a file that never grows. When the active journal is full the two change
//! places, and a thread brings what the full one holds into the redb file, where a key that was written often is
//! written once. When that thread is not done before the other journal is full too, writers wait for it.
//!
//! The redb file names its journals by a number, and is complete without them after it was closed in order. On a disk
//! that has no room for journals, commits go into the redb file themselves.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::journal::record::{self, Place, Said};
use super::journal::{CAPACITY, Journal};
use super::redb::Redb;
use super::{Commit, Engine, EngineError, Record, io, stamp, sync_folder};
use crate::entry::Revision;

/// Memory for a record that is kept from one commit to the next.
const RECORD: usize = 1 << 20;

/// The store file with its journals.
pub struct Embedded {
    path: PathBuf,
    /// `None` while the thread has them.
    rest: Option<Rest>,
    thread: Option<JoinHandle<Rest>>,
    /// Takes what is committed; `None` where there are no journals.
    active: Option<Journal>,
    /// The revision that the next commit follows on.
    last: Revision,
    /// Records that were found in the journals and could not be brought into the file, for want of room.
    left: Vec<Vec<u8>>,
    record: Vec<u8>,
}

/// The redb file, and the journal that is empty or being emptied into it.
struct Rest {
    file: Redb,
    spare: Option<Journal>,
}

impl Embedded {
    /// Opens or creates the file at `path`, whose folder must exist, and its journals beside it.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let mut engine = Self::open_without_journals(path)?;
        let file = &mut engine.rest().file;
        let journals = match file.journals()? {
            Some(number) => {
                let Recovered { journals, left, last } = Recovered::of(file, number)?;
                engine.left = left;
                engine.last = last;
                Some(journals)
            }
            None => begin(file)?,
        };
        if let Some([spare, active]) = journals {
            engine.rest().spare = Some(spare);
            engine.active = Some(active);
        }
        Ok(engine)
    }

    /// Only the redb file, which must not have journals.
    pub(super) fn open_without_journals(path: &Path) -> Result<Self, EngineError> {
        let mut file = Redb::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            last: file.revision()?,
            rest: Some(Rest { file, spare: None }),
            thread: None,
            active: None,
            left: Vec::new(),
            record: Vec::new(),
        })
    }

    /// The file, as soon as the thread has given it back.
    fn rest(&mut self) -> &mut Rest {
        if let Some(thread) = self.thread.take() {
            self.rest = Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        self.rest.as_mut().expect("what the thread does not have is here")
    }

    /// Has the journals change places, and the full one emptied in the background.
    fn make_room(&mut self) -> Result<(), EngineError> {
        // If that failed in the background, it says now whether it still does.
        self.rest().empty()?;
        self.exchange();
        let parcel = Arc::new(Mutex::new(self.rest.take()));
        let taken = Arc::clone(&parcel);
        let spawned = std::thread::Builder::new().name("store-file".to_owned()).spawn(move || {
            let mut rest = taken.lock().take().expect("nobody else takes it once this runs");
            if let Err(error) = rest.empty() {
                tracing::error!(error = &error as &dyn std::error::Error, "a journal could not be emptied");
            }
            rest
        });
        match spawned {
            Ok(thread) => {
                self.thread = Some(thread);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "no thread can be had: writers wait while a journal is emptied");
                self.rest = parcel.lock().take();
                self.rest().empty()
            }
        }
    }

    fn exchange(&mut self) {
        let active = self.active.take();
        self.active = std::mem::replace(&mut self.rest().spare, active);
    }

    /// Brings everything into the file.
    fn settle(&mut self) -> Result<(), EngineError> {
        self.rest().empty()?;
        self.exchange();
        self.rest().empty()
    }

    /// Makes the record durable.
    fn write(&mut self, record: &[u8]) -> Result<(), EngineError> {
        let Some(active) = &mut self.active else { return self.write_into_file(record) };
        if record.len() <= active.room() {
            return active.append(record);
        }
        if record.len() > CAPACITY {
            self.settle()?;
            return self.write_into_file(record);
        }
        self.make_room()?;
        self.active.as_mut().expect("where there is one there are two").append(record)
    }

    fn write_into_file(&mut self, record: &[u8]) -> Result<(), EngineError> {
        let said = record::decode(record).expect("it was encoded just now");
        self.rest().file.apply(&[said])
    }

    /// What the file does not have yet, the oldest first.
    fn missing(&mut self) -> Result<Vec<Said<'_>>, EngineError> {
        let known = self.rest().file.revision()?;
        let said = self.left.iter().filter_map(|record| record::decode(record));
        Ok(said.filter(|said| said.revision > known).collect())
    }
}

impl Engine for Embedded {
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> Result<Revision, EngineError> {
        let mut newer: BTreeMap<String, Option<Record>> = BTreeMap::new();
        for said in self.missing()? {
            newer.extend(said.deletes.iter().map(|key| ((*key).to_owned(), None)));
            newer.extend(said.puts.iter().map(|(key, value)| ((*key).to_owned(), stamp::read(key, value))));
        }
        let mut newer = newer.into_iter().peekable();
        self.rest().file.load(&mut |record| {
            while let Some((_, new)) = newer.next_if(|(key, _)| *key < record.key) {
                new.into_iter().for_each(&mut *each);
            }
            match newer.next_if(|(key, _)| *key == record.key) {
                Some((_, new)) => new.into_iter().for_each(&mut *each),
                None => each(record),
            }
        })?;
        newer.filter_map(|(_, new)| new).for_each(each);
        Ok(self.last)
    }

    fn history(&mut self) -> Result<Vec<(Revision, Vec<u8>)>, EngineError> {
        let newer = self.missing()?;
        let newer = newer.iter().rev().map(|said| (said.revision, said.history.to_vec()));
        let mut rows: Vec<_> = newer.collect();
        rows.extend(self.rest().file.history()?);
        Ok(rows)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), EngineError> {
        let mut record = std::mem::take(&mut self.record);
        record::encode(&mut record, self.last, commit);
        self.write(&record)?;
        self.last = commit.revision;
        if record.capacity() <= RECORD {
            self.record = record;
        }
        Ok(())
    }
}

impl Drop for Embedded {
    /// Leaves a file that is complete by itself, if that can be had; else the journals are read at the next start.
    fn drop(&mut self) {
        if self.active.is_none() || std::thread::panicking() {
            return;
        }
        let settled = self.settle().and_then(|()| self.rest().file.set_journals(None));
        if let Err(error) = settled {
            let path = self.path.display();
            tracing::warn!(%path, error = &error as &dyn std::error::Error, "the store's journals stay as they are");
        }
    }
}

impl Rest {
    /// Brings what the spare journal holds into the file.
    fn empty(&mut self) -> Result<(), EngineError> {
        let Some(spare) = self.spare.as_mut().filter(|spare| !spare.is_empty()) else { return Ok(()) };
        let bytes = spare.read()?;
        let known = self.file.revision()?;
        let mut said = read(&bytes).ok_or_else(|| spare.damaged())?;
        // They are there already where the file took them and the journal could not be emptied.
        said.retain(|said| said.revision > known);
        self.file.apply(&said)?;
        spare.clear()
    }
}

/// What whole records say.
fn read(bytes: &[u8]) -> Option<Vec<Said<'_>>> {
    let (mut said, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let Place::Whole(end) = record::look(bytes, at) else { return None };
        said.push(record::decode(&bytes[at..end])?);
        at = end;
    }
    Some(said)
}

pub(super) fn journal_paths(file: &Path) -> [PathBuf; 2] {
    ["journal-0", "journal-1"].map(|extension| file.with_extension(extension))
}

/// Gives a file that is complete its journals; none where there is no room for them.
fn begin(file: &mut Redb) -> Result<Option<[Journal; 2]>, EngineError> {
    // Keyed by the system's random numbers.
    let number = RandomState::new().build_hasher().finish();
    let [one, other] = journal_paths(file.path());
    for path in [&one, &other] {
        if Journal::holds_something(path)? {
            return Err(EngineError::Foreign { path: path.clone() });
        }
    }
    let made = make_both(&one, &other, number);
    if matches!(made, Err(EngineError::Full { .. })) {
        // One of two is of no use, and takes up room.
        for path in [&one, &other].into_iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).map_err(|source| io(path, "remove", source))?;
        }
    }
    let begun = made.and_then(|journals| file.set_journals(Some(number)).map(|()| journals));
    match begun {
        Ok(journals) => Ok(Some(journals)),
        Err(error @ EngineError::Full { .. }) => {
            tracing::warn!(%error, "there is no room for the store's journals: writes are slower without");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Both at once: each waits for the disk.
fn make_both(one: &Path, other: &Path, number: u64) -> Result<[Journal; 2], EngineError> {
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| Journal::make(other, number));
        let first = Journal::make(one, number);
        (first, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let both = [first?, second?];
    sync_folder(one).map_err(|source| io(one, "sync the folder of", source))?;
    Ok(both)
}

/// The journals of a file that was not closed in order.
struct Recovered {
    /// The second takes the next commits.
    journals: [Journal; 2],
    /// Records that could not be brought into the file.
    left: Vec<Vec<u8>>,
    last: Revision,
}

impl Recovered {
    fn of(file: &mut Redb, number: u64) -> Result<Self, EngineError> {
        let known = file.revision()?;
        let mut last = known;
        let [one, other] = journal_paths(file.path());
        let mut found = [Found::of(&one, number, known)?, Found::of(&other, number, known)?];
        found.sort_by_key(|found| found.first);
        let mut left = Vec::new();
        for Found { journal, records, .. } in &mut found {
            for record in std::mem::take(records) {
                let said = record::decode(&record).ok_or_else(|| journal.damaged())?;
                if said.before != last {
                    return Err(journal.damaged());
                }
                last = said.revision;
                left.push(record);
            }
        }
        let mut journals = found.map(|found| found.journal);
        let said: Option<Vec<_>> = left.iter().map(|record| record::decode(record)).collect();
        match file.apply(&said.expect("each was understood above")) {
            Ok(()) => {
                journals.iter_mut().try_for_each(Journal::clear)?;
                left.clear();
            }
            Err(error @ EngineError::Full { .. }) => {
                tracing::warn!(%error, "what the store's journals hold stays there for now");
            }
            Err(error) => return Err(error),
        }
        Ok(Self { journals, left, last })
    }
}

/// What one journal holds that the file does not.
struct Found {
    journal: Journal,
    /// Where it begins; 0 when it is empty.
    first: Revision,
    records: Vec<Vec<u8>>,
}

impl Found {
    fn of(path: &Path, number: u64, known: Revision) -> Result<Self, EngineError> {
        let mut journal = Journal::open(path, number)?;
        let (area, whole) = journal.recover(known)?;
        let (mut first, mut records) = (0, Vec::new());
        for record in whole.records.into_iter().map(|at| &area[at]) {
            let said = record::decode(record).ok_or_else(|| journal.damaged())?;
            if said.revision > known {
                first = if records.is_empty() { said.revision } else { first };
                records.push(record.to_vec());
            }
        }
        Ok(Self { journal, first, records })
    }
}
