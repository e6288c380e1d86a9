//! Services, EndpointSlices, Nodes, Pods, Namespaces, NetworkPolicies and ClusterNetworkPolicies from the API server, decoded
//! at once into the few fields in use.

mod annotations;
pub mod asked;
pub mod blocks;
pub mod cluster_policy;
pub mod decode;
pub mod objects;
mod once;
pub mod policy;
mod served;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::tables::policy::{ClusterPod, ClusterPolicy, Namespace, Policy};
use crate::tables::{Node, ObjectName, PodOptions, Service, Slice, Snapshot, Source, Tables};
use decode::{Context, object_name};

/// A kind of rows the API server has.
trait Row: Sized + PartialEq + Send + Sync + 'static {
    type Object: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug + Send + 'static;
    type Key: Ord + Clone + Send;
    const SOURCE: Source;

    fn key(object: &Self::Object) -> Self::Key;
    /// `None` for objects that are not ours to serve.
    fn decode(object: Self::Object, context: &mut Context) -> Option<Self>;
    /// Adds, replaces or takes away one row.
    fn put(tables: &Tables, key: Self::Key, row: Option<Arc<Self>>);
    /// These are all rows there are.
    fn replace(tables: &Tables, all: BTreeMap<Self::Key, Arc<Self>>);
    /// The bare table, for stories.
    fn insert(rows: &mut Snapshot, key: Self::Key, row: Arc<Self>);

    /// When what made somebody write the object happened.
    fn trigger(_: &Self::Object) -> Option<jiff::Timestamp> {
        None
    }
}

/// Puts one object into the tables, as its watch would: for stories, which have no API server. Answers whether its kind is
/// known.
pub fn learn(rows: &mut Snapshot, kind: &str, object: serde_json::Value) -> Result<bool, serde_json::Error> {
    match kind {
        "Service" => insert::<Service>(rows, serde_json::from_value(object)?),
        "EndpointSlice" => insert::<Slice>(rows, serde_json::from_value(object)?),
        "Node" => insert::<Node>(rows, serde_json::from_value(object)?),
        "Pod" => {
            insert::<PodOptions>(rows, serde_json::from_value(object.clone())?);
            insert::<ClusterPod>(rows, serde_json::from_value(object)?);
        }
        "Namespace" => insert::<Namespace>(rows, serde_json::from_value(object)?),
        "NetworkPolicy" => insert::<Policy>(rows, serde_json::from_value(object)?),
        "ClusterNetworkPolicy" => insert::<ClusterPolicy>(rows, serde_json::from_value(object)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn insert<R: Row>(rows: &mut Snapshot, object: R::Object) {
    let key = R::key(&object);
    if let Some(row) = R::decode(object, &mut Context::default()) {
        R::insert(rows, key, Arc::new(row));
    }
}

/// Follows all kinds until `stop`.
pub async fn run(client: Client, tables: Arc<Tables>, node: String, stop: CancellationToken) {
    let all = watcher::Config::default;
    let own = all().fields(&format!("spec.nodeName={node}"));
    let services = follow::<Service>(client.clone(), all(), Arc::clone(&tables), &stop);
    let slices = follow::<Slice>(client.clone(), all(), Arc::clone(&tables), &stop);
    let nodes = follow::<Node>(client.clone(), all(), Arc::clone(&tables), &stop);
    let pods = follow::<PodOptions>(client.clone(), own, Arc::clone(&tables), &stop);
    let cluster_pods = follow::<ClusterPod>(client.clone(), all(), Arc::clone(&tables), &stop);
    let namespaces = follow::<Namespace>(client.clone(), all(), Arc::clone(&tables), &stop);
    let policies = follow::<Policy>(client.clone(), all(), Arc::clone(&tables), &stop);
    let cluster_policies = served::follow(client, Arc::clone(&tables), &node, &stop);
    let cidrs = own_pod_cidrs(Arc::clone(&tables), &node, &stop);
    tokio::join!(services, slices, nodes, pods, cluster_pods, namespaces, policies, cluster_policies, cidrs);
}

async fn follow<R: Row>(
    client: Client,
    config: watcher::Config,
    tables: Arc<Tables>,
    stop: &CancellationToken,
) {
    tokio::select! {
        _ = follow_while::<R, _>(Api::all(client), config, &tables, |_| None::<Infallible>) => {}
        () = stop.cancelled() => {}
    }
}

/// Follows a kind until an error of the watch is an end; answers with that. Other errors are tried again.
async fn follow_while<R: Row, E>(
    api: Api<R::Object>,
    config: watcher::Config,
    tables: &Tables,
    end: impl Fn(&watcher::Error) -> Option<E>,
) -> Option<E> {
    let mut events = pin!(watch(api, config).default_backoff());
    let (mut listed, mut context) = (BTreeMap::new(), Context::default());
    loop {
        match events.next().await? {
            Ok(event) => handle::<R>(event, tables, &mut listed, &mut context),
            Err(error) => match end(&error) {
                Some(end) => return Some(end),
                None => tracing::warn!(source = ?R::SOURCE, %error, "watch interrupted, reconnecting"),
            },
        }
        for complaint in context.complaints.drain(..) {
            tables.complain(complaint);
        }
    }
}

fn handle<R: Row>(
    event: Event<R::Object>,
    tables: &Tables,
    listed: &mut BTreeMap<R::Key, Arc<R>>,
    context: &mut Context,
) {
    match event {
        Event::Init => {
            listed.clear();
            context.clear();
        }
        Event::InitApply(object) => {
            let key = R::key(&object);
            if let Some(row) = R::decode(object, context) {
                listed.insert(key, Arc::new(row));
            }
        }
        Event::InitDone => {
            R::replace(tables, std::mem::take(listed));
            tables.synced(R::SOURCE);
        }
        Event::Apply(object) => {
            tables.changed(R::SOURCE, R::trigger(&object));
            let key = R::key(&object);
            R::put(tables, key, R::decode(object, context).map(Arc::new));
        }
        Event::Delete(object) => {
            tables.changed(R::SOURCE, R::trigger(&object));
            R::put(tables, R::key(&object), None);
        }
    }
}

/// Keeps the prefixes of this node's pods current.
async fn own_pod_cidrs(tables: Arc<Tables>, node: &str, stop: &CancellationToken) {
    let mut changes = tables.changes();
    loop {
        if let Some(own) = tables.node(node) {
            tables.set_pod_cidrs(own.pod_cidrs.clone());
        }
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            () = stop.cancelled() => return,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Row for Service {
    type Object = objects::Service;
    type Key = ObjectName;
    const SOURCE: Source = Source::Services;

    fn key(object: &objects::Service) -> ObjectName {
        object_name(object)
    }

    fn decode(object: objects::Service, context: &mut Context) -> Option<Self> {
        decode::service(object, context)
    }

    fn put(tables: &Tables, key: ObjectName, row: Option<Arc<Self>>) {
        tables.put_service(key, row);
    }

    fn replace(tables: &Tables, all: BTreeMap<ObjectName, Arc<Self>>) {
        tables.replace_services(all);
    }

    fn insert(rows: &mut Snapshot, key: ObjectName, row: Arc<Self>) {
        rows.services.insert(key, row);
    }
}

impl Row for Slice {
    type Object = objects::EndpointSlice;
    type Key = ObjectName;
    const SOURCE: Source = Source::Slices;

    fn key(object: &objects::EndpointSlice) -> ObjectName {
        object_name(object)
    }

    fn decode(object: objects::EndpointSlice, context: &mut Context) -> Option<Self> {
        decode::slice(object, context)
    }

    fn put(tables: &Tables, key: ObjectName, row: Option<Arc<Self>>) {
        tables.put_slice(key, row);
    }

    fn replace(tables: &Tables, all: BTreeMap<ObjectName, Arc<Self>>) {
        tables.replace_slices(all);
    }

    fn insert(rows: &mut Snapshot, key: ObjectName, row: Arc<Self>) {
        rows.slices.insert(key, row);
    }

    fn trigger(object: &objects::EndpointSlice) -> Option<jiff::Timestamp> {
        object.annotations().get("endpoints.kubernetes.io/last-change-trigger-time")?.parse().ok()
    }
}

impl Row for Node {
    type Object = objects::Node;
    type Key = String;
    const SOURCE: Source = Source::Nodes;

    fn key(object: &objects::Node) -> String {
        object.name_any()
    }

    fn decode(object: objects::Node, context: &mut Context) -> Option<Self> {
        Some(decode::node(object, context))
    }

    fn put(tables: &Tables, key: String, row: Option<Arc<Self>>) {
        tables.update_node(|rows| put(&mut rows.nodes, key, row));
    }

    fn replace(tables: &Tables, all: BTreeMap<String, Arc<Self>>) {
        tables.update_node(|rows| {
            let changed = rows.nodes != all;
            rows.nodes = all;
            changed
        });
    }

    fn insert(rows: &mut Snapshot, key: String, row: Arc<Self>) {
        rows.nodes.insert(key, row);
    }
}

impl Row for PodOptions {
    type Object = objects::Pod;
    type Key = ObjectName;
    const SOURCE: Source = Source::Pods;

    fn key(object: &objects::Pod) -> ObjectName {
        object_name(object)
    }

    fn decode(object: objects::Pod, context: &mut Context) -> Option<Self> {
        decode::pod(object, context)
    }

    fn put(tables: &Tables, key: ObjectName, row: Option<Arc<Self>>) {
        tables.update_node(|rows| put(&mut rows.pods, key, row));
    }

    fn replace(tables: &Tables, all: BTreeMap<ObjectName, Arc<Self>>) {
        tables.update_node(|rows| {
            let changed = rows.pods != all;
            rows.pods = all;
            changed
        });
    }

    fn insert(rows: &mut Snapshot, key: ObjectName, row: Arc<Self>) {
        rows.pods.insert(key, row);
    }
}

impl Row for ClusterPod {
    type Object = objects::Pod;
    type Key = ObjectName;
    const SOURCE: Source = Source::ClusterPods;

    fn key(object: &objects::Pod) -> ObjectName {
        object_name(object)
    }

    fn decode(object: objects::Pod, context: &mut Context) -> Option<Self> {
        Some(policy::cluster_pod(object, context))
    }

    fn put(tables: &Tables, key: ObjectName, row: Option<Arc<Self>>) {
        tables.put_cluster_pod(key, row);
    }

    fn replace(tables: &Tables, all: BTreeMap<ObjectName, Arc<Self>>) {
        tables.replace_cluster_pods(all);
    }

    fn insert(rows: &mut Snapshot, key: ObjectName, row: Arc<Self>) {
        rows.policy.pods.insert(key, row);
    }
}

impl Row for Namespace {
    type Object = objects::Namespace;
    type Key = String;
    const SOURCE: Source = Source::Namespaces;

    fn key(object: &objects::Namespace) -> String {
        object.name_any()
    }

    fn decode(object: objects::Namespace, context: &mut Context) -> Option<Self> {
        Some(policy::namespace(object, context))
    }

    fn put(tables: &Tables, key: String, row: Option<Arc<Self>>) {
        tables.put_namespace(key, row);
    }

    fn replace(tables: &Tables, all: BTreeMap<String, Arc<Self>>) {
        tables.replace_namespaces(all);
    }

    fn insert(rows: &mut Snapshot, key: String, row: Arc<Self>) {
        rows.policy.namespaces.insert(key, row);
    }
}

impl Row for Policy {
    type Object = objects::NetworkPolicy;
    type Key = ObjectName;
    const SOURCE: Source = Source::Policies;

    fn key(object: &objects::NetworkPolicy) -> ObjectName {
        object_name(object)
    }

    fn decode(object: objects::NetworkPolicy, context: &mut Context) -> Option<Self> {
        Some(policy::policy(object, context))
    }

    fn put(tables: &Tables, key: ObjectName, row: Option<Arc<Self>>) {
        tables.put_policy(key, row);
    }

    fn replace(tables: &Tables, all: BTreeMap<ObjectName, Arc<Self>>) {
        tables.replace_policies(all);
    }

    fn insert(rows: &mut Snapshot, key: ObjectName, row: Arc<Self>) {
        rows.policy.policies.insert(key, row);
    }
}

impl Row for ClusterPolicy {
    type Object = objects::ClusterNetworkPolicy;
    type Key = String;
    const SOURCE: Source = Source::ClusterPolicies;

    fn key(object: &objects::ClusterNetworkPolicy) -> String {
        object.name_any()
    }

    fn decode(object: objects::ClusterNetworkPolicy, context: &mut Context) -> Option<Self> {
        Some(cluster_policy::cluster_policy(object, context))
    }

    fn put(tables: &Tables, key: String, row: Option<Arc<Self>>) {
        tables.put_cluster_policy(key, row);
    }

    fn replace(tables: &Tables, all: BTreeMap<String, Arc<Self>>) {
        tables.replace_cluster_policies(all);
        tables.set_unread(served::KIND, None);
    }

    fn insert(rows: &mut Snapshot, key: String, row: Arc<Self>) {
        rows.policy.cluster.insert(key, row);
    }
}

fn put<K: Ord, V: PartialEq>(table: &mut BTreeMap<K, Arc<V>>, key: K, row: Option<Arc<V>>) -> bool {
    match row {
        Some(row) if table.get(&key) == Some(&row) => false,
        Some(row) => {
            table.insert(key, row);
            true
        }
        None => table.remove(&key).is_some(),
    }
}
