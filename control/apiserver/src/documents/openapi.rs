//! OpenAPI documents, made from the schema table when they are asked for and kept by nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::Digest;

use super::discovery::hex;
use super::paths;
use crate::body::{self, Reply};
use crate::resources::Table;
use crate::schema::{ListType, Node, Schema, Shape, Type, TypeId, schema};
use crate::status::{Refusal, Result};

/// Where schemas lie in a version 3 document.
const V3: &str = "#/components/schemas/";
/// Where schemas lie in a version 2 document.
const V2: &str = "#/definitions/";

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: every document with the hash of its content.
pub fn index(table: &Table) -> Reply {
    let mut paths = Map::new();
    for (group, version) in table.group_versions() {
        let path = path_of(group, version);
        let hash = hash(table, group, version);
        paths.insert(path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }));
    }
    body::json(200, &json!({ "paths": paths }))
}

/// The hash of a document. Those of this build never change.
fn hash(table: &Table, group: &str, version: &str) -> String {
    static KNOWN: LazyLock<Mutex<HashMap<(String, String), String>>> = LazyLock::new(Mutex::default);
    let digest = || hex(&sha2::Sha256::digest(document(table, group, version).to_string())).to_uppercase();
    KNOWN.lock().entry((group.to_owned(), version.to_owned())).or_insert_with(digest).clone()
}

/// `/openapi/v3/...`: one document.
pub fn group_version(table: &Table, path: &str, headers: &HeaderMap) -> Result<Reply> {
    let found = table.group_versions().into_iter().find(|(group, version)| path_of(group, version) == path);
    let (group, version) = found.ok_or_else(Refusal::no_path)?;
    only_json(headers)?;
    let mut reply = body::json(200, &document(table, group, version));
    reply.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    Ok(reply)
}

/// Protobuf documents are not written; a client that wants nothing else is told so.
fn only_json(headers: &HeaderMap) -> Result<()> {
    let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let readable = accept.split(',').any(|one| {
        let media = one.split(';').next().unwrap_or_default().trim();
        matches!(media, "application/json" | "*/*" | "application/*" | "")
    });
    if readable { Ok(()) } else { Err(Refusal::not_acceptable("application/json")) }
}

/// `/openapi/v2`: all groups in one document.
pub fn v2(table: &Table, headers: &HeaderMap) -> Result<Reply> {
    only_json(headers)?;
    let all: BTreeSet<TypeId> = (0..schema().types.len()).collect();
    let mut operations = Map::new();
    for (group, version) in table.group_versions() {
        operations.extend(paths::paths(table, group, version, V2));
    }
    let document = json!({
        "swagger": "2.0", "info": { "title": "Hawser", "version": "v1.36.0" },
        "paths": operations, "definitions": definitions(&all, V2),
    });
    Ok(body::json(200, &document))
}

fn document(table: &Table, group: &str, version: &str) -> Value {
    let mut reached = BTreeSet::new();
    for row in table.of(group, version) {
        if let Some(id) = schema().kind(&row.group, &row.version, &row.kind) {
            reach(id, &mut reached);
        }
        if let Some(id) = schema().kind(&row.group, &row.version, &row.list_kind) {
            reach(id, &mut reached);
        }
        for (group, version, kind) in row.subresources.iter().filter_map(|sub| sub.kind()) {
            if let Some(id) = schema().kind(group, version, kind) {
                reach(id, &mut reached);
            }
        }
    }
    for name in ["DeleteOptions", "Status", "Patch"] {
        if let Some(id) = schema().named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")) {
            reach(id, &mut reached);
        }
    }
    json!({
        "openapi": "3.0.0", "info": { "title": "Hawser", "version": "v1.36.0" },
        "paths": paths::paths(table, group, version, V3), "components": { "schemas": definitions(&reached, V3) },
    })
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

fn definitions(types: &BTreeSet<TypeId>, base: &str) -> Map<String, Value> {
    let schema: &'static Schema = schema();
    types
        .iter()
        .map(|id| (schema.types[*id].name.to_string(), definition(&schema.types[*id], base)))
        .collect()
}

fn definition(kind: &Type, base: &str) -> Value {
    let properties: Map<String, Value> =
        kind.fields.iter().map(|(name, node)| (name.to_string(), property(node, base))).collect();
    let mut out = json!({ "type": "object", "properties": properties });
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

fn property(node: &Node, base: &str) -> Value {
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
        Shape::List(item) => json!({ "type": "array", "items": property(item, base) }),
        Shape::Map(item) => json!({ "type": "object", "additionalProperties": property(item, base) }),
        Shape::Struct(own) => definition(own, base),
        Shape::Object(id) => {
            let reference = format!("{base}{}", schema().types[*id].name);
            // A reference may stand beside other keys only below `allOf`.
            if base == V3 {
                json!({ "allOf": [{ "$ref": reference }] })
            } else {
                json!({ "$ref": reference })
            }
        }
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
