//! Roles and bindings.

use serde_json::{Value, json};

use super::Change;
use super::workload::validate_label_selector;
use crate::tree::{at, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

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
    let namespaced = text(binding, &["kind"]) == "RoleBinding";
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    errors.must_be("roleRef.apiGroup", text(binding, &["roleRef", "apiGroup"]), &[GROUP]);
    errors.must_be("roleRef.kind", text(binding, &["roleRef", "kind"]), kinds);
    errors.named("roleRef.name", text(binding, &["roleRef", "name"]), validate::path_segment);
    for (index, subject) in list(binding, &["subjects"]).iter().enumerate() {
        validate_subject(subject, namespaced, &format!("subjects[{index}]"), errors);
    }
    if let Some(old) = change.old
        && at(old, &["roleRef"]) != at(binding, &["roleRef"])
    {
        // Upstream shows it as its server has it.
        let [group, kind, name] =
            ["apiGroup", "kind", "name"].map(|field| text(binding, &["roleRef", field]));
        let shown = json!({ "APIGroup": group, "Kind": kind, "Name": name });
        errors.invalid("roleRef", &shown, "cannot change roleRef");
    }
}

fn validate_subject(subject: &Value, namespaced: bool, here: &str, errors: &mut Errors) {
    let [kind, name, group] = ["kind", "name", "apiGroup"].map(|field| text(subject, &[field]));
    let name_place = format!("{here}.name");
    if name.is_empty() {
        errors.required(&name_place, "");
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.check(name_place, name, validate::subdomain);
            }
            errors.must_be(format!("{here}.apiGroup"), group, &[""]);
            if !namespaced && text(subject, &["namespace"]).is_empty() {
                errors.required(format!("{here}.namespace"), "");
            }
        }
        "User" | "Group" => {
            if name.is_empty() {
                let why = format!("{} name cannot be empty", kind.to_ascii_lowercase());
                errors.invalid(name_place, &Value::from(""), &why);
            }
            errors.must_be(format!("{here}.apiGroup"), group, &[GROUP]);
        }
        _ => errors.must_be(format!("{here}.kind"), kind, &["ServiceAccount", "User", "Group"]),
    }
}

pub fn validate_role(change: &Change<'_>, errors: &mut Errors) {
    let namespaced = text(change.new, &["kind"]) == "Role";
    for (index, rule) in list(change.new, &["rules"]).iter().enumerate() {
        validate_rule(rule, namespaced, &format!("rules[{index}]"), errors);
    }
    let aggregation = at(change.new, &["aggregationRule"]);
    if aggregation.is_null() {
        return;
    }
    let (selectors, place) =
        (list(aggregation, &["clusterRoleSelectors"]), "aggregationRule.clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(place, detail);
    }
    for (index, selector) in selectors.iter().enumerate() {
        validate_label_selector(selector, &format!("{place}[{index}]"), errors);
    }
}

fn validate_rule(rule: &Value, namespaced: bool, here: &str, errors: &mut Errors) {
    let is_empty = |field: &str| list(rule, &[field]).is_empty();
    if is_empty("verbs") {
        errors.required(format!("{here}.verbs"), "verbs must contain at least one value");
    }
    if is_empty("nonResourceURLs") {
        for (field, what) in [("apiGroups", "api group"), ("resources", "resource")] {
            if is_empty(field) {
                let detail = format!("resource rules must supply at least one {what}");
                errors.required(format!("{here}.{field}"), &detail);
            }
        }
        return;
    }
    let (place, urls) = (format!("{here}.nonResourceURLs"), at(rule, &["nonResourceURLs"]));
    if namespaced {
        errors.invalid(&place, urls, "namespaced rules cannot apply to non-resource URLs");
    }
    if !["apiGroups", "resources", "resourceNames"].into_iter().all(is_empty) {
        errors.invalid(place, urls, "rules cannot apply to both regular resources and non-resource URLs");
    }
}

#[cfg(test)]
mod tests {
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

    fn told(validate: fn(&Change<'_>, &mut Errors), old: Option<&Value>, new: &mut Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Change { old, new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn rules_of_resources_name_groups_and_resources() {
        let of =
            |kind: &str, rule: Value| told(validate_role, None, &mut json!({"kind": kind, "rules": [rule]}));
        let want = [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ];
        assert_eq!(of("Role", json!({})), want);
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/a"]});
        let want = "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs";
        assert_eq!(of("Role", urls), [want]);
    }

    #[test]
    fn an_aggregated_role_selects_others() {
        let of = |rule: Value| {
            told(validate_role, None, &mut json!({"kind": "ClusterRole", "aggregationRule": rule}))
        };
        assert_eq!(of(json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})), [""; 0]);
        let want = "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil";
        assert_eq!(of(json!({})), [want]);
        let found = of(json!({"clusterRoleSelectors": [{"matchLabels": {"a": "-"}}]}));
        assert!(
            found[0].starts_with("aggregationRule.clusterRoleSelectors[0].matchLabels: Invalid"),
            "{found:?}"
        );
    }

    fn binding(kind: &str, role: Value, subject: Value) -> Value {
        let mut whole =
            json!({"kind": kind, "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [subject]});
        json_patch::merge(&mut whole["roleRef"], &role);
        default_binding(&mut whole);
        whole
    }

    #[test]
    fn bindings_name_a_role_and_subjects() {
        let user = || json!({"kind": "User", "name": "u"});
        let account = |more: Value| {
            let mut account = json!({"kind": "ServiceAccount", "name": "a", "namespace": "n"});
            json_patch::merge(&mut account, &more);
            account
        };
        let group = "supported values: \"rbac.authorization.k8s.io\"";
        for (role, subject, want) in [
            (json!({}), user(), vec![]),
            (json!({"name": "system:a"}), account(json!({})), vec![]),
            (json!({"apiGroup": "x.io"}), user(), vec![format!("roleRef.apiGroup: Unsupported value: \"x.io\": {group}")]),
            (
                json!({"kind": "Role"}),
                user(),
                vec!["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"".to_owned()],
            ),
            (json!({"name": ""}), user(), vec!["roleRef.name: Required value".to_owned()]),
            (json!({"name": "a/b"}), user(), vec!["roleRef.name: Invalid value: \"a/b\": may not contain '/'".to_owned()]),
            (
                json!({}),
                json!({"kind": "Group"}),
                vec![
                    "subjects[0].name: Required value".to_owned(),
                    "subjects[0].name: Invalid value: \"\": group name cannot be empty".to_owned(),
                ],
            ),
            (
                json!({}),
                json!({"kind": "User", "name": "u", "apiGroup": "x.io"}),
                vec![format!("subjects[0].apiGroup: Unsupported value: \"x.io\": {group}")],
            ),
            (
                json!({}),
                account(json!({"apiGroup": "x.io"})),
                vec!["subjects[0].apiGroup: Unsupported value: \"x.io\": supported values: \"\"".to_owned()],
            ),
            (json!({}), account(json!({"namespace": null})), vec!["subjects[0].namespace: Required value".to_owned()]),
            (
                json!({}),
                json!({"kind": "Robot", "name": "r"}),
                vec![
                    "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\""
                        .to_owned(),
                ],
            ),
        ] {
            assert_eq!(told(validate_binding, None, &mut binding("ClusterRoleBinding", role, subject)), want);
        }
        let found = told(
            validate_binding,
            None,
            &mut binding("RoleBinding", json!({}), account(json!({"name": "A_"}))),
        );
        assert!(
            found[0].starts_with("subjects[0].name: Invalid value: \"A_\": a lowercase RFC 1123 subdomain"),
            "{found:?}"
        );
    }

    #[test]
    fn a_binding_stays_with_its_role() {
        let user = || json!({"kind": "User", "name": "u"});
        let old = binding("RoleBinding", json!({}), user());
        let mut new = binding("RoleBinding", json!({"kind": "Role"}), user());
        let found = told(validate_binding, Some(&old), &mut new);
        let want = r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"r"}: cannot change roleRef"#;
        assert_eq!(found, [want]);
    }
}
