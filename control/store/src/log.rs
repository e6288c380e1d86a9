//! The bounded log of recent events, and the cursors that read it.
//!
//! A watcher is a cursor with a prefix, not a queue: it costs a position. Events carry a sequence number of their own,
//! because one revision may hold several. A *topic* is the first two segments of a key (`/registry/pods/`): a cursor is
//! woken only by events of its topic, and falls off only when an event of its topic has been dropped unread.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::entry::{Event, Revision};

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
    pub events: Vec<Arc<Event<H>>>,
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
    weight: usize,
    topics: HashMap<Box<str>, Topic>,
    /// Woken by every event; for cursors whose prefix is shorter than a topic.
    all: Topic,
    max_events: usize,
    max_weight: usize,
}

#[derive(Debug)]
struct Topic {
    /// One past the sequence number of the newest event.
    end: watch::Sender<u64>,
    /// One past the sequence number of the newest event that was dropped.
    dropped: u64,
}

impl Default for Topic {
    fn default() -> Self {
        Self { end: watch::Sender::new(0), dropped: 0 }
    }
}

impl<H> Log<H> {
    /// An empty log that begins after `revision`.
    pub(crate) fn new(revision: Revision, max_events: usize, max_weight: usize) -> Self {
        Self {
            events: VecDeque::new(),
            front: 0,
            revision,
            oldest: revision,
            weight: 0,
            topics: HashMap::new(),
            all: Topic::default(),
            max_events,
            max_weight,
        }
    }

    /// Appends the events of one group of transactions that leads to `revision`, then drops what exceeds the bounds.
    pub(crate) fn append(&mut self, events: impl Iterator<Item = Arc<Event<H>>>, revision: Revision) {
        self.revision = revision;
        for event in events {
            self.weight += event.weight();
            let end = self.front + self.events.len() as u64 + 1;
            let topic = topic(&event.key);
            match self.topics.get(topic) {
                Some(known) => known,
                None => self.topics.entry(topic.into()).or_default(),
            }
            .end
            .send_replace(end);
            self.events.push_back(event);
        }
        self.all.end.send_replace(self.front + self.events.len() as u64);
        while self.events.len() > self.max_events || self.weight > self.max_weight {
            self.drop_front();
        }
    }

    /// Begins anew after `revision`, with a gap before it: every cursor falls off.
    pub(crate) fn restart(&mut self, revision: Revision) {
        // One number is skipped, so that a cursor that had read everything has missed something too.
        self.front += self.events.len() as u64 + 1;
        self.events.clear();
        self.weight = 0;
        self.revision = revision;
        self.oldest = revision;
        for topic in self.topics.values_mut().chain(std::iter::once(&mut self.all)) {
            topic.dropped = self.front;
            topic.end.send_replace(self.front);
        }
    }

    /// Drops every event up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.front += 1;
        self.weight -= event.weight();
        self.oldest = event.revision;
        self.all.dropped = self.front;
        if let Some(topic) = self.topics.get_mut(topic(&event.key)) {
            topic.dropped = self.front;
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
        if revision < self.oldest {
            return Err(Compacted { oldest: self.oldest });
        }
        Ok(self.events.iter().rev().take_while(move |event| event.revision > revision))
    }

    fn topic_of(&self, prefix: &str) -> &Topic {
        self.topics.get(prefix).unwrap_or(&self.all)
    }
}

/// The first two segments of `key`, with the slash behind them.
fn topic(key: &str) -> &str {
    let mut slashes = key.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    match slashes.nth(1) {
        Some(end) => &key[..=end],
        None => key,
    }
}

/// A position in the log. Reads events of its prefix in order; see [`Cursor::next`].
#[derive(Debug)]
pub struct Cursor<H> {
    log: Arc<RwLock<Log<H>>>,
    prefix: String,
    /// Name of the topic when the prefix lies within one, else empty: every event wakes.
    topic: String,
    /// Events up to this revision are not this cursor's, even when they come after it was made.
    after: Revision,
    next: u64,
    wake: watch::Receiver<u64>,
}

impl<H> Cursor<H> {
    pub(crate) fn new(log: &Arc<RwLock<Log<H>>>, prefix: &str, from: Revision) -> Result<Self, Compacted> {
        let mut inner = log.write();
        if from < inner.oldest {
            return Err(Compacted { oldest: inner.oldest });
        }
        let name = topic(prefix);
        let within = name.len() < prefix.len() || prefix.matches('/').count() >= 3;
        let topic = if within { name.to_owned() } else { String::new() };
        let wake = if within {
            inner.topics.entry(topic.as_str().into()).or_default().end.subscribe()
        } else {
            inner.all.end.subscribe()
        };
        let next = inner.position_after(from);
        drop(inner);
        Ok(Self { log: Arc::clone(log), prefix: prefix.to_owned(), topic, after: from, next, wake })
    }

    /// At least one and at most `limit` events of the prefix, as soon as there are any; waits for them without limit.
    ///
    /// # Errors
    /// [`Compacted`] when an event of the prefix's topic was dropped before it was read. Cancelling loses nothing.
    pub async fn next(&mut self, limit: usize) -> Result<Batch<H>, Compacted> {
        loop {
            self.wake.mark_unchanged();
            let batch = self.read(limit)?;
            if !batch.events.is_empty() {
                return Ok(batch);
            }
            if self.wake.changed().await.is_err() {
                // The sender lives in the log this cursor holds, so it cannot go away first.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What is there now, possibly nothing; `revision` says up to where the cursor has seen everything.
    pub fn read(&mut self, limit: usize) -> Result<Batch<H>, Compacted> {
        let log = self.log.read();
        if log.topic_of(&self.topic).dropped > self.next {
            return Err(Compacted { oldest: log.oldest });
        }
        let start = self.next.max(log.front);
        let skip = usize::try_from(start - log.front).expect("the log fits in memory");
        let mut events = Vec::new();
        let mut next = start;
        for event in log.events.iter().skip(skip) {
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
    use super::topic;

    #[test]
    fn a_topic_is_the_first_two_segments() {
        for (key, want) in [
            ("/registry/pods/default/a", "/registry/pods/"),
            ("/registry/pods/", "/registry/pods/"),
            ("/registry/services/specs/default/a", "/registry/services/"),
            ("/registry", "/registry"),
            ("/registry/pods", "/registry/pods"),
        ] {
            assert_eq!(topic(key), want, "{key}");
        }
    }
}
