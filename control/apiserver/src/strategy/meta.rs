//! Rules of `metadata` that hold for every kind.

use std::cell::LazyCell;
use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use crate::resources::Row;
use crate::tree::{at, list, strings, text};
use crate::validate::{self, Errors};

/// Upstream's bound on all annotations together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Checks the metadata of an object that is to be written.
pub fn validate(resource: &Row, change: &Change<'_>, errors: &mut Errors) {
    let object = &*change.new;
    if change.old.is_none() {
        validate_name(resource, object, errors);
    }
    for (key, value) in strings(object, &["metadata", "labels"]) {
        errors.check("metadata.labels", key, validate::label_key);
        errors.check("metadata.labels", value, validate::label_value);
    }
    let mut size = 0;
    for (key, value) in strings(object, &["metadata", "annotations"]) {
        // The case of an annotation's key is nobody's business, but shown.
        if let Err(why) = validate::label_key(&key.to_ascii_lowercase()) {
            errors.invalid("metadata.annotations", &Value::from(key), &why);
        }
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long("metadata.annotations", MAX_ANNOTATIONS);
    }
    validate_owners(list(object, &["metadata", "ownerReferences"]), errors);
    validate_finalizers(resource, list(object, &["metadata", "finalizers"]), errors);
    if let Some(old) = change.old {
        validate_kept(old, object, errors);
    }
}

fn validate_name(resource: &Row, object: &Value, errors: &mut Errors) {
    match text(object, &["metadata", "generateName"]) {
        "" => {}
        base => {
            if let Err(why) = (resource.name)(&completed(base)) {
                errors.invalid("metadata.generateName", &Value::from(base), &why);
            }
        }
    }
    match text(object, &["metadata", "name"]) {
        "" => errors.required("metadata.name", "name or generateName is required"),
        name => errors.check("metadata.name", name, resource.name),
    }
}

/// The beginning of a name, which may end with a dash because more comes behind it.
fn completed(base: &str) -> String {
    match base.strip_suffix('-').and_then(|rest| rest.char_indices().next_back()) {
        Some((at, _)) => format!("{}a", &base[..at]),
        None => base.to_owned(),
    }
}

fn validate_owners(owners: &[Value], errors: &mut Errors) {
    let place = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    let all = LazyCell::new(|| Value::from(owners));
    for owner in owners {
        validate_owner(owner, errors);
        if at(owner, &["controller"]) != true {
            continue;
        }
        let name = format!("{}/{}", text(owner, &["kind"]), text(owner, &["name"]));
        if let Some(first) = &controller {
            let why = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
            );
            errors.invalid(place, &all, &why);
        } else {
            controller = Some(name);
        }
    }
}

fn validate_owner(owner: &Value, errors: &mut Errors) {
    let place = "metadata.ownerReferences";
    let version = text(owner, &["apiVersion"]);
    let has_version = match version.split_once('/') {
        Some((_, behind)) => !behind.is_empty() && !behind.contains('/'),
        None => !version.is_empty(),
    };
    if !has_version {
        errors.invalid(format!("{place}.apiVersion"), &Value::from(version), "version must not be empty");
    }
    for field in ["kind", "name", "uid"] {
        if text(owner, &[field]).is_empty() {
            errors.invalid(format!("{place}.{field}"), &Value::from(""), "must not be empty");
        }
    }
    if version == "v1" && text(owner, &["kind"]) == "Event" {
        errors.invalid(place, owner, "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn validate_finalizers(resource: &Row, finalizers: &[Value], errors: &mut Errors) {
    let place = "metadata.finalizers";
    let names = || finalizers.iter().map(|one| one.as_str().unwrap_or_default());
    names().for_each(|name| errors.check(place, name, validate::label_key));
    if ["orphan", "foregroundDeletion"].iter().all(|one| names().any(|name| name == *one)) {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(place, &Value::from(finalizers), why);
    }
    if knows_finalizers(resource) {
        for (index, name) in names().enumerate() {
            standard_finalizer(name, format!("{place}[{index}]"), errors);
        }
    }
}

/// Reports a finalizer that says nobody's name and is none of upstream's own.
pub fn standard_finalizer(name: &str, place: String, errors: &mut Errors) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(place, &Value::from(name), why);
    }
}

/// Finalizers without the name of who sets them.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// Whether upstream looks for such finalizers; of kinds outside of its core packages it does not.
fn knows_finalizers(resource: &Row) -> bool {
    const OTHERS: &[&str] = &[
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io",
        "internal.apiserver.k8s.io",
        "node.k8s.io",
        "policy",
    ];
    resource.custom.is_none() && !OTHERS.contains(&&*resource.group) && resource.own() != "events"
}

/// What never changes after creation, and that a deleted object gets no new finalizers.
fn validate_kept(old: &Value, new: &Value, errors: &mut Errors) {
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let place = format!("metadata.{field}");
        errors.immutable(&place, at(old, &["metadata", field]), at(new, &["metadata", field]));
    }
    if !at(old, &["metadata", "deletionTimestamp"]).is_null() {
        let before: HashSet<&Value> = list(old, &["metadata", "finalizers"]).iter().collect();
        let added: Vec<String> = list(new, &["metadata", "finalizers"])
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .map(ToString::to_string)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden("metadata.finalizers", &detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::known;

    fn refused(row: &Row, old: Option<&Value>, metadata: &Value) -> Vec<String> {
        let mut new = json!({ "metadata": { "name": "a" } });
        json_patch::merge(&mut new["metadata"], metadata);
        let mut errors = Errors::default();
        validate(row, &Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn owner(more: Value) -> Value {
        let mut owner = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u" });
        json_patch::merge(&mut owner, &more);
        owner
    }

    #[test]
    fn owners_are_named_in_full_and_one_controls() {
        let of =
            |owners: Value| refused(known("", "configmaps"), None, &json!({ "ownerReferences": owners }));
        assert_eq!(of(json!([owner(json!({})), owner(json!({ "controller": true }))])), [""; 0]);
        for (more, want) in [
            (json!({ "apiVersion": "" }), ".apiVersion: Invalid value: \"\": version must not be empty"),
            (
                json!({ "apiVersion": "apps/" }),
                ".apiVersion: Invalid value: \"apps/\": version must not be empty",
            ),
            (
                json!({ "apiVersion": "a/b/c" }),
                ".apiVersion: Invalid value: \"a/b/c\": version must not be empty",
            ),
            (json!({ "kind": "" }), ".kind: Invalid value: \"\": must not be empty"),
            (json!({ "name": null }), ".name: Invalid value: \"\": must not be empty"),
            (json!({ "uid": "" }), ".uid: Invalid value: \"\": must not be empty"),
        ] {
            assert_eq!(of(json!([owner(more)])), [format!("metadata.ownerReferences{want}")]);
        }
        let event = owner(json!({ "apiVersion": "v1", "kind": "Event" }));
        assert!(of(json!([event]))[0].ends_with(": /v1, Kind=Event is disallowed from being an owner"));
        let two = owner(json!({ "controller": true }));
        assert!(of(json!([two, two]))[0].ends_with("for Deployment/d and Deployment/d"));
    }

    #[test]
    fn finalizers_say_whose_they_are() {
        let of = |row: &Row, names: &[&str]| refused(row, None, &json!({ "finalizers": names }));
        let maps = known("", "configmaps");
        assert_eq!(of(maps, &["x.io/a", "orphan", "kubernetes"]), [""; 0]);
        let want = "metadata.finalizers[1]: Invalid value: \"keep\": name is neither a standard finalizer name nor is it fully qualified";
        assert_eq!(of(maps, &["x.io/a", "keep"]), [want]);
        assert_eq!(of(known("coordination.k8s.io", "leases"), &["keep"]), [""; 0]);
        let want = "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set";
        assert_eq!(of(maps, &["orphan", "foregroundDeletion"]), [want]);
    }

    #[test]
    fn an_object_that_leaves_gets_no_finalizers() {
        let old = json!({ "metadata": { "name": "a", "deletionTimestamp": "x", "finalizers": ["x.io/a"] } });
        let of =
            |names: &[&str]| refused(known("", "configmaps"), Some(&old), &json!({ "finalizers": names }));
        assert_eq!(of(&["x.io/a"]), [""; 0]);
        let want = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/b\", \"x.io/c\"}";
        assert_eq!(of(&["x.io/c", "x.io/a", "x.io/b"]), [want]);
    }

    #[test]
    fn names_are_made_from_what_may_begin_one() {
        let of = |base: &str| refused(known("", "configmaps"), None, &json!({ "generateName": base }));
        for good in ["a", "a-", "a.b-", "-"] {
            assert_eq!(of(good).len(), usize::from(good == "-"), "{good}");
        }
        for bad in ["A", "-a-", "a_b"] {
            assert!(of(bad)[0].starts_with("metadata.generateName: Invalid value"), "{bad}");
        }
    }

    #[test]
    fn keys_of_annotations_are_shown_as_they_came() {
        let found =
            refused(known("", "configmaps"), None, &json!({ "annotations": { "A/B/C": "", "X.io/A": "" } }));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("metadata.annotations: Invalid value: \"A/B/C\": a valid label key must"),
            "{found:?}"
        );
    }
}
