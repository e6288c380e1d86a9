//! A list in JSON of what has to be made of each object, chunk by chunk.

use bytes::Bytes;
use serde_json::Value;

use super::reply::CHUNK;
use crate::object::Stored;

/// How lists end.
const END: &str = "]}";

/// What stands between `[` and `]` of a list, with what stands around it. Each chunk is made when the one before it has left.
pub struct Joined<F> {
    entries: std::vec::IntoIter<Stored>,
    /// Appends an item.
    item: F,
    /// What stands before the next item; `None` once the list has ended.
    before: Option<String>,
}

impl<F: FnMut(&mut Vec<u8>, &Stored)> Joined<F> {
    /// A list that ends as `empty` does, with `[]}`.
    pub fn new(empty: &Value, entries: Vec<Stored>, item: F) -> Self {
        let mut before = empty.to_string();
        before.truncate(before.len() - END.len());
        Self { entries: entries.into_iter(), item, before: Some(before) }
    }

    /// The first chunks, of at least `size` bytes if there are as many.
    pub fn first(&mut self, size: usize) -> Vec<Bytes> {
        let mut missing = size;
        let mut chunks = Vec::new();
        while missing > 0
            && let Some(chunk) = self.next()
        {
            missing = missing.saturating_sub(chunk.len());
            chunks.push(chunk);
        }
        chunks
    }
}

impl<F: FnMut(&mut Vec<u8>, &Stored)> Iterator for Joined<F> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut before = self.before.take()?;
        let mut out = Vec::new();
        while out.len() < CHUNK {
            out.extend_from_slice(before.as_bytes());
            let Some(entry) = self.entries.next() else {
                out.extend_from_slice(END.as_bytes());
                out.push(b'\n');
                return Some(out.into());
            };
            (self.item)(&mut out, &entry);
            before.clear();
            if self.entries.len() > 0 {
                before.push(',');
            }
        }
        self.before = Some(before);
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use serde_json::json;
    use store::Entry;

    use super::*;
    use crate::object;

    fn entries(number: usize) -> Vec<Stored> {
        let one = |n: usize| {
            let (key, value) =
                (format!("/registry/configmaps/d/m-{n}"), Bytes::from_static(b"{\"metadata\":{}}"));
            let (header, key, value) = (object::header(&key, &value), key.into(), value.into());
            Arc::new(Entry { key, value, mod_revision: 7, create_revision: 7, expires: 0, header })
        };
        (0..number).map(one).collect()
    }

    #[test]
    fn a_list_is_what_its_items_are_made_of_and_they_are_made_in_their_turn() {
        for number in [0, 1, 2, 70, 1000] {
            let made = Cell::new(0);
            let item = |out: &mut Vec<u8>, entry: &Stored| {
                made.set(made.get() + 1);
                let item = json!({ "key": &*entry.key, "text": "x".repeat(2000) });
                out.extend_from_slice(item.to_string().as_bytes());
            };
            let mut list = Joined::new(&json!({ "kind": "L", "items": [] }), entries(number), item);
            let begun = list.first(2 * CHUNK);
            assert!(made.get() <= 2 * CHUNK / 2000 + 2, "{} of {number}", made.get());
            let text = begun.into_iter().chain(list).collect::<Vec<Bytes>>().concat();
            let items = (0..number)
                .map(|n| json!({ "key": format!("/registry/configmaps/d/m-{n}"), "text": "x".repeat(2000) }));
            let wanted = json!({ "kind": "L", "items": items.collect::<Vec<Value>>() });
            assert!(text == format!("{wanted}\n").into_bytes(), "{number}");
        }
    }
}
