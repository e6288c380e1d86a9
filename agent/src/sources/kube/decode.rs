//! From API objects to rows. What cannot be used is left out and said; the rest of the object works.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use kube::{Resource, ResourceExt};

use super::annotations;
use super::objects;
use super::once::Once;
use crate::ipam::blocks;
use crate::tables::policy::{Labels, NamedPort};
use crate::tables::{
    self, Complaint, Hints, Node, ObjectName, PodOptions, Protocol, Service, ServicePort, Slice,
    SliceEndpoint,
};

/// Seconds of affinity where the Service names none: the default of its API.
const AFFINITY: u32 = 10_800;
/// Services with these labels are somebody else's, whatever the label says.
const FOREIGN: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
const ZONE: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler's word for a node that is about to go.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// What decoding needs beside the object.
#[derive(Debug, Default)]
pub struct Context {
    /// Names of nodes, keys and values of labels.
    names: Once<str>,
    /// Labels of objects, which come in few kinds.
    pub(super) label_sets: Once<Labels>,
    /// Named ports of pods.
    pub(super) port_sets: Once<[NamedPort]>,
    /// What the owners of objects should know.
    pub complaints: Vec<Complaint>,
}

impl Context {
    pub(super) fn name(&mut self, name: &str) -> Arc<str> {
        self.names.of(name)
    }

    /// Forgets what is shared; whoever has one keeps it.
    pub fn clear(&mut self) {
        self.names.clear();
        self.label_sets.clear();
        self.port_sets.clear();
    }
}

/// Complains about one object.
pub(super) struct About<'a> {
    pub(super) kind: &'static str,
    pub(super) object: ObjectName,
    pub(super) uid: u128,
    pub(super) complaints: &'a mut Vec<Complaint>,
}

impl About<'_> {
    pub(super) fn say(&mut self, reason: &'static str, message: String) {
        let (kind, object, uid) = (self.kind, self.object.clone(), self.uid);
        self.complaints.push(Complaint { kind, object, uid, reason, message });
    }
}

/// Namespace and name.
pub fn object_name<O: Resource>(object: &O) -> ObjectName {
    ObjectName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// A Service that is ours to serve.
pub fn service(object: objects::Service, context: &mut Context) -> Option<Service> {
    if FOREIGN.iter().any(|label| object.labels().contains_key(*label)) {
        return None;
    }
    let uid = uid(&object);
    let mut about =
        About { kind: "Service", object: object_name(&object), uid, complaints: &mut context.complaints };
    let cluster_ips = cluster_ips(&object.spec);
    if object.spec.kind.as_deref() == Some("ExternalName") || cluster_ips.is_empty() {
        return None;
    }
    let spec = &object.spec;
    let load_balancer_ips = load_balancer_ips(&object.status);
    let source_ranges = source_ranges(spec, &load_balancer_ips, &mut about);
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let mut row = Service {
        ports: service_ports(&spec.ports, &mut about),
        external_ips: addresses(&spec.external_ips),
        health_check_node_port: spec.health_check_node_port.and_then(|number| port(number.into())),
        internal_local: local(&spec.internal_traffic_policy),
        external_local: local(&spec.external_traffic_policy),
        affinity: affinity(spec),
        created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        uid,
        load_balancer_ips,
        source_ranges,
        cluster_ips,
        ..Service::default()
    };
    annotations::service(object.annotations(), &mut row, &mut about);
    Some(row)
}

/// A headless service has the word `None` for an address.
fn cluster_ips(spec: &objects::ServiceSpec) -> Vec<IpAddr> {
    if spec.cluster_ips.is_empty() {
        addresses(spec.cluster_ip.as_slice())
    } else {
        addresses(&spec.cluster_ips)
    }
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn load_balancer_ips(status: &objects::ServiceStatus) -> Vec<IpAddr> {
    let virtual_ones = status
        .load_balancer
        .ingress
        .iter()
        .filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    virtual_ones.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn source_ranges(
    spec: &objects::ServiceSpec,
    load_balancer_ips: &[IpAddr],
    about: &mut About<'_>,
) -> Vec<IpNetwork> {
    let mut ranges = Vec::new();
    for text in &spec.load_balancer_source_ranges {
        match text.trim().parse::<IpNetwork>() {
            Ok(range) => ranges.push(range),
            Err(_) => about.say("InvalidSourceRange", format!("{text:?} is no prefix and is left out")),
        }
    }
    for v4 in [true, false] {
        let is_asked = load_balancer_ips.iter().any(|address| address.is_ipv4() == v4);
        if is_asked && !ranges.is_empty() && ranges.iter().all(|range| range.is_ipv4() != v4) {
            let family = if v4 { "IPv4" } else { "IPv6" };
            about.say(
                "SourceRangesOpen",
                format!(
                    "no source range is of {family}: its {family} load balancer address is open to everybody"
                ),
            );
        }
    }
    ranges
}

fn service_ports(ports: &[objects::ServicePort], about: &mut About<'_>) -> Vec<ServicePort> {
    let mut rows: Vec<ServicePort> = Vec::new();
    for given in ports {
        let (Some(protocol), Some(number)) = (protocol(given.protocol.as_deref()), port(given.port)) else {
            about.say("InvalidPort", format!("port {} is not served: {:?}", given.port, given.protocol));
            continue;
        };
        let name = given.name.clone().unwrap_or_default();
        let is_twin =
            |row: &ServicePort| row.protocol == protocol && (row.name == name || row.port == number);
        if rows.iter().any(is_twin) {
            about.say("InvalidPort", format!("port {number} {name:?} is there twice; the first is served"));
            continue;
        }
        rows.push(ServicePort { name, port: number, protocol, node_port: given.node_port.and_then(port) });
    }
    rows
}

fn affinity(spec: &objects::ServiceSpec) -> u32 {
    let timeout = spec.session_affinity_config.client_ip.timeout_seconds;
    match spec.session_affinity.as_deref() {
        Some("ClientIP") => timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY),
        _ => 0,
    }
}

/// An EndpointSlice of a Service.
pub fn slice(object: objects::EndpointSlice, context: &mut Context) -> Option<Slice> {
    let service = object.labels().get("kubernetes.io/service-name")?.clone();
    let ports = object.ports.into_iter().filter_map(|row| {
        Some((row.name.unwrap_or_default(), protocol(row.protocol.as_deref())?, port(row.port?)?))
    });
    let ports = ports.collect();
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for endpoint in object.endpoints {
        let Some(address) = endpoint.addresses else { continue };
        // Absent means ready; absent serving means as ready says.
        let ready = endpoint.conditions.ready.unwrap_or(true);
        let names = |hints: Vec<objects::Hint>| hints.into_iter().map(|hint| hint.name).collect();
        let is_pod = endpoint.target_ref.kind.as_deref() == Some("Pod");
        endpoints.push(SliceEndpoint {
            address,
            ready,
            serving: endpoint.conditions.serving.unwrap_or(ready),
            terminating: endpoint.conditions.terminating.unwrap_or(false),
            node: endpoint.node_name.map(|name| context.name(&name)),
            hints: Hints::new(names(endpoint.hints.for_zones), names(endpoint.hints.for_nodes)),
            target: endpoint.target_ref.name.filter(|_| is_pod),
        });
    }
    Some(Slice { service, endpoints, ports })
}

/// A Node.
pub fn node(mut object: objects::Node, context: &mut Context) -> Node {
    let cidrs = if object.spec.pod_cidrs.is_empty() {
        object.spec.pod_cidr.as_slice()
    } else {
        &object.spec.pod_cidrs
    };
    let mut pod_cidrs: Vec<IpNetwork> = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
    if pod_cidrs.is_empty() {
        // The cluster gave it none; it may have taken some out of a pool.
        pod_cidrs = blocks::networks(object.annotations().get(blocks::HELD));
    }
    let (internal, outer): (Vec<_>, Vec<_>) =
        object.status.addresses.iter().partition(|address| address.kind == "InternalIP");
    // Names are among them.
    let parsed =
        |all: Vec<&objects::NodeAddress>| all.iter().filter_map(|one| one.address.parse().ok()).collect();
    let is_going = object.metadata.deletion_timestamp.is_some();
    Node {
        addresses: parsed(internal),
        outer_addresses: parsed(outer),
        pod_cidrs,
        zone: object.labels().get(ZONE).cloned(),
        leaving: is_going || object.spec.taints.iter().any(|taint| taint.key == LEAVING),
        labels: context.labels(object.metadata.labels.take().unwrap_or_default()),
    }
}

/// What a Pod of this node wants; nothing for most.
pub fn pod(object: objects::Pod, context: &mut Context) -> Option<PodOptions> {
    let mut about = About {
        kind: "Pod",
        object: object_name(&object),
        uid: uid(&object),
        complaints: &mut context.complaints,
    };
    let options =
        annotations::pod(object.annotations(), object.spec.runtime_class_name.as_deref(), &mut about);
    (options != PodOptions::default()).then_some(options)
}

pub(super) fn uid<O: Resource>(object: &O) -> u128 {
    tables::uid(object.meta().uid.as_deref().unwrap_or_default())
}

pub(super) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

pub(super) fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}
