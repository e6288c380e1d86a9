//! Pods: defaults, QoS class, initial status, validation.

use serde_json::{Value, json};

use super::Change;
use super::pod_spec::default_spec;
use crate::tree::{at, list, remove, set, set_default, strings, text};
use crate::validate::Errors;

pub fn default_pod(pod: &mut Value) {
    default_spec(pod, &["spec"]);
    // No node: schedulers, nodes and controllers look whether there is a name at all.
    if at(pod, &["spec", "nodeName"]) == "" {
        remove(pod, &["spec", "nodeName"]);
    }
    if at(pod, &["spec"]).is_object() {
        set_default(pod, &["spec", "enableServiceLinks"], true);
    }
}

pub fn default_pod_template(object: &mut Value) {
    default_spec(object, &["template", "spec"]);
}

/// A new pod is Pending and has a QoS class; both stay as they are on update.
pub fn prepare_pod(change: &mut Change<'_>) {
    if change.old.is_none() {
        let class = qos_class(change.new);
        set(change.new, &["status"], json!({ "phase": "Pending", "qosClass": class }));
        // Scheduling gates show in the condition from the first moment.
        if !list(change.new, &["spec", "schedulingGates"]).is_empty() {
            let condition = json!([{ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates" }]);
            set(change.new, &["status", "conditions"], condition);
        }
    }
}

/// `podIP` is the first of `podIPs`, whichever of them a client wrote.
pub fn agree_on_addresses(pod: &mut Value) {
    let first = text(pod, &["status", "podIP"]).to_owned();
    let all = list(pod, &["status", "podIPs"]);
    match (first.is_empty(), all.first()) {
        (true, Some(one)) => {
            let address = one["ip"].clone();
            set(pod, &["status", "podIP"], address);
        }
        (false, None) => set(pod, &["status", "podIPs"], json!([{ "ip": first }])),
        (false, Some(one)) if text(one, &["ip"]) != first => {
            set(pod, &["status", "podIPs"], json!([{ "ip": first }]));
        }
        _ => {}
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of all containers.
pub fn qos_class(pod: &Value) -> &'static str {
    let containers = list(pod, &["spec", "containers"]).iter().chain(list(pod, &["spec", "initContainers"]));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let amount = |kind: &str, resource: &str| text(container, &["resources", kind, resource]).to_owned();
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", resource), amount("limits", resource));
            let set = |amount: &str| !amount.is_empty() && amount != "0";
            any |= set(&request) || set(&limit);
            guaranteed &= set(&limit) && (request == limit || request.is_empty());
        }
    }
    match (any, guaranteed) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

pub fn validate_pod(change: &Change<'_>, errors: &mut Errors) {
    super::pod_spec_rules::validate_spec(at(change.new, &["spec"]), "spec", errors);
    match change.old {
        Some(old) => validate_update(old, change.new, errors),
        None if !list(change.new, &["spec", "ephemeralContainers"]).is_empty() => {
            errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
        }
        None => {}
    }
}

/// Of a pod's spec only the images, the deadline, the grace period of a failed start and added tolerations may change.
fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let comparable = |pod: &Value| {
        let mut spec = at(pod, &["spec"]).clone();
        for group in ["containers", "initContainers"] {
            for container in crate::tree::list_mut(&mut spec, &[group]) {
                remove(container, &["image"]);
            }
        }
        for field in
            ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"]
        {
            remove(&mut spec, &[field]);
        }
        // Binding sets it once; a pod with gates may still narrow where it goes.
        if text(pod, &["spec", "nodeName"]).is_empty() {
            remove(&mut spec, &["nodeName"]);
        }
        spec
    };
    let (before, mut after) = (comparable(old), comparable(new));
    if text(old, &["spec", "nodeName"]).is_empty() {
        remove(&mut after, &["nodeName"]);
        if !text(new, &["spec", "nodeName"]).is_empty() {
            errors.forbidden("spec", IMMUTABLE);
            return;
        }
    }
    if before != after {
        errors.forbidden("spec", IMMUTABLE);
    }
    let kept =
        list(old, &["spec", "tolerations"]).iter().all(|t| list(new, &["spec", "tolerations"]).contains(t));
    if !kept {
        errors.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Annotations and labels of the pod a template makes must be valid where the template is.
pub fn validate_template(object: &Value, path: &[&str], restart: &[&str], errors: &mut Errors) {
    let here = path.join(".");
    let template = at(object, path);
    for (key, value) in strings(template, &["metadata", "labels"]) {
        errors.check(format!("{here}.metadata.labels"), key, crate::validate::label_key);
        errors.check(format!("{here}.metadata.labels"), value, crate::validate::label_value);
    }
    super::pod_spec_rules::validate_spec(at(template, &["spec"]), &format!("{here}.spec"), errors);
    if !list(template, &["spec", "ephemeralContainers"]).is_empty() {
        let place = format!("{here}.spec.ephemeralContainers");
        errors.forbidden(place, "ephemeral containers not allowed in pod template");
    }
    errors.one_of(format!("{here}.spec.restartPolicy"), text(template, &["spec", "restartPolicy"]), restart);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_name_of_a_node_is_none() {
        for (name, want) in [(json!(""), None), (json!("n"), Some(json!("n")))] {
            let mut pod = json!({"spec": {"nodeName": name, "containers": []}});
            default_pod(&mut pod);
            assert_eq!(pod["spec"].get("nodeName").cloned(), want);
        }
    }

    #[test]
    fn the_qos_class_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, want) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), want, "{resources}");
        }
    }
}
