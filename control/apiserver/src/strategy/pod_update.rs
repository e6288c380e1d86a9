//! What of a pod may change once it is there.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::pod_rules::annotations;
use crate::tree::{at, copy, int, list, list_mut, remove, set, strings, text};
use crate::validate::Errors;

const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Checks the change of a pod whose new version is good in itself.
pub fn validate(old: &Value, new: &Value, errors: &mut Errors) {
    annotations::validate_kept(old, new, errors);
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    for group in ["containers", "initContainers"] {
        if list(before, &[group]).len() != list(after, &[group]).len() {
            errors.forbidden(format!("spec.{group}"), "pod updates may not add or remove containers");
            return;
        }
    }
    if !validate_deadline(before, after, errors) {
        return;
    }
    validate_tolerations(before, after, errors);
    validate_gates(before, after, errors);
    if before == after {
        return;
    }
    let mut compared = after.clone();
    restore_changeable(before, &mut compared);
    // A pod that waits for gates may still narrow where it goes.
    if !list(before, &["schedulingGates"]).is_empty() {
        validate_node_selector(before, after, errors);
        validate_node_affinity(before, after, errors);
        copy(&mut compared, before, &["nodeSelector"]);
        restore_node_affinity(before, &mut compared);
    }
    if before != &compared {
        errors.forbidden("spec", IMMUTABLE);
    }
}

/// Makes what may change what it was.
fn restore_changeable(old: &Value, new: &mut Value) {
    for group in ["containers", "initContainers"] {
        let images = list(old, &[group]).iter();
        for (container, was) in list_mut(new, &[group]).iter_mut().zip(images) {
            copy(container, was, &["image"]);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy(new, old, &[field]);
    }
    let grace = ["terminationGracePeriodSeconds"];
    if int(old, &grace).is_some_and(|seconds| seconds < 0) && int(new, &grace) == Some(1) {
        copy(new, old, &grace);
    }
}

/// A deadline is set or comes nearer. Says whether to look further.
fn validate_deadline(old: &Value, new: &Value, errors: &mut Errors) -> bool {
    let field = ["activeDeadlineSeconds"];
    let why = match (int(old, &field), int(new, &field)) {
        (_, Some(after)) if !(0..=i64::from(i32::MAX)).contains(&after) => {
            "must be between 0 and 2147483647, inclusive"
        }
        (Some(before), Some(after)) if before < after => "must be less than or equal to previous value",
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            errors.invalid("spec.activeDeadlineSeconds", &Value::Null, why);
            return true;
        }
        _ => return true,
    };
    errors.invalid("spec.activeDeadlineSeconds", at(new, &field), why);
    false
}

/// Tolerations stay, but for how long they last.
fn validate_tolerations(old: &Value, new: &Value, errors: &mut Errors) {
    let lasting = |one: &Value| {
        let mut one = one.clone();
        remove(&mut one, &["tolerationSeconds"]);
        one
    };
    let all: HashSet<Value> = list(new, &["tolerations"]).iter().map(lasting).collect();
    if !list(old, &["tolerations"]).iter().all(|before| all.contains(&lasting(before))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden("spec.tolerations", why);
    }
}

fn validate_gates(old: &Value, new: &Value, errors: &mut Errors) {
    let gates = |spec| list(spec, &["schedulingGates"]).iter().map(|gate| text(gate, &["name"]));
    let mut added: HashMap<&str, usize> = gates(new).enumerate().map(|(index, name)| (name, index)).collect();
    gates(old).for_each(|name| _ = added.remove(name));
    let mut added: Vec<(usize, &str)> = added.into_iter().map(|(name, index)| (index, name)).collect();
    added.sort_unstable();
    for (index, name) in added {
        let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        errors.forbidden(format!("spec.schedulingGates[{index}].name"), &why);
    }
}

fn validate_node_selector(old: &Value, new: &Value, errors: &mut Errors) {
    let after = at(new, &["nodeSelector"]);
    if !strings(old, &["nodeSelector"]).all(|(key, value)| after.get(key).is_some_and(|now| now == value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid("spec.nodeSelector", after, why);
    }
}

fn validate_node_affinity(old: &Value, new: &Value, errors: &mut Errors) {
    let path = ["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"];
    let (before, after) = (list(old, &path), list(new, &path));
    let here = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    if before.is_empty() {
        return;
    }
    if before.len() != after.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(here, at(new, &path), why);
        return;
    }
    for (index, (was, now)) in before.iter().zip(after).enumerate() {
        if !only_adds(was, now) {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.invalid(format!("{here}[{index}]"), now, why);
        }
    }
}

/// A term with no requirement selects nothing, and keeps to that.
fn only_adds(old: &Value, new: &Value) -> bool {
    let parts = ["matchExpressions", "matchFields"];
    if parts.iter().all(|part| list(old, &[part]).is_empty()) {
        return parts.iter().all(|part| list(new, &[part]).is_empty());
    }
    parts.iter().all(|part| list(new, &[part]).starts_with(list(old, &[part])))
}

fn restore_node_affinity(old: &Value, new: &mut Value) {
    match at(old, &["affinity", "nodeAffinity"]) {
        Value::Null => _ = remove(new, &["affinity", "nodeAffinity"]),
        before => set(new, &["affinity", "nodeAffinity"], before.clone()),
    }
    let is_empty = at(new, &["affinity"]).as_object().is_some_and(serde_json::Map::is_empty);
    if is_empty && at(old, &["affinity"]).is_null() {
        remove(new, &["affinity"]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &Value) -> Value {
        let mut pod = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": [{"name": "c",
            "image": "i"}], "terminationGracePeriodSeconds": 30}});
        json_patch::merge(&mut pod["spec"], spec);
        pod
    }

    fn found(old: &Value, new: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(old, new, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_pod_changes_little() {
        let term = |keys: &[&str]| {
            let all: Vec<Value> = keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
            json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": all}]}}})
        };
        let gated = |more: Value| {
            let mut spec = json!({"schedulingGates": [{"name": "g"}]});
            json_patch::merge(&mut spec, &more);
            spec
        };
        let tolerates = |seconds: Value| json!({"tolerations": [{"key": "a", "tolerationSeconds": seconds}]});
        let cases = [
            (json!({}), json!({"containers": [{"name": "c", "image": "j"}]}), ""),
            (
                json!({}),
                json!({"containers": [{"name": "c", "image": "i"}, {"name": "d"}]}),
                "may not add or remove",
            ),
            (
                json!({}),
                json!({"containers": [{"name": "d", "image": "i"}]}),
                "spec: Forbidden: pod updates may not",
            ),
            (json!({}), json!({"activeDeadlineSeconds": 5}), ""),
            (json!({"activeDeadlineSeconds": 5}), json!({"activeDeadlineSeconds": 4}), ""),
            (
                json!({"activeDeadlineSeconds": 5}),
                json!({"activeDeadlineSeconds": 6}),
                "less than or equal to previous",
            ),
            (json!({"activeDeadlineSeconds": 5}), json!({}), "null: must not update from a positive integer"),
            (json!({}), json!({"activeDeadlineSeconds": -1}), "must be between 0 and"),
            (json!({"terminationGracePeriodSeconds": -1}), json!({"terminationGracePeriodSeconds": 1}), ""),
            (
                json!({"terminationGracePeriodSeconds": -1}),
                json!({"terminationGracePeriodSeconds": 2}),
                "pod updates",
            ),
            (json!({}), json!({"terminationGracePeriodSeconds": 1}), "pod updates"),
            (tolerates(json!(1)), tolerates(json!(2)), ""),
            (tolerates(json!(1)), json!({}), "existing toleration can not be modified"),
            (json!({}), tolerates(json!(1)), ""),
            (gated(json!({})), json!({}), ""),
            (json!({}), gated(json!({})), "schedulingGates[0].name: Forbidden: only deletion is allowed"),
            (json!({}), json!({"nodeSelector": {"a": "b"}}), "pod updates"),
            (gated(json!({})), gated(json!({"nodeSelector": {"a": "b"}})), ""),
            (
                gated(json!({"nodeSelector": {"a": "b"}})),
                gated(json!({})),
                "only additions to spec.nodeSelector",
            ),
            (gated(json!({})), gated(json!({"affinity": term(&["a"])})), ""),
            (gated(json!({"affinity": term(&["a"])})), gated(json!({"affinity": term(&["a", "b"])})), ""),
            (
                gated(json!({"affinity": term(&["a"])})),
                gated(json!({"affinity": term(&["b"])})),
                "only additions are allowed",
            ),
            (
                gated(json!({"affinity": term(&["a"])})),
                gated(json!({})),
                "no additions/deletions to non-empty",
            ),
            (gated(json!({})), gated(json!({"affinity": {"podAffinity": {}}})), "pod updates"),
            (json!({}), json!({"nodeName": "n"}), "pod updates"),
        ];
        for (before, after, want) in cases {
            let told = found(&pod(&before), &pod(&after));
            assert_eq!(told.len(), usize::from(!want.is_empty()), "{before} {after} {told:?}");
            assert!(told.iter().all(|one| one.contains(want)), "{before} {after} {told:?}");
        }
    }

    #[test]
    fn annotations_of_nodes_stay() {
        let mut mirror = pod(&json!({}));
        mirror["metadata"]["annotations"][annotations::MIRROR] = json!("x");
        let place = "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not";
        assert_eq!(found(&pod(&json!({})), &mirror), [format!("{place} add mirror pod annotation")]);
        assert_eq!(
            found(&mirror, &pod(&json!({}))),
            [format!("{place} remove or update mirror pod annotation")]
        );
    }
}
