//! Ingresses and NetworkPolicies.

use serde_json::{Value, json};

use super::Change;
use super::workload::validate_label_selector;
use crate::tree::{at, int, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

pub fn default_network_policy(policy: &mut Value) {
    for (rules, _) in [("ingress", "from"), ("egress", "to")] {
        for rule in list_mut(policy, &["spec", rules]) {
            for port in list_mut(rule, &["ports"]) {
                set_default(port, &["protocol"], "TCP");
            }
        }
    }
    let mut types = vec!["Ingress"];
    if !list(policy, &["spec", "egress"]).is_empty() {
        types.push("Egress");
    }
    set_default(policy, &["spec", "policyTypes"], json!(types));
}

pub fn validate_network_policy(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    validate_label_selector(at(spec, &["podSelector"]), "spec.podSelector", errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, &[rules]).iter().enumerate() {
            let here = format!("spec.{rules}[{index}]");
            for (position, peer) in list(rule, &[peers]).iter().enumerate() {
                validate_peer(peer, &format!("{here}.{peers}[{position}]"), errors);
            }
            for (position, port) in list(rule, &["ports"]).iter().enumerate() {
                let place = format!("{here}.ports[{position}]");
                errors.one_of(
                    format!("{place}.protocol"),
                    text(port, &["protocol"]),
                    &["SCTP", "TCP", "UDP"],
                );
                if let Some(number) = int(port, &["port"]) {
                    errors.port(format!("{place}.port"), number);
                }
            }
        }
    }
    for (index, kind) in list(spec, &["policyTypes"]).iter().enumerate() {
        errors.one_of(
            format!("spec.policyTypes[{index}]"),
            kind.as_str().unwrap_or_default(),
            &["Egress", "Ingress"],
        );
    }
}

fn validate_peer(peer: &Value, here: &str, errors: &mut Errors) {
    let block = at(peer, &["ipBlock"]);
    let selectors =
        ["podSelector", "namespaceSelector"].iter().filter(|name| peer.get(**name).is_some()).count();
    if block.is_null() && selectors == 0 {
        errors.required(here, "must specify a peer");
    }
    if !block.is_null() && selectors > 0 {
        errors.forbidden(here, "may not specify both ipBlock and another peer");
    }
    if !block.is_null() {
        let ranges = std::iter::once(at(block, &["cidr"])).chain(list(block, &["except"]));
        for range in ranges {
            if parse_range(range.as_str().unwrap_or_default()).is_none() {
                errors.invalid(
                    format!("{here}.ipBlock.cidr"),
                    range,
                    "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                );
            }
        }
    }
    for selector in ["podSelector", "namespaceSelector"] {
        validate_label_selector(at(peer, &[selector]), &format!("{here}.{selector}"), errors);
    }
}

fn parse_range(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

pub fn validate_ingress(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if list(spec, &["rules"]).is_empty() && at(spec, &["defaultBackend"]).is_null() {
        errors.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified");
    }
    for (index, rule) in list(spec, &["rules"]).iter().enumerate() {
        let host = text(rule, &["host"]);
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(
                format!("spec.rules[{index}].host"),
                &Value::from(host),
                "must be a DNS name, not an IP address",
            );
        } else if !host.is_empty() {
            errors.check(
                format!("spec.rules[{index}].host"),
                host.strip_prefix("*.").unwrap_or(host),
                validate::subdomain,
            );
        }
        for (position, path) in list(rule, &["http", "paths"]).iter().enumerate() {
            let here = format!("spec.rules[{index}].http.paths[{position}]");
            let kind = text(path, &["pathType"]);
            if kind.is_empty() {
                errors.required(format!("{here}.pathType"), "pathType must be specified");
            }
            errors.one_of(format!("{here}.pathType"), kind, &["Exact", "ImplementationSpecific", "Prefix"]);
            if kind != "ImplementationSpecific" && !text(path, &["path"]).starts_with('/') {
                errors.invalid(format!("{here}.path"), at(path, &["path"]), "must be an absolute path");
            }
        }
    }
}
