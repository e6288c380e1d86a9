//! Owner references: dependents go when their last owner goes, before it (foreground), or are let go (orphan).
//!
//! An owner counts as gone when every kind has been listed and no object has its uid. A reference from one namespace
//! into another, or to a uid of another kind or name, is never resolved by guessing: such an owner does not exist.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::graph::{Graph, Item};
use crate::view::View;
use crate::write::{Target, Write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Keys are uids, as cluster keys.
pub(crate) struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn needs_every_kind(&self) -> bool {
        true
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        let mut uids: Vec<&str> = Vec::new();
        for meta in change.metas() {
            uids.extend(meta.uid.as_deref());
            // An owner that waits for its dependents looks again when one of them changes.
            uids.extend(meta.owner_references.iter().flatten().map(|owner| owner.uid.as_str()));
        }
        if let Some(gone) = change.old.filter(|_| change.new.is_none()).and_then(|meta| meta.uid.as_deref()) {
            uids.extend(view.graph.dependents(gone).map(|item| item.uid.as_str()));
        }
        if let Some(uid) =
            change.new.filter(|meta| meta.deletion_timestamp.is_some()).and_then(|meta| meta.uid.as_deref())
        {
            uids.extend(view.graph.dependents(uid).map(|item| item.uid.as_str()));
        }
        uids.sort_unstable();
        uids.dedup();
        uids.into_iter().map(Key::cluster).collect()
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        let graph = &view.graph;
        let Some(item) = graph.item(&key.name).filter(|_| graph.complete) else { return Outcome::nothing() };
        if item.deleting {
            return Outcome::writes(leave(item, graph));
        }
        Outcome::writes(collect(item, graph).into_iter().collect())
    }
}

/// What a dying owner still owes its dependents.
fn leave(item: &Item, graph: &Graph) -> Vec<Write> {
    let waits_for = |finalizer: &str| item.finalizers.iter().any(|one| one == finalizer);
    if waits_for(ORPHAN) {
        let mut writes: Vec<Write> =
            graph.dependents(&item.uid).map(|dependent| release(dependent, &[&item.uid])).collect();
        if writes.is_empty() {
            writes.push(drop_finalizer(item, ORPHAN));
        }
        return writes;
    }
    if waits_for(FOREGROUND) {
        let blocking = |dependent: &&Item| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == item.uid && owner.block_owner_deletion == Some(true))
        };
        // Dependents are deleted through their own keys, which this deletion has woken.
        return if graph.dependents(&item.uid).any(|dependent| blocking(&dependent)) {
            Vec::new()
        } else {
            vec![drop_finalizer(item, FOREGROUND)]
        };
    }
    Vec::new()
}

/// Deletes a dependent none of whose owners stays, or takes the owners off it that do not.
fn collect(item: &Item, graph: &Graph) -> Option<Write> {
    if item.owners.is_empty() {
        return None;
    }
    let state = |uid: &str| match graph.item(uid) {
        None => Owner::Gone,
        Some(owner) if !owner.key.namespace.is_empty() && owner.key.namespace != item.key.namespace => {
            Owner::Gone
        }
        Some(owner) if owner.deleting && owner.finalizers.iter().any(|one| one == FOREGROUND) => {
            Owner::Waiting
        }
        Some(_) => Owner::Alive,
    };
    let owners: Vec<(&str, Owner)> =
        item.owners.iter().map(|owner| (owner.uid.as_str(), state(&owner.uid))).collect();
    let any = |wanted: Owner| owners.iter().any(|(_, state)| *state == wanted);
    if any(Owner::Alive) {
        // Who waits for this object would wait for ever.
        let others = owners.iter().filter(|(_, state)| *state != Owner::Alive);
        let others: Vec<&str> = others.map(|(uid, _)| *uid).collect();
        return (!others.is_empty()).then(|| release(item, &others));
    }
    let has_dependents = graph.dependents(&item.uid).next().is_some();
    let foreground = any(Owner::Waiting) && has_dependents;
    if foreground && in_circle(item, graph) {
        return Some(unblock(item));
    }
    let propagation = if foreground { "Foreground" } else { "Background" };
    Some(Write::Delete {
        target: Target::of(&item.resource, item.key.clone()),
        uid: item.uid.clone(),
        propagation: Some(propagation),
    })
}

/// Whether an owner would wait for this object, and it for one that waits as well. Those may wait for each other: as upstream
/// it is not looked further, because nobody is hurt when an owner goes first.
fn in_circle(item: &Item, graph: &Graph) -> bool {
    let waits =
        |dependent: &Item| dependent.deleting && dependent.finalizers.iter().any(|one| one == FOREGROUND);
    item.owners.iter().any(|owner| owner.block_owner_deletion == Some(true))
        && graph.dependents(&item.uid).any(waits)
}

/// Lets the owners of an object go before it. When that is written, the object is looked at again.
fn unblock(item: &Item) -> Write {
    let free =
        |owner: &OwnerReference| json!(OwnerReference { block_owner_deletion: Some(false), ..owner.clone() });
    patch(item, json!({"ownerReferences": item.owners.iter().map(free).collect::<Vec<_>>()}))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Alive,
    /// Deleted in the foreground: waits for this dependent.
    Waiting,
    Gone,
}

/// Takes owners off an object.
fn release(item: &Item, uids: &[&str]) -> Write {
    let kept: Vec<Value> = item
        .owners
        .iter()
        .filter(|owner| !uids.contains(&owner.uid.as_str()))
        .map(|owner| json!(owner))
        .collect();
    patch(item, json!({"ownerReferences": kept}))
}

fn drop_finalizer(item: &Item, finalizer: &str) -> Write {
    let kept: Vec<&String> = item.finalizers.iter().filter(|one| *one != finalizer).collect();
    patch(item, json!({"finalizers": kept}))
}

/// Replaces a list of the metadata as it is known here: not of another object of this name, and not when somebody else has
/// written in between, who may have added to it.
fn patch(item: &Item, mut metadata: Value) -> Write {
    metadata["uid"] = json!(item.uid);
    metadata["resourceVersion"] = json!(item.version);
    let target = Target::of(&item.resource, item.key.clone());
    Write::Patch { target, subresource: None, body: json!({"metadata": metadata}) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    fn object(kind: &str, uid: &str, owners: &[&str]) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .map(|owner| json!({"apiVersion": "v1", "kind": "X", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
            .collect();
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": uid, "namespace": "d", "uid": uid, "ownerReferences": owners}})
    }

    fn dying(mut object: Value, finalizers: &[&str]) -> Value {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["metadata"]["finalizers"] = json!(finalizers);
        object
    }

    fn look(uid: &str, objects: &[Value]) -> Vec<Write> {
        GarbageCollector.reconcile(&Key::cluster(uid), &world(objects), Timestamp::UNIX_EPOCH).writes
    }

    #[test]
    fn a_dependent_goes_with_its_last_owner() {
        assert_eq!(look("b", &[object("Widget", "a", &[]), object("Widget", "b", &["a"])]), []);
        let gone = look("b", &[object("Widget", "b", &["a"])]);
        assert!(
            matches!(gone.as_slice(), [Write::Delete { propagation: Some("Background"), .. }]),
            "{gone:?}"
        );
        let one_left = look("b", &[object("Widget", "c", &[]), object("Widget", "b", &["a", "c"])]);
        let [Write::Patch { body, .. }] = one_left.as_slice() else { panic!("{one_left:?}") };
        assert_eq!(body["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_collected_before_every_kind_is_known() {
        let mut world = world(&[object("Widget", "b", &["a"])]);
        world.graph.complete = false;
        let outcome = GarbageCollector.reconcile(&Key::cluster("b"), &world, Timestamp::UNIX_EPOCH);
        assert_eq!(outcome, Outcome::nothing());
    }

    #[test]
    fn an_owner_in_another_namespace_does_not_count() {
        let mut owner = object("Widget", "a", &[]);
        owner["metadata"]["namespace"] = json!("elsewhere");
        assert!(matches!(
            look("b", &[owner, object("Widget", "b", &["a"])]).as_slice(),
            [Write::Delete { .. }]
        ));
    }

    #[test]
    fn orphaning_releases_dependents_and_then_the_owner() {
        let owner = dying(object("Widget", "a", &[]), &[ORPHAN, "other"]);
        let released = look("a", &[owner.clone(), object("Widget", "b", &["a"])]);
        let [Write::Patch { target, body, .. }] = released.as_slice() else { panic!("{released:?}") };
        assert_eq!((target.key.name.as_str(), &body["metadata"]["ownerReferences"]), ("b", &json!([])));
        let finished = look("a", &[owner]);
        let [Write::Patch { body, .. }] = finished.as_slice() else { panic!("{finished:?}") };
        assert_eq!(body["metadata"]["finalizers"], json!(["other"]));
    }

    #[test]
    fn lists_are_replaced_as_they_were_read() {
        let mut owned = object("Widget", "b", &["a", "c"]);
        owned["metadata"]["resourceVersion"] = json!("7");
        let freed = look("b", &[object("Widget", "c", &[]), owned]);
        let [Write::Patch { body, .. }] = freed.as_slice() else { panic!("{freed:?}") };
        assert_eq!(
            (&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]),
            (&json!("b"), &json!("7"))
        );
    }

    #[test]
    fn foreground_deletion_waits_for_dependents() {
        let owner = dying(object("Widget", "a", &[]), &[FOREGROUND]);
        let objects = [owner.clone(), object("Widget", "b", &["a"])];
        assert_eq!(look("a", &objects), []);
        assert!(matches!(look("b", &objects).as_slice(), [Write::Delete { .. }]));
        assert!(matches!(look("a", &[owner]).as_slice(), [Write::Patch { .. }]));
    }

    #[test]
    fn a_dependent_that_another_owner_keeps_is_let_go_by_the_one_that_waits_for_it() {
        let owner = dying(object("Widget", "a", &[]), &[FOREGROUND]);
        let freed = look("b", &[owner, object("Widget", "c", &[]), object("Widget", "b", &["a", "c"])]);
        let [Write::Patch { body, .. }] = freed.as_slice() else { panic!("{freed:?}") };
        let kept = body["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!(kept.iter().map(|owner| &owner["uid"]).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn who_closes_a_circle_lets_its_owner_go_first() {
        let mut last = object("Widget", "c", &["b"]);
        let waiting = [
            dying(object("Widget", "a", &["c"]), &[FOREGROUND]),
            dying(object("Widget", "b", &["a"]), &[FOREGROUND]),
        ];
        let world = |last: &Value| [&waiting[..], std::slice::from_ref(last)].concat();
        let freed = look("c", &world(&last));
        let [Write::Patch { body, .. }] = freed.as_slice() else { panic!("{freed:?}") };
        assert_eq!(body["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], false);
        last["metadata"]["ownerReferences"] = body["metadata"]["ownerReferences"].clone();
        let next = look("c", &world(&last));
        assert!(
            matches!(next.as_slice(), [Write::Delete { propagation: Some("Foreground"), .. }]),
            "{next:?}"
        );
        // Nothing blocks the second any more.
        assert!(matches!(look("b", &world(&dying(last, &[FOREGROUND]))).as_slice(), [Write::Patch { .. }]));
    }
}
