//! The events of the log that one kind of reader asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::entry::{Event, Mark, Revision};
use crate::marks;
use crate::topic::{Topic, Waiting};

/// Numbers of events begin here, so that older ones can be put before them.
const MIDDLE: u64 = 1 << 62;

/// Which events belong on a shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of a folder of keys, which ends with a slash, or of one key.
    Keys(Box<str>),
    /// Those of a folder whose entries have the mark before or after the change.
    Marked { folder: Box<str>, mark: Box<str> },
}

impl Scope {
    pub(crate) fn has<H>(&self, event: &Event<H>, mark: Mark<H>) -> bool {
        let key = &*event.key;
        match self {
            Self::Keys(folder) if folder.ends_with('/') => key.starts_with(&**folder),
            Self::Keys(own) => *key == **own,
            Self::Marked { folder, mark: wanted } => {
                key.starts_with(&**folder) && marks(event, mark).contains(&&**wanted)
            }
        }
    }
}

/// The folders a key is in, from the outermost, and the key.
pub(crate) fn folders(key: &str) -> impl Iterator<Item = &str> {
    let folders = key.match_indices('/').map(|(slash, _)| &key[..=slash]);
    folders.chain((!key.ends_with('/')).then_some(key))
}

/// The marks of an entry before and after a change, each once.
pub(crate) fn marks<H>(event: &Event<H>, mark: Mark<H>) -> SmallVec<[&str; 2]> {
    let versions = [&event.previous, &event.entry];
    let mut marks: SmallVec<[&str; 2]> =
        versions.into_iter().filter_map(|entry| marks::of(mark, entry)).collect();
    marks.dedup();
    marks
}

/// Events of one scope, in the order of the log.
#[derive(Debug)]
pub(crate) struct Shelf<H> {
    scope: Scope,
    events: VecDeque<Arc<Event<H>>>,
    /// Number of the front event, counted on this shelf.
    first: u64,
    /// Sequence number in the log from which on no event is missing here.
    since: u64,
    readers: usize,
    /// Whether events came of which its readers have not been told.
    touched: bool,
    topic: Arc<Topic>,
}

impl<H> Shelf<H> {
    /// A shelf without the events that are in the log already, which ends before `end`.
    pub(crate) fn new(scope: Scope, end: u64) -> Self {
        Self {
            scope,
            events: VecDeque::new(),
            first: MIDDLE,
            since: end,
            readers: 0,
            touched: false,
            topic: Arc::default(),
        }
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn topic(&self) -> Arc<Topic> {
        Arc::clone(&self.topic)
    }

    /// One past the number of the newest event.
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Adds the newest event; whether it is the first since its readers were told.
    pub(crate) fn put(&mut self, event: &Arc<Event<H>>) -> bool {
        self.events.push_back(Arc::clone(event));
        !std::mem::replace(&mut self.touched, true)
    }

    /// Adds those who wait for what came.
    pub(crate) fn tell(&mut self, waiting: &mut Waiting) {
        self.touched = false;
        self.topic.append_before(self.end());
        self.topic.waiting(waiting);
    }

    /// Adds an event older than all that are here, if it belongs here.
    pub(crate) fn put_before(&mut self, event: &Arc<Event<H>>, mark: Mark<H>) {
        if self.scope.has(event, mark) {
            self.events.push_front(Arc::clone(event));
            self.first -= 1;
        }
    }

    /// The log has dropped an event that belongs here.
    pub(crate) fn drop_front(&mut self, event: &Arc<Event<H>>) {
        if self.events.front().is_some_and(|front| Arc::ptr_eq(front, event)) {
            self.events.pop_front();
            self.first += 1;
        }
    }

    /// The log has dropped everything, and more that nobody saw.
    pub(crate) fn restart(&mut self) {
        // One number is skipped, so that who had read everything has missed something too.
        self.first = self.end() + 1;
        self.events.clear();
    }

    /// Sequence number from which on no event of the log is missing here.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// Takes a reader in for whom it was filled from `start` on; the number of the first event after `from`.
    pub(crate) fn enter(&mut self, start: u64, from: Revision) -> u64 {
        self.since = self.since.min(start);
        self.readers += 1;
        self.first + self.events.partition_point(|event| event.revision <= from) as u64
    }

    /// Lets a reader go; whether it was the last one.
    pub(crate) fn leave(&mut self) -> bool {
        self.readers -= 1;
        self.readers == 0
    }

    /// At most `limit` events from number `next` on; `None` when one of them is gone.
    pub(crate) fn read(&self, next: u64, limit: usize) -> Option<impl Iterator<Item = &Arc<Event<H>>>> {
        let skip = usize::try_from(next.checked_sub(self.first)?).expect("the log fits in memory");
        Some(self.events.range(skip..).take(limit))
    }

    /// The event of a number, if it has come.
    pub(crate) fn get(&self, number: u64) -> Option<&Arc<Event<H>>> {
        self.events.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}
