//! One watch that is going on: what its client is told, and when.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::BoxStream;
use rand::Rng;
use store::{Batch, Cursor};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::opening::Opening;
use super::read;
use super::watch::Writer;
use crate::api::{Api, Call};
use crate::body::BodyError;
use crate::object::Header;
use crate::status::Result;

/// Most events that go into one chunk.
const BATCH: usize = 256;
/// How often a client that asked for bookmarks hears how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A watch as a stream of chunks. There may be thousands, all woken by one write: what rarely changes (the server's end,
/// the time) is asked without a lock, and waited for only when somebody else waits.
pub struct Session {
    api: Arc<Api>,
    writer: Writer,
    /// `None` once the watch has ended.
    cursor: Option<Cursor<Header>>,
    opening: Opening,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    /// The revision up to which the client has everything.
    told: u64,
    /// Changes of definitions, for watches of custom resources.
    changes: Option<BoxStream<'static, ()>>,
    /// The end of the server, and the next moment at which something is due.
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    alarm: Pin<Box<tokio::time::Sleep>>,
    /// Whom these two wake.
    waits: Option<Waker>,
}

impl Stream for Session {
    type Item = std::result::Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().chunk(context).map(|chunk| chunk.map(Ok))
    }
}

impl Session {
    /// A watch that goes on with `cursor` behind its opening, where the client has everything up to `told`.
    pub fn new(
        call: &Call,
        writer: Writer,
        cursor: Option<Cursor<Header>>,
        opening: Opening,
        told: u64,
    ) -> Result<Self> {
        let now = Instant::now();
        let deadline = now + timeout(call)?;
        Ok(Self {
            changes: call.row.custom.is_some().then(|| changes(&call.api)),
            stopping: Box::pin(call.api.stopping.cancelled_owned()),
            alarm: Box::pin(tokio::time::sleep_until(deadline.into())),
            api: Arc::clone(&call.api),
            writer,
            cursor,
            opening,
            deadline,
            bookmark_at: call.query.flag("allowWatchBookmarks").then(|| now + BOOKMARK_EVERY),
            told,
            waits: None,
        })
    }

    /// The next chunk; `None` ends the stream.
    fn chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(chunk) = self.opening.chunk(&self.writer) {
            return Poll::Ready(Some(chunk));
        }
        if self.waits.is_none() {
            self.wait(context);
        }
        loop {
            // First, so that what happened under a new definition is told under it.
            if self.is_redefined(context) {
                if self.follow_definition() {
                    continue;
                }
                return Poll::Ready(self.last());
            }
            // Not asked of the clock, which takes as long as reading an event does.
            if self.alarm.is_elapsed() {
                return Poll::Ready(self.pause());
            }
            let Some(cursor) = self.cursor.as_mut() else { return Poll::Ready(None) };
            let Poll::Ready(batch) = cursor.poll_next(context, BATCH) else {
                // Now that the client has heard of what happened before.
                if self.api.stopping.is_cancelled() {
                    return Poll::Ready(None);
                }
                self.wait(context);
                return Poll::Pending;
            };
            let out = match batch {
                Ok(batch) => {
                    self.told = batch.revision;
                    self.changes_of(&batch)
                }
                Err(_compacted) => {
                    let mut out = BytesMut::new();
                    self.expire(&mut out);
                    out.freeze()
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(out));
            }
        }
    }

    /// What the client is told of a batch. One event alone is not even copied.
    fn changes_of(&self, batch: &Batch<Header>) -> Bytes {
        let lines = batch.events.iter().filter_map(|event| self.writer.change(&self.api.told, event));
        let mut lines = lines.peekable();
        let first = lines.next().unwrap_or_default();
        if lines.peek().is_none() {
            return first;
        }
        let mut out = BytesMut::with_capacity(first.len() * batch.events.len());
        out.extend_from_slice(&first);
        lines.for_each(|line| out.extend_from_slice(&line));
        out.freeze()
    }

    /// Tells the client that its history is gone, and ends the watch.
    fn expire(&mut self, out: &mut BytesMut) {
        self.writer.expired(out, self.told, self.api.objects.revision());
        self.cursor = None;
    }

    /// When to look at the time again.
    fn due(&self) -> Instant {
        self.bookmark_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// Has the task woken by the end of the server and when something is due.
    fn wait(&mut self, context: &mut Context<'_>) {
        let due = tokio::time::Instant::from_std(self.due());
        let known = self.waits.as_ref().is_some_and(|known| known.will_wake(context.waker()));
        if known && self.alarm.deadline() == due {
            return;
        }
        self.alarm.as_mut().reset(due);
        self.waits = Some(context.waker().clone());
        let over = self.alarm.as_mut().poll(context).is_ready();
        if over || self.stopping.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    fn is_redefined(&mut self, context: &mut Context<'_>) -> bool {
        let Some(changes) = &mut self.changes else { return false };
        matches!(changes.as_mut().poll_next(context), Poll::Ready(Some(())))
    }

    /// Takes over the row as it is defined now; false when the kind is no longer served.
    fn follow_definition(&mut self) -> bool {
        let old = &self.writer.row;
        let table = self.api.table.load();
        let Some(row) = table.find(&old.group, &old.version, &old.plural) else { return false };
        let same =
            row.custom.as_ref().map(|custom| custom.uid()) == old.custom.as_ref().map(|custom| custom.uid());
        if same {
            self.writer.row = Arc::clone(row);
        }
        same
    }

    /// What happened until the kind went, and the end.
    fn last(&mut self) -> Option<Bytes> {
        let mut cursor = self.cursor.take()?;
        let mut out = BytesMut::new();
        loop {
            match cursor.read(BATCH) {
                Ok(batch) if batch.events.is_empty() => break,
                Ok(batch) => out.extend_from_slice(&self.changes_of(&batch)),
                Err(_compacted) => {
                    self.expire(&mut out);
                    break;
                }
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    /// A bookmark when one is due; the end when the time is up.
    ///
    /// `read` says up to which revision nothing of the prefix is left unread, so a bookmark never promises an event
    /// that was not delivered.
    fn pause(&mut self) -> Option<Bytes> {
        // The alarm is set anew.
        self.waits = None;
        let now = Instant::now();
        let over = now >= self.deadline;
        let cursor = self.cursor.as_mut()?;
        let mut out = BytesMut::new();
        if self.bookmark_at.is_some() {
            self.bookmark_at = Some(now + BOOKMARK_EVERY);
            match cursor.read(BATCH) {
                Ok(batch) => {
                    out.extend_from_slice(&self.changes_of(&batch));
                    self.told = batch.revision;
                    self.writer.bookmark(&mut out, batch.revision, false);
                }
                Err(_compacted) => self.expire(&mut out),
            }
        }
        if over {
            self.cursor = None;
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}

/// The definitions' changes, the first at once: the row may have changed since it was looked up.
fn changes(api: &Api) -> BoxStream<'static, ()> {
    let mut changes = api.definitions.changes();
    changes.mark_changed();
    Box::pin(futures::stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok().map(|()| ((), changes))
    }))
}

/// How long the watch lasts: as asked, else 30 to 60 minutes so that clients do not come back all at once.
fn timeout(call: &Call) -> Result<Duration> {
    let asked = read::timeout_seconds(call)?.filter(|seconds| *seconds > 0);
    Ok(Duration::from_secs(asked.unwrap_or_else(|| rand::rng().random_range(1800..3600))))
}
