//! Which kinds there are: the metadata of those without a table is watched for the owner graph, for as long as they are
//! served.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::discovery::verbs;
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::discovery::{ApiCapabilities, Discovery};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::informer::{Step, inform_metadata};

/// How often new kinds are looked for.
const PERIOD: Duration = Duration::from_secs(30);
/// How long after a change of a definition: what comes at once is looked at once.
const PAUSE: Duration = Duration::from_millis(200);

/// An informer of a kind known only by discovery.
struct Informer {
    version: String,
    task: AbortOnDropHandle<()>,
}

/// Finds kinds for ever. `typed` are resources that have a table, and so an informer already.
pub(crate) async fn discover(client: Client, typed: BTreeSet<String>, steps: mpsc::Sender<Step>) {
    let mut informers: HashMap<String, Informer> = HashMap::new();
    let mut definitions = std::pin::pin!(definitions(client.clone()));
    loop {
        match Discovery::new(client.clone()).run_aggregated().await {
            Ok(found) => {
                let present = collectable(&found, &typed);
                if update(&client, &present, &mut informers, &steps).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "discovery failed and is tried again"),
        }
        let period = if informers.is_empty() { PAUSE } else { PERIOD };
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            Some(()) = definitions.next() => {
                tokio::time::sleep(PAUSE).await;
                while definitions.next().now_or_never().flatten().is_some() {}
            }
        }
    }
}

/// Kinds without a table whose objects can be listed, watched and deleted, by resource.
fn collectable(found: &Discovery, typed: &BTreeSet<String>) -> HashMap<String, ApiResource> {
    let resources = found.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    resources
        .filter(|(kind, capabilities)| is_collectable(capabilities) && !is_event(kind))
        .map(|(kind, _)| (resource_name(&kind), kind))
        .filter(|(name, _)| !typed.contains(name))
        .collect()
}

fn resource_name(kind: &ApiResource) -> String {
    if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) }
}

/// Events come and go by themselves, and in numbers.
fn is_event(kind: &ApiResource) -> bool {
    kind.plural == "events" && matches!(kind.group.as_str(), "" | "events.k8s.io")
}

fn is_collectable(capabilities: &ApiCapabilities) -> bool {
    [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb))
}

/// Starts and stops informers so that every kind that is present has one. Fails when nobody takes steps any more.
async fn update(
    client: &Client,
    present: &HashMap<String, ApiResource>,
    informers: &mut HashMap<String, Informer>,
    steps: &mpsc::Sender<Step>,
) -> Result<(), mpsc::error::SendError<Step>> {
    let gone: Vec<String> = informers
        .iter()
        .filter(|(name, informer)| present.get(*name).is_none_or(|kind| kind.version != informer.version))
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        let Some(informer) = informers.remove(&name) else { continue };
        informer.task.abort();
        // No step of it may come after the one that says that its kind is gone.
        if let Err(error) = informer.task.await
            && error.is_panic()
        {
            tracing::error!(resource = name, "the informer of a kind that went had panicked");
        }
        steps.send(Step::Withdrawn(name)).await?;
    }
    let fresh: Vec<&String> = present.keys().filter(|name| !informers.contains_key(*name)).collect();
    // Announced before they are listed, so that a quick list cannot be overtaken by its announcement.
    steps.send(Step::Discovered(fresh.iter().map(|name| (*name).clone()).collect())).await?;
    for name in fresh {
        let kind = present[name].clone();
        let version = kind.version.clone();
        let task = tokio::spawn(inform_metadata(client.clone(), kind, steps.clone()));
        informers.insert(name.clone(), Informer { version, task: AbortOnDropHandle::new(task) });
    }
    Ok(())
}

/// One item for each list and each change of CustomResourceDefinitions.
fn definitions(client: Client) -> impl Stream<Item = ()> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let kind = ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions");
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind);
    let events = watcher::watcher(api, watcher::Config::default().any_semantic()).default_backoff();
    events.filter_map(|event| async move {
        match event {
            // A list may hold what was made since the kinds were last looked for.
            Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_)) => Some(()),
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "the watch of definitions broke and is started again");
                None
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clusters_own_events_are_left_alone() {
        let events = |group: &str| {
            let kind = GroupVersionKind::gvk(group, "v1", "Event");
            is_event(&ApiResource::from_gvk_with_plural(&kind, "events"))
        };
        assert!(events("") && events("events.k8s.io"));
        assert!(!events("example.com"), "custom objects go with their namespace whatever they are called");
    }
}
