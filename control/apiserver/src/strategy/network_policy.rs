//! NetworkPolicies.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Change;
use super::addresses::{Network, range};
use super::workload::validate_label_selector;
use crate::tree::{at, int, list, list_mut, set, set_default, text};
use crate::validate::Errors;

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

pub fn default_network_policy(policy: &mut Value) {
    for (rules, _) in DIRECTIONS {
        for rule in list_mut(policy, &["spec", rules]) {
            for port in list_mut(rule, &["ports"]) {
                // An empty text is no protocol, and refused.
                if at(port, &["protocol"]).is_null() {
                    set_default(port, &["protocol"], "TCP");
                }
            }
        }
    }
    if list(policy, &["spec", "policyTypes"]).is_empty() {
        let egress = (!list(policy, &["spec", "egress"]).is_empty()).then_some("Egress");
        let types: Vec<&str> = std::iter::once("Ingress").chain(egress).collect();
        set(policy, &["spec", "policyTypes"], json!(types));
    }
}

pub fn validate_network_policy(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let kept = change.old.map(ranges).unwrap_or_default();
    validate_label_selector(at(spec, &["podSelector"]), "spec.podSelector", errors);
    for (rules, peers) in DIRECTIONS {
        for (index, rule) in list(spec, &[rules]).iter().enumerate() {
            let here = format!("spec.{rules}[{index}]");
            for (index, port) in list(rule, &["ports"]).iter().enumerate() {
                validate_port(port, &format!("{here}.ports[{index}]"), errors);
            }
            for (index, peer) in list(rule, &[peers]).iter().enumerate() {
                validate_peer(peer, &kept, &format!("{here}.{peers}[{index}]"), errors);
            }
        }
    }
    let types = list(spec, &["policyTypes"]);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.invalid("spec.policyTypes", at(spec, &["policyTypes"]), detail);
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        let place = format!("spec.policyTypes[{index}]");
        errors.must_be(place, kind.as_str().unwrap_or_default(), &["Ingress", "Egress"]);
    }
}

/// The blocks of addresses of a policy, and where they are.
pub fn blocks(policy: &Value) -> Vec<(String, &Value)> {
    let mut blocks = Vec::new();
    for (rules, peers) in DIRECTIONS {
        for (index, rule) in list(policy, &["spec", rules]).iter().enumerate() {
            for (position, peer) in list(rule, &[peers]).iter().enumerate() {
                let place = || format!("spec.{rules}[{index}].{peers}[{position}].ipBlock");
                blocks.extend(peer.get("ipBlock").map(|block| (place(), block)));
            }
        }
    }
    blocks
}

/// All ranges of a policy: which rule and peer one belongs to is not to be told of a policy that changes.
fn ranges(policy: &Value) -> HashSet<&str> {
    let parts = |block| std::iter::once(at(block, &["cidr"])).chain(list(block, &["except"]));
    blocks(policy).into_iter().flat_map(|(_, block)| parts(block)).filter_map(Value::as_str).collect()
}

fn validate_port(port: &Value, here: &str, errors: &mut Errors) {
    if let Some(protocol) = at(port, &["protocol"]).as_str() {
        errors.must_be(format!("{here}.protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (place, end) = (format!("{here}.endPort"), int(port, &["endPort"]));
    let refused = match at(port, &["port"]) {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            errors.port(format!("{here}.port"), number);
            if let Some(end) = end {
                if end < number {
                    errors.invalid(&place, &json!(end), "must be greater than or equal to `port`");
                }
                errors.port(&place, end);
            }
            return;
        }
        Value::String(_) => "may not be specified when `port` is non-numeric",
        _ => "may not be specified when `port` is not specified",
    };
    if let Some(end) = end {
        errors.invalid(place, &json!(end), refused);
    }
    if let Value::String(name) = at(port, &["port"]) {
        errors.port_name(&format!("{here}.port"), name);
    }
}

fn validate_peer(peer: &Value, kept: &HashSet<&str>, here: &str, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|field| (field, at(peer, &[field])));
    for (field, selector) in selectors {
        validate_label_selector(selector, &format!("{here}.{field}"), errors);
    }
    let block = at(peer, &["ipBlock"]);
    if !block.is_null() {
        validate_block(block, kept, &format!("{here}.ipBlock"), errors);
    }
    match (block.is_null(), selectors.iter().all(|(_, selector)| selector.is_null())) {
        (true, true) => errors.required(here, "must specify a peer"),
        (false, false) => errors.forbidden(here, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn validate_block(block: &Value, kept: &HashSet<&str>, here: &str, errors: &mut Errors) {
    let mut check = |place: String, given: &str| {
        if !kept.contains(given) {
            errors.check(place, given, range);
        }
        Network::lenient(given)
    };
    let whole = match text(block, &["cidr"]) {
        "" => return errors.required(format!("{here}.cidr"), ""),
        cidr => check(format!("{here}.cidr"), cidr),
    };
    let Some(whole) = whole else { return };
    let mut outside = Vec::new();
    for (index, part) in list(block, &["except"]).iter().enumerate() {
        let place = format!("{here}.except[{index}]");
        let network = check(place.clone(), part.as_str().unwrap_or_default());
        if network.is_some_and(|network| !whole.strictly_contains(network)) {
            outside.push((place, part));
        }
    }
    for (place, part) in outside {
        errors.invalid(place, part, "must be a strict subset of `cidr`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(old: Option<&Value>, spec: &Value) -> Vec<String> {
        let mut new = json!({ "spec": spec });
        default_network_policy(&mut new);
        let mut errors = Errors::default();
        validate_network_policy(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_policy_is_for_ingress_and_for_egress_where_it_has_rules() {
        for (spec, want) in [
            (json!({}), json!(["Ingress"])),
            (json!({ "policyTypes": [] }), json!(["Ingress"])),
            (json!({ "egress": [{}] }), json!(["Ingress", "Egress"])),
            (json!({ "egress": [{}], "policyTypes": ["Egress"] }), json!(["Egress"])),
        ] {
            let mut policy = json!({ "spec": spec });
            default_network_policy(&mut policy);
            assert_eq!(policy["spec"]["policyTypes"], want);
        }
        let kinds = "supported values: \"Ingress\", \"Egress\"";
        let want = format!("spec.policyTypes[0]: Unsupported value: \"Both\": {kinds}");
        assert_eq!(refused(None, &json!({ "policyTypes": ["Both"] })), [want]);
        let three = json!({ "policyTypes": ["Ingress", "Egress", "Ingress"] });
        let want = "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes";
        assert_eq!(refused(None, &three), [want]);
    }

    #[test]
    fn ports_are_numbers_up_to_an_end_or_names() {
        for (port, want) in [
            (json!({}), ""),
            (json!({ "port": 80 }), ""),
            (json!({ "port": 80, "endPort": 80 }), ""),
            (json!({ "port": "http", "protocol": "SCTP" }), ""),
            (json!({ "port": 0 }), "port: Invalid value: 0: must be between 1 and 65535, inclusive"),
            (
                json!({ "port": 80, "endPort": 79 }),
                "endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (
                json!({ "port": 80, "endPort": 65_536 }),
                "endPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
            ),
            (
                json!({ "port": "http", "endPort": 80 }),
                "endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
            ),
            (
                json!({ "endPort": 80 }),
                "endPort: Invalid value: 80: may not be specified when `port` is not specified",
            ),
            (json!({ "port": "1" }), "port: Invalid value: \"1\": must contain at least one letter (a-z)"),
            (
                json!({ "protocol": "tcp" }),
                "protocol: Unsupported value: \"tcp\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            ),
            (
                json!({ "protocol": "" }),
                "protocol: Unsupported value: \"\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            ),
        ] {
            let want: Vec<String> = [want]
                .iter()
                .filter(|want| !want.is_empty())
                .map(|want| format!("spec.egress[0].ports[0].{want}"))
                .collect();
            assert_eq!(refused(None, &json!({ "egress": [{ "ports": [port] }] })), want);
        }
    }

    fn from(peer: Value) -> Value {
        json!({ "ingress": [{ "from": [peer] }] })
    }

    #[test]
    fn peers_are_pods_or_ranges() {
        let block = |cidr: &str, except: &[&str]| json!({ "ipBlock": { "cidr": cidr, "except": except } });
        for (peer, want) in [
            (json!({ "podSelector": {} }), ""),
            (json!({ "podSelector": {}, "namespaceSelector": {} }), ""),
            (block("10.0.0.0/8", &["10.1.0.0/16"]), ""),
            (block("FD00::/8", &[]), ""),
            (json!({}), ": Required value: must specify a peer"),
            (
                json!({ "ipBlock": { "cidr": "::/0" }, "podSelector": {} }),
                ": Forbidden: may not specify both ipBlock and another peer",
            ),
            (block("", &[]), ".ipBlock.cidr: Required value"),
            (
                block("10.0.0.0", &["a"]),
                ".ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                block("10.0.0.1/8", &[]),
                ".ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
            ),
            (
                block("10.0.0.0/8", &["10.0.0.0/8"]),
                ".ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ),
            (
                block("10.0.0.0/8", &["11.0.0.0/16"]),
                ".ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["-"] }] } }),
                ".podSelector.matchExpressions[0].values[0]: Invalid value: \"-\": a valid label must be an empty string or",
            ),
        ] {
            let found = refused(None, &from(peer));
            let want: Vec<String> = [want]
                .iter()
                .filter(|want| !want.is_empty())
                .map(|want| format!("spec.ingress[0].from[0]{want}"))
                .collect();
            assert_eq!(found.len(), want.len(), "{found:?} {want:?}");
            found
                .iter()
                .zip(&want)
                .for_each(|(found, want)| assert!(found.starts_with(want), "{found} {want}"));
        }
    }

    #[test]
    fn a_range_that_was_there_may_stay_and_move() {
        let old = json!({ "spec": from(json!({ "ipBlock": { "cidr": "10.0.0.1/8" } })) });
        let moved = json!({ "egress": [{ "to": [{ "ipBlock": { "cidr": "10.0.0.1/8" } }] }] });
        assert_eq!(refused(None, &moved).len(), 1);
        assert_eq!(refused(Some(&old), &moved), [""; 0]);
    }
}
