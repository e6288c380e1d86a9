//! What pods take of a quota, and which of them a quota's scopes mean.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::objects::{Amounts, Container, Pod, Resources, ScopeRequirement};
use crate::pods::is_finished;
use crate::quantity::Quantity;
use crate::selector;

/// `requests` or `limits`.
type Side = fn(&Resources) -> &Amounts;

fn requests(resources: &Resources) -> &Amounts {
    &resources.requests
}

fn limits(resources: &Resources) -> &Amounts {
    &resources.limits
}

/// Whether a quota's resource is one of those that pods take.
pub(crate) fn is_of_pods(name: &str) -> bool {
    let plain = matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage");
    let of_claims = name == "requests.storage";
    let prefixed = ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    (plain || prefixed) && !of_claims
}

/// How much of the quota's resource the pod takes.
pub(crate) fn taken(pod: &Pod, name: &str) -> Quantity {
    if name == "pods" {
        return Quantity::whole(1);
    }
    match name.strip_prefix("limits.") {
        Some(name) => total(pod, limits, name),
        None => total(pod, requests, name.strip_prefix("requests.").unwrap_or(name)),
    }
}

/// When a pod that is being deleted stops to count, even if its node does not answer.
pub(crate) fn counts_until(pod: &Pod) -> Option<Timestamp> {
    let deleted = pod.metadata.deletion_timestamp.as_ref()?;
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds?);
    deleted.0.checked_add(grace).ok()
}

/// Whether the pod takes anything: it neither ended nor should have long ago.
pub(crate) fn counts(pod: &Pod, now: Timestamp) -> bool {
    !is_finished(pod) && counts_until(pod).is_none_or(|until| now <= until)
}

/// What all containers take at the moment when it is most: init containers one after the other beside the sidecars begun
/// before them, or all others together. What the pod itself asks for stands above that.
fn total(pod: &Pod, side: Side, name: &str) -> Quantity {
    let spec = &pod.spec;
    let of = |resources: Option<&Resources>| resources.map(|all| side(all).of(name)).unwrap_or_default();
    let of_container = |container: &Container| of(container.resources.as_deref());
    let (mut sidecars, mut beginning) = (Quantity::default(), Quantity::default());
    for container in &spec.init_containers {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(own);
            beginning = beginning.max(sidecars);
        } else {
            beginning = beginning.max(sidecars.plus(own));
        }
    }
    let running = spec.containers.iter().map(of_container).fold(sidecars, Quantity::plus);
    let own = of(spec.resources.as_deref());
    let sum = if own.is_zero() { running.max(beginning) } else { own };
    // Limits count what the runtime itself takes only where there is one.
    let is_open = std::ptr::fn_addr_eq(side, limits as Side) && sum.is_zero();
    if is_open { sum } else { sum.plus(spec.overhead.of(name)) }
}

/// No container asks for processor time or memory, or is held to some.
fn is_best_effort(pod: &Pod) -> bool {
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let mut all = containers.filter_map(|one| one.resources.as_deref()).chain(pod.spec.resources.as_deref());
    !all.any(|resources| {
        let says =
            |name: &str| !resources.requests.of(name).is_zero() || !resources.limits.of(name).is_zero();
        says("cpu") || says("memory")
    })
}

/// Whether the pod is one that the scope means.
pub(crate) fn is_meant(pod: &Pod, scope: &ScopeRequirement) -> bool {
    let ends = pod.spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    match scope.scope_name.as_str() {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "CrossNamespacePodAffinity" => pod.spec.crosses_namespaces,
        "PriorityClass" => names(scope, pod.spec.priority_class_name.as_deref()),
        // Scopes of other kinds mean no pods.
        _ => false,
    }
}

/// Whether the scope's values, as those of a label selector, mean the name.
pub(crate) fn names(scope: &ScopeRequirement, name: Option<&str>) -> bool {
    let requirement = LabelSelectorRequirement {
        key: scope.scope_name.clone(),
        operator: scope.operator.clone(),
        values: Some(scope.values.clone()),
    };
    let meant = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
    let named = name.filter(|name| !name.is_empty());
    let labels: BTreeMap<String, String> =
        named.map(|name| (scope.scope_name.clone(), name.to_owned())).into_iter().collect();
    selector::matches(&meant, Some(&labels))
}
