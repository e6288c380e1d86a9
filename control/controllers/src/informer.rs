//! Lists and watches one kind, and turns every change into a step that brings the world up to date.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::controller::Key;
use crate::graph::{Item, ResourceRef};
use crate::view::{Tabled, World};

/// A step the dispatcher carries out on the world.
pub(crate) enum Step {
    Apply(Box<dyn FnOnce(&mut World) -> Applied + Send>),
    /// The first list of a resource is complete.
    Listed(String),
    /// Kinds that were found and will be listed.
    Discovered(Vec<String>),
    /// A kind that is no longer served; its objects are gone.
    Withdrawn(String),
}

/// Metadata before and after a step.
pub(crate) struct Applied {
    pub(crate) resource: String,
    pub(crate) key: Key,
    pub(crate) old: Option<Arc<dyn Described>>,
    pub(crate) new: Option<Arc<dyn Described>>,
}

/// Anything with metadata.
pub(crate) trait Described: Send + Sync {
    fn described(&self) -> &ObjectMeta;
}

impl<T: Tabled> Described for T {
    fn described(&self) -> &ObjectMeta {
        self.meta()
    }
}

/// Metadata of an object whose kind has no table.
struct Bare(ObjectMeta);

impl Described for Bare {
    fn described(&self) -> &ObjectMeta {
        &self.0
    }
}

/// Watches kind `T`, restricted to a field selector if there is one, until the receiver is gone.
pub(crate) async fn inform<T>(client: Client, fields: Option<&'static str>, steps: mpsc::Sender<Step>)
where
    T: Tabled + DeserializeOwned + Debug,
    T: Resource<Scope = kube::core::DynamicResourceScope>,
{
    let resource = Arc::new(ResourceRef {
        group: T::group(&()).into_owned(),
        version: T::version(&()).into_owned(),
        plural: T::plural(&()).into_owned(),
        kind: T::kind(&()).into_owned(),
    });
    let api: Api<T> = Api::all_with(client, &());
    let config =
        fields.map_or_else(watcher::Config::default, |fields| watcher::Config::default().fields(fields));
    let events = watcher::watcher(api, config.any_semantic());
    let upsert = |resource: &Arc<ResourceRef>, object: T| upsert_row(Arc::clone(resource), object);
    let remove = |resource: &Arc<ResourceRef>, key: Key| remove_row::<T>(Arc::clone(resource), key);
    follow(events, resource, steps, upsert, remove).await;
}

/// Watches the metadata of a kind known only by discovery.
pub(crate) async fn inform_metadata(client: Client, kind: ApiResource, steps: mpsc::Sender<Step>) {
    let resource = Arc::new(ResourceRef {
        group: kind.group.clone(),
        version: kind.version.clone(),
        plural: kind.plural.clone(),
        kind: kind.kind.clone(),
    });
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind);
    let events = watcher::watcher(api, watcher::Config::default().any_semantic());
    let upsert = |resource: &Arc<ResourceRef>, object: PartialObjectMeta<DynamicObject>| {
        upsert_meta(Arc::clone(resource), object.metadata)
    };
    let remove = |resource: &Arc<ResourceRef>, key: Key| remove_meta(Arc::clone(resource), key);
    follow(events, resource, steps, upsert, remove).await;
}

type Apply = Box<dyn FnOnce(&mut World) -> Applied + Send>;

/// Turns the events of one watch into steps. A list that begins anew removes what it no longer holds.
async fn follow<K: HasMeta>(
    events: impl futures::Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    resource: Arc<ResourceRef>,
    steps: mpsc::Sender<Step>,
    upsert: impl Fn(&Arc<ResourceRef>, K) -> Apply,
    remove: impl Fn(&Arc<ResourceRef>, Key) -> Apply,
) {
    let mut events = std::pin::pin!(events.default_backoff());
    let (mut known, mut fresh) = (HashSet::new(), HashSet::new());
    while let Some(event) = events.next().await {
        let mut out = Vec::new();
        match event {
            Ok(Event::Init) => fresh.clear(),
            Ok(Event::InitApply(object)) => {
                fresh.insert(key_of(object.object_meta()));
                out.push(Step::Apply(upsert(&resource, object)));
            }
            Ok(Event::InitDone) => {
                out.extend(known.difference(&fresh).cloned().map(|key| Step::Apply(remove(&resource, key))));
                known = std::mem::take(&mut fresh);
                out.push(Step::Listed(resource.resource()));
            }
            Ok(Event::Apply(object)) => {
                known.insert(key_of(object.object_meta()));
                out.push(Step::Apply(upsert(&resource, object)));
            }
            Ok(Event::Delete(object)) => {
                let key = key_of(object.object_meta());
                known.remove(&key);
                out.push(Step::Apply(remove(&resource, key)));
            }
            Err(error) => {
                tracing::debug!(resource = resource.resource(), %error, "the watch broke and is started again");
            }
        }
        for step in out {
            if steps.send(step).await.is_err() {
                return;
            }
        }
    }
}

/// What `follow` needs of typed and of metadata-only objects.
trait HasMeta {
    fn object_meta(&self) -> &ObjectMeta;
}

impl<T: Tabled> HasMeta for T {
    fn object_meta(&self) -> &ObjectMeta {
        self.meta()
    }
}

impl HasMeta for PartialObjectMeta<DynamicObject> {
    fn object_meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

fn key_of(meta: &ObjectMeta) -> Key {
    Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn revision_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn upsert_row<T: Tabled>(resource: Arc<ResourceRef>, mut object: T) -> Apply {
    object.meta_mut().managed_fields = None;
    Box::new(move |world| {
        let key = key_of(object.meta());
        let object = Arc::new(object);
        let table = T::table_mut(world);
        table.seen = table.seen.max(revision_of(object.meta()));
        let old = table.insert(key.clone(), Arc::clone(&object));
        forget_replaced(world, old.as_ref().map(|old| old.meta()), object.meta());
        world.graph.insert(&resource, &key, object.meta());
        Applied {
            resource: resource.resource(),
            key,
            old: old.map(|old| old as Arc<dyn Described>),
            new: Some(object),
        }
    })
}

fn remove_row<T: Tabled>(resource: Arc<ResourceRef>, key: Key) -> Apply {
    Box::new(move |world| {
        let old = T::table_mut(world).remove(&key);
        if let Some(uid) = old.as_ref().and_then(|old| old.meta().uid.as_deref()) {
            world.graph.remove(uid);
        }
        Applied {
            resource: resource.resource(),
            key,
            old: old.map(|old| old as Arc<dyn Described>),
            new: None,
        }
    })
}

fn upsert_meta(resource: Arc<ResourceRef>, meta: ObjectMeta) -> Apply {
    Box::new(move |world| {
        let key = key_of(&meta);
        let seen = world.seen.entry(resource.resource()).or_default();
        *seen = (*seen).max(revision_of(&meta));
        let old = meta.uid.as_deref().and_then(|uid| world.graph.item(uid)).map(remembered);
        world.graph.insert(&resource, &key, &meta);
        Applied { resource: resource.resource(), key, old, new: Some(Arc::new(Bare(meta))) }
    })
}

fn remove_meta(resource: Arc<ResourceRef>, key: Key) -> Apply {
    Box::new(move |world| {
        let found = world.graph.find(&resource, &key).map(remembered);
        if let Some(uid) = found.as_ref().and_then(|old| old.described().uid.as_deref()) {
            world.graph.remove(uid);
        }
        Applied { resource: resource.resource(), key, old: found, new: None }
    })
}

/// Who an object without a table was, and whose: what the graph knows of it.
fn remembered(item: &Item) -> Arc<dyn Described> {
    Arc::new(Bare(ObjectMeta {
        uid: Some(item.uid.clone()),
        owner_references: Some(item.owners.clone()),
        ..ObjectMeta::default()
    }))
}

/// Takes every object of a resource out of the graph.
pub(crate) fn withdraw(world: &mut World, resource: &str) -> Vec<Applied> {
    let gone: Vec<(Arc<ResourceRef>, Key)> = world
        .graph
        .items()
        .filter(|item| item.resource.resource() == resource)
        .map(|item| (Arc::clone(&item.resource), item.key.clone()))
        .collect();
    gone.into_iter().map(|(resource, key)| remove_meta(resource, key)(world)).collect()
}

/// An object deleted and made again between two events has another uid; the old one must leave the graph.
fn forget_replaced(world: &mut World, old: Option<&ObjectMeta>, new: &ObjectMeta) {
    if let Some(uid) = old.and_then(|old| old.uid.as_deref()).filter(|uid| Some(*uid) != new.uid.as_deref()) {
        world.graph.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn thing(plural: &str) -> ResourceRef {
        ResourceRef {
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            kind: "Thing".to_owned(),
        }
    }

    #[test]
    fn a_change_of_an_object_without_a_table_tells_whose_it_was() {
        let (mut world, resource) = (World::default(), Arc::new(thing("things")));
        let mut meta = ObjectMeta { uid: Some("t".to_owned()), ..ObjectMeta::default() };
        let owner = OwnerReference { uid: "o".to_owned(), ..OwnerReference::default() };
        meta.owner_references = Some(vec![owner.clone()]);
        assert!(upsert_meta(Arc::clone(&resource), meta.clone())(&mut world).old.is_none());
        meta.owner_references = None;
        let freed = upsert_meta(resource, meta)(&mut world);
        assert_eq!(freed.old.unwrap().described().owner_references, Some(vec![owner]));
    }

    #[test]
    fn a_kind_that_goes_takes_its_objects_out_of_the_graph() {
        let mut world = World::default();
        for (plural, uid) in [("things", "t"), ("others", "o")] {
            let meta = ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() };
            upsert_meta(Arc::new(thing(plural)), meta)(&mut world);
        }
        let gone = withdraw(&mut world, "things.example.com");
        let told: Vec<_> =
            gone.iter().map(|one| one.old.as_ref().and_then(|old| old.described().uid.clone())).collect();
        assert_eq!(told, [Some("t".to_owned())]);
        assert!(gone.iter().all(|one| one.new.is_none()));
        assert!(world.graph.item("t").is_none() && world.graph.item("o").is_some());
    }
}
