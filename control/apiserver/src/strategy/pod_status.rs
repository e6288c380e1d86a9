//! What a node may say of its pods.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::addresses::{address, lenient};
use super::pod_rules::{GROUPS, annotations};
use crate::tree::{at, int, list, set, text};
use crate::validate::{self, Errors};

/// What a status does not say stays: old nodes know nothing of it.
pub fn keep_unsaid(old: &Value, new: &mut Value) {
    let class = at(old, &["status", "qosClass"]);
    if text(new, &["status", "qosClass"]).is_empty() && !class.is_null() {
        set(new, &["status", "qosClass"], class.clone());
    }
    let seen = ["status", "observedGeneration"];
    if int(new, &seen).unwrap_or_default() == 0 && !at(old, &seen).is_null() {
        set(new, &seen, at(old, &seen).clone());
    }
    let mut before: HashMap<&str, Vec<&Value>> = HashMap::new();
    for condition in list(old, &["status", "conditions"]).iter().rev() {
        before.entry(text(condition, &["type"])).or_default().push(at(condition, &["observedGeneration"]));
    }
    for condition in crate::tree::list_mut(new, &["status", "conditions"]) {
        let was = before.get_mut(text(condition, &["type"])).and_then(Vec::pop).unwrap_or(&Value::Null);
        if int(condition, &["observedGeneration"]).unwrap_or_default() == 0 && !was.is_null() {
            set(condition, &["observedGeneration"], was.clone());
        }
    }
}

/// Checks a new status.
pub fn validate(old: &Value, new: &Value, errors: &mut Errors) {
    annotations::validate_kept(old, new, errors);
    annotations::validate(new, Some(old), "metadata.annotations", errors);
    let (before, after) = (at(old, &["status"]), at(new, &["status"]));
    validate_conditions(after, errors);
    validate_nomination(old, after, errors);
    if int(after, &["observedGeneration"]).is_some_and(|generation| generation < 0) {
        let place = "status.observedGeneration";
        errors.invalid(place, at(after, &["observedGeneration"]), "must be a non-negative integer");
    }
    errors.immutable("status.qosClass", at(before, &["qosClass"]), at(after, &["qosClass"]));
    for (group, statuses) in GROUPS.iter().zip(STATUSES) {
        validate_transitions(at(old, &["spec"]), group, statuses, before, after, errors);
    }
    validate_claims(new, errors);
    validate_addresses("podIPs", before, after, errors);
    let first = text(after, &["hostIPs", "0", "ip"]);
    let first = list(after, &["hostIPs"]).first().map_or(first, |one| text(one, &["ip"]));
    if !list(after, &["hostIPs"]).is_empty() && text(after, &["hostIP"]) != first {
        errors.invalid("status.hostIPs[0].ip", &Value::from(first), "must be equal to `hostIP`");
    }
    validate_addresses("hostIPs", before, after, errors);
    for (group, statuses) in GROUPS.iter().zip(STATUSES) {
        for (index, status) in list(after, &[statuses]).iter().enumerate() {
            let here = format!("status.{statuses}[{index}]");
            validate_user(status, at(new, &["spec"]), &here, errors);
            validate_health(status, at(new, &["spec"]), group, &here, errors);
        }
    }
}

/// In the order of [`GROUPS`].
const STATUSES: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

fn validate_conditions(status: &Value, errors: &mut Errors) {
    for (index, condition) in list(status, &["conditions"]).iter().enumerate() {
        let here = format!("status.conditions[{index}]");
        let generation = at(condition, &["observedGeneration"]);
        if generation.as_i64().is_some_and(|generation| generation < 0) {
            let why = "must be a non-negative integer";
            errors.invalid(format!("{here}.observedGeneration"), generation, why);
        }
        errors.check(format!("{here}.Type"), text(condition, &["type"]), validate::label_key);
    }
}

fn validate_nomination(old: &Value, status: &Value, errors: &mut Errors) {
    let (place, node) = ("status.nominatedNodeName", text(status, &["nominatedNodeName"]));
    if node.is_empty() || node == text(old, &["status", "nominatedNodeName"]) {
        return;
    }
    errors.check(place, node, validate::subdomain);
    if !text(old, &["spec", "nodeName"]).is_empty() {
        errors.forbidden(place, "may not be set on pods that are already bound to a node");
    }
}

/// A container that has ended runs again only where it is to be restarted.
fn validate_transitions(
    spec: &Value,
    group: &str,
    statuses: &str,
    old: &Value,
    new: &Value,
    errors: &mut Errors,
) {
    let debugging = group == "ephemeralContainers";
    if !debugging && all_may_restart(spec) {
        return;
    }
    for (index, before) in list(old, &[statuses]).iter().enumerate() {
        let ended = at(before, &["state", "terminated"]);
        if !ended.is_object() {
            continue;
        }
        let name = text(before, &["name"]);
        let named = |one: &&Value| text(one, &["name"]) == name;
        let runs = |one: &Value| !at(one, &["state", "terminated"]).is_object();
        if !list(new, &[statuses]).iter().any(|after| named(&after) && runs(after)) {
            continue;
        }
        let code = int(ended, &["exitCode"]).unwrap_or_default();
        let container = list(spec, &[group]).iter().find(named);
        if debugging || !container.is_some_and(|container| restarts(spec, container, code)) {
            let why = "may not be transitioned to non-terminated state";
            errors.forbidden(format!("status.{statuses}[{index}].state"), why);
        }
    }
}

/// Whether a container may have the whole pod started again.
fn all_may_restart(spec: &Value) -> bool {
    ["containers", "initContainers"]
        .iter()
        .flat_map(|group| list(spec, &[group]))
        .flat_map(|container| list(container, &["restartPolicyRules"]))
        .any(|rule| text(rule, &["action"]) == "RestartAllContainers")
}

fn restarts(spec: &Value, container: &Value, code: i64) -> bool {
    for rule in list(container, &["restartPolicyRules"]) {
        let listed = list(rule, &["exitCodes", "values"]).iter().any(|value| value.as_i64() == Some(code));
        let applies = match text(rule, &["exitCodes", "operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if applies && text(rule, &["action"]) == "Restart" {
            return true;
        }
    }
    let own = text(container, &["restartPolicy"]);
    match if own.is_empty() { text(spec, &["restartPolicy"]) } else { own } {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

fn validate_claims(pod: &Value, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (index, claim) in list(pod, &["status", "resourceClaimStatuses"]).iter().enumerate() {
        let (here, name) = (format!("status.resourceClaimStatuses[{index}]"), text(claim, &["name"]));
        if !list(pod, &["spec", "resourceClaims"]).iter().any(|one| text(one, &["name"]) == name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(format!("{here}.name"), &Value::from(name), why);
        }
        if !names.insert(name) {
            errors.duplicate(format!("{here}.name"), &Value::from(name));
        }
        if let Some(claim) = at(claim, &["resourceClaimName"]).as_str() {
            errors.check(format!("{here}.resourceClaimName"), claim, validate::subdomain);
        }
    }
}

/// Addresses are such, at most one of each family; those that were there before are not looked at again.
fn validate_addresses(field: &str, old: &Value, new: &Value, errors: &mut Errors) {
    let all = list(new, &[field]);
    let (before, here) = (list(old, &[field]), format!("status.{field}"));
    for (index, one) in all.iter().enumerate() {
        let known = before.iter().any(|other| text(other, &["ip"]) == text(one, &["ip"]));
        if !known {
            errors.check(format!("{here}[{index}]"), text(one, &["ip"]), address);
        }
    }
    let families = all.iter().filter_map(|one| lenient(text(one, &["ip"])));
    let families: HashSet<bool> = families.map(|one| one.is_ipv4()).collect();
    if all.len() > 1 && (all.len() > 2 || families.len() < 2) {
        let why = "may specify no more than one IP for each IP family";
        errors.invalid(here, at(new, &[field]), why);
    }
}

fn validate_user(status: &Value, spec: &Value, here: &str, errors: &mut Errors) {
    let user = at(status, &["user", "linux"]);
    if !user.is_object() {
        return;
    }
    let here = format!("{here}.user.linux");
    if text(spec, &["os", "name"]) == "windows" {
        errors.forbidden(here, "cannot be set for a windows pod");
        return;
    }
    let groups = list(user, &["supplementalGroups"]).iter().enumerate();
    let groups = groups.map(|(index, group)| (format!("supplementalGroups[{index}]"), group));
    let own = ["uid", "gid"].map(|field| (field.to_owned(), at(user, &[field])));
    for (field, id) in own.into_iter().chain(groups) {
        if id.as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
            let why = "must be between 0 and 2147483647, inclusive";
            errors.invalid(format!("{here}.{field}"), id, why);
        }
    }
}

/// Health is told of what a container has, and of each device once.
fn validate_health(status: &Value, spec: &Value, group: &str, here: &str, errors: &mut Errors) {
    let all = list(status, &["allocatedResourcesStatus"]);
    let here = format!("{here}.allocatedResourcesStatus");
    if group == "ephemeralContainers" {
        if !all.is_empty() {
            errors.forbidden(here, "must not be specified in container status");
        }
        return;
    }
    let named = |one: &&Value| text(one, &["name"]) == text(status, &["name"]);
    let container = list(spec, &[group]).iter().find(named);
    for (index, told) in all.iter().enumerate() {
        if let Some(why) = container.and_then(|container| stranger(container, text(told, &["name"]))) {
            errors.invalid(format!("{here}[{index}].name"), at(told, &["name"]), why);
        }
        let mut seen = HashSet::new();
        for (position, device) in list(told, &["resources"]).iter().enumerate() {
            let place = format!("{here}[{index}].resources[{position}]");
            let known = ["Healthy", "Unhealthy", "Unknown"];
            errors.must_be(format!("{place}.health"), text(device, &["health"]), &known);
            let id = at(device, &["resourceID"]);
            if !seen.insert(text(device, &["resourceID"])) {
                errors.duplicate(format!("{place}.resourceID"), id);
            }
        }
    }
}

/// Why a container has nothing of that name.
fn stranger(container: &Value, name: &str) -> Option<&'static str> {
    let Some(claim) = name.strip_prefix("claim:") else {
        let has = !at(container, &["resources", "requests", name]).is_null();
        return (!has).then_some("must match one of the container's resource requests");
    };
    let full = |one: &Value| match text(one, &["request"]) {
        "" => text(one, &["name"]) == claim,
        request => claim.split_once('/') == Some((text(one, &["name"]), request)),
    };
    (!list(container, &["resources", "claims"]).iter().any(full)).then_some(
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
         'claim:<claimName>' if request is empty",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: &Value, old: Value, new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        let old = json!({"spec": spec, "status": old});
        validate(&old, &json!({"spec": spec, "status": new}), &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn only(told: &[String], want: &str) {
        assert_eq!(told.len(), usize::from(!want.is_empty()), "{want}: {told:?}");
        assert!(told.iter().all(|one| one.contains(want)), "{want}: {told:?}");
    }

    #[test]
    fn a_status_says_what_can_be() {
        let spec = json!({"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"x.io/y": "1"}}}],
            "resourceClaims": [{"name": "gpu"}]});
        let ips = |ips: &[&str]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        let health = |name: &str, health: &str| {
            json!({"containerStatuses": [{"name": "c", "allocatedResourcesStatus": [{"name": name,
                "resources": [{"resourceID": "a", "health": health}]}]}]})
        };
        for (new, want) in [
            (json!({"conditions": [{"type": "Ready"}, {"type": "a.b/c"}]}), ""),
            (
                json!({"conditions": [{"type": "a b"}]}),
                "status.conditions[0].Type: Invalid value: \"a b\": name part",
            ),
            (
                json!({"conditions": [{"type": "a", "observedGeneration": -1}]}),
                "must be a non-negative integer",
            ),
            (json!({"observedGeneration": -1}), "status.observedGeneration: Invalid value: -1: must be"),
            (json!({"nominatedNodeName": "m"}), "Forbidden: may not be set on pods that are already bound"),
            (
                json!({"qosClass": "Burstable"}),
                "status.qosClass: Invalid value: \"Burstable\": field is immutable",
            ),
            (json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "a"}]}), ""),
            (json!({"resourceClaimStatuses": [{"name": "cpu"}]}), "must match the name of an entry"),
            (json!({"resourceClaimStatuses": [{"name": "gpu"}, {"name": "gpu"}]}), "[1].name: Duplicate"),
            (
                json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "A"}]}),
                "[0].resourceClaimName",
            ),
            (json!({"podIPs": ips(&["10.0.0.1", "fd00::1"])}), ""),
            (json!({"podIPs": ips(&["10.0.0.1", "10.0.0.2"])}), "no more than one IP for each IP family"),
            (json!({"podIPs": ips(&["10.0.0.256"])}), "status.podIPs[0]: Invalid value"),
            (json!({"hostIP": "10.0.0.1", "hostIPs": ips(&["10.0.0.1"])}), ""),
            (json!({"hostIP": "10.0.0.1", "hostIPs": ips(&["10.0.0.2"])}), "must be equal to `hostIP`"),
            (json!({"containerStatuses": [{"name": "c", "user": {"linux": {"uid": 0, "gid": 0}}}]}), ""),
            (
                json!({"containerStatuses": [{"name": "c", "user": {"linux": {"uid": -1}}}]}),
                ".user.linux.uid: Invalid",
            ),
            (health("x.io/y", "Healthy"), ""),
            (health("x.io/z", "Healthy"), "must match one of the container's resource requests"),
            (health("claim:gpu", "Healthy"), "must match one of the container's resource claims"),
            (health("x.io/y", "Well"), "Unsupported value: \"Well\""),
            (
                json!({"ephemeralContainerStatuses": [{"name": "d", "allocatedResourcesStatus": [{"name": "a"}]}]}),
                "must not be specified in container status",
            ),
        ] {
            only(&found(&spec, json!({}), new.clone()), want);
        }
    }

    #[test]
    fn a_container_that_ended_runs_again_where_it_may() {
        let state = |field: &str, state: Value| json!({field: [{"name": "c", "state": state}]});
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        let rule = |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [3]}}]);
        for (pod, own, code, want) in [
            ("Always", json!({}), 0, true),
            ("Never", json!({}), 1, false),
            ("OnFailure", json!({}), 0, false),
            ("OnFailure", json!({}), 1, true),
            ("Always", json!({"restartPolicy": "Never"}), 1, false),
            ("Never", json!({"restartPolicy": "Always"}), 1, true),
            ("Never", json!({"restartPolicyRules": rule("Restart")}), 3, true),
            ("Never", json!({"restartPolicyRules": rule("Restart")}), 4, false),
            ("Never", json!({"restartPolicyRules": rule("RestartAllContainers")}), 4, true),
        ] {
            let mut container = json!({"name": "c"});
            json_patch::merge(&mut container, &own);
            for (group, field) in [("containers", STATUSES[0]), ("initContainers", STATUSES[1])] {
                let spec = json!({"restartPolicy": pod, group: [container]});
                let running = state(field, json!({"running": {}}));
                let told = found(&spec, state(field, ended(code)), running);
                only(&told, if want { "" } else { "may not be transitioned to non-terminated state" });
                only(&found(&spec, state(field, ended(code)), state(field, ended(9))), "");
            }
        }
        let spec = json!({"restartPolicy": "Always"});
        let told = found(&spec, state(STATUSES[2], ended(0)), state(STATUSES[2], json!({"waiting": {}})));
        only(&told, "status.ephemeralContainerStatuses[0].state: Forbidden");
    }

    #[test]
    fn what_a_node_does_not_say_stays() {
        let old = json!({"status": {"qosClass": "Burstable", "observedGeneration": 2,
            "conditions": [{"type": "a", "observedGeneration": 1}]}});
        let mut new = json!({"status": {"conditions": [{"type": "a"}, {"type": "b"}]}});
        keep_unsaid(&old, &mut new);
        let want = json!({"qosClass": "Burstable", "observedGeneration": 2,
            "conditions": [{"type": "a", "observedGeneration": 1}, {"type": "b"}]});
        assert_eq!(new["status"], want);
    }
}
