//! Objects as bytes: how they lie in the store, what is read from them once, and how they are served without decoding.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use store::{Entry, Revision, Store};

use crate::copy;
use crate::definitions;
use crate::name::Name;
use crate::numbers;
use crate::resources::{self, Row};
use crate::skim::skim;
use crate::tree;

/// What is read from an object once per write, for selectors, tables and splicing.
#[derive(Debug, Default)]
pub struct Header {
    /// Offset just behind the brace that opens `metadata`; 0 for a value that is no object.
    pub(crate) splice: u32,
    /// Bytes of the object as an item of a list in protobuf, once somebody has written it; until then 0.
    pub(crate) packed: AtomicU32,
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
    let selectable = storage(key).and_then(resources::stored).map_or(&[][..], |row| &row.selectable);
    let Some((meta, texts)) = skim(value, selectable) else { return Header::default() };
    let fields = selectable.iter().zip(texts).map(|((_, path), text)| text.unwrap_or_else(|| absent(path)));
    Header {
        splice: splice_offset(value),
        packed: AtomicU32::new(0),
        namespace: meta.namespace.into(),
        name: meta.name.into(),
        uid: meta.uid.into(),
        labels: meta.labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        fields: fields.collect(),
    }
}

/// The field by which nodes select what is theirs.
pub const NODE: &str = "spec.nodeName";

/// The node an object is for, or none yet; `None` for kinds whose objects are not selected by it.
pub fn node<'a>(key: &str, header: &'a Header) -> Option<&'a str> {
    let row = storage(key).and_then(resources::stored)?;
    let at = row.selectable.iter().position(|(field, _)| *field == *NODE)?;
    header.fields.get(at).map(|node| &**node)
}

/// What selectors compare where a field is not there.
fn absent(path: &[Name]) -> Box<str> {
    let boolean = path.last().is_some_and(|step| matches!(&**step, "unschedulable" | "hostNetwork"));
    if boolean { "false".into() } else { "".into() }
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
/// The revision is known only when the write commits; [`append`] puts it in when the object is served.
pub fn encode(object: &Value) -> Bytes {
    encode_as(None, object)
}

/// The same with another apiVersion than the object says.
pub fn encode_as(api_version: Option<&str>, object: &Value) -> Bytes {
    let mut text = Vec::with_capacity(1 << 10);
    numbers::write(&mut text, &Ordered { api_version, object }).expect("a tree always encodes");
    // An allocator need not take back what is too much of a piece.
    Bytes::copy_from_slice(&text)
}

/// An object as [`encode`] writes it.
struct Ordered<'a> {
    api_version: Option<&'a str>,
    object: &'a Value,
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.object.as_object();
        let first = ["apiVersion", "kind", "metadata"];
        let mut map = serializer.serialize_map(None)?;
        for name in first {
            match (name, fields.and_then(|fields| fields.get(name)), self.api_version) {
                ("apiVersion", _, Some(given)) => map.serialize_entry(name, given)?,
                ("metadata", Some(Value::Object(metadata)), _) => {
                    map.serialize_entry(name, &Unversioned(metadata))?;
                }
                (_, Some(value), _) => map.serialize_entry(name, value)?,
                (_, None, _) => {}
            }
        }
        for (name, value) in fields.into_iter().flatten().filter(|(name, _)| !first.contains(&name.as_str()))
        {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Metadata without the revision.
struct Unversioned<'a>(&'a Map<String, Value>);

impl Serialize for Unversioned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(name, _)| *name != "resourceVersion"))
    }
}

/// Appends the object as served at `revision`.
pub fn append(out: &mut BytesMut, entry: &Entry<Header>, revision: Revision) {
    splice(out, &entry.value.bytes(), entry.header.splice as usize, revision);
}

/// Appends what stands behind the first `from` bytes of the object, before which there is no metadata. `value` is its bytes.
pub fn append_from(out: &mut BytesMut, entry: &Entry<Header>, value: &[u8], from: usize) {
    splice(out, &value[from..], (entry.header.splice as usize).saturating_sub(from), entry.mod_revision);
}

/// The bytes of a stored object as served at `revision`, as a line.
pub fn line(value: &[u8], revision: Revision) -> Bytes {
    let mut out = BytesMut::with_capacity(value.len() + VERSION + 1);
    splice(&mut out, value, splice_offset(value) as usize, revision);
    out.extend_from_slice(b"\n");
    out.freeze()
}

/// Appends the metadata of an object as served at `revision`. Whether it has any.
pub fn append_metadata(out: &mut impl BufMut, entry: &Entry<Header>, revision: Revision) -> bool {
    let at = entry.header.splice as usize;
    let Some(before) = at.checked_sub(1) else { return false };
    let value = entry.value.bytes();
    let mut rest = serde_json::Deserializer::from_slice(&value[before..]);
    let Ok(metadata) = <&RawValue>::deserialize(&mut rest) else { return false };
    let Some(rest) = metadata.get().strip_prefix("{\"") else { return false };
    out.put_slice(format!("{{\"resourceVersion\":\"{revision}\",\"").as_bytes());
    out.put_slice(rest.as_bytes());
    true
}

/// Bytes of a resourceVersion with its name, at most.
const VERSION: usize = 44;

fn splice(out: &mut BytesMut, value: &[u8], at: usize, revision: Revision) {
    out.reserve(value.len() + VERSION);
    copy::append(out, &value[..at]);
    write!(out, "\"resourceVersion\":\"{revision}\",").expect("a buffer grows as it has to");
    copy::append(out, &value[at..]);
}

/// The object as a tree, with its resourceVersion.
pub fn decode(entry: &Entry<Header>) -> Value {
    decode_at(entry, entry.mod_revision)
}

/// The object as a tree, with `revision` as its resourceVersion.
pub fn decode_at(entry: &Entry<Header>, revision: Revision) -> Value {
    let mut tree: Value = serde_json::from_slice(&entry.value.bytes()).unwrap_or_default();
    tree::set(&mut tree, &["metadata", "resourceVersion"], revision.to_string());
    tree
}

/// An object that is nowhere stored, with what selectors ask for.
pub fn unstored(key: &str, object: &Value) -> Entry<Header> {
    let value = encode(object);
    Entry {
        key: key.into(),
        header: header(key, &value),
        value: value.into(),
        mod_revision: 0,
        create_revision: 0,
        expires: 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(object: &Value) -> Entry<Header> {
        Entry { mod_revision: 7, create_revision: 3, ..unstored("/registry/pods/default/a", object) }
    }

    #[test]
    fn the_revision_is_spliced_and_never_stored() {
        let object = json!({"spec": {"nodeName": "n1"}, "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "a", "namespace": "default", "resourceVersion": "3", "labels": {"metadata": "{"}}});
        let entry = entry(&object);
        assert!(!String::from_utf8_lossy(&entry.value.bytes()).contains("resourceVersion"));
        let mut text = BytesMut::new();
        append(&mut text, &entry, 7);
        let served: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(served["metadata"]["resourceVersion"], "7");
        assert_eq!(served, decode(&entry));
    }

    #[test]
    fn metadata_is_had_alone() {
        let entry = entry(&json!({"kind": "Pod", "apiVersion": "v1", "spec": {"metadata": {}},
            "metadata": {"name": "a", "labels": {"b": "}"}, "managedFields": [{"fieldsV1": {"f:a": {}}}]}}));
        let mut text = Vec::new();
        assert!(append_metadata(&mut text, &entry, entry.mod_revision));
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), decode(&entry)["metadata"]);
        for without in [json!({"kind": "Pod"}), json!({"metadata": {}}), json!({"metadata": []}), json!(5)] {
            let entry = self::entry(&without);
            assert!(!append_metadata(&mut text, &entry, entry.mod_revision), "{without}");
        }
    }

    #[test]
    fn an_object_can_be_stored_in_another_version() {
        let object = json!({"metadata": {"name": "a"}, "apiVersion": "example.com/v2", "kind": "Thing"});
        let stored = r#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"}}"#;
        assert_eq!(encode_as(Some("example.com/v1"), &object), stored);
        let served =
            r#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"resourceVersion":"7","name":"a"}}"#;
        assert_eq!(line(stored.as_bytes(), 7), format!("{served}\n"));
    }

    #[test]
    fn every_key_leads_to_its_storage() {
        for row in resources::builtin().rows().iter().filter(|row| row.is_kept()) {
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
        let fields: Vec<&str> = entry.header.fields.iter().map(|field| &**field).collect();
        assert_eq!(fields, ["n1", "", "", "", "false", "", "", ""]);
    }
}
