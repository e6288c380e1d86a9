//! Namespaces, nodes, leases and priority classes.

use serde_json::{Value, json};

use super::Change;
use crate::tree::{at, copy, int, list, set, set_default, text};
use crate::validate::{self, Errors};

/// Every namespace carries its name as a label.
pub fn default_namespace(namespace: &mut Value) {
    let name = text(namespace, &["metadata", "name"]).to_owned();
    if !name.is_empty() {
        set(namespace, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
    }
}

/// The content of a namespace is removed before it is: the `kubernetes` finalizer says so.
pub fn prepare_namespace(change: &mut Change<'_>) {
    match change.old {
        None => {
            let mut finalizers = list(change.new, &["spec", "finalizers"]).to_vec();
            if !finalizers.iter().any(|one| one == "kubernetes") {
                finalizers.push(json!("kubernetes"));
            }
            set(change.new, &["spec", "finalizers"], finalizers);
            set(change.new, &["status"], json!({ "phase": "Active" }));
        }
        Some(old) => copy(change.new, old, &["spec", "finalizers"]),
    }
}

pub fn validate_node(change: &Change<'_>, errors: &mut Errors) {
    for (index, taint) in list(change.new, &["spec", "taints"]).iter().enumerate() {
        let here = format!("spec.taints[{index}]");
        errors.check(format!("{here}.key"), text(taint, &["key"]), validate::label_key);
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        let effect = text(taint, &["effect"]);
        if !effects.contains(&effect) {
            errors.unsupported(format!("{here}.effect"), effect, &effects);
        }
    }
    if let Some(old) = change.old {
        let before = at(old, &["spec", "podCIDRs"]);
        if !before.is_null() && before != at(change.new, &["spec", "podCIDRs"]) {
            errors
                .forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
        }
    }
}

pub fn validate_lease(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(seconds) = int(spec, &["leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
        errors.invalid("spec.leaseDurationSeconds", &Value::from(seconds), "must be greater than 0");
    }
    errors.not_negative("spec.leaseTransitions", int(spec, &["leaseTransitions"]));
}

pub fn validate_runtime_class(change: &Change<'_>, errors: &mut Errors) {
    errors.check("handler", text(change.new, &["handler"]), validate::label);
    if let Some(old) = change.old {
        errors.immutable("handler", at(old, &["handler"]), at(change.new, &["handler"]));
    }
}

pub fn default_priority_class(class: &mut Value) {
    set_default(class, &["preemptionPolicy"], "PreemptLowerPriority");
}

/// User classes stay below the system's own.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub fn validate_priority_class(change: &Change<'_>, errors: &mut Errors) {
    let name = text(change.new, &["metadata", "name"]);
    let value = int(change.new, &["value"]).unwrap_or_default();
    let system = name == "system-cluster-critical" || name == "system-node-critical";
    if !system && name.starts_with("system-") {
        errors.forbidden(
            "metadata.name",
            "priority class names with 'system-' prefix are reserved for system use only",
        );
    }
    if !system && value > HIGHEST_USER_PRIORITY {
        let detail = "maximum allowed value of a user defined priority is 1000000000";
        errors.forbidden("value", detail);
    }
    errors.one_of(
        "preemptionPolicy",
        text(change.new, &["preemptionPolicy"]),
        &["Never", "PreemptLowerPriority"],
    );
    if let Some(old) = change.old
        && at(old, &["value"]) != at(change.new, &["value"])
    {
        errors.forbidden("value", "may not be changed in an update.");
    }
}
