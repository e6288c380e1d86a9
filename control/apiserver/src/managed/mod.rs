//! Field ownership: who set what, and what server-side apply does with it.

mod set;
mod walk;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Call;
use crate::resources::{Row, Sub};
use crate::schema::Node;
use crate::status::{Cause, Refusal, Result};
use crate::tree::{at, list, remove, set as put, text};
use set::Set;

/// In whose name a write happens, and how.
#[derive(Debug, Clone)]
pub struct Manager {
    name: String,
    apply: bool,
    force: bool,
    /// What an applier asks for, as sent.
    wanted: Option<Value>,
}

/// Names of managers are at most this long.
const MAX_NAME: usize = 128;

impl Manager {
    /// The manager of a write other than apply: as the client says, else the program it calls itself.
    pub fn update(call: &Call) -> Self {
        let agent = call.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        // Callers in this process send no agent; they are known by their user.
        let user = call.user.name.rsplit(':').next().unwrap_or_default();
        let program = agent.and_then(|agent| agent.split('/').next()).unwrap_or(user);
        let name = call.query.given("fieldManager").unwrap_or(program).chars().take(MAX_NAME).collect();
        Self { name, apply: false, force: false, wanted: None }
    }

    /// The manager of an apply, which must be named.
    pub fn apply(call: &Call, wanted: &Value) -> Result<Self> {
        let Some(name) = call.query.given("fieldManager") else {
            let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(Refusal::new(422, "Invalid", message));
        };
        if name.len() > MAX_NAME {
            let message = format!("fieldManager: Invalid value: may not be more than {MAX_NAME} bytes");
            return Err(Refusal::new(422, "Invalid", message));
        }
        if !list(wanted, &["metadata", "managedFields"]).is_empty() {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        Ok(Self {
            name: name.to_owned(),
            apply: true,
            force: call.query.flag("force"),
            wanted: Some(wanted.clone()),
        })
    }

    fn operation(&self) -> &'static str {
        if self.apply { "Apply" } else { "Update" }
    }
}

/// One entry of managedFields.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: Value,
    set: Set,
}

impl Entry {
    fn read(value: &Value) -> Self {
        let word = |field: &str| text(value, &[field]).to_owned();
        Self {
            manager: word("manager"),
            operation: word("operation"),
            api_version: word("apiVersion"),
            subresource: word("subresource"),
            time: at(value, &["time"]).clone(),
            set: Set::read(at(value, &["fieldsV1"])),
        }
    }

    fn json(&self) -> Value {
        let mut out =
            json!({ "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version });
        if !self.time.is_null() {
            out["time"] = self.time.clone();
        }
        out["fieldsType"] = json!("FieldsV1");
        out["fieldsV1"] = self.set.json();
        if !self.subresource.is_empty() {
            out["subresource"] = json!(self.subresource);
        }
        out
    }
}

fn read(object: &Value) -> Vec<Entry> {
    list(object, &["metadata", "managedFields"]).iter().map(Entry::read).collect()
}

/// What belongs to nobody: identity, and what only the server writes.
fn strip(mut set: Set) -> Set {
    for field in ["f:apiVersion", "f:kind"] {
        set.drop_step(&[field]);
    }
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        set.drop_step(&["f:metadata", &format!("f:{field}")]);
    }
    set
}

/// What of an object a write to the main resource or a subresource may own.
fn scoped(row: &Row, set: Set, sub: Option<Sub>) -> Set {
    let mut set = strip(set);
    if sub.is_none() && row.has_status() {
        set.drop_step(&["f:status"]);
    }
    set
}

/// Fields a manager applied before, applied again without those it no longer names.
///
/// # Errors
/// 409 with one cause per field when others own what would change, unless forced.
pub fn merge(row: &Row, old: &Value, wanted: &Value, manager: &Manager, sub: Option<Sub>) -> Result<Value> {
    let node = row.stored_as().node();
    let mut wanted = wanted.clone();
    remove(&mut wanted, &["metadata", "managedFields"]);
    let applied = scoped(row, walk::fields(node, &wanted), sub);
    let mut new = walk::merge(node, old, &wanted);
    let entries = read(old);
    let mine = |entry: &&Entry| is_mine(entry, manager, sub);
    let last = entries.iter().find(mine).map(|entry| entry.set.clone()).unwrap_or_default();
    let mut dropped = last.without(&applied);
    for other in entries.iter().filter(|entry| !mine(entry)) {
        dropped = dropped.without(&other.set);
    }
    walk::prune(node, &mut new, &dropped);
    if !manager.force {
        refuse_conflicts(row, node, old, &new, &applied, &entries, manager, sub)?;
    }
    Ok(new)
}

fn is_mine(entry: &Entry, manager: &Manager, sub: Option<Sub>) -> bool {
    entry.manager == manager.name
        && entry.operation == manager.operation()
        && entry.subresource == sub.map_or("", Sub::name)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the three versions of the object and their owners belong together"
)]
fn refuse_conflicts(
    row: &Row,
    node: &Node,
    old: &Value,
    new: &Value,
    applied: &Set,
    entries: &[Entry],
    manager: &Manager,
    sub: Option<Sub>,
) -> Result<()> {
    let changed = walk::difference(node, old, new).changed.common(applied);
    let mut causes = Vec::new();
    for other in entries.iter().filter(|entry| !is_mine(entry, manager, sub)) {
        for path in other.set.common(&changed).paths() {
            causes.push(Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with \"{}\" using {}", other.manager, other.api_version),
                field: path,
            });
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> =
        causes.iter().map(|cause| format!("{}: {}", cause.message, cause.field)).collect();
    let many =
        if causes.len() == 1 { "1 conflict".to_owned() } else { format!("{} conflicts", causes.len()) };
    let message = format!("Apply failed with {many}: {}", shown.join("\n"));
    Err(Refusal::new(409, "Conflict", message).about(row, text(new, &["metadata", "name"])).because(causes))
}

/// Records in `new` who changed what since `old`.
pub fn track(
    row: &Row,
    old: Option<&Value>,
    new: &mut Value,
    manager: &Manager,
    sub: Option<Sub>,
    now: Timestamp,
) -> Result<()> {
    let node = row.node();
    let mut entries = old.map(read).unwrap_or_default();
    let before = entries.clone();
    let empty = json!({});
    let found = walk::difference(
        node,
        without_managed(old.unwrap_or(&empty)).as_ref(),
        without_managed(new).as_ref(),
    );
    let changed = strip(found.changed);
    let removed = strip(found.removed);
    let claimed = match &manager.wanted {
        Some(wanted) => scoped(row, walk::fields(node, wanted), sub),
        None => scoped(row, changed.clone(), sub),
    };
    for entry in &mut entries {
        entry.set = entry.set.without(&removed);
        if !is_mine(entry, manager, sub) {
            entry.set = entry.set.without(&changed);
        }
    }
    let api_version = row.api_version();
    match entries.iter_mut().find(|entry| is_mine(entry, manager, sub) && entry.api_version == api_version) {
        Some(mine) if manager.apply => mine.set = claimed,
        Some(mine) => mine.set.unite(claimed),
        None => entries.push(Entry {
            manager: manager.name.clone(),
            operation: manager.operation().to_owned(),
            api_version,
            subresource: sub.map_or("", Sub::name).to_owned(),
            time: Value::Null,
            set: claimed,
        }),
    }
    entries.retain(|entry| !entry.set.is_empty());
    stamp(&mut entries, &before, now);
    squash(&mut entries);
    let written: Vec<Value> = entries.iter().map(Entry::json).collect();
    if written.is_empty() {
        remove(new, &["metadata", "managedFields"]);
    } else {
        put(new, &["metadata", "managedFields"], written);
    }
    Ok(())
}

fn without_managed(object: &Value) -> std::borrow::Cow<'_, Value> {
    if at(object, &["metadata", "managedFields"]).is_null() {
        return std::borrow::Cow::Borrowed(object);
    }
    let mut copy = object.clone();
    remove(&mut copy, &["metadata", "managedFields"]);
    std::borrow::Cow::Owned(copy)
}

/// An entry whose set did not change keeps its time, so that a write that changes nothing is none.
fn stamp(entries: &mut [Entry], before: &[Entry], now: Timestamp) {
    for entry in entries {
        let same = before.iter().find(|old| {
            old.manager == entry.manager
                && old.operation == entry.operation
                && old.subresource == entry.subresource
                && old.api_version == entry.api_version
        });
        match same {
            Some(old) if old.set == entry.set => entry.time = old.time.clone(),
            _ => entry.time = json!(crate::verbs::write::timestamp(now)),
        }
    }
}

/// More updaters than this share one entry.
const MAX_UPDATERS: usize = 10;

/// Keeps the list short: the oldest updaters become one.
fn squash(entries: &mut Vec<Entry>) {
    let updaters = |entries: &[Entry]| entries.iter().filter(|entry| entry.operation == "Update").count();
    while updaters(entries) > MAX_UPDATERS {
        let mut oldest: Vec<usize> =
            (0..entries.len()).filter(|at| entries[*at].operation == "Update").collect();
        oldest.sort_by_key(|at| entries[*at].time.to_string());
        let (into, from) = (oldest[0].min(oldest[1]), oldest[0].max(oldest[1]));
        let gone = entries.remove(from);
        "ancient-changes".clone_into(&mut entries[into].manager);
        entries[into].set.unite(gone.set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> &'static Row {
        crate::resources::known("", "configmaps")
    }

    fn manager(name: &str, wanted: Option<Value>, force: bool) -> Manager {
        Manager { name: name.to_owned(), apply: wanted.is_some(), force, wanted }
    }

    fn map(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
    }

    fn apply(old: &Value, name: &str, data: Value, force: bool) -> Result<Value> {
        let wanted = map(data);
        let manager = manager(name, Some(wanted.clone()), force);
        let mut new = merge(row(), old, &wanted, &manager, None)?;
        track(row(), Some(old), &mut new, &manager, None, Timestamp::UNIX_EPOCH)?;
        Ok(new)
    }

    fn created(name: &str, data: Value) -> Value {
        let mut new = map(data.clone());
        track(row(), None, &mut new, &manager(name, Some(map(data)), false), None, Timestamp::UNIX_EPOCH)
            .unwrap();
        new
    }

    #[test]
    fn what_is_no_longer_applied_is_taken_back() {
        let first = created("one", json!({"a": "1", "b": "2"}));
        let second = apply(&first, "one", json!({"a": "1"}), false).unwrap();
        assert_eq!(second["data"], json!({"a": "1"}));
    }

    #[test]
    fn two_appliers_share_an_object_and_conflict_only_on_the_same_field() {
        let first = created("one", json!({"a": "1"}));
        let second = apply(&first, "two", json!({"b": "2"}), false).unwrap();
        assert_eq!(second["data"], json!({"a": "1", "b": "2"}));
        let refusal = apply(&second, "two", json!({"a": "x"}), false).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (409, "Conflict"));
        assert!(refusal.message.contains("conflict with \"one\" using v1: .data.a"), "{}", refusal.message);
        let forced = apply(&second, "two", json!({"a": "x"}), true).unwrap();
        assert_eq!(forced["data"], json!({"a": "x"}));
        let third = apply(&forced, "one", json!({}), false).unwrap();
        assert_eq!(third["data"], json!({"a": "x"}));
    }

    #[test]
    fn agreeing_on_a_value_is_no_conflict_and_both_own_it() {
        let first = created("one", json!({"a": "1"}));
        let second = apply(&first, "two", json!({"a": "1"}), false).unwrap();
        let third = apply(&second, "one", json!({}), false).unwrap();
        assert_eq!(third["data"], json!({"a": "1"}));
    }

    #[test]
    fn an_update_takes_ownership_and_an_apply_after_it_conflicts() {
        let first = created("one", json!({"a": "1"}));
        let mut second = map(json!({"a": "2"}));
        track(row(), Some(&first), &mut second, &manager("editor", None, false), None, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(apply(&second, "one", json!({"a": "1"}), false).unwrap_err().code, 409);
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let first = created("one", json!({"a": "1"}));
        let manager = manager("one", Some(map(json!({"a": "1"}))), false);
        let mut again = merge(row(), &first, &map(json!({"a": "1"})), &manager, None).unwrap();
        let later = Timestamp::from_second(1000).unwrap();
        track(row(), Some(&first), &mut again, &manager, None, later).unwrap();
        assert_eq!(again, first);
    }
}
