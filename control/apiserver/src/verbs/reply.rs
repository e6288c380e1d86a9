//! Answers with objects, in the form the client accepts.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::Revision;

use super::gzipped::Gzipped;
use super::spliced::Spliced;
use super::write::Fresh;
use crate::api::Call;
use crate::body::{self, Reply};
use crate::negotiate::{self, Form, Media, Meta};
use crate::object::{self, Stored};
use crate::protobuf::{self, Typed};
use crate::resources::Row;
use crate::status::{Refusal, Result};
use crate::tree::{at, remove, text};

/// Answers with an object that is stored; its bytes are not decoded unless its form demands it.
pub fn stored(call: &Call, entry: &Stored) -> Result<Reply> {
    if call.row.serves_as_stored(entry)
        && let Some(reply) = from_bytes(call, 200, &entry.value.bytes(), entry.mod_revision)?
    {
        return Ok(reply);
    }
    tree(call, 200, call.row.read(entry))
}

/// Answers with an object that was just written; like [`stored`], it is not encoded again unless that is needed.
pub fn fresh(call: &Call, code: u16, fresh: Fresh) -> Result<Reply> {
    if call.row.shows_what_it_stores()
        && let Some((value, revision)) = fresh.stored()
        && let Some(reply) = from_bytes(call, code, value, revision)?
    {
        return Ok(reply);
    }
    tree(call, code, fresh.into_object())
}

/// The answer with the bytes of an object, where the form the client accepts can be made of them without a tree.
fn from_bytes(call: &Call, code: u16, value: &[u8], revision: Revision) -> Result<Option<Reply>> {
    Ok(match (call.accept.media, call.accept.form) {
        (Media::Json, Form::Object) => {
            let text = object::line(value, revision);
            Some(body::reply(code, "application/json", body::full(text)))
        }
        (Media::Protobuf, form) => {
            let mut out = Vec::with_capacity(value.len());
            typed(&call.row, form)?.object(&mut out, value, Some(revision)).map_err(Refusal::internal)?;
            Some(body::reply(code, protobuf::MEDIA, body::full(out)))
        }
        _ => None,
    })
}

/// Answers with a tree that is an object of the call's row, in the version it is stored in.
pub fn tree(call: &Call, code: u16, value: Value) -> Result<Reply> {
    match call.accept.form {
        Form::Object => document(call, code, &call.row.shown(&value)),
        Form::Table(meta) => {
            let revision = text(&value, &["metadata", "resourceVersion"]).to_owned();
            let include = Include::of(call)?;
            let rows = vec![row(&call.row, &value, include, meta, Timestamp::now())];
            document(
                call,
                code,
                &table(call.row.printer.definitions(), &json!({ "resourceVersion": revision }), rows, meta),
            )
        }
        Form::Partial(meta) => document(call, code, &partial(&call.row.shown(&value), meta)),
        Form::Discovery => Err(Refusal::not_acceptable(negotiate::ACCEPTED)),
    }
}

/// Answers with a tree as it is.
pub fn document(call: &Call, code: u16, value: &Value) -> Result<Reply> {
    negotiate::document(call.accept.media, code, value)
}

/// What an object of a row is in protobuf.
pub fn typed(row: &Row, form: Form) -> Result<Typed> {
    let found = match form {
        Form::Partial(meta) => Typed::of(meta.api_version(), "PartialObjectMetadata"),
        _ => Typed::of(&row.api_version(), &row.kind),
    };
    found.ok_or_else(|| Refusal::internal(format!("{} has no form in protobuf", row.qualified())))
}

/// Only kind and metadata.
pub fn partial(value: &Value, meta: Meta) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": at(value, &["metadata"]) })
}

/// How much of each object a table carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads the parameter `includeObject`.
    pub fn of(call: &Call) -> Result<Self> {
        match call.query.given("includeObject").unwrap_or("Metadata") {
            "None" => Ok(Self::None),
            "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(Refusal::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', \
                 'None', or empty"
            ))),
        }
    }
}

/// One row of a table. Printers read the stored version; what is carried is in the one that was asked for.
pub fn row(resource: &Row, value: &Value, include: Include, meta: Meta, now: Timestamp) -> Value {
    let cells = resource.printer.cells(value, now);
    match include {
        Include::None => json!({ "cells": cells, "object": null }),
        Include::Metadata => json!({ "cells": cells, "object": partial(&resource.shown(value), meta) }),
        Include::Object => json!({ "cells": cells, "object": resource.shown(value) }),
    }
}

/// A table of rows.
pub fn table(columns: Value, metadata: &Value, rows: Vec<Value>, meta: Meta) -> Value {
    json!({ "kind": "Table", "apiVersion": meta.api_version(), "metadata": metadata,
            "columnDefinitions": columns, "rows": rows })
}

/// What is known about a list besides its items.
#[derive(Debug, Default)]
pub struct ListMeta {
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl ListMeta {
    pub fn json(&self) -> Value {
        let mut meta = json!({ "resourceVersion": self.revision.to_string() });
        if !self.continue_token.is_empty() {
            meta["continue"] = json!(self.continue_token);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }

    /// The same of a list of whole objects of this row. Those of custom objects are no types of Go, and say that there is no more.
    pub fn of(&self, row: &Row) -> Value {
        let mut meta = self.json();
        if row.custom.is_some() {
            meta["continue"] = json!(self.continue_token);
        }
        meta
    }
}

/// Bytes of a list are handed on in chunks of about this size.
pub const CHUNK: usize = 64 << 10;

/// Answers with a list.
pub fn list(call: &Call, meta: &ListMeta, entries: Vec<Stored>) -> Result<Reply> {
    let row_of = &*call.row;
    let kind = &*row_of.list_kind;
    if call.accept.form == Form::Object && call.accept.media == Media::Json && row_of.conversion.is_none() {
        let chunks = Spliced::new(&call.row, meta, entries);
        return Ok(compressed(call, "application/json", chunks.size(), chunks));
    }
    if call.accept.media == Media::Protobuf {
        let chunks = packed(row_of, call.accept.form, meta, &entries)?;
        let size = chunks.iter().map(Bytes::len).sum();
        return Ok(compressed(call, protobuf::MEDIA, size, chunks.into_iter()));
    }
    let decode = |entry: &Stored| row_of.shown(&row_of.read(entry)).into_owned();
    let value = match call.accept.form {
        Form::Object => {
            let items: Vec<Value> = entries.iter().map(|entry| untyped(row_of, decode(entry))).collect();
            json!({ "kind": kind, "apiVersion": row_of.api_version(), "metadata": meta.of(row_of), "items": items })
        }
        Form::Table(version) => {
            let (include, now) = (Include::of(call)?, Timestamp::now());
            let rows = entries.iter().map(|entry| row(row_of, &row_of.read(entry), include, version, now));
            table(row_of.printer.definitions(), &meta.json(), rows.collect(), version)
        }
        Form::Partial(version) => {
            let items: Vec<Value> = entries.iter().map(|entry| partial(&decode(entry), version)).collect();
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": version.api_version(),
                    "metadata": meta.json(), "items": items })
        }
        Form::Discovery => return Err(Refusal::not_acceptable(negotiate::ACCEPTED)),
    };
    if call.accept.media == Media::Yaml {
        return document(call, 200, &value);
    }
    let mut text = serde_json::to_vec(&value).expect("a tree always encodes");
    text.push(b'\n');
    Ok(compressed(call, "application/json", text.len(), std::iter::once(Bytes::from(text))))
}

/// Answers with a list of what is not stored, and has no revision.
pub fn computed(call: &Call, items: Vec<Value>) -> Result<Reply> {
    let row_of = &*call.row;
    let value = match call.accept.form {
        Form::Object => {
            let items: Vec<Value> = items.into_iter().map(|item| untyped(row_of, item)).collect();
            json!({ "kind": row_of.list_kind, "apiVersion": row_of.api_version(), "metadata": {}, "items": items })
        }
        Form::Table(version) => {
            let (include, now) = (Include::of(call)?, Timestamp::now());
            let rows = items.iter().map(|item| row(row_of, item, include, version, now));
            table(row_of.printer.definitions(), &json!({}), rows.collect(), version)
        }
        Form::Partial(version) => {
            let items: Vec<Value> = items.iter().map(|item| partial(item, version)).collect();
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": version.api_version(), "metadata": {}, "items": items })
        }
        Form::Discovery => return Err(Refusal::not_acceptable(negotiate::ACCEPTED)),
    };
    document(call, 200, &value)
}

/// An object as an item of a list. Upstream's types name their kind only where they are not part of another object; custom
/// resources are no types of Go.
pub fn untyped(row: &Row, mut value: Value) -> Value {
    if row.custom.is_none() {
        remove(&mut value, &["kind"]);
        remove(&mut value, &["apiVersion"]);
    }
    value
}

/// A list in protobuf. Its length stands before the items, so that they are all written first.
fn packed(row: &Row, form: Form, meta: &ListMeta, entries: &[Stored]) -> Result<Vec<Bytes>> {
    let item = typed(row, form)?;
    let list = match form {
        Form::Partial(meta) => Typed::of(meta.api_version(), "PartialObjectMetadataList"),
        _ => Typed::of(&row.api_version(), &row.list_kind),
    };
    let list = list.ok_or_else(|| Refusal::internal(format!("{} has no form in protobuf", row.list_kind)))?;
    let mut out = Vec::new();
    let (mut chunks, mut length) = (Vec::new(), 0);
    for entry in entries {
        let written = if row.serves_as_stored(entry) {
            item.item(&mut out, &entry.value.bytes(), Some(entry.mod_revision))
        } else {
            let value = row.read(entry);
            item.item(&mut out, row.shown(&value).to_string().as_bytes(), None)
        };
        written.map_err(Refusal::internal)?;
        if out.len() >= CHUNK {
            length += out.len();
            chunks.push(Bytes::from(std::mem::replace(&mut out, Vec::with_capacity(CHUNK + CHUNK / 8))));
        }
    }
    length += out.len();
    out.extend_from_slice(protobuf::list_tail());
    chunks.push(Bytes::from(out));
    let head = protobuf::list_head(&list, &meta.json(), length).map_err(Refusal::internal)?;
    chunks.insert(0, Bytes::from(head));
    Ok(chunks)
}

/// Answers above this size are compressed when the client can read that.
const COMPRESS_FROM: usize = 128 << 10;

fn compressed(
    call: &Call,
    media: &'static str,
    size: usize,
    chunks: impl Iterator<Item = Bytes> + Send + 'static,
) -> Reply {
    let wants = call
        .headers
        .get(http::header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|one| one.trim().starts_with("gzip")));
    if !wants || size < COMPRESS_FROM {
        return body::reply(200, media, body::chunks(chunks));
    }
    let mut reply = body::reply(200, media, body::chunks(Gzipped::new(chunks)));
    reply.headers_mut().insert(http::header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    reply.headers_mut().insert(http::header::VARY, http::HeaderValue::from_static("Accept-Encoding"));
    reply
}
