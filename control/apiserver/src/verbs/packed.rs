//! A list in protobuf, made of what is stored, chunk by chunk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::reply::{CHUNK, ListMeta, typed};
use crate::negotiate::Form;
use crate::object::Stored;
use crate::protobuf::{self, Typed, WireError};
use crate::resources::Row;
use crate::status::{Refusal, Result};

/// Encoded bytes that are kept when a list is measured. A longer list is encoded again as it leaves.
const KEPT: usize = 1 << 20;

/// A list in protobuf. Its length stands before its items: they are measured first, and what is not kept of them is made
/// when the chunk before it has left.
pub struct Packed {
    item: Item,
    /// Head, and the items that were kept.
    kept: VecDeque<Bytes>,
    /// Those that were not.
    rest: std::vec::IntoIter<Stored>,
    /// What stands behind the items; `None` once it has left.
    tail: Option<&'static [u8]>,
    size: usize,
}

impl Packed {
    /// Measures a list. Others have their turn meanwhile.
    pub async fn new(row: &Arc<Row>, form: Form, meta: &ListMeta, mut entries: Vec<Stored>) -> Result<Self> {
        let list = match form {
            Form::Partial(meta) => Typed::of(meta.api_version(), "PartialObjectMetadataList"),
            _ => Typed::of(&row.api_version(), &row.list_kind),
        };
        let list =
            list.ok_or_else(|| Refusal::internal(format!("{} has no form in protobuf", row.list_kind)))?;
        let item = Item { row: Arc::clone(row), typed: typed(row, form)?, is_whole: form == Form::Object };
        let (mut kept, mut out, mut length, mut done) = (VecDeque::new(), Vec::new(), 0, 0);
        for (before, entry) in entries.iter().enumerate() {
            if let Some(known) = item.known(entry).filter(|_| length > KEPT) {
                length += known;
                continue;
            }
            length += item.append(&mut out, entry).map_err(Refusal::internal)?;
            if out.len() >= CHUNK {
                if length <= KEPT {
                    let next = Vec::with_capacity(CHUNK + CHUNK / 8);
                    kept.push_back(Bytes::from(std::mem::replace(&mut out, next)));
                    done = before + 1;
                }
                out.clear();
                tokio::task::yield_now().await;
            }
        }
        if length <= KEPT {
            kept.push_back(out.into());
            done = entries.len();
        }
        entries.drain(..done);
        let head = protobuf::list_head(&list, &meta.json(), length).map_err(Refusal::internal)?;
        let tail = protobuf::list_tail();
        let size = head.len() + length + tail.len();
        kept.push_front(Bytes::from(head));
        Ok(Self { item, kept, rest: entries.into_iter(), tail: Some(tail), size })
    }

    /// Bytes of the whole list.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// What items of a list are.
struct Item {
    row: Arc<Row>,
    typed: Typed,
    /// Not its metadata alone.
    is_whole: bool,
}

impl Item {
    /// Bytes of an item that was written before.
    fn known(&self, entry: &Stored) -> Option<usize> {
        let packed = entry.header.packed.load(Ordering::Relaxed);
        (packed > 0 && self.is_whole && self.row.serves_as_stored(entry)).then_some(packed as usize)
    }

    /// Writes an item; how many bytes it has.
    fn append(&self, out: &mut Vec<u8>, entry: &Stored) -> std::result::Result<usize, WireError> {
        let begin = out.len();
        if !self.row.serves_as_stored(entry) {
            let value = self.row.read(entry);
            self.typed.item(out, self.row.shown(&value).to_string().as_bytes(), None)?;
            return Ok(out.len() - begin);
        }
        self.typed.item(out, &entry.value.bytes(), Some(entry.mod_revision))?;
        let size = out.len() - begin;
        if self.is_whole {
            entry.header.packed.store(u32::try_from(size).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(size)
    }
}

impl Iterator for Packed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(chunk) = self.kept.pop_front() {
            return Some(chunk);
        }
        let mut out = Vec::new();
        while out.len() < CHUNK {
            let Some(entry) = self.rest.next() else {
                out.extend_from_slice(self.tail.take()?);
                break;
            };
            self.item.append(&mut out, &entry).expect("it could be written when it was measured");
        }
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::Entry;

    use super::*;
    use crate::{object, resources};

    fn maps(number: usize) -> Vec<Stored> {
        let one = |n: usize| {
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": format!("m-{n}"), "namespace": "d" },
                "data": { "k": "x".repeat(n * 7919 % 9000) } });
            let (key, value) = (format!("/registry/configmaps/d/m-{n}"), object::encode(&object));
            let (header, key) = (object::header(&key, &value), key.into());
            let value = value.into();
            Arc::new(Entry { key, value, mod_revision: 7, create_revision: 7, expires: 0, header })
        };
        (0..number).map(one).collect()
    }

    async fn pack(entries: Vec<Stored>) -> Result<Packed> {
        let table = resources::builtin();
        let row = table.find("", "v1", "configmaps").unwrap();
        Packed::new(row, Form::Object, &ListMeta::default(), entries).await
    }

    /// Lists that are kept whole, lists that are not, and those that end where it changes. When they are made again it is
    /// known how long their items are.
    #[tokio::test]
    async fn a_list_says_how_long_it_is_and_little_of_it_is_held() {
        for number in [0, 1, 100, 233, 234, 235, 1000] {
            let entries = maps(number);
            for again in [false, true] {
                let is_known = entries.iter().all(|one| one.header.packed.load(Ordering::Relaxed) > 0);
                assert_eq!(is_known, again || number == 0);
                holds(pack(entries.clone()).await.unwrap(), number);
            }
        }
    }

    fn holds(list: Packed, number: usize) {
        let (size, held) = (list.size(), list.kept.iter().map(Bytes::len).sum::<usize>());
        assert!(held <= KEPT + CHUNK && (held + 4 >= size || held > KEPT / 2), "{held} of {size}");
        let text = list.collect::<Vec<Bytes>>().concat();
        assert_eq!(text.len(), size);
        let tree = protobuf::decode("io.k8s.api.core.v1.ConfigMapList", &text).unwrap();
        let items = tree["items"].as_array().map_or(&[][..], |items| items);
        let wanted = (0..number).map(|n| (json!(format!("m-{n}")), json!("x".repeat(n * 7919 % 9000))));
        let found = items.iter().map(|item| (item["metadata"]["name"].clone(), item["data"]["k"].clone()));
        assert!(found.eq(wanted), "{number}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_refused_before_anything_has_left() {
        let mut entries = maps(300);
        Arc::get_mut(&mut entries[299]).unwrap().value = Bytes::from_static(b"{\"metadata\":5}").into();
        assert!(pack(entries).await.is_err());
    }
}
