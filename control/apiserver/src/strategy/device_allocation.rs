//! What was allocated to a claim of devices, and who uses it.

use std::collections::HashSet;

use serde_json::Value;

use super::Change;
use super::device_claim::{
    MAX_REQUESTS, REFERENCE, bounded, request_names, validate_config, validate_driver, validate_pool_name,
    validate_references,
};
use crate::resources::Sub;
use crate::tree::{at, list, text};
use crate::validate::{self, Errors};

const MAX_CONSUMERS: usize = 256;

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
    use crate::strategy::device_claim::tests::{claim, fields};

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
