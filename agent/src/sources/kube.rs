//! Services, EndpointSlices and Nodes from the API server, decoded at once into the few fields in use.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::tables::{
    Node, ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint, Snapshot, Source, Tables,
};

/// Seconds of affinity where the Service names none: the default of its API.
const AFFINITY: u32 = 10_800;

/// A kind of rows the API server has.
trait Row: Sized + PartialEq + Send + Sync + 'static {
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    type Key: Ord + Clone + Send;
    const SOURCE: Source;

    fn key(object: &Self::Object) -> Self::Key;
    /// `None` for objects that are not ours to serve.
    fn decode(object: Self::Object) -> Option<Self>;
    fn table(rows: &mut Snapshot) -> &mut BTreeMap<Self::Key, Arc<Self>>;

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
        _ => return Ok(false),
    }
    Ok(true)
}

fn insert<R: Row>(rows: &mut Snapshot, object: R::Object) {
    let key = R::key(&object);
    match R::decode(object) {
        Some(row) => drop(R::table(rows).insert(key, Arc::new(row))),
        None => drop(R::table(rows).remove(&key)),
    }
}

/// Follows all three kinds until `stop`.
pub async fn run(client: Client, tables: Arc<Tables>, node: String, stop: CancellationToken) {
    let services = follow::<Service>(client.clone(), Arc::clone(&tables), &stop);
    let slices = follow::<Slice>(client.clone(), Arc::clone(&tables), &stop);
    let nodes = follow::<Node>(client, Arc::clone(&tables), &stop);
    let cidrs = own_pod_cidrs(Arc::clone(&tables), node, &stop);
    tokio::join!(services, slices, nodes, cidrs);
}

async fn follow<R: Row>(client: Client, tables: Arc<Tables>, stop: &CancellationToken) {
    let events = watch(Api::<R::Object>::all(client), watcher::Config::default()).default_backoff();
    let mut events = pin!(events);
    let mut listed = BTreeMap::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Some(Ok(event)) => handle::<R>(event, &tables, &mut listed),
            Some(Err(error)) => {
                tracing::warn!(source = ?R::SOURCE, %error, "watch interrupted, reconnecting");
            }
            None => return,
        }
    }
}

fn handle<R: Row>(event: Event<R::Object>, tables: &Tables, listed: &mut BTreeMap<R::Key, Arc<R>>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            let key = R::key(&object);
            if let Some(row) = R::decode(object) {
                listed.insert(key, Arc::new(row));
            }
        }
        Event::InitDone => {
            let all = std::mem::take(listed);
            tables.update(|rows| *R::table(rows) = all);
            tables.synced(R::SOURCE);
        }
        Event::Apply(object) => {
            tables.changed(R::SOURCE, R::trigger(&object));
            let key = R::key(&object);
            let row = R::decode(object);
            tables.update_if(|rows| match row {
                Some(row) if R::table(rows).get(&key).is_some_and(|known| **known == row) => false,
                Some(row) => {
                    R::table(rows).insert(key, Arc::new(row));
                    true
                }
                None => R::table(rows).remove(&key).is_some(),
            });
        }
        Event::Delete(object) => {
            tables.changed(R::SOURCE, R::trigger(&object));
            tables.update(|rows| {
                R::table(rows).remove(&R::key(&object));
            });
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

fn object_name<O: Resource>(object: &O) -> ObjectName {
    ObjectName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

impl Row for Service {
    type Object = core::Service;
    type Key = ObjectName;
    const SOURCE: Source = Source::Services;

    fn key(object: &core::Service) -> ObjectName {
        object_name(object)
    }

    fn decode(object: core::Service) -> Option<Self> {
        // Another proxy answers for these.
        if object.labels().contains_key("service.kubernetes.io/service-proxy-name") {
            return None;
        }
        let spec = object.spec?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let addresses = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|address| vec![address]));
        // A headless service has the word `None` for an address.
        let cluster_ips: Vec<IpAddr> =
            addresses.unwrap_or_default().iter().filter_map(|address| address.parse().ok()).collect();
        let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|row| {
            Some(ServicePort {
                protocol: protocol(row.protocol.as_deref())?,
                port: port(row.port)?,
                node_port: row.node_port.and_then(port),
                name: row.name.unwrap_or_default(),
            })
        });
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
        let affinity = match spec.session_affinity.as_deref() {
            Some("ClientIP") => timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY),
            _ => 0,
        };
        Some(Self {
            ports: ports.collect(),
            cluster_ips,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity,
            ..Self::default()
        })
    }

    fn table(rows: &mut Snapshot) -> &mut BTreeMap<ObjectName, Arc<Self>> {
        &mut rows.services
    }
}

impl Row for Slice {
    type Object = discovery::EndpointSlice;
    type Key = ObjectName;
    const SOURCE: Source = Source::Slices;

    fn key(object: &discovery::EndpointSlice) -> ObjectName {
        object_name(object)
    }

    fn decode(object: discovery::EndpointSlice) -> Option<Self> {
        let service = object.labels().get("kubernetes.io/service-name")?.clone();
        let ports = object.ports.unwrap_or_default().into_iter().filter_map(|row| {
            let number = row.port.and_then(port)?;
            Some((row.name.unwrap_or_default(), protocol(row.protocol.as_deref())?, number))
        });
        let endpoints = object.endpoints.unwrap_or_default().into_iter().filter_map(|endpoint| {
            let conditions = endpoint.conditions.unwrap_or_default();
            // Absent means ready; absent serving means as ready says.
            let ready = conditions.ready.unwrap_or(true);
            Some(SliceEndpoint {
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: endpoint.node_name,
                ..SliceEndpoint::new(endpoint.addresses.first()?.parse().ok()?)
            })
        });
        Some(Self { ports: ports.collect(), endpoints: endpoints.collect(), service })
    }

    fn table(rows: &mut Snapshot) -> &mut BTreeMap<ObjectName, Arc<Self>> {
        &mut rows.slices
    }

    fn trigger(object: &discovery::EndpointSlice) -> Option<jiff::Timestamp> {
        object.annotations().get("endpoints.kubernetes.io/last-change-trigger-time")?.parse().ok()
    }
}

impl Row for Node {
    type Object = core::Node;
    type Key = String;
    const SOURCE: Source = Source::Nodes;

    fn key(object: &core::Node) -> String {
        object.name_any()
    }

    fn decode(object: core::Node) -> Option<Self> {
        let spec = object.spec.unwrap_or_default();
        let cidrs = spec.pod_cidrs.or_else(|| spec.pod_cidr.map(|cidr| vec![cidr]));
        let addresses = object.status.and_then(|status| status.addresses).unwrap_or_default();
        Some(Self {
            addresses: addresses
                .iter()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .collect(),
            pod_cidrs: cidrs.unwrap_or_default().iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            ..Self::default()
        })
    }

    fn table(rows: &mut Snapshot) -> &mut BTreeMap<String, Arc<Self>> {
        &mut rows.nodes
    }
}
