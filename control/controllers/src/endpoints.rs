//! The Endpoints of a Service with a selector: its EndpointSlices in the older form, one object for all pods and one family.
//!
//! Ports that the same pods have share a subset. Beyond [`MAX_ADDRESSES`] the object is cut, ready pods last, and says so.
//! Like upstream's controller this one does not mend what others write into its objects until a pod or the Service changes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::endpointslice::{HEADLESS, services_of};
use crate::objects::{Endpoints, Pod, Service, deleting};
use crate::pods::{is_finished, is_ready, reference};
use crate::ports::{Port, resolved_ports};
use crate::selector;
use crate::trigger::{Listed, TRIGGER_TIME, trigger};
use crate::view::View;
use crate::write::{Target, Write, exactly};

/// Addresses in one object, ready or not (upstream's `maxCapacity`).
const MAX_ADDRESSES: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";
/// Who holds a lock that older clients keep in Endpoints without a Service.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// How long an object is left alone after a write, for each address in it: every change of one pod writes them all, so that
/// a Service whose thousand pods start one by one would cost a million addresses.
const REST: Duration = Duration::from_millis(1);

pub(crate) struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        match change.resource {
            "services" => vec![change.key.clone()],
            "pods" => services_of(change, view),
            "endpoints" if is_gone(change) || is_left_over(change, view) => vec![change.key.clone()],
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, key: &Key, view: &View, _: Timestamp) -> Outcome {
        let current = view.endpoints.row(key).map(|endpoints| &**endpoints);
        let Some(service) = view.services.row(key) else {
            return Outcome::writes(current.and_then(|current| delete(key, current)).into_iter().collect());
        };
        let is_foreign = service.spec.selector.is_empty() || service.spec.type_ == "ExternalName";
        if deleting(&service.metadata).is_some() || is_foreign {
            return Outcome::nothing();
        }
        let mut subsets = subsets(key, service, view);
        let is_cut = cut(&mut subsets);
        let labels = labels(service);
        if current.is_some_and(|current| is_settled(current, &subsets, &labels, is_cut)) {
            return Outcome::nothing();
        }
        let pods = view.pods.within(&key.namespace).map(|(_, pod)| &**pod);
        let noted = current.map(|current| listed_pods(&current.subsets));
        let began = trigger(service, pods, &listed_pods(&subsets), noted.as_ref());
        let write = match current {
            None => create(key, &subsets, &labels, is_cut, began),
            Some(current) => patch(key, current, &subsets, &labels, is_cut, began),
        };
        let rest = REST * u32::try_from(size(&subsets)).unwrap_or(u32::MAX);
        Outcome { writes: vec![write], rest, ..Outcome::default() }
    }
}

/// Somebody deleted the object; a Service that is there wants it back.
fn is_gone(change: &Change<'_>) -> bool {
    change.new.is_none()
}

/// The Service went while nobody looked. Objects that others made without a Service are theirs.
fn is_left_over(change: &Change<'_>, view: &View) -> bool {
    change.old.is_none() && change.new.is_some_and(is_own) && view.services.row(change.key).is_none()
}

/// Whether this controller made the object.
pub(crate) fn is_own(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == MANAGER)
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    meta.annotations.as_ref().and_then(|annotations| annotations.get(name))
}

fn delete(key: &Key, current: &Endpoints) -> Option<Write> {
    let is_lock = annotation(&current.metadata, LEADER).is_some();
    let uid = current.metadata.uid.clone().unwrap_or_default();
    (!is_lock).then(|| Write::Delete { target: target(key), uid, propagation: None })
}

/// The pods behind the addresses.
fn listed_pods(subsets: &[EndpointSubset]) -> Listed<'_> {
    let ready = subsets.iter().flat_map(|subset| &subset.addresses).flatten();
    let waiting = subsets.iter().flat_map(|subset| &subset.not_ready_addresses).flatten();
    let all = ready.map(|address| (address, true)).chain(waiting.map(|address| (address, false)));
    all.filter_map(|(address, ready)| Some((address.target_ref.as_ref()?.uid.as_deref()?, ready))).collect()
}

/// A pod's address; two pods of a node's network share one.
type AddressKey = (String, String);

/// What is behind each port, and how ready it is. A headless Service may do without ports.
fn subsets(key: &Key, service: &Service, view: &View) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<AddressKey, EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<Port>, BTreeMap<AddressKey, bool>> = BTreeMap::new();
    let pods = view.pods.within(&key.namespace).map(|(_, pod)| pod);
    for pod in pods.filter(|pod| selector::selects(&service.spec.selector, pod.metadata.labels.as_ref())) {
        let Some(address) = address(service, pod) else { continue };
        let own = (address.ip.clone(), pod.metadata.uid.clone().unwrap_or_default());
        addresses.insert(own.clone(), address);
        let ready = service.spec.publish_not_ready_addresses || is_ready(pod);
        for port in ports(service, pod) {
            by_port.entry(port).or_default().insert(own.clone(), ready);
        }
    }
    let mut together: BTreeMap<BTreeMap<AddressKey, bool>, Vec<Port>> = BTreeMap::new();
    for (port, behind) in by_port {
        together.entry(behind).or_default().extend(port);
    }
    let subset = |(behind, ports): (BTreeMap<AddressKey, bool>, Vec<Port>)| {
        let with = |wanted: bool| {
            let keys = behind.iter().filter(|(_, ready)| **ready == wanted).map(|(key, _)| key);
            listed(keys.filter_map(|key| addresses.get(key).cloned()).collect())
        };
        EndpointSubset {
            addresses: with(true),
            not_ready_addresses: with(false),
            ports: listed(ports.iter().map(EndpointPort::from).collect()),
        }
    };
    together.into_iter().map(subset).collect()
}

/// As the API server stores a list.
fn listed<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn ports(service: &Service, pod: &Pod) -> Vec<Option<Port>> {
    if service.spec.ports.is_empty() && service.spec.cluster_ip == "None" {
        return vec![None];
    }
    resolved_ports(service, pod).into_iter().map(Some).collect()
}

/// The pod's address in the Service's first family, if the pod is of any use.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let leaves = deleting(&pod.metadata).is_some() && !service.spec.publish_not_ready_addresses;
    if is_finished(pod) || leaves {
        return None;
    }
    let is_v6 = service.spec.ip_families.first().is_some_and(|family| family == "IPv6");
    let ip = pod.status.pod_ips.iter().find(|ip| ip.ip.contains(':') == is_v6)?;
    let in_subdomain = pod.spec.subdomain.is_some() && pod.spec.subdomain == service.metadata.name;
    Some(EndpointAddress {
        hostname: pod.spec.hostname.clone().filter(|_| in_subdomain),
        ip: ip.ip.clone(),
        node_name: pod.spec.node_name.clone(),
        target_ref: Some(reference(pod)),
    })
}

fn length(addresses: Option<&Vec<EndpointAddress>>) -> usize {
    addresses.map_or(0, Vec::len)
}

fn size(subsets: &[EndpointSubset]) -> usize {
    let of = |subset: &EndpointSubset| {
        length(subset.addresses.as_ref()) + length(subset.not_ready_addresses.as_ref())
    };
    subsets.iter().map(of).sum()
}

/// Leaves [`MAX_ADDRESSES`], those that are not ready first, of every subset in proportion. Whether any had to go.
fn cut(subsets: &mut [EndpointSubset]) -> bool {
    if size(subsets) <= MAX_ADDRESSES {
        return false;
    }
    let ready: usize = subsets.iter().map(|subset| length(subset.addresses.as_ref())).sum();
    if ready > MAX_ADDRESSES {
        for subset in subsets.iter_mut() {
            subset.not_ready_addresses = None;
        }
        shorten(subsets.iter_mut().map(|subset| &mut subset.addresses).collect(), MAX_ADDRESSES);
    } else {
        let room = MAX_ADDRESSES - ready;
        shorten(subsets.iter_mut().map(|subset| &mut subset.not_ready_addresses).collect(), room);
    }
    true
}

/// Leaves `room` addresses in all lists; each keeps its share, rounded up, as long as there is room.
fn shorten(lists: Vec<&mut Option<Vec<EndpointAddress>>>, room: usize) {
    let total: usize = lists.iter().map(|list| length(list.as_ref())).sum();
    let mut left = room;
    for list in lists {
        let share = (length(list.as_ref()) * room).div_ceil(total.max(1)).min(left);
        if let Some(addresses) = list {
            addresses.truncate(share);
            left -= addresses.len();
        }
        *list = list.take().and_then(listed);
    }
}

/// The Service's labels, and what the object is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn is_settled(
    current: &Endpoints,
    subsets: &[EndpointSubset],
    labels: &BTreeMap<String, String>,
    is_cut: bool,
) -> bool {
    current.subsets == subsets
        && current.metadata.labels.as_ref() == Some(labels)
        && annotation(&current.metadata, OVER_CAPACITY).is_some() == is_cut
}

fn target(key: &Key) -> Target {
    Target::new("v1", "endpoints", key.clone())
}

fn create(
    key: &Key,
    subsets: &[EndpointSubset],
    labels: &BTreeMap<String, String>,
    is_cut: bool,
    began: Option<Timestamp>,
) -> Write {
    let mut annotations = json!({});
    if let Some(began) = began {
        annotations[TRIGGER_TIME] = json!(began.to_string());
    }
    if is_cut {
        annotations[OVER_CAPACITY] = json!(TRUNCATED);
    }
    let metadata = json!({
        "name": key.name, "namespace": key.namespace, "labels": labels, "annotations": annotations,
    });
    let body = json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets });
    Write::Create { target: target(key), body }
}

/// Only as the object was seen: it is replaced as a whole.
fn patch(
    key: &Key,
    current: &Endpoints,
    subsets: &[EndpointSubset],
    labels: &BTreeMap<String, String>,
    is_cut: bool,
    began: Option<Timestamp>,
) -> Write {
    let began = began.map(|began| began.to_string());
    let metadata = json!({
        "resourceVersion": current.metadata.resource_version,
        "labels": exactly(labels, current.metadata.labels.as_ref()),
        "annotations": { TRIGGER_TIME: began, OVER_CAPACITY: is_cut.then_some(TRUNCATED) },
    });
    let body = json!({ "metadata": metadata, "subsets": subsets });
    Write::Patch { target: target(key), subresource: None, body }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
