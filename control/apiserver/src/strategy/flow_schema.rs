//! Flow schemas: which requests would share which priority level.

use serde_json::Value;

use super::Change;
use crate::bootstrap;
use crate::tree::{at, flag, int, list, text};
use crate::validate::{self, Errors};

const SUBJECTS: &[(&str, &str)] =
    &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
const VERBS: &[&str] =
    &["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const MAX_PRECEDENCE: i64 = 10_000;

/// The default is for the number that was not given, which Go cannot tell from zero.
pub fn default_number(object: &mut Value, path: &[&str], number: i64) {
    if int(object, path).unwrap_or_default() == 0 {
        crate::tree::set(object, path, number);
    }
}

pub fn default_flow_schema(schema: &mut Value) {
    default_number(schema, &["spec", "matchingPrecedence"], 1000);
}

pub fn validate_flow_schema(change: &Change<'_>, errors: &mut Errors) {
    let name = text(change.new, &["metadata", "name"]);
    let spec = at(change.new, &["spec"]);
    let precedence = int(spec, &["matchingPrecedence"]).unwrap_or_default();
    let wrong = match precedence {
        ..=0 => Some("must be a positive value"),
        1 if name != "exempt" => Some("only the schema named 'exempt' may have matchingPrecedence 1"),
        1..=MAX_PRECEDENCE => None,
        _ => Some("must not be greater than 10000"),
    };
    if let Some(why) = wrong {
        errors.invalid("spec.matchingPrecedence", &Value::from(precedence), why);
    }
    let method = at(spec, &["distinguisherMethod"]);
    let methods = ["ByNamespace", "ByUser"];
    if method.is_object() && !methods.contains(&text(method, &["type"])) {
        errors.unsupported("spec.distinguisherMethod.type", text(method, &["type"]), &methods);
    }
    let level = "spec.priorityLevelConfiguration.name";
    match text(spec, &["priorityLevelConfiguration", "name"]) {
        "" => errors.required(level, "must reference a priority level"),
        name => errors.check(level, name, validate::subdomain),
    }
    for (index, rule) in list(spec, &["rules"]).iter().enumerate() {
        validate_rule(rule, &format!("spec.rules[{index}]"), errors);
    }
    if matches!(name, "catch-all" | "exempt") {
        validate_mandatory("flowschemas", name, spec, errors);
    }
}

/// What keeps a cluster reachable cannot be changed.
pub fn validate_mandatory(plural: &str, name: &str, spec: &Value, errors: &mut Errors) {
    let shipped = bootstrap::shipped(plural, name).unwrap_or_default();
    if spec != at(&shipped, &["spec"]) {
        errors.invalid("spec", spec, &format!("spec of '{name}' must equal the fixed value"));
    }
}

fn validate_rule(rule: &Value, here: &str, errors: &mut Errors) {
    let subjects = list(rule, &["subjects"]);
    if subjects.is_empty() {
        errors.required(format!("{here}.subjects"), "subjects must contain at least one value");
    }
    for (index, subject) in subjects.iter().enumerate() {
        validate_subject(subject, &format!("{here}.subjects[{index}]"), errors);
    }
    let (resources, paths) = (list(rule, &["resourceRules"]), list(rule, &["nonResourceRules"]));
    if resources.is_empty() && paths.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(here, detail);
    }
    for (index, one) in resources.iter().enumerate() {
        validate_resource_rule(one, &format!("{here}.resourceRules[{index}]"), errors);
    }
    for (index, one) in paths.iter().enumerate() {
        let here = format!("{here}.nonResourceRules[{index}]");
        validate_verbs(one, &here, errors);
        let urls = Words {
            field: "nonResourceURLs",
            missing: "nonResourceURLs must contain at least one value",
            others: "non-resource URLs",
        };
        urls.validate(one, &here, errors);
        validate_each(one, "nonResourceURLs", &here, path, errors);
    }
}

fn validate_subject(subject: &Value, here: &str, errors: &mut Errors) {
    let kind = text(subject, &["kind"]);
    if !SUBJECTS.iter().any(|(known, _)| *known == kind) {
        let known: Vec<&str> = SUBJECTS.iter().map(|(known, _)| *known).collect();
        return errors.unsupported(format!("{here}.kind"), kind, &known);
    }
    for (other, field) in SUBJECTS {
        let given = at(subject, &[field]);
        let place = format!("{here}.{field}");
        if *other != kind {
            if !given.is_null() {
                errors.forbidden(place, &format!("{field} is forbidden when subject kind is not '{other}'"));
            }
            continue;
        }
        if given.is_null() {
            errors.required(place, &format!("{field} is required when subject kind is '{other}'"));
            continue;
        }
        match (text(given, &["name"]), kind) {
            ("", _) => errors.required(format!("{place}.name"), ""),
            (name, "ServiceAccount") if name != "*" => {
                errors.check(format!("{place}.name"), name, validate::subdomain);
            }
            _ => {}
        }
        match text(given, &["namespace"]) {
            _ if kind != "ServiceAccount" => {}
            "" => errors.required(format!("{place}.namespace"), "must specify namespace for service account"),
            namespace => errors.check(format!("{place}.namespace"), namespace, validate::label),
        }
    }
}

/// A list of words of which `*` stands for all, and then stands alone.
struct Words {
    field: &'static str,
    /// What is said when there are none.
    missing: &'static str,
    others: &'static str,
}

impl Words {
    fn validate(&self, rule: &Value, here: &str, errors: &mut Errors) {
        let (words, place) = (list(rule, &[self.field]), format!("{here}.{}", self.field));
        if words.is_empty() {
            errors.required(place, self.missing);
        } else if words.len() > 1 && words.iter().any(|word| word == "*") {
            let detail = format!("if '*' is present, must not specify other {}", self.others);
            errors.invalid(place, at(rule, &[self.field]), &detail);
        }
    }
}

fn validate_verbs(rule: &Value, here: &str, errors: &mut Errors) {
    Words { field: "verbs", missing: "verbs must contain at least one value", others: "verbs" }
        .validate(rule, here, errors);
    for verb in list(rule, &["verbs"]).iter().filter_map(Value::as_str) {
        errors.one_of(format!("{here}.verbs"), verb, VERBS);
    }
}

fn validate_each(
    rule: &Value,
    field: &str,
    here: &str,
    check: fn(&str) -> Result<(), String>,
    errors: &mut Errors,
) {
    for (index, word) in list(rule, &[field]).iter().enumerate().filter(|(_, word)| **word != "*") {
        errors.check(format!("{here}.{field}[{index}]"), word.as_str().unwrap_or_default(), check);
    }
}

fn validate_resource_rule(rule: &Value, here: &str, errors: &mut Errors) {
    validate_verbs(rule, here, errors);
    let groups = "resource rules must supply at least one api group";
    let resources = "resource rules must supply at least one resource";
    let namespaces = "resource rules that are not cluster scoped must supply at least one namespace";
    Words { field: "apiGroups", missing: groups, others: "api groups" }.validate(rule, here, errors);
    Words { field: "resources", missing: resources, others: "resources" }.validate(rule, here, errors);
    if !list(rule, &["namespaces"]).is_empty() || !flag(rule, &["clusterScope"]) {
        Words { field: "namespaces", missing: namespaces, others: "namespaces" }.validate(rule, here, errors);
        validate_each(rule, "namespaces", here, namespace, errors);
    }
}

fn namespace(text: &str) -> Result<(), String> {
    validate::label(text)
        .map_err(|why| format!("each member of this list must be '*' or a DNS-1123 label; {why}"))
}

fn path(text: &str) -> Result<(), String> {
    let stars = text.matches('*').count();
    let wrong = match text {
        "" => "must not be empty",
        "/" => return Ok(()),
        text if !text.starts_with('/') => "must start with slash",
        text if text.contains(' ') => "must not contain white-space",
        text if text.contains("//") => "must not contain double slash",
        text if stars > 1 || (stars == 1 && !text.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return Ok(()),
    };
    Err(wrong.to_owned())
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;
    use crate::tree::set;

    /// Fields that are refused when `changes` are made to an object that is not.
    pub fn refused(
        good: &Value,
        changes: &[(&[&str], Value)],
        check: fn(&Change<'_>, &mut Errors),
    ) -> Vec<String> {
        let mut object = good.clone();
        for (path, value) in changes {
            set(&mut object, path, value.clone());
        }
        let mut errors = Errors::default();
        check(&Change { old: None, new: &mut object }, &mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    fn schema() -> Value {
        let mut schema = json!({"metadata": {"name": "a"}, "spec": {"priorityLevelConfiguration": {"name": "a"}, "rules": [rule()]}});
        default_flow_schema(&mut schema);
        schema
    }

    fn rule() -> Value {
        json!({"subjects": [{"kind": "User", "user": {"name": "u"}}],
            "resourceRules": [{"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"], "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz", "/api/*"]}]})
    }

    #[test]
    fn schemas_are_validated() {
        let check = |path: &[&str], value: Value| refused(&schema(), &[(path, value)], validate_flow_schema);
        assert_eq!(schema()["spec"]["matchingPrecedence"], 1000);
        assert_eq!(check(&["spec", "matchingPrecedence"], json!(10_000)), Vec::<String>::new());
        for precedence in [-1, 1, 10_001] {
            let found = check(&["spec", "matchingPrecedence"], json!(precedence));
            assert_eq!(found, ["spec.matchingPrecedence"], "{precedence}");
        }
        let level = "spec.priorityLevelConfiguration.name";
        assert_eq!(check(&["spec", "priorityLevelConfiguration"], json!({})), [level]);
        assert_eq!(check(&["spec", "distinguisherMethod"], json!({})), ["spec.distinguisherMethod.type"]);
        assert_eq!(check(&["metadata", "name"], json!("catch-all")), ["spec"]);
    }

    #[test]
    fn rules_are_validated() {
        let with = |path: &[&str], value: Value| {
            let mut rule = rule();
            set(&mut rule, path, value);
            refused(&schema(), &[(&["spec", "rules"], json!([rule]))], validate_flow_schema)
        };
        let resource = |field: &str, value: Value| {
            let mut one = rule()["resourceRules"][0].clone();
            one[field] = value;
            with(&["resourceRules"], json!([one]))
        };
        let none: [&str; 0] = [];
        assert_eq!(with(&["resourceRules"], json!([])), none);
        assert_eq!(with(&["subjects"], json!([])), ["spec.rules[0].subjects"]);
        let subjects = [
            (json!({"kind": "Robot"}), "kind"),
            (json!({"kind": "User"}), "user"),
            (json!({"kind": "Group", "group": {"name": ""}}), "group.name"),
            (json!({"kind": "Group", "group": {"name": "g"}, "user": {"name": "u"}}), "user"),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}}), "serviceAccount.namespace"),
        ];
        for (subject, place) in subjects {
            assert_eq!(with(&["subjects"], json!([subject])), [format!("spec.rules[0].subjects[0].{place}")]);
        }
        let here = "spec.rules[0].resourceRules[0]";
        for (field, value) in [
            ("verbs", json!([])),
            ("verbs", json!(["*", "get"])),
            ("verbs", json!(["post"])),
            ("apiGroups", json!([])),
            ("resources", json!(["*", "pods"])),
            ("namespaces", json!([])),
        ] {
            assert_eq!(resource(field, value), [format!("{here}.{field}")]);
        }
        assert_eq!(resource("namespaces", json!(["A"])), [format!("{here}.namespaces[0]")]);
        for url in ["healthz", "/a b", "/a//b", "/a*", "/*/*"] {
            let found = with(&["nonResourceRules"], json!([{"verbs": ["get"], "nonResourceURLs": [url]}]));
            assert_eq!(found, ["spec.rules[0].nonResourceRules[0].nonResourceURLs[0]"], "{url}");
        }
    }
}
