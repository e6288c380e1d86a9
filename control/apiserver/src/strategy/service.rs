//! Services: defaults, and what is kept or dropped when one changes. Addresses and node ports are given out in `allocate`.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::Change;
use crate::allocate::has_health_port;
use crate::tree::{at, copy, int, list, list_mut, remove, set, set_default, text};

pub fn default_service(service: &mut Value) {
    set_default(service, &["spec", "sessionAffinity"], "None");
    set_default(service, &["spec", "type"], "ClusterIP");
    if text(service, &["spec", "sessionAffinity"]) == "ClientIP" {
        let timeout = ["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"];
        if at(service, &timeout).is_null() {
            set(service, &timeout, 10_800);
        }
    }
    for port in list_mut(service, &["spec", "ports"]) {
        set_default(port, &["protocol"], "TCP");
        let target = at(port, &["targetPort"]);
        if target.is_null() || target == 0 || target == "" {
            let number = port["port"].clone();
            set(port, &["targetPort"], number);
        }
    }
    if is_accessible(service) {
        set_default(service, &["spec", "externalTrafficPolicy"], "Cluster");
    }
    let kind = text(service, &["spec", "type"]).to_owned();
    let by_type = [
        (
            "internalTrafficPolicy",
            json!("Cluster"),
            matches!(&*kind, "ClusterIP" | "NodePort" | "LoadBalancer"),
        ),
        ("allocateLoadBalancerNodePorts", json!(true), kind == "LoadBalancer"),
    ];
    for (field, value, applies) in by_type {
        if applies && at(service, &["spec", field]).is_null() {
            set(service, &["spec", field], value);
        }
    }
    if kind == "LoadBalancer" {
        for point in list_mut(service, &["status", "loadBalancer", "ingress"]) {
            if !text(point, &["ip"]).is_empty() && at(point, &["ipMode"]).is_null() {
                set(point, &["ipMode"], "VIP");
            }
        }
    }
}

/// Whether the nodes have a port for it.
pub fn is_outward(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Whether it can be reached from outside of the cluster.
pub fn is_accessible(service: &Value) -> bool {
    let kind = text(service, &["spec", "type"]);
    is_outward(kind) || (kind == "ClusterIP" && !list(service, &["spec", "externalIPs"]).is_empty())
}

fn has_address(service: &Value) -> bool {
    text(service, &["spec", "type"]) != "ExternalName"
}

/// Keeps what was given out when a client leaves it out, and drops what the type no longer has.
pub fn prepare_service(change: &mut Change<'_>) {
    let Some(old) = change.old else {
        set(change.new, &["status"], json!({ "loadBalancer": {} }));
        normalize_new(change.new);
        drop_idle_affinity(change.new);
        return;
    };
    keep_given(old, change.new);
    normalize_changed(old, change.new);
    drop_by_type(old, change.new);
    drop_idle_affinity(change.new);
}

fn drop_idle_affinity(service: &mut Value) {
    if text(service, &["spec", "sessionAffinity"]) == "None" {
        remove(service, &["spec", "sessionAffinityConfig"]);
    }
}

/// Who names one address names the first of a list.
fn normalize_new(service: &mut Value) {
    let address = at(service, &["spec", "clusterIP"]).clone();
    if !text(&address, &[]).is_empty() && list(service, &["spec", "clusterIPs"]).is_empty() {
        set(service, &["spec", "clusterIPs"], json!([address]));
    }
}

/// A client that knows one address only changes both.
fn normalize_changed(old: &Value, new: &mut Value) {
    let one = ["spec", "clusterIP"];
    let all = ["spec", "clusterIPs"];
    if text(old, &one) == text(new, &one) || list(old, &all) != list(new, &all) {
        return;
    }
    match text(new, &one) {
        "" => _ = remove(new, &all),
        address => {
            let address = json!([address]);
            set(new, &all, address);
        }
    }
}

fn keep_given(old: &Value, new: &mut Value) {
    if has_address(old) && has_address(new) {
        if text(new, &["spec", "clusterIP"]).is_empty() {
            copy(new, old, &["spec", "clusterIP"]);
        }
        for field in ["clusterIPs", "ipFamilies"] {
            if list(new, &["spec", field]).is_empty() {
                copy(new, old, &["spec", field]);
            }
        }
        if at(new, &["spec", "ipFamilyPolicy"]).is_null() {
            copy(new, old, &["spec", "ipFamilyPolicy"]);
        }
    }
    if is_outward(text(old, &["spec", "type"])) && is_outward(text(new, &["spec", "type"])) {
        keep_node_ports(old, new);
    }
    let port = ["spec", "healthCheckNodePort"];
    if has_health_port(old) && has_health_port(new) && int(new, &port).unwrap_or_default() == 0 {
        copy(new, old, &port);
    }
}

fn node_ports(service: &Value) -> HashSet<i64> {
    let ports = list(service, &["spec", "ports"]).iter();
    ports.filter_map(|port| int(port, &["nodePort"])).filter(|node| *node != 0).collect()
}

/// A port keeps the node port of the one that had its name, unless another names that.
fn keep_node_ports(old: &Value, new: &mut Value) {
    let used = node_ports(new);
    let before: HashMap<&str, &Value> =
        list(old, &["spec", "ports"]).iter().map(|port| (text(port, &["name"]), port)).collect();
    for port in list_mut(new, &["spec", "ports"]) {
        if int(port, &["nodePort"]).unwrap_or_default() != 0 {
            continue;
        }
        let same = before.get(text(port, &["name"]));
        let node = same.and_then(|other| int(other, &["nodePort"])).filter(|node| !used.contains(node));
        if let Some(node) = node {
            set(port, &["nodePort"], node);
        }
    }
}

/// Drops what a Service of the type before had and one of this type has not, unless the client changed it: then it is refused.
fn drop_by_type(old: &Value, new: &mut Value) {
    let same = |new: &Value, field: &str| at(old, &["spec", field]) == at(new, &["spec", field]);
    let mut unused: Vec<&str> = Vec::new();
    if has_address(old) && !has_address(new) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            unused.extend(["clusterIP", "clusterIPs"]);
        }
        unused.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|field| same(new, field)));
    }
    let (before, after) = (text(old, &["spec", "type"]), text(new, &["spec", "type"]));
    if is_outward(before) && !is_outward(after) && node_ports(old).is_superset(&node_ports(new)) {
        list_mut(new, &["spec", "ports"]).iter_mut().for_each(|port| _ = remove(port, &["nodePort"]));
    }
    let (before, after) = (text(old, &["spec", "type"]), text(new, &["spec", "type"]));
    let balanced = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
    let one_way = [
        ("healthCheckNodePort", has_health_port(old) && !has_health_port(new)),
        (balanced[0], before == "LoadBalancer" && after != "LoadBalancer"),
        (balanced[1], before == "LoadBalancer" && after != "LoadBalancer"),
        ("externalTrafficPolicy", is_accessible(old) && !is_accessible(new)),
    ];
    unused.extend(
        one_way.into_iter().filter(|(field, gone)| *gone && same(new, field)).map(|(field, _)| field),
    );
    if after != "LoadBalancer" {
        set(new, &["status", "loadBalancer"], json!({}));
    }
    for field in unused {
        remove(new, &["spec", field]);
    }
}
