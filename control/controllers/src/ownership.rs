//! Which objects a controller object owns: by reference, by selector, adopted and released.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};

use crate::change::controller_of;
use crate::controller::Key;
use crate::objects::deleting;
use crate::selector;
use crate::view::{Tabled, View};
use crate::write::{Target, Write};

/// What an owner holds, and the writes that put references right.
pub(crate) struct Claim<'a, T> {
    pub(crate) owned: Vec<&'a Arc<T>>,
    /// Adoptions and releases; they show in `owned` once they have come back.
    pub(crate) writes: Vec<Write>,
    /// Whether there are adoptions: what is owned is not complete yet, and not to be counted.
    pub(crate) adopts: bool,
}

/// An owner reference that makes `owner` the controller.
pub(crate) fn reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": owner.name, "uid": owner.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Objects of kind `T` that `owner` controls and `labels` selects. Those it controls but no longer selects are released;
/// orphans it selects are adopted, unless the owner is being deleted or selects everything.
pub(crate) fn claim<'a, T: Tabled>(
    view: &'a View,
    owner: &ObjectMeta,
    labels: &LabelSelector,
    reference: &Value,
) -> Claim<'a, T> {
    let selected = |object: &T| selector::matches(labels, object.meta().labels.as_ref());
    let (owned, released): (Vec<_>, Vec<_>) =
        view.controlled::<T>(owner).into_iter().partition(|object| selected(object));
    let mut writes: Vec<Write> =
        released.into_iter().map(|object| set_owners::<T>(object, json!([]))).collect();
    let released = writes.len();
    let selects_everything = labels.match_labels.is_none() && labels.match_expressions.is_none();
    if !selects_everything && deleting(owner).is_none() {
        let namespace = owner.namespace.as_deref().unwrap_or_default();
        let orphans = T::table(view).within(namespace).map(|(_, object)| object);
        let adoptable = orphans.filter(|object| {
            controller_of(object.meta()).is_none() && deleting(object.meta()).is_none() && selected(object)
        });
        writes.extend(adoptable.map(|object| set_owners::<T>(object, json!([reference]))));
    }
    let adopts = writes.len() > released;
    Claim { owned, writes, adopts }
}

fn set_owners<T: Tabled>(object: &T, owners: Value) -> Write {
    let meta = object.meta();
    let key = Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let metadata =
        json!({"ownerReferences": owners, "uid": meta.uid, "resourceVersion": meta.resource_version});
    Write::Patch {
        target: Target::new(&T::api_version(&()), &T::plural(&()), key),
        subresource: None,
        body: json!({"metadata": metadata}),
    }
}
