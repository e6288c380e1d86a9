//! Taints for many devices (`DeviceTaintRule`) and questions about pools (`ResourcePoolStatusRequest`), resource.k8s.io.

use jiff::Timestamp;
use serde_json::Value;

use super::Change;
use super::device_claim::{validate_driver, validate_pool_name};
use super::device_slice::validate_taint;
use crate::tree::{at, int, list_mut, set_default, text};
use crate::validate::{self, Errors};
use crate::verbs::write::timestamp;

/// Pools a status may list.
const LIMIT: std::ops::RangeInclusive<i64> = 1..=1000;

/// Says of the taints of a rule or of the devices of a slice when they came, from when on pods have time.
pub fn date_taints(object: &mut Value, now: Timestamp) {
    let now = timestamp(now);
    let mut date = |taint: &mut Value| set_default(taint, &["timeAdded"], now.as_str());
    if !at(object, &["spec", "taint"]).is_null() {
        date(&mut object["spec"]["taint"]);
    }
    for device in list_mut(object, &["spec", "devices"]) {
        list_mut(device, &["taints"]).iter_mut().for_each(&mut date);
    }
}

pub fn validate_rule(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let selector = at(spec, &["deviceSelector"]);
    let is_given = |field: &str| !at(selector, &[field]).is_null();
    if is_given("driver") {
        validate_driver(selector, "spec.deviceSelector", errors);
    }
    if is_given("pool") {
        validate_pool_name(selector, &["pool"], "spec.deviceSelector.pool", errors);
    }
    if is_given("device") {
        errors.check("spec.deviceSelector.device", text(selector, &["device"]), validate::label);
    }
    validate_taint(at(spec, &["taint"]), "spec.taint", errors);
}

pub fn validate_pool_request(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(old) = change.old {
        errors.immutable("spec", at(old, &["spec"]), spec);
        return;
    }
    validate_driver(spec, "spec", errors);
    if !at(spec, &["poolName"]).is_null() {
        validate_pool_name(spec, &["poolName"], "spec.poolName", errors);
    }
    let limit = at(spec, &["limit"]);
    if int(limit, &[]).is_some_and(|limit| !LIMIT.contains(&limit)) {
        let detail = format!("must be between {} and {}, inclusive", LIMIT.start(), LIMIT.end());
        errors.invalid("spec.limit", limit, &detail);
    }
}

/// An answer is whole, and stays.
pub fn validate_pool_answer(_: crate::resources::Sub, change: &Change<'_>, errors: &mut Errors) {
    let status = |object: &Value| at(object, &["status"]).clone();
    let (old, new) = (change.old.map(status).unwrap_or_default(), status(change.new));
    if !old.is_null() && old != new {
        errors.invalid("status", &new, "field is immutable");
    }
    if !new.is_null() {
        match int(&new, &["poolCount"]) {
            None => errors.required("status.poolCount", ""),
            count => errors.not_negative("status.poolCount", count),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::Sub;
    use crate::strategy::device_claim::tests::fields;

    #[test]
    fn a_rule_selects_devices_and_has_a_taint() {
        let check = |spec: Value| {
            let mut new = json!({"spec": spec});
            fields(|errors| validate_rule(&Change { old: None, new: &mut new }, errors))
        };
        let taint = json!({"key": "k", "effect": "NoExecute"});
        let selector = json!({"driver": "d.io", "pool": "a/b", "device": "d0"});
        assert_eq!(check(json!({"deviceSelector": selector, "taint": taint})), Vec::<String>::new());
        assert_eq!(check(json!({"taint": {"key": "k", "effect": "Some"}})), ["spec.taint.effect"]);
        for (field, value) in [("driver", "-"), ("pool", "a//b"), ("device", "D")] {
            let found = check(json!({"deviceSelector": {field: value}, "taint": taint}));
            assert_eq!(found, [format!("spec.deviceSelector.{field}")]);
        }
    }

    #[test]
    fn taints_say_when_they_came() {
        let mut rule = json!({"spec": {"taint": {"key": "k"}}});
        date_taints(&mut rule, Timestamp::UNIX_EPOCH);
        assert_eq!(rule["spec"]["taint"]["timeAdded"], "1970-01-01T00:00:00Z");
        date_taints(&mut rule, Timestamp::from_second(1).unwrap());
        assert_eq!(rule["spec"]["taint"]["timeAdded"], "1970-01-01T00:00:00Z");
        let mut slice = json!({"spec": {"devices": [{"name": "a"}, {"taints": [{"key": "k"}]}]}});
        date_taints(&mut slice, Timestamp::UNIX_EPOCH);
        let want = json!([{"name": "a"}, {"taints": [{"key": "k", "timeAdded": "1970-01-01T00:00:00Z"}]}]);
        assert_eq!(slice["spec"]["devices"], want);
    }

    #[test]
    fn a_question_about_pools_is_asked_and_answered_once() {
        let asked = |spec: Value| {
            let mut new = json!({"spec": spec});
            fields(|errors| validate_pool_request(&Change { old: None, new: &mut new }, errors))
        };
        assert_eq!(asked(json!({"driver": "d.io", "poolName": "p", "limit": 1000})), Vec::<String>::new());
        assert_eq!(
            asked(json!({"poolName": "", "limit": 0})),
            ["spec.driver", "spec.poolName", "spec.limit"]
        );
        let answered = |old: Value, new: Value| {
            let (old, mut new) = (json!({"status": old}), json!({"status": new}));
            fields(|errors| {
                validate_pool_answer(Sub::Status, &Change { old: Some(&old), new: &mut new }, errors);
            })
        };
        assert_eq!(answered(Value::Null, json!({"poolCount": 0})), Vec::<String>::new());
        assert_eq!(answered(Value::Null, json!({})), ["status.poolCount"]);
        assert_eq!(answered(json!({"poolCount": 1}), json!({"poolCount": 2})), ["status"]);
    }
}
