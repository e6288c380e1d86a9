//! Watch: a cursor over the store's log with a filter, written out as the client reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Compacted, Cursor, Event, Page};

use super::opening::Opening;
use super::read;
use super::reply::{self, Include};
use super::session::Session;
use super::told::{Line, Told};
use crate::api::Call;
use crate::body::{self, Reply};
use crate::negotiate::{Form, Media, Meta};
use crate::object::{self, Header, Objects, Stored};
use crate::protobuf::{self, Typed, WireError};
use crate::resources::Row;
use crate::selector::Selector;
use crate::status::{Refusal, Result};

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
    let part = Part::of(call, &selector);
    let revision = read::revision(call)?;
    let initial = call.query.given("sendInitialEvents").map(|_| call.query.flag("sendInitialEvents"));
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
    let writer = Writer { row, form, typed, include, selector, headed: AtomicBool::new(false) };
    let (from, mut opening) = match revision {
        Some(revision) if revision > 0 && initial != Some(true) => (revision, Opening::default()),
        _ if initial == Some(false) => (current, Opening::default()),
        _ => {
            let page = part.page(&call.api.objects)?;
            let bookmark = (initial == Some(true) && bookmarks).then_some(page.revision);
            (page.revision, Opening::state(page.entries, bookmark))
        }
    };
    let cursor = match part.cursor(&call.api.objects, from) {
        Ok(cursor) => Some(cursor),
        Err(_compacted) => {
            opening = Opening::expired(from, current);
            None
        }
    };
    let session = Session::new(call, writer, cursor, opening, from)?;
    Ok(body::reply(200, media, body::stream(session)))
}

/// The part of the store a watch is about: as little as its selector allows, because it is woken by every change there.
enum Part {
    /// A folder of keys, or one key.
    Keys(String),
    /// What of a folder is for one node.
    Node(String, String),
}

impl Part {
    fn of(call: &Call, selector: &Selector) -> Self {
        let (row, namespace) = (&call.row, &call.target.namespace);
        let folder = object::prefix(row, namespace);
        let is_all = row.namespaced && namespace.is_empty();
        match (selector.name(), selector.node(row)) {
            (Some(name), _) if !is_all => Self::Keys(object::key(row, namespace, name)),
            (_, Some(node)) if is_all || !row.namespaced => Self::Node(folder, node.to_owned()),
            _ => Self::Keys(folder),
        }
    }

    /// What is there, and maybe more than is selected.
    fn page(&self, objects: &Objects) -> Result<Page<Header>> {
        match self {
            Self::Keys(keys) => objects.range(keys, None, 0, None).map_err(Refusal::internal),
            Self::Node(folder, node) => Ok(objects.marked(folder, node)),
        }
    }

    fn cursor(&self, objects: &Objects, from: u64) -> std::result::Result<Cursor<Header>, Compacted> {
        match self {
            Self::Keys(keys) => objects.watch(keys, from),
            Self::Node(folder, node) => objects.watch_marked(folder, node, from),
        }
    }
}

/// Writes events in the client's form.
pub struct Writer {
    pub row: Arc<Row>,
    form: Form,
    /// What objects are in protobuf, when that is the encoding.
    typed: Option<Typed>,
    include: Include,
    selector: Selector,
    /// Whether a table has told its columns.
    headed: AtomicBool,
}

impl Writer {
    /// An event of the log, as this client's selector sees it: an object that leaves the selection is deleted, one
    /// that enters it is added. `None` when it is not this client's.
    pub fn change(&self, told: &Told, event: &Event<Header>) -> Option<Bytes> {
        let selected = |entry: &&Stored| self.selects(entry);
        let before = event.previous.as_ref().filter(selected);
        let after = event.entry.as_ref().filter(selected);
        let (kind, entry) = match (before, after) {
            (None, Some(entry)) => ("ADDED", entry),
            (Some(_), Some(entry)) => ("MODIFIED", entry),
            (Some(entry), None) => ("DELETED", entry),
            (None, None) => return None,
        };
        let write = || {
            let mut out = BytesMut::new();
            self.event(&mut out, kind, entry, event.revision);
            out.freeze()
        };
        // Other forms depend on more than this: what is included, and how old an object is.
        if self.form != Form::Object {
            return Some(write());
        }
        let (revision, row) = (event.revision, &self.row);
        let line = Line { entry, revision, kind, row, protobuf: self.typed.is_some() };
        Some(told.line(line, write))
    }

    /// Whether an object is this client's.
    pub fn selects(&self, entry: &Stored) -> bool {
        self.selector.matches(entry)
    }

    /// Writes what happened to an object, whether it is this client's or not.
    pub fn event(&self, out: &mut BytesMut, kind: &str, entry: &Stored, revision: u64) {
        if let Some(typed) = self.typed.as_ref().filter(|_| self.row.serves_as_stored(entry)) {
            return self.frame(out, kind, |out| typed.object(out, &entry.value.bytes(), Some(revision)));
        }
        let begin = out.len();
        if self.row.serves_as_stored(entry) {
            out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
            if self.splice(out, entry, revision) {
                out.extend_from_slice(b"}\n");
                return;
            }
            out.truncate(begin);
        }
        let stored = self.row.read_at(entry, revision);
        let object = match self.form {
            Form::Table(meta) => {
                let row = reply::row(&self.row, &stored, self.include, meta, Timestamp::now());
                self.table(row, revision, meta)
            }
            Form::Partial(meta) => reply::partial(&self.row.shown(&stored), meta),
            _ => self.row.shown(&stored).into_owned(),
        };
        self.tell(out, kind, &object);
    }

    /// Appends an object in the form the client accepts, if that can be had from what is stored without decoding it.
    fn splice(&self, out: &mut BytesMut, entry: &Stored, revision: u64) -> bool {
        match self.form {
            Form::Object => object::append(out, entry, revision),
            Form::Partial(meta) => return reply::append_partial(out, entry, revision, meta),
            _ => return false,
        }
        true
    }

    pub fn bookmark(&self, out: &mut BytesMut, revision: u64, initial: bool) {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Table(meta) => {
                let inner = json!({ "kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata });
                let carried =
                    if self.include == Include::Object { inner } else { reply::partial(&inner, meta) };
                // A row with no cells but with the object: clients read the annotation there.
                let row = json!({ "cells": vec![Value::Null; self.row.printer.len()], "object": carried });
                self.table(row, revision, meta)
            }
            Form::Partial(meta) => reply::partial(&json!({ "metadata": metadata }), meta),
            _ => json!({ "kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata }),
        };
        self.tell(out, "BOOKMARK", &object);
    }

    /// A table of one row. Only the first of a watch says which columns there are.
    fn table(&self, row: Value, revision: u64, meta: Meta) -> Value {
        let told = self.headed.swap(true, Ordering::Relaxed);
        let columns = if told { Value::Null } else { self.row.printer.definitions() };
        reply::table(columns, &json!({ "resourceVersion": revision.to_string() }), vec![row], meta)
    }

    pub fn expired(&self, out: &mut BytesMut, asked: u64, current: u64) {
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
