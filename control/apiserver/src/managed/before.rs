//! Who owned what before a write: as it is stored, as the client says, or as it has to be assumed.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::set::Set;
use super::versions::Changes;
use super::{Entry, Manager, scoped};
use crate::resources::{Row, Sub};
use crate::tree::{at, list, text};

/// Owns what is there when an object is applied that nobody is known to have written.
const NOBODY: &str = "before-first-apply";
/// Longest name of a manager, in bytes.
const MAX_MANAGER: usize = 128;
/// Longest name of a subresource, in bytes.
const MAX_SUBRESOURCE: usize = 256;

/// The entries of `metadata.managedFields` a write begins with. Who writes the whole object may change them (`given`, as the
/// client has it): one empty entry, or a list of none, makes forget them; what cannot be read is not heard.
pub fn owners<'a>(
    row: &Row,
    old: Option<&'a Value>,
    given: Option<&Value>,
    manager: &Manager,
    sub: Option<Sub>,
    now: &str,
) -> Cow<'a, [Value]> {
    let Some(old) = old else { return Cow::Borrowed(&[]) };
    let stored = list(old, &["metadata", "managedFields"]);
    if manager.apply {
        return if stored.is_empty() {
            Cow::Owned(vec![assumed(row, old, sub, now)])
        } else {
            Cow::Borrowed(stored)
        };
    }
    let Some(given) = given.and_then(Value::as_array).filter(|given| sub.is_none() && *given != stored)
    else {
        return Cow::Borrowed(stored);
    };
    match &given[..] {
        // Of custom objects it is the same as nothing, because that is how Go reads what has no type.
        [] if row.custom.is_some() => Cow::Borrowed(stored),
        [] => Cow::Borrowed(&[]),
        [only] if only.as_object().is_some_and(serde_json::Map::is_empty) => Cow::Borrowed(&[]),
        _ => said(given).map_or(Cow::Borrowed(stored), Cow::Owned),
    }
}

/// The owner of everything there is.
fn assumed(row: &Row, old: &Value, sub: Option<Sub>, now: &str) -> Value {
    let everything = Changes::new(row, None, row.shown(old));
    let entry = Entry {
        manager: NOBODY.to_owned(),
        operation: "Update".to_owned(),
        api_version: row.api_version(),
        subresource: sub.map_or("", Sub::name).to_owned(),
        time: json!(now),
        set: scoped(row, everything.own().changed.clone(), sub),
    };
    entry.json()
}

/// Entries as a client says them, each owner once; `None` if one of them cannot be read.
fn said(given: &[Value]) -> Option<Vec<Value>> {
    let mut entries: Vec<Entry> = Vec::new();
    for one in given {
        let word = |field: &str| text(one, &[field]);
        let is_readable = matches!(word("operation"), "Apply" | "Update")
            && !word("apiVersion").is_empty()
            && word("fieldsType") == "FieldsV1"
            && word("manager").len() <= MAX_MANAGER
            && word("subresource").len() <= MAX_SUBRESOURCE
            && Set::is_readable(at(one, &["fieldsV1"]));
        let entry = is_readable.then(|| Entry::read(one))?;
        entries.retain(|known| !known.is_of(&entry));
        entries.push(entry);
    }
    Some(entries.iter().map(Entry::json).collect())
}

impl Entry {
    /// Whether two entries are one owner's.
    fn is_of(&self, other: &Self) -> bool {
        let version =
            |entry: &Self| if entry.operation == "Apply" { String::new() } else { entry.api_version.clone() };
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && version(self) == version(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> &'static Row {
        crate::resources::known("", "configmaps")
    }

    fn entry(manager: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2020-01-01T00:00:00Z",
               "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {field: {}}}})
    }

    fn map(entries: &Value) -> Value {
        json!({"metadata": {"name": "a", "managedFields": entries}, "data": {"a": "1"}})
    }

    fn manager(apply: bool) -> Manager {
        Manager { name: "me".to_owned(), apply, force: false, wanted: None, last_applied: None }
    }

    #[test]
    fn who_writes_an_object_may_say_who_owned_what() {
        let stored = map(&json!([entry("one", "f:a")]));
        let changed = |field: &str, value: Value| {
            let mut changed = entry("two", "f:a");
            changed[field] = value;
            json!([changed])
        };
        let old = json!([entry("one", "f:a")]);
        for (given, want) in [
            (old.clone(), &old),
            (Value::Null, &old),
            (
                json!([entry("two", "f:b"), entry("one", "f:a")]),
                &json!([entry("two", "f:b"), entry("one", "f:a")]),
            ),
            (json!([entry("two", "f:b"), entry("two", "f:a")]), &json!([entry("two", "f:a")])),
            (json!([]), &json!([])),
            (json!([{}]), &json!([])),
            (json!([{}, {}]), &old),
            (changed("operation", json!("Create")), &old),
            (changed("apiVersion", json!("")), &old),
            (changed("fieldsType", Value::Null), &old),
            (changed("fieldsType", json!("FieldsV2")), &old),
            (changed("manager", json!("x".repeat(MAX_MANAGER + 1))), &old),
            (changed("subresource", json!("x".repeat(MAX_SUBRESOURCE + 1))), &old),
            (changed("fieldsV1", json!({"x:a": {}})), &old),
            (changed("fieldsV1", json!({"k:a": {}})), &old),
            (changed("fieldsV1", json!({"f:a": 1})), &old),
            (changed("fieldsV1", json!([])), &old),
        ] {
            let found = owners(row(), Some(&stored), Some(&given), &manager(false), None, "now");
            assert_eq!(json!(found), *want, "{given}");
            let of_part =
                owners(row(), Some(&stored), Some(&given), &manager(false), Some(Sub::Status), "now");
            assert_eq!(json!(of_part), old, "{given} of a part");
            let applied = owners(row(), Some(&stored), Some(&given), &manager(true), None, "now");
            assert_eq!(json!(applied), old, "{given} is applied");
        }
    }

    #[test]
    fn what_nobody_is_known_to_own_is_somebodys_when_it_is_applied() {
        let old = map(&Value::Null);
        assert!(owners(row(), Some(&old), None, &manager(false), None, "now").is_empty());
        assert!(owners(row(), None, None, &manager(true), None, "now").is_empty());
        let mut want = entry(NOBODY, "f:a");
        want["time"] = json!("now");
        want["fieldsV1"] = json!({"f:data": {".": {}, "f:a": {}}});
        let found = owners(row(), Some(&old), None, &manager(true), None, "now");
        assert_eq!(json!(found), json!([want]));
    }
}
