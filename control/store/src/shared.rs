//! What all handles of a store look at: the current entries, the log of recent events, and who is told of each event.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};

use crate::entry::{Entry, Event, Intake, Revision, UnixSeconds};
use crate::log::Log;
use crate::marks::Marks;

pub(crate) type Entries<H> = OrdMap<Arc<str>, Arc<Entry<H>>>;

type Observer<H> = Box<dyn Fn(&Event<H>) + Send + Sync>;

/// Written by one publisher, read by everybody.
pub(crate) struct Shared<H> {
    pub(crate) current: RwLock<Current<H>>,
    /// Taken while `current` is held, never the other way round.
    pub(crate) log: Arc<RwLock<Log<H>>>,
    pub(crate) intake: Intake<H>,
    /// Held for the whole of a publication, so that an observer misses nothing and sees nothing twice.
    observers: Mutex<Vec<Observer<H>>>,
}

impl<H> fmt::Debug for Shared<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("revision", &self.current.read().revision)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Current<H> {
    pub(crate) entries: Entries<H>,
    pub(crate) revision: Revision,
    /// Entries that are to be deleted some time, the earliest first.
    due: BTreeSet<(UnixSeconds, Arc<str>)>,
    pub(crate) marks: Marks<H>,
}

impl<H> Shared<H> {
    pub(crate) fn new(entries: Entries<H>, revision: Revision, log: Log<H>, intake: Intake<H>) -> Self {
        let due = due(&entries);
        Self {
            current: RwLock::new(Current { entries, revision, due, marks: Marks::default() }),
            log: Arc::new(RwLock::new(log)),
            intake,
            observers: Mutex::default(),
        }
    }

    /// Makes `entries` the current ones. Readers see entries and events at one moment; observers are told before it returns.
    pub(crate) fn publish(&self, entries: Entries<H>, revision: Revision, events: Vec<Arc<Event<H>>>) {
        let observers = self.observers.lock();
        let waiting = {
            let mut current = self.current.write();
            for event in &events {
                current.follow(event);
            }
            current.entries = entries;
            current.revision = revision;
            self.log.write().append(events.iter().cloned(), revision)
        };
        waiting.wake();
        for observer in &*observers {
            events.iter().for_each(|event| observer(event));
        }
    }

    /// Makes `entries` the current ones when it is not known how they came to be: every cursor falls off.
    pub(crate) fn replace(&self, entries: Entries<H>, revision: Revision) {
        let observers = self.observers.lock();
        let (before, waiting) = {
            let mut current = self.current.write();
            let before = std::mem::replace(&mut current.entries, entries.clone());
            current.due = due(&entries);
            current.marks = current.marks.again(&entries);
            current.revision = revision;
            (before, self.log.write().restart(revision))
        };
        waiting.wake();
        for event in differences(&before, &entries, revision) {
            observers.iter().for_each(|observer| observer(&event));
        }
    }

    /// Tells `observer` of everything there is, and then of every event in the order of revisions.
    pub(crate) fn observe(&self, observer: Observer<H>) {
        let mut observers = self.observers.lock();
        let entries = self.current.read().entries.clone();
        for entry in entries.values() {
            observer(&creation(entry));
        }
        observers.push(observer);
    }
}

impl<H> Current<H> {
    fn follow(&mut self, event: &Event<H>) {
        self.marks.follow(event);
        if let Some(previous) = event.previous.as_ref().filter(|entry| entry.expires > 0) {
            self.due.remove(&(previous.expires, Arc::clone(&event.key)));
        }
        if let Some(entry) = event.entry.as_ref().filter(|entry| entry.expires > 0) {
            self.due.insert((entry.expires, Arc::clone(&event.key)));
        }
    }

    /// Entries whose time has come.
    pub(crate) fn due(&self, now: UnixSeconds) -> Vec<Arc<Entry<H>>> {
        let until = self.due.iter().take_while(|(expires, _)| *expires <= now);
        until.filter_map(|(_, key)| self.entries.get(key).cloned()).collect()
    }
}

fn due<H>(entries: &Entries<H>) -> BTreeSet<(UnixSeconds, Arc<str>)> {
    let expiring = entries.values().filter(|entry| entry.expires > 0);
    expiring.map(|entry| (entry.expires, Arc::clone(&entry.key))).collect()
}

fn creation<H>(entry: &Arc<Entry<H>>) -> Event<H> {
    Event {
        revision: entry.mod_revision,
        key: Arc::clone(&entry.key),
        entry: Some(Arc::clone(entry)),
        previous: None,
    }
}

/// The events that lead from one set of entries to another, deletions first; all deletions are of `revision`.
fn differences<H>(before: &Entries<H>, after: &Entries<H>, revision: Revision) -> Vec<Event<H>> {
    let gone = before.values().filter(|entry| !after.contains_key(&entry.key)).map(|entry| Event {
        revision,
        key: Arc::clone(&entry.key),
        entry: None,
        previous: Some(Arc::clone(entry)),
    });
    let new = after.values().filter_map(|entry| {
        let previous = before.get(&entry.key).cloned();
        let changed = previous.as_ref().is_none_or(|previous| previous.mod_revision != entry.mod_revision);
        changed.then(|| Event { previous, ..creation(entry) })
    });
    gone.chain(new).collect()
}
