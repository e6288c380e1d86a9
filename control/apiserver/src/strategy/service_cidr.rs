//! ServiceCIDRs and the IPAddresses that are taken from them.

use serde_json::{Value, json};

use super::Change;
use super::addresses::{Network, canonical_range};
use crate::tree::{at, list, text};
use crate::validate::{self, Errors};

/// To whom an address belongs never changes.
pub fn validate_ip_address(change: &Change<'_>, errors: &mut Errors) {
    let parent = at(change.new, &["spec", "parentRef"]);
    if let Some(old) = change.old {
        errors.immutable("spec.parentRef", at(old, &["spec", "parentRef"]), parent);
        return;
    }
    if !parent.is_object() {
        errors.required("spec.parentRef", "");
        return;
    }
    match text(parent, &["group"]) {
        "" => {}
        group => errors.check("spec.parentRef.group", group, validate::subdomain),
    }
    for field in ["resource", "name"] {
        errors.named(format!("spec.parentRef.{field}"), text(parent, &[field]), validate::path_segment);
    }
    errors.check("spec.parentRef.namespace", text(parent, &["namespace"]), validate::path_segment);
}

/// A range of a second family may be added to one that is there; nothing else may change.
pub fn validate_service_cidr(change: &Change<'_>, errors: &mut Errors) {
    let cidrs = list(change.new, &["spec", "cidrs"]);
    let Some(old) = change.old else {
        return validate_ranges(at(change.new, &["spec"]), cidrs, errors);
    };
    let before = list(old, &["spec", "cidrs"]);
    let grows = before.len() == 1 && cidrs.len() == 2;
    if before.len() != cidrs.len() && !grows {
        errors.invalid("spec.cidrs", at(change.new, &["spec", "cidrs"]), "field is immutable");
        return;
    }
    for (index, (before, after)) in before.iter().zip(cidrs).enumerate() {
        errors.immutable(&format!("spec.cidrs[{index}]"), before, after);
    }
    if grows {
        validate_ranges(at(change.new, &["spec"]), cidrs, errors);
    }
}

fn validate_ranges(spec: &Value, cidrs: &[Value], errors: &mut Errors) {
    match cidrs.len() {
        0 => return errors.required("spec.cidrs", "at least one CIDR required"),
        1 | 2 => {}
        _ => return errors.invalid("spec.cidrs", &json!({ "CIDRs": cidrs }), "may only hold up to 2 values"),
    }
    for (index, cidr) in cidrs.iter().enumerate() {
        errors.check(format!("spec.cidrs[{index}]"), cidr.as_str().unwrap_or_default(), canonical_range);
    }
    let family = |cidr: &Value| Network::lenient(cidr.as_str()?).map(|network| network.address.is_ipv4());
    if let [first, second] = cidrs
        && family(first).is_some_and(|first| family(second) == Some(first))
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid("spec.cidrs", at(spec, &["cidrs"]), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(old: Option<Value>, new: Value, validate: fn(&Change<'_>, &mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        let (old, mut new) = (old, new);
        validate(&Change { old: old.as_ref(), new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{} {}", cause.field, cause.message)).collect()
    }

    fn cidrs(all: &[&str]) -> Value {
        json!({ "spec": { "cidrs": all } })
    }

    #[test]
    fn a_service_cidr_has_one_range_of_each_family() {
        for good in [&["10.0.0.0/24"][..], &["fd00::/108"], &["fd00::/64", "10.0.0.0/24"]] {
            assert_eq!(faults(None, cidrs(good), validate_service_cidr), [""; 0], "{good:?}");
        }
        for (bad, field) in [
            (&[][..], "spec.cidrs "),
            (&["10.0.0.0"], "spec.cidrs[0] "),
            (&["10.0.0.1/24"], "spec.cidrs[0] "),
            (&["FD00::/108"], "spec.cidrs[0] "),
            (&["10.0.0.0/24", "10.1.0.0/24"], "spec.cidrs "),
            (&["10.0.0.0/24", "fd00::/64", "fd01::/64"], "spec.cidrs "),
        ] {
            let found = faults(None, cidrs(bad), validate_service_cidr);
            assert!(found.len() == 1 && found[0].starts_with(field), "{bad:?}: {found:?}");
        }
    }

    #[test]
    fn a_service_cidr_may_only_grow() {
        let change =
            |old: &[&str], new: &[&str]| faults(Some(cidrs(old)), cidrs(new), validate_service_cidr).len();
        assert_eq!(change(&["10.0.0.0/24"], &["10.0.0.0/24"]), 0);
        assert_eq!(change(&["10.0.0.0/24"], &["10.0.0.0/24", "fd00::/64"]), 0);
        assert!(change(&["10.0.0.0/24"], &["10.1.0.0/24"]) > 0);
        assert!(change(&["10.0.0.0/24"], &["fd00::/64", "10.0.0.0/24"]) > 0);
        assert!(change(&["10.0.0.0/24", "fd00::/64"], &["10.0.0.0/24"]) > 0);
    }

    #[test]
    fn an_address_belongs_to_somebody() {
        let of = |parent: Value| json!({ "spec": { "parentRef": parent } });
        let service = json!({ "resource": "services", "namespace": "a", "name": "b" });
        assert_eq!(faults(None, of(service.clone()), validate_ip_address), [""; 0]);
        assert_eq!(faults(None, json!({ "spec": {} }), validate_ip_address).len(), 1);
        assert_eq!(faults(None, of(json!({ "namespace": "a" })), validate_ip_address).len(), 2);
        let odd = json!({ "group": "A", "resource": "a/b", "namespace": "..", "name": "b" });
        assert_eq!(faults(None, of(odd), validate_ip_address).len(), 3);
        let other = json!({ "resource": "services", "namespace": "a", "name": "c" });
        assert_eq!(faults(Some(of(service)), of(other), validate_ip_address).len(), 1);
    }
}
