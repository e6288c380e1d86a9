//! Where a name behind `/proxy` leads: `[scheme:]name[:port]` of a pod, a service or a node.

use std::net::{IpAddr, SocketAddr};

use rand::Rng;
use serde_json::Value;

use crate::api::Call;
use crate::kubelets;
use crate::object::{self, prefix};
use crate::resources::known;
use crate::status::{Refusal, Result};
use crate::tree::{at, flag, int, list, text};

/// Where a request is handed to.
#[derive(Debug, PartialEq)]
pub enum Location {
    /// The kubelet of this Node, over a connection that it trusts.
    Kubelet(Value),
    Address {
        scheme: Scheme,
        address: SocketAddr,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    /// With any certificate: a pod has none for its address.
    Https,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The parts of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked<'a> {
    scheme: Scheme,
    name: &'a str,
    /// A number, or a name that the object gives to one; empty when none is asked for.
    port: &'a str,
}

fn asked(text: &str) -> Option<Asked<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let scheme = match scheme {
        "" | "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    Some(Asked { scheme, name, port }).filter(|asked| !asked.name.is_empty())
}

/// Where the call leads now.
pub fn of(call: &Call) -> Result<Location> {
    let given = &call.target.name;
    let kind = &call.row.singular;
    let asked =
        asked(given).ok_or_else(|| Refusal::bad_request(format!("invalid {kind} request {given:?}")))?;
    let key = object::key(&call.row, &call.target.namespace, asked.name);
    let entry = call.api.objects.get(&key).ok_or_else(|| Refusal::not_found(&call.row, asked.name))?;
    let found = object::decode(&entry);
    match call.row.own() {
        "nodes" => node(asked, found),
        "services" => service(call, asked, &found),
        _ => pod(asked, &found),
    }
}

fn node(asked: Asked<'_>, node: Value) -> Result<Location> {
    let (address, kubelet) = kubelets::address(&node)?;
    if asked.port.is_empty() || asked.port == kubelet.to_string() {
        return Ok(Location::Kubelet(node));
    }
    reached(asked.scheme, address, number(asked.port)?)
}

fn pod(asked: Asked<'_>, pod: &Value) -> Result<Location> {
    let address = text(pod, &["status", "podIP"]);
    let address = address
        .parse()
        .map_err(|_none| Refusal::bad_request(format!("pod {} has no address", asked.name)))?;
    let ports = list(pod, &["spec", "containers"]).iter().flat_map(|container| list(container, &["ports"]));
    let first = ports.filter_map(|port| port_of(port, "containerPort")).next();
    let port = if asked.port.is_empty() { first.unwrap_or(asked.scheme.port()) } else { number(asked.port)? };
    reached(asked.scheme, address, port)
}

fn number(port: &str) -> Result<u16> {
    let number = port.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Refusal::bad_request(format!("invalid port {port:?}")))
}

fn port_of(holder: &Value, field: &str) -> Option<u16> {
    int(holder, &[field]).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// The server must not be lent to reach itself, or what trusts its machine.
fn reached(scheme: Scheme, address: IpAddr, port: u16) -> Result<Location> {
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if local || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(Refusal::bad_request("address not allowed"));
    }
    Ok(Location::Address { scheme, address: (address, port).into() })
}

fn service(call: &Call, asked: Asked<'_>, service: &Value) -> Result<Location> {
    let port = service_port(asked, service)?;
    let namespace = &call.target.namespace;
    let found = call.api.objects.range(
        &prefix(known("discovery.k8s.io", "endpointslices"), namespace),
        None,
        0,
        None,
    );
    let found = found.map_err(Refusal::internal)?.entries;
    let of_service =
        |label: &(Box<str>, Box<str>)| &*label.0 == "kubernetes.io/service-name" && &*label.1 == asked.name;
    let slices = found.iter().filter(|entry| entry.header.labels.iter().any(of_service));
    let slices: Vec<Value> = slices.map(|entry| object::decode(entry)).collect();
    let is_pods = |name: &str, address: IpAddr| {
        let key = object::key(known("", "pods"), namespace, name);
        call.api.objects.get(&key).is_some_and(|pod| has_address(&object::decode(&pod), address))
    };
    let ready = ready(&slices, port, is_pods);
    if ready.is_empty() {
        let message = format!("no endpoints available for service {:?}", call.target.name);
        return Err(Refusal::unavailable(message));
    }
    let (address, port) = ready[rand::rng().random_range(0..ready.len())];
    reached(asked.scheme, address, port)
}

/// The name of the service's port that is meant.
fn service_port<'a>(asked: Asked<'a>, service: &'a Value) -> Result<&'a str> {
    let ports = list(service, &["spec", "ports"]);
    match (asked.port, ports) {
        ("", [only]) => Ok(text(only, &["name"])),
        (name, _) => {
            let Ok(wanted) = name.parse::<u16>() else { return Ok(name) };
            let found = ports.iter().find(|port| port_of(port, "port") == Some(wanted));
            let none = || format!("no service port {wanted} found for service {:?}", asked.name);
            found.map(|port| text(port, &["name"])).ok_or_else(|| Refusal::unavailable(none()))
        }
    }
}

/// Addresses and ports of endpoints that are ready and are what pods have: who writes endpoints could name anything.
fn ready(slices: &[Value], port: &str, is_pods: impl Fn(&str, IpAddr) -> bool) -> Vec<(IpAddr, u16)> {
    let mut out = Vec::new();
    for slice in slices {
        let found = list(slice, &["ports"]).iter().find(|one| text(one, &["name"]) == port);
        let Some(port) = found.and_then(|one| port_of(one, "port")) else { continue };
        for endpoint in list(slice, &["endpoints"]) {
            let conditions = at(endpoint, &["conditions"]);
            let unready = !at(conditions, &["ready"]).is_null() && !flag(conditions, &["ready"]);
            let reference = at(endpoint, &["targetRef"]);
            if unready || text(reference, &["kind"]) != "Pod" {
                continue;
            }
            let addresses =
                list(endpoint, &["addresses"]).iter().filter_map(|one| one.as_str()?.parse().ok());
            let own = addresses.filter(|address| is_pods(text(reference, &["name"]), *address));
            out.extend(own.map(|address| (address, port)));
        }
    }
    out
}

fn has_address(pod: &Value, address: IpAddr) -> bool {
    let ips = list(pod, &["status", "podIPs"]).iter().map(|one| text(one, &["ip"]));
    ips.chain([text(pod, &["status", "podIP"])]).any(|ip| ip.parse() == Ok(address))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn to(scheme: Scheme, address: &str) -> Location {
        Location::Address { scheme, address: address.parse().unwrap() }
    }

    #[test]
    fn a_name_may_carry_a_scheme_and_a_port() {
        let want = |scheme, name, port| Some(Asked { scheme, name, port });
        for (given, parts) in [
            ("a", want(Scheme::Http, "a", "")),
            ("a:80", want(Scheme::Http, "a", "80")),
            ("http:a:web", want(Scheme::Http, "a", "web")),
            ("https:a:", want(Scheme::Https, "a", "")),
            (":a:1", want(Scheme::Http, "a", "1")),
            ("ftp:a:1", None),
            ("https::1", None),
            ("", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(asked(given), parts, "{given}");
        }
    }

    #[test]
    fn a_pods_first_port_is_meant_where_none_is_asked_for() {
        let with = |ports: Value| json!({"spec": {"containers": [{"name": "s"}, {"name": "a", "ports": ports}]}, "status": {"podIP": "10.0.0.5"}});
        let found = with(json!([{"containerPort": 8080}, {"containerPort": 9090}]));
        for (name, want) in [
            ("p", to(Scheme::Http, "10.0.0.5:8080")),
            ("p:81", to(Scheme::Http, "10.0.0.5:81")),
            ("https:p:", to(Scheme::Https, "10.0.0.5:8080")),
        ] {
            assert_eq!(pod(asked(name).unwrap(), &found).unwrap(), want, "{name}");
        }
        for (name, want) in [("p", "10.0.0.5:80"), ("https:p:", "10.0.0.5:443")] {
            let asked = asked(name).unwrap();
            assert_eq!(pod(asked, &with(json!([]))).unwrap(), to(asked.scheme, want), "{name}");
        }
        for name in ["p:web", "p:0", "p:70000"] {
            assert_eq!(pod(asked(name).unwrap(), &found).unwrap_err().code, 400, "{name}");
        }
        assert_eq!(pod(asked("p").unwrap(), &json!({})).unwrap_err().code, 400);
    }

    #[test]
    fn what_only_this_machine_should_reach_is_refused() {
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
        ] {
            let found = json!({"status": {"podIP": address}});
            assert_eq!(
                pod(asked("p").unwrap(), &found).unwrap_err().message,
                "address not allowed",
                "{address}"
            );
        }
    }

    #[test]
    fn a_node_is_its_kubelet_unless_another_port_is_asked_for() {
        let found = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
        for name in ["n", "n:10250", "https:n:10250"] {
            assert_eq!(node(asked(name).unwrap(), found.clone()).unwrap(), Location::Kubelet(found.clone()));
        }
        assert_eq!(node(asked("n:9100").unwrap(), found).unwrap(), to(Scheme::Http, "10.0.0.1:9100"));
    }

    #[test]
    fn a_services_port_is_known_by_name_and_by_number() {
        let one = json!({"spec": {"ports": [{"port": 80}]}});
        let two = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}]}});
        for (name, service, want) in [
            ("s", &one, ""),
            ("s:80", &one, ""),
            ("s:443", &two, "tls"),
            ("s:web", &two, "web"),
            ("s", &two, ""),
        ] {
            assert_eq!(service_port(asked(name).unwrap(), service).unwrap(), want, "{name}");
        }
        let refused = service_port(asked("s:81").unwrap(), &two).unwrap_err();
        assert_eq!((refused.code, &*refused.message), (503, "no service port 81 found for service \"s\""));
    }

    #[test]
    fn only_endpoints_that_are_ready_pods_are_meant() {
        let endpoint = |address: &str, ready: Value, reference: Value| json!({"addresses": [address], "conditions": {"ready": ready}, "targetRef": reference});
        let pod = |name: &str| json!({"kind": "Pod", "name": name});
        let slices = [json!({"ports": [{"name": "web", "port": 8080}], "endpoints": [
            endpoint("10.0.0.1", json!(true), pod("a")),
            endpoint("10.0.0.2", json!(false), pod("a")),
            endpoint("10.0.0.3", Value::Null, pod("a")),
            endpoint("10.0.0.4", json!(true), Value::Null),
            endpoint("10.0.0.5", json!(true), pod("other")),
        ]})];
        let of_a = |name: &str, _: IpAddr| name == "a";
        let found: Vec<String> =
            ready(&slices, "web", of_a).iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        assert_eq!(found, ["10.0.0.1:8080", "10.0.0.3:8080"]);
        assert!(ready(&slices, "tls", of_a).is_empty());
    }
}
