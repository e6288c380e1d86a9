//! OpenAPI documents, made when they are asked for, written out piece by piece as the client reads, and kept by nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::descriptions::{self, Descriptions};
use super::discovery::hex;
use super::indexes::{self, Index};
use super::{custom, packed, paths};
use crate::body::{self, Reply};
use crate::name::Name;
use crate::resources::{Row, Table, builtin};
use crate::schema::{ListType, Node, Schema, Shape, Type, TypeId, schema};
use crate::status::{Refusal, Result};

/// The version of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    V2,
    V3,
}

impl Form {
    /// Where schemas lie in a document.
    pub fn base(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    /// A place that holds an object of a named type. A reference may stand beside other keys only below `allOf`.
    pub fn reference(self, name: &str) -> Value {
        let reference = self.bare_reference(name);
        if self == Self::V3 { json!({ "allOf": [reference] }) } else { reference }
    }

    /// The same where nothing stands beside it.
    pub fn bare_reference(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.base()) })
    }
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: every document with the hash of its content.
pub fn index(table: &Table) -> Reply {
    let mut paths = Map::new();
    for (group, version) in table.group_versions() {
        let path = path_of(group, version);
        paths.insert(path.clone(), listed(&path, &hash(table, group, version)));
    }
    for index in indexes::alone(table) {
        paths.insert(index.document().to_owned(), listed(index.document(), &hash_of_index(&index)));
    }
    paths.sort_keys();
    body::json(200, &json!({ "paths": paths }))
}

fn listed(path: &str, hash: &str) -> Value {
    json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") })
}

/// The same of a document that holds nothing but an index.
fn hash_of_index(index: &Index) -> String {
    let digest = Sha256::new().chain_update(members(&index.item(Form::V3)));
    hex(&digest.chain_update(descriptions::digest()).finalize()).to_uppercase()
}

/// Stands for the content of a document: what this build says, and the digest of every definition in it.
fn hash(table: &Table, group: &str, version: &str) -> String {
    let rows = table.of(group, version);
    let mut digest = Sha256::new();
    digest.update(fixed(&rows));
    for custom in rows.iter().filter_map(|row| row.custom.as_ref()) {
        digest.update(&custom.digest);
    }
    hex(&digest.finalize()).to_uppercase()
}

/// The hash of what this build says in a document, which never changes.
fn fixed(rows: &[&Arc<Row>]) -> String {
    static KNOWN: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);
    let own: Vec<&Row> = rows.iter().map(|row| &***row).filter(|row| row.custom.is_none()).collect();
    let key = own.first().map_or_else(String::new, |row| row.api_version());
    let digest = || {
        let index = indexes::resources(&own).map(|index| index.item(Form::V3));
        let paths = own.iter().map(|row| paths::paths(row, Form::V3)).chain(index);
        let said = paths.chain(definitions(reached(&own), Form::V3, Descriptions::default()));
        let digest = said.fold(Sha256::new(), |digest, piece| digest.chain_update(members(&piece)));
        hex(&digest.chain_update(descriptions::digest()).finalize())
    };
    KNOWN.lock().entry(key).or_insert_with(digest).clone()
}

/// `/openapi/v3/...`: one document.
pub fn group_version(table: &Table, path: &str, headers: &HeaderMap) -> Result<Reply> {
    if !reads(headers, JSON) {
        return Err(Refusal::not_acceptable("application/json"));
    }
    let found = table.group_versions().into_iter().find(|(group, version)| path_of(group, version) == path);
    let mut reply = match found {
        Some((group, version)) => {
            let rows: Vec<Arc<Row>> = table.of(group, version).into_iter().cloned().collect();
            let own: Vec<&Row> = rows.iter().map(|row| &**row).collect();
            let (types, indexes) = (reached(&own), Vec::from_iter(indexes::resources(&own)));
            let hash = hash(table, group, version);
            tagged(&hash, headers, JSON[0], || document(rows, indexes, types, Form::V3))
        }
        None => {
            let index = indexes::alone(table).into_iter().find(|index| index.document() == path);
            let index = index.ok_or_else(Refusal::no_path)?;
            let types = told(std::slice::from_ref(&index));
            let hash = hash_of_index(&index);
            tagged(&hash, headers, JSON[0], || document(Vec::new(), vec![index], types, Form::V3))
        }
    };
    reply.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    Ok(reply)
}

/// A document with the tag of its content; without it where the client has it.
fn tagged(hash: &str, headers: &HeaderMap, media: &'static str, body: impl FnOnce() -> body::Body) -> Reply {
    let tag = format!("\"{hash}\"");
    let known =
        headers.get(http::header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut reply =
        if known { body::reply(304, media, body::full("")) } else { body::reply(200, media, body()) };
    reply.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = tag.parse() {
        reply.headers_mut().insert(http::header::ETAG, tag);
    }
    reply
}

/// What clients call the encodings of documents.
const JSON: &[&str] = &["application/json", "*/*", "application/*", ""];
const PACKED: &[&str] = &[packed::ASKED, packed::MEDIA];

/// Whether a client takes one of these media types.
fn reads(headers: &HeaderMap, media: &[&str]) -> bool {
    let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    accept.split(',').any(|one| media.contains(&one.split(';').next().unwrap_or_default().trim()))
}

/// `/openapi/v2`: all groups in one document.
pub fn v2(table: &Table, headers: &HeaderMap) -> Result<Reply> {
    let mut digest = Sha256::new();
    for (group, version) in table.group_versions() {
        digest.update(hash(table, group, version));
    }
    let types = shown(table);
    let rows = table.rows().to_vec();
    let indexes = indexes::all(table);
    if reads(headers, PACKED) {
        digest.update(packed::MEDIA);
        let hash = hex(&digest.finalize());
        return Ok(tagged(&hash, headers, packed::MEDIA, || packed_document(rows, indexes, types)));
    }
    if !reads(headers, JSON) {
        return Err(Refusal::not_acceptable(&format!("application/json, {}", packed::ASKED)));
    }
    Ok(tagged(&hex(&digest.finalize()), headers, JSON[0], || document(rows, indexes, types, Form::V2)))
}

/// The same as a document of version 2, in protobuf.
fn packed_document(rows: Vec<Arc<Row>>, indexes: Vec<Index>, types: BTreeSet<TypeId>) -> body::Body {
    let form = Form::V2;
    let piece = |name: &str, content: Map<String, Value>| {
        Bytes::from(packed::piece(&Map::from_iter([(name.to_owned(), Value::Object(content))])))
    };
    let defined = move |content| piece("definitions", content);
    let info = json!({ "swagger": "2.0", "info": { "title": TITLE, "version": VERSION } });
    let head = Bytes::from(packed::piece(info.as_object().expect("it was made an object")));
    let fixed = definitions(types, form, Descriptions::read()).map(defined);
    let customs: Vec<Arc<Row>> = rows.iter().filter(|row| row.custom.is_some()).cloned().collect();
    let paths = rows.into_iter().map(move |row| paths::paths(&row, form));
    let paths = paths.chain(indexes.into_iter().map(move |index| index.item(form)));
    let paths = paths.map(move |paths| piece("paths", paths));
    let customs = customs.into_iter().filter_map(move |row| {
        let own = custom::definitions(&row, row.custom.as_ref()?, form);
        Some(defined(own.into_iter().collect()))
    });
    let pieces = std::iter::once(head).chain(paths).chain(fixed).chain(customs);
    body::stream(futures::stream::iter(pieces.map(Ok)))
}

const TITLE: &str = "Hawser";
const VERSION: &str = "v1.36.0";

/// A document of these rows and types. Only one of them is in memory at a time.
fn document(rows: Vec<Arc<Row>>, indexes: Vec<Index>, types: BTreeSet<TypeId>, form: Form) -> body::Body {
    let (head, middle, tail) = match form {
        Form::V2 => (r#""swagger":"2.0""#, r#"},"definitions":{"#, "}}"),
        Form::V3 => (r#""openapi":"3.0.0""#, r#"},"components":{"schemas":{"#, "}}}"),
    };
    let head = format!(r#"{{{head},"info":{{"title":"{TITLE}","version":"{VERSION}"}},"paths":{{"#);
    let customs: Vec<Arc<Row>> = rows.iter().filter(|row| row.custom.is_some()).cloned().collect();
    let paths = rows.into_iter().map(move |row| paths::paths(&row, form));
    let paths = separated(paths.chain(indexes.into_iter().map(move |index| index.item(form))));
    let customs = customs.into_iter().filter_map(move |row| {
        Some(custom::definitions(&row, row.custom.as_ref()?, form).into_iter().collect())
    });
    let defined = separated(definitions(types, form, Descriptions::read()).chain(customs));
    let pieces =
        std::iter::once(head).chain(paths).chain([middle.to_owned()]).chain(defined).chain([tail.to_owned()]);
    body::stream(futures::stream::iter(pieces.map(|piece| Ok(Bytes::from(piece)))))
}

/// The members of objects as those of one, as text.
fn separated(objects: impl Iterator<Item = Map<String, Value>>) -> impl Iterator<Item = String> {
    objects.enumerate().map(|(position, object)| {
        let comma = if position > 0 { "," } else { "" };
        format!("{comma}{}", members(&object))
    })
}

/// The members of an object as text, without its braces.
fn members(object: &Map<String, Value>) -> String {
    let text = serde_json::to_string(object).expect("a tree always encodes");
    text[1..text.len() - 1].to_owned()
}

/// The types of this build but those that only kinds reach that are not served.
fn shown(table: &Table) -> BTreeSet<TypeId> {
    let served: Vec<&Row> = table.rows().iter().map(|row| &**row).collect();
    let build = builtin();
    let is_served = |row: &Row| table.find(&row.group, &row.version, &row.plural).is_some();
    let hidden: Vec<&Row> = build.rows().iter().map(|row| &**row).filter(|row| !is_served(row)).collect();
    let hidden = &reached(&hidden) - &reached(&served);
    (0..schema().types.len()).filter(|id| !hidden.contains(id)).collect()
}

/// The types of this build that rows reach.
fn reached(rows: &[&Row]) -> BTreeSet<TypeId> {
    let mut reached = BTreeSet::new();
    for row in rows.iter().filter(|row| row.custom.is_none()) {
        for kind in [&row.kind, &row.list_kind] {
            if let Some(id) = schema().kind(&row.group, &row.version, kind) {
                reach(id, &mut reached);
            }
        }
    }
    for (group, version, kind) in
        rows.iter().flat_map(|row| row.subresources.iter().filter_map(|sub| sub.kind()))
    {
        if let Some(id) = schema().kind(group, version, kind) {
            reach(id, &mut reached);
        }
    }
    for name in ["DeleteOptions", "ListMeta", "ObjectMeta", "Status", "WatchEvent"] {
        if let Some(id) = schema().named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")) {
            reach(id, &mut reached);
        }
    }
    reached.append(&mut told(indexes::resources(rows).as_slice()));
    reached
}

/// The types that indexes answer with.
fn told(indexes: &[Index]) -> BTreeSet<TypeId> {
    let mut reached = BTreeSet::new();
    for id in indexes.iter().filter_map(Index::answers).filter_map(|name| schema().named(name)) {
        reach(id, &mut reached);
    }
    reached
}

fn reach(id: TypeId, reached: &mut BTreeSet<TypeId>) {
    if reached.insert(id) {
        schema().types[id].fields.iter().for_each(|(_, node)| reach_node(node, reached));
    }
}

fn reach_node(node: &Node, reached: &mut BTreeSet<TypeId>) {
    match &node.shape {
        Shape::Object(id) => reach(*id, reached),
        Shape::List(inner) | Shape::Map(inner) => reach_node(inner, reached),
        _ => {}
    }
}

/// What these types are, each by itself: all together take a lot of memory.
fn definitions(
    types: BTreeSet<TypeId>,
    form: Form,
    texts: Descriptions,
) -> impl Iterator<Item = Map<String, Value>> {
    let schema: &'static Schema = schema();
    types.into_iter().map(move |id| {
        let kind = &schema.types[id];
        Map::from_iter([(kind.name.to_string(), definition(kind, form, &texts))])
    })
}

fn definition(kind: &Type, form: Form, texts: &Descriptions) -> Value {
    let described = |(name, node): &(Name, Node)| {
        let mut field = property(node, form, texts);
        if let Some(text) = texts.of_field(&kind.name, name) {
            field["description"] = json!(text);
        }
        (name.to_string(), field)
    };
    let properties: Map<String, Value> = kind.fields.iter().map(described).collect();
    let mut out = json!({ "type": "object", "properties": properties });
    if let Some(text) = texts.of(&kind.name) {
        out["description"] = json!(text);
    }
    if !kind.required.is_empty() {
        out["required"] = json!(kind.required);
    }
    if kind.atomic {
        out["x-kubernetes-map-type"] = json!("atomic");
    }
    if let Some((group, version, name)) = &kind.kind {
        out["x-kubernetes-group-version-kind"] =
            json!([{ "group": group, "version": version, "kind": name }]);
    }
    out
}

fn property(node: &Node, form: Form, texts: &Descriptions) -> Value {
    let mut out = match &node.shape {
        Shape::String => json!({ "type": "string" }),
        Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
        Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
        Shape::Number => json!({ "type": "number", "format": "double" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Quantity => json!({ "type": "string" }),
        Shape::IntOrString => json!({ "type": "string", "format": "int-or-string" }),
        Shape::Time | Shape::MicroTime => json!({ "type": "string", "format": "date-time" }),
        Shape::Bytes => json!({ "type": "string", "format": "byte" }),
        Shape::Any => json!({ "type": "object" }),
        Shape::List(item) => json!({ "type": "array", "items": property(item, form, texts) }),
        Shape::Map(item) => json!({ "type": "object", "additionalProperties": property(item, form, texts) }),
        Shape::Struct(own) => definition(own, form, texts),
        Shape::Object(id) => form.reference(&schema().types[*id].name),
    };
    if let Some(default) = &node.default {
        out["default"] = Value::clone(default);
    }
    match (&node.shape, node.list) {
        (Shape::List(_), ListType::Set) => out["x-kubernetes-list-type"] = json!("set"),
        (Shape::List(_), ListType::Map) => {
            out["x-kubernetes-list-type"] = json!("map");
            out["x-kubernetes-list-map-keys"] = json!(node.keys);
        }
        _ => {}
    }
    if node.atomic {
        out["x-kubernetes-map-type"] = json!("atomic");
    }
    if node.merges {
        let strategy = if node.retains { "merge,retainKeys" } else { "merge" };
        out["x-kubernetes-patch-strategy"] = json!(strategy);
    }
    if let Some(key) = &node.merge_key {
        out["x-kubernetes-patch-merge-key"] = json!(key);
    }
    out
}
