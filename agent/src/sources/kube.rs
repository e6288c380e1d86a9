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

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

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
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    type Key: Ord + Clone + Send;
    const SOURCE: Source;
    /// Whether an API server may not have the kind: then there are none.
    const OPTIONAL: bool = false;

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
    let cluster_policies = follow::<ClusterPolicy>(client, all(), Arc::clone(&tables), &stop);
    let cidrs = own_pod_cidrs(Arc::clone(&tables), node, &stop);
    tokio::join!(services, slices, nodes, pods, cluster_pods, namespaces, policies, cluster_policies, cidrs);
}

/// How often it is asked whether there is a kind by now that there was not.
const ABSENCE: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

async fn follow<R: Row>(
    client: Client,
    config: watcher::Config,
    tables: Arc<Tables>,
    stop: &CancellationToken,
) {
    loop {
        let absent = tokio::select! {
            absent = follow_while_served::<R>(client.clone(), config.clone(), &tables) => absent,
            () = stop.cancelled() => return,
        };
        let Some(error) = absent else { return };
        tracing::debug!(source = ?R::SOURCE, %error, "the API server does not have this kind");
        R::replace(&tables, BTreeMap::new());
        tables.synced(R::SOURCE);
        tokio::select! {
            () = tokio::time::sleep(ABSENCE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Follows a kind; answers with what the API server says when it does not have it, if it need not.
async fn follow_while_served<R: Row>(
    client: Client,
    config: watcher::Config,
    tables: &Tables,
) -> Option<watcher::Error> {
    let events = watch(Api::<R::Object>::all(client), config).default_backoff();
    let mut events = pin!(events);
    let (mut listed, mut context) = (BTreeMap::new(), Context::default());
    loop {
        match events.next().await? {
            Ok(event) => handle::<R>(event, tables, &mut listed, &mut context),
            Err(error) if R::OPTIONAL && is_absent(&error) => return Some(error),
            Err(error) => tracing::warn!(source = ?R::SOURCE, %error, "watch interrupted, reconnecting"),
        }
        for complaint in context.complaints.drain(..) {
            tables.complain(complaint);
        }
    }
}

/// Whether the API server says that it does not have the kind.
fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        watcher::Error::WatchError(status) => status.code == 404,
        _ => false,
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
async fn own_pod_cidrs(tables: Arc<Tables>, node: String, stop: &CancellationToken) {
    let mut changes = tables.changes();
    loop {
        if let Some(own) = tables.node(&node) {
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

    fn decode(object: objects::Node, _: &mut Context) -> Option<Self> {
        Some(decode::node(object))
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
    const OPTIONAL: bool = true;

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that has one ClusterNetworkPolicy, while it has the kind at all.
    fn client(served: Arc<AtomicBool>) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let served = served.load(Relaxed);
            async move {
                assert!(request.uri().path().ends_with("/v1alpha2/clusternetworkpolicies"));
                let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                let object = json!({ "metadata": { "name": "guard" }, "spec": {} });
                let (code, answer) = match (served, is_watch) {
                    (false, _) => (404, json!({ "status": "Failure", "code": 404 }).to_string()),
                    (true, false) => {
                        let metadata = json!({ "resourceVersion": "1" });
                        (200, json!({ "metadata": metadata, "items": [object] }).to_string())
                    }
                    (true, true) => (200, String::new()),
                };
                Ok::<_, std::convert::Infallible>(
                    Response::builder()
                        .status(code)
                        .body(Body::from(answer.into_bytes()))
                        .expect("it has a status"),
                )
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_kind_that_comes_and_goes_is_followed_while_it_is_there() {
        let served = Arc::new(AtomicBool::new(false));
        let (tables, stop) = (Arc::<Tables>::default(), CancellationToken::new());
        let following = follow::<ClusterPolicy>(
            client(Arc::clone(&served)),
            watcher::Config::default(),
            Arc::clone(&tables),
            &stop,
        );
        let known = || tables.look(|rows| rows.policy.cluster.len());
        let story = async {
            let mut changes = tables.changes();
            changes
                .wait_for(|_| tables.look(|rows| rows.synced.contains(&Source::ClusterPolicies)))
                .await
                .unwrap();
            assert_eq!(known(), 0, "without the kind there are none, and that is known");
            served.store(true, Relaxed);
            changes.wait_for(|_| known() == 1).await.unwrap();
            served.store(false, Relaxed);
            changes.wait_for(|_| known() == 0).await.unwrap();
            stop.cancel();
        };
        let both = async { tokio::join!(following, story) };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("it gets there");
    }
}
