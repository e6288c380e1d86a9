//! The bounded log of recent events, and the cursors that read it.
//!
//! A watcher is a cursor with a prefix, not a queue: it costs a position. Events carry a sequence number of their own,
//! because one revision may hold several. A *topic* is the first two segments of a key (`/registry/pods/`): a cursor is
//! woken only by events of its topic, and falls off only when an event of its topic has been dropped unread.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::entry::{Event, Revision};
use crate::topic::{self, Topic, Waiting};

/// The start of a watch, or the position of a cursor, is older than the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the history before revision {oldest} is gone")]
pub struct Compacted {
    /// The oldest revision a watch may start from.
    pub oldest: Revision,
}

/// Events in order, and the revision up to which the cursor has now seen everything.
#[derive(Debug)]
pub struct Batch<H> {
    /// Most often it is one, which takes no memory of its own.
    pub events: SmallVec<[Arc<Event<H>>; 2]>,
    pub revision: Revision,
}

#[derive(Debug)]
pub(crate) struct Log<H> {
    events: VecDeque<Arc<Event<H>>>,
    /// Sequence number of the front event.
    front: u64,
    /// Last revision appended, also by transactions of which nothing is left in the log.
    revision: Revision,
    /// A watch from this revision or later is complete.
    oldest: Revision,
    /// Ranges at revisions before it are refused, also where the log reaches further back.
    forgotten: Revision,
    weight: usize,
    topics: HashMap<Box<str>, Arc<Topic>>,
    /// Woken by every event; for cursors whose prefix is shorter than a topic.
    all: Arc<Topic>,
    max_events: usize,
    max_weight: usize,
}

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
            topics: HashMap::new(),
            all: Arc::default(),
            max_events,
            max_weight,
        }
    }

    /// Appends the events of one group of transactions that leads to `revision`, then drops what exceeds the bounds.
    /// Returns whom to wake, once however many events are theirs.
    pub(crate) fn append(
        &mut self,
        events: impl Iterator<Item = Arc<Event<H>>>,
        revision: Revision,
    ) -> Waiting {
        self.revision = revision;
        let mut touched = vec![Arc::clone(&self.all)];
        for event in events {
            self.weight += event.weight();
            let next = self.front + self.events.len() as u64 + 1;
            let topic = self.topic(topic::name(&event.key));
            topic.append_before(next);
            self.all.append_before(next);
            if !touched.iter().any(|known| Arc::ptr_eq(known, &topic)) {
                touched.push(topic);
            }
            self.events.push_back(event);
        }
        while self.events.len() > self.max_events || self.weight > self.max_weight {
            self.drop_front();
        }
        let mut waiting = Waiting::default();
        touched.iter().for_each(|topic| topic.waiting(&mut waiting));
        waiting
    }

    fn topic(&mut self, name: &str) -> Arc<Topic> {
        if let Some(known) = self.topics.get(name) {
            return Arc::clone(known);
        }
        Arc::clone(self.topics.entry(name.into()).or_default())
    }

    /// Begins anew after `revision`, with a gap before it: every cursor falls off. Returns whom to wake.
    pub(crate) fn restart(&mut self, revision: Revision) -> Waiting {
        // One number is skipped, so that a cursor that had read everything has missed something too.
        self.front += self.events.len() as u64 + 1;
        self.events.clear();
        self.weight = 0;
        self.revision = revision;
        self.oldest = revision;
        let mut waiting = Waiting::default();
        for topic in self.topics.values().chain([&self.all]) {
            topic.drop_before(self.front);
            topic.append_before(self.front);
            topic.waiting(&mut waiting);
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
        self.all.drop_before(self.front);
        if let Some(topic) = self.topics.get(topic::name(&event.key)) {
            topic.drop_before(self.front);
        }
    }

    /// Sequence number of the first event after `revision`.
    fn position_after(&self, revision: Revision) -> u64 {
        self.front + self.events.partition_point(|event| event.revision <= revision) as u64
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

/// A position in the log. Reads events of its prefix in order; see [`Cursor::next`].
#[derive(Debug)]
pub struct Cursor<H> {
    log: Arc<RwLock<Log<H>>>,
    place: Place,
    /// Where the topic finds the cursor's waker.
    seat: usize,
    /// The waker that it finds there.
    waits: Option<Waker>,
}

/// What a cursor reads, and how far it is.
#[derive(Debug)]
struct Place {
    prefix: String,
    /// The topic the prefix lies within, else that of all events.
    topic: Arc<Topic>,
    /// Events up to this revision are not this cursor's, even when they come after it was made.
    after: Revision,
    next: u64,
}

impl<H> Cursor<H> {
    pub(crate) fn new(log: &Arc<RwLock<Log<H>>>, prefix: &str, from: Revision) -> Result<Self, Compacted> {
        let mut inner = log.write();
        if from < inner.oldest {
            return Err(Compacted { oldest: inner.oldest });
        }
        let name = topic::name(prefix);
        let within = name.len() < prefix.len() || prefix.matches('/').count() >= 3;
        let topic = if within { inner.topic(name) } else { Arc::clone(&inner.all) };
        let next = inner.position_after(from);
        drop(inner);
        let seat = topic.sit();
        let place = Place { prefix: prefix.to_owned(), topic, after: from, next };
        Ok(Self { log: Arc::clone(log), place, seat, waits: None })
    }

    /// At least one and at most `limit` events of the prefix, as soon as there are any; waits for them without limit.
    ///
    /// # Errors
    /// [`Compacted`] when an event of the prefix's topic was dropped before it was read. Cancelling loses nothing.
    pub async fn next(&mut self, limit: usize) -> Result<Batch<H>, Compacted> {
        std::future::poll_fn(|context| self.poll_next(context, limit)).await
    }

    /// The same for callers that wait for several things.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Batch<H>, Compacted>> {
        let waits = self.waits.as_ref().is_some_and(|known| known.will_wake(context.waker()));
        if waits && !self.place.topic.has_come(self.place.next) {
            return Poll::Pending;
        }
        let log = self.log.read();
        let batch = self.place.read(&log, limit)?;
        if batch.events.is_empty() {
            if !waits {
                // Under the log's lock: nothing can be appended between the look and the wait.
                self.place.topic.wait(self.seat, context.waker());
                self.waits = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(batch))
    }

    /// What is there now, possibly nothing; `revision` says up to where the cursor has seen everything.
    pub fn read(&mut self, limit: usize) -> Result<Batch<H>, Compacted> {
        self.place.read(&self.log.read(), limit)
    }
}

impl<H> Drop for Cursor<H> {
    fn drop(&mut self) {
        self.place.topic.leave(self.seat);
    }
}

impl Place {
    fn read<H>(&mut self, log: &Log<H>, limit: usize) -> Result<Batch<H>, Compacted> {
        if self.topic.dropped() > self.next {
            return Err(Compacted { oldest: log.oldest });
        }
        let start = self.next.max(log.front);
        let skip = usize::try_from(start - log.front).expect("the log fits in memory");
        let mut events = SmallVec::new();
        let mut next = start;
        for event in log.events.range(skip..) {
            if events.len() == limit {
                break;
            }
            next += 1;
            if event.revision > self.after && event.key.starts_with(&self.prefix) {
                events.push(Arc::clone(event));
            }
        }
        self.next = next;
        let unread = usize::try_from(next - log.front).expect("the log fits in memory");
        let revision = match log.events.get(unread) {
            Some(event) => event.revision - 1,
            None => log.revision,
        };
        Ok(Batch { events, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(log: &Arc<RwLock<Log<()>>>, revision: Revision, key: &str) {
        let event = Event { revision, key: key.into(), entry: None, previous: None };
        drop(log.write().append(std::iter::once(Arc::new(event)), revision));
    }

    #[test]
    fn a_cursor_that_waits_misses_nothing_that_comes_and_no_gap() {
        let log = Arc::new(RwLock::new(Log::new(1, 10, usize::MAX)));
        let mut context = Context::from_waker(Waker::noop());
        for prefix in ["/registry/pods/", "/registry/pods/default/", "/"] {
            let from = log.read().revision;
            let mut cursor = Cursor::new(&log, prefix, from).unwrap();
            for round in 1..=20 {
                assert!(cursor.poll_next(&mut context, 10).is_pending());
                assert!(cursor.poll_next(&mut context, 10).is_pending(), "it does not wait any more");
                append(&log, from + 2 * round - 1, "/registry/nodes/a");
                let others = cursor.read(10).unwrap();
                assert_eq!(others.events.len(), usize::from(prefix == "/"));
                append(&log, from + 2 * round, "/registry/pods/default/a");
                let Poll::Ready(Ok(batch)) = cursor.poll_next(&mut context, 10) else {
                    panic!("it did not see {prefix} in round {round}")
                };
                assert_eq!((batch.events.len(), batch.revision), (1, from + 2 * round));
            }
            assert!(cursor.poll_next(&mut context, 10).is_pending());
            drop(log.write().restart(from + 100));
            assert!(matches!(cursor.poll_next(&mut context, 10), Poll::Ready(Err(_))));
        }
    }
}
