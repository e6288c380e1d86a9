//! The EndpointSlices of a Service with a selector: which pod addresses stand behind it, one family and port set a slice.
//!
//! Slices that are nearly right are filled up and mended before new ones are made, so that a change of one pod writes one
//! slice. Slices made by hand (another `managed-by`) are left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use serde_json::{Value, json};

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{EndpointSlice, Pod, Service, deleting};
use crate::ownership;
use crate::pods::{is_finished, is_ready, reference};
use crate::ports::{Port, resolved_ports};
use crate::selector;
use crate::trigger::{Listed, TRIGGER_TIME, trigger};
use crate::view::View;
use crate::write::{Target, Write};

/// Endpoints in one slice (upstream's default).
const MAX_ENDPOINTS: usize = 100;
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Marks what is written for a Service without an address of its own.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

pub(crate) struct EndpointSliceController;

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is("services") {
            return vec![change.key.clone()];
        }
        if change.is("endpointslices.discovery.k8s.io") {
            let labels = change.metas().filter_map(|meta| meta.labels.as_ref());
            let names = labels.filter_map(|labels| labels.get(SERVICE_LABEL));
            return names.map(|name| Key::new(&change.key.namespace, name)).collect();
        }
        if !change.is("pods") {
            return Vec::new();
        }
        services_of(change, view)
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        let Some(service) = view.services.row(key) else { return Outcome::nothing() };
        let is_foreign = service.spec.selector.is_empty() || service.spec.type_ == "ExternalName";
        if deleting(&service.metadata).is_some() || is_foreign {
            return Outcome::nothing();
        }
        let mut current = managed(key, view, MANAGER);
        let mut writes = Vec::new();
        let desired = desired(key, service, view);
        let began = began(key, service, &desired, &current, view);
        for (shape, endpoints) in desired {
            let (mine, others) = current.into_iter().partition(|slice| Shape::of(slice) == shape);
            current = others;
            writes.extend(settle(key, service, &shape, endpoints, mine, began));
        }
        writes.extend(current.into_iter().map(|slice| delete(key, slice)));
        Outcome::writes(writes)
    }
}

/// The Services that select the pod that changed, or did before.
pub(crate) fn services_of(change: &Change<'_>, view: &View) -> Vec<Key> {
    let services = view.services.within(&change.key.namespace);
    let selecting = services.filter(|(_, service)| {
        change.metas().any(|meta| selector::selects(&service.spec.selector, meta.labels.as_ref()))
    });
    selecting.map(|(key, _)| key.clone()).collect()
}

/// What all endpoints of a slice have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    /// `IPv4` or `IPv6`.
    pub(crate) family: String,
    pub(crate) ports: Vec<Port>,
}

impl Shape {
    pub(crate) fn of(slice: &EndpointSlice) -> Self {
        let mut ports: Vec<Port> = slice.ports.iter().map(Port::from).collect();
        ports.sort();
        Self { family: slice.address_type.clone(), ports }
    }

    pub(crate) fn ports(&self) -> Vec<EndpointPort> {
        self.ports.iter().map(EndpointPort::from).collect()
    }
}

type Endpoints = BTreeMap<String, Endpoint>;

/// Endpoints by shape and address. Every family of the Service is there, if need be with an empty slice.
fn desired(key: &Key, service: &Service, view: &View) -> BTreeMap<Shape, Endpoints> {
    let mut shapes: BTreeMap<Shape, Endpoints> = BTreeMap::new();
    let families = &service.spec.ip_families;
    let pods = view.pods.within(&key.namespace).map(|(_, pod)| pod);
    for pod in pods.filter(|pod| selector::selects(&service.spec.selector, pod.metadata.labels.as_ref())) {
        if is_finished(pod) || pod.spec.node_name.is_none() {
            continue;
        }
        for address in pod.status.pod_ips.iter().map(|ip| &ip.ip) {
            let family = if address.contains(':') { "IPv6" } else { "IPv4" };
            if families.iter().any(|wanted| wanted == family) {
                let shape = Shape { family: family.to_owned(), ports: resolved_ports(service, pod) };
                let endpoint = endpoint(service, pod, address, view);
                shapes.entry(shape).or_default().insert(address.clone(), endpoint);
            }
        }
    }
    for family in families {
        if !shapes.keys().any(|shape| shape.family == *family) {
            shapes.insert(Shape { family: family.clone(), ports: Vec::new() }, Endpoints::new());
        }
    }
    shapes
}

fn endpoint(service: &Service, pod: &Pod, address: &str, view: &View) -> Endpoint {
    let terminating = deleting(&pod.metadata).is_some();
    let serving = service.spec.publish_not_ready_addresses || is_ready(pod);
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let node = pod.spec.node_name.as_ref().and_then(|name| view.nodes.row(&Key::cluster(name)));
    let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
    let hints = hints(service, ready, zone.as_deref(), pod.spec.node_name.as_deref());
    let in_subdomain = pod.spec.subdomain.is_some() && pod.spec.subdomain == service.metadata.name;
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pod.spec.hostname.clone().filter(|_| in_subdomain),
        node_name: pod.spec.node_name.clone(),
        zone,
        hints,
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    }
}

/// Who should use an endpoint, by the Service's `trafficDistribution`: clients of its zone, or first of all those of its node.
fn hints(service: &Service, ready: bool, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let wanted = service.spec.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    let for_nodes = node.map(|name| vec![ForNode { name: name.to_owned() }]);
    let hints = match wanted {
        "PreferClose" | "PreferSameZone" => EndpointHints { for_zones, for_nodes: None },
        "PreferSameNode" => EndpointHints { for_zones, for_nodes },
        _ => return None,
    };
    let says_something = hints.for_zones.is_some() || hints.for_nodes.is_some();
    (ready && says_something).then_some(hints)
}

/// The slices of a Service that `manager` made.
pub(crate) fn managed<'a>(key: &'a Key, view: &'a View, manager: &str) -> Vec<&'a Arc<EndpointSlice>> {
    let ours = |slice: &EndpointSlice| {
        slice.metadata.labels.as_ref().is_some_and(|labels| {
            labels.get(SERVICE_LABEL) == Some(&key.name)
                && labels.get(MANAGED_BY).is_some_and(|by| by == manager)
        })
    };
    let slices = view.endpoint_slices.within(&key.namespace).map(|(_, slice)| slice);
    slices.filter(|slice| ours(slice) && deleting(&slice.metadata).is_none()).collect()
}

/// When the change began that makes the slices what they should be.
fn began(
    key: &Key,
    service: &Service,
    desired: &BTreeMap<Shape, Endpoints>,
    current: &[&Arc<EndpointSlice>],
    view: &View,
) -> Option<Timestamp> {
    let listed = listed_pods(desired.values().flat_map(BTreeMap::values));
    let noted = (!current.is_empty()).then(|| listed_pods(current.iter().flat_map(|slice| &slice.endpoints)));
    let pods = view.pods.within(&key.namespace).map(|(_, pod)| &**pod);
    trigger(service, pods, &listed, noted.as_ref())
}

/// The pods behind the endpoints.
fn listed_pods<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Listed<'a> {
    let pod = |endpoint: &'a Endpoint| {
        let uid = endpoint.target_ref.as_ref()?.uid.as_deref()?;
        Some((uid, endpoint.conditions.as_ref()?.serving?))
    };
    endpoints.filter_map(pod).collect()
}

/// Makes `current`, slices of one shape, hold exactly `wanted`, with as few writes as possible.
fn settle(
    key: &Key,
    service: &Service,
    shape: &Shape,
    mut wanted: Endpoints,
    current: Vec<&Arc<EndpointSlice>>,
    began: Option<Timestamp>,
) -> Vec<Write> {
    let is_empty_shape = wanted.is_empty();
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in current {
        let addresses = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
        let stays: Vec<Endpoint> = addresses.filter_map(|address| wanted.remove(address)).collect();
        kept.push((slice, stays));
    }
    let mut rest: Vec<Endpoint> = wanted.into_values().collect();
    for (_, endpoints) in &mut kept {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len()).min(rest.len());
        endpoints.extend(rest.drain(..room));
    }
    let labels = labels(key, service);
    let mut spare_empty = is_empty_shape;
    let mut writes = Vec::new();
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && !std::mem::take(&mut spare_empty) {
            writes.push(delete(key, slice));
        } else if endpoints != slice.endpoints || slice.metadata.labels.as_ref() != Some(&labels) {
            let body = json!({"metadata": changed(slice, &labels, began), "endpoints": endpoints});
            let name = slice.metadata.name.clone().unwrap_or_default();
            let target = Target::new("discovery.k8s.io/v1", "endpointslices", Key::new(&key.namespace, name));
            writes.push(Write::Patch { target, subresource: None, body });
        }
    }
    writes.extend(rest.chunks(MAX_ENDPOINTS).map(|endpoints| create(key, service, shape, endpoints, began)));
    if spare_empty {
        writes.push(create(key, service, shape, &[], began));
    }
    writes
}

fn create(
    key: &Key,
    service: &Service,
    shape: &Shape,
    endpoints: &[Endpoint],
    began: Option<Timestamp>,
) -> Write {
    let annotations: BTreeMap<&str, String> =
        began.map(|began| (TRIGGER_TIME, began.to_string())).into_iter().collect();
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", key.name), "namespace": key.namespace, "labels": labels(key, service),
            "annotations": annotations,
            "ownerReferences": [ownership::reference("v1", "Service", &service.metadata)],
        },
        "addressType": shape.family,
        "ports": shape.ports(),
        "endpoints": endpoints,
    });
    let target = Target::new("discovery.k8s.io/v1", "endpointslices", key.clone());
    Write::Create { target, body }
}

/// What a patch says of a slice itself: its labels are exactly `labels`.
fn changed(slice: &EndpointSlice, labels: &BTreeMap<String, String>, began: Option<Timestamp>) -> Value {
    let mut wanted: BTreeMap<&str, Option<&str>> =
        labels.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    for name in slice.metadata.labels.iter().flat_map(BTreeMap::keys) {
        wanted.entry(name).or_insert(None);
    }
    json!({
        "resourceVersion": slice.metadata.resource_version,
        "labels": wanted,
        "annotations": {TRIGGER_TIME: began.map(|began| began.to_string())},
    })
}

/// The Service's labels, and what the slice is.
fn labels(key: &Key, service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_LABEL.to_owned(), key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

pub(crate) fn delete(key: &Key, slice: &EndpointSlice) -> Write {
    let name = slice.metadata.name.clone().unwrap_or_default();
    Write::Delete {
        target: Target::new("discovery.k8s.io/v1", "endpointslices", Key::new(&key.namespace, name)),
        uid: slice.metadata.uid.clone().unwrap_or_default(),
        propagation: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    fn service(families: &[&str]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "d", "uid": "svc",
                "creationTimestamp": "2026-01-01T00:00:05Z"},
            "spec": {
                "selector": {"app": "web"}, "ipFamilies": families, "type": "ClusterIP",
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}],
            },
        })
    }

    fn pod(name: &str, ready: bool) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {
                "phase": "Running", "podIPs": [{"ip": format!("10.0.0.{}", name.len())}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                                "lastTransitionTime": format!("2026-01-01T00:00:{:02}Z", 10 + name.len())}],
            },
        })
    }

    fn look(objects: &[Value]) -> Vec<Write> {
        EndpointSliceController
            .reconcile(&Key::new("d", "web"), &world(objects), Timestamp::UNIX_EPOCH)
            .writes
    }

    /// The slice a creation makes, as it comes back.
    fn stored(write: &Write) -> Value {
        let Write::Create { body, .. } = write else { panic!("{write:?}") };
        let mut slice = body.clone();
        slice["metadata"]["name"] = json!("web-1");
        slice["metadata"]["uid"] = json!("s");
        slice
    }

    #[test]
    fn ready_and_unready_pods_are_listed_with_their_conditions_and_ports() {
        let writes = look(&[service(&["IPv4"]), pod("a", true), pod("bb", false)]);
        assert_eq!(writes.len(), 1);
        let slice = stored(&writes[0]);
        assert_eq!(slice["ports"], json!([{"name": "http", "protocol": "TCP", "port": 8080}]));
        let ready: Vec<_> =
            slice["endpoints"].as_array().unwrap().iter().map(|one| &one["conditions"]["ready"]).collect();
        assert_eq!(ready, [&json!(true), &json!(false)]);
        assert_eq!(
            look(&[service(&["IPv4"]), pod("a", true), pod("bb", false), slice]),
            [],
            "and then it is settled"
        );
    }

    #[test]
    fn the_slices_of_a_service_have_its_labels_and_say_whether_it_has_an_address() {
        let mut addressed = service(&["IPv4"]);
        addressed["spec"]["clusterIP"] = json!("10.96.0.7");
        addressed["metadata"]["labels"] = json!({"tier": "front", HEADLESS: "no"});
        let slice = stored(&look(&[addressed.clone(), pod("a", true)])[0]);
        let own = json!({"tier": "front", SERVICE_LABEL: "web", MANAGED_BY: MANAGER});
        assert_eq!(slice["metadata"]["labels"], own);

        let mut headless = service(&["IPv4"]);
        headless["spec"]["clusterIP"] = json!("None");
        let made = stored(&look(&[headless.clone(), pod("a", true)])[0]);
        let marked = json!({SERVICE_LABEL: "web", MANAGED_BY: MANAGER, HEADLESS: ""});
        assert_eq!(made["metadata"]["labels"], marked);

        let writes = look(&[headless, pod("a", true), slice]);
        let [Write::Patch { body, .. }] = writes.as_slice() else { panic!("{writes:?}") };
        let mut gone = marked;
        gone["tier"] = Value::Null;
        assert_eq!(body["metadata"]["labels"], gone, "labels follow those of the Service");
    }

    #[test]
    fn each_family_has_slices_of_its_own() {
        let writes = look(&[service(&["IPv6", "IPv4"]), pod("a", true)]);
        let mut families: Vec<_> = writes.iter().map(|write| stored(write)["addressType"].clone()).collect();
        families.sort_by_key(Value::to_string);
        assert_eq!(families, ["IPv4", "IPv6"]);
    }

    #[test]
    fn a_pod_that_leaves_is_taken_out_of_its_slice_and_a_terminating_one_is_marked() {
        let slice = stored(&look(&[service(&["IPv4"]), pod("a", true), pod("bb", true)])[0]);
        let mut leaving = pod("a", true);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let writes = look(&[service(&["IPv4"]), leaving, slice]);
        let [Write::Patch { body, .. }] = writes.as_slice() else { panic!("{writes:?}") };
        let endpoints = body["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0]["conditions"], json!({"ready": false, "serving": true, "terminating": true}));
    }

    #[test]
    fn a_slice_says_when_what_it_carries_began() {
        let slice = stored(&look(&[service(&["IPv4"]), pod("a", true), pod("dddd", true)])[0]);
        assert_eq!(slice["metadata"]["annotations"][TRIGGER_TIME], "2026-01-01T00:00:05Z");
        let began = |pods: &[Value]| {
            let writes = look(&[&[service(&["IPv4"]), slice.clone()], pods].concat());
            let [Write::Patch { body, .. }] = writes.as_slice() else { panic!("{writes:?}") };
            body["metadata"]["annotations"][TRIGGER_TIME].clone()
        };
        let all = [pod("a", true), pod("ccc", true), pod("bb", true), pod("dddd", true)];
        assert_eq!(began(&all), "2026-01-01T00:00:12Z");
        assert_eq!(began(&[pod("a", false), pod("dddd", true)]), "2026-01-01T00:00:11Z");
        assert_eq!(began(&[pod("a", true)]), Value::Null, "nobody says when a pod went");
    }

    #[test]
    fn traffic_distribution_becomes_hints_of_ready_endpoints() {
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {ZONE: "z1"}}});
        let of = |distribution: Value| {
            let mut service = service(&["IPv4"]);
            service["spec"]["trafficDistribution"] = distribution;
            let slice = stored(&look(&[service, pod("a", true), pod("bb", false), node.clone()])[0]);
            assert_eq!(
                slice["endpoints"][1]["hints"],
                Value::Null,
                "nobody is sent to a pod that is not ready"
            );
            slice["endpoints"][0]["hints"].clone()
        };
        let zone = json!({"forZones": [{"name": "z1"}]});
        assert_eq!(of(json!("PreferClose")), zone);
        assert_eq!(of(json!("PreferSameZone")), zone);
        assert_eq!(
            of(json!("PreferSameNode")),
            json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n"}]})
        );
        assert_eq!(of(Value::Null), Value::Null);
    }

    #[test]
    fn a_hundred_endpoints_fill_a_slice() {
        let mut objects = vec![service(&["IPv4"])];
        for n in 0..150 {
            let mut one = pod("a", true);
            one["metadata"]["name"] = json!(format!("p{n}"));
            one["metadata"]["uid"] = json!(format!("p{n}"));
            one["status"]["podIPs"] = json!([{"ip": format!("10.0.1.{n}")}]);
            objects.push(one);
        }
        let sizes: Vec<_> =
            look(&objects).iter().map(|write| stored(write)["endpoints"].as_array().unwrap().len()).collect();
        assert_eq!(sizes, [100, 50]);
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice_and_one_without_selector_none() {
        let writes = look(&[service(&["IPv4"])]);
        assert_eq!(stored(&writes[0])["endpoints"], json!([]));
        let empty = stored(&writes[0]);
        assert_eq!(look(&[service(&["IPv4"]), empty]), []);
        let mut bare = service(&["IPv4"]);
        bare["spec"]["selector"] = json!({});
        assert_eq!(look(&[bare]), []);
    }
}
