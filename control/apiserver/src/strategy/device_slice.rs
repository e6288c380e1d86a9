//! Slices of the pools of devices that drivers publish.

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use super::device_claim::{identifier, validate_driver, validate_pool_name};
use crate::tree::{at, fields, int, list, text};
use crate::validate::{self, Errors};

/// Bounds of `resource.k8s.io/v1`; the lower one is for devices that are more than a list of attributes.
const MAX_DEVICES: usize = 128;
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_ATTRIBUTES: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_DOMAIN: usize = 63;

/// How an attribute can be given.
const VALUES: &[&str] = &["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];

pub fn validate_slice(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_driver(spec, "spec", errors);
    validate_pool_name(spec, &["pool", "name"], "spec.pool.name", errors);
    if int(spec, &["pool", "resourceSliceCount"]).unwrap_or_default() <= 0 {
        let count = at(spec, &["pool", "resourceSliceCount"]);
        errors.invalid("spec.pool.resourceSliceCount", count, "must be greater than zero");
    }
    errors.not_negative("spec.pool.generation", int(spec, &["pool", "generation"]));
    if let Some(old) = change.old {
        for (place, path) in [
            ("spec.pool.name", &["pool", "name"][..]),
            ("spec.driver", &["driver"]),
            ("spec.nodeName", &["nodeName"]),
        ] {
            errors.immutable(place, at(old, &[&["spec"][..], path].concat()), at(spec, path));
        }
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let told = "`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`";
    validate_place(spec, "spec", &places, told, errors);
    validate_contents(spec, errors);
}

/// Devices are on one node, on those of a selector, or on all.
fn validate_place(object: &Value, here: &str, places: &[&str], told: &str, errors: &mut Errors) {
    let mut count = 0;
    for field in places {
        let value = at(object, &[field]);
        let place = format!("{here}.{field}");
        match value {
            Value::Null => continue,
            Value::Bool(false) => errors.invalid(place, value, "must be either unset or set to true"),
            Value::String(name) if name.is_empty() => {
                errors.invalid(place, value, "must be either unset or set to a non-empty string");
            }
            Value::String(name) => errors.check(place, name, validate::subdomain),
            Value::Object(_) if list(value, &["nodeSelectorTerms"]).len() != 1 => {
                let terms = at(value, &["nodeSelectorTerms"]);
                let detail = "must have exactly one node selector term";
                errors.invalid(format!("{place}.nodeSelectorTerms"), terms, detail);
            }
            _ => {}
        }
        count += 1;
    }
    match count {
        0 => errors.required(here, &format!("exactly one of {told} is required")),
        1 => {}
        _ => {
            let detail = format!("exactly one of {told} is required, but multiple fields are set");
            errors.invalid(here, &Value::Null, &detail);
        }
    }
}

fn validate_contents(spec: &Value, errors: &mut Errors) {
    let (devices, counters) = (list(spec, &["devices"]), list(spec, &["sharedCounters"]));
    if !devices.is_empty() && !counters.is_empty() {
        errors.invalid("spec", &Value::from(""), "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = |device: &Value| {
        !list(device, &["taints"]).is_empty() || !list(device, &["consumesCounters"]).is_empty()
    };
    let most = if devices.iter().any(advanced) { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    for (all, most, here) in
        [(devices, most, "spec.devices"), (counters, MAX_COUNTER_SETS, "spec.sharedCounters")]
    {
        if all.len() > most {
            errors.too_many(here, all.len() as u64, most as u64);
        }
        let mut seen = HashSet::new();
        for (index, one) in all.iter().enumerate() {
            let name = text(one, &["name"]);
            errors.check(format!("{here}[{index}].name"), name, validate::label);
            if !seen.insert(name) {
                errors.duplicate(format!("{here}[{index}]"), &Value::from(name));
            }
        }
    }
    let each = at(spec, &["perDeviceNodeSelection"]) == true;
    for (index, device) in devices.iter().enumerate() {
        validate_device(device, each, &format!("spec.devices[{index}]"), errors);
    }
    for (index, set) in counters.iter().enumerate() {
        validate_counters(set, &format!("spec.sharedCounters[{index}]"), errors);
    }
}

/// Counters have names, and there are some.
fn validate_counters(set: &Value, here: &str, errors: &mut Errors) {
    if fields(set, &["counters"]).next().is_none() {
        errors.required(format!("{here}.counters"), "");
    }
    for (name, _) in fields(set, &["counters"]) {
        errors.check(format!("{here}.counters"), name, validate::label);
    }
}

/// An identifier, or one behind the domain of who gave it.
fn qualified_name(text: &str) -> Result<(), String> {
    match text.split_once('/') {
        None => identifier(text),
        Some(("", _)) => Err("the domain must not be empty".to_owned()),
        Some((_, "")) => Err("the name must not be empty".to_owned()),
        Some((_, id)) if id.contains('/') => Err("must not contain more than one slash".to_owned()),
        Some((domain, _)) if domain.len() > MAX_DOMAIN => {
            Err(format!("the domain must not be longer than {MAX_DOMAIN} characters"))
        }
        Some((domain, id)) => validate::subdomain(domain).and_then(|()| identifier(id)),
    }
}

/// A version as semver.org 2.0.0 has it.
pub fn semantic_version(text: &str) -> Result<(), String> {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, early) = rest.split_once('-').map_or((rest, None), |(core, early)| (core, Some(early)));
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_digit());
    let number = |word: &str| digits(word) && (word == "0" || !word.starts_with('0'));
    let word = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let fits = core.split('.').count() == 3
        && core.split('.').all(number)
        && early.is_none_or(|early| early.split('.').all(|one| word(one) && (!digits(one) || number(one))))
        && build.is_none_or(|build| build.split('.').all(word));
    if fits { Ok(()) } else { Err("must be a string compatible with semver.org spec 2.0.0".to_owned()) }
}

fn validate_attribute(attribute: &Value, place: &str, errors: &mut Errors) {
    if VALUES.iter().filter(|field| !at(attribute, &[field]).is_null()).count() != 1 {
        errors.invalid(place, attribute, "exactly one value must be specified");
    }
    for (one, many) in [("string", "strings"), ("version", "versions")] {
        let single = at(attribute, &[one]).as_str().map(|text| (format!("{place}.{one}"), text));
        let several = list(attribute, &[many]).iter().enumerate();
        let several =
            several.filter_map(|(index, text)| Some((format!("{place}.{many}[{index}]"), text.as_str()?)));
        for (place, text) in single.into_iter().chain(several) {
            if text.len() > MAX_VALUE {
                errors.too_long(place, MAX_VALUE);
            } else if one == "version" {
                errors.check(place, text, semantic_version);
            }
        }
    }
}

/// Counters that a device takes from sets of its slice.
fn validate_consumption(device: &Value, here: &str, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, taken) in list(device, &["consumesCounters"]).iter().enumerate() {
        let place = format!("{here}.consumesCounters[{index}]");
        match text(taken, &["counterSet"]) {
            "" => errors.required(format!("{place}.counterSet"), ""),
            name => errors.check(format!("{place}.counterSet"), name, validate::label),
        }
        if !seen.insert(text(taken, &["counterSet"])) {
            errors.duplicate(place.as_str(), at(taken, &["counterSet"]));
        }
        validate_counters(taken, &place, errors);
    }
}

fn validate_device(device: &Value, each: bool, here: &str, errors: &mut Errors) {
    let count = fields(device, &["attributes"]).count() + fields(device, &["capacity"]).count();
    if count > MAX_ATTRIBUTES {
        let detail =
            format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.invalid(here, &Value::from(count), &detail);
    }
    for section in ["attributes", "capacity"] {
        for (name, _) in fields(device, &[section]) {
            errors.check(format!("{here}.{section}[{name}]"), name, qualified_name);
        }
    }
    for (name, attribute) in fields(device, &["attributes"]) {
        validate_attribute(attribute, &format!("{here}.attributes[{name}]"), errors);
    }
    validate_consumption(device, here, errors);
    for (index, taint) in list(device, &["taints"]).iter().enumerate() {
        validate_taint(taint, &format!("{here}.taints[{index}]"), errors);
    }
    let places = ["nodeName", "nodeSelector", "allNodes"];
    if each {
        validate_place(device, here, &places, "`nodeName`, `nodeSelector`, or `allNodes`", errors);
    } else if places.iter().any(|field| !at(device, &[field]).is_null()) {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                      true in the ResourceSlice spec";
        errors.invalid(here, &Value::Null, detail);
    }
}

/// A taint of one device, or of those of a rule.
pub fn validate_taint(taint: &Value, here: &str, errors: &mut Errors) {
    errors.check(format!("{here}.key"), text(taint, &["key"]), validate::label_key);
    errors.check(format!("{here}.value"), text(taint, &["value"]), validate::label_value);
    match text(taint, &["effect"]) {
        "" => errors.required(format!("{here}.effect"), ""),
        effect => errors.one_of(format!("{here}.effect"), effect, &["NoExecute", "NoSchedule", "None"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice() -> Value {
        json!({"spec": {"driver": "d.io", "nodeName": "n", "pool": {"name": "n", "generation": 0, "resourceSliceCount": 1},
            "devices": [{"name": "a", "attributes": {"size": {"int": 1}}}]}})
    }

    fn places(old: Option<&Value>, mut new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate_slice(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn slices_are_validated() {
        assert_eq!(places(None, slice()), Vec::<String>::new());
        for (field, value, want) in [
            ("driver", json!(""), "spec.driver"),
            ("pool", json!({"name": "", "resourceSliceCount": 1}), "spec.pool.name"),
            ("pool", json!({"name": "n", "resourceSliceCount": 0}), "spec.pool.resourceSliceCount"),
            ("pool", json!({"name": "n", "resourceSliceCount": 1, "generation": -1}), "spec.pool.generation"),
            ("nodeName", Value::Null, "spec"),
            ("nodeName", json!(""), "spec.nodeName"),
            ("allNodes", json!(true), "spec"),
            ("sharedCounters", json!([{"name": "c", "counters": {"m": {"value": "1"}}}]), "spec"),
            ("devices", json!([{"name": "A"}]), "spec.devices[0].name"),
            ("devices", json!([{"name": "a"}, {"name": "a"}]), "spec.devices[1]"),
            ("devices", json!([{"name": "a", "allNodes": true}]), "spec.devices[0]"),
            ("devices", json!([{"name": "a", "attributes": {"x": {}}}]), "spec.devices[0].attributes[x]"),
            (
                "devices",
                json!([{"name": "a", "taints": [{"key": "k", "effect": "Some"}]}]),
                "spec.devices[0].taints[0].effect",
            ),
        ] {
            let mut slice = slice();
            slice["spec"][field] = value;
            assert_eq!(places(None, slice), [want], "{field}");
        }
        let mut many = slice();
        many["spec"]["devices"] = (0..65).map(|index| json!({"name": format!("d{index}")})).collect();
        assert_eq!(places(None, many.clone()), Vec::<String>::new());
        many["spec"]["devices"][0]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
        assert_eq!(places(None, many), ["spec.devices"]);
    }

    #[test]
    fn what_a_device_has_is_named_and_measured() {
        let long = "a".repeat(65);
        let device = |field: &str, value: Value| {
            let mut slice = slice();
            slice["spec"]["devices"][0][field] = value;
            places(None, slice)
        };
        let none: [&str; 0] = [];
        let text = |text: &str| json!({"string": text});
        assert_eq!(
            device("attributes", json!({"d.io/x_1": {"version": "1.0.0-rc.1+b.01"}, "x": text("")})),
            none
        );
        for (name, value, want) in [
            ("1x", text("a"), "[1x]"),
            ("/x", text("a"), "[/x]"),
            ("d.io/", text("a"), "[d.io/]"),
            ("d.io/a/b", text("a"), "[d.io/a/b]"),
            ("D.io/a", text("a"), "[D.io/a]"),
            ("x", text(&long), "[x].string"),
            ("x", json!({"strings": ["a", long]}), "[x].strings[1]"),
            ("x", json!({"version": "1.0"}), "[x].version"),
            ("x", json!({"version": "1.01.0"}), "[x].version"),
            ("x", json!({"version": "1.0.0-01"}), "[x].version"),
            ("x", json!({"version": "1.0.0+"}), "[x].version"),
        ] {
            assert_eq!(
                device("attributes", json!({name: value})),
                [format!("spec.devices[0].attributes{want}")]
            );
        }
        assert_eq!(device("capacity", json!({"a-b": {"value": "1"}})), ["spec.devices[0].capacity[a-b]"]);
        let taken =
            |set: &str, counter: &str| json!({"counterSet": set, "counters": {counter: {"value": "1"}}});
        assert_eq!(device("consumesCounters", json!([taken("s", "c"), taken("t", "c")])), none);
        for (value, want) in [
            (json!([taken("", "c")]), "[0].counterSet"),
            (json!([taken("s", "C")]), "[0].counters"),
            (json!([{"counterSet": "s"}]), "[0].counters"),
            (json!([taken("s", "c"), taken("s", "c")]), "[1]"),
        ] {
            assert_eq!(
                device("consumesCounters", value),
                [format!("spec.devices[0].consumesCounters{want}")]
            );
        }
        let mut counters = slice();
        counters["spec"]["devices"] = json!([]);
        counters["spec"]["sharedCounters"] = json!([{"name": "c", "counters": {"M": {"value": "1"}}}]);
        assert_eq!(places(None, counters), ["spec.sharedCounters[0].counters"]);
    }

    #[test]
    fn devices_may_each_say_where_they_are() {
        let each = |devices: Value| {
            let mut slice = slice();
            slice["spec"]["nodeName"] = Value::Null;
            slice["spec"]["perDeviceNodeSelection"] = json!(true);
            slice["spec"]["devices"] = json!([devices]);
            places(None, slice)
        };
        assert_eq!(each(json!({"name": "a", "nodeName": "n"})), Vec::<String>::new());
        assert_eq!(each(json!({"name": "a"})), ["spec.devices[0]"]);
    }

    #[test]
    fn a_slice_stays_with_its_driver_pool_and_node() {
        let old = slice();
        for (field, value, want) in [
            ("driver", json!("e.io"), "spec.driver"),
            ("nodeName", json!("m"), "spec.nodeName"),
            ("pool", json!({"name": "m", "resourceSliceCount": 1}), "spec.pool.name"),
        ] {
            let mut new = slice();
            new["spec"][field] = value;
            assert_eq!(places(Some(&old), new), [want]);
        }
    }
}
