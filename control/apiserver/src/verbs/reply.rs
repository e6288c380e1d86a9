//! Answers with objects, in the form the client accepts.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::Revision;

use super::gzipped::Gzipped;
use super::joined::Joined;
use super::packed::Packed;
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
pub async fn list(call: &Call, meta: &ListMeta, entries: Vec<Stored>) -> Result<Reply> {
    let row = &call.row;
    if call.accept.form == Form::Object && call.accept.media == Media::Json && row.conversion.is_none() {
        let chunks = Spliced::new(row, meta, entries);
        return Ok(compressed(call, "application/json", chunks.size(), chunks));
    }
    if call.accept.media == Media::Protobuf {
        let chunks = Packed::new(row, call.accept.form, meta, entries).await?;
        return Ok(compressed(call, protobuf::MEDIA, chunks.size(), chunks));
    }
    let empty = empty(call, &meta.of(row), &meta.json())?;
    if call.accept.media == Media::Yaml {
        let items = entries.iter().map(|entry| row.read(entry)).map(shape(call)?);
        return document(call, 200, &filled(empty, items.collect()));
    }
    let mut chunks = Joined::new(&empty, entries, written(call)?);
    let begun = chunks.first(COMPRESS_FROM);
    let size = begun.iter().map(Bytes::len).sum();
    Ok(compressed(call, "application/json", size, begun.into_iter().chain(chunks)))
}

/// Answers with a list of what is not stored, and has no revision.
pub fn computed(call: &Call, items: Vec<Value>) -> Result<Reply> {
    let none = json!({});
    let items = items.into_iter().map(shape(call)?);
    document(call, 200, &filled(empty(call, &none, &none)?, items.collect()))
}

/// A list without items, whose field is the last: `meta` is that of a list of whole objects, `reduced` of others.
fn empty(call: &Call, meta: &Value, reduced: &Value) -> Result<Value> {
    let row = &call.row;
    Ok(match call.accept.form {
        Form::Object => {
            json!({ "kind": row.list_kind, "apiVersion": row.api_version(), "metadata": meta, "items": [] })
        }
        Form::Table(version) => table(row.printer.definitions(), reduced, Vec::new(), version),
        Form::Partial(version) => {
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": version.api_version(),
                    "metadata": reduced, "items": [] })
        }
        Form::Discovery => return Err(Refusal::not_acceptable(negotiate::ACCEPTED)),
    })
}

fn filled(mut empty: Value, items: Vec<Value>) -> Value {
    let field = empty.as_object_mut().and_then(|fields| fields.values_mut().last());
    *field.expect("a list has items") = items.into();
    empty
}

/// The same of what is stored, written. Metadata is not decoded where it can be had as it is.
fn written(call: &Call) -> Result<impl Fn(&mut Vec<u8>, &Stored) + Send + use<>> {
    let (row, form, now, shape) = (Arc::clone(&call.row), call.accept.form, Timestamp::now(), shape(call)?);
    let is_reduced = !matches!(form, Form::Table(_)) || Include::of(call)? == Include::Metadata;
    Ok(move |out: &mut Vec<u8>, entry: &Stored| {
        let begin = out.len();
        if is_reduced && row.serves_as_stored(entry) {
            let is_done = match form {
                Form::Table(version) => {
                    out.extend_from_slice(b"{\"cells\":");
                    let cells = row.printer.cells(&row.read(entry), now);
                    serde_json::to_writer(&mut *out, &cells).expect("a tree always encodes");
                    out.extend_from_slice(b",\"object\":");
                    let is_done = append_partial(out, entry, entry.mod_revision, version);
                    out.push(b'}');
                    is_done
                }
                Form::Partial(version) => append_partial(out, entry, entry.mod_revision, version),
                Form::Object | Form::Discovery => false,
            };
            if is_done {
                return;
            }
            out.truncate(begin);
        }
        serde_json::to_writer(out, &shape(row.read(entry))).expect("a tree always encodes");
    })
}

/// [`partial`] of what is stored and served as it is, at `revision`; whether it has metadata.
pub fn append_partial(out: &mut impl BufMut, entry: &Stored, revision: Revision, meta: Meta) -> bool {
    let version = meta.api_version();
    let head = format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",\"metadata\":");
    out.put_slice(head.as_bytes());
    let is_there = object::append_metadata(out, entry, revision);
    out.put_slice(b"}");
    is_there
}

/// What a list shows of an object, which is in the version it is stored in.
fn shape(call: &Call) -> Result<impl Fn(Value) -> Value + Send + use<>> {
    let (row_of, form, now) = (Arc::clone(&call.row), call.accept.form, Timestamp::now());
    let include = if matches!(form, Form::Table(_)) { Include::of(call)? } else { Include::None };
    Ok(move |value: Value| match form {
        Form::Table(version) => row(&row_of, &value, include, version, now),
        Form::Partial(version) => partial(&row_of.shown(&value), version),
        _ => untyped(&row_of, row_of.shown(&value).into_owned()),
    })
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
