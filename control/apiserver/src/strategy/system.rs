//! Namespaces, leases and runtime classes.

use serde_json::{Value, json};

use super::Change;
use super::meta::standard_finalizer;
use super::pod_rules::placement::validate_tolerations;
use super::resource_names::{validate_amount, validate_of_container};
use crate::resources::Sub;
use crate::tree::{at, copy, fields, int, list, set, set_default, strings, text};
use crate::validate::{self, Errors};

/// Every namespace carries its name as a label, and is active where nobody says otherwise.
pub fn default_namespace(namespace: &mut Value) {
    set_default(namespace, &["status", "phase"], "Active");
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

pub fn validate_lease(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(seconds) = int(spec, &["leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
        errors.invalid("spec.leaseDurationSeconds", &Value::from(seconds), "must be greater than 0");
    }
    errors.not_negative("spec.leaseTransitions", int(spec, &["leaseTransitions"]));
    let strategy = at(spec, &["strategy"]).as_str();
    // Upstream names the field twice.
    match strategy {
        Some(strategy) if strategy.contains('/') => {
            errors.check("spec.strategy.strategy", strategy, validate::label_key);
        }
        Some(strategy) => errors.must_be("spec.strategy.strategy", strategy, &["OldestEmulationVersion"]),
        None => {}
    }
    if strategy.is_none_or(str::is_empty) && !text(spec, &["preferredHolder"]).is_empty() {
        errors.forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined");
    }
}

/// Nothing but the handler is looked at again.
pub fn validate_runtime_class(change: &Change<'_>, errors: &mut Errors) {
    if let Some(old) = change.old {
        errors.immutable("handler", at(old, &["handler"]), at(change.new, &["handler"]));
        return;
    }
    errors.check("handler", text(change.new, &["handler"]), validate::label);
    for (name, amount) in fields(change.new, &["overhead", "podFixed"]) {
        let place = format!("overhead.limits[{name}]");
        validate_of_container(name, &place, errors);
        validate_amount(name, amount, &place, errors);
    }
    let scheduling = at(change.new, &["scheduling"]);
    for (key, value) in strings(scheduling, &["nodeSelector"]) {
        errors.check("scheduling.nodeSelector", key, validate::label_key);
        errors.check("scheduling.nodeSelector", value, validate::label_value);
    }
    validate_tolerations(list(scheduling, &["tolerations"]), "scheduling.tolerations", errors);
}

/// Who holds a namespace.
pub fn validate_namespace(change: &Change<'_>, errors: &mut Errors) {
    if change.old.is_none() {
        validate_holders(change.new, |_| "spec.finalizers".to_owned(), errors);
    }
}

pub fn validate_namespace_part(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    if sub == Sub::Finalize {
        validate_holders(change.new, |index| format!("spec.finalizers[{index}]"), errors);
    }
    if sub != Sub::Status {
        return;
    }
    let phase = text(change.new, &["status", "phase"]);
    let (wanted, state) = match at(change.new, &["metadata", "deletionTimestamp"]) {
        Value::Null => ("Active", "empty"),
        _ => ("Terminating", "not empty"),
    };
    if phase != wanted {
        let detail = format!("may only be '{wanted}' if `deletionTimestamp` is {state}");
        errors.invalid("status.Phase", &Value::from(phase), &detail);
    }
}

fn validate_holders(namespace: &Value, place: fn(usize) -> String, errors: &mut Errors) {
    for (index, finalizer) in list(namespace, &["spec", "finalizers"]).iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        errors.check(place(index), name, validate::label_key);
        standard_finalizer(name, place(index), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_lease_says_how_long_and_how_its_holder_is_chosen() {
        let lease = |spec: Value| {
            told(|errors| validate_lease(&Change { old: None, new: &mut json!({ "spec": spec }) }, errors))
        };
        assert_eq!(lease(json!({ "strategy": "OldestEmulationVersion", "preferredHolder": "a" })), [""; 0]);
        assert_eq!(lease(json!({ "strategy": "x.io/Mine" })), [""; 0]);
        for (spec, want) in [
            (
                json!({ "leaseDurationSeconds": 0 }),
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                json!({ "strategy": "Mine" }),
                "spec.strategy.strategy: Unsupported value: \"Mine\": supported values: \"OldestEmulationVersion\"",
            ),
            (
                json!({ "preferredHolder": "a" }),
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ),
        ] {
            assert_eq!(lease(spec), [want]);
        }
    }

    #[test]
    fn a_runtime_class_names_a_handler_and_what_it_costs() {
        let check = |old: Option<&Value>, mut class: Value| {
            told(|errors| validate_runtime_class(&Change { old, new: &mut class }, errors))
        };
        let whole = json!({ "handler": "a", "overhead": { "podFixed": { "cpu": "1" } },
                            "scheduling": { "nodeSelector": { "a": "b" }, "tolerations": [{ "operator": "Exists" }] } });
        assert_eq!(check(None, whole.clone()), [""; 0]);
        let odd = json!({ "handler": "a.b", "overhead": { "podFixed": { "cpu": "-1" } },
                          "scheduling": { "nodeSelector": { "a": "-" }, "tolerations": [{ "key": "" }] } });
        let fields: Vec<String> =
            check(None, odd.clone()).iter().map(|told| told.split(": ").next().unwrap().to_owned()).collect();
        let want = [
            "handler",
            "overhead.limits[cpu]",
            "scheduling.nodeSelector",
            "scheduling.tolerations[0].operator",
        ];
        assert_eq!(fields, want);
        assert_eq!(check(Some(&odd), odd.clone()), [""; 0]);
        assert_eq!(check(Some(&whole), odd), ["handler: Invalid value: \"a.b\": field is immutable"]);
    }

    #[test]
    fn holders_of_a_namespace_have_names_and_its_phase_follows_its_end() {
        let held = |name: &str| json!({ "metadata": {}, "spec": { "finalizers": [name] }, "status": { "phase": "Active" } });
        let part = |sub: Sub, mut new: Value| {
            told(|errors| validate_namespace_part(sub, &Change { old: None, new: &mut new }, errors))
        };
        let why =
            "Invalid value: \"keep\": name is neither a standard finalizer name nor is it fully qualified";
        let created =
            told(|errors| validate_namespace(&Change { old: None, new: &mut held("keep") }, errors));
        assert_eq!(created, [format!("spec.finalizers: {why}")]);
        assert_eq!(part(Sub::Finalize, held("keep")), [format!("spec.finalizers[0]: {why}")]);
        assert_eq!(part(Sub::Finalize, held("x.io/a")), [""; 0]);
        assert_eq!(part(Sub::Status, held("keep")), [""; 0]);
        let mut ended = held("kubernetes");
        ended["metadata"]["deletionTimestamp"] = json!("x");
        let want = "status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty";
        assert_eq!(part(Sub::Status, ended), [want]);
    }
}
