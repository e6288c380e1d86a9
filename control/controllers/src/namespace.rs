//! A namespace that is being deleted is emptied, then let go.
//!
//! Deletion waits for the finalizer `kubernetes` in `spec.finalizers`. Pods go first, so that nothing they rely on, a
//! NetworkPolicy say, goes under their feet; then everything else. What stays is told in conditions. When the owner graph
//! holds nothing of the namespace any more, its Events go, the finalizer is removed, and the API server forgets it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::graph::Item;
use crate::objects::{Kind, Namespace, Pod, deleting};
use crate::view::View;
use crate::write::{Target, Write};

const FINALIZER: &str = "kubernetes";
/// What there is to complain of when nothing goes wrong: type, reason and message.
const FINE: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (CONTENT, "ContentRemoved", "All content successfully removed"),
    (FINALIZERS, "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];
const CONTENT: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";

pub(crate) struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn needs_every_kind(&self) -> bool {
        true
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("namespaces") {
            return vec![change.key.clone()];
        }
        let namespace = Key::cluster(&change.key.namespace);
        let terminating =
            view.namespaces.row(&namespace).is_some_and(|namespace| deleting(&namespace.metadata).is_some());
        if terminating { vec![namespace] } else { Vec::new() }
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(namespace) = view.namespaces.row(key) else { return Outcome::nothing() };
        if deleting(&namespace.metadata).is_none() {
            return Outcome::nothing();
        }
        // A kind that has not been listed yet may hold content.
        if !view.graph.complete {
            return Outcome { again: Some(Duration::from_secs(1)), ..Outcome::default() };
        }
        let (pods, others): (Vec<&Item>, Vec<&Item>) =
            view.graph.within(&key.name).partition(|item| item.resource.resource() == Pod::RESOURCE);
        let first = if pods.is_empty() { others } else { pods };
        if first.is_empty() {
            return Outcome::writes(let_go(key, namespace));
        }
        let deletable: Vec<Write> =
            first.iter().filter(|item| !item.deleting).map(|item| delete(item)).collect();
        let writes = if deletable.is_empty() {
            told(key, namespace, &first, now).into_iter().collect()
        } else {
            deletable
        };
        // Admission or a finalizer may hold something back for a while.
        Outcome { writes, again: Some(Duration::from_secs(5)), ..Outcome::default() }
    }
}

fn delete(item: &Item) -> Write {
    Write::Delete {
        target: Target::of(&item.resource, item.key.clone()),
        uid: item.uid.clone(),
        propagation: Some("Background"),
    }
}

/// Nobody makes Events in a namespace that goes, so that these are the last.
fn let_go(key: &Key, namespace: &Namespace) -> Vec<Write> {
    if !namespace.spec.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Vec::new();
    }
    let events = Target::new("v1", "events", Key::new(&key.name, ""));
    let rest: Vec<_> = namespace.spec.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let body = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": key.name, "uid": namespace.metadata.uid,
            "resourceVersion": namespace.metadata.resource_version,
        },
        "spec": {"finalizers": rest},
    });
    let target = Target::new("v1", "namespaces", key.clone());
    vec![Write::DeleteAll { target: events }, Write::Replace { target, subresource: "finalize", body }]
}

/// Says what remains though it has been deleted, unless that has been said.
fn told(key: &Key, namespace: &Namespace, remaining: &[&Item], now: Timestamp) -> Option<Write> {
    let before = &namespace.status.conditions;
    let is_own = |one: &&NamespaceCondition| FINE.iter().any(|(type_, ..)| one.type_ == *type_);
    let own = FINE.map(|(type_, reason, message)| {
        let remains = match type_ {
            CONTENT => Some(("SomeResourcesRemain", resources(remaining))),
            FINALIZERS => finalizers(remaining).map(|held| ("SomeFinalizersRemain", held)),
            _ => None,
        };
        let status = if remains.is_some() { "True" } else { "False" };
        let (reason, message) = remains.unwrap_or_else(|| (reason, message.to_owned()));
        let since = before.iter().find(|one| one.type_ == type_ && one.status == status);
        NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.and_then(|one| one.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    let conditions: Vec<NamespaceCondition> =
        before.iter().filter(|one| !is_own(one)).cloned().chain(own).collect();
    let metadata = json!({ "resourceVersion": namespace.metadata.resource_version });
    let body = json!({ "metadata": metadata, "status": { "conditions": conditions } });
    let target = Target::new("v1", "namespaces", key.clone());
    (conditions != *before).then_some(Write::Patch { target, subresource: Some("status"), body })
}

/// How many there are of each kind; those of the core group have an empty one, as upstream says it.
fn resources(remaining: &[&Item]) -> String {
    let names = remaining.iter().map(|item| format!("{}.{}", item.resource.plural, item.resource.group));
    let counted =
        counted(names).into_iter().map(|(name, count)| format!("{name} has {count} resource instances"));
    format!("Some resources are remaining: {}", counted.collect::<Vec<_>>().join(", "))
}

fn finalizers(remaining: &[&Item]) -> Option<String> {
    let names = remaining.iter().flat_map(|item| item.finalizers.iter().cloned());
    let counted =
        counted(names).into_iter().map(|(name, count)| format!("{name} in {count} resource instances"));
    let listed: Vec<String> = counted.collect();
    let held = format!("Some content in the namespace has finalizers remaining: {}", listed.join(", "));
    (!listed.is_empty()).then_some(held)
}

fn counted(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    #[test]
    fn a_terminating_namespace_is_emptied_and_then_finalized() {
        let namespace = json!({
            "kind": "Namespace",
            "metadata": {"name": "a", "uid": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]},
        });
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "p"}});
        let look = |objects: &[serde_json::Value]| {
            NamespaceController.reconcile(&Key::cluster("a"), &world(objects), Timestamp::UNIX_EPOCH).writes
        };
        assert!(matches!(look(&[namespace.clone(), pod.clone()]).as_slice(), [Write::Delete { .. }]));
        let mut leaving = pod;
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let waits = look(&[namespace.clone(), leaving]);
        assert!(
            matches!(waits.as_slice(), [Write::Patch { .. }]),
            "what is on its way out is waited for: {waits:?}"
        );
        let done = look(std::slice::from_ref(&namespace));
        let [Write::DeleteAll { .. }, Write::Replace { subresource: "finalize", body, .. }] = done.as_slice()
        else {
            panic!("{done:?}")
        };
        assert_eq!(body["spec"]["finalizers"], json!([]));
        let mut alive = namespace;
        alive["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
        assert_eq!(look(&[alive]), []);
    }
    fn object(kind: &str, name: &str, deleting: bool, finalizers: &[&str]) -> serde_json::Value {
        let since = deleting.then_some("2026-01-01T00:00:00Z");
        json!({ "apiVersion": if kind == "Pod" { "v1" } else { "apps/v1" }, "kind": kind,
                "metadata": { "name": name, "namespace": "a", "uid": name, "finalizers": finalizers,
                              "deletionTimestamp": since } })
    }

    #[test]
    fn pods_go_before_everything_else() {
        let namespace = json!({ "kind": "Namespace", "metadata": { "name": "a", "uid": "n",
                                "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        let look = |objects: &[serde_json::Value]| {
            let world = world(&[std::slice::from_ref(&namespace), objects].concat());
            let writes =
                NamespaceController.reconcile(&Key::cluster("a"), &world, Timestamp::UNIX_EPOCH).writes;
            let deleted =
                |write: Write| matches!(write, Write::Delete { .. }).then(|| write.target().key.name.clone());
            writes.into_iter().filter_map(deleted).collect::<Vec<_>>()
        };
        let set = object("ReplicaSet", "s", false, &[]);
        assert_eq!(look(&[object("Pod", "p", false, &[]), set.clone()]), ["p"]);
        assert_eq!(look(&[object("Pod", "p", true, &[]), set.clone()]), Vec::<String>::new());
        assert_eq!(look(&[set]), ["s"]);
    }

    #[test]
    fn what_remains_is_told_once() {
        let mut namespace = json!({ "kind": "Namespace", "metadata": { "name": "a", "uid": "n",
            "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "status": { "conditions": [{ "type": "Other", "status": "True" }] } });
        let objects = [
            object("ReplicaSet", "r", true, &["example.com/b", "example.com/a"]),
            object("ReplicaSet", "s", true, &["example.com/a"]),
        ];
        let look = |namespace: &serde_json::Value| {
            let world = world(&[std::slice::from_ref(namespace), &objects].concat());
            NamespaceController.reconcile(&Key::cluster("a"), &world, Timestamp::UNIX_EPOCH).writes
        };
        let writes = look(&namespace);
        let [Write::Patch { subresource: Some("status"), body, .. }] = writes.as_slice() else {
            panic!("{writes:?}")
        };
        let conditions = &body["status"]["conditions"];
        let said = |type_: &str| {
            let one = conditions.as_array().unwrap().iter().find(|one| one["type"] == type_).unwrap();
            [&one["status"], &one["reason"], &one["message"]]
                .map(|text| text.as_str().unwrap_or("").to_owned())
        };
        assert_eq!(said("Other"), ["True", "", ""]);
        assert_eq!(said("NamespaceDeletionContentFailure")[..2], ["False", "ContentDeleted"]);
        let rest = "Some resources are remaining: replicasets.apps has 2 resource instances";
        assert_eq!(said(CONTENT), ["True", "SomeResourcesRemain", rest]);
        let held = "Some content in the namespace has finalizers remaining: \
                    example.com/a in 2 resource instances, example.com/b in 1 resource instances";
        assert_eq!(said(FINALIZERS), ["True", "SomeFinalizersRemain", held]);
        namespace["status"]["conditions"] = conditions.clone();
        assert_eq!(look(&namespace), []);
    }
}
