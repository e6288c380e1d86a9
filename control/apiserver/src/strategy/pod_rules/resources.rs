//! Sizes of containers and of pods, and the devices they claim.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::Around;
use crate::schema::{Quantity, quantity_millis};
use crate::strategy::pod_sizes;
use crate::strategy::resource_names::{self, is_huge_page, may_be_overcommitted};
use crate::tree::{at, fields, list, strings, text};
use crate::validate::{self, Errors};

fn name_of_pod(name: &str, here: &str, errors: &mut Errors) {
    if resource_names::validate_name(name, here, errors) && !is_huge_page(name) {
        errors.must_be(here, name, &["cpu", "hugepages-", "memory"]);
    }
}

fn validate_pages(name: &str, amount: &str, broken_pages: bool, here: &str, errors: &mut Errors) {
    let Some(millis) = quantity_millis(amount).filter(|_| is_huge_page(name)) else { return };
    if !broken_pages && !is_whole_pages(name, millis) {
        let why = format!("{amount} is not positive integer multiple of {name}");
        errors.invalid(here, &Value::from(amount), &why);
    }
}

fn is_whole_pages(name: &str, millis: i128) -> bool {
    let page = name.strip_prefix("hugepages-").and_then(quantity_millis).unwrap_or_default();
    page > 0 && page % 1000 == 0 && (millis / 1000) % (page / 1000) == 0
}

/// Whether a spec asks for parts of huge pages.
pub fn breaks_pages(spec: &Value) -> bool {
    let breaks = |amounts: &Value| {
        strings(amounts, &[]).any(|(name, amount)| {
            is_huge_page(name) && quantity_millis(amount).is_some_and(|millis| !is_whole_pages(name, millis))
        })
    };
    let of_containers = super::GROUPS.iter().flat_map(|group| list(spec, &[group])).any(|container| {
        ["limits", "requests"].iter().any(|kind| breaks(at(container, &["resources", kind])))
    });
    of_containers || breaks(at(spec, &["overhead"]))
}

type NameRule = fn(&str, &str, &mut Errors);

fn validate_requirements(
    sizes: &Value,
    name_rule: NameRule,
    around: &Around<'_>,
    here: &str,
    errors: &mut Errors,
) {
    if !sizes.is_object() {
        return;
    }
    let (limits, requests) = (at(sizes, &["limits"]), at(sizes, &["requests"]));
    for (kind, amounts) in [("limits", limits), ("requests", requests)] {
        for (name, given) in fields(amounts, &[]) {
            let (place, amount) = (format!("{here}.{kind}[{name}]"), given.as_str().unwrap_or_default());
            name_rule(name, &place, errors);
            resource_names::validate_amount(name, given, &place, errors);
            if kind == "requests" {
                validate_request(name, amount, limits, here, errors);
            }
            validate_pages(name, amount, around.broken_pages, &place, errors);
        }
    }
    let has = |wanted: &dyn Fn(&str) -> bool| {
        [limits, requests].iter().any(|amounts| strings(amounts, &[]).any(|(name, _)| wanted(name)))
    };
    if has(&is_huge_page) && !has(&|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(here, "HugePages require cpu or memory");
    }
    validate_claims(list(sizes, &["claims"]), &around.claims, &format!("{here}.claims"), errors);
}

/// A request is at most the limit, and no other where more than there is cannot be promised.
fn validate_request(name: &str, amount: &str, limits: &Value, here: &str, errors: &mut Errors) {
    let (Some(request), limit) = (Quantity::parse(amount), text(limits, &[name])) else { return };
    let Some(limit) = Quantity::parse(limit) else {
        if !may_be_overcommitted(name) {
            errors.required(format!("{here}.limits"), "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let relation = match () {
        () if !may_be_overcommitted(name) && request != limit => "equal to",
        () if request > limit => "less than or equal to",
        () => return,
    };
    let why = format!("must be {relation} {name} limit of {limit}");
    errors.invalid(format!("{here}.requests"), &Value::from(request.to_string()), &why);
}

pub fn validate_of_container(container: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let place = format!("{here}.resources");
    validate_requirements(
        at(container, &["resources"]),
        resource_names::validate_of_container,
        around,
        &place,
        errors,
    );
}

pub fn validate_overhead(spec: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let overhead = at(spec, &["overhead"]);
    if overhead.is_object() {
        let as_limits = serde_json::json!({ "limits": overhead });
        validate_requirements(
            &as_limits,
            resource_names::validate_of_container,
            around,
            &format!("{here}.overhead"),
            errors,
        );
    }
}

/// Names of claims are those of the pod, and no claim or part of it is there twice.
fn validate_claims(claims: &[Value], known: &BTreeSet<&str>, here: &str, errors: &mut Errors) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let (name, request) = (text(claim, &["name"]), text(claim, &["request"]));
        let place = format!("{here}[{index}]");
        if name.is_empty() {
            errors.required(place, "");
            continue;
        }
        if seen.contains(&(name, "")) {
            errors.duplicate(&place, &Value::from(name));
        } else {
            if !request.is_empty() {
                errors.check(format!("{place}.request"), request, validate::label);
            }
            if seen.contains(&(name, request)) {
                errors.duplicate(&place, &Value::from(format!("{name}/{request}")));
            } else if request.is_empty() {
                let parts = seen.iter().filter(|(one, _)| *one == name).count();
                (0..parts).for_each(|_| errors.duplicate(&place, &Value::from(name)));
            }
            seen.insert((name, request));
        }
        if !known.contains(name) {
            let which = match known.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            let why = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.absent(place, &Value::from(name), &why);
        }
    }
}

pub fn validate_claims_of_pod(spec: &Value, here: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (index, claim) in list(spec, &["resourceClaims"]).iter().enumerate() {
        let place = format!("{here}.resourceClaims[{index}]");
        let name = text(claim, &["name"]);
        if !name.is_empty() && !names.insert(name) {
            errors.duplicate(format!("{place}.name"), &Value::from(name));
        } else {
            errors.named(format!("{place}.name"), name, validate::label);
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|field| at(claim, &[field]));
        match sources.iter().filter(|source| !source.is_null()).count() {
            2 => {
                let why =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&place, claim, why);
            }
            0 => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&place, claim, why);
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = at(claim, &[field]).as_str() {
                errors.check(format!("{place}.{field}"), name, validate::subdomain);
            }
        }
    }
}

pub fn validate_resize_policy(container: &Value, restarts: &str, here: &str, errors: &mut Errors) {
    let place = format!("{here}.resizePolicy");
    let mut names = HashSet::new();
    for (index, policy) in list(container, &["resizePolicy"]).iter().enumerate() {
        let name = text(policy, &["resourceName"]);
        if !names.insert(name) {
            errors.duplicate(format!("{place}[{index}]"), &Value::from(name));
        }
        // Upstream names the list.
        errors.chosen(&place, name, &["cpu", "memory"]);
        let kind = text(policy, &["restartPolicy"]);
        errors.chosen(&place, kind, &["NotRequired", "RestartContainer"]);
        if restarts == "Never" && kind != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(&place, &Value::from(kind), why);
        }
    }
}

/// Sizes of the whole pod hold those of its containers.
pub fn validate_of_pod(spec: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let sizes = at(spec, &["resources"]);
    if !sizes.is_object() {
        return;
    }
    let here = format!("{here}.resources");
    if text(spec, &["os", "name"]) == "windows" {
        errors.forbidden(here, "may not be set for a windows pod");
        return;
    }
    if !at(sizes, &["claims"]).is_null() {
        errors.forbidden(format!("{here}.claims"), "claims may not be set for Resources at pod-level");
    }
    validate_requirements(sizes, name_of_pod, around, &here, errors);
    validate_sums(spec, sizes, &here, errors);
}

fn validate_sums(spec: &Value, sizes: &Value, here: &str, errors: &mut Errors) {
    for kind in ["requests", "limits"] {
        for (name, amount) in strings(sizes, &[kind]) {
            let Some(amount) = Quantity::parse(amount) else { continue };
            let checked = kind == "requests" || is_huge_page(name);
            let sum = pod_sizes::sum(spec, kind, name);
            if let Some(sum) = sum.filter(|sum| checked && *sum > amount) {
                let why = format!("must be greater than or equal to aggregate container {kind} of {sum}");
                errors.invalid(format!("{here}.{kind}[{name}]"), &Value::from(amount.to_string()), &why);
            }
        }
    }
    for (index, container) in list(spec, &["containers"]).iter().enumerate() {
        for (name, limit) in strings(container, &["resources", "limits"]) {
            let whole = Quantity::parse(text(sizes, &["limits", name]));
            if let (Some(limit), Some(whole)) = (Quantity::parse(limit), whole)
                && limit > whole
            {
                let place = format!("{here}.containers[{index}][{name}].limits");
                let why = format!("must be less than or equal to pod limits of {whole}");
                errors.invalid(place, &Value::from(limit.to_string()), &why);
            }
        }
    }
}
