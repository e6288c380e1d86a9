//! The bounded log of recent events, sorted for those who read it.
//!
//! Who watches reads a *shelf*: the events of one folder of keys, of one key, or of the marked entries of a folder. A shelf
//! is there while somebody reads it. So a watcher is woken only by its own events, never looks at those of others, falls
//! off only when one of its own has been dropped unread, and costs writers nothing whose events are not its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::entry::{Event, Mark, Revision};
use crate::shelf::{Scope, Shelf, folders, marks};
use crate::topic::{Topic, Waiting};

/// The start of a watch, or the position of a cursor, is older than the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the history before revision {oldest} is gone")]
pub struct Compacted {
    /// The oldest revision a watch may start from.
    pub oldest: Revision,
}

#[derive(Debug)]
pub(crate) struct Log<H> {
    events: VecDeque<Arc<Event<H>>>,
    /// Sequence number of the front event. Events have one because a revision may hold several.
    front: u64,
    /// Last revision appended, also by transactions of which nothing is left in the log.
    revision: Revision,
    /// A watch from this revision or later is complete.
    oldest: Revision,
    /// Ranges at revisions before it are refused, also where the log reaches further back.
    forgotten: Revision,
    weight: usize,
    shelves: Slab<Shelf<H>>,
    /// Shelves of folders and keys.
    by_keys: HashMap<Box<str>, usize>,
    /// Shelves of marked entries, by the mark.
    by_mark: HashMap<Box<str>, Vec<usize>>,
    mark: Mark<H>,
    max_events: usize,
    max_weight: usize,
}

/// Shelves of one event: folders and key, and two marks.
type Slots = SmallVec<[usize; 8]>;

impl<H> Log<H> {
    /// An empty log that begins after `revision`.
    pub(crate) fn new(revision: Revision, max_events: usize, max_weight: usize) -> Self {
        Self {
            events: VecDeque::new(),
            front: 0,
            revision,
            oldest: revision,
            forgotten: 0,
            weight: 0,
            shelves: Slab::new(),
            by_keys: HashMap::new(),
            by_mark: HashMap::new(),
            mark: |_, _| None,
            max_events,
            max_weight,
        }
    }

    /// How entries are marked. It has to be known before anybody reads.
    pub(crate) fn mark_by(&mut self, mark: Mark<H>) {
        self.mark = mark;
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn oldest(&self) -> Revision {
        self.oldest
    }

    #[cfg(test)]
    pub(crate) fn is_unread(&self) -> bool {
        self.shelves.is_empty() && self.by_keys.is_empty() && self.by_mark.is_empty()
    }

    pub(crate) fn shelf(&self, slot: usize) -> &Shelf<H> {
        &self.shelves[slot]
    }

    /// Appends the events of one group of transactions that leads to `revision`, then drops what exceeds the bounds.
    /// Returns whom to wake, once however many events are theirs.
    pub(crate) fn append(
        &mut self,
        events: impl Iterator<Item = Arc<Event<H>>>,
        revision: Revision,
    ) -> Waiting {
        self.revision = revision;
        let mut touched = Vec::new();
        for event in events {
            self.weight += event.weight();
            for slot in self.slots(&event) {
                if self.shelves[slot].put(&event) {
                    touched.push(slot);
                }
            }
            self.events.push_back(event);
        }
        while self.events.len() > self.max_events || self.weight > self.max_weight {
            self.drop_front();
        }
        let mut waiting = Waiting::default();
        touched.into_iter().for_each(|slot| self.shelves[slot].tell(&mut waiting));
        waiting
    }

    /// The shelves on which an event belongs.
    fn slots(&self, event: &Event<H>) -> Slots {
        let mut slots = Slots::new();
        if !self.by_keys.is_empty() {
            slots.extend(folders(&event.key).filter_map(|name| self.by_keys.get(name).copied()));
        }
        if !self.by_mark.is_empty() {
            let marks = marks(event, self.mark);
            let marked = marks.iter().filter_map(|mark| self.by_mark.get(*mark)).flatten().copied();
            slots.extend(marked.filter(|slot| self.shelves[*slot].scope().has(event, self.mark)));
        }
        slots
    }

    /// Begins anew after `revision`, with a gap before it: every cursor falls off. Returns whom to wake.
    pub(crate) fn restart(&mut self, revision: Revision) -> Waiting {
        self.front += self.events.len() as u64;
        self.events.clear();
        self.weight = 0;
        self.revision = revision;
        self.oldest = revision;
        let mut waiting = Waiting::default();
        for (_, shelf) in &mut self.shelves {
            shelf.restart();
            shelf.tell(&mut waiting);
        }
        waiting
    }

    /// Refuses ranges at revisions before `revision` from now on. Cursors read what they have not read yet.
    pub(crate) fn forget(&mut self, revision: Revision) {
        self.forgotten = self.forgotten.max(revision);
    }

    fn drop_front(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.front += 1;
        self.weight -= event.weight();
        self.oldest = event.revision;
        for slot in self.slots(&event) {
            self.shelves[slot].drop_front(&event);
        }
    }

    /// Begins to read a shelf after `from`: its slot, where its readers wait, and the number of the first event to read. To
    /// be given back with [`Log::leave`].
    pub(crate) fn enter(
        &mut self,
        scope: Scope,
        from: Revision,
    ) -> Result<(usize, Arc<Topic>, u64), Compacted> {
        if from < self.oldest {
            return Err(Compacted { oldest: self.oldest });
        }
        let slot = self.find(&scope).unwrap_or_else(|| self.set_up(scope));
        let start = self.front + self.events.partition_point(|event| event.revision <= from) as u64;
        let missing = self.at(start)..self.at(self.shelves[slot].since().max(start));
        let shelf = &mut self.shelves[slot];
        for event in self.events.range(missing).rev() {
            shelf.put_before(event, self.mark);
        }
        Ok((slot, shelf.topic(), shelf.enter(start, from)))
    }

    fn find(&self, scope: &Scope) -> Option<usize> {
        match scope {
            Scope::Keys(name) => self.by_keys.get(name).copied(),
            Scope::Marked { mark, .. } => {
                self.by_mark.get(mark)?.iter().copied().find(|slot| self.shelves[*slot].scope() == scope)
            }
        }
    }

    fn set_up(&mut self, scope: Scope) -> usize {
        let end = self.front + self.events.len() as u64;
        let slot = self.shelves.insert(Shelf::new(scope.clone(), end));
        match scope {
            Scope::Keys(name) => drop(self.by_keys.insert(name, slot)),
            Scope::Marked { mark, .. } => self.by_mark.entry(mark).or_default().push(slot),
        }
        slot
    }

    /// Where an event stands, by its sequence number.
    fn at(&self, sequence: u64) -> usize {
        usize::try_from(sequence - self.front).expect("the log fits in memory")
    }

    /// Ends what [`Log::enter`] began. A shelf that nobody reads is cleared away.
    pub(crate) fn leave(&mut self, slot: usize) {
        if !self.shelves[slot].leave() {
            return;
        }
        match self.shelves.remove(slot).scope() {
            Scope::Keys(name) => drop(self.by_keys.remove(name)),
            Scope::Marked { mark, .. } => {
                let Some(slots) = self.by_mark.get_mut(mark) else { return };
                slots.retain(|one| *one != slot);
                if slots.is_empty() {
                    self.by_mark.remove(mark);
                }
            }
        }
    }

    /// Events newer than `revision`, newest first; `Err` when some of them are gone.
    pub(crate) fn newest_first(
        &self,
        revision: Revision,
    ) -> Result<impl Iterator<Item = &Arc<Event<H>>>, Compacted> {
        let oldest = self.oldest.max(self.forgotten);
        if revision < oldest {
            return Err(Compacted { oldest });
        }
        Ok(self.events.iter().rev().take_while(move |event| event.revision > revision))
    }
}
