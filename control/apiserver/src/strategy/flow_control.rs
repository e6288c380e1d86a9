//! Flow schemas and priority levels: how requests would share the API server.

use serde_json::Value;

use super::Change;
use crate::bootstrap;
use crate::tree::{at, flag, int, list, set_default, text};
use crate::validate::{self, Errors};

const SUBJECTS: &[(&str, &str)] =
    &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
const VERBS: &[&str] =
    &["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Bits of the hash of a flow that upstream deals its hand of queues with.
const HASH_BITS: f64 = 60.0;
const MAX_QUEUES: i64 = 10_000_000;
const MAX_PRECEDENCE: i64 = 10_000;

/// The default is for the number that was not given, which Go cannot tell from zero.
fn default_number(object: &mut Value, path: &[&str], number: i64) {
    if int(object, path).unwrap_or_default() == 0 {
        crate::tree::set(object, path, number);
    }
}

pub fn default_flow_schema(schema: &mut Value) {
    default_number(schema, &["spec", "matchingPrecedence"], 1000);
}

pub fn default_priority_level(level: &mut Value) {
    for (part, shares) in [("exempt", 0), ("limited", 30)] {
        if at(level, &["spec", part]).is_object() {
            set_default(level, &["spec", part, "nominalConcurrencyShares"], shares);
            set_default(level, &["spec", part, "lendablePercent"], 0);
        }
    }
    let queuing = ["spec", "limited", "limitResponse", "queuing"];
    if at(level, &queuing).is_object() {
        for (field, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            let [a, b, c, d] = queuing;
            default_number(level, &[a, b, c, d, field], number);
        }
    }
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
fn validate_mandatory(plural: &str, name: &str, spec: &Value, errors: &mut Errors) {
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

pub fn validate_priority_level(change: &Change<'_>, errors: &mut Errors) {
    let name = text(change.new, &["metadata", "name"]);
    let spec = at(change.new, &["spec"]);
    let kind = text(spec, &["type"]);
    if (name == "exempt") != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.invalid("spec.type", &Value::from(kind), detail);
    }
    match kind {
        "Exempt" if !at(spec, &["limited"]).is_null() => {
            errors.forbidden("spec.limited", "must be nil if the type is not Limited");
        }
        "Limited" if at(spec, &["limited"]).is_null() => {
            errors.required("spec.limited", "must not be empty when type is Limited");
        }
        "Limited" if !at(spec, &["exempt"]).is_null() => {
            errors.forbidden("spec.exempt", "must be nil if the type is Limited");
        }
        "Exempt" | "Limited" => {}
        other => errors.unsupported("spec.type", other, &["Exempt", "Limited"]),
    }
    for part in ["exempt", "limited"] {
        validate_shares(at(spec, &[part]), &format!("spec.{part}"), errors);
    }
    let limited = at(spec, &["limited"]);
    if limited.is_object() {
        let borrowed = int(limited, &["borrowingLimitPercent"]);
        if let Some(percent) = borrowed.filter(|percent| *percent < 0) {
            let place = "spec.limited.borrowingLimitPercent";
            errors.invalid(place, &Value::from(percent), "if specified, must be a non-negative integer");
        }
        validate_response(at(limited, &["limitResponse"]), "spec.limited.limitResponse", errors);
    }
    if name == "catch-all" {
        validate_mandatory("prioritylevelconfigurations", name, spec, errors);
    }
}

fn validate_shares(part: &Value, here: &str, errors: &mut Errors) {
    let shares = int(part, &["nominalConcurrencyShares"]).unwrap_or_default();
    if shares < 0 {
        let place = format!("{here}.nominalConcurrencyShares");
        errors.invalid(place, &Value::from(shares), "must be a non-negative integer");
    }
    let lent = int(part, &["lendablePercent"]).unwrap_or_default();
    if !(0..=100).contains(&lent) {
        let place = format!("{here}.lendablePercent");
        errors.invalid(place, &Value::from(lent), "must be between 0 and 100, inclusive");
    }
}

fn validate_response(response: &Value, here: &str, errors: &mut Errors) {
    let queuing = at(response, &["queuing"]);
    let place = format!("{here}.queuing");
    match text(response, &["type"]) {
        "Reject" if queuing.is_null() => {}
        "Reject" => {
            errors.forbidden(place, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Queue" if queuing.is_null() => {
            errors.required(place, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => validate_queuing(queuing, &place, errors),
        other => errors.unsupported(format!("{here}.type"), other, &["Queue", "Reject"]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "both were found to be below ten million")]
fn entropy(queues: i64, hand: i64) -> f64 {
    ((queues as f64).log2() * hand as f64).ceil()
}

fn validate_queuing(queuing: &Value, here: &str, errors: &mut Errors) {
    let number = |field: &str| int(queuing, &[field]).unwrap_or_default();
    let (queues, hand) = (number("queues"), number("handSize"));
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if number(field) <= 0 {
            errors.invalid(format!("{here}.{field}"), &Value::from(number(field)), "must be positive");
        }
    }
    if queues > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        errors.invalid(format!("{here}.queues"), &Value::from(queues), &detail);
    } else if hand > queues && hand > 0 {
        let detail = format!("should not be greater than queues ({queues})");
        errors.invalid(format!("{here}.handSize"), &Value::from(hand), &detail);
    } else if queues > 0 && entropy(queues, hand) > HASH_BITS {
        let needed = "required entropy bits of deckSize";
        let detail = format!("{needed} {queues} and handSize {hand} should not be greater than {HASH_BITS}");
        errors.invalid(format!("{here}.handSize"), &Value::from(hand), &detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tree::set;

    /// Fields that are refused when `changes` are made to an object that is not.
    fn refused(
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

    fn level() -> Value {
        let mut level = json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}});
        default_priority_level(&mut level);
        level
    }

    #[test]
    fn levels_have_upstreams_defaults() {
        let queuing = json!({"handSize": 8, "queues": 64, "queueLengthLimit": 50});
        let limited = json!({"nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}});
        assert_eq!(level()["spec"]["limited"], limited);
        let mut none = json!({"spec": {"limited": {"nominalConcurrencyShares": 0}}});
        default_priority_level(&mut none);
        assert_eq!(none["spec"]["limited"]["nominalConcurrencyShares"], 0, "nothing was asked for");
    }

    #[test]
    fn levels_are_validated() {
        let queuing = |field| ["spec", "limited", "limitResponse", "queuing", field];
        let check =
            |path: &[&str], value: Value| refused(&level(), &[(path, value)], validate_priority_level);
        assert_eq!(check(&["spec", "type"], json!("Limited")), Vec::<String>::new());
        let here = "spec.limited.limitResponse.queuing";
        for (path, value, want) in [
            (&["spec", "type"][..], json!("Other"), "spec.type".to_owned()),
            (&["spec", "limited"], Value::Null, "spec.limited".to_owned()),
            (&["spec", "exempt"], json!({}), "spec.exempt".to_owned()),
            (&["spec", "limited", "lendablePercent"], json!(101), "spec.limited.lendablePercent".to_owned()),
            (
                &["spec", "limited", "nominalConcurrencyShares"],
                json!(-1),
                "spec.limited.nominalConcurrencyShares".to_owned(),
            ),
            (
                &["spec", "limited", "borrowingLimitPercent"],
                json!(-1),
                "spec.limited.borrowingLimitPercent".to_owned(),
            ),
            (&["spec", "limited", "limitResponse", "type"], json!("Reject"), here.to_owned()),
            (&["spec", "limited", "limitResponse", "queuing"], Value::Null, here.to_owned()),
            (&queuing("queueLengthLimit"), json!(-1), format!("{here}.queueLengthLimit")),
            (&queuing("queues"), json!(10_000_001), format!("{here}.queues")),
            (&queuing("handSize"), json!(65), format!("{here}.handSize")),
            (&queuing("handSize"), json!(11), format!("{here}.handSize")),
        ] {
            assert_eq!(check(path, value), [want]);
        }
        assert_eq!(check(&queuing("handSize"), json!(10)), Vec::<String>::new(), "60 bits are enough");
        let exempt = refused(&level(), &[(&["metadata", "name"], json!("exempt"))], validate_priority_level);
        assert_eq!(exempt, ["spec.type"]);
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
