//! Pods: defaults, QoS class, initial status, validation.

use serde_json::{Value, json};

use super::Change;
use super::pod_rules::{Whole, annotations, validate_spec};
use super::pod_spec::{default_pod_only, default_spec};
use crate::schema::Quantity;
use crate::tree::{at, list, remove, set, strings, text};
use crate::validate::Errors;

pub fn default_pod(pod: &mut Value) {
    default_spec(pod, &["spec"]);
    // No node: schedulers, nodes and controllers look whether there is a name at all.
    if at(pod, &["spec", "nodeName"]) == "" {
        remove(pod, &["spec", "nodeName"]);
    }
    if let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) {
        default_pod_only(spec);
    }
}

pub fn default_pod_template(object: &mut Value) {
    default_spec(object, &["template", "spec"]);
}

/// A new pod is Pending and has a QoS class; both stay as they are on update.
pub fn prepare_pod(change: &mut Change<'_>) {
    if change.old.is_none() {
        super::pod_label_keys::become_expressions(change.new);
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

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of all containers, or of the pod as a whole where that is
/// said.
pub fn qos_class(pod: &Value) -> &'static str {
    let whole = at(pod, &["spec", "resources"]);
    let of = |group: &'static str| list(pod, &["spec", group]).iter().map(|one| at(one, &["resources"]));
    let parts: Vec<&Value> =
        if whole.is_object() { vec![whole] } else { of("containers").chain(of("initContainers")).collect() };
    let (mut any, mut guaranteed) = (false, true);
    for resources in parts {
        for resource in ["cpu", "memory"] {
            let [request, limit] = ["requests", "limits"].map(|kind| {
                Quantity::parse(text(resources, &[kind, resource])).filter(|amount| !amount.is_zero())
            });
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

pub fn validate_pod(change: &Change<'_>, errors: &mut Errors) {
    let (old, new) = (change.old, &*change.new);
    validate_whole(old, new, errors);
    if let Some(old) = old {
        super::pod_update::validate(old, new, errors);
        return;
    }
    if !list(new, &["spec", "ephemeralContainers"]).is_empty() {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
    let gated = !list(new, &["spec", "schedulingGates"]).is_empty();
    if gated && !text(new, &["spec", "nodeName"]).is_empty() {
        errors.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared");
    }
    annotations::validate_agreement(new, "spec", errors);
}

/// What every version of a pod is held to.
pub fn validate_whole(old: Option<&Value>, new: &Value, errors: &mut Errors) {
    annotations::validate(new, old, "metadata.annotations", errors);
    let old = old.map(|old| at(old, &["spec"]));
    validate_spec(at(new, &["spec"]), old, Whole::Pod, "spec", errors);
}

/// Checks the template at `path`, whose pods are restarted in one of the ways of `restart`.
pub fn validate_template(change: &Change<'_>, path: &[&str], restart: &[&str], errors: &mut Errors) {
    let (here, template) = (path.join("."), at(change.new, path));
    let old = change.old.map(|old| at(old, path));
    for (key, value) in strings(template, &["metadata", "labels"]) {
        errors.check(format!("{here}.labels"), key, crate::validate::label_key);
        errors.check(format!("{here}.labels"), value, crate::validate::label_value);
    }
    for (key, _) in strings(template, &["metadata", "annotations"]) {
        let key = key.to_ascii_lowercase();
        errors.check(format!("{here}.annotations"), &key, crate::validate::label_key);
    }
    annotations::validate(template, old, &format!("{here}.annotations"), errors);
    let (spec, here) = (at(template, &["spec"]), format!("{here}.spec"));
    validate_spec(spec, old.map(|old| at(old, &["spec"])), Whole::Template, &here, errors);
    annotations::validate_agreement(template, &here, errors);
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.forbidden(format!("{here}.ephemeralContainers"), why);
    }
    errors.one_of(format!("{here}.restartPolicy"), text(spec, &["restartPolicy"]), restart);
    if restart == ["Always"] && !at(spec, &["activeDeadlineSeconds"]).is_null() {
        // A Deployment's pods are those of its ReplicaSets.
        let kind = match text(change.new, &["kind"]) {
            "Deployment" | "" => "ReplicaSet",
            kind => kind,
        };
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(format!("{here}.activeDeadlineSeconds"), &why);
    }
}

pub fn validate_pod_template(change: &Change<'_>, errors: &mut Errors) {
    validate_template(change, &["template"], &["Always", "Never", "OnFailure"], errors);
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
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1073741824"}}),
                "Guaranteed",
            ),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), want, "{resources}");
            // What is said of the whole pod counts, and then nothing else.
            let mut whole = pod(json!({"limits": {"cpu": "7"}}));
            whole["spec"]["resources"] = resources.clone();
            assert_eq!(qos_class(&whole), want, "{resources}");
        }
    }
}
