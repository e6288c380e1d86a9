//! Addresses of Services and the families they are of: which go together, and how they may change.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Change;
use super::addresses;
use super::service_rules::is_headless;
use crate::tree::{at, list, strings, text};
use crate::validate::Errors;

const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

fn is_external(service: &Value) -> bool {
    text(service, &["spec", "type"]) == "ExternalName"
}

pub fn validate_families(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if is_external(change.new) {
        return;
    }
    validate_first(spec, errors);
    let mut seen = HashSet::new();
    for (index, family) in list(spec, &["ipFamilies"]).iter().enumerate() {
        let (place, family) = (format!("spec.ipFamilies[{index}]"), family.as_str().unwrap_or_default());
        errors.must_be(place.clone(), family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            errors.duplicate(place, &Value::from(family));
        }
    }
    if let Some(policy) = at(spec, &["ipFamilyPolicy"]).as_str() {
        errors.must_be("spec.ipFamilyPolicy", policy, POLICIES);
    }
    validate_addresses(change, errors);
    validate_policy(change, errors);
}

/// The one address is the first of all.
fn validate_first(spec: &Value, errors: &mut Errors) {
    let (one, all) = (text(spec, &["clusterIP"]), list(spec, &["clusterIPs"]));
    let why = match (one, all) {
        ("", []) => return,
        ("", _) => "must be empty when `clusterIP` is not specified",
        (_, []) => return errors.required("spec.clusterIPs", ""),
        (one, [first, ..]) if first != one => "first value must match `clusterIP`",
        _ => return,
    };
    errors.invalid("spec.clusterIPs", at(spec, &["clusterIPs"]), why);
}

fn validate_addresses(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let (shown, all) = (at(spec, &["clusterIPs"]), list(spec, &["clusterIPs"]));
    let kept = change.old.map_or(&[][..], |old| list(old, &["spec", "clusterIPs"]));
    let mut invalid = false;
    for (index, address) in all.iter().enumerate() {
        if index == 0 && address == "None" {
            if all.len() > 1 {
                invalid = true;
                errors.invalid("spec.clusterIPs", shown, "'None' must be the first and only value");
            }
            continue;
        }
        let given = address.as_str().unwrap_or_default();
        let wrong = if kept.contains(address) { Ok(()) } else { addresses::address(given) };
        if let Err(why) = wrong {
            invalid = true;
            errors.invalid(format!("spec.clusterIPs[{index}]"), address, &why);
        }
    }
    if all.len() > 2 {
        errors.invalid("spec.clusterIPs", shown, "may only hold up to 2 values");
    }
    if !invalid && !is_headless(spec) {
        validate_order(spec, errors);
    }
}

/// Addresses are of different families, in the order in which those are named.
fn validate_order(spec: &Value, errors: &mut Errors) {
    let all = list(spec, &["clusterIPs"]);
    let is_v4 = |address: &Value| addresses::lenient(address.as_str()?).map(|address| address.is_ipv4());
    let families: HashSet<_> = all.iter().filter_map(is_v4).collect();
    if all.len() > 1 && families.len() < 2 {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid("spec.clusterIPs", at(spec, &["clusterIPs"]), detail);
    }
    for (index, (address, family)) in all.iter().zip(list(spec, &["ipFamilies"])).enumerate() {
        let wanted = match family.as_str() {
            Some("IPv4") => true,
            Some("IPv6") => false,
            _ => continue,
        };
        if is_v4(address).is_some_and(|is_v4| is_v4 != wanted) {
            let family = if wanted { "IPv4" } else { "IPv6" };
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(format!("spec.clusterIPs[{index}]"), address, &detail);
        }
    }
}

/// One stack has one address of one family; and only who asks for one stack gives the second back.
fn validate_policy(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let policy = policy(spec);
    let old = change.old.filter(|old| !is_external(old)).map(|old| at(old, &["spec"]));
    for (field, several, one) in
        [("clusterIPs", "cluster IPs", "cluster IP"), ("ipFamilies", "IP families", "IP family")]
    {
        let (now, before) = (list(spec, &[field]), old.map_or(&[][..], |old| list(old, &[field])));
        let why = match (now, before) {
            // Of unchanged values the first is kept.
            ([_, _], _) if policy == "SingleStack" && now != before => {
                format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {several} are specified"
                )
            }
            ([first], [same, _]) if policy != "SingleStack" && first == same => {
                format!("must be 'SingleStack' to release the secondary {one}")
            }
            _ => continue,
        };
        errors.invalid("spec.ipFamilyPolicy", &Value::from(policy), &why);
    }
}

/// The policy, as it will be where none is given.
fn policy(spec: &Value) -> &str {
    let selects = strings(spec, &["selector"]).next().is_some();
    match at(spec, &["ipFamilyPolicy"]).as_str() {
        Some(policy) => policy,
        None if text(spec, &["clusterIP"]) == "None" && !selects => "RequireDualStack",
        None => "SingleStack",
    }
}

/// The first address and the first family stay for as long as there are any.
pub fn validate_changed(old: &Value, new: &Value, errors: &mut Errors) {
    if is_external(old) || is_external(new) {
        return;
    }
    let (old, new) = (at(old, &["spec"]), at(new, &["spec"]));
    let (was_headless, headless) = (is_headless(old), is_headless(new));
    if !(was_headless && headless) {
        validate_kept(list(old, &["clusterIPs"]), at(new, &["clusterIPs"]), errors);
    }
    let (before, after) = (list(old, &["ipFamilies"]), list(new, &["ipFamilies"]));
    if !was_headless && !headless && !before.is_empty() && !after.is_empty() {
        let moved = if before.len() == after.len() { before != after } else { before[0] != after[0] };
        if moved {
            errors.invalid("spec.ipFamilies[0]", at(new, &["ipFamilies"]), "may not change once set");
        }
    }
}

fn validate_kept(before: &[Value], after: &Value, errors: &mut Errors) {
    let now = after.as_array().map_or(&[][..], Vec::as_slice);
    if now.is_empty() && !before.is_empty() {
        errors.invalid("spec.clusterIPs[0]", &json!(now), "primary clusterIP can not be unset");
    }
    // Where one is added or given back the first stays.
    let compared = if before.len() == now.len() { before.len() } else { 1 };
    let pairs = before.iter().zip(now).take(compared).enumerate();
    for (index, _) in pairs.filter(|(_, (before, now))| before != now) {
        errors.invalid(format!("spec.clusterIPs[{index}]"), after, "may not change once set");
    }
}
