//! Groups of pods that are scheduled together (`PodGroup`, `Workload`, scheduling.k8s.io/v1alpha2).

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use crate::tree::{at, int, list, text};
use crate::validate::{self, Errors};

const MAX_TEMPLATES: usize = 8;
const MAX_CLAIMS: usize = 4;

pub fn validate_group(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(old) = change.old {
        errors.immutable("spec", at(old, &["spec"]), spec);
        return;
    }
    validate_scheduling(spec, "spec", errors);
    let workload = at(spec, &["podGroupTemplateRef", "workload"]);
    if !at(spec, &["podGroupTemplateRef"]).is_null() {
        for (field, check) in [
            ("podGroupTemplateName", validate::label as fn(&str) -> Result<(), String>),
            ("workloadName", validate::subdomain),
        ] {
            errors.check(
                format!("spec.podGroupTemplateRef.workload.{field}"),
                text(workload, &[field]),
                check,
            );
        }
    }
}

pub fn validate_workload(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(old) = change.old {
        errors.immutable("spec", at(old, &["spec"]), spec);
        return;
    }
    let controller = at(spec, &["controllerRef"]);
    if !controller.is_null() {
        for field in ["kind", "name"] {
            errors.check(format!("spec.controllerRef.{field}"), text(controller, &[field]), path_segment);
        }
        let group = text(controller, &["apiGroup"]);
        if !group.is_empty() {
            errors.check("spec.controllerRef.apiGroup", group, validate::subdomain);
        }
    }
    let templates = list(spec, &["podGroupTemplates"]);
    if templates.is_empty() {
        errors.required("spec.podGroupTemplates", "must have at least one item");
    }
    bounded(templates, MAX_TEMPLATES, "spec.podGroupTemplates", errors);
    let mut seen = HashSet::new();
    for (index, template) in templates.iter().enumerate() {
        let here = format!("spec.podGroupTemplates[{index}]");
        named(template, &here, &mut seen, errors);
        validate_scheduling(template, &here, errors);
    }
}

fn path_segment(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { validate::path_segment(text) }
}

fn bounded(all: &[Value], most: usize, here: &str, errors: &mut Errors) {
    if all.len() > most {
        errors.too_many(here, all.len() as u64, most as u64);
    }
}

/// A label that nothing else of the list has.
fn named<'a>(one: &'a Value, here: &str, seen: &mut HashSet<&'a str>, errors: &mut Errors) {
    let name = text(one, &["name"]);
    errors.check(format!("{here}.name"), name, validate::label);
    if !seen.insert(name) {
        errors.duplicate(here, &name.into());
    }
}

/// What a group and the template of one have in common.
fn validate_scheduling(group: &Value, here: &str, errors: &mut Errors) {
    let policy = at(group, &["schedulingPolicy"]);
    let place = format!("{here}.schedulingPolicy");
    match (at(policy, &["basic"]), at(policy, &["gang"])) {
        (Value::Null, Value::Null) => errors.invalid(place, policy, "must specify one of: `basic`, `gang`"),
        (_, Value::Null) => {}
        (Value::Null, gang) => {
            let count = int(gang, &["minCount"]).unwrap_or_default();
            if count < 1 {
                errors.invalid(
                    format!("{place}.gang.minCount"),
                    &count.into(),
                    "must be greater than or equal to 1",
                );
            }
        }
        _ => errors.invalid(place, policy, "must specify exactly one of: `basic`, `gang`"),
    }
    let mode = text(group, &["disruptionMode"]);
    if !mode.is_empty() {
        errors.one_of(format!("{here}.disruptionMode"), mode, &["Pod", "PodGroup"]);
    }
    for (index, constraint) in list(group, &["schedulingConstraints", "topology"]).iter().enumerate() {
        let place = format!("{here}.schedulingConstraints.topology[{index}].key");
        errors.check(place, text(constraint, &["key"]), validate::label_key);
    }
    let claims = list(group, &["resourceClaims"]);
    bounded(claims, MAX_CLAIMS, &format!("{here}.resourceClaims"), errors);
    let mut seen = HashSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let place = format!("{here}.resourceClaims[{index}]");
        named(claim, &place, &mut seen, errors);
        validate_claim(claim, &place, errors);
    }
}

fn validate_claim(claim: &Value, here: &str, errors: &mut Errors) {
    let given = ["resourceClaimName", "resourceClaimTemplateName"];
    let given: Vec<&str> = given.into_iter().filter(|field| !at(claim, &[field]).is_null()).collect();
    match given.as_slice() {
        [field] => errors.check(format!("{here}.{field}"), text(claim, &[field]), validate::subdomain),
        _ => {
            let detail = "must specify exactly one of: `resourceClaimName`, `resourceClaimTemplateName`";
            errors.invalid(here, claim, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::device_claim::tests::fields;

    fn group(check: fn(&Change<'_>, &mut Errors), spec: Value) -> Vec<String> {
        let mut new = json!({"spec": spec});
        fields(|errors| check(&Change { old: None, new: &mut new }, errors))
    }

    #[test]
    fn a_group_has_one_policy() {
        let claims = json!([{"name": "c", "resourceClaimName": "r"}]);
        let good = json!({"schedulingPolicy": {"gang": {"minCount": 2}}, "resourceClaims": claims});
        assert_eq!(group(validate_group, good), Vec::<String>::new());
        for (spec, place) in [
            (json!({}), "spec.schedulingPolicy"),
            (json!({"schedulingPolicy": {"basic": {}, "gang": {"minCount": 1}}}), "spec.schedulingPolicy"),
            (json!({"schedulingPolicy": {"gang": {"minCount": 0}}}), "spec.schedulingPolicy.gang.minCount"),
            (json!({"schedulingPolicy": {"basic": {}}, "disruptionMode": "All"}), "spec.disruptionMode"),
            (
                json!({"schedulingPolicy": {"basic": {}}, "resourceClaims": [{"name": "c"}]}),
                "spec.resourceClaims[0]",
            ),
        ] {
            assert_eq!(group(validate_group, spec), [place]);
        }
    }

    #[test]
    fn a_workload_has_named_templates() {
        let template = |name: &str| json!({"name": name, "schedulingPolicy": {"basic": {}}});
        let spec = |templates: Vec<Value>| json!({"podGroupTemplates": templates});
        assert_eq!(group(validate_workload, spec(vec![template("a")])), Vec::<String>::new());
        assert_eq!(group(validate_workload, spec(vec![])), ["spec.podGroupTemplates"]);
        let twice = spec(vec![template("a"), template("a")]);
        assert_eq!(group(validate_workload, twice), ["spec.podGroupTemplates[1]"]);
        let many = spec((0..9).map(|index| template(&format!("t{index}"))).collect());
        assert_eq!(group(validate_workload, many), ["spec.podGroupTemplates"]);
        let mut of = spec(vec![template("a")]);
        of["controllerRef"] = json!({"kind": "Job", "name": ""});
        assert_eq!(group(validate_workload, of), ["spec.controllerRef.name"]);
    }
}
