//! The owner graph: metadata of every object of every kind, by uid, with the edges from owners to dependents.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controller::Key;

/// Where a kind is served.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ResourceRef {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) kind: String,
}

impl ResourceRef {
    /// Plural with the group where there is one: `pods`, `deployments.apps`.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// What garbage collection has to know of an object.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) resource: Arc<ResourceRef>,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
}

/// All items, and who depends on whom. Dependents of owners that do not exist are kept: their owner may be gone.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, BTreeSet<String>>,
    namespaces: HashMap<String, BTreeSet<String>>,
    /// Every kind has been listed once, so an owner that is not here does not exist.
    pub(crate) complete: bool,
}

impl Graph {
    pub(crate) fn insert(&mut self, resource: &Arc<ResourceRef>, key: &Key, meta: &ObjectMeta) {
        let Some(uid) = meta.uid.clone() else { return };
        self.remove(&uid);
        let owners = meta.owner_references.clone().unwrap_or_default();
        for owner in &owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        self.namespaces.entry(key.namespace.clone()).or_default().insert(uid.clone());
        let item = Item {
            resource: Arc::clone(resource),
            key: key.clone(),
            uid: uid.clone(),
            owners,
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        };
        self.items.insert(uid, item);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(item) = self.items.remove(uid) else { return };
        for owner in &item.owners {
            unlink(&mut self.dependents, &owner.uid, uid);
        }
        unlink(&mut self.namespaces, &item.key.namespace, uid);
    }

    pub(crate) fn item(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Item> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.items.get(uid))
    }

    /// Everything in a namespace.
    pub(crate) fn within(&self, namespace: &str) -> impl Iterator<Item = &Item> {
        self.namespaces.get(namespace).into_iter().flatten().filter_map(|uid| self.items.get(uid))
    }
}

fn unlink(edges: &mut HashMap<String, BTreeSet<String>>, from: &str, to: &str) {
    if let Some(set) = edges.get_mut(from) {
        set.remove(to);
        if set.is_empty() {
            edges.remove(from);
        }
    }
}
