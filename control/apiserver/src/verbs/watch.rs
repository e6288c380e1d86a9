//! Watch: a cursor over the store's log with a filter, written out as the client reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use store::{Cursor, Event};

use super::body::rename_out;
use super::read;
use super::reply::{self, Include};
use crate::api::{Api, Call};
use crate::body::{self, Reply};
use crate::negotiate::{Form, Media};
use crate::object::{self, Header, Stored};
use crate::protobuf::{self, Typed, WireError};
use crate::resources::Row;
use crate::selector::Selector;
use crate::status::{Refusal, Result};

/// Most events that go into one chunk.
const BATCH: usize = 256;
/// How often a client that asked for bookmarks hears how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// The media types of events, as a refusal names them.
const ACCEPTED: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
/// The media type of events in protobuf.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// Starts a watch.
pub fn watch(call: &Call) -> Result<Reply> {
    if call.accept.media == Media::Yaml {
        return Err(Refusal::not_acceptable(ACCEPTED));
    }
    let mut selector = read::selector(call)?;
    if !call.target.name.is_empty() {
        selector = selector.named(&call.target.name);
    }
    let prefix = object::prefix(&call.row, &call.target.namespace);
    let revision = read::revision(call)?;
    let initial = initial_events(call)?;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let current = call.api.objects.revision();
    if let Some(asked) = revision.filter(|asked| *asked > current) {
        return Err(Refusal::future_revision(asked, current));
    }
    let typed = match call.accept.media {
        Media::Protobuf => Some(reply::typed(&call.row, call.accept.form)?),
        _ => None,
    };
    let media = if typed.is_some() { PROTOBUF } else { "application/json" };
    let (row, form, include) = (Arc::clone(&call.row), call.accept.form, Include::of(call)?);
    let writer = Writer { row, form, typed, include, selector };
    let mut first = BytesMut::new();
    let from = match revision {
        Some(revision) if revision > 0 && initial != Some(true) => revision,
        _ if initial == Some(false) => current,
        _ => {
            let page = call.api.objects.range(&prefix, None, 0, None).map_err(Refusal::internal)?;
            for entry in page.entries.iter().filter(|entry| writer.selector.matches(entry)) {
                writer.event(&mut first, "ADDED", entry, entry.mod_revision);
            }
            if initial == Some(true) && bookmarks {
                writer.bookmark(&mut first, page.revision, true);
            }
            page.revision
        }
    };
    let cursor = call.api.objects.watch(&prefix, from);
    let cursor = match cursor {
        Ok(cursor) => Some(cursor),
        Err(_compacted) => {
            writer.expired(&mut first, from, current);
            None
        }
    };
    let now = Instant::now();
    let session = Session {
        api: Arc::clone(&call.api),
        writer,
        cursor,
        first: (!first.is_empty()).then(|| first.freeze()),
        deadline: now + timeout(call)?,
        bookmark_at: bookmarks.then(|| now + BOOKMARK_EVERY),
        told: from,
        changes: call.row.custom.is_some().then(|| {
            let mut changes = call.api.definitions.changes();
            // The row may have changed since it was looked up.
            changes.mark_changed();
            changes
        }),
    };
    let events = futures::stream::unfold(session, |mut session| async move {
        session.next().await.map(|chunk| (Ok(chunk), session))
    });
    Ok(body::reply(200, media, body::stream(events)))
}

/// The parameter `sendInitialEvents`, with the rules that come with it.
fn initial_events(call: &Call) -> Result<Option<bool>> {
    let given = call.query.given("sendInitialEvents").map(|_| call.query.flag("sendInitialEvents"));
    let matching = call.query.given("resourceVersionMatch");
    match (given, matching) {
        (Some(_), Some("NotOlderThan")) | (None, None) => Ok(given),
        (Some(_), _) => Err(Refusal::new(
            422,
            "Invalid",
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (None, Some(_)) => Err(Refusal::new(
            422,
            "Invalid",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
    }
}

/// How long the watch lasts: as asked, else 30 to 60 minutes so that clients do not come back all at once.
fn timeout(call: &Call) -> Result<Duration> {
    let asked = read::timeout_seconds(call)?.filter(|seconds| *seconds > 0);
    Ok(Duration::from_secs(asked.unwrap_or_else(|| rand::rng().random_range(1800..3600))))
}

/// One watch that is going on.
struct Session {
    api: Arc<Api>,
    writer: Writer,
    /// `None` once the watch has ended.
    cursor: Option<Cursor<Header>>,
    first: Option<Bytes>,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    /// The revision up to which the client has everything.
    told: u64,
    /// Changes of definitions, for watches of custom resources.
    changes: Option<tokio::sync::watch::Receiver<()>>,
}

impl Session {
    /// The next chunk; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let wake = self.bookmark_at.map_or(self.deadline, |at| at.min(self.deadline));
            let cursor = self.cursor.as_mut()?;
            let batch = tokio::select! {
                // First, so that what happened under a new definition is told under it.
                biased;
                () = change(&mut self.changes) => {
                    if self.follow_definition() {
                        continue;
                    }
                    return self.last();
                }
                () = self.api.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(wake.into()) => return self.pause(),
                batch = cursor.next(BATCH) => batch,
            };
            let mut out = BytesMut::new();
            match batch {
                Ok(batch) => {
                    batch.events.iter().for_each(|event| self.writer.change(&mut out, event));
                    self.told = batch.revision;
                }
                Err(_compacted) => {
                    self.writer.expired(&mut out, self.told, self.api.objects.revision());
                    self.cursor = None;
                }
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
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
        while let Ok(batch) = cursor.read(BATCH) {
            batch.events.iter().for_each(|event| self.writer.change(&mut out, event));
            if batch.events.is_empty() {
                break;
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    /// A bookmark when one is due; the end when the time is up.
    ///
    /// `read` says up to which revision nothing of the prefix is left unread, so a bookmark never promises an event
    /// that was not delivered.
    fn pause(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        let over = now >= self.deadline;
        let cursor = self.cursor.as_mut()?;
        let mut out = BytesMut::new();
        if self.bookmark_at.is_some() {
            self.bookmark_at = Some(now + BOOKMARK_EVERY);
            if let Ok(batch) = cursor.read(BATCH) {
                batch.events.iter().for_each(|event| self.writer.change(&mut out, event));
                self.told = batch.revision;
                self.writer.bookmark(&mut out, batch.revision, false);
            }
        }
        if over {
            self.cursor = None;
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}

/// Waits for a change of definitions; for ever where none matters.
async fn change(changes: &mut Option<tokio::sync::watch::Receiver<()>>) {
    match changes {
        // The sender lives as long as the server, which ends watches before it.
        Some(changes) => _ = changes.changed().await,
        None => std::future::pending().await,
    }
}

/// Writes events in the client's form.
struct Writer {
    row: Arc<Row>,
    form: Form,
    /// What objects are in protobuf, when that is the encoding.
    typed: Option<Typed>,
    include: Include,
    selector: Selector,
}

impl Writer {
    /// An event of the log, as this client's selector sees it: an object that leaves the selection is deleted, one
    /// that enters it is added.
    fn change(&self, out: &mut BytesMut, event: &Event<Header>) {
        let selected = |entry: &&Stored| self.selector.matches(entry);
        let before = event.previous.as_ref().filter(selected);
        let after = event.entry.as_ref().filter(selected);
        match (before, after) {
            (None, Some(entry)) => self.event(out, "ADDED", entry, event.revision),
            (Some(_), Some(entry)) => self.event(out, "MODIFIED", entry, event.revision),
            (Some(entry), None) => self.event(out, "DELETED", entry, event.revision),
            (None, None) => {}
        }
    }

    fn event(&self, out: &mut BytesMut, kind: &str, entry: &Stored, revision: u64) {
        if let Some(typed) = self.typed.as_ref().filter(|_| self.row.serves_as_stored(entry)) {
            return self.frame(out, kind, |out| typed.object(out, &entry.value, Some(revision)));
        }
        if self.form == Form::Object && self.row.serves_as_stored(entry) {
            out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
            object::append(out, entry, revision);
            out.extend_from_slice(b"}\n");
            return;
        }
        let stored = self.row.read_at(entry, revision);
        let object = match self.form {
            Form::Table => {
                let row = reply::row(&self.row, &stored, self.include, Timestamp::now());
                reply::table(
                    &self.row.printer,
                    &json!({ "resourceVersion": revision.to_string() }),
                    vec![row],
                )
            }
            Form::Partial => reply::partial(&stored),
            _ => {
                let mut renamed = stored;
                rename_out(&self.row, &mut renamed);
                renamed
            }
        };
        self.tell(out, kind, &object);
    }

    fn bookmark(&self, out: &mut BytesMut, revision: u64, initial: bool) {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Table => {
                let inner = json!({ "kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata });
                let carried = if self.include == Include::Object { inner } else { reply::partial(&inner) };
                // A row with no cells but with the object: clients read the annotation there.
                let row = json!({ "cells": vec![Value::Null; self.row.printer.len()], "object": carried });
                reply::table(
                    &self.row.printer,
                    &json!({ "resourceVersion": revision.to_string() }),
                    vec![row],
                )
            }
            Form::Partial => reply::partial(&json!({ "metadata": metadata })),
            _ => json!({ "kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata }),
        };
        self.tell(out, "BOOKMARK", &object);
    }

    fn expired(&self, out: &mut BytesMut, asked: u64, current: u64) {
        let message = format!("too old resource version: {asked} ({current})");
        self.tell(out, "ERROR", &Refusal::expired(message).status());
    }

    /// Writes an event with an object that is a tree.
    fn tell(&self, out: &mut BytesMut, kind: &str, object: &Value) {
        if self.typed.is_none() {
            return line(out, kind, object);
        }
        self.frame(out, kind, |out| {
            let bytes = protobuf::tree(object).unwrap_or(Err(WireError::Value("kind")))?;
            out.extend_from_slice(&bytes);
            Ok(())
        });
    }

    /// Writes an event in protobuf; an object that cannot be written is told as an error, so that nobody misses it.
    fn frame(
        &self,
        out: &mut BytesMut,
        kind: &str,
        object: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
    ) {
        match protobuf::frame(kind, object) {
            Ok(frame) => out.extend_from_slice(&frame),
            Err(error) => {
                tracing::error!(kind = &*self.row.kind, %error, "an object in the store cannot be told in protobuf");
                self.tell(out, "ERROR", &Refusal::internal(error).status());
            }
        }
    }
}

fn line(out: &mut BytesMut, kind: &str, object: &Value) {
    let text = serde_json::to_vec(&json!({ "type": kind, "object": object })).expect("a tree always encodes");
    out.extend_from_slice(&text);
    out.extend_from_slice(b"\n");
}
