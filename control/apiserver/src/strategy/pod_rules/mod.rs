//! Validation of a pod's spec, in pods and in templates.

pub mod affinity;
pub mod annotations;
mod containers;
mod env;
mod network;
mod os;
pub mod placement;
mod probes;
pub mod references;
mod resources;
mod security;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use super::volume_rules::{Volumes, validate_volumes};
use crate::tree::{at, int, list, strings, text};
use crate::validate::{self, Errors};

/// The lists of containers, in the order in which their rules are looked at.
pub const GROUPS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What a spec is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    Pod,
    Template,
}

/// What the rules of a container need to know of what is around it.
pub struct Around<'a> {
    whole: Whole,
    volumes: Volumes<'a>,
    claims: BTreeSet<&'a str>,
    grace: Option<i64>,
    host_users: bool,
    /// What the pod does about containers that have ended.
    restarts: &'a str,
    /// Huge pages may be in parts: they were before there was the rule.
    broken_pages: bool,
}

/// Checks a pod spec at `here`. What `old` did before there was a rule against it, it may go on with.
pub fn validate_spec(spec: &Value, old: Option<&Value>, whole: Whole, here: &str, errors: &mut Errors) {
    if !spec.is_object() {
        errors.required(format!("{here}.containers"), "");
        return;
    }
    if int(spec, &["terminationGracePeriodSeconds"]).is_none() {
        errors.required(format!("{here}.terminationGracePeriodSeconds"), "");
    }
    let around = Around {
        whole,
        volumes: validate_volumes(spec, old, here, errors),
        claims: list(spec, &["resourceClaims"]).iter().map(|claim| text(claim, &["name"])).collect(),
        grace: int(spec, &["terminationGracePeriodSeconds"]),
        host_users: at(spec, &["hostUsers"]) != false,
        restarts: text(spec, &["restartPolicy"]),
        broken_pages: old.is_some_and(resources::breaks_pages),
    };
    resources::validate_claims_of_pod(spec, here, errors);
    containers::validate_all(spec, old, &around, here, errors);
    resources::validate_of_pod(spec, &around, here, errors);
    network::validate_host_ports(spec, whole, here, errors);
    let restart = ["Always", "OnFailure", "Never"];
    errors.chosen(format!("{here}.restartPolicy"), text(spec, &["restartPolicy"]), &restart);
    network::validate_dns_policy(spec, here, errors);
    for (key, value) in strings(spec, &["nodeSelector"]) {
        errors.check(format!("{here}.nodeSelector"), key, validate::label_key);
        errors.check(format!("{here}.nodeSelector"), value, validate::label_value);
    }
    security::validate_of_pod(spec, old, here, errors);
    affinity::validate(spec, old, here, errors);
    network::validate_dns(spec, here, errors);
    placement::validate_gates(spec, here, errors);
    placement::validate_spread(spec, old, here, errors);
    windows::validate_host_processes(spec, here, errors);
    security::validate_users_of_host(spec, old, here, errors);
    network::validate_hostname(spec, here, errors);
    validate_names(spec, here, errors);
    placement::validate_tolerations(list(spec, &["tolerations"]), &format!("{here}.tolerations"), errors);
    network::validate_host_aliases(spec, here, errors);
    validate_rest(spec, &around, here, errors);
    env::validate_files(spec, here, errors);
}

fn validate_names(spec: &Value, here: &str, errors: &mut Errors) {
    for (field, check) in [
        ("serviceAccountName", validate::subdomain as fn(&str) -> _),
        ("nodeName", validate::subdomain),
        ("hostname", validate::label),
        ("subdomain", validate::label),
        ("priorityClassName", validate::subdomain),
    ] {
        if !text(spec, &[field]).is_empty() {
            errors.check(format!("{here}.{field}"), text(spec, &[field]), check);
        }
    }
    if let Some(class) = at(spec, &["runtimeClassName"]).as_str() {
        errors.check(format!("{here}.runtimeClassName"), class, validate::subdomain);
    }
}

fn validate_rest(spec: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let deadline = at(spec, &["activeDeadlineSeconds"]);
    if deadline.as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let place = format!("{here}.activeDeadlineSeconds");
        errors.invalid(place, deadline, "must be between 1 and 2147483647, inclusive");
    }
    if let Some(policy) = at(spec, &["preemptionPolicy"]).as_str() {
        errors.chosen(format!("{here}.preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    resources::validate_overhead(spec, around, here, errors);
    os::validate(spec, here, errors);
    let group = at(spec, &["schedulingGroup"]);
    match at(group, &["podGroupName"]) {
        Value::String(name) => {
            errors.check(format!("{here}.schedulingGroup.podGroupName"), name, validate::subdomain);
        }
        none if group.is_object() => {
            let place = format!("{here}.schedulingGroup.podGroupName");
            errors.invalid(place, none, "must specify one of: `podGroupName`");
        }
        _ => {}
    }
}

/// Every container with its place, regular ones after those that run before them.
fn every_container<'a>(spec: &'a Value, here: &'a str) -> impl Iterator<Item = (String, &'a Value)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |group| {
        let containers = list(spec, &[group]).iter().enumerate();
        containers.map(move |(index, container)| (format!("{here}.{group}[{index}]"), container))
    })
}

/// Whether `check` finds nothing.
fn passes(check: impl FnOnce(&mut Errors)) -> bool {
    let mut errors = Errors::default();
    check(&mut errors);
    errors.is_empty()
}
