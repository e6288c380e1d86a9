//! PriorityClasses.

use serde_json::Value;

use super::Change;
use crate::tree::{at, flag, int, set_default, text};
use crate::validate::Errors;

/// User classes stay below the system's own.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub fn default_priority_class(class: &mut Value) {
    // An empty text is no policy, and refused.
    if at(class, &["preemptionPolicy"]).is_null() {
        set_default(class, &["preemptionPolicy"], "PreemptLowerPriority");
    }
}

pub fn validate_priority_class(change: &Change<'_>, errors: &mut Errors) {
    let class = &*change.new;
    if let Some(old) = change.old {
        if at(old, &["value"]) != at(class, &["value"]) {
            errors.forbidden("value", "may not be changed in an update.");
        }
        errors.immutable(
            "preemptionPolicy",
            at(old, &["preemptionPolicy"]),
            at(class, &["preemptionPolicy"]),
        );
        return;
    }
    let value = int(class, &["value"]).unwrap_or_default();
    if text(class, &["metadata", "name"]).starts_with("system-") {
        if let Some(why) = unlike_systems(class, value) {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            );
            errors.forbidden("metadata.name", &detail);
        }
    } else if value > HIGHEST_USER_PRIORITY {
        errors.forbidden("value", "maximum allowed value of a user defined priority is 1000000000");
    }
    match at(class, &["preemptionPolicy"]).as_str() {
        Some("") => errors.required("preemptionPolicy", ""),
        Some(policy) => errors.must_be("preemptionPolicy", policy, &["PreemptLowerPriority", "Never"]),
        None => {}
    }
}

/// What distinguishes a class with a name of the system's from the system's own.
fn unlike_systems(class: &Value, value: i64) -> Option<String> {
    let name = text(class, &["metadata", "name"]);
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, wanted)) if *wanted != value => {
            Some(format!("value of {name} PriorityClass must be {wanted}"))
        }
        Some(_) if flag(class, &["globalDefault"]) => {
            Some(format!("globalDefault of {name} PriorityClass must be false"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(old: Option<&Value>, mut new: Value) -> Vec<String> {
        default_priority_class(&mut new);
        let mut errors = Errors::default();
        validate_priority_class(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn class(name: &str, value: i64) -> Value {
        json!({ "metadata": { "name": name }, "value": value })
    }

    #[test]
    fn the_systems_names_and_values_are_the_systems() {
        assert_eq!(refused(None, class("a", 1_000_000_000)), [""; 0]);
        assert_eq!(refused(None, class("system-node-critical", 2_000_001_000)), [""; 0]);
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error:";
        for (name, value, want) in [
            (
                "a",
                1_000_000_001,
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ),
            ("system-a", 1, &format!("{reserved} system-a is not a known system priority class")),
            (
                "system-node-critical",
                1,
                &format!("{reserved} value of system-node-critical PriorityClass must be 2000001000"),
            ),
        ] {
            assert_eq!(refused(None, class(name, value)), [want]);
        }
        let mut default = class("system-cluster-critical", 2_000_000_000);
        default["globalDefault"] = json!(true);
        let want = format!("{reserved} globalDefault of system-cluster-critical PriorityClass must be false");
        assert_eq!(refused(None, default), [want]);
    }

    #[test]
    fn a_class_preempts_or_never_and_stays_as_it_is() {
        let with = |policy: &str| json!({ "metadata": { "name": "a" }, "preemptionPolicy": policy });
        assert_eq!(refused(None, with("Never")), [""; 0]);
        assert_eq!(refused(None, with("")), ["preemptionPolicy: Required value"]);
        let want = "preemptionPolicy: Unsupported value: \"Ask\": supported values: \"PreemptLowerPriority\", \"Never\"";
        assert_eq!(refused(None, with("Ask")), [want]);
        let want = [
            "value: Forbidden: may not be changed in an update.",
            "preemptionPolicy: Invalid value: \"PreemptLowerPriority\": field is immutable",
        ];
        assert_eq!(refused(Some(&with("Never")), class("a", 1)), want);
    }
}
