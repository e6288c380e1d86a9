//! Roles and bindings.

use serde_json::Value;

use super::Change;
use crate::tree::{at, list, list_mut, set_default, text};
use crate::validate::Errors;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn default_binding(binding: &mut Value) {
    set_default(binding, &["roleRef", "apiGroup"], GROUP);
    for subject in list_mut(binding, &["subjects"]) {
        if matches!(text(subject, &["kind"]), "User" | "Group") {
            set_default(subject, &["apiGroup"], GROUP);
        }
    }
}

pub fn validate_binding(change: &Change<'_>, errors: &mut Errors) {
    let binding = &*change.new;
    let kinds: &[&str] = if text(binding, &["kind"]) == "ClusterRoleBinding" {
        &["ClusterRole"]
    } else {
        &["ClusterRole", "Role"]
    };
    let kind = text(binding, &["roleRef", "kind"]);
    if !kinds.contains(&kind) {
        errors.unsupported("roleRef.kind", kind, kinds);
    }
    if text(binding, &["roleRef", "name"]).is_empty() {
        errors.required("roleRef.name", "");
    }
    for (index, subject) in list(binding, &["subjects"]).iter().enumerate() {
        let here = format!("subjects[{index}]");
        let kind = text(subject, &["kind"]);
        if !["Group", "ServiceAccount", "User"].contains(&kind) {
            errors.unsupported(format!("{here}.kind"), kind, &["Group", "ServiceAccount", "User"]);
        }
        if text(subject, &["name"]).is_empty() {
            errors.required(format!("{here}.name"), "");
        }
        let cluster_wide = text(binding, &["kind"]) == "ClusterRoleBinding";
        if kind == "ServiceAccount" && cluster_wide && text(subject, &["namespace"]).is_empty() {
            errors.required(format!("{here}.namespace"), "");
        }
    }
    if let Some(old) = change.old
        && at(old, &["roleRef"]) != at(binding, &["roleRef"])
    {
        errors.invalid("roleRef", at(binding, &["roleRef"]), "cannot change roleRef");
    }
}

pub fn validate_role(change: &Change<'_>, errors: &mut Errors) {
    let namespaced = text(change.new, &["kind"]) == "Role";
    for (index, rule) in list(change.new, &["rules"]).iter().enumerate() {
        let here = format!("rules[{index}]");
        if list(rule, &["verbs"]).is_empty() {
            errors.required(format!("{here}.verbs"), "verbs must contain at least one value");
        }
        let urls = list(rule, &["nonResourceURLs"]);
        if !urls.is_empty() {
            if namespaced {
                errors.invalid(
                    format!("{here}.nonResourceURLs"),
                    at(rule, &["nonResourceURLs"]),
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if ["apiGroups", "resources", "resourceNames"]
                .iter()
                .any(|field| !list(rule, &[field]).is_empty())
            {
                errors.invalid(
                    format!("{here}.nonResourceURLs"),
                    at(rule, &["nonResourceURLs"]),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if list(rule, &["apiGroups"]).is_empty() {
            errors.required(format!("{here}.apiGroups"), "resource rules must supply at least one api group");
        }
        if list(rule, &["resources"]).is_empty() {
            errors.required(format!("{here}.resources"), "resource rules must supply at least one resource");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusals(rule: Value) -> Vec<(String, String)> {
        let mut errors = Errors::default();
        let mut role = json!({"kind": "ClusterRole", "rules": [rule]});
        validate_role(&Change { old: None, new: &mut role }, &mut errors);
        errors.into_causes().into_iter().map(|cause| (cause.field, cause.message)).collect()
    }

    #[test]
    fn a_rule_is_about_urls_or_about_resources() {
        let mixed = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"], "resourceNames": ["a"]});
        let [(field, message)] = &refusals(mixed)[..] else { panic!("one refusal") };
        assert_eq!(field, "rules[0].nonResourceURLs");
        assert!(
            message.ends_with("rules cannot apply to both regular resources and non-resource URLs"),
            "{message}"
        );
        assert_eq!(refusals(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]})), []);
    }
}
