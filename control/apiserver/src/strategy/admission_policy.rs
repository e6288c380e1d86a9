//! Policies of admission, and what binds them to resources.
//!
//! Expressions are kept as they are: nothing here knows CEL.

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use super::admission_rules::{
    default_match_resources, require_expression, validate_conditions, validate_failure_policy,
    validate_match_resources,
};
use super::workload::validate_label_selector;
use crate::tree::{at, list, set_default, text};
use crate::validate::{self, Errors};

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: &[&str] = &["Allow", "Deny"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const REINVOCATIONS: &[&str] = &["IfNeeded", "Never"];
/// Types of a mutation, and the field that each wants.
const PATCHES: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
const MAX_AUDIT_ANNOTATIONS: usize = 20;

pub fn default_policy(policy: &mut Value) {
    set_default(policy, &["spec", "failurePolicy"], "Fail");
    default_match_resources(&mut policy["spec"], "matchConstraints");
}

pub fn default_mutating_policy(policy: &mut Value) {
    default_policy(policy);
    set_default(policy, &["spec", "reinvocationPolicy"], "Never");
}

pub fn default_binding(binding: &mut Value) {
    if at(binding, &["spec", "paramRef"]).is_object() {
        set_default(binding, &["spec", "paramRef", "parameterNotFoundAction"], "Deny");
    }
    if at(binding, &["spec"]).is_object() {
        default_match_resources(&mut binding["spec"], "matchResources");
    }
}

pub fn validate_policy(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_common(spec, errors);
    let (validations, annotations) = (list(spec, &["validations"]), list(spec, &["auditAnnotations"]));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required("spec.validations", detail);
        errors.required("spec.auditAnnotations", detail);
    }
    for (index, validation) in validations.iter().enumerate() {
        validate_validation(validation, &format!("spec.validations[{index}]"), errors);
    }
    validate_annotations(change.new, errors);
}

pub fn validate_mutating_policy(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_common(spec, errors);
    let mutations = list(spec, &["mutations"]);
    if mutations.is_empty() {
        errors.required("spec.mutations", "mutations must contain at least one item");
    }
    for (index, mutation) in mutations.iter().enumerate() {
        validate_mutation(mutation, &format!("spec.mutations[{index}]"), errors);
    }
    errors.one_of("spec.reinvocationPolicy", text(spec, &["reinvocationPolicy"]), REINVOCATIONS);
}

fn validate_common(spec: &Value, errors: &mut Errors) {
    validate_failure_policy(spec, "spec", errors);
    let kind = at(spec, &["paramKind"]);
    if kind.is_object() {
        validate_param_kind(kind, errors);
    }
    let constraints = at(spec, &["matchConstraints"]);
    if constraints.is_null() {
        errors.required("spec.matchConstraints", "");
    } else {
        validate_match_resources(constraints, "spec.matchConstraints", errors);
        if list(constraints, &["resourceRules"]).is_empty() {
            errors.required("spec.matchConstraints.resourceRules", "");
        }
    }
    validate_conditions(spec, "spec", errors);
    validate_variables(spec, errors);
}

fn validate_param_kind(kind: &Value, errors: &mut Errors) {
    match text(kind, &["apiVersion"]) {
        "" => errors.required("spec.paramKind.apiVersion", ""),
        version => errors.check("spec.paramKind.apiVersion", version, group_version),
    }
    match text(kind, &["kind"]) {
        "" => errors.required("spec.paramKind.kind", ""),
        kind => {
            if let Err(why) = validate::dns1035_label(&kind.to_lowercase()) {
                let detail = format!("may have mixed case, but should otherwise match: {why}");
                errors.invalid("spec.paramKind.kind", &Value::from(kind), &detail);
            }
        }
    }
}

fn group_version(text: &str) -> Result<(), String> {
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    if !group.is_empty() {
        validate::subdomain(group)?;
    }
    validate::dns1035_label(version)
}

fn validate_variables(spec: &Value, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, variable) in list(spec, &["variables"]).iter().enumerate() {
        let here = format!("spec.variables[{index}]");
        match text(variable, &["name"]) {
            "" => errors.required(format!("{here}.name"), "name is not specified"),
            name => {
                if !is_identifier(name) {
                    let detail = "name is not a valid CEL identifier";
                    errors.invalid(format!("{here}.name"), &Value::from(name), detail);
                }
                if !seen.insert(name) {
                    errors.duplicate(format!("{here}.name"), &Value::from(name));
                }
            }
        }
        require_expression(variable, "expression", &here, "expression is not specified", errors);
    }
}

/// `[_a-zA-Z][_a-zA-Z0-9]*`, and no word that CEL keeps for itself (language definition, "Syntax").
fn is_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ];
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit())
        && !RESERVED.contains(&name)
}

fn validate_validation(validation: &Value, here: &str, errors: &mut Errors) {
    require_expression(validation, "expression", here, "expression is not specified", errors);
    let said = |field: &str| at(validation, &[field]).as_str().filter(|said| !said.is_empty());
    let (message, expression) = (said("message"), text(validation, &["expression"]).trim());
    for field in ["message", "messageExpression"] {
        if let Some(said) = said(field).filter(|said| said.trim().is_empty()) {
            errors.invalid(format!("{here}.{field}"), &Value::from(said), "must be non-empty if specified");
        }
    }
    match message {
        Some(message) if message.trim().contains(['\n', '\r']) => {
            errors.invalid(
                format!("{here}.message"),
                &Value::from(message),
                "message must not contain line breaks",
            );
        }
        None if expression.contains(['\n', '\r']) && said("messageExpression").is_none() => {
            errors.required(
                format!("{here}.message"),
                "message must be specified if expression contains line breaks",
            );
        }
        _ => {}
    }
    errors.one_of(format!("{here}.reason"), text(validation, &["reason"]), REASONS);
}

fn validate_annotations(policy: &Value, errors: &mut Errors) {
    let annotations = list(policy, &["spec", "auditAnnotations"]);
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.invalid("spec.auditAnnotations", at(policy, &["spec", "auditAnnotations"]), &detail);
    }
    let mut seen = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let here = format!("spec.auditAnnotations[{index}]");
        match text(annotation, &["key"]) {
            "" => errors.required(format!("{here}.key"), ""),
            key => {
                // The annotation is written under the name of the policy.
                let whole = format!("{}/{key}", text(policy, &["metadata", "name"]));
                if let Err(why) = validate::label_key(&whole) {
                    errors.invalid(format!("{here}.key"), &Value::from(key), &why);
                }
                if !seen.insert(key) {
                    errors.duplicate(format!("{here}.key"), &Value::from(key));
                }
            }
        }
        require_expression(annotation, "valueExpression", &here, "valueExpression is not specified", errors);
    }
}

fn validate_mutation(mutation: &Value, here: &str, errors: &mut Errors) {
    let given = text(mutation, &["patchType"]);
    if given.is_empty() {
        return errors.required(format!("{here}.patchType"), "");
    }
    errors.one_of(format!("{here}.patchType"), given, &PATCHES.map(|(patch, _)| patch));
    for (patch, field) in PATCHES {
        let place = format!("{here}.{field}");
        match (patch == given, at(mutation, &[field])) {
            (true, Value::Null) => {
                errors.required(place, &format!("must be specified when patchType is {patch}"));
            }
            (true, change) => {
                let detail = "expression is not specified";
                require_expression(change, "expression", &place, detail, errors);
            }
            (false, Value::Null) => {}
            (false, _) => {
                errors.forbidden(place, &format!("must not be specified when patchType is {given}"));
            }
        }
    }
}

pub fn validate_binding(change: &Change<'_>, errors: &mut Errors) {
    validate_mutating_binding(change, errors);
    let spec = at(change.new, &["spec"]);
    let (actions, here) = (list(spec, &["validationActions"]), "spec.validationActions");
    if actions.is_empty() {
        errors.required(here, "");
    }
    let mut seen = HashSet::new();
    for (index, action) in actions.iter().enumerate() {
        let word = action.as_str().unwrap_or_default();
        if !ACTIONS.contains(&word) {
            errors.unsupported(format!("{here}[{index}]"), word, ACTIONS);
        }
        if !seen.insert(action) {
            errors.duplicate(format!("{here}[{index}]"), action);
        }
    }
    if ["Deny", "Warn"].iter().all(|word| actions.iter().any(|action| action == word)) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in \
                      the API response and headers serves no purpose)";
        errors.invalid(here, at(spec, &["validationActions"]), detail);
    }
}

pub fn validate_mutating_binding(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    match text(spec, &["policyName"]) {
        "" => errors.required("spec.policyName", ""),
        name => errors.check("spec.policyName", name, validate::subdomain),
    }
    let params = at(spec, &["paramRef"]);
    if params.is_object() {
        validate_params(params, errors);
    }
    let resources = at(spec, &["matchResources"]);
    if resources.is_object() {
        validate_match_resources(resources, "spec.matchResources", errors);
    }
}

fn validate_params(params: &Value, errors: &mut Errors) {
    let here = "spec.paramRef";
    let (name, selector) = (text(params, &["name"]), at(params, &["selector"]));
    match (name.is_empty(), selector.is_null()) {
        (true, true) => errors.required(here, "one of name or selector must be specified"),
        (false, true) => errors.check(format!("{here}.name"), name, validate::path_segment),
        (true, false) => validate_label_selector(selector, &format!("{here}.selector"), errors),
        (false, false) => {
            errors.forbidden(format!("{here}.name"), "name and selector are mutually exclusive");
            errors.forbidden(format!("{here}.selector"), "name and selector are mutually exclusive");
        }
    }
    let action = text(params, &["parameterNotFoundAction"]);
    errors.one_of(format!("{here}.parameterNotFoundAction"), action, NOT_FOUND_ACTIONS);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::flow_schema::tests::refused;

    fn policy() -> Value {
        let rule =
            json!({"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let mut policy = json!({"metadata": {"name": "p.example.com"}, "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "ReplicaLimit"},
            "variables": [{"name": "containers", "expression": "object.spec.containers"}],
            "validations": [{"expression": "true"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "'v'"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
        }});
        default_mutating_policy(&mut policy);
        policy
    }

    #[test]
    fn what_is_not_said_is_completed() {
        let spec = policy()["spec"].take();
        assert_eq!((&spec["failurePolicy"], &spec["reinvocationPolicy"]), (&json!("Fail"), &json!("Never")));
        assert_eq!(spec["matchConstraints"]["matchPolicy"], "Equivalent");
        let mut binding = json!({"spec": {"paramRef": {"name": "a"}, "matchResources": {}}});
        default_binding(&mut binding);
        assert_eq!(binding["spec"]["paramRef"]["parameterNotFoundAction"], "Deny");
        assert_eq!(binding["spec"]["matchResources"]["objectSelector"], json!({}));
    }

    #[test]
    fn policies_are_validated() {
        let none: &[&str] = &[];
        let one = |value: Value| json!([value]);
        for (path, value, want) in [
            (&["spec", "failurePolicy"][..], json!("Fail"), none),
            (&["spec", "failurePolicy"], json!("Abort"), &["spec.failurePolicy"]),
            (&["spec", "matchConstraints"], json!(null), &["spec.matchConstraints"]),
            (&["spec", "matchConstraints"], json!({}), &["spec.matchConstraints.resourceRules"]),
            (&["spec", "paramKind"], json!({}), &["spec.paramKind.apiVersion", "spec.paramKind.kind"]),
            (
                &["spec", "paramKind"],
                json!({"apiVersion": "a/b/c", "kind": "-"}),
                &["spec.paramKind.apiVersion", "spec.paramKind.kind"],
            ),
            (
                &["spec", "variables"],
                one(json!({"name": "a-b", "expression": "1"})),
                &["spec.variables[0].name"],
            ),
            (
                &["spec", "variables"],
                one(json!({"name": "in", "expression": ""})),
                &["spec.variables[0].name", "spec.variables[0].expression"],
            ),
            (&["spec", "validations"], one(json!({"expression": " "})), &["spec.validations[0].expression"]),
            (&["spec", "validations"], one(json!({"expression": "a\nb"})), &["spec.validations[0].message"]),
            (&["spec", "validations"], one(json!({"expression": "a\nb", "message": "m"})), none),
            (
                &["spec", "validations"],
                one(json!({"expression": "a", "message": "m\nn"})),
                &["spec.validations[0].message"],
            ),
            (
                &["spec", "validations"],
                one(json!({"expression": "a", "messageExpression": " "})),
                &["spec.validations[0].messageExpression"],
            ),
            (
                &["spec", "validations"],
                one(json!({"expression": "a", "reason": "NotFound"})),
                &["spec.validations[0].reason"],
            ),
            (
                &["spec", "auditAnnotations"],
                one(json!({"key": "a b", "valueExpression": ""})),
                &["spec.auditAnnotations[0].key", "spec.auditAnnotations[0].valueExpression"],
            ),
        ] {
            assert_eq!(
                refused(&policy(), &[(path, value.clone())], validate_policy),
                want,
                "{path:?} {value}"
            );
        }
        let nothing: [(&[&str], Value); 2] =
            [(&["spec", "validations"], json!([])), (&["spec", "auditAnnotations"], json!([]))];
        assert_eq!(
            refused(&policy(), &nothing, validate_policy),
            ["spec.validations", "spec.auditAnnotations"]
        );
    }

    #[test]
    fn mutations_have_what_their_type_wants() {
        let apply = json!({"expression": "Object{}"});
        for (mutations, want) in [
            (json!([]), &["spec.mutations"][..]),
            (json!([{}]), &["spec.mutations[0].patchType"]),
            (json!([{"patchType": "ApplyConfiguration", "applyConfiguration": apply}]), &[]),
            (
                json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {}}]),
                &["spec.mutations[0].applyConfiguration.expression"],
            ),
            (
                json!([{"patchType": "JSONPatch", "applyConfiguration": apply}]),
                &["spec.mutations[0].applyConfiguration", "spec.mutations[0].jsonPatch"],
            ),
            (json!([{"patchType": "Other"}]), &["spec.mutations[0].patchType"]),
        ] {
            let changes: [(&[&str], Value); 1] = [(&["spec", "mutations"], mutations.clone())];
            assert_eq!(refused(&policy(), &changes, validate_mutating_policy), want, "{mutations}");
        }
        let changes: [(&[&str], Value); 1] = [(&["spec", "reinvocationPolicy"], json!("Often"))];
        assert_eq!(refused(&policy(), &changes, validate_mutating_policy), ["spec.reinvocationPolicy"]);
    }

    #[test]
    fn bindings_are_validated() {
        let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny", "Audit"]}});
        let none: &[&str] = &[];
        for (field, value, want) in [
            ("policyName", json!("p"), none),
            ("policyName", json!(""), &["spec.policyName"]),
            ("policyName", json!("a/b"), &["spec.policyName"]),
            ("validationActions", json!([]), &["spec.validationActions"]),
            ("validationActions", json!(["Deny", "Warn"]), &["spec.validationActions"]),
            ("validationActions", json!(["Audit", "Audit"]), &["spec.validationActions[1]"]),
            ("validationActions", json!(["Log"]), &["spec.validationActions[0]"]),
            ("paramRef", json!({"name": "a", "parameterNotFoundAction": "Deny"}), none),
            ("paramRef", json!({}), &["spec.paramRef"]),
            (
                "paramRef",
                json!({"name": "a", "selector": {}}),
                &["spec.paramRef.name", "spec.paramRef.selector"],
            ),
            (
                "paramRef",
                json!({"name": "a", "parameterNotFoundAction": "No"}),
                &["spec.paramRef.parameterNotFoundAction"],
            ),
            ("matchResources", json!({"matchPolicy": "Same"}), &["spec.matchResources.matchPolicy"]),
        ] {
            let changes: [(&[&str], Value); 1] = [(&["spec", field], value.clone())];
            assert_eq!(refused(&binding, &changes, validate_binding), want, "{field} {value}");
        }
    }
}
