//! EndpointSlices for Endpoints that somebody wrote by hand, for a Service without a selector: those who read slices only
//! see them too.
//!
//! Every set of ports and family has one slice. The slices belong to the Endpoints object, take its labels and annotations,
//! and go when it goes, asks not to be mirrored, or the Service gets a selector.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::endpoints::{LEADER, is_own};
use crate::endpointslice::{MANAGED_BY, SERVICE_LABEL, Shape, delete, managed};
use crate::objects::{EndpointSlice, Endpoints, deleting};
use crate::ownership;
use crate::ports::Port;
use crate::trigger::TRIGGER_TIME;
use crate::view::View;
use crate::write::{Happening, Target, Write, exactly};

/// Addresses of one subset, and so in one slice (upstream's `--mirroring-max-endpoints-per-subset`).
const MAX_ADDRESSES: usize = 1000;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(crate) struct EndpointSliceMirroringController;

impl Controller for EndpointSliceMirroringController {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        let concerns = match change.resource {
            "endpoints" => match view.services.row(change.key) {
                Some(service) => service.spec.selector.is_empty(),
                None => change.metas().any(|meta| !is_own(meta)),
            },
            "services" => concerns_service(change.key, view),
            "endpointslices.discovery.k8s.io" => return mirrored(change),
            _ => false,
        };
        concerns.then(|| change.key.clone()).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let mut current = managed(key, view, MANAGER);
        let Some(endpoints) = source(key, view) else {
            return Outcome::writes(current.into_iter().map(|slice| delete(key, slice)).collect());
        };
        let wanted = Wanted::of(endpoints);
        let mut writes = Vec::new();
        for (shape, behind) in wanted.slices {
            let (mine, others) = current.into_iter().partition(|slice| Shape::of(slice) == shape);
            current = others;
            writes.extend(settle(key, endpoints, &shape, behind, mine));
        }
        writes.extend(current.into_iter().map(|slice| delete(key, slice)));
        if !writes.is_empty() {
            writes.extend(complaints(key, endpoints, wanted.invalid, wanted.skipped, now));
        }
        Outcome::writes(writes)
    }
}

/// A Service without selector has Endpoints to mirror; one that got a selector, or went, may have mirrors to take down.
fn concerns_service(key: &Key, view: &View) -> bool {
    let Some(endpoints) = view.endpoints.row(key) else { return false };
    let is_bare = view.services.row(key).is_some_and(|service| service.spec.selector.is_empty());
    is_bare || !view.controlled::<EndpointSlice>(&endpoints.metadata).is_empty()
}

/// The Endpoints whose mirror changed.
fn mirrored(change: &Change<'_>) -> Vec<Key> {
    let labels = change.metas().filter_map(|meta| meta.labels.as_ref());
    let ours = labels.filter(|labels| labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER));
    let names = ours.filter_map(|labels| labels.get(SERVICE_LABEL));
    names.map(|name| Key::new(&change.key.namespace, name)).collect()
}

/// The Endpoints to mirror, if they are.
fn source<'a>(key: &Key, view: &'a View) -> Option<&'a Arc<Endpoints>> {
    let endpoints = view.endpoints.row(key)?;
    let service = view.services.row(key)?;
    let meta = &endpoints.metadata;
    let is_skipped =
        meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true");
    let is_lock = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    let is_mirrored = service.spec.selector.is_empty() && !is_skipped && !is_lock;
    (is_mirrored && deleting(meta).is_none()).then_some(endpoints)
}

/// Address and uid of what is there.
type Behind = BTreeMap<(String, String), Endpoint>;

/// What the slices should hold, and what could not be mirrored.
#[derive(Debug, Default)]
struct Wanted {
    slices: BTreeMap<Shape, Behind>,
    invalid: usize,
    skipped: usize,
}

impl Wanted {
    fn of(endpoints: &Endpoints) -> Self {
        let mut wanted = Self::default();
        for subset in &endpoints.subsets {
            wanted.add(subset);
        }
        wanted
    }

    fn add(&mut self, subset: &EndpointSubset) {
        let mut ports: Vec<Port> = subset.ports.iter().flatten().map(Port::from).collect();
        ports.sort();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut room = MAX_ADDRESSES;
        for (address, ready) in ready.chain(waiting) {
            if room == 0 {
                self.skipped += 1;
                continue;
            }
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                self.invalid += 1;
                continue;
            };
            room -= 1;
            let ip = ip.to_canonical();
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let shape = Shape { family: family.to_owned(), ports: ports.clone() };
            let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
            let key = (ip.to_string(), uid);
            self.slices.entry(shape).or_default().insert(key, endpoint(address, ip, ready));
        }
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// Makes the first of `mine`, slices of one shape, hold what is wanted, and deletes the others.
fn settle(
    key: &Key,
    endpoints: &Endpoints,
    shape: &Shape,
    behind: Behind,
    mine: Vec<&Arc<EndpointSlice>>,
) -> Vec<Write> {
    let wanted: Vec<Endpoint> = behind.into_values().take(MAX_ADDRESSES).collect();
    let mut mine = mine.into_iter();
    let Some(first) = mine.next() else { return vec![create(key, endpoints, shape, &wanted)] };
    let surplus = mine.map(|slice| delete(key, slice));
    let meta = &first.metadata;
    let (labels, annotations) = (labels(key, &endpoints.metadata), annotations(&endpoints.metadata));
    let none = BTreeMap::new();
    let is_settled = first.endpoints == wanted
        && meta.labels.as_ref() == Some(&labels)
        && meta.annotations.as_ref().unwrap_or(&none) == &annotations;
    let patch = (!is_settled).then(|| {
        let metadata = json!({
            "resourceVersion": meta.resource_version,
            "labels": exactly(&labels, meta.labels.as_ref()),
            "annotations": exactly(&annotations, meta.annotations.as_ref()),
        });
        let name = meta.name.clone().unwrap_or_default();
        let body = json!({ "metadata": metadata, "endpoints": wanted });
        Write::Patch { target: target(Key::new(&key.namespace, name)), subresource: None, body }
    });
    patch.into_iter().chain(surplus).collect()
}

fn target(key: Key) -> Target {
    Target::new("discovery.k8s.io/v1", "endpointslices", key)
}

fn labels(key: &Key, source: &ObjectMeta) -> BTreeMap<String, String> {
    let mut labels = source.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(source: &ObjectMeta) -> BTreeMap<String, String> {
    let mut annotations = source.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| name != TRIGGER_TIME && name != LAST_APPLIED);
    annotations
}

fn create(key: &Key, endpoints: &Endpoints, shape: &Shape, wanted: &[Endpoint]) -> Write {
    let meta = &endpoints.metadata;
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", key.name), "namespace": key.namespace,
            "labels": labels(key, meta), "annotations": annotations(meta),
            "ownerReferences": [ownership::reference("v1", "Endpoints", meta)],
        },
        "addressType": shape.family,
        "ports": shape.ports(),
        "endpoints": wanted,
    });
    Write::Create { target: target(key.clone()), body }
}

/// What the writer of the Endpoints should know.
fn complaints(
    key: &Key,
    endpoints: &Endpoints,
    invalid: usize,
    skipped: usize,
    now: Timestamp,
) -> Vec<Write> {
    let uid = endpoints.metadata.uid.as_deref().unwrap_or_default();
    let event = |reason, message| {
        Happening {
            component: "endpoint-slice-mirroring-controller",
            api_version: "v1",
            kind: "Endpoints",
            key,
            uid,
            warning: true,
            reason,
            message,
            now,
        }
        .write()
    };
    let invalid = (invalid > 0).then(|| {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        event("InvalidIPAddress", message)
    });
    let skipped = (skipped > 0).then(|| {
        let message = format!(
            "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. \
             {skipped} addresses were skipped"
        );
        event("TooManyAddressesToMirror", message)
    });
    invalid.into_iter().chain(skipped).collect()
}

#[cfg(test)]
#[path = "endpointslice_mirroring_tests.rs"]
mod tests;
