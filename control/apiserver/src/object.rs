//! Objects as bytes: how they lie in the store, what is read from them once, and how they are served without decoding.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use store::{Entry, Revision, Store};

use crate::definitions;
use crate::name::Name;
use crate::resources::{self, Row};
use crate::tree;

/// What is read from an object once per write, for selectors, tables and splicing.
#[derive(Debug, Default)]
pub struct Header {
    /// Offset just behind the brace that opens `metadata`; 0 for a value that is no object.
    pub(crate) splice: u32,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the row's selectable fields, in the row's order.
    pub fields: Box<[Box<str>]>,
}

/// An object in the store.
pub type Stored = Arc<Entry<Header>>;

/// The store of this server.
pub type Objects = Store<Header>;

/// Everything begins with this.
pub const ROOT: &str = "/registry/";

/// The key of an object.
pub fn key(resource: &Row, namespace: &str, name: &str) -> String {
    if resource.namespaced {
        format!("{ROOT}{}/{namespace}/{name}", resource.storage)
    } else {
        format!("{ROOT}{}/{name}", resource.storage)
    }
}

/// The prefix of all objects of a resource, or of those in one namespace.
pub fn prefix(resource: &Row, namespace: &str) -> String {
    if resource.namespaced && !namespace.is_empty() {
        format!("{ROOT}{}/{namespace}/", resource.storage)
    } else {
        format!("{ROOT}{}/", resource.storage)
    }
}

#[derive(Deserialize)]
struct Partial<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    labels: std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// The storage of a key: one segment, or two where the first is shared by several kinds.
pub fn storage(key: &str) -> Option<&str> {
    let key = key.strip_prefix(ROOT)?;
    let first = key.find('/')?;
    match &key[..first] {
        "services" | definitions::GROUP => {
            key[first + 1..].find('/').map(|second| &key[..first + 1 + second])
        }
        storage => Some(storage),
    }
}

/// Reads the header of a stored value.
pub fn header(key: &str, value: &[u8]) -> Header {
    let Ok(partial) = serde_json::from_slice::<Partial<'_>>(value) else { return Header::default() };
    let row = storage(key).and_then(resources::stored);
    let fields = match row {
        Some(row) if !row.selectable.is_empty() => {
            let tree: Value = serde_json::from_slice(value).unwrap_or_default();
            row.selectable.iter().map(|(_, path)| field_text(&tree, path)).collect()
        }
        _ => Box::default(),
    };
    let meta = partial.metadata;
    Header {
        splice: splice_offset(value),
        namespace: meta.namespace.into(),
        name: meta.name.into(),
        uid: meta.uid.into(),
        labels: meta.labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        fields,
    }
}

fn field_text(tree: &Value, path: &[Name]) -> Box<str> {
    match path.iter().try_fold(tree, |tree, step| tree.get(&**step)).unwrap_or(&Value::Null) {
        Value::String(text) => text.as_str().into(),
        Value::Null if path.last().is_some_and(|p| matches!(&**p, "unschedulable" | "hostNetwork")) => {
            "false".into()
        }
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}

/// Whether metadata is the first structure in a value, so that [`Header::splice`] points into it.
pub fn is_in_order(value: &[u8]) -> bool {
    let before = value.windows(OPENING.len()).position(|window| window == OPENING);
    before.is_some_and(|before| value.first() == Some(&b'{') && !value[1..before.max(1)].contains(&b'{'))
}

const OPENING: &[u8] = b"\"metadata\":{";

fn splice_offset(value: &[u8]) -> u32 {
    let found = value.windows(OPENING.len()).position(|window| window == OPENING);
    found.and_then(|at| u32::try_from(at + OPENING.len()).ok()).unwrap_or_default()
}

/// Encodes an object for the store: kind and metadata first, without a resourceVersion.
///
/// The revision is known only when the write commits; [`pieces`] puts it in when the object is served.
pub fn encode(object: &Value) -> Bytes {
    let mut ordered = serde_json::Map::new();
    let empty = serde_json::Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    for name in ["apiVersion", "kind", "metadata"] {
        if let Some(value) = fields.get(name) {
            let mut value = value.clone();
            if name == "metadata" {
                tree::remove(&mut value, &["resourceVersion"]);
            }
            ordered.insert(name.to_owned(), value);
        }
    }
    for (name, value) in fields {
        if !ordered.contains_key(name) {
            ordered.insert(name.clone(), value.clone());
        }
    }
    Bytes::from(serde_json::to_vec(&ordered).expect("a tree always encodes"))
}

/// The object as served at `revision`, in three pieces of which two are shared with the store.
pub fn pieces(entry: &Entry<Header>, revision: Revision) -> [Bytes; 3] {
    let at = entry.header.splice as usize;
    let value = &entry.value;
    [value.slice(..at), Bytes::from(format!("\"resourceVersion\":\"{revision}\",")), value.slice(at..)]
}

/// Appends the object as served at `revision`.
pub fn append(out: &mut BytesMut, entry: &Entry<Header>, revision: Revision) {
    for piece in pieces(entry, revision) {
        out.extend_from_slice(&piece);
    }
}

/// The object as a tree, with its resourceVersion.
pub fn decode(entry: &Entry<Header>) -> Value {
    decode_at(entry, entry.mod_revision)
}

/// The object as a tree, with `revision` as its resourceVersion.
pub fn decode_at(entry: &Entry<Header>, revision: Revision) -> Value {
    let mut tree: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    tree::set(&mut tree, &["metadata", "resourceVersion"], revision.to_string());
    tree
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(object: &Value) -> Entry<Header> {
        let value = encode(object);
        let key = "/registry/pods/default/a";
        Entry {
            key: key.into(),
            header: header(key, &value),
            value,
            mod_revision: 7,
            create_revision: 3,
            expires: 0,
        }
    }

    #[test]
    fn the_revision_is_spliced_and_never_stored() {
        let object = json!({"spec": {"nodeName": "n1"}, "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "a", "namespace": "default", "resourceVersion": "3", "labels": {"metadata": "{"}}});
        let entry = entry(&object);
        assert!(!String::from_utf8_lossy(&entry.value).contains("resourceVersion"));
        let mut text = BytesMut::new();
        append(&mut text, &entry, 7);
        let served: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(served["metadata"]["resourceVersion"], "7");
        assert_eq!(served, decode(&entry));
    }

    #[test]
    fn every_key_leads_to_its_storage() {
        for row in resources::builtin().rows().iter().filter(|row| !row.review) {
            assert_eq!(storage(&key(row, "a", "b")), Some(&*row.storage), "{}", row.qualified());
        }
        assert_eq!(storage("/registry/example.com/things/a/b"), Some("example.com"));
        assert_eq!(storage("/other/pods/a"), None);
    }

    #[test]
    fn the_header_holds_what_selectors_ask_for() {
        let entry = entry(&json!({"kind": "Pod", "apiVersion": "v1", "spec": {"nodeName": "n1"},
            "metadata": {"name": "a", "namespace": "default", "uid": "u", "labels": {"b": "2", "a": "1"}}}));
        assert_eq!(&*entry.header.name, "a");
        assert_eq!(entry.header.labels.len(), 2);
        assert!(entry.header.fields.iter().any(|field| &**field == "n1"));
    }
}
