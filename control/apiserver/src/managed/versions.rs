//! Ownership across the versions a kind is served in: everybody owns fields of the version they wrote.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::set::Set;
use super::walk::{self, Difference};
use super::{Entry, strip};
use crate::resources::Row;

/// How a write changed an object, in every version that is asked for.
pub struct Changes<'a> {
    row: &'a Row,
    api_version: String,
    /// As it was stored; `None` when it is created.
    old: Option<&'a Value>,
    /// In the version of the row.
    new: Cow<'a, Value>,
    own: Difference,
    others: Vec<(&'static Row, Difference)>,
}

impl<'a> Changes<'a> {
    /// `old` is in the version that is stored, `new` in the row's.
    pub fn new(row: &'a Row, old: Option<&'a Value>, new: Cow<'a, Value>) -> Self {
        // Every object has metadata, also before it is made.
        let before = old.map_or_else(|| Cow::Owned(json!({ "metadata": {} })), |old| row.shown(old));
        let own = stripped(row, &before, &new);
        Self { row, api_version: row.api_version(), old, new, own, others: Vec::new() }
    }

    /// The difference in the row's version.
    pub fn own(&self) -> &Difference {
        &self.own
    }

    /// The difference in the version an owner wrote in; that of the row where this build has no other.
    pub fn of(&mut self, api_version: &str) -> &Difference {
        let other = match self.old {
            Some(old) if api_version != self.api_version => {
                self.row.in_version(api_version).map(|other| (old, other))
            }
            _ => None,
        };
        let Some((old, other)) = other else { return &self.own };
        let known = self.others.iter().position(|(row, _)| std::ptr::eq(*row, other));
        let at = known.unwrap_or_else(|| {
            let mut new = self.new.clone().into_owned();
            self.row.store(&mut new);
            self.others.push((other, stripped(other, &other.shown(old), &other.shown(&new))));
            self.others.len() - 1
        });
        &self.others[at].1
    }
}

fn stripped(row: &Row, old: &Value, new: &Value) -> Difference {
    let found = walk::difference(row.node(), old, new);
    Difference { changed: strip(found.changed), removed: strip(found.removed) }
}

/// What an owner has of a stored object, in the version of the row: what would be another if they took theirs away.
pub fn owned(row: &Row, old: &Value, entry: &Entry) -> Set {
    let other =
        if entry.api_version == row.api_version() { None } else { row.in_version(&entry.api_version) };
    let Some(other) = other else { return entry.set.clone() };
    let mut rest = other.shown(old).into_owned();
    walk::prune(other.node(), &mut rest, &entry.set, &walk::NOTHING);
    other.store(&mut rest);
    let found = stripped(row, &row.shown(old), &row.shown(&rest));
    let mut set = found.removed;
    set.unite(found.changed);
    set
}
