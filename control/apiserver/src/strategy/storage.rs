//! Classes of storage, of its attributes, and how much there is of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::Change;
use super::workload::validate_label_selector;
use crate::schema::quantity_millis;
use crate::tree::{at, list, set_default, strings, text};
use crate::validate::{self, Errors};

/// Upstream's bounds on what a class tells its driver.
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 << 10;

pub fn default_class(class: &mut Value) {
    set_default(class, &["reclaimPolicy"], "Delete");
    set_default(class, &["volumeBindingMode"], "Immediate");
}

pub fn validate_class(change: &Change<'_>, errors: &mut Errors) {
    let class = &*change.new;
    validate_driver(class, "provisioner", errors);
    validate_parameters(class, errors);
    if let Some(policy) = at(class, &["reclaimPolicy"]).as_str().filter(|policy| !policy.is_empty()) {
        errors.must_be("reclaimPolicy", policy, &["Delete", "Retain"]);
    }
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.must_be("volumeBindingMode", text(class, &["volumeBindingMode"]), &modes);
    validate_topologies(list(class, &["allowedTopologies"]), errors);
    if let Some(old) = change.old {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            kept(field, old, class, errors);
        }
        let mode = |class| at(class, &["volumeBindingMode"]);
        errors.immutable("volumeBindingMode", mode(old), mode(class));
    }
}

pub fn validate_attributes_class(change: &Change<'_>, errors: &mut Errors) {
    let class = &*change.new;
    if let Some(old) = change.old {
        for field in ["driverName", "parameters"] {
            kept(field, old, class, errors);
        }
    }
    validate_driver(class, "driverName", errors);
    validate_parameters(class, errors);
    if strings(class, &["parameters"]).next().is_none() {
        errors.required("parameters", "must contain at least one key/value pair");
    }
}

fn kept(field: &str, old: &Value, new: &Value, errors: &mut Errors) {
    if at(old, &[field]) != at(new, &[field]) {
        errors.forbidden(field, &format!("updates to {field} are forbidden."));
    }
}

/// Who makes the volumes; the case of its name is nobody's business, and not shown.
fn validate_driver(class: &Value, field: &str, errors: &mut Errors) {
    errors.named(field, &text(class, &[field]).to_lowercase(), validate::label_key);
}

fn validate_parameters(class: &Value, errors: &mut Errors) {
    if strings(class, &["parameters"]).count() > MAX_PARAMETERS {
        errors.too_long("parameters", MAX_PARAMETERS);
        return;
    }
    let mut size = 0;
    for (key, value) in strings(class, &["parameters"]) {
        if key.is_empty() {
            errors.invalid("parameters", &Value::from(""), "field can not be empty.");
        }
        size += key.len() + value.len();
    }
    if size > MAX_PARAMETERS_SIZE {
        errors.too_long("parameters", MAX_PARAMETERS_SIZE);
    }
}

/// Values that a node's labels may have, by key.
type Topology<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn validate_topologies(terms: &[Value], errors: &mut Errors) {
    // Upstream compares with as many terms that say nothing as there are terms.
    let mut seen = HashMap::from([(Topology::new(), terms.len())]);
    for (index, term) in terms.iter().enumerate() {
        let place = format!("allowedTopologies[{index}].matchLabelExpressions");
        let topology = validate_topology(term, &place, errors);
        let same = seen.entry(topology).or_default();
        for _ in 0..*same {
            if errors.is_full() {
                return;
            }
            errors.duplicate(&place, &Value::from(""));
        }
        *same += 1;
    }
}

fn validate_topology<'a>(term: &'a Value, here: &str, errors: &mut Errors) -> Topology<'a> {
    let mut topology = Topology::new();
    for (index, expression) in list(term, &["matchLabelExpressions"]).iter().enumerate() {
        let place = format!("{here}[{index}]");
        let key = text(expression, &["key"]);
        let values = validate_values(expression, &format!("{place}.values"), errors);
        errors.check(format!("{place}.key"), key, validate::label_key);
        if topology.insert(key, values).is_some() {
            errors.duplicate(format!("{place}.key"), &Value::from(key));
        }
    }
    topology
}

fn validate_values<'a>(expression: &'a Value, here: &str, errors: &mut Errors) -> BTreeSet<&'a str> {
    let values = list(expression, &["values"]);
    if values.is_empty() {
        errors.required(here, "");
    }
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        if !seen.insert(value.as_str().unwrap_or_default()) {
            errors.duplicate(format!("{here}[{index}]"), value);
        }
    }
    seen
}

pub fn validate_capacity(change: &Change<'_>, errors: &mut Errors) {
    let capacity = &*change.new;
    let topology = at(capacity, &["nodeTopology"]);
    let class = at(capacity, &["storageClassName"]);
    let before = |field| change.old.map(|old| at(old, &[field]));
    // What was wrong may go on.
    if before("nodeTopology") != Some(topology) {
        validate_label_selector(topology, "nodeTopology", errors);
    }
    errors.check("storageClassName", class.as_str().unwrap_or_default(), validate::subdomain);
    let amount = text(capacity, &["capacity"]);
    if quantity_millis(amount).is_some_and(|amount| amount < 0) {
        errors.invalid("capacity", &Value::from(amount), "must be greater than or equal to 0");
    }
    if let Some(old) = change.old {
        errors.immutable("nodeTopology", at(old, &["nodeTopology"]), topology);
        errors.immutable("storageClassName", at(old, &["storageClassName"]), class);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::told;

    fn found(validate: fn(&Change<'_>, &mut Errors), base: &Value, more: &Value, is_update: bool) -> String {
        let mut new = base.clone();
        json_patch::merge(&mut new, more);
        told(|errors| validate(&Change { old: is_update.then_some(base), new: &mut new }, errors)).join("; ")
    }

    #[test]
    fn a_class_says_who_makes_volumes_and_keeps_to_it() {
        let mut class = json!({"provisioner": "Example.com/disks", "parameters": {"a": "b"}});
        default_class(&mut class);
        let zones = |values: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": values}]});
        for (more, want) in [
            (json!({}), ""),
            (json!({"allowedTopologies": [zones(json!(["a", "b"])), zones(json!(["c"]))]}), ""),
            (json!({"provisioner": ""}), "provisioner: Required value"),
            (json!({"parameters": {"": "a"}}), "parameters: Invalid value: \"\": field can not be empty."),
            (
                json!({"reclaimPolicy": "Recycle"}),
                "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            ),
            (
                json!({"volumeBindingMode": "Late"}),
                "volumeBindingMode: Unsupported value: \"Late\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ),
            (
                json!({"allowedTopologies": [zones(json!([]))]}),
                "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
            ),
            (
                json!({"allowedTopologies": [zones(json!(["a", "a"]))]}),
                "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            ),
            (
                json!({"allowedTopologies": [zones(json!(["a", "b"])), zones(json!(["b", "a"]))]}),
                "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
            ),
        ] {
            assert_eq!(found(validate_class, &class, &more, false), want, "{more}");
        }
        for (more, want) in [
            (json!({"allowVolumeExpansion": true}), ""),
            (
                json!({"parameters": {"a": "c"}}),
                "parameters: Forbidden: updates to parameters are forbidden.",
            ),
            (json!({"provisioner": "x"}), "provisioner: Forbidden: updates to provisioner are forbidden."),
            (
                json!({"reclaimPolicy": "Retain"}),
                "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            ),
            (
                json!({"volumeBindingMode": "WaitForFirstConsumer"}),
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ),
        ] {
            assert_eq!(found(validate_class, &class, &more, true), want, "{more}");
        }
        let large: serde_json::Map<_, _> = (0..513).map(|key| (format!("k{key}"), json!(""))).collect();
        let want = "parameters: Too long: may not be more than 512 bytes";
        assert_eq!(found(validate_class, &class, &json!({"parameters": large}), false), want);
    }

    #[test]
    fn a_class_of_attributes_has_some() {
        let class = json!({"driverName": "d", "parameters": {"a": "b"}});
        let check = |more: Value, is_update| found(validate_attributes_class, &class, &more, is_update);
        assert_eq!(check(json!({}), false), "");
        assert_eq!(
            check(json!({"parameters": null}), false),
            "parameters: Required value: must contain at least one key/value pair"
        );
        assert_eq!(check(json!({"driverName": null}), false), "driverName: Required value");
        assert_eq!(
            check(json!({"driverName": "e"}), true),
            "driverName: Forbidden: updates to driverName are forbidden."
        );
    }

    #[test]
    fn a_capacity_is_of_a_class_in_a_place() {
        let capacity =
            json!({"storageClassName": "s", "nodeTopology": {"matchLabels": {"a": "b"}}, "capacity": "1Gi"});
        let check = |more: Value, is_update| found(validate_capacity, &capacity, &more, is_update);
        assert_eq!(check(json!({"capacity": "2Gi"}), true), "");
        assert_eq!(
            check(json!({"capacity": "-1"}), false),
            "capacity: Invalid value: \"-1\": must be greater than or equal to 0"
        );
        assert!(
            check(json!({"storageClassName": ""}), false)
                .starts_with("storageClassName: Invalid value: \"\"")
        );
        assert_eq!(
            check(json!({"storageClassName": "t"}), true),
            "storageClassName: Invalid value: \"t\": field is immutable"
        );
        assert_eq!(
            check(json!({"nodeTopology": null}), true),
            "nodeTopology: Invalid value: null: field is immutable"
        );
    }
}
