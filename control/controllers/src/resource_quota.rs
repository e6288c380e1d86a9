//! What a namespace uses of what its ResourceQuotas allow, in their status.
//!
//! Objects are counted in the owner graph, which has all of every kind but Events, which upstream does not count either; pods,
//! Services and claims are asked what they take. A kind that does not exist is not counted as none. Nothing is refused here: that is admission's part.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{Kind, PersistentVolumeClaim, Pod, ResourceQuota, ScopeRequirement, Service, deleting};
use crate::pod_usage::{counts, counts_until, is_meant, is_of_pods, names, taken};
use crate::quantity::Quantity;
use crate::view::View;
use crate::write::{Target, Write, exactly};

/// How often a quota is looked at that counts what nobody knows: the kind may come.
const UNKNOWN: Duration = Duration::from_secs(30);
/// Between the name of a class and what is asked of it.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Kinds that have a name of their own among a quota's resources.
const COUNTED: &[(&str, &str)] = &[
    ("configmaps", "configmaps"),
    ("secrets", "secrets"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("resourcequotas", "resourcequotas"),
    ("resourceclaims", "resourceclaims.resource.k8s.io"),
];

pub(crate) struct ResourceQuotaController;

impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    /// What is not there is not counted.
    fn needs_every_kind(&self) -> bool {
        true
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        let within = view.resource_quotas.within(&change.key.namespace);
        let concerned = within.filter(|(key, quota)| {
            let is_itself = change.is(ResourceQuota::RESOURCE) && *key == change.key;
            is_itself || quota.spec.hard.keys().any(|name| is_of(name, change.resource))
        });
        concerned.map(|(key, _)| key.clone()).collect()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(quota) = view.resource_quotas.row(key) else { return Outcome::nothing() };
        if deleting(&quota.metadata).is_some() {
            return Outcome::nothing();
        }
        let namespace = Namespace { name: &key.namespace, view, scopes: quota.spec.all_scopes(), now };
        let used: BTreeMap<String, Quantity> = quota
            .spec
            .hard
            .keys()
            .filter_map(|name| namespace.uses(name).map(|amount| (name.clone(), amount)))
            .collect();
        let mut outcome = Outcome::nothing();
        if quota.status.hard.as_ref() != Some(&quota.spec.hard) || quota.status.used.as_ref() != Some(&used) {
            outcome.writes.push(written(key, quota, &used));
        }
        if quota.spec.hard.keys().any(|name| is_of_pods(name)) {
            outcome.again = namespace.next_gone();
        }
        if quota.spec.hard.keys().any(|name| name.starts_with("count/") && !used.contains_key(name)) {
            outcome.look_again(UNKNOWN);
        }
        outcome
    }
}

/// Whether objects of `resource` are what the quota's `name` counts.
fn is_of(name: &str, resource: &str) -> bool {
    name.strip_prefix("count/").is_some_and(|counted| counted == resource)
        || COUNTED.contains(&(name, resource))
        || match resource {
            Pod::RESOURCE => is_of_pods(name),
            Service::RESOURCE => name == "services" || name.starts_with("services."),
            PersistentVolumeClaim::RESOURCE => is_of_claims(name),
            _ => false,
        }
}

fn is_of_claims(name: &str) -> bool {
    matches!(name, "persistentvolumeclaims" | "requests.storage") || name.contains(OF_CLASS)
}

/// A namespace as one quota sees it.
struct Namespace<'a> {
    name: &'a str,
    view: &'a View,
    scopes: Vec<ScopeRequirement>,
    now: Timestamp,
}

impl<'a> Namespace<'a> {
    /// How much there is of what the quota calls `name`; `None` if nobody can count that.
    fn uses(&self, name: &str) -> Option<Quantity> {
        if let Some(resource) = name.strip_prefix("count/") {
            return self.view.listed.contains(resource).then(|| self.count(resource));
        }
        if let Some((_, resource)) = COUNTED.iter().find(|(counted, _)| *counted == name) {
            return Some(self.count(resource));
        }
        if is_of_claims(name) {
            return Some(sum(self.claims().map(|claim| asked(claim, name))));
        }
        if is_of_pods(name) {
            return Some(sum(self.pods().map(|pod| taken(pod, name))));
        }
        let of_service: fn(&Service) -> usize = match name {
            "services" => |_| 1,
            "services.loadbalancers" => |service| usize::from(service.spec.type_ == "LoadBalancer"),
            "services.nodeports" => node_ports,
            _ => return None,
        };
        let services = self.view.services.within(self.name).filter(|_| self.scopes.is_empty());
        Some(Quantity::whole(services.map(|(_, service)| of_service(service)).sum()))
    }

    /// Objects of a kind, named with its group if it has one. Scopes mean none of them.
    fn count(&self, resource: &str) -> Quantity {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let is_one = |kind: &crate::graph::ResourceRef| kind.plural == plural && kind.group == group;
        let within = self.view.graph.within(self.name).filter(|_| self.scopes.is_empty());
        Quantity::whole(within.filter(|item| is_one(&item.resource)).count())
    }

    fn pods(&self) -> impl Iterator<Item = &'a Pod> {
        let pods = self.view.pods.within(self.name).map(|(_, pod)| &**pod);
        pods.filter(|pod| counts(pod, self.now) && self.scopes.iter().all(|scope| is_meant(pod, scope)))
    }

    fn claims(&self) -> impl Iterator<Item = &'a PersistentVolumeClaim> {
        let meant = |claim: &PersistentVolumeClaim, scope: &ScopeRequirement| {
            let class = claim.spec.volume_attributes_class_name.as_deref();
            scope.scope_name == "VolumeAttributesClass" && names(scope, class)
        };
        let claims = self.view.persistent_volume_claims.within(self.name).map(|(_, claim)| &**claim);
        claims.filter(move |claim| self.scopes.iter().all(|scope| meant(claim, scope)))
    }

    /// When the first pod stops to count because its time to go is over.
    fn next_gone(&self) -> Option<Duration> {
        let going = self.pods().filter_map(counts_until).min()?;
        let left = Duration::try_from(going.duration_since(self.now)).unwrap_or_default();
        Some(left + Duration::from_secs(1))
    }
}

fn sum(amounts: impl Iterator<Item = Quantity>) -> Quantity {
    amounts.fold(Quantity::default(), Quantity::plus)
}

/// Ports of the nodes that a Service takes.
fn node_ports(service: &Service) -> usize {
    let spec = &service.spec;
    match spec.type_.as_str() {
        "NodePort" => spec.ports.len(),
        "LoadBalancer" if spec.allocate_load_balancer_node_ports != Some(false) => spec.ports.len(),
        "LoadBalancer" => {
            spec.ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0)).count()
        }
        _ => 0,
    }
}

/// What a claim takes of a resource of claims, which may be that of one class.
fn asked(claim: &PersistentVolumeClaim, name: &str) -> Quantity {
    let (class, what) = name.split_once(OF_CLASS).map_or((None, name), |(class, what)| (Some(class), what));
    if class.is_some() && class != claim.spec.storage_class_name.as_deref() {
        return Quantity::default();
    }
    match what {
        "persistentvolumeclaims" => Quantity::whole(1),
        _ => claim.spec.resources.requests.of("storage"),
    }
}

/// Only as the quota was seen: admission may count too.
fn written(key: &Key, quota: &ResourceQuota, used: &BTreeMap<String, Quantity>) -> Write {
    let texts = |amounts: &BTreeMap<String, Quantity>| -> BTreeMap<String, String> {
        amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string())).collect()
    };
    let before = |amounts: &Option<BTreeMap<String, Quantity>>| amounts.as_ref().map(texts);
    let status = json!({
        "hard": exactly(&texts(&quota.spec.hard), before(&quota.status.hard).as_ref()),
        "used": exactly(&texts(used), before(&quota.status.used).as_ref()),
    });
    let metadata = json!({ "resourceVersion": quota.metadata.resource_version });
    Write::Patch {
        target: Target::new("v1", "resourcequotas", key.clone()),
        subresource: Some("status"),
        body: json!({ "metadata": metadata, "status": status }),
    }
}

#[cfg(test)]
#[path = "resource_quota_tests.rs"]
mod tests;
