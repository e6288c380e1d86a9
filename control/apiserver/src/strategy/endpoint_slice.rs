//! EndpointSlices.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Change;
use super::addresses;
use super::endpoints::refuse_special;
use crate::tree::{at, list, list_mut, remove, set_default, text};
use crate::validate::{self, Errors};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
/// Zones, or nodes, that one endpoint is meant for.
const MAX_HINTS: usize = 8;

pub fn default_endpoint_slice(slice: &mut Value) {
    for port in list_mut(slice, &["ports"]) {
        port.as_object_mut().map(|port| port.entry("name").or_insert_with(|| json!("")));
        if at(port, &["protocol"]).is_null() {
            set_default(port, &["protocol"], "TCP");
        }
    }
}

pub fn prepare_endpoint_slice(change: &mut Change<'_>) {
    for endpoint in list_mut(change.new, &["endpoints"]) {
        remove(endpoint, &["deprecatedTopology"]);
    }
}

pub fn validate_endpoint_slice(change: &Change<'_>, errors: &mut Errors) {
    let slice = &*change.new;
    let kind = text(slice, &["addressType"]);
    match kind {
        "" => errors.required("addressType", ""),
        kind => errors.must_be("addressType", kind, &["FQDN", "IPv4", "IPv6"]),
    }
    let endpoints = list(slice, &["endpoints"]);
    if fits("endpoints", endpoints, MAX_ENDPOINTS, errors) {
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(kind, endpoint, &format!("endpoints[{index}]"), errors);
        }
    }
    validate_ports(list(slice, &["ports"]), errors);
    if let Some(old) = change.old {
        errors.immutable("addressType", at(old, &["addressType"]), at(slice, &["addressType"]));
    }
}

/// Whether there are not too many; reports it if there are.
fn fits(place: &str, items: &[Value], most: usize, errors: &mut Errors) -> bool {
    if items.len() > most {
        errors.too_many(place, items.len() as u64, most as u64);
    }
    items.len() <= most
}

fn validate_endpoint(kind: &str, endpoint: &Value, here: &str, errors: &mut Errors) {
    let addresses = list(endpoint, &["addresses"]);
    let place = format!("{here}.addresses");
    if addresses.is_empty() {
        errors.required(&place, "must contain at least 1 address");
    }
    fits(&place, addresses, MAX_ADDRESSES, errors);
    for (index, address) in addresses.iter().enumerate() {
        validate_address(kind, address, format!("{place}[{index}]"), errors);
    }
    if let Some(node) = at(endpoint, &["nodeName"]).as_str() {
        errors.check(format!("{here}.nodeName"), node, validate::subdomain);
    }
    if let Some(name) = at(endpoint, &["hostname"]).as_str() {
        errors.check(format!("{here}.hostname"), name, validate::label);
    }
    for (field, check) in
        [("forZones", validate::label_value as fn(&str) -> _), ("forNodes", validate::subdomain)]
    {
        validate_hints(list(endpoint, &["hints", field]), &format!("{here}.hints.{field}"), check, errors);
    }
}

fn validate_address(kind: &str, address: &Value, place: String, errors: &mut Errors) {
    let given = address.as_str().unwrap_or_default();
    if kind == "FQDN" && given.is_empty() {
        errors.required(place, "");
        return;
    }
    if kind == "FQDN" {
        errors.check(place, given, qualified_name);
        return;
    }
    if !matches!(kind, "IPv4" | "IPv6") {
        return;
    }
    if let Err(why) = addresses::address(given) {
        errors.invalid(place, address, &why);
    } else if let Some(parsed) = addresses::lenient(given) {
        if parsed.is_ipv4() != (kind == "IPv4") {
            errors.invalid(place.clone(), address, &format!("must be an {kind} address"));
        }
        refuse_special(parsed, place, address, errors);
    }
}

/// A name of two parts at least, which may end with a dot.
fn qualified_name(name: &str) -> Result<(), String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    validate::subdomain(name)?;
    if !name.contains('.') {
        return Err("should be a domain with at least two segments separated by dots".to_owned());
    }
    name.split('.').try_for_each(validate::label)
}

fn validate_hints(hints: &[Value], here: &str, check: fn(&str) -> Result<(), String>, errors: &mut Errors) {
    if !fits(here, hints, MAX_HINTS, errors) {
        return;
    }
    let mut names = HashSet::new();
    for (index, hint) in hints.iter().enumerate() {
        let (place, name) = (format!("{here}[{index}].name"), text(hint, &["name"]));
        if !names.insert(name) {
            errors.duplicate(place.clone(), &Value::from(name));
        }
        errors.check(place, name, check);
    }
}

fn validate_ports(ports: &[Value], errors: &mut Errors) {
    if !fits("ports", ports, MAX_PORTS, errors) {
        return;
    }
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (here, name) = (format!("ports[{index}]"), text(port, &["name"]));
        if !name.is_empty() {
            errors.check(format!("{here}.name"), name, validate::label);
        }
        if !names.insert(name) {
            errors.duplicate(format!("{here}.name"), &Value::from(name));
        }
        errors.must_be(format!("{here}.protocol"), text(port, &["protocol"]), &["SCTP", "TCP", "UDP"]);
        if let Some(protocol) = at(port, &["appProtocol"]).as_str() {
            errors.check(format!("{here}.appProtocol"), protocol, validate::label_key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn causes(kind: &str, endpoints: Value, ports: Value) -> Vec<String> {
        let mut slice = json!({ "addressType": kind, "endpoints": endpoints, "ports": ports });
        default_endpoint_slice(&mut slice);
        let mut errors = Errors::default();
        validate_endpoint_slice(&Change { old: None, new: &mut slice }, &mut errors);
        let causes = errors.into_causes().into_iter();
        causes
            .map(|cause| format!("{}: {}", cause.field, cause.message.replace("Invalid value: ", "")))
            .collect()
    }

    #[test]
    fn addresses_are_of_the_slices_type_and_can_be_sent_to() {
        let place = "endpoints[0].addresses[0]";
        for (kind, address, why) in [
            ("IPv4", "10.0.0.1", None),
            ("IPv6", "fd00::1", None),
            ("FQDN", "a.example", None),
            ("FQDN", "a.example.", None),
            ("FQDN", "a", Some("should be a domain with at least two segments separated by dots")),
            ("FQDN", &format!("{}.a", "b".repeat(64)), Some("must be no more than 63 characters")),
            ("IPv4", "fd00::1", Some("must be an IPv4 address")),
            ("IPv6", "10.0.0.1", Some("must be an IPv6 address")),
            ("IPv4", "10.0.0.01", Some("must not have leading 0s")),
            ("IPv6", "::ffff:10.0.0.1", Some("must not be an IPv4-mapped IPv6 address")),
            ("IPv4", "a", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
            ("IPv4", "0.0.0.0", Some("may not be unspecified (0.0.0.0)")),
            ("IPv6", "::", Some("may not be unspecified (::)")),
            ("IPv4", "127.0.0.1", Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")),
            ("IPv6", "::1", Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")),
            (
                "IPv4",
                "169.254.169.254",
                Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
            ),
            ("IPv6", "fe80::1", Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")),
            (
                "IPv4",
                "224.0.0.1",
                Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
            ),
        ] {
            let want: Vec<String> =
                why.map(|why| format!("{place}: {address:?}: {why}")).into_iter().collect();
            assert_eq!(
                causes(kind, json!([{ "addresses": [address] }]), json!([])),
                want,
                "{kind} {address}"
            );
        }
    }

    #[test]
    fn endpoints_and_ports_have_bounds_and_names() {
        let endpoint = |more: Value| {
            let mut endpoint = json!({ "addresses": ["10.0.0.1"] });
            json_patch::merge(&mut endpoint, &more);
            json!([endpoint])
        };
        let zone = |name: &str| json!({ "name": name });
        let zones = |zones: Vec<Value>| endpoint(json!({ "hints": { "forZones": zones } }));
        let nodes = |nodes: Vec<Value>| endpoint(json!({ "hints": { "forNodes": nodes } }));
        let many = |count: usize| vec![json!({ "addresses": ["10.0.0.1"] }); count];
        for (endpoints, ports, want) in [
            (json!(many(1000)), json!([{ "port": 1 }, { "name": "a", "appProtocol": "x.io/y" }]), vec![]),
            (json!(many(1001)), json!([]), vec!["endpoints"]),
            (json!([{}]), json!([]), vec!["endpoints[0].addresses"]),
            (
                endpoint(json!({ "addresses": vec!["10.0.0.1"; 101] })),
                json!([]),
                vec!["endpoints[0].addresses"],
            ),
            (endpoint(json!({ "nodeName": "A" })), json!([]), vec!["endpoints[0].nodeName"]),
            (endpoint(json!({ "hostname": "a.b" })), json!([]), vec!["endpoints[0].hostname"]),
            (zones(vec![zone("a"); 2]), json!([]), vec!["endpoints[0].hints.forZones[1].name"]),
            (zones(vec![zone("-")]), json!([]), vec!["endpoints[0].hints.forZones[0].name"]),
            (zones(vec![zone("a"); 9]), json!([]), vec!["endpoints[0].hints.forZones"]),
            (nodes(vec![zone("A")]), json!([]), vec!["endpoints[0].hints.forNodes[0].name"]),
            (json!([]), json!([{ "name": "A" }]), vec!["ports[0].name"]),
            (json!([]), json!([{}, {}]), vec!["ports[1].name"]),
            (json!([]), json!([{ "protocol": "tcp" }]), vec!["ports[0].protocol"]),
            (json!([]), json!([{ "protocol": "" }]), vec!["ports[0].protocol"]),
            (json!([]), json!([{ "appProtocol": "" }]), vec!["ports[0].appProtocol"]),
            (json!([]), json!(vec![json!({}); 20_001]), vec!["ports"]),
        ] {
            let found = causes("IPv4", endpoints, ports);
            let found: Vec<&str> = found.iter().map(|cause| &cause[..cause.find(':').unwrap()]).collect();
            assert_eq!(found, want);
        }
    }
}
