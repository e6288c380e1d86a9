//! Claims of devices, what they are made from, and the classes they name.
//!
//! Expressions in CEL are kept as they are: nothing here compiles them.

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use crate::resources::Sub;
use crate::tree::{at, int, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

/// Bounds of `resource.k8s.io/v1`.
const MAX_REQUESTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_CONSUMERS: usize = 256;
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

pub fn validate_class(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_selectors(spec, "spec", errors);
    let configs = list(spec, &["config"]);
    bounded(configs, MAX_CONFIGS, "spec.config", errors);
    for (index, config) in configs.iter().enumerate() {
        validate_config(config, &format!("spec.config[{index}]"), errors);
    }
    let extended = at(spec, &["extendedResourceName"]);
    if extended.as_str().is_some_and(|name| !is_extended(name)) {
        errors.invalid("spec.extendedResourceName", extended, "must be a valid extended resource name");
    }
}

/// A resource with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && validate::label_key(&format!("requests.{name}")).is_ok()
}

fn bounded(all: &[Value], most: usize, here: &str, errors: &mut Errors) {
    if all.len() > most {
        errors.too_many(here, all.len() as u64, most as u64);
    }
}

fn validate_selectors(request: &Value, here: &str, errors: &mut Errors) {
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

fn validate_config(config: &Value, here: &str, errors: &mut Errors) {
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
fn request_names(devices: &Value) -> HashSet<String> {
    let requests = list(devices, &["requests"]).iter();
    let named = |request: &Value| {
        let name = text(request, &["name"]).to_owned();
        let others = list(request, &["firstAvailable"]).iter();
        let others: Vec<String> = others.map(|one| format!("{name}/{}", text(one, &["name"]))).collect();
        std::iter::once(name).chain(others)
    };
    requests.flat_map(named).collect()
}

const REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

fn validate_references(part: &Value, here: &str, names: &HashSet<String>, errors: &mut Errors) {
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
    let starts = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && id.len() <= 32 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Ok(());
    }
    Err("a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
         '[A-Za-z_][A-Za-z0-9_]*')"
        .to_owned())
}

/// Checks what was allocated to a claim, and who may use it.
pub fn validate_allocation(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    let Some(old) = change.old.filter(|_| sub == Sub::Status) else { return };
    let new = &*change.new;
    let allocation = at(new, &["status", "allocation"]);
    validate_consumers(old, new, errors);
    let before = at(old, &["status", "allocation"]);
    if !before.is_null() && !allocation.is_null() {
        errors.immutable("status.allocation", before, allocation);
    } else if !allocation.is_null() {
        validate_results(new, allocation, errors);
    }
    let identity =
        |one: &Value| ["driver", "pool", "device", "shareID"].map(|field| text(one, &[field]).to_owned());
    let allocated: HashSet<_> = list(allocation, &["devices", "results"]).iter().map(identity).collect();
    for (index, device) in list(new, &["status", "devices"]).iter().enumerate() {
        if !allocated.contains(&identity(device)) {
            let detail = "must be an allocated device in the claim";
            errors.invalid(format!("status.devices[{index}]"), at(device, &["device"]), detail);
        }
    }
}

fn validate_consumers(old: &Value, new: &Value, errors: &mut Errors) {
    let consumers = list(new, &["status", "reservedFor"]);
    let here = "status.reservedFor";
    bounded(consumers, MAX_CONSUMERS, here, errors);
    let mut seen = HashSet::new();
    for (index, consumer) in consumers.iter().enumerate() {
        for field in ["resource", "name", "uid"] {
            if text(consumer, &[field]).is_empty() {
                errors.required(format!("{here}[{index}].{field}"), "");
            }
        }
        if !seen.insert(text(consumer, &["uid"])) {
            errors.duplicate(format!("{here}[{index}]"), consumer);
        }
    }
    if !consumers.is_empty() && at(new, &["status", "allocation"]).is_null() {
        errors.forbidden(here, "may not be specified when `allocated` is not set");
    }
    let before = list(old, &["status", "reservedFor"]);
    let deleted = !at(new, &["metadata", "deletionTimestamp"]).is_null();
    if deleted && consumers.iter().any(|one| !before.contains(one)) {
        let detail =
            "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(here, detail);
    }
}

fn validate_results(claim: &Value, allocation: &Value, errors: &mut Errors) {
    let names = request_names(at(claim, &["spec", "devices"]));
    let results = list(allocation, &["devices", "results"]);
    bounded(results, MAX_REQUESTS, "status.allocation.devices.results", errors);
    for (index, result) in results.iter().enumerate() {
        let here = format!("status.allocation.devices.results[{index}]");
        if !names.contains(text(result, &["request"])) {
            errors.invalid(format!("{here}.request"), at(result, &["request"]), REFERENCE);
        }
        validate_driver(result, &here, errors);
        validate_pool_name(result, &["pool"], &format!("{here}.pool"), errors);
        errors.check(format!("{here}.device"), text(result, &["device"]), validate::label);
    }
    for (index, config) in list(allocation, &["devices", "config"]).iter().enumerate() {
        let here = format!("status.allocation.devices.config[{index}]");
        let sources = ["FromClaim", "FromClass"];
        match text(config, &["source"]) {
            "" => errors.required(format!("{here}.source"), ""),
            source => errors.one_of(format!("{here}.source"), source, &sources),
        }
        validate_references(config, &here, &names, errors);
        validate_config(config, &here, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim() -> Value {
        let mut claim = json!({"metadata": {}, "spec": {"devices": {"requests": [
            {"name": "one", "exactly": {"deviceClassName": "c"}},
            {"name": "some", "firstAvailable": [{"name": "big", "deviceClassName": "c", "allocationMode": "All"}]}]}}});
        default_claim(&mut claim);
        claim
    }

    fn fields(check: impl FnOnce(&mut Errors)) -> Vec<String> {
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

    #[test]
    fn classes_are_validated() {
        let config = json!([{"opaque": {"driver": "d.io", "parameters": {"a": 1}}}]);
        for (spec, want) in [
            (json!({"selectors": [{"cel": {"expression": "true"}}], "config": config}), vec![]),
            (json!({"selectors": [{}]}), vec!["spec.selectors[0].cel"]),
            (json!({"selectors": vec![json!({"cel": {"expression": "x"}}); 33]}), vec!["spec.selectors"]),
            (
                json!({"config": [{"opaque": {"driver": "d.io", "parameters": "a"}}]}),
                vec!["spec.config[0].opaque.parameters"],
            ),
            (json!({"extendedResourceName": "example.com/gpu"}), vec![]),
            (json!({"extendedResourceName": "gpu"}), vec!["spec.extendedResourceName"]),
        ] {
            let mut class = json!({"spec": spec});
            let change = Change { old: None, new: &mut class };
            assert_eq!(fields(|errors| validate_class(&change, errors)), want);
        }
    }

    #[test]
    fn allocations_are_validated() {
        let result = json!({"request": "one", "driver": "d.io", "pool": "p/q", "device": "d"});
        let allocated = json!({"devices": {"results": [result]}});
        let consumer = json!({"resource": "pods", "name": "p", "uid": "1"});
        let check = |old: Value, new: Value, deleted: bool| {
            let [mut before, mut after] = [claim(), claim()];
            before["status"] = old;
            after["status"] = new;
            if deleted {
                after["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
            }
            let change = Change { old: Some(&before), new: &mut after };
            fields(|errors| validate_allocation(Sub::Status, &change, errors))
        };
        let full = json!({"allocation": allocated, "reservedFor": [consumer]});
        assert_eq!(check(json!({}), full.clone(), false), Vec::<String>::new());
        assert_eq!(check(json!({"allocation": allocated}), full.clone(), true), ["status.reservedFor"]);
        assert_eq!(check(full.clone(), full, true), Vec::<String>::new());
        assert_eq!(check(json!({}), json!({"reservedFor": [consumer]}), false), ["status.reservedFor"]);
        let other = json!({"allocation": {"devices": {}}});
        assert_eq!(check(json!({"allocation": allocated}), other, false), ["status.allocation"]);
        let bad = json!({"allocation": {"devices": {"results": [{"request": "two", "driver": "", "pool": "/", "device": "D"}]}}});
        let here = "status.allocation.devices.results[0]";
        let want = ["request", "driver", "pool", "pool", "device"].map(|field| format!("{here}.{field}"));
        assert_eq!(check(json!({}), bad, false), want);
        let device =
            json!({"allocation": allocated, "devices": [{"driver": "d.io", "pool": "p", "device": "d"}]});
        assert_eq!(check(json!({}), device, false), ["status.devices[0]"]);
    }
}
