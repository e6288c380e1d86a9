//! Endpoints: the addresses of a Service in the older form.

use std::net::IpAddr;

use serde_json::Value;

use super::{Change, addresses};
use crate::tree::{at, int, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub fn default_endpoints(endpoints: &mut Value) {
    for subset in list_mut(endpoints, &["subsets"]) {
        for port in list_mut(subset, &["ports"]) {
            set_default(port, &["protocol"], "TCP");
        }
    }
}

pub fn validate_endpoints(change: &Change<'_>, errors: &mut Errors) {
    // What was not looked at when it came may stay.
    if change.old.is_some_and(|old| at(old, &["subsets"]) == at(change.new, &["subsets"])) {
        return;
    }
    for (index, subset) in list(change.new, &["subsets"]).iter().enumerate() {
        let here = format!("subsets[{index}]");
        let fields = ["addresses", "notReadyAddresses"];
        if fields.iter().all(|field| list(subset, &[field]).is_empty()) {
            errors.required(&here, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in fields {
            for (index, address) in list(subset, &[field]).iter().enumerate() {
                validate_address(address, &format!("{here}.{field}[{index}]"), errors);
            }
        }
        let ports = list(subset, &["ports"]);
        for (index, port) in ports.iter().enumerate() {
            validate_port(port, ports.len() > 1, &format!("{here}.ports[{index}]"), errors);
        }
    }
}

fn validate_address(address: &Value, here: &str, errors: &mut Errors) {
    let (place, ip) = (format!("{here}.ip"), at(address, &["ip"]));
    errors.check(place.clone(), ip.as_str().unwrap_or_default(), addresses::address);
    match text(address, &["hostname"]) {
        "" => {}
        name => errors.check(format!("{here}.hostname"), name, validate::label),
    }
    if let Some(node) = at(address, &["nodeName"]).as_str() {
        errors.check(format!("{here}.nodeName"), node, validate::subdomain);
    }
    match addresses::lenient(ip.as_str().unwrap_or_default()) {
        Some(parsed) => refuse_special(parsed, place, ip, errors),
        None => errors.invalid(place, ip, "must be a valid IP address"),
    }
}

/// Refuses an address to which nothing can be sent from another machine.
pub(super) fn refuse_special(address: IpAddr, place: String, given: &Value, errors: &mut Errors) {
    let (local, local_group) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(
            place,
            given,
            &format!("may not be unspecified ({})", given.as_str().unwrap_or_default()),
        );
    } else if address.is_loopback() {
        errors.invalid(place, given, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if local {
        errors.invalid(place, given, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if local_group {
        errors.invalid(
            place,
            given,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

fn validate_port(port: &Value, needs_name: bool, here: &str, errors: &mut Errors) {
    match text(port, &["name"]) {
        "" if needs_name => errors.required(format!("{here}.name"), ""),
        "" => {}
        name => errors.check(format!("{here}.name"), name, validate::label),
    }
    errors.port(format!("{here}.port"), int(port, &["port"]).unwrap_or_default());
    errors.must_be(format!("{here}.protocol"), text(port, &["protocol"]), PROTOCOLS);
    if let Some(protocol) = at(port, &["appProtocol"]).as_str() {
        errors.check(format!("{here}.appProtocol"), protocol, validate::label_key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(old: Option<&Value>, subset: &Value) -> Vec<String> {
        let mut new = json!({ "subsets": [subset] });
        default_endpoints(&mut new);
        let mut errors = Errors::default();
        validate_endpoints(&Change { old, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field.replace("subsets[0]", "")).collect()
    }

    #[test]
    fn subsets_are_validated() {
        let ip = |ip: &str| json!({"addresses": [{ "ip": ip }]});
        let ports = |ports: Value| json!({"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": ports});
        for (subset, want) in [
            (ip("10.0.0.1"), &[][..]),
            (ip("fd00::1"), &[]),
            (json!({}), &[""]),
            (ip("a"), &[".addresses[0].ip", ".addresses[0].ip"]),
            (ip("10.0.0.01"), &[".addresses[0].ip"]),
            (json!({"addresses": [{"ip": "10.0.0.1", "nodeName": "A"}]}), &[".addresses[0].nodeName"]),
            (ports(json!([{"port": 80, "appProtocol": ""}])), &[".ports[0].appProtocol"]),
            (ip("0.0.0.0"), &[".addresses[0].ip"]),
            (ip("127.0.0.1"), &[".addresses[0].ip"]),
            (ip("169.254.1.1"), &[".addresses[0].ip"]),
            (ip("fe80::1"), &[".addresses[0].ip"]),
            (ip("224.0.0.1"), &[".addresses[0].ip"]),
            (ip("ff02::1"), &[".addresses[0].ip"]),
            (ip("239.1.1.1"), &[]),
            (json!({"addresses": [{"ip": "10.0.0.1", "hostname": "A"}]}), &[".addresses[0].hostname"]),
            (ports(json!([{"port": 80}])), &[]),
            (ports(json!([{"port": 80}, {"port": 81, "name": "b"}])), &[".ports[0].name"]),
            (
                ports(json!([{"port": 0, "name": "A", "protocol": "ICMP"}])),
                &[".ports[0].name", ".ports[0].port", ".ports[0].protocol"],
            ),
        ] {
            assert_eq!(found(None, &subset), want, "{subset}");
        }
    }

    #[test]
    fn what_lies_there_may_stay() {
        let mut old = json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]});
        default_endpoints(&mut old);
        assert_eq!(found(Some(&old), &old["subsets"][0]), Vec::<String>::new());
    }
}
