//! ServiceCIDRs and the IPAddresses that are taken from them.

use std::net::IpAddr;

use serde_json::Value;

use super::Change;
use crate::tree::{at, list, text};
use crate::validate::Errors;

/// The name of an IPAddress is the address, in the one way it is written.
pub fn address_name(name: &str) -> Result<(), String> {
    let address: IpAddr = name
        .parse()
        .map_err(|_wrong| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())?;
    let canonical = address.to_string();
    if canonical == name { Ok(()) } else { Err(format!("must be in canonical form ({canonical:?})")) }
}

pub fn validate_ip_address(change: &Change<'_>, errors: &mut Errors) {
    let parent = at(change.new, &["spec", "parentRef"]);
    if !parent.is_object() {
        errors.required("spec.parentRef", "");
    }
    for field in ["resource", "name"] {
        if parent.is_object() && text(parent, &[field]).is_empty() {
            errors.required(format!("spec.parentRef.{field}"), "");
        }
    }
    if let Some(old) = change.old {
        errors.immutable("spec.parentRef", at(old, &["spec", "parentRef"]), parent);
    }
}

pub fn validate_service_cidr(change: &Change<'_>, errors: &mut Errors) {
    let cidrs = list(change.new, &["spec", "cidrs"]);
    if let Some(old) = change.old {
        validate_growth(list(old, &["spec", "cidrs"]), cidrs, errors);
    }
    match cidrs.len() {
        0 => errors.required("spec.cidrs", "at least one CIDR required"),
        1 | 2 => {}
        count => errors.too_many("spec.cidrs", count as u64, 2),
    }
    let mut families = Vec::new();
    for (index, cidr) in cidrs.iter().enumerate() {
        match range(cidr.as_str().unwrap_or_default()) {
            Ok(is_v4) => families.push(is_v4),
            Err(why) => errors.invalid(format!("spec.cidrs[{index}]"), cidr, &why),
        }
    }
    if let [first, second] = families[..]
        && first == second
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid("spec.cidrs", &Value::from(cidrs.to_vec()), why);
    }
}

/// A range of a second family may be added to one that is there; nothing else may change.
fn validate_growth(old: &[Value], new: &[Value], errors: &mut Errors) {
    let grows = old.len() == 1 && new.len() == 2;
    for (index, before) in old.iter().enumerate() {
        let after = new.get(index).unwrap_or(&Value::Null);
        errors.immutable(&format!("spec.cidrs[{index}]"), before, after);
    }
    if new.len() != old.len() && !grows {
        errors.immutable("spec.cidrs", &Value::from(old.to_vec()), &Value::from(new.to_vec()));
    }
}

/// Whether a range is one of IPv4; an error says what is wrong with it.
fn range(cidr: &str) -> Result<bool, String> {
    let wrong = || "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned();
    let range: crate::allocate::Range = cidr.parse().map_err(|_syntax| wrong())?;
    let canonical = format!("{}/{}", range.address(0), range.length);
    if canonical == cidr {
        Ok(range.base.is_ipv4())
    } else {
        Err(format!("must be in canonical form ({canonical:?})"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn an_address_is_its_name_and_belongs_to_somebody() {
        assert_eq!(address_name("10.0.0.1"), Ok(()));
        assert_eq!(address_name("fd00::a"), Ok(()));
        for wrong in ["", "a", "10.0.0.01", "FD00::a", "fd00:0::a"] {
            assert!(address_name(wrong).is_err(), "{wrong}");
        }
        let of = |parent: Value| json!({ "spec": { "parentRef": parent } });
        let service = json!({ "resource": "services", "namespace": "a", "name": "b" });
        assert_eq!(faults(None, of(service.clone()), validate_ip_address), [""; 0]);
        assert_eq!(faults(None, json!({ "spec": {} }), validate_ip_address).len(), 1);
        assert_eq!(faults(None, of(json!({ "namespace": "a" })), validate_ip_address).len(), 2);
        let other = json!({ "resource": "services", "namespace": "a", "name": "c" });
        assert_eq!(faults(Some(of(service)), of(other), validate_ip_address).len(), 1);
    }
}
