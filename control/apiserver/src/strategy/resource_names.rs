//! Names of resources, such as `cpu` or `example.com/gpu`, and how much of them there may be.

use serde_json::Value;

use crate::schema::quantity_millis;
use crate::validate::{self, Errors};

/// What a quota may bound, and what else has a name without a domain.
const QUOTA: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Things, of which there is no half.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const OF_CONTAINERS: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Whether quotas count the resource under this name.
pub fn is_quota(name: &str) -> bool {
    QUOTA.contains(&name) || name.starts_with("requests.hugepages-") || is_huge_page(name)
}

/// Whether it is memory in pages of one size.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether it is one of Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is one that somebody else counts.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && validate::label_key(&format!("requests.{name}")).is_ok()
}

/// Whether more may be promised than there is.
pub fn may_be_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Reports what is no name of a resource. Whether it is one.
pub fn validate_name(name: &str, place: &str, errors: &mut Errors) -> bool {
    let found = errors.len();
    errors.check(place, name, validate::label_key);
    let is_known = || is_quota(name) || name == "storage";
    if found == errors.len() && !name.contains('/') && !is_known() {
        let detail = "must be a standard resource type or fully qualified";
        errors.invalid(place, &Value::from(name), detail);
    }
    found == errors.len()
}

/// A name of which a claim may have more than none.
pub fn validate_any(name: &str, place: &str, errors: &mut Errors) {
    validate_name(name, place, errors);
}

/// A name a container may ask for.
pub fn validate_of_container(name: &str, place: &str, errors: &mut Errors) {
    validate_name(name, place, errors);
    if !name.contains('/') && !OF_CONTAINERS.contains(&name) && !is_huge_page(name) {
        errors.invalid(place, &Value::from(name), "must be a standard resource for containers");
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(place, &Value::from(name), "doesn't follow extended resource name standard");
    }
}

/// A name a quota may bound.
pub fn validate_of_quota(name: &str, place: &str, errors: &mut Errors) {
    validate_name(name, place, errors);
    if !name.contains('/') && !is_quota(name) {
        errors.invalid(place, &Value::from(name), "must be a standard resource for quota");
    }
}

/// How much there is: not less than nothing, and whole where it is counted.
pub fn validate_amount(name: &str, amount: &Value, place: &str, errors: &mut Errors) {
    let Some(millis) = amount.as_str().and_then(quantity_millis) else { return };
    if millis < 0 {
        errors.invalid(place, amount, "must be greater than or equal to 0");
    }
    if millis % 1000 != 0 && (COUNTED.contains(&name) || is_extended(name)) {
        errors.invalid(place, amount, "must be an integer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl Fn(&mut Errors)) -> String {
        let mut errors = Errors::default();
        check(&mut errors);
        let whys = errors.into_causes().into_iter();
        whys.map(|cause| cause.message.rsplit(": ").next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn names_are_known_or_have_a_domain() {
        let (standard, quota) =
            ("must be a standard resource type or fully qualified", "must be a standard resource for quota");
        let (container, extended) =
            ("must be a standard resource for containers", "doesn't follow extended resource name standard");
        for (name, of_quota, of_container) in [
            ("cpu", "", ""),
            ("hugepages-2Mi", "", ""),
            ("x.io/gpu", "", ""),
            ("pods", "", container),
            ("requests.cpu", "", container),
            ("count/deployments.apps", "", ""),
            ("requests.x.io/gpu", "", extended),
            ("storage", quota, container),
            ("gpu", &format!("{standard}; {quota}"), &format!("{standard}; {container}")),
        ] {
            assert_eq!(told(|errors| validate_of_quota(name, "", errors)), of_quota, "{name}");
            assert_eq!(told(|errors| validate_of_container(name, "", errors)), of_container, "{name}");
        }
        assert!(told(|errors| validate_of_quota("a b", "", errors)).starts_with("name part must consist"));
    }

    #[test]
    fn amounts_are_not_negative_and_things_are_whole() {
        let amount =
            |name: &str, amount: &str| told(|errors| validate_amount(name, &Value::from(amount), "", errors));
        for (name, given, want) in [
            ("cpu", "500m", ""),
            ("pods", "2k", ""),
            ("cpu", "-1", "must be greater than or equal to 0"),
            ("pods", "500m", "must be an integer"),
            ("x.io/gpu", "1500m", "must be an integer"),
            ("kubernetes.io/a", "1500m", ""),
        ] {
            assert_eq!(amount(name, given), want, "{name} {given}");
        }
    }
}
