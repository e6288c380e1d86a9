//! The only writer: takes whatever transactions wait, commits them as one group, publishes, answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::content::Content;
use crate::engine::{Commit, Engine, EngineError, Record};
use crate::entry::{Entry, Event, Revision, UnixSeconds};
use crate::history;
use crate::shared::{Entries, Shared};
use crate::txn::{Compare, TxnError};

/// Writers that may wait before a further one is held back.
const QUEUE: usize = 1024;
/// Transactions that share one fsync at most.
const GROUP: usize = 512;

/// A transaction on its way to the writer.
struct Write<H> {
    compares: Vec<Compare>,
    ops: Vec<Prepared<H>>,
    expires: UnixSeconds,
    reply: oneshot::Sender<Result<Revision, TxnError<H>>>,
}

/// An operation whose header has been extracted.
pub(crate) enum Prepared<H> {
    Put { key: String, value: Content, header: H },
    Delete { key: String },
}

/// The writer thread and the way to it. Dropping it lets the queued writes finish and waits for the thread.
#[derive(Debug)]
pub(crate) struct Writer<H> {
    queue: Option<mpsc::Sender<Write<H>>>,
    thread: Option<JoinHandle<()>>,
}

impl<H: Send + Sync + 'static> Writer<H> {
    pub(crate) fn spawn(engine: impl Engine, shared: Arc<Shared<H>>) -> std::io::Result<Self> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(engine, &shared, receiver))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(crate) async fn txn(
        &self,
        compares: Vec<Compare>,
        ops: Vec<Prepared<H>>,
        expires: UnixSeconds,
    ) -> Result<Revision, TxnError<H>> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().expect("only drop takes the queue away");
        let sent = queue.send(Write { compares, ops, expires, reply }).await;
        sent.map_err(|_closed| TxnError::Unknown)?;
        // A dropped reply means the writer ended between taking the write and answering.
        answer.await.unwrap_or(Err(TxnError::Unknown))
    }
}

impl<H> Drop for Writer<H> {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

fn run<H>(mut engine: impl Engine, shared: &Shared<H>, mut queue: mpsc::Receiver<Write<H>>) {
    let mut writes = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut writes, GROUP) > 0 {
        let mut group = Group::begin(shared);
        let answers: Vec<_> = writes
            .drain(..)
            .map(|Write { compares, ops, expires, reply }| (group.stage(&compares, ops, expires), reply))
            .collect();
        let committed = group.commit(&mut engine);
        let failure = match committed {
            Ok(group) if group.events.is_empty() => None,
            Ok(group) => {
                shared.publish(group.entries, group.revision, group.events);
                None
            }
            Err(error) => Some(error),
        };
        for (answer, reply) in answers {
            let answer = match (answer, &failure) {
                // Conflicts too: they may name a version that was staged in this group and never came to be.
                (_, Some(error)) => Err(not_committed(error)),
                (answer, None) => answer,
            };
            // A caller that no longer waits has nobody left to tell.
            drop(reply.send(answer));
        }
    }
}

fn not_committed<H>(error: &Arc<EngineError>) -> TxnError<H> {
    match **error {
        EngineError::Full { .. } => TxnError::Full,
        _ => TxnError::Engine(Arc::clone(error)),
    }
}

/// Transactions that are committed together. Later ones see the writes of earlier ones.
struct Group<H> {
    entries: Entries<H>,
    revision: Revision,
    began_at: Revision,
    events: Vec<Arc<Event<H>>>,
}

impl<H> Group<H> {
    fn begin(shared: &Shared<H>) -> Self {
        let current = shared.current.read();
        Self {
            entries: current.entries.clone(),
            revision: current.revision,
            began_at: current.revision,
            events: Vec::new(),
        }
    }

    /// Checks `compares` and stages `ops` under the next revision; on error nothing is staged.
    fn stage(
        &mut self,
        compares: &[Compare],
        ops: Vec<Prepared<H>>,
        expires: UnixSeconds,
    ) -> Result<Revision, TxnError<H>> {
        for Compare { key, mod_revision } in compares {
            let current = self.entries.get(key.as_str());
            if current.map_or(0, |entry| entry.mod_revision) != *mod_revision {
                return Err(TxnError::Conflict { key: key.clone(), current: current.cloned() });
            }
        }
        let revision = self.revision + 1;
        for op in ops {
            self.apply(op, revision, expires);
        }
        Ok(self.revision)
    }

    fn apply(&mut self, op: Prepared<H>, revision: Revision, expires: UnixSeconds) {
        let (key, entry, previous) = match op {
            Prepared::Put { key, value, header } => {
                let previous = self.entries.get(key.as_str()).cloned();
                let key = previous.as_ref().map_or_else(|| key.into(), |entry| Arc::clone(&entry.key));
                let create_revision = previous.as_ref().map_or(revision, |entry| entry.create_revision);
                let entry = Arc::new(Entry {
                    key: Arc::clone(&key),
                    value,
                    mod_revision: revision,
                    create_revision,
                    expires,
                    header,
                });
                self.entries.insert(Arc::clone(&key), Arc::clone(&entry));
                (key, Some(entry), previous)
            }
            Prepared::Delete { key } => {
                let Some(previous) = self.entries.remove(key.as_str()) else { return };
                (Arc::clone(&previous.key), None, Some(previous))
            }
        };
        self.revision = revision;
        self.events.push(Arc::new(Event { revision, key, entry, previous }));
    }

    /// Makes the group durable. The last event of a key says what the engine has to hold of it.
    fn commit(self, engine: &mut impl Engine) -> Result<Self, Arc<EngineError>> {
        if self.revision == self.began_at {
            return Ok(self);
        }
        let last: BTreeMap<&str, &Option<Arc<Entry<H>>>> =
            self.events.iter().map(|event| (&*event.key, &event.entry)).collect();
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (key, entry) in last {
            match entry {
                Some(entry) => puts.push(record(entry)),
                None => deletes.push(key.to_owned()),
            }
        }
        let history = history::encode(self.began_at, &self.events);
        let commit = Commit { revision: self.revision, puts: &puts, deletes: &deletes, history: &history };
        match engine.commit(&commit) {
            Ok(()) => Ok(self),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a write was refused: the store cannot commit"
                );
                Err(Arc::new(error))
            }
        }
    }
}

fn record<H>(entry: &Entry<H>) -> Record {
    Record {
        key: entry.key.to_string(),
        value: entry.value.to_bytes(),
        create_revision: entry.create_revision,
        mod_revision: entry.mod_revision,
        expires: entry.expires,
    }
}
