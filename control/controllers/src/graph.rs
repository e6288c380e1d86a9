//! The owner graph: metadata of every object of every kind, by uid, with the edges from owners to dependents.

use std::borrow::Borrow;
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
    /// The `resourceVersion` of which all this was read.
    pub(crate) version: Option<String>,
}

/// All items, and who depends on whom. Dependents of owners that do not exist are kept: their owner may be gone.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, BTreeSet<String>>,
    /// By namespace: name and uid.
    namespaces: HashMap<String, BTreeSet<(String, String)>>,
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
        let place = (key.name.clone(), uid.clone());
        self.namespaces.entry(key.namespace.clone()).or_default().insert(place);
        let item = Item {
            resource: Arc::clone(resource),
            key: key.clone(),
            uid: uid.clone(),
            owners,
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            version: meta.resource_version.clone(),
        };
        self.items.insert(uid, item);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(item) = self.items.remove(uid) else { return };
        for owner in &item.owners {
            unlink(&mut self.dependents, &owner.uid, uid);
        }
        unlink(&mut self.namespaces, &item.key.namespace, &(item.key.name, uid.to_owned()));
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
        self.namespaces.get(namespace).into_iter().flatten().filter_map(|(_, uid)| self.items.get(uid))
    }

    /// The object with this key, if it is known.
    pub(crate) fn find(&self, resource: &ResourceRef, key: &Key) -> Option<&Item> {
        let from = (key.name.clone(), String::new());
        let places = self.namespaces.get(&key.namespace)?.range(from..);
        let named = places.take_while(|(name, _)| *name == key.name);
        named.filter_map(|(_, uid)| self.items.get(uid)).find(|item| *item.resource == *resource)
    }
}

fn unlink<T: Ord + ?Sized, E: Ord + Borrow<T>>(edges: &mut HashMap<String, BTreeSet<E>>, from: &str, to: &T) {
    if let Some(set) = edges.get_mut(from) {
        set.remove(to);
        if set.is_empty() {
            edges.remove(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(plural: &str) -> Arc<ResourceRef> {
        let plural = plural.to_owned();
        Arc::new(ResourceRef { group: String::new(), version: "v1".to_owned(), kind: plural.clone(), plural })
    }

    #[test]
    fn an_object_is_found_by_its_key_among_those_of_one_name() {
        let mut graph = Graph::default();
        let (pods, secrets) = (reference("pods"), reference("secrets"));
        let put = |graph: &mut Graph, resource, namespace, name, uid: &str| {
            let meta = ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() };
            graph.insert(resource, &Key::new(namespace, name), &meta);
        };
        put(&mut graph, &pods, "d", "a", "1");
        put(&mut graph, &secrets, "d", "a", "2");
        put(&mut graph, &pods, "d", "ab", "3");
        put(&mut graph, &pods, "e", "a", "4");
        let found = |graph: &Graph, resource: &ResourceRef, namespace, name| {
            graph.find(resource, &Key::new(namespace, name)).map(|item| item.uid.clone())
        };
        assert_eq!(found(&graph, &pods, "d", "a").as_deref(), Some("1"));
        assert_eq!(found(&graph, &secrets, "d", "a").as_deref(), Some("2"));
        assert_eq!(found(&graph, &pods, "e", "a").as_deref(), Some("4"));
        assert_eq!(found(&graph, &secrets, "d", "ab"), None);
        graph.remove("1");
        assert_eq!(found(&graph, &pods, "d", "a"), None);
        assert_eq!(graph.within("d").count(), 2);
    }
}
