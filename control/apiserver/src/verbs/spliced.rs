//! A list in JSON, made of what is stored, chunk by chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::reply::{CHUNK, ListMeta, untyped};
use crate::copy;
use crate::object::{self, Stored};
use crate::resources::Row;

/// Room for the object with which a chunk becomes large enough.
const SPARE: usize = 8 << 10;
/// How many objects before its turn one is fetched from memory.
const AHEAD: usize = 2;
/// What an object in a list has besides its stored bytes: its revision and a comma.
const SPLICED: usize = 48;

/// A list in JSON. Each chunk is made when the one before it has left, in memory that is still warm; a client that reads
/// slowly holds objects that are there anyhow.
pub struct Spliced {
    row: Arc<Row>,
    entries: std::vec::IntoIter<Stored>,
    /// What stands before the next object; `None` once the list has ended.
    before: Option<String>,
    /// How stored objects begin that leave out what kind they are; see [`untyped`].
    typed: String,
    /// Chunks that were handed on, the oldest first. One that has left gives its memory to the next.
    given: VecDeque<Bytes>,
}

impl Spliced {
    pub fn new(row: &Arc<Row>, meta: &ListMeta, entries: Vec<Stored>) -> Self {
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            row.list_kind,
            row.api_version(),
            meta.of(row)
        );
        Self {
            row: Arc::clone(row),
            entries: entries.into_iter(),
            before: Some(head),
            typed: opening(row),
            given: VecDeque::new(),
        }
    }

    /// Memory for the next chunk, which begins with `before`.
    fn memory(&mut self, before: &str) -> BytesMut {
        let left = self.given.pop_front_if(|oldest| oldest.is_unique());
        if let Some(Ok(mut memory)) = left.map(Bytes::try_into_mut) {
            memory.clear();
            return memory;
        }
        let room = if self.entries.len() > 64 { CHUNK + SPARE } else { before.len() + self.size() };
        BytesMut::with_capacity(room.min(CHUNK + SPARE))
    }

    /// Hands a chunk on.
    fn give(&mut self, chunk: BytesMut) -> Bytes {
        let chunk = chunk.freeze();
        self.given.push_back(chunk.clone());
        chunk
    }

    /// Bytes that are still to come, about.
    pub fn size(&self) -> usize {
        self.entries.as_slice().iter().map(|entry| entry.value.len() + SPLICED).sum()
    }
}

impl Iterator for Spliced {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut before = self.before.take()?;
        let mut out = self.memory(&before);
        while out.len() < CHUNK {
            if let Some(soon) = self.entries.as_slice().get(AHEAD) {
                copy::prefetch(soon.value.place());
            }
            out.extend_from_slice(before.as_bytes());
            let Some(entry) = self.entries.next() else {
                out.extend_from_slice(b"]}\n");
                return Some(self.give(out));
            };
            let value = entry.value.bytes();
            if self.row.custom.is_none() && value.starts_with(self.typed.as_bytes()) {
                out.extend_from_slice(b"{");
                object::append_from(&mut out, &entry, &value, self.typed.len());
            } else if self.row.custom.is_some() && self.row.serves_as_stored(&entry) {
                object::append(&mut out, &entry, entry.mod_revision);
            } else {
                let item = untyped(&self.row, self.row.read(&entry));
                let text = serde_json::to_vec(&item).expect("a tree always encodes");
                out.extend_from_slice(&text);
            }
            before.clear();
            if self.entries.len() > 0 {
                before.push(',');
            }
        }
        self.before = Some(before);
        Some(self.give(out))
    }
}

/// What stored objects of a row begin with: all that [`untyped`] takes away.
fn opening(row: &Row) -> String {
    format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", row.api_version(), row.kind)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::Entry;

    use super::*;
    use crate::resources;

    /// ConfigMaps of some KiB, and one larger than a chunk.
    fn list() -> (Spliced, Vec<Value>) {
        let table = resources::builtin();
        let row = table.find("", "v1", "configmaps").unwrap();
        let (mut entries, mut items) = (Vec::new(), Vec::new());
        for n in 0..100_u8 {
            let size = if n == 50 { 3 * CHUNK } else { 5000 };
            let text = char::from(b'a' + n % 26).to_string().repeat(size);
            let metadata = json!({ "name": format!("m-{n}"), "namespace": "d" });
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "k": text } });
            let (key, value) = (format!("/registry/configmaps/d/m-{n}"), object::encode(&object));
            let (header, key) = (object::header(&key, &value), key.into());
            entries.push(Arc::new(Entry {
                key,
                value: value.into(),
                mod_revision: 7,
                create_revision: 7,
                expires: 0,
                header,
            }));
            let metadata = json!({ "resourceVersion": "7", "name": format!("m-{n}"), "namespace": "d" });
            items.push(json!({ "metadata": metadata, "data": { "k": text } }));
        }
        (Spliced::new(row, &ListMeta::default(), entries), items)
    }

    #[test]
    fn chunks_are_the_list_whether_they_leave_at_once_or_are_kept() {
        let (gone, items) = list();
        let mut places = std::collections::BTreeSet::new();
        let mut text = Vec::new();
        for chunk in gone {
            places.insert(chunk.as_ptr());
            text.extend_from_slice(&chunk);
        }
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap()["items"].clone();
        assert_eq!(read(&text), Value::from(items));
        assert!(
            text.len() > 8 * CHUNK && places.len() <= 3,
            "{} chunks have memory of their own",
            places.len()
        );
        let kept: Vec<Bytes> = list().0.collect();
        assert!(kept.concat() == text);
    }
}
