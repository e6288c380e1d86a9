//! Nodes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Change;
use super::addresses::{Network, range};
use super::resource_names::validate_amount;
use crate::resources::Sub;
use crate::tree::{at, fields, list, set, text};
use crate::validate::{self, Errors};

/// What pods may use is everything where nobody says otherwise.
pub fn default_node(node: &mut Value) {
    let capacity = at(node, &["status", "capacity"]).clone();
    if capacity.is_object() && at(node, &["status", "allocatable"]).is_null() {
        set(node, &["status", "allocatable"], capacity);
    }
}

pub fn validate_node(change: &Change<'_>, errors: &mut Errors) {
    validate_ranges(change, errors);
    validate_everywhere(change, errors);
}

pub fn validate_node_status(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    if sub == Sub::Status {
        validate_everywhere(change, errors);
    }
}

/// What also holds for a write of the status.
fn validate_everywhere(change: &Change<'_>, errors: &mut Errors) {
    validate_taints(list(change.new, &["spec", "taints"]), errors);
    for field in ["capacity", "allocatable"] {
        for (name, amount) in fields(change.new, &["status", field]) {
            validate_amount(name, amount, &format!("status.{field}.{name}"), errors);
        }
    }
    if let Some(old) = change.old {
        validate_kept(at(old, &["spec"]), at(change.new, &["spec"]), errors);
        validate_addresses(list(change.new, &["status", "addresses"]), errors);
    }
}

/// Upstream looks for taints in the metadata, by the name of the field.
fn validate_taints(taints: &[Value], errors: &mut Errors) {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let mut seen = HashSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let here = format!("metadata.taints[{index}]");
        let [key, value, effect] = ["key", "value", "effect"].map(|field| text(taint, &[field]));
        errors.check(format!("{here}.key"), key, validate::label_key);
        errors.check(format!("{here}.value"), value, validate::label_value);
        match effect {
            "" => errors.required(format!("{here}.effect"), ""),
            effect => errors.must_be(format!("{here}.effect"), effect, &effects),
        }
        if !seen.insert((key, effect)) {
            // Upstream shows it as its server has it.
            let shown = json!({ "Key": key, "Value": value, "Effect": effect, "TimeAdded": at(taint, &["timeAdded"]) });
            errors.repeated(here, &shown, "taints must be unique by key and effect pair");
        }
    }
}

fn validate_ranges(change: &Change<'_>, errors: &mut Errors) {
    let (shown, ranges) = (at(change.new, &["spec", "podCIDRs"]), list(change.new, &["spec", "podCIDRs"]));
    let kept = change.old.map_or(&[][..], |old| list(old, &["spec", "podCIDRs"]));
    let kept: HashSet<&Value> = kept.iter().collect();
    let mut seen = HashSet::new();
    for (index, one) in ranges.iter().enumerate() {
        let place = format!("spec.podCIDRs[{index}]");
        if !kept.contains(one) {
            errors.check(place.clone(), one.as_str().unwrap_or_default(), range);
        }
        if !seen.insert(one.to_string()) {
            errors.duplicate(place, one);
        }
    }
    let families: HashSet<bool> =
        ranges.iter().filter_map(|one| Some(Network::lenient(one.as_str()?)?.address.is_ipv4())).collect();
    if ranges.len() > 2 || (ranges.len() == 2 && families.len() < 2) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid("spec.podCIDRs", shown, detail);
    }
}

fn validate_kept(old: &Value, new: &Value, errors: &mut Errors) {
    let before = list(old, &["podCIDRs"]);
    if !before.is_empty() && before != list(new, &["podCIDRs"]) {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden("spec.podCIDRs", detail);
    }
    let before = text(old, &["providerID"]);
    if !before.is_empty() && before != text(new, &["providerID"]) {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden("spec.providerID", detail);
    }
    if text(old, &["externalID"]) != text(new, &["externalID"]) {
        errors.forbidden("spec.externalID", "may not be updated");
    }
}

fn validate_addresses(addresses: &[Value], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let [kind, given] = ["type", "address"].map(|field| text(address, &[field]));
        if !seen.insert((kind, given)) {
            let shown = json!({ "Type": kind, "Address": given });
            errors.duplicate(format!("status.addresses[{index}]"), &shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(old: Option<&Value>, mut new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate_node(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn taints_are_of_a_known_effect_and_differ() {
        let taint =
            |key: &str, value: &str, effect: &str| json!({ "key": key, "value": value, "effect": effect });
        let of = |taints: Vec<Value>| refused(None, json!({ "spec": { "taints": taints } }));
        assert_eq!(of(vec![taint("a", "", "NoSchedule"), taint("a", "b", "NoExecute")]), [""; 0]);
        assert_eq!(of(vec![taint("a", "", "")]), ["metadata.taints[0].effect: Required value"]);
        let want = "metadata.taints[0].effect: Unsupported value: \"Go\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"";
        assert_eq!(of(vec![taint("a", "", "Go")]), [want]);
        assert!(
            of(vec![taint("a", "-", "NoExecute")])[0]
                .starts_with("metadata.taints[0].value: Invalid value: \"-\"")
        );
        let want = "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"b\",\"Effect\":\"NoExecute\",\"TimeAdded\":null}: taints must be unique by key and effect pair";
        assert_eq!(of(vec![taint("a", "", "NoExecute"), taint("a", "b", "NoExecute")]), [want]);
    }

    #[test]
    fn ranges_of_pods_are_one_of_each_family_and_stay() {
        let node = |ranges: &[&str]| json!({ "spec": { "podCIDRs": ranges } });
        assert_eq!(refused(None, node(&["10.0.0.0/24", "fd00::/64"])), [""; 0]);
        let family = "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family";
        assert_eq!(refused(None, node(&["10.0.0.0/24", "10.0.1.0/24"])), [family]);
        let bits = "spec.podCIDRs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length";
        assert_eq!(refused(None, node(&["10.0.0.1/24"])), [bits]);
        assert_eq!(refused(Some(&node(&["10.0.0.1/24"])), node(&["10.0.0.1/24"])), [""; 0]);
        let kept = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
        assert_eq!(refused(Some(&node(&["10.0.0.0/24"])), node(&["10.0.1.0/24"])), [kept]);
        assert_eq!(refused(Some(&node(&[])), node(&["10.0.1.0/24"])), [""; 0]);
    }

    #[test]
    fn what_a_node_has_is_no_less_than_nothing_and_told_once() {
        let address = json!({ "type": "InternalIP", "address": "10.0.0.1" });
        let new = json!({ "spec": { "providerID": "b", "externalID": "x" },
                          "status": { "capacity": { "pods": "1500m" }, "allocatable": { "cpu": "-1" },
                                      "addresses": [address, address] } });
        let want = [
            "status.capacity.pods: Invalid value: \"1500m\": must be an integer",
            "status.allocatable.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            "spec.externalID: Forbidden: may not be updated",
            "status.addresses[1]: Duplicate value: {\"Type\":\"InternalIP\",\"Address\":\"10.0.0.1\"}",
        ];
        assert_eq!(refused(Some(&json!({ "spec": { "providerID": "a" } })), new), want);
    }
}
