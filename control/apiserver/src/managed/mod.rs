//! Field ownership: who set what, and what server-side apply does with it.

mod before;
mod last_applied;
mod nothing;
mod set;
mod track;
mod typed;
mod versions;
mod walk;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Call;
use crate::resources::{Row, Sub};
use crate::status::{Cause, Refusal, Result};
use crate::tree::{at, remove, text};
pub use nothing::with_nothings;
use set::Set;
pub use track::track;
pub use typed::faults;
use versions::Changes;

/// In whose name a write happens, and how.
#[derive(Debug, Clone)]
pub struct Manager {
    name: String,
    apply: bool,
    force: bool,
    /// What an applier asks for.
    wanted: Option<Value>,
    /// What the annotation of kubectl's other way to apply is to say afterwards, where there is one.
    last_applied: Option<String>,
}

/// The program's part of a user agent is cut after so many characters.
const MAX_NAME: usize = 128;

impl Manager {
    /// The manager of a write other than apply: as the client says, else the program it calls itself.
    pub fn update(call: &Call) -> Self {
        let agent = call.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        // Callers in this process send no agent; they are known by their user.
        let user = call.user.name.rsplit(':').next().unwrap_or_default();
        let program = agent.and_then(|agent| agent.split('/').next()).unwrap_or(user);
        let name = call.query.given("fieldManager").unwrap_or(program).chars().take(MAX_NAME).collect();
        Self { name, apply: false, force: false, wanted: None, last_applied: None }
    }

    /// The manager of an apply, whose options name it and who has sent this. As kubectl it may have applied the object in its
    /// other way before; who takes another name has nothing to do with that.
    pub fn apply(call: &Call, sent: &Value) -> Self {
        let name = call.query.first("fieldManager").unwrap_or_default();
        Self {
            name: name.to_owned(),
            apply: true,
            force: call.query.flag("force"),
            wanted: None,
            last_applied: (name == last_applied::KUBECTL).then(|| last_applied::annotation(sent)),
        }
    }

    /// The same with what is asked for, in the form of its kind.
    pub fn wanting(self, wanted: Value) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    fn has_nothing(&self) -> bool {
        self.wanted.as_ref().is_some_and(nothing::has_nothing)
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

    /// What upstream tells owners apart by, as text: refusals are in its order.
    fn identity(&self) -> String {
        let applies = self.operation == "Apply";
        let all = [
            ("manager", &*self.manager),
            ("operation", &self.operation),
            ("apiVersion", if applies { "" } else { &self.api_version }),
            ("time", self.time.as_str().filter(|_| !applies).unwrap_or_default()),
            ("subresource", &self.subresource),
        ];
        let said = all.iter().filter(|(_, value)| !value.is_empty());
        said.map(|(name, value)| format!("\"{name}\":{value:?}")).collect::<Vec<_>>().join(",")
    }

    /// The owner in a refusal. Who applies is the same in every version; to who scales, all write scales.
    fn words(&self, sub: Option<Sub>) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == "Update" {
            let version = if sub == Some(Sub::Scale) { "autoscaling/v1" } else { &self.api_version };
            out += &format!(" using {version}");
        }
        out
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

fn read(entries: &[Value]) -> Vec<Entry> {
    entries.iter().map(Entry::read).collect()
}

/// What belongs to nobody: identity, and what only the server writes.
fn strip(mut set: Set) -> Set {
    for field in ["f:apiVersion", "f:kind"] {
        set.drop_step(&[field]);
    }
    for field in [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
        "f:generateName",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
    ] {
        set.drop_step(&["f:metadata", field]);
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

/// Fields a manager applied before, applied again without those it no longer names. `old` is in the version that is stored,
/// `wanted` and the result are in the row's.
///
/// # Errors
/// 409 with one cause per field when others own what would change, unless forced.
pub fn merge(row: &Row, old: &Value, wanted: &Value, manager: &Manager, sub: Option<Sub>) -> Result<Value> {
    let node = row.node();
    let shown = row.shown(old);
    let mut wanted = wanted.clone();
    remove(&mut wanted, &["metadata", "managedFields"]);
    let applied = scoped(row, walk::fields(node, &wanted), sub);
    let mut new = walk::merge(node, &shown, &wanted);
    let now = crate::verbs::write::timestamp(Timestamp::now());
    let entries = read(&before::owners(row, Some(old), None, manager, sub, &now));
    let mine = |entry: &&Entry| is_mine(entry, manager, sub);
    let last = entries.iter().find(mine).map(|entry| versions::owned(row, old, entry)).unwrap_or_default();
    let mut kept = applied;
    for other in entries.iter().filter(|entry| !mine(entry)) {
        kept.unite(versions::owned(row, old, other));
    }
    walk::prune(node, &mut new, &last.without(&kept), &kept);
    if !manager.force {
        let mut changes = Changes::new(row, Some(old), Cow::Borrowed(&new));
        let others = entries.iter().filter(|entry| !mine(entry));
        refuse_conflicts(&mut changes, others, sub, || last_applied::own(row, &shown, manager, sub))?;
    }
    Ok(new)
}

/// Whether what the manager applies is recorded in the entry, in whatever version.
fn is_mine(entry: &Entry, manager: &Manager, sub: Option<Sub>) -> bool {
    entry.manager == manager.name
        && entry.operation == manager.operation()
        && entry.subresource == sub.map_or("", Sub::name)
}

/// Whether the manager's writes in this version are recorded in an entry, as it is stored. Who applies has one entry for all
/// versions.
fn is_by(stored: &Value, manager: &Manager, sub: Option<Sub>, api_version: &str) -> bool {
    text(stored, &["manager"]) == manager.name
        && (manager.apply || text(stored, &["apiVersion"]) == api_version)
        && text(stored, &["operation"]) == manager.operation()
        && text(stored, &["subresource"]) == sub.map_or("", Sub::name)
}

/// Fields that an apply would change and others own, but for what is the applier's `own` all the same.
fn refuse_conflicts<'a>(
    changes: &mut Changes<'_>,
    others: impl Iterator<Item = &'a Entry>,
    sub: Option<Sub>,
    own: impl FnOnce() -> Set,
) -> Result<()> {
    let mut own = Some(own);
    let mut known = Set::EMPTY;
    let mut causes = Vec::new();
    let mut by_owner: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for other in others {
        let changed = &changes.of(&other.api_version).changed;
        let theirs = other.set.common(changed);
        if let Some(own) = own.take_if(|_| !theirs.is_empty()) {
            known = own();
        }
        let theirs = theirs.without(&known);
        for field in theirs.paths() {
            let owner = other.words(sub);
            let message = format!("conflict with {owner}");
            causes.push(Cause { reason: "FieldManagerConflict", message, field: field.clone() });
            by_owner.entry((other.identity(), owner)).or_default().push(field);
        }
    }
    let message = match &causes[..] {
        [] => return Ok(()),
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let told: Vec<String> = by_owner
                .iter()
                .map(|((_, owner), fields)| format!("conflicts with {owner}:\n- {}", fields.join("\n- ")))
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), told.join("\n"))
        }
    };
    Err(Refusal::new(409, "Conflict", message).because(causes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::decode;

    fn row() -> &'static Row {
        crate::resources::known("", "configmaps")
    }

    fn manager(name: &str, wanted: Option<Value>, force: bool) -> Manager {
        Manager { name: name.to_owned(), apply: wanted.is_some(), force, wanted, last_applied: None }
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
        assert!(refusal.message.contains("conflict with \"one\": .data.a"), "{}", refusal.message);
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
        let refusal = apply(&second, "one", json!({"a": "1"}), false).unwrap_err();
        let want = "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a";
        assert_eq!((refusal.code, &*refusal.message), (409, want));
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "type": ""});
        for (row, object) in [
            (row(), map(json!({"a": "1"}))),
            (row(), map(json!({}))),
            (crate::resources::known("", "secrets"), secret),
        ] {
            let manager = manager("one", Some(object.clone()), false);
            // Decoding leaves out what says nothing.
            let decoded = |object| decode::from_value(row.node(), object).unwrap().value;
            let mut first = decoded(object.clone());
            track(row, None, &mut first, &manager, None, Timestamp::UNIX_EPOCH).unwrap();
            let mut again = decoded(merge(row, &first, &object, &manager, None).unwrap());
            let later = Timestamp::from_second(1000).unwrap();
            track(row, Some(&first), &mut again, &manager, None, later).unwrap();
            assert_eq!(again, first);
        }
    }
}
