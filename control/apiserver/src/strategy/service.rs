//! Services: defaults and validation. Addresses and node ports are given out in `allocate`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Change, addresses};
use crate::allocate::has_health_port;
use crate::tree::{at, copy, int, list, list_mut, remove, set_default, strings, text};
use crate::validate::{self, Errors};

pub fn default_service(service: &mut Value) {
    if !at(service, &["spec"]).is_object() {
        return;
    }
    set_default(service, &["spec", "sessionAffinity"], "None");
    set_default(service, &["spec", "type"], "ClusterIP");
    if text(service, &["spec", "sessionAffinity"]) == "ClientIP" {
        set_default(service, &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"], 10_800);
    }
    let kind = text(service, &["spec", "type"]).to_owned();
    if kind != "ExternalName" {
        set_default(service, &["spec", "internalTrafficPolicy"], "Cluster");
        for port in list_mut(service, &["spec", "ports"]) {
            set_default(port, &["protocol"], "TCP");
            let target = at(port, &["targetPort"]);
            if target.is_null() || target == 0 || target == "" {
                let number = port["port"].clone();
                crate::tree::set(port, &["targetPort"], number);
            }
        }
    }
    if outward(&kind) {
        set_default(service, &["spec", "externalTrafficPolicy"], "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(service, &["spec", "allocateLoadBalancerNodePorts"], true);
    }
}

fn outward(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Keeps what was given out when a client leaves it out, and drops what the type no longer has.
pub fn prepare_service(change: &mut Change<'_>) {
    let kind = text(change.new, &["spec", "type"]).to_owned();
    if change.old.is_none() {
        crate::tree::set(change.new, &["status"], json!({ "loadBalancer": {} }));
    }
    if let Some(old) = change.old {
        let kept = |kind: &str| kind != "ExternalName";
        if kept(text(old, &["spec", "type"])) && kept(&kind) {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if at(change.new, &["spec", field]).is_null() || at(change.new, &["spec", field]) == "" {
                    copy(change.new, old, &["spec", field]);
                }
            }
        }
        if outward(&kind) {
            keep_node_ports(old, change.new);
        }
    }
    if text(change.new, &["spec", "sessionAffinity"]) == "None" {
        remove(change.new, &["spec", "sessionAffinityConfig"]);
    }
    if kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            remove(change.new, &["spec", field]);
        }
    }
    if !has_health_port(change.new) {
        remove(change.new, &["spec", "healthCheckNodePort"]);
    } else if let Some(old) = change.old
        && int(change.new, &["spec", "healthCheckNodePort"]).unwrap_or_default() == 0
        && has_health_port(old)
    {
        copy(change.new, old, &["spec", "healthCheckNodePort"]);
    }
    if !outward(&kind) {
        for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
            remove(change.new, &["spec", field]);
        }
        list_mut(change.new, &["spec", "ports"]).iter_mut().for_each(|port| _ = remove(port, &["nodePort"]));
    }
}

fn keep_node_ports(old: &Value, new: &mut Value) {
    let given: Vec<(Value, Value, i64)> = list(old, &["spec", "ports"])
        .iter()
        .filter_map(|port| Some((port["port"].clone(), port["protocol"].clone(), int(port, &["nodePort"])?)))
        .collect();
    let mut used: HashSet<i64> =
        list(new, &["spec", "ports"]).iter().filter_map(|port| int(port, &["nodePort"])).collect();
    for port in list_mut(new, &["spec", "ports"]) {
        if int(port, &["nodePort"]).unwrap_or_default() != 0 {
            continue;
        }
        let known = given.iter().find(|(number, protocol, node)| {
            *number == port["port"] && *protocol == port["protocol"] && !used.contains(node)
        });
        if let Some((_, _, node)) = known {
            used.insert(*node);
            crate::tree::set(port, &["nodePort"], *node);
        }
    }
}

pub fn validate_service(change: &Change<'_>, errors: &mut Errors) {
    let service = &*change.new;
    let spec = at(service, &["spec"]);
    if !spec.is_object() {
        errors.required("spec", "");
        return;
    }
    let kind = text(spec, &["type"]);
    errors.one_of("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    errors.one_of("spec.sessionAffinity", text(spec, &["sessionAffinity"]), &["ClientIP", "None"]);
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        errors.one_of(format!("spec.{field}"), text(spec, &[field]), &["Cluster", "Local"]);
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    errors.one_of("spec.ipFamilyPolicy", text(spec, &["ipFamilyPolicy"]), &policies);
    if kind == "ExternalName" {
        match text(spec, &["externalName"]).trim_end_matches('.') {
            "" => errors.required("spec.externalName", ""),
            name => errors.check("spec.externalName", name, validate::subdomain),
        }
    }
    let headless = text(spec, &["clusterIP"]) == "None";
    if headless && outward(kind) {
        errors.invalid(
            "spec.clusterIPs[0]",
            &Value::from("None"),
            &format!("may not be set to 'None' for {kind} services"),
        );
    }
    if kind != "ExternalName" && !headless && list(spec, &["ports"]).is_empty() {
        errors.required("spec.ports", "");
    }
    for (key, value) in strings(spec, &["selector"]) {
        errors.check("spec.selector", key, validate::label_key);
        errors.check("spec.selector", value, validate::label_value);
    }
    if let Some(seconds) = int(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
        && !(1..=86_400).contains(&seconds)
    {
        let place = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        errors.invalid(place, &Value::from(seconds), "must be greater than 0 and less than 86400");
    }
    for (index, address) in list(spec, &["externalIPs"]).iter().enumerate() {
        errors.check(
            format!("spec.externalIPs[{index}]"),
            address.as_str().unwrap_or_default(),
            addresses::address,
        );
    }
    validate_ports(spec, errors);
    if let Some(old) = change.old {
        validate_addresses_kept(at(old, &["spec"]), spec, errors);
    }
}

fn validate_ports(spec: &Value, errors: &mut Errors) {
    let ports = list(spec, &["ports"]);
    let (mut names, mut numbers, mut nodes) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let place = format!("spec.ports[{index}]");
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            errors.required(format!("{place}.name"), "");
        } else if !name.is_empty() {
            errors.check(format!("{place}.name"), name, validate::label);
            if !names.insert(name) {
                errors.duplicate(format!("{place}.name"), &Value::from(name));
            }
        }
        let number = int(port, &["port"]).unwrap_or_default();
        errors.port(format!("{place}.port"), number);
        let protocol = text(port, &["protocol"]);
        errors.one_of(format!("{place}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        match at(port, &["targetPort"]) {
            Value::Number(target) => {
                errors.port(format!("{place}.targetPort"), target.as_i64().unwrap_or_default());
            }
            Value::String(target) => errors.port_name(&format!("{place}.targetPort"), target),
            _ => {}
        }
        if !numbers.insert((protocol, number)) {
            errors.duplicate(&place, &json!({ "port": number, "protocol": protocol }));
        }
        if let Some(node) = int(port, &["nodePort"]).filter(|node| *node != 0) {
            errors.port(format!("{place}.nodePort"), node);
            if !nodes.insert((protocol, node)) {
                errors.duplicate(format!("{place}.nodePort"), &Value::from(node));
            }
        }
    }
}

/// The primary address stays for as long as the service is not of type ExternalName.
fn validate_addresses_kept(old: &Value, new: &Value, errors: &mut Errors) {
    let external = |spec: &Value| text(spec, &["type"]) == "ExternalName";
    if external(old) || external(new) {
        return;
    }
    let (before, after) = (text(old, &["clusterIP"]), text(new, &["clusterIP"]));
    if !before.is_empty() && before != after {
        errors.invalid("spec.clusterIPs[0]", &json!([after]), "may not change once set");
    }
}
