//! Which keys have which mark, so that nobody looks through all entries for the few of one mark.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use crate::entry::{Entry, Event, Mark};
use crate::shared::Entries;

/// The mark of an entry, if there is one.
pub(crate) fn of<H>(mark: Mark<H>, entry: &Option<Arc<Entry<H>>>) -> Option<&str> {
    entry.as_ref().and_then(|entry| mark(&entry.key, &entry.header))
}

/// The keys of the current entries that have a mark.
pub(crate) struct Marks<H> {
    mark: Mark<H>,
    keys: HashMap<Box<str>, BTreeSet<Arc<str>>>,
}

impl<H> Default for Marks<H> {
    fn default() -> Self {
        Self { mark: |_, _| None, keys: HashMap::new() }
    }
}

impl<H> Marks<H> {
    /// The marks of these entries.
    pub(crate) fn of(mark: Mark<H>, entries: &Entries<H>) -> Self {
        let mut marks = Self { mark, keys: HashMap::new() };
        entries.values().for_each(|entry| marks.add(entry));
        marks
    }

    /// The same marks of other entries.
    pub(crate) fn again(&self, entries: &Entries<H>) -> Self {
        Self::of(self.mark, entries)
    }

    pub(crate) fn follow(&mut self, event: &Event<H>) {
        let (before, after) = (of(self.mark, &event.previous), of(self.mark, &event.entry));
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(keys) = self.keys.get_mut(before)
        {
            keys.remove(&event.key);
            if keys.is_empty() {
                self.keys.remove(before);
            }
        }
        event.entry.iter().for_each(|entry| self.add(entry));
    }

    fn add(&mut self, entry: &Entry<H>) {
        let Some(mark) = (self.mark)(&entry.key, &entry.header) else { return };
        match self.keys.get_mut(mark) {
            Some(keys) => drop(keys.insert(Arc::clone(&entry.key))),
            None => drop(self.keys.insert(mark.into(), BTreeSet::from([Arc::clone(&entry.key)]))),
        }
    }

    /// The keys of a folder that have a mark, in order.
    pub(crate) fn keys<'a>(&'a self, folder: &'a str, mark: &str) -> impl Iterator<Item = &'a Arc<str>> {
        let keys = self.keys.get(mark).into_iter();
        let from = keys.flat_map(move |keys| keys.range::<str, _>((Included(folder), Unbounded)));
        from.take_while(move |key| key.starts_with(folder))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rand::Rng;
    use rand::seq::IndexedRandom;

    use super::*;

    type Header = Option<&'static str>;

    fn entry(key: &str, header: Header) -> Arc<Entry<Header>> {
        let value = Bytes::new().into();
        Arc::new(Entry { key: key.into(), value, mod_revision: 1, create_revision: 1, expires: 0, header })
    }

    #[test]
    fn marks_follow_what_happens() {
        let mut random = rand::rng();
        let (keys, marks) =
            (["/a/1", "/a/2", "/ab/1", "/b/1", "/b/2"], [None, Some(""), Some("m"), Some("n")]);
        let mut entries: Entries<Header> = Entries::default();
        let mut followed = Marks::of(|_, header| *header, &entries);
        for _ in 0..2000 {
            let key: Arc<str> = (*keys.choose(&mut random).unwrap()).into();
            let new = random.random_bool(0.7).then(|| entry(&key, *marks.choose(&mut random).unwrap()));
            let previous = match &new {
                Some(new) => entries.insert(Arc::clone(&key), Arc::clone(new)),
                None => entries.remove(&key),
            };
            followed.follow(&Event { revision: 1, key, entry: new, previous });
            for folder in ["/", "/a/", "/b/", "/c/", "/b/2"] {
                for mark in ["", "m", "n", "o"] {
                    let wanted = entries.values().filter(|one| one.key.starts_with(folder));
                    let wanted = wanted.filter(|one| one.header == Some(mark)).map(|one| &one.key);
                    let wanted: Vec<&Arc<str>> = wanted.collect();
                    let again = followed.again(&entries);
                    assert!(followed.keys(folder, mark).eq(wanted.iter().copied()), "{folder} {mark:?}");
                    assert!(again.keys(folder, mark).eq(wanted), "{folder} {mark:?} again");
                }
            }
        }
        let none = Entries::default();
        entries.values().for_each(|old| {
            let (revision, key, previous) = (1, Arc::clone(&old.key), Some(Arc::clone(old)));
            followed.follow(&Event { revision, key, entry: None, previous });
        });
        assert!(
            followed.keys.is_empty() && followed.again(&none).keys.is_empty(),
            "marks nobody has are kept"
        );
    }
}
