//! What Services may say.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Change;
use super::addresses::{self, lenient, validate_balancers};
use super::endpoints::refuse_special;
use super::service::{is_accessible, is_outward};
use super::service_families;
use crate::allocate::has_health_port;
use crate::resources::Sub;
use crate::tree::{at, int, list, strings, text};
use crate::validate::{self, Errors};

const LONGEST_AFFINITY_SECONDS: i64 = 86_400;
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub fn validate_service(change: &Change<'_>, errors: &mut Errors) {
    let (service, spec) = (&*change.new, at(change.new, &["spec"]));
    if let Some(old) = change.old {
        service_families::validate_changed(old, service, errors);
        validate_balancer_kept(at(old, &["spec"]), spec, errors);
        let port = "spec.healthCheckNodePort";
        if has_health_port(old)
            && has_health_port(service)
            && int(at(old, &["spec"]), &["healthCheckNodePort"]) != int(spec, &["healthCheckNodePort"])
        {
            errors.forbidden(port, "field is immutable");
        }
    }
    validate_hints(service, errors);
    validate_type(spec, errors);
    validate_ports(spec, errors);
    for (key, value) in strings(spec, &["selector"]) {
        errors.check("spec.selector", key, validate::label_key);
        errors.check("spec.selector", value, validate::label_value);
    }
    validate_affinity(spec, errors);
    service_families::validate_families(change, errors);
    validate_external_addresses(change, errors);
    validate_repeated_ports(spec, errors);
    validate_source_ranges(change, errors);
    validate_balancer(spec, errors);
    validate_traffic(service, errors);
}

pub fn validate_service_status(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    if sub != Sub::Status {
        return;
    }
    let (path, here) = (["status", "loadBalancer"], "status.loadBalancer");
    let status = at(change.new, &path);
    let points = list(status, &["ingress"]);
    if text(change.new, &["spec", "type"]) != "LoadBalancer" {
        if !points.is_empty() {
            let detail = "may only be used when `spec.type` is 'LoadBalancer'";
            errors.forbidden(format!("{here}.ingress"), detail);
        }
        return;
    }
    let old = change.old.map_or(&Value::Null, |old| at(old, &path));
    validate_balancers(status, old, here, errors);
    for (index, point) in points.iter().enumerate() {
        let place = format!("{here}.ingress[{index}].ipMode");
        match (text(point, &["ip"]), at(point, &["ipMode"]).as_str()) {
            ("", None) => {}
            (_, None) => errors.required(place, "must be specified when `ip` is set"),
            ("", Some(_)) => errors.forbidden(place, "may not be specified when `ip` is not set"),
            (_, Some(mode)) => errors.must_be(place, mode, &["Proxy", "VIP"]),
        }
    }
}

fn validate_hints(service: &Value, errors: &mut Errors) {
    let [hints, mode] = [HINTS, MODE].map(|name| at(service, &["metadata", "annotations", name]));
    if !hints.is_null() && !mode.is_null() && hints != mode {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(format!("metadata.annotations[{MODE}]"), mode, &detail);
    }
}

fn validate_type(spec: &Value, errors: &mut Errors) {
    let kind = text(spec, &["type"]);
    let headless = is_headless(spec);
    if list(spec, &["ports"]).is_empty() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    if headless && is_outward(kind) {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.invalid("spec.clusterIPs[0]", &json!("None"), &detail);
    }
    if kind == "ExternalName" {
        let given = |field: &&str| match at(spec, &[field]) {
            Value::Array(items) => !items.is_empty(),
            other => !other.is_null(),
        };
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].iter().filter(|field| given(field)) {
            errors.forbidden(format!("spec.{field}"), "may not be set for ExternalName services");
        }
        let name = text(spec, &["externalName"]);
        errors.named("spec.externalName", name.strip_suffix('.').unwrap_or(name), validate::subdomain);
    }
    errors.must_be("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
}

/// Whether no address is wanted.
pub fn is_headless(spec: &Value) -> bool {
    matches!(list(spec, &["clusterIPs"]), [only] if only == "None")
}

fn validate_ports(spec: &Value, errors: &mut Errors) {
    let ports = list(spec, &["ports"]);
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let place = format!("spec.ports[{index}]");
        match text(port, &["name"]) {
            "" if ports.len() > 1 => errors.required(format!("{place}.name"), ""),
            "" => {}
            name => {
                errors.check(format!("{place}.name"), name, validate::label);
                if !names.insert(name) {
                    errors.duplicate(format!("{place}.name"), &Value::from(name));
                }
            }
        }
        errors.port(format!("{place}.port"), int(port, &["port"]).unwrap_or_default());
        errors.must_be(format!("{place}.protocol"), text(port, &["protocol"]), PROTOCOLS);
        match at(port, &["targetPort"]) {
            Value::Number(target) => {
                errors.port(format!("{place}.targetPort"), target.as_i64().unwrap_or_default());
            }
            Value::String(target) => errors.port_name(&format!("{place}.targetPort"), target),
            _ => {}
        }
        if let Some(protocol) = at(port, &["appProtocol"]).as_str() {
            errors.check(format!("{place}.appProtocol"), protocol, validate::label_key);
        }
    }
}

fn validate_repeated_ports(spec: &Value, errors: &mut Errors) {
    let ports = list(spec, &["ports"]);
    let places = || ports.iter().enumerate().map(|(index, port)| (format!("spec.ports[{index}]"), port));
    let node = |port: &Value| int(port, &["nodePort"]).filter(|node| *node != 0);
    if text(spec, &["type"]) == "ClusterIP" {
        for (place, _) in places().filter(|(_, port)| node(port).is_some()) {
            errors.forbidden(format!("{place}.nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = HashSet::new();
    for (place, port) in places() {
        if let Some(node) = node(port).filter(|node| !seen.insert((text(port, &["protocol"]), *node))) {
            errors.duplicate(format!("{place}.nodePort"), &json!(node));
        }
    }
    seen.clear();
    for (place, port) in places() {
        let (protocol, number) = (text(port, &["protocol"]), int(port, &["port"]).unwrap_or_default());
        if !seen.insert((protocol, number)) {
            // Upstream shows it as its server has it.
            let shown = json!({ "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number,
                                "TargetPort": 0, "NodePort": 0 });
            errors.duplicate(place, &shown);
        }
    }
}

fn validate_affinity(spec: &Value, errors: &mut Errors) {
    errors.must_be("spec.sessionAffinity", text(spec, &["sessionAffinity"]), &["ClientIP", "None"]);
    let timeout = at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    if let Some(seconds) = timeout.as_i64()
        && !(1..=LONGEST_AFFINITY_SECONDS).contains(&seconds)
    {
        let place = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        errors.invalid(place, timeout, "must be greater than 0 and less than 86400");
    }
}

fn validate_external_addresses(change: &Change<'_>, errors: &mut Errors) {
    let kept = change.old.map_or(&[][..], |old| list(old, &["spec", "externalIPs"]));
    let kept: HashSet<&Value> = kept.iter().collect();
    for (index, address) in list(change.new, &["spec", "externalIPs"]).iter().enumerate() {
        let (place, given) = (format!("spec.externalIPs[{index}]"), address.as_str().unwrap_or_default());
        let found = errors.len();
        if !kept.contains(address) {
            errors.check(place.clone(), given, addresses::address);
        }
        if let Some(parsed) = lenient(given).filter(|_| errors.len() == found) {
            refuse_special(parsed, place, address, errors);
        }
    }
}

/// Who may reach a load balancer: the field, or the annotation that was there before it. Spaces around a range are nobody's.
fn validate_source_ranges(change: &Change<'_>, errors: &mut Errors) {
    let annotation = |service| text(service, &["metadata", "annotations", RANGES]);
    let listed = |service| -> Vec<&str> {
        list(service, &["spec", "loadBalancerSourceRanges"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::trim)
            .collect()
    };
    let in_annotation = |service| annotation(service).split(',').map(str::trim).collect::<Vec<_>>();
    let service = &*change.new;
    let balanced = text(service, &["spec", "type"]) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = listed(service);
    if !ranges.is_empty() {
        if !balanced {
            errors.forbidden("spec.LoadBalancerSourceRanges", only);
        }
        let kept: HashSet<&str> = change.old.map(listed).unwrap_or_default().into_iter().collect();
        for (index, range) in ranges.iter().enumerate().filter(|(_, range)| !kept.contains(**range)) {
            errors.check(format!("spec.LoadBalancerSourceRanges[{index}]"), range, addresses::range);
        }
        return;
    }
    if at(service, &["metadata", "annotations", RANGES]).is_null() {
        return;
    }
    let place = format!("metadata.annotations[{RANGES}]");
    if !balanced {
        errors.forbidden(&place, only);
    }
    if annotation(service).trim().is_empty() {
        return;
    }
    let kept: HashSet<&str> = change.old.map(in_annotation).unwrap_or_default().into_iter().collect();
    for range in in_annotation(service).into_iter().filter(|range| !kept.contains(range)) {
        errors.check(place.clone(), range, addresses::range);
    }
}

fn validate_balancer(spec: &Value, errors: &mut Errors) {
    let balanced = text(spec, &["type"]) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    if !balanced && !at(spec, &["allocateLoadBalancerNodePorts"]).is_null() {
        errors.forbidden("spec.allocateLoadBalancerNodePorts", only);
    }
    match at(spec, &["loadBalancerClass"]).as_str() {
        Some(class) if balanced => errors.check("spec.loadBalancerClass", class, validate::label_key),
        Some(_) => errors.forbidden("spec.loadBalancerClass", only),
        None => {}
    }
}

fn validate_balancer_kept(old: &Value, new: &Value, errors: &mut Errors) {
    let balanced = |spec: &Value| text(spec, &["type"]) == "LoadBalancer";
    let class = at(new, &["loadBalancerClass"]);
    if balanced(old) && balanced(new) && at(old, &["loadBalancerClass"]) != class {
        errors.invalid("spec.loadBalancerClass", class, "may not change once set");
    }
}

fn validate_traffic(service: &Value, errors: &mut Errors) {
    let spec = at(service, &["spec"]);
    let (external, policies) = (text(spec, &["externalTrafficPolicy"]), ["Cluster", "Local"]);
    if is_accessible(service) {
        errors.must_be("spec.externalTrafficPolicy", external, &policies);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.invalid("spec.externalTrafficPolicy", &Value::from(external), detail);
    }
    if let Some(port) = int(spec, &["healthCheckNodePort"]).filter(|port| *port != 0) {
        let place = "spec.healthCheckNodePort";
        if has_health_port(service) {
            errors.port(place, port);
        } else {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(place, &json!(port), detail);
        }
    }
    if let Some(internal) = at(spec, &["internalTrafficPolicy"]).as_str() {
        errors.must_be("spec.internalTrafficPolicy", internal, &policies);
    }
    if let Some(nearness) = at(spec, &["trafficDistribution"]).as_str() {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        errors.must_be("spec.trafficDistribution", nearness, &known);
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
