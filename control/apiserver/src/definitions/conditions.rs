//! Conditions of a CustomResourceDefinition.

use serde_json::{Value, json};

use super::names::{Conflict, Names};
use crate::tree::{list, set, text};

/// Whether the condition has this status.
pub fn condition_is(definition: &Value, kind: &str, status: &str) -> bool {
    let of = |one: &&Value| text(one, &["type"]) == kind;
    list(definition, &["status", "conditions"])
        .iter()
        .find(of)
        .is_some_and(|one| text(one, &["status"]) == status)
}

/// Writes a condition; its time moves only with its status. `now` is RFC 3339.
pub fn set_condition(
    definition: &mut Value,
    kind: &str,
    status: &str,
    (reason, message): (&str, &str),
    now: &str,
) {
    let mut conditions = list(definition, &["status", "conditions"]).to_vec();
    let found = conditions.iter().position(|one| text(one, &["type"]) == kind);
    let same = found.filter(|at| text(&conditions[*at], &["status"]) == status);
    let since = same.map_or(now, |at| text(&conditions[at], &["lastTransitionTime"])).to_owned();
    let new = json!({ "type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message });
    match found {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
    set(definition, &["status", "conditions"], conditions);
}

const APPROVAL: &str = "api-approved.kubernetes.io";

/// Whether a group belongs to the Kubernetes project, so that its definitions need an approval.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|g| g.ends_with('.')))
}

/// The annotation that approves of a definition in a protected group.
pub fn approval(definition: &Value) -> &str {
    text(definition, &["metadata", "annotations", APPROVAL])
}

/// Writes what accepting the names led to: the names, and the conditions that say so. A definition that is established
/// stays so.
pub fn record(definition: &mut Value, accepted: &Names, conflict: Option<&Conflict>, now: &str) {
    set(definition, &["status", "acceptedNames"], accepted.json());
    match conflict {
        None => {
            let text = ("NoConflicts", "no conflicts found");
            set_condition(definition, "NamesAccepted", "True", text, now);
            let text = ("InitialNamesAccepted", "the initial names have been accepted");
            set_condition(definition, "Established", "True", text, now);
        }
        Some(conflict) => {
            let text = (conflict.reason, &*conflict.message);
            set_condition(definition, "NamesAccepted", "False", text, now);
            if !condition_is(definition, "Established", "True") {
                let text = ("NotAccepted", "not all names are accepted");
                set_condition(definition, "Established", "False", text, now);
            }
        }
    }
    let approval = approval(definition);
    if is_protected(&accepted.group) && !approval.is_empty() {
        let text = if approval.starts_with("unapproved") {
            ("False", "UnapprovedAnnotation", format!("not approved: {APPROVAL}: {approval:?}"))
        } else {
            ("True", "ApprovedAnnotation", format!("approved in {approval}"))
        };
        set_condition(definition, "KubernetesAPIApprovalPolicyConformant", text.0, (text.1, &text.2), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut definition = json!({});
        set_condition(&mut definition, "A", "True", ("R", "m"), "1");
        set_condition(&mut definition, "A", "True", ("R2", "m2"), "2");
        let one = &definition["status"]["conditions"][0];
        assert_eq!((&one["lastTransitionTime"], &one["reason"]), (&json!("1"), &json!("R2")));
        set_condition(&mut definition, "A", "False", ("R", "m"), "3");
        assert_eq!(definition["status"]["conditions"][0]["lastTransitionTime"], "3");
        assert!(condition_is(&definition, "A", "False") && !condition_is(&definition, "B", "False"));
    }

    #[test]
    fn groups_of_the_project_are_protected() {
        for (group, want) in [
            ("k8s.io", true),
            ("x.k8s.io", true),
            ("a.kubernetes.io", true),
            ("ak8s.io", false),
            ("x.io", false),
        ] {
            assert_eq!(is_protected(group), want, "{group}");
        }
    }
}
