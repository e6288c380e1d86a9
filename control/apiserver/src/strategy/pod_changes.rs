//! Changes of running pods that have a path of their own: debugging containers are added, resources are resized.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::Change;
use super::pod::qos_class;
use super::pod_spec_rules::{validate_container, validate_spec};
use crate::resources::Sub;
use crate::tree::{at, copy, list, list_mut, strings, text};
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
            for group in GROUPS {
                for container in list_mut(&mut kept, &["spec", group]) {
                    let Some(wanted) = named(new, group, text(container, &["name"])) else { continue };
                    copy(container, wanted, &["resources"]);
                    copy(container, wanted, &["resizePolicy"]);
                }
            }
        }
    }
    *new = kept;
}

const GROUPS: [&str; 2] = ["initContainers", "containers"];

fn named<'a>(pod: &'a Value, group: &str, name: &str) -> Option<&'a Value> {
    list(pod, &["spec", group]).iter().find(|container| text(container, &["name"]) == name)
}

/// Checks what the subresource changed.
pub fn validate(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    let Some(old) = change.old else { return };
    let mirror = !at(old, &["metadata", "annotations", "kubernetes.io/config.mirror"]).is_null();
    match sub {
        Sub::EphemeralContainers if mirror => {
            errors.forbidden("", "static pods do not support ephemeral containers");
        }
        Sub::EphemeralContainers => {
            validate_debuggers(change.new, errors);
            only_added(old, change.new, errors);
        }
        Sub::Resize if mirror => errors.forbidden("", "static pods cannot be resized"),
        Sub::Resize => {
            validate_spec(at(change.new, &["spec"]), "spec", errors);
            validate_resize(old, change.new, errors);
        }
        _ => {}
    }
}

/// What a container may say that is started in a pod to look at the others.
const OF_DEBUGGERS: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

fn validate_debuggers(pod: &Value, errors: &mut Errors) {
    let others: HashSet<&str> = GROUPS
        .iter()
        .flat_map(|group| list(pod, &["spec", group]))
        .map(|container| text(container, &["name"]))
        .collect();
    let volumes =
        list(pod, &["spec", "volumes"]).iter().map(|volume| (text(volume, &["name"]), volume)).collect();
    let mut names = others.clone();
    for (index, container) in list(pod, &["spec", "ephemeralContainers"]).iter().enumerate() {
        let here = format!("spec.ephemeralContainers[{index}]");
        validate_container(container, &here, &volumes, errors);
        let name = text(container, &["name"]);
        if !name.is_empty() && !names.insert(name) {
            errors.duplicate(format!("{here}.name"), &Value::from(name));
        }
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(format!("{here}.targetContainerName"), &Value::from(target));
        }
        let said = container.as_object().into_iter().flatten();
        for (field, _) in said.filter(|(field, value)| !allowed(field, value)) {
            errors.forbidden(format!("{here}.{field}"), "cannot be set for an Ephemeral Container");
        }
        for (position, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, &[field]).is_empty() {
                    let place = format!("{here}.volumeMounts[{position}].{field}");
                    errors.forbidden(place, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn allowed(field: &str, value: &Value) -> bool {
    let nothing = value.is_null()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty);
    nothing || OF_DEBUGGERS.contains(&field)
}

/// Containers for debugging are added, and stay as they are.
fn only_added(old: &Value, new: &Value, errors: &mut Errors) {
    for before in list(old, &["spec", "ephemeralContainers"]) {
        let name = text(before, &["name"]);
        let why = match named(new, "ephemeralContainers", name) {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        let why = format!("existing ephemeral containers {name:?} may not be {why}\n");
        errors.forbidden("spec.ephemeralContainers", &why);
    }
}

fn validate_resize(old: &Value, new: &Value, errors: &mut Errors) {
    if !node_resizes(old) {
        errors.forbidden("spec", "Pod running on node without support for resize");
    }
    let (before, after) = (qos_class(old), qos_class(new));
    if before != after {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.invalid("spec", &Value::from(after), why);
    }
    for group in GROUPS {
        for (index, container) in list(new, &["spec", group]).iter().enumerate() {
            let Some(was) = named(old, group, text(container, &["name"])) else { continue };
            if was == container {
                continue;
            }
            let here = format!("spec.{group}[{index}].resources");
            let sidecar = text(container, &["restartPolicy"]) == "Always";
            if group == "initContainers" && !sidecar {
                errors.forbidden(here, "resources of non-sidecar init containers are immutable");
                continue;
            }
            validate_amounts(was, container, &here, errors);
        }
    }
}

/// A node that cannot resize says nothing of the resources of containers that run.
fn node_resizes(pod: &Value) -> bool {
    let mut running = list(pod, &["status", "containerStatuses"])
        .iter()
        .filter(|status| at(status, &["state", "running"]).is_object());
    running.next().is_none_or(|status| at(status, &["resources"]).is_object())
}

/// Only cpu and memory can be resized, and what was bounded stays bounded.
fn validate_amounts(old: &Value, new: &Value, here: &str, errors: &mut Errors) {
    for kind in ["requests", "limits"] {
        let names = |container: &Value| -> BTreeSet<String> {
            strings(container, &["resources", kind]).map(|(name, _)| name.to_owned()).collect()
        };
        for name in names(old).union(&names(new)) {
            let amount = |container| text(container, &["resources", kind, name]).to_owned();
            let (before, after) = (amount(old), amount(new));
            let resizable = matches!(name.as_str(), "cpu" | "memory");
            if before != after && !resizable {
                errors.forbidden(here, "only cpu and memory resources are mutable");
            } else if after.is_empty() {
                errors.forbidden(format!("{here}.{kind}"), &format!("resource {kind} cannot be removed"));
            }
        }
    }
    if at(old, &["resources", "claims"]) != at(new, &["resources", "claims"]) {
        errors.forbidden(format!("{here}.claims"), "field is immutable");
    }
    for (index, policy) in list(new, &["resizePolicy"]).iter().enumerate() {
        let place = format!("{}.resizePolicy[{index}]", here.trim_end_matches(".resources"));
        let policies = ["NotRequired", "RestartContainer"];
        errors.one_of(format!("{place}.resourceName"), text(policy, &["resourceName"]), &["cpu", "memory"]);
        errors.one_of(format!("{place}.restartPolicy"), text(policy, &["restartPolicy"]), &policies);
    }
}
