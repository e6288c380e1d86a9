//! Reads everything once, then follows etcd's watch; the only publisher of a store over etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Client, Error, EventType, GetOptions, KeyValue, ResponseHeader, WatchOptions, WatchResponse,
};
use tokio::sync::watch;
use tonic::Code;

use super::failure::{remote, retry};
use super::{Codec, LARGEST_ANSWER, PAGE, compact};
use crate::engine::EngineError;
use crate::entry::{Entry, Event, Intake, Revision, SOME_TIME};
use crate::shared::{Entries, Shared};

/// How long nothing may arrive from etcd while something is on its way.
const SILENCE: Duration = Duration::from_secs(3);
/// How many revisions before the newest a store that opens begins, so that it can serve watches from before.
const BACKLOG: Revision = 10_000;
/// Pauses between tries to reach etcd again.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// The revision up to which everything has arrived here.
#[derive(Debug, Clone)]
pub(super) struct Position {
    sender: Arc<watch::Sender<Revision>>,
}

impl Position {
    pub(super) fn new(revision: Revision) -> Self {
        Self { sender: Arc::new(watch::Sender::new(revision)) }
    }

    pub(super) fn get(&self) -> Revision {
        *self.sender.borrow()
    }

    /// Whether `revision` arrives. There is no limit to how far it may be ahead, but one to silence on the way.
    pub(super) async fn reach(&self, revision: Revision) -> bool {
        self.reach_unless(SILENCE, revision).await
    }

    async fn reach_unless(&self, silence: Duration, revision: Revision) -> bool {
        let mut receiver = self.sender.subscribe();
        loop {
            if *receiver.borrow_and_update() >= revision {
                return true;
            }
            if !tokio::time::timeout(silence, receiver.changed()).await.is_ok_and(|news| news.is_ok()) {
                return false;
            }
        }
    }
}

/// The revision in the header of an answer.
pub(super) fn header_revision(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision().cast_unsigned())
}

/// Reads a key and value of etcd. A value that cannot be read is kept as it is, so that it can be deleted.
pub(super) fn to_entry<H>(found: KeyValue, codec: Codec, intake: Intake<H>) -> Entry<H> {
    let (mod_revision, create_revision) = (found.mod_revision(), found.create_revision());
    let expires = if found.lease() == 0 { 0 } else { SOME_TIME };
    let (key, raw) = found.into_key_value();
    let key = String::from_utf8_lossy(&key).into_owned();
    let raw = Bytes::from(raw);
    let value = (codec.decode)(&key, raw.clone()).unwrap_or_else(|problem| {
        tracing::error!(key, error = &*problem, "a value in etcd cannot be read");
        raw
    });
    let (header, value) = intake.read(&key, value);
    Entry {
        header,
        key: key.into(),
        value,
        mod_revision: mod_revision.cast_unsigned(),
        create_revision: create_revision.cast_unsigned(),
        expires,
    }
}

/// Why following ended.
enum Ended {
    /// What comes next is forgotten already: everything has to be read anew.
    Compacted,
    Lost(String),
}

pub(super) struct Feed<H> {
    pub(super) client: Client,
    pub(super) root: String,
    pub(super) codec: Codec,
    pub(super) intake: Intake<H>,
    /// Whether etcd's news arrive.
    pub(super) connected: Arc<AtomicBool>,
}

impl<H: Send + Sync + 'static> Feed<H> {
    /// Everything below the root as it was a while ago, from where etcd's watch leads to now; and the revision now.
    pub(super) async fn load_earlier(&self) -> Result<(Entries<H>, Revision, Revision), EngineError> {
        let (oldest, newest) =
            compact::bounds(&self.client).await.map_err(|error| remote("read from etcd", error))?;
        let earlier = newest.saturating_sub(BACKLOG).max(oldest).max(1);
        let loaded = match self.load(earlier).await {
            // Somebody told etcd to forget and nobody else.
            Err(Error::GRpcStatus(status)) if status.code() == Code::OutOfRange => {
                self.load(0).await.map(|(entries, revision)| (entries, revision, revision))
            }
            loaded => loaded.map(|(entries, revision)| (entries, revision, newest)),
        };
        loaded.map_err(|error| remote("read from etcd", error))
    }

    /// Everything below the root at one revision; 0 is the newest.
    async fn load(&self, revision: Revision) -> Result<(Entries<H>, Revision), Error> {
        let mut entries = Entries::default();
        let (mut start, mut revision) = (self.root.clone().into_bytes(), revision.cast_signed());
        let end = end_of(self.root.as_bytes());
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let answer = retry(|| {
                let mut kv = self.client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
                let (start, options) = (start.clone(), options.clone());
                async move { kv.get(start, Some(options)).await }
            });
            let mut answer = answer.await?;
            if revision == 0 {
                revision = header_revision(answer.header()).cast_signed();
            }
            let more = answer.more();
            for found in answer.take_kvs() {
                start = [found.key(), &[0]].concat();
                let entry = to_entry(found, self.codec, self.intake);
                entries.insert(Arc::clone(&entry.key), Arc::new(entry));
            }
            if !more {
                return Ok((entries, revision.cast_unsigned()));
            }
        }
    }

    /// Follows for ever; reconnects when etcd goes away, reads anew when it has forgotten too much.
    pub(super) async fn run(self, shared: Arc<Shared<H>>, arrived: Position) {
        let mut failures = 0;
        loop {
            let before = arrived.get();
            let ended = self.follow(&shared, &arrived).await;
            self.connected.store(false, Ordering::Relaxed);
            match ended {
                Ended::Compacted => {
                    tracing::warn!("etcd forgot events before they were read here: everything is read anew");
                    match self.load(0).await {
                        Ok((entries, revision)) => {
                            shared.replace(entries, revision);
                            arrived.sender.send_replace(revision);
                        }
                        Err(error) => tracing::warn!(%error, "etcd cannot be read"),
                    }
                }
                Ended::Lost(reason) => tracing::warn!(reason, "the watch of etcd ended; it is begun again"),
            }
            failures = if arrived.get() > before { 0 } else { failures + 1 };
            tokio::time::sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
        }
    }

    async fn follow(&self, shared: &Shared<H>, arrived: &Position) -> Ended {
        let from = arrived.get().cast_signed() + 1;
        let options = WatchOptions::new().with_all_keys().with_start_revision(from);
        let mut watch = self.client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
        let mut stream = match watch.watch(vec![0], Some(options)).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Lost(error.to_string()),
        };
        loop {
            match stream.message().await {
                Ok(Some(answer)) if answer.compact_revision() > 0 => return Ended::Compacted,
                Ok(Some(answer)) if answer.canceled() => {
                    return Ended::Lost(answer.cancel_reason().to_owned());
                }
                Ok(Some(answer)) => {
                    self.connected.store(true, Ordering::Relaxed);
                    self.take(&answer, shared, arrived);
                }
                Ok(None) => return Ended::Lost("etcd closed it".to_owned()),
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
    }

    /// Publishes the events of one answer, which are whole transactions: fragments were not asked for.
    fn take(&self, answer: &WatchResponse, shared: &Shared<H>, arrived: &Position) {
        let mut entries = shared.current.read().entries.clone();
        let (mut events, mut revision) = (Vec::new(), arrived.get());
        for event in answer.events() {
            let Some(found) = event.kv() else { continue };
            let at = found.mod_revision().cast_unsigned();
            revision = revision.max(at);
            if !found.key().starts_with(self.root.as_bytes()) {
                continue;
            }
            let (entry, previous) = match event.event_type() {
                EventType::Put => {
                    let entry = Arc::new(to_entry(found.clone(), self.codec, self.intake));
                    let previous = entries.insert(Arc::clone(&entry.key), Arc::clone(&entry));
                    (Some(entry), previous)
                }
                EventType::Delete => (None, entries.remove(String::from_utf8_lossy(found.key()).as_ref())),
            };
            let Some(key) = entry.as_ref().or(previous.as_ref()).map(|entry| Arc::clone(&entry.key)) else {
                continue;
            };
            events.push(Arc::new(Event { revision: at, key, entry, previous }));
        }
        if revision > arrived.get() {
            shared.publish(entries, revision, events);
            arrived.sender.send_replace(revision);
        }
    }
}

/// The first key behind all that begin with `prefix`.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        // Nothing is behind: a lone zero stands for the end of all keys.
        None => end.push(0),
    }
    end
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Position, end_of};

    #[tokio::test]
    async fn what_is_far_behind_is_waited_for_while_it_comes_nearer() {
        let (position, silence) = (Position::new(0), Duration::from_secs(1));
        let follower = position.clone();
        let follows = async {
            for revision in 1..=8 {
                tokio::time::sleep(silence / 5).await;
                follower.sender.send_replace(revision);
            }
        };
        let (caught_up, ()) = tokio::join!(position.reach_unless(silence, 8), follows);
        assert!(caught_up);
        assert!(position.reach_unless(silence, 7).await, "it was there before");
        assert!(!position.reach_unless(silence, 9).await, "nothing more comes");
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(end_of(b"/registry/"), b"/registry0");
        assert_eq!(end_of(&[1, 255]), [2]);
        assert_eq!(end_of(&[255, 255]), [0]);
        assert_eq!(end_of(b""), [0]);
    }
}
