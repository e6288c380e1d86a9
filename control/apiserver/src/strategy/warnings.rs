//! What is taken, and not meant: sentences with which whoever writes is warned.

use std::net::IpAddr;

use serde_json::Value;

use super::Change;
use super::addresses::{Network, lenient};
use super::network_policy::blocks;
use crate::tree::{at, list, text};

const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";

/// Of a new Ingress only.
pub fn of_ingress(change: &Change<'_>) -> Vec<String> {
    let annotation = at(change.new, &["metadata", "annotations", INGRESS_CLASS]);
    if change.old.is_some()
        || annotation.is_null()
        || !at(change.new, &["spec", "ingressClassName"]).is_null()
    {
        return Vec::new();
    }
    vec![format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")]
}

pub fn of_network_policy(change: &Change<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (place, block) in blocks(change.new) {
        warnings.extend(of_range(&format!("{place}.cidr"), text(block, &["cidr"])));
        for (index, part) in list(block, &["except"]).iter().enumerate() {
            warnings.extend(of_range(&format!("{place}.except[{index}]"), part.as_str().unwrap_or_default()));
        }
    }
    warnings
}

pub fn of_service(change: &Change<'_>) -> Vec<String> {
    let (service, spec) = (&*change.new, at(change.new, &["spec"]));
    let mut warnings = Vec::new();
    if !at(service, &["metadata", "annotations", HINTS]).is_null() {
        warnings.push(format!("annotation {HINTS} is deprecated, please use {MODE} instead"));
    }
    let kind = text(spec, &["type"]);
    let headless = kind == "ClusterIP" && text(spec, &["clusterIP"]) == "None";
    if !matches!(text(spec, &["clusterIP"]), "" | "None") {
        warnings.extend(of_addresses(spec, "clusterIPs"));
    }
    let outer = !list(spec, &["externalIPs"]).is_empty();
    let balancer = text(spec, &["loadBalancerIP"]);
    let ignored = [
        (!balancer.is_empty(), "spec.loadBalancerIP"),
        (outer, "spec.externalIPs"),
        (text(spec, &["sessionAffinity"]) != "None", "spec.SessionAffinity"),
    ];
    for (_, field) in ignored.iter().filter(|(given, _)| headless && *given) {
        warnings.push(format!("{field} is ignored for headless services"));
    }
    warnings.extend(of_addresses(spec, "externalIPs"));
    if outer && !headless && kind != "ExternalName" {
        let sentence = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(sentence.to_owned());
    }
    warnings.extend(of_address("spec.loadBalancerIP", balancer));
    for (index, range) in list(spec, &["loadBalancerSourceRanges"]).iter().enumerate() {
        let place = format!("spec.loadBalancerSourceRanges[{index}]");
        warnings.extend(of_range(&place, range.as_str().unwrap_or_default()));
    }
    warnings.extend(of_external_name(spec));
    if text(spec, &["trafficDistribution"]) == "PreferClose" {
        let sentence = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(sentence.to_owned());
    }
    warnings
}

fn of_external_name(spec: &Value) -> Option<String> {
    let external = text(spec, &["type"]) == "ExternalName";
    if external && !list(spec, &["externalIPs"]).is_empty() {
        return Some("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    let named = !external && !text(spec, &["externalName"]).is_empty();
    named.then(|| "spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned())
}

fn of_addresses(spec: &Value, field: &str) -> Vec<String> {
    let all = list(spec, &[field]).iter().enumerate();
    all.filter_map(|(index, one)| of_address(&format!("spec.{field}[{index}]"), one.as_str()?)).collect()
}

/// An address in another form than the one it is written in.
fn of_address(place: &str, given: &str) -> Option<String> {
    let address = lenient(given)?;
    let standard = given.parse::<IpAddr>().ok().filter(|address| plain(*address) == *address);
    let best = plain(address).to_string();
    match standard {
        None => Some(format!(
            "{place}: non-standard IP address {given:?} will be considered invalid in a future Kubernetes release: use {best:?}"
        )),
        Some(IpAddr::V6(_)) if best != given => {
            Some(format!("{place}: IPv6 address {given:?} should be in RFC 5952 canonical format ({best:?})"))
        }
        Some(_) => None,
    }
}

/// The address itself where one of IPv4 is written as one of IPv6.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A range in another form than the one it is written in, or one that says more than a range. What is no range is refused.
fn of_range(place: &str, given: &str) -> Vec<String> {
    let Some(network) = Network::lenient(given) else { return Vec::new() };
    let (whole, mut warnings) = (network.masked(), Vec::new());
    if whole != network {
        let one = Network { length: if network.address.is_ipv4() { 32 } else { 128 }, ..network };
        warnings.push(format!(
            "{place}: CIDR value {given:?} is ambiguous in this context (should be \"{whole}\" or \"{one}\"?)"
        ));
    }
    let (address, length) = given.split_once('/').unwrap_or((given, ""));
    let zeros = length.len() > 1 && length.starts_with('0');
    if zeros || address.parse::<IpAddr>().ok().is_none_or(|address| plain(address) != address) {
        warnings.push(format!(
            "{place}: non-standard CIDR value {given:?} will be considered invalid in a future Kubernetes release: use \"{whole}\""
        ));
    }
    if warnings.is_empty() && network.address.is_ipv6() && network.to_string() != given {
        warnings.push(format!(
            "{place}: IPv6 CIDR value {given:?} should be in RFC 5952 canonical format (\"{network}\")"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn warned(of: fn(&Change<'_>) -> Vec<String>, mut new: Value) -> Vec<String> {
        of(&Change { old: None, new: &mut new })
    }

    #[test]
    fn addresses_in_other_forms_are_warned_of() {
        for (given, want) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            (
                "10.0.0.01",
                Some(
                    "a: non-standard IP address \"10.0.0.01\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
                ),
            ),
            (
                "::ffff:10.0.0.1",
                Some(
                    "a: non-standard IP address \"::ffff:10.0.0.1\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
                ),
            ),
            (
                "FD00::1",
                Some("a: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")"),
            ),
        ] {
            assert_eq!(of_address("a", given).as_deref(), want);
        }
    }

    #[test]
    fn ranges_in_other_forms_are_warned_of() {
        for (given, want) in [
            ("10.0.0.0/8", vec![]),
            ("fd00::/8", vec![]),
            (
                "10.0.0.1/8",
                vec![
                    "a: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                ],
            ),
            (
                "10.0.0.0/08",
                vec![
                    "a: non-standard CIDR value \"10.0.0.0/08\" will be considered invalid in a future Kubernetes release: use \"10.0.0.0/8\"",
                ],
            ),
            (
                "FD00::/8",
                vec!["a: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format (\"fd00::/8\")"],
            ),
        ] {
            assert_eq!(of_range("a", given), want);
        }
    }

    #[test]
    fn what_a_service_says_for_nothing_is_warned_of() {
        let of = |spec: Value| {
            let mut whole =
                json!({ "metadata": {}, "spec": { "type": "ClusterIP", "sessionAffinity": "None" } });
            json_patch::merge(&mut whole["spec"], &spec);
            warned(of_service, whole)
        };
        assert_eq!(of(json!({ "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"] })), [""; 0]);
        for (spec, want) in [
            (
                json!({ "clusterIP": "None", "loadBalancerIP": "192.0.2.1", "externalIPs": ["192.0.2.1"], "sessionAffinity": "ClientIP" }),
                vec![
                    "spec.loadBalancerIP is ignored for headless services",
                    "spec.externalIPs is ignored for headless services",
                    "spec.SessionAffinity is ignored for headless services",
                ],
            ),
            (
                json!({ "externalIPs": ["192.0.2.1"] }),
                vec!["spec.externalIPs is deprecated and may no longer be implemented in some clusters"],
            ),
            (
                json!({ "externalName": "a" }),
                vec!["spec.externalName is ignored when spec.type is not \"ExternalName\""],
            ),
            (
                json!({ "type": "ExternalName", "externalName": "a", "externalIPs": ["192.0.2.1"] }),
                vec!["spec.externalIPs is ignored when spec.type is \"ExternalName\""],
            ),
            (
                json!({ "trafficDistribution": "PreferClose" }),
                vec!["spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""],
            ),
        ] {
            assert_eq!(of(spec), want);
        }
    }

    #[test]
    fn policies_and_ingresses_are_warned_of_what_is_old() {
        let peer = json!({ "ipBlock": { "cidr": "FD00::/8", "except": ["FD00:1::/32"] } });
        let found = warned(of_network_policy, json!({ "spec": { "egress": [{ "to": [peer] }] } }));
        assert_eq!(found.len(), 2);
        assert!(found[1].starts_with("spec.egress[0].to[0].ipBlock.except[0]: IPv6 CIDR value"), "{found:?}");
        let ingress =
            |spec: Value| json!({ "metadata": { "annotations": { INGRESS_CLASS: "a" } }, "spec": spec });
        let want = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
        assert_eq!(warned(of_ingress, ingress(json!({}))), [want]);
        assert_eq!(warned(of_ingress, ingress(json!({ "ingressClassName": "a" }))), [""; 0]);
    }
}
