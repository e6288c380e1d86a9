//! Who changed what: managedFields after a write. Most writes change little, so entries they do not touch are carried
//! over as they are stored.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::nothing::{hold, with_nothings};
use super::set::Set;
use super::versions::Changes;
use super::walk::{self, Difference};
use super::{Entry, Manager, before, last_applied, scoped};
use crate::resources::{Row, Sub};
use crate::status::Result;
use crate::tree::{at, list, remove, set as put, text};

const PATH: &[&str] = &["metadata", "managedFields"];

/// An owner after the write.
enum Owner<'a> {
    /// As it is stored, with its position there.
    Untouched(usize, &'a Value),
    /// As it is stored, but for the time.
    Again(usize, &'a Value, &'a str),
    Touched(Entry),
}

/// Records in `new` who changed what since `old`, both as they are stored, by a write in the version of the row.
pub fn track(
    row: &Row,
    old: Option<&Value>,
    new: &mut Value,
    manager: &Manager,
    sub: Option<Sub>,
    now: Timestamp,
) -> Result<()> {
    let given = remove(new, PATH);
    let now = crate::verbs::write::timestamp(now);
    let before = before::owners(row, old, given.as_ref(), manager, sub, &now);
    if old.is_some() && before.is_empty() {
        // Of what is not known of all, nothing is known.
        return Ok(());
    }
    let shown = held(row, old, seen(row, row.shown(new), manager), manager, sub);
    // What is applied in vain each time is no write.
    let written = !manager.has_nothing() || differs(row, old, new, sub);
    let mut changes = Changes::new(row, old, shown);
    let wanted = manager.wanted.as_ref().map(|wanted| scoped(row, walk::fields(row.node(), wanted), sub));
    let mut claimed = Some(wanted.unwrap_or_else(|| scoped(row, changes.own().changed.clone(), sub)));
    let api_version = row.api_version();
    let mut owners = Vec::new();
    for (position, stored) in before.iter().enumerate() {
        let Difference { changed, removed } = changes.of(text(stored, &["apiVersion"]));
        let mine = super::is_by(stored, manager, sub, &api_version);
        let target = mine && claimed.is_some();
        let fields = at(stored, &["fieldsV1"]);
        let loses = removed.meets(fields) || (!mine && changed.meets(fields));
        let gains =
            target && (manager.apply || claimed.as_ref().is_some_and(|claimed| !claimed.within(fields)));
        let claim = if target { claimed.take() } else { None };
        if !loses && !gains && fields.as_object().is_some_and(|fields| !fields.is_empty()) {
            // Whoever changes what is its own has written it now.
            let again = sub != Some(Sub::Scale) && claim.is_some_and(|claim| !claim.is_empty());
            owners.push(if again {
                Owner::Again(position, stored, &now)
            } else {
                Owner::Untouched(position, stored)
            });
            continue;
        }
        let mut entry = Entry::read(stored);
        let before = entry.set.clone();
        // What is applied is claimed again though nothing changed, which is no write.
        let claims = if manager.apply {
            mine && written && !scoped(row, changed.clone(), sub).is_empty()
        } else {
            claim.as_ref().is_some_and(|claim| !claim.is_empty())
        };
        entry.set = entry.set.without(removed);
        if !mine {
            entry.set = entry.set.without(changed);
        }
        match claim {
            Some(claim) if manager.apply => {
                entry.set = claim;
                entry.api_version.clone_from(&api_version);
            }
            Some(claim) => entry.set.unite(claim),
            None => {}
        }
        // Who only lost fields wrote nothing; and a write that changes nothing is none.
        if mine && (claims || entry.set != before) && sub != Some(Sub::Scale) {
            entry.time = json!(now);
        }
        owners.push(Owner::Touched(entry));
    }
    if let Some(claimed) = claimed {
        owners.push(Owner::Touched(first(manager, sub, api_version, &now, claimed)));
    }
    owners.retain(|owner| !matches!(owner, Owner::Touched(entry) if entry.set.is_empty()));
    let written = render(sorted(squash(owners)), given);
    if !written.is_empty() {
        put(new, PATH, written);
    }
    if sub.is_none() {
        last_applied::renew(new, manager);
    }
    Ok(())
}

/// Whether anything that may be owned is another in `new`.
fn differs(row: &Row, old: Option<&Value>, new: &Value, sub: Option<Sub>) -> bool {
    let changes = Changes::new(row, old, row.shown(new));
    !scoped(row, changes.own().changed.clone(), sub).is_empty()
}

/// What an apply leads to, with what is applied and not stored because it says nothing.
fn seen<'a>(row: &Row, new: Cow<'a, Value>, manager: &Manager) -> Cow<'a, Value> {
    match &manager.wanted {
        Some(wanted) if manager.has_nothing() => {
            Cow::Owned(with_nothings(row.node(), new.into_owned(), wanted))
        }
        _ => new,
    }
}

/// What an apply leads to, with the maps that were emptied and that others own as such.
fn held<'a>(
    row: &Row,
    old: Option<&Value>,
    mut new: Cow<'a, Value>,
    manager: &Manager,
    sub: Option<Sub>,
) -> Cow<'a, Value> {
    let Some(old) = old.filter(|_| manager.apply) else { return new };
    let (shown, api_version) = (row.shown(old), row.api_version());
    let is_other = |stored: &&Value| {
        text(stored, &["apiVersion"]) == api_version && !super::is_by(stored, manager, sub, &api_version)
    };
    for stored in list(old, PATH).iter().filter(is_other) {
        hold(row.node(), &shown, new.to_mut(), &Set::read(at(stored, &["fieldsV1"])));
    }
    new
}

/// The entry of a manager that had none.
fn first(manager: &Manager, sub: Option<Sub>, api_version: String, now: &str, set: Set) -> Entry {
    Entry {
        manager: manager.name.clone(),
        operation: manager.operation().to_owned(),
        api_version,
        subresource: sub.map_or("", Sub::name).to_owned(),
        // Upstream carries no times from a scale to what it is of.
        time: if sub == Some(Sub::Scale) { Value::Null } else { json!(now) },
        set,
    }
}

/// The JSON of the owners. Most clients hand back what is stored, which then need not be copied.
fn render(owners: Vec<Owner<'_>>, given: Option<Value>) -> Vec<Value> {
    let mut given = match given {
        Some(Value::Array(given)) => given,
        _ => Vec::new(),
    };
    let mut kept = |position: usize, stored: &Value| match given.get_mut(position) {
        Some(same) if same == stored => same.take(),
        _ => stored.clone(),
    };
    let mut json = |owner| match owner {
        Owner::Touched(entry) => Entry::json(&entry),
        Owner::Untouched(position, stored) => kept(position, stored),
        Owner::Again(position, stored, now) => {
            let mut entry = kept(position, stored);
            entry["time"] = json!(now);
            entry
        }
    };
    owners.into_iter().map(&mut json).collect()
}

/// Appliers before updaters, whoever wrote first before others, as upstream has them; what nobody touched stays as it is.
fn sorted(mut owners: Vec<Owner<'_>>) -> Vec<Owner<'_>> {
    if owners.iter().any(|owner| !matches!(owner, Owner::Untouched(..))) {
        owners.sort_by(|one, other| one.rank().cmp(&other.rank()));
    }
    owners
}

impl Owner<'_> {
    /// What entries are in order of.
    fn rank(&self) -> [&str; 5] {
        match self {
            Self::Untouched(_, stored) => ["operation", "time", "manager", "apiVersion", "subresource"]
                .map(|field| text(stored, &[field])),
            Self::Again(_, stored, now) => {
                let word = |field| text(stored, &[field]);
                [word("operation"), now, word("manager"), word("apiVersion"), word("subresource")]
            }
            Self::Touched(entry) => {
                let time = entry.time.as_str().unwrap_or_default();
                [&entry.operation, time, &entry.manager, &entry.api_version, &entry.subresource]
            }
        }
    }
}

/// More updaters than this share one entry.
const MAX_UPDATERS: usize = 10;

/// Keeps the list short: the oldest updaters become one.
fn squash(owners: Vec<Owner<'_>>) -> Vec<Owner<'_>> {
    let is_updater = |owner: &Owner<'_>| match owner {
        Owner::Untouched(_, stored) | Owner::Again(_, stored, _) => text(stored, &["operation"]) == "Update",
        Owner::Touched(entry) => entry.operation == "Update",
    };
    let mut updaters = owners.iter().filter(|owner| is_updater(owner)).count();
    if updaters <= MAX_UPDATERS {
        return owners;
    }
    let read = |owner| match owner {
        Owner::Untouched(_, stored) => Entry::read(stored),
        Owner::Again(_, stored, now) => Entry { time: json!(now), ..Entry::read(stored) },
        Owner::Touched(entry) => entry,
    };
    let mut entries: Vec<Entry> = owners.into_iter().map(read).collect();
    while updaters > MAX_UPDATERS {
        let mut oldest: Vec<usize> =
            (0..entries.len()).filter(|at| entries[*at].operation == "Update").collect();
        oldest.sort_by_key(|at| entries[*at].time.as_str().unwrap_or_default().to_owned());
        let (into, from) = (oldest[0].min(oldest[1]), oldest[0].max(oldest[1]));
        let gone = entries.remove(from);
        "ancient-changes".clone_into(&mut entries[into].manager);
        entries[into].set.unite(gone.set);
        updaters -= 1;
    }
    entries.into_iter().map(Owner::Touched).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: Value, owners: &Value) -> Value {
        let mut map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
        if owners.is_array() {
            put(&mut map, PATH, owners.clone());
        }
        map
    }

    /// Who owns which fields after `manager` wrote `new`.
    fn owners(
        old: Option<&Value>,
        new: &mut Value,
        manager: &str,
        seconds: i64,
    ) -> Vec<(String, Vec<String>)> {
        let row = crate::resources::known("", "configmaps");
        let name = manager.to_owned();
        let manager = Manager { name, apply: false, force: false, wanted: None, last_applied: None };
        let now = Timestamp::from_second(seconds).unwrap();
        track(row, old, new, &manager, None, now).unwrap();
        let owners = list(new, PATH).iter().map(Entry::read);
        owners.map(|entry| (entry.manager, entry.set.paths())).collect()
    }

    fn owned(manager: &str, fields: &[&str]) -> (String, Vec<String>) {
        (manager.to_owned(), fields.iter().map(|field| format!(".data{field}")).collect())
    }

    #[test]
    fn a_field_is_owned_by_who_wrote_it_last_and_by_nobody_once_it_is_gone() {
        let mut first = map(json!({"a": "1", "b": "1", "c": "1"}), &Value::Null);
        assert_eq!(owners(None, &mut first, "one", 1), [owned("one", &["", ".a", ".b", ".c"])]);
        let mut second = map(json!({"a": "2", "b": "1", "c": "1"}), &first["metadata"]["managedFields"]);
        let want = [owned("one", &["", ".b", ".c"]), owned("two", &[".a"])];
        assert_eq!(owners(Some(&first), &mut second, "two", 2), want);
        let mut third = map(json!({"a": "2", "b": "1"}), &second["metadata"]["managedFields"]);
        assert_eq!(
            owners(Some(&second), &mut third, "two", 3),
            [owned("one", &["", ".b"]), owned("two", &[".a"])]
        );
    }

    #[test]
    fn an_entry_to_which_nothing_happened_stays_as_it_is_and_what_cannot_be_read_is_not_heard() {
        let mut first = map(json!({"a": "1"}), &Value::Null);
        owners(None, &mut first, "one", 1);
        for said in [json!([{"manager": "liar", "fieldsV1": {"f:data": {"f:a": {}}}}]), Value::Null] {
            let mut second = map(json!({"a": "1", "b": "2"}), &said);
            assert_eq!(owners(Some(&first), &mut second, "two", 2).len(), 2);
            let (before, after) = (list(&first, PATH), list(&second, PATH));
            assert_eq!(before[0], after[0]);
            // Written again by its owner: the set is the same, at another time.
            let mut third = map(json!({"a": "1", "b": "3"}), &said);
            owners(Some(&second), &mut third, "two", 3);
            let mut want = after.to_vec();
            want[1]["time"] = json!("1970-01-01T00:00:03Z");
            assert_eq!(list(&third, PATH), want);
        }
    }
}
