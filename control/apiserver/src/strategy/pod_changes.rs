//! Changes of running pods that have a path of their own: debugging containers are added, resources are resized.

use serde_json::Value;

use super::Change;
use super::pod::{qos_class, validate_whole};
use super::pod_rules::annotations::{self, MIRROR};
use super::pod_status;
use crate::resources::Sub;
use crate::tree::{at, copy, list, list_mut, remove, set, text};
use crate::validate::Errors;

/// The pod with nothing changed but what the subresource is for.
pub fn keep_rest(sub: Sub, old: &Value, new: &mut Value) {
    let mut kept = old.clone();
    for field in ["resourceVersion", "managedFields"] {
        copy(&mut kept, new, &["metadata", field]);
    }
    match sub {
        Sub::EphemeralContainers => copy(&mut kept, new, &["spec", "ephemeralContainers"]),
        _ => {
            copy(&mut kept, new, &["spec", "resources"]);
            GROUPS.iter().for_each(|group| keep_containers(group, &mut kept, new));
        }
    }
    *new = kept;
}

const GROUPS: [&str; 2] = ["initContainers", "containers"];

/// Containers that are not the same any more are left for the rules to refuse.
fn keep_containers(group: &str, kept: &mut Value, new: &Value) {
    let path = ["spec", group];
    let (old, wanted) = (list(kept, &path), list(new, &path));
    let names = |containers: &[Value]| -> Vec<String> {
        containers.iter().map(|container| text(container, &["name"]).to_owned()).collect()
    };
    if names(old) != names(wanted) {
        copy(kept, new, &path);
        return;
    }
    for (container, wanted) in list_mut(kept, &path).iter_mut().zip(wanted) {
        copy(container, wanted, &["resources"]);
        copy(container, wanted, &["resizePolicy"]);
    }
}

/// Checks what the subresource changed.
pub fn validate(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    let (Some(old), new) = (change.old, &*change.new) else { return };
    let mirror = !at(old, &["metadata", "annotations", MIRROR]).is_null();
    let refusal = match sub {
        Sub::Status => {
            pod_status::validate(old, new, errors);
            return;
        }
        Sub::EphemeralContainers if mirror => "static pods do not support ephemeral containers",
        Sub::Resize if mirror => "static pods cannot be resized",
        Sub::Resize if text(old, &["spec", "os", "name"]) == "windows" => "windows pods cannot be resized",
        Sub::EphemeralContainers | Sub::Resize => {
            validate_whole(Some(old), new, errors);
            annotations::validate_kept(old, new, errors);
            match sub {
                Sub::Resize => validate_resize(old, new, errors),
                _ => only_added(old, new, errors),
            }
            return;
        }
        _ => return,
    };
    errors.forbidden("", refusal);
}

/// Containers for debugging are added, and stay as they are.
fn only_added(old: &Value, new: &Value, errors: &mut Errors) {
    for before in list(old, &["spec", "ephemeralContainers"]) {
        let name = text(before, &["name"]);
        let mut all = list(new, &["spec", "ephemeralContainers"]).iter();
        let why = match all.rfind(|container| text(container, &["name"]) == name) {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        let why = format!("existing ephemeral containers {name:?} may not be {why}\n");
        errors.forbidden("spec.ephemeralContainers", &why);
    }
}

const ONLY_SIZES: &str = "only cpu and memory resources are mutable";

fn validate_resize(old: &Value, new: &Value, errors: &mut Errors) {
    if qos_class(old) != qos_class(new) {
        let class = at(new, &["status", "qosClass"]);
        errors.invalid("spec", class, "Pod QOS Class may not change as a result of resizing");
    }
    if !node_resizes(old) {
        errors.forbidden("spec", "Pod running on node without support for resize");
    }
    let mut compared = new.clone();
    validate_whole_sizes(old, new, &mut compared, errors);
    if !same_containers(old, new, errors) {
        return;
    }
    for group in GROUPS {
        let path = ["spec", group];
        let pairs = list(old, &path).iter().zip(list(new, &path)).enumerate();
        for (index, (was, now)) in pairs.clone() {
            let here = format!("spec.{group}[{index}].resources");
            none_removed(was, now, &here, "resource", errors);
        }
        for (index, (was, now)) in pairs {
            validate_container(group, was, now, &format!("spec.{group}[{index}]"), errors);
        }
        for (container, was) in list_mut(&mut compared, &path).iter_mut().zip(list(old, &path)) {
            restore_sizes(was, container);
        }
    }
    if errors.is_empty() && at(&compared, &["spec"]) != at(old, &["spec"]) {
        errors.forbidden("spec", ONLY_SIZES);
    }
}

fn validate_container(group: &str, was: &Value, now: &Value, here: &str, errors: &mut Errors) {
    if was == now {
        return;
    }
    let mut compared = now.clone();
    restore_sizes(was, &mut compared);
    if group == "containers" {
        if compared != *was {
            errors.forbidden("spec", ONLY_SIZES);
        }
        return;
    }
    if compared != *was {
        errors.forbidden(here, "only cpu and memory resources for init or sidecar containers are mutable");
    }
    if text(now, &["restartPolicy"]) != "Always" {
        let policies = list(now, &["resizePolicy"]).iter();
        for _ in policies.filter(|policy| text(policy, &["restartPolicy"]) == "RestartContainer") {
            let why =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(here, why);
        }
    }
}

/// Makes what may be resized what it was.
fn restore_sizes(old: &Value, new: &mut Value) {
    for kind in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let path = ["resources", kind, name];
            match at(old, &path) {
                Value::Null => _ = remove(new, &path),
                amount => set(new, &path, amount.clone()),
            }
        }
        let is_empty = |owner: &Value| {
            at(owner, &["resources", kind]).as_object().is_some_and(serde_json::Map::is_empty)
        };
        if is_empty(new) && !is_empty(old) {
            remove(new, &["resources", kind]);
        }
    }
}

/// The sizes of the pod itself, which are what they were in `compared` afterwards.
fn validate_whole_sizes(old: &Value, new: &Value, compared: &mut Value, errors: &mut Errors) {
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    if before.get("resources").is_some() && after.get("resources").is_none() {
        errors.forbidden("spec.resources", "pod-level resources cannot be removed");
    }
    if after.get("resources").is_none() {
        return;
    }
    none_removed(before, after, "spec.resources", "pod-level resource", errors);
    if let Some(spec) = compared.get_mut("spec") {
        restore_sizes(before, spec);
        let is_empty = at(spec, &["resources"]).as_object().is_some_and(serde_json::Map::is_empty);
        if is_empty && before.get("resources").is_none() {
            remove(spec, &["resources"]);
        }
        if at(spec, &["resources"]) != at(before, &["resources"]) {
            errors.forbidden("spec", "only cpu and memory resources are mutable at pod-level");
        }
    }
}

/// What was bounded stays bounded.
fn none_removed(old: &Value, new: &Value, here: &str, what: &str, errors: &mut Errors) {
    for kind in ["requests", "limits"] {
        let after = at(new, &["resources", kind]);
        let mut names = crate::tree::fields(old, &["resources", kind]).map(|(name, _)| name);
        if names.any(|name| after.get(name).is_none()) {
            errors.forbidden(format!("{here}.{kind}"), &format!("{what} {kind} cannot be removed"));
        }
    }
}

fn same_containers(old: &Value, new: &Value, errors: &mut Errors) -> bool {
    let found = errors.len();
    for group in ["containers", "initContainers"] {
        let (before, after) = (list(old, &["spec", group]), list(new, &["spec", group]));
        if before.len() != after.len() {
            let why = format!("{group} may not be added or removed on resize");
            errors.forbidden(format!("spec.{group}"), &why);
            continue;
        }
        for (index, (was, now)) in before.iter().zip(after).enumerate() {
            if text(was, &["name"]) != text(now, &["name"]) {
                let why = format!("{group} may not be renamed or reordered on resize");
                errors.forbidden(format!("spec.{group}[{index}].name"), &why);
            }
        }
    }
    errors.len() == found
}

/// A node that cannot resize says nothing of the resources of containers that run.
fn node_resizes(pod: &Value) -> bool {
    let mut running = list(pod, &["status", "containerStatuses"])
        .iter()
        .filter(|status| at(status, &["state", "running"]).is_object());
    running.next().is_none_or(|status| at(status, &["resources"]).is_object())
}
