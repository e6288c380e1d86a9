//! What controllers tell of workloads: how many pods there are, and how many of them are in which state.

use serde_json::{Value, json};

use super::Change;
use crate::resources::Sub;
use crate::tree::{at, int, text};
use crate::validate::Errors;

/// The numbers in one kind's status.
struct Counts {
    kind: &'static str,
    /// None of which is negative.
    fields: &'static [&'static str],
    /// Which of them is no greater than which, and what that is called.
    within: &'static [(&'static str, &'static str, &'static str)],
}

const REPLICAS: (&str, &str) = ("replicas", "status.replicas");

const fn of_all(field: &'static str) -> (&'static str, &'static str, &'static str) {
    (field, REPLICAS.0, REPLICAS.1)
}

const SETS: Counts = Counts {
    kind: "ReplicaSet",
    fields: &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "terminatingReplicas",
        "observedGeneration",
    ],
    within: &[
        of_all("fullyLabeledReplicas"),
        of_all("readyReplicas"),
        of_all("availableReplicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ],
};

const KINDS: &[Counts] = &[
    Counts {
        kind: "Deployment",
        fields: &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        within: &[
            of_all("updatedReplicas"),
            of_all("readyReplicas"),
            of_all("availableReplicas"),
            ("availableReplicas", "readyReplicas", "readyReplicas"),
        ],
    },
    SETS,
    Counts { kind: "ReplicationController", ..SETS },
    Counts {
        kind: "StatefulSet",
        fields: &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        within: &[
            of_all("readyReplicas"),
            of_all("currentReplicas"),
            of_all("updatedReplicas"),
            of_all("availableReplicas"),
            ("availableReplicas", "readyReplicas", "status.readyReplicas"),
        ],
    },
    Counts {
        kind: "DaemonSet",
        fields: &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        within: &[],
    },
];

/// Checks the numbers of a status, and that hashes that collided are not forgotten.
pub fn validate_workload_status(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    let kind = text(change.new, &["kind"]);
    let Some(counts) = KINDS.iter().find(|one| one.kind == kind).filter(|_| sub == Sub::Status) else {
        return;
    };
    let status = at(change.new, &["status"]);
    let count = |field: &str| int(status, &[field]).unwrap_or_default();
    for field in counts.fields {
        errors.not_negative(format!("status.{field}"), int(status, &[field]));
    }
    for (part, whole, called) in counts.within {
        if count(part) > count(whole) {
            let detail = format!("cannot be greater than {called}");
            errors.invalid(format!("status.{part}"), &json!(count(part)), &detail);
        }
    }
    let before = change.old.and_then(|old| int(old, &["status", "collisionCount"]));
    let after = int(status, &["collisionCount"]);
    if before.is_some_and(|before| after.is_none_or(|after| after < before)) {
        let place = "status.collisionCount";
        errors.invalid(place, &Value::from(after.unwrap_or_default()), "cannot be decremented");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, old: &Value, status: &Value) -> Vec<String> {
        let old = json!({ "kind": kind, "status": old });
        let mut new = json!({ "kind": kind, "status": status });
        let mut errors = Errors::default();
        validate_workload_status(Sub::Status, &Change { old: Some(&old), new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn no_number_is_negative_or_greater_than_what_it_is_a_part_of() {
        for counts in KINDS {
            let zero = json!({});
            let whole =
                json!({ "replicas": 3, "readyReplicas": 3, "availableReplicas": 2, "collisionCount": 1 });
            assert_eq!(refused(counts.kind, &zero, &whole), [""; 0], "{}", counts.kind);
            for field in counts.fields {
                let want = format!("status.{field}: Invalid value: -1: must be greater than or equal to 0");
                let found = refused(counts.kind, &zero, &json!({ *field: -1 }));
                assert!(found.contains(&want), "{} {found:?}", counts.kind);
            }
            for (part, whole, called) in counts.within {
                let want = format!("status.{part}: Invalid value: 8: cannot be greater than {called}");
                let mut status = json!({ "replicas": 9, "readyReplicas": 9 });
                status[*part] = json!(8);
                status[*whole] = json!(7);
                let found = refused(counts.kind, &zero, &status);
                assert!(found.contains(&want), "{} {found:?}", counts.kind);
            }
        }
    }

    #[test]
    fn collisions_are_counted_up() {
        let count = |count: Value| json!({ "collisionCount": count });
        for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
            assert_eq!(refused(kind, &count(json!(1)), &count(json!(1))), [""; 0]);
            let want = "status.collisionCount: Invalid value: 0: cannot be decremented";
            assert_eq!(refused(kind, &count(json!(1)), &json!({})), [want], "{kind}");
            assert_eq!(refused(kind, &count(json!(1)), &count(json!(0))), [want], "{kind}");
        }
    }
}
