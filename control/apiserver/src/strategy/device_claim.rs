//! Claims of devices and what they are made from.
//!
//! Expressions in CEL are kept as they are: nothing here compiles them.

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use crate::tree::{at, int, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

/// Bounds of `resource.k8s.io/v1`.
pub const MAX_REQUESTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
pub const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION: usize = 10 << 10;

pub fn default_claim(claim: &mut Value) {
    default_requests(claim, &["spec", "devices", "requests"]);
}

pub fn default_template(template: &mut Value) {
    default_requests(template, &["spec", "spec", "devices", "requests"]);
}

/// One device of the class, unless something else is said.
fn default_requests(object: &mut Value, path: &[&str]) {
    for request in list_mut(object, path) {
        if let Some(exact) = request.get_mut("exactly").filter(|exact| exact.is_object()) {
            default_amount(exact);
        }
        list_mut(request, &["firstAvailable"]).iter_mut().for_each(default_amount);
    }
}

fn default_amount(request: &mut Value) {
    set_default(request, &["allocationMode"], "ExactCount");
    let counted = text(request, &["allocationMode"]) == "ExactCount";
    if counted && int(request, &["count"]).unwrap_or_default() == 0 {
        crate::tree::set(request, &["count"], 1);
    }
}

pub fn validate_claim(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    match change.old {
        Some(old) => errors.immutable("spec", at(old, &["spec"]), spec),
        None => validate_devices(at(spec, &["devices"]), "spec.devices", errors),
    }
}

pub fn validate_template(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    match change.old {
        Some(old) => errors.immutable("spec", at(old, &["spec"]), spec),
        None => validate_devices(at(spec, &["spec", "devices"]), "spec.spec.devices", errors),
    }
}

pub fn bounded(all: &[Value], most: usize, here: &str, errors: &mut Errors) {
    if all.len() > most {
        errors.too_many(here, all.len() as u64, most as u64);
    }
}

pub fn validate_selectors(request: &Value, here: &str, errors: &mut Errors) {
    let selectors = list(request, &["selectors"]);
    bounded(selectors, MAX_SELECTORS, &format!("{here}.selectors"), errors);
    for (index, selector) in selectors.iter().enumerate() {
        let place = format!("{here}.selectors[{index}].cel");
        let expression = text(selector, &["cel", "expression"]);
        if at(selector, &["cel"]).is_null() {
            errors.required(place, "");
        } else if expression.is_empty() {
            errors.required(format!("{place}.expression"), "");
        } else if expression.len() > MAX_EXPRESSION {
            errors.too_long(format!("{place}.expression"), MAX_EXPRESSION);
        }
    }
}

pub fn validate_config(config: &Value, here: &str, errors: &mut Errors) {
    let opaque = at(config, &["opaque"]);
    if opaque.is_null() {
        return errors.required(format!("{here}.opaque"), "");
    }
    validate_driver(opaque, &format!("{here}.opaque"), errors);
    let parameters = at(opaque, &["parameters"]);
    match parameters {
        Value::Null => errors.required(format!("{here}.opaque.parameters"), ""),
        Value::Object(_) => {}
        other => errors.invalid(format!("{here}.opaque.parameters"), other, "must be a valid JSON object"),
    }
}

/// The name of a driver is that of a CSI driver.
pub fn validate_driver(object: &Value, here: &str, errors: &mut Errors) {
    let place = format!("{here}.driver");
    match text(object, &["driver"]) {
        "" => errors.required(place, ""),
        name if name.len() > 63 => errors.too_long(place, 63),
        name => errors.check(place, name, validate::subdomain),
    }
}

/// The name of a pool is one of subdomains between slashes.
pub fn validate_pool_name(object: &Value, field: &[&str], here: &str, errors: &mut Errors) {
    match text(object, field) {
        "" => errors.required(here, ""),
        name if name.len() > 253 => errors.too_long(here, 253),
        name => name.split('/').for_each(|part| errors.check(here, part, validate::subdomain)),
    }
}

fn validate_devices(devices: &Value, here: &str, errors: &mut Errors) {
    let requests = list(devices, &["requests"]);
    bounded(requests, MAX_REQUESTS, &format!("{here}.requests"), errors);
    let mut seen = HashSet::new();
    for (index, request) in requests.iter().enumerate() {
        let place = format!("{here}.requests[{index}]");
        validate_name(request, &place, &mut seen, errors);
        validate_request(request, &place, errors);
    }
    let names = request_names(devices);
    let constraints = list(devices, &["constraints"]);
    bounded(constraints, MAX_REQUESTS, &format!("{here}.constraints"), errors);
    for (index, constraint) in constraints.iter().enumerate() {
        let place = format!("{here}.constraints[{index}]");
        validate_references(constraint, &place, &names, errors);
        let attributes = ["matchAttribute", "distinctAttribute"];
        if attributes.iter().filter(|field| at(constraint, &[field]).is_string()).count() != 1 {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required";
            errors.required(place.as_str(), detail);
        }
        for field in attributes {
            if let Some(name) = at(constraint, &[field]).as_str() {
                errors.check(format!("{place}.{field}"), name, attribute_name);
            }
        }
    }
    let configs = list(devices, &["config"]);
    bounded(configs, MAX_CONFIGS, &format!("{here}.config"), errors);
    for (index, config) in configs.iter().enumerate() {
        let place = format!("{here}.config[{index}]");
        validate_references(config, &place, &names, errors);
        validate_config(config, &place, errors);
    }
}

fn validate_name<'a>(request: &'a Value, here: &str, seen: &mut HashSet<&'a str>, errors: &mut Errors) {
    let name = text(request, &["name"]);
    errors.check(format!("{here}.name"), name, validate::label);
    if !seen.insert(name) {
        errors.duplicate(here, &Value::from(name));
    }
}

fn validate_request(request: &Value, here: &str, errors: &mut Errors) {
    let alternatives = list(request, &["firstAvailable"]);
    let exact = at(request, &["exactly"]);
    let one_of = "exactly one of `exactly` or `firstAvailable` is required";
    match (exact.is_null(), alternatives.is_empty()) {
        (true, true) => errors.required(here, one_of),
        (false, false) => {
            errors.invalid(here, &Value::Null, &format!("{one_of}, but multiple fields are set"));
        }
        (false, true) => validate_amount(exact, &format!("{here}.exactly"), errors),
        (true, false) => {
            bounded(alternatives, MAX_ALTERNATIVES, &format!("{here}.firstAvailable"), errors);
            let mut seen = HashSet::new();
            for (index, one) in alternatives.iter().enumerate() {
                let place = format!("{here}.firstAvailable[{index}]");
                validate_name(one, &place, &mut seen, errors);
                validate_amount(one, &place, errors);
            }
        }
    }
}

fn validate_amount(request: &Value, here: &str, errors: &mut Errors) {
    match text(request, &["deviceClassName"]) {
        "" => errors.required(format!("{here}.deviceClassName"), ""),
        name => errors.check(format!("{here}.deviceClassName"), name, validate::subdomain),
    }
    validate_selectors(request, here, errors);
    let count = int(request, &["count"]).unwrap_or_default();
    let wrong = match text(request, &["allocationMode"]) {
        "All" if count != 0 => "must not be specified when allocationMode is 'All'",
        "ExactCount" if count <= 0 => "must be greater than zero",
        "All" | "ExactCount" => return,
        other => {
            return errors.unsupported(format!("{here}.allocationMode"), other, &["All", "ExactCount"]);
        }
    };
    errors.invalid(format!("{here}.count"), &Value::from(count), wrong);
}

/// `name`, and `name/alternative` of requests that have some.
pub fn request_names(devices: &Value) -> HashSet<String> {
    let requests = list(devices, &["requests"]).iter();
    let named = |request: &Value| {
        let name = text(request, &["name"]).to_owned();
        let others = list(request, &["firstAvailable"]).iter();
        let others: Vec<String> = others.map(|one| format!("{name}/{}", text(one, &["name"]))).collect();
        std::iter::once(name).chain(others)
    };
    requests.flat_map(named).collect()
}

pub const REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub fn validate_references(part: &Value, here: &str, names: &HashSet<String>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, name) in list(part, &["requests"]).iter().enumerate() {
        let place = format!("{here}.requests[{index}]");
        let text = name.as_str().unwrap_or_default();
        if !names.contains(text) {
            errors.invalid(place.as_str(), name, REFERENCE);
        }
        if !seen.insert(text) {
            errors.duplicate(place, name);
        }
    }
}

/// `domain/ID`, of which the second is an identifier of C.
fn attribute_name(text: &str) -> Result<(), String> {
    let Some((domain, id)) = text.split_once('/') else {
        return Err("must include a domain".to_owned());
    };
    validate::subdomain(domain)?;
    identifier(id)
}

/// An identifier of C that is not too long.
pub fn identifier(text: &str) -> Result<(), String> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && text.len() <= 32 && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Ok(());
    }
    Err("a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
         '[A-Za-z_][A-Za-z0-9_]*')"
        .to_owned())
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    pub fn claim() -> Value {
        let mut claim = json!({"metadata": {}, "spec": {"devices": {"requests": [
            {"name": "one", "exactly": {"deviceClassName": "c"}},
            {"name": "some", "firstAvailable": [{"name": "big", "deviceClassName": "c", "allocationMode": "All"}]}]}}});
        default_claim(&mut claim);
        claim
    }

    pub fn fields(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_request_is_for_one_device_unless_it_says_otherwise() {
        let requests = &claim()["spec"]["devices"]["requests"];
        assert_eq!(requests[0]["exactly"]["allocationMode"], "ExactCount");
        assert_eq!(requests[0]["exactly"]["count"], 1);
        assert_eq!(requests[1]["firstAvailable"][0].get("count"), None);
    }

    #[test]
    fn claims_are_validated() {
        let check = |pointer: &str, value: Value| {
            let mut claim = claim();
            *claim.pointer_mut("/spec/devices").unwrap().pointer_mut(pointer).unwrap() = value;
            fields(|errors| validate_claim(&Change { old: None, new: &mut claim }, errors))
        };
        assert_eq!(check("/requests/0/name", json!("other")), Vec::<String>::new());
        let here = "spec.devices.requests";
        let exact = claim()["spec"]["devices"]["requests"][0]["exactly"].clone();
        for (pointer, value, want) in [
            ("/requests/0/name", json!("A"), "[0].name"),
            ("/requests/0/name", json!("some"), "[1]"),
            ("/requests/0/exactly", Value::Null, "[0]"),
            ("/requests/1/firstAvailable", json!([]), "[1]"),
            ("/requests/0/exactly/deviceClassName", json!(""), "[0].exactly.deviceClassName"),
            ("/requests/0/exactly/count", json!(-1), "[0].exactly.count"),
            ("/requests/0/exactly/allocationMode", json!("All"), "[0].exactly.count"),
            ("/requests/0/exactly/allocationMode", json!("Some"), "[0].exactly.allocationMode"),
            ("/requests/1", json!({"name": "b", "exactly": exact, "firstAvailable": [{}]}), "[1]"),
        ] {
            assert_eq!(check(pointer, value), [format!("{here}{want}")]);
        }
        let with = |field: &str, value: Value| {
            let mut devices = claim()["spec"]["devices"].clone();
            devices[field] = json!([value]);
            check("", devices)
        };
        let opaque = json!({"driver": "d.example.com", "parameters": {}});
        for (field, value, want) in [
            ("constraints", json!({"requests": ["one", "some/big"], "matchAttribute": "d.io/x"}), vec![]),
            (
                "constraints",
                json!({"requests": ["some/small"], "matchAttribute": "d.io/x"}),
                vec!["constraints[0].requests[0]"],
            ),
            ("constraints", json!({}), vec!["constraints[0]"]),
            ("constraints", json!({"matchAttribute": "x"}), vec!["constraints[0].matchAttribute"]),
            ("config", json!({"opaque": opaque}), vec![]),
            ("config", json!({"requests": ["none"], "opaque": opaque}), vec!["config[0].requests[0]"]),
            ("config", json!({}), vec!["config[0].opaque"]),
            (
                "config",
                json!({"opaque": {"driver": ""}}),
                vec!["config[0].opaque.driver", "config[0].opaque.parameters"],
            ),
        ] {
            let want: Vec<String> = want.into_iter().map(|place| format!("spec.devices.{place}")).collect();
            assert_eq!(with(field, value), want);
        }
    }

    #[test]
    fn what_a_claim_and_a_template_ask_for_stays() {
        let old = claim();
        let mut new = claim();
        new["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
        let change = Change { old: Some(&old), new: &mut new };
        assert_eq!(fields(|errors| validate_claim(&change, errors)), ["spec"]);
        assert_eq!(fields(|errors| validate_template(&change, errors)), ["spec"]);
        let mut template =
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "a", "exactly": {}}]}}}});
        default_template(&mut template);
        let change = Change { old: None, new: &mut template };
        let place = "spec.spec.devices.requests[0].exactly.deviceClassName";
        assert_eq!(fields(|errors| validate_template(&change, errors)), [place]);
    }
}
