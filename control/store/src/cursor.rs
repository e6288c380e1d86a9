//! Cursors: what watchers read the log with.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::entry::{Event, Revision};
use crate::log::{Compacted, Log};
use crate::shelf::Scope;
use crate::topic::Topic;

/// Events in order, and the revision up to which the cursor has now seen everything.
#[derive(Debug)]
pub struct Batch<H> {
    /// Most often it is one, which takes no memory of its own.
    pub events: SmallVec<[Arc<Event<H>>; 2]>,
    pub revision: Revision,
}

/// A position on a shelf of the log, not a queue. Reads events in order; see [`Cursor::next`].
#[derive(Debug)]
pub struct Cursor<H> {
    log: Arc<RwLock<Log<H>>>,
    slot: usize,
    topic: Arc<Topic>,
    /// Where the topic finds the cursor's waker.
    seat: usize,
    /// The waker that it finds there.
    waits: Option<Waker>,
    /// Events up to this revision are not this cursor's, even when they come after it was made.
    after: Revision,
    next: u64,
}

impl<H> Cursor<H> {
    pub(crate) fn new(log: &Arc<RwLock<Log<H>>>, scope: Scope, from: Revision) -> Result<Self, Compacted> {
        let (slot, topic, next) = log.write().enter(scope, from)?;
        let (log, seat) = (Arc::clone(log), topic.sit());
        Ok(Self { log, slot, topic, seat, waits: None, after: from, next })
    }

    /// At least one and at most `limit` events, as soon as there are any; waits for them without limit.
    ///
    /// # Errors
    /// [`Compacted`] when one of its events was dropped before it was read. Cancelling loses nothing.
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
        if waits && !self.topic.has_come(self.next) {
            return Poll::Pending;
        }
        let log = self.log.read();
        let (batch, next) = read(&log, self.slot, self.next, self.after, limit)?;
        self.next = next;
        if batch.events.is_empty() {
            if !waits {
                // Under the log's lock: nothing can be appended between the look and the wait.
                self.topic.wait(self.seat, context.waker());
                self.waits = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(batch))
    }

    /// What is there now, possibly nothing; `revision` says up to where the cursor has seen everything.
    pub fn read(&mut self, limit: usize) -> Result<Batch<H>, Compacted> {
        let (batch, next) = read(&self.log.read(), self.slot, self.next, self.after, limit)?;
        self.next = next;
        Ok(batch)
    }
}

impl<H> Drop for Cursor<H> {
    fn drop(&mut self) {
        self.topic.leave(self.seat);
        self.log.write().leave(self.slot);
    }
}

/// Events of a shelf from number `next` on that are newer than `after`, and the number of the first that was not read.
fn read<H>(
    log: &Log<H>,
    slot: usize,
    mut next: u64,
    after: Revision,
    limit: usize,
) -> Result<(Batch<H>, u64), Compacted> {
    let shelf = log.shelf(slot);
    let unread = shelf.read(next, limit).ok_or(Compacted { oldest: log.oldest() })?;
    let mut events = SmallVec::new();
    for event in unread {
        next += 1;
        if event.revision > after {
            events.push(Arc::clone(event));
        }
    }
    let revision = shelf.get(next).map_or(log.revision(), |event| event.revision - 1);
    Ok((Batch { events, revision }, next))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use bytes::Bytes;
    use rand::Rng;
    use rand::rngs::StdRng;
    use rand::seq::{IndexedMutRandom, IndexedRandom};

    use super::*;
    use crate::entry::Entry;

    /// Its header is its mark.
    type Marked = Event<Option<&'static str>>;

    fn event(revision: Revision, key: &str, marks: [Option<&'static str>; 2]) -> Arc<Marked> {
        let entry = |header| Entry {
            key: key.into(),
            value: Bytes::new().into(),
            mod_revision: revision,
            create_revision: revision,
            expires: 0,
            header,
        };
        let [previous, entry] = marks.map(|mark| Some(Arc::new(entry(mark))));
        Arc::new(Event { revision, key: key.into(), entry, previous })
    }

    fn log(max_events: usize) -> Arc<RwLock<Log<Option<&'static str>>>> {
        let mut log = Log::new(1, max_events, usize::MAX);
        log.mark_by(|_, header| *header);
        Arc::new(RwLock::new(log))
    }

    fn keys(name: &str) -> Scope {
        Scope::Keys(name.into())
    }

    fn marked(folder: &str, mark: &str) -> Scope {
        Scope::Marked { folder: folder.into(), mark: mark.into() }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Sleeper(AtomicUsize);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_cursor_that_waits_misses_nothing_that_comes_and_no_gap() {
        let log = log(10);
        let sleeper = Arc::new(Sleeper::default());
        let waker = Waker::from(Arc::clone(&sleeper));
        let mut context = Context::from_waker(&waker);
        let woken = || sleeper.0.swap(0, Ordering::Relaxed);
        let (pods, own) = ("/registry/pods/", "/registry/pods/default/a");
        for scope in [keys(pods), keys("/registry/pods/default/"), keys(own), marked(pods, "n"), keys("/")] {
            let from = log.read().revision();
            let mut cursor = Cursor::new(&log, scope.clone(), from).unwrap();
            for round in 1..=20 {
                assert!(cursor.poll_next(&mut context, 10).is_pending());
                assert!(cursor.poll_next(&mut context, 10).is_pending(), "it does not wait any more");
                let (other, mine) = (from + 2 * round - 1, from + 2 * round);
                let other = event(other, "/registry/nodes/a", [Some("n"); 2]);
                log.write().append([other].into_iter(), from + 2 * round - 1).wake();
                assert_eq!(woken(), usize::from(scope == keys("/")), "{scope:?}");
                let others = cursor.read(10).unwrap();
                assert_eq!(others.events.len(), usize::from(scope == keys("/")));
                log.write().append([event(mine, own, [None, Some("n")])].into_iter(), mine).wake();
                assert_eq!(woken(), 1, "{scope:?}");
                let Poll::Ready(Ok(batch)) = cursor.poll_next(&mut context, 10) else {
                    panic!("it did not see {scope:?} in round {round}")
                };
                assert_eq!((batch.events.len(), batch.revision), (1, from + 2 * round));
            }
            assert!(cursor.poll_next(&mut context, 10).is_pending());
            log.write().restart(from + 100).wake();
            assert_eq!(woken(), 1, "{scope:?}");
            assert!(matches!(cursor.poll_next(&mut context, 10), Poll::Ready(Err(_))));
        }
    }

    /// What a cursor should do, by looking through everything there ever was.
    struct Model {
        scope: Scope,
        after: Revision,
        /// How many events it has passed.
        passed: usize,
    }

    impl Model {
        fn read(&mut self, all: &[Arc<Marked>], dropped: usize, limit: usize) -> Option<Vec<Arc<Marked>>> {
            let has = |event: &Arc<Marked>| self.scope.has(event, |_, header| *header);
            if all[self.passed.min(dropped)..dropped].iter().any(has) {
                return None;
            }
            let own = (self.passed..all.len()).filter(|at| has(&all[*at])).take(limit);
            let own: Vec<usize> = own.collect();
            self.passed =
                if own.len() < limit { all.len() } else { own.last().map_or(self.passed, |at| at + 1) };
            let read = own.into_iter().map(|at| Arc::clone(&all[at]));
            Some(read.filter(|event| event.revision > self.after).collect())
        }
    }

    const KEYS: [&str; 5] = ["/r/a/x/1", "/r/a/x/2", "/r/a/y/1", "/r/b/x/1", "/r/b"];
    const MARKS: [Option<&str>; 3] = [None, Some("m"), Some("n")];

    fn random_scope(random: &mut StdRng) -> Scope {
        let folder = *["/", "/r/", "/r/a/", "/r/a/x/", "/r/b/"].choose(random).unwrap();
        match random.random_range(0..4) {
            0 => keys(KEYS.choose(random).unwrap()),
            1 => marked(folder, "m"),
            2 => marked(folder, "n"),
            _ => keys(folder),
        }
    }

    /// Writers, and readers of everything there is to read that come late, read little and leave.
    struct World {
        random: StdRng,
        bound: usize,
        log: Arc<RwLock<Log<Option<&'static str>>>>,
        all: Vec<Arc<Marked>>,
        dropped: usize,
        revision: Revision,
        readers: Vec<(Cursor<Option<&'static str>>, Model)>,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let mut random: StdRng = rand::SeedableRng::seed_from_u64(seed);
            let bound = random.random_range(1..12);
            let (all, readers) = (Vec::new(), Vec::new());
            Self { random, bound, log: log(bound), all, dropped: 0, revision: 1, readers }
        }

        fn step(&mut self) {
            match self.random.random_range(0..80) {
                0..30 => self.write(),
                30..50 => self.enter(),
                50..60 if !self.readers.is_empty() => {
                    let leaving = self.random.random_range(0..self.readers.len());
                    drop(self.readers.swap_remove(leaving));
                }
                60 => self.restart(),
                _ => {}
            }
            self.read();
        }

        /// A group of transactions, some of several events.
        fn write(&mut self) {
            let from = self.all.len();
            for _ in 0..self.random.random_range(0..4) {
                self.revision += self.random.random_range(u64::from(self.all.len() == from)..2);
                let marks = [(); 2].map(|()| *MARKS.choose(&mut self.random).unwrap());
                self.all.push(event(self.revision, KEYS.choose(&mut self.random).unwrap(), marks));
            }
            drop(self.log.write().append(self.all[from..].iter().cloned(), self.revision));
            self.dropped = self.dropped.max(self.all.len().saturating_sub(self.bound));
        }

        fn enter(&mut self) {
            let scope = random_scope(&mut self.random);
            let after = self.random.random_range(0..self.revision + 3);
            let oldest = self.log.read().oldest();
            match Cursor::new(&self.log, scope.clone(), after) {
                Err(gone) => assert_eq!((gone.oldest, after < oldest), (oldest, true)),
                Ok(cursor) => {
                    let passed = self.all.partition_point(|event| event.revision <= after).max(self.dropped);
                    self.readers.push((cursor, Model { scope, after, passed }));
                }
            }
        }

        fn restart(&mut self) {
            self.revision += 5;
            drop(self.log.write().restart(self.revision));
            self.dropped = self.all.len();
            for (mut cursor, _) in self.readers.drain(..) {
                assert!(cursor.read(1).is_err());
            }
        }

        fn read(&mut self) {
            let Some((cursor, model)) = self.readers.choose_mut(&mut self.random) else { return };
            let limit = self.random.random_range(1..5);
            let (is, wanted) = (cursor.read(limit).ok(), model.read(&self.all, self.dropped, limit));
            if let Some(batch) = &is {
                let unread = &self.all[model.passed..];
                let unread = unread.iter().find(|event| model.scope.has(event, |_, mark| *mark));
                let complete = unread.map_or(self.revision, |event| event.revision - 1);
                assert_eq!(batch.revision, complete, "{:?}", model.scope);
            }
            let names = |events: &[Arc<Marked>]| -> Vec<(u64, Arc<str>)> {
                events.iter().map(|event| (event.revision, Arc::clone(&event.key))).collect()
            };
            let is = is.map(|batch| names(&batch.events));
            assert_eq!(is, wanted.map(|events| names(&events)), "{:?}", model.scope);
        }
    }

    #[test]
    fn cursors_see_exactly_what_is_theirs() {
        for seed in 0..500 {
            // What fails says in which story.
            println!("story {seed}");
            let mut world = World::new(seed);
            (0..200).for_each(|_| world.step());
            world.readers.clear();
            assert!(world.log.read().is_unread(), "shelves that nobody reads are left");
        }
    }
}
