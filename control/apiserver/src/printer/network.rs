//! Tables of services, endpoints, ingresses and policies.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, labels, name, or_none, selector, wide, words};
use crate::tree::{at, int, list, text};

pub static SERVICE: Printer = Printer {
    columns: &[
        NAME,
        column("Type").of("core.v1.ServiceSpec", "type"),
        column("Cluster-IP").of("core.v1.ServiceSpec", "clusterIP"),
        column("External-IP").of("core.v1.ServiceSpec", "externalIPs"),
        column("Port(s)").of("core.v1.ServiceSpec", "ports"),
        AGE,
        wide("Selector").of("core.v1.ServiceSpec", "selector"),
    ],
    cells: |service, now| {
        vec![
            name(service),
            at(service, &["spec", "type"]).clone(),
            json!(or_none(text(service, &["spec", "clusterIP"]))),
            json!(external(service)),
            json!(ports(service)),
            age(service, now),
            json!(labels(service, &["spec", "selector"])),
        ]
    },
};

fn external(service: &Value) -> String {
    let given = words(service, &["spec", "externalIPs"]).join(",");
    match text(service, &["spec", "type"]) {
        "LoadBalancer" => {
            let ingress = list(service, &["status", "loadBalancer", "ingress"]).iter();
            let balancers: Vec<&str> = ingress
                .map(|one| {
                    if text(one, &["ip"]).is_empty() { text(one, &["hostname"]) } else { text(one, &["ip"]) }
                })
                .chain(words(service, &["spec", "externalIPs"]))
                .collect();
            if balancers.is_empty() { "<pending>".to_owned() } else { balancers.join(",") }
        }
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        _ => or_none(&given),
    }
}

fn ports(service: &Value) -> String {
    let ports: Vec<String> = list(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (int(port, &["port"]).unwrap_or_default(), text(port, &["protocol"]));
            match int(port, &["nodePort"]).filter(|node| *node > 0) {
                Some(node) => format!("{number}:{node}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    or_none(&ports.join(","))
}

/// At most three entries, then how many more there are.
fn shortened(all: &[String]) -> String {
    match all {
        [] => "<none>".to_owned(),
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a},{b},{c} + {} more...", rest.len()),
        some => some.join(","),
    }
}

pub static ENDPOINTS: Printer = Printer {
    columns: &[NAME, column("Endpoints").of("core.v1.Endpoints", "subsets"), AGE],
    cells: |object, now| {
        let mut all = Vec::new();
        for subset in list(object, &["subsets"]) {
            for port in list(subset, &["ports"]) {
                let number = int(port, &["port"]).unwrap_or_default();
                for address in list(subset, &["addresses"]) {
                    let ip = text(address, &["ip"]);
                    all.push(if ip.contains(':') {
                        format!("[{ip}]:{number}")
                    } else {
                        format!("{ip}:{number}")
                    });
                }
            }
        }
        vec![name(object), json!(shortened(&all)), age(object, now)]
    },
};

pub static ENDPOINT_SLICE: Printer = Printer {
    columns: &[
        NAME,
        column("AddressType").of("discovery.v1.EndpointSlice", "addressType"),
        column("Ports").of("discovery.v1.EndpointSlice", "ports"),
        column("Endpoints").of("discovery.v1.EndpointSlice", "endpoints"),
        AGE,
    ],
    cells: |object, now| {
        let ports: Vec<String> = list(object, &["ports"])
            .iter()
            .filter_map(|port| int(port, &["port"]))
            .map(|p| p.to_string())
            .collect();
        let addresses: Vec<String> = list(object, &["endpoints"])
            .iter()
            .flat_map(|endpoint| words(endpoint, &["addresses"]))
            .map(str::to_owned)
            .collect();
        let unset = |list: &[String]| if list.is_empty() { "<unset>".to_owned() } else { shortened(list) };
        vec![
            name(object),
            at(object, &["addressType"]).clone(),
            json!(unset(&ports)),
            json!(unset(&addresses)),
            age(object, now),
        ]
    },
};

pub static INGRESS: Printer = Printer {
    columns: &[
        NAME,
        column("Class")
            .says("The name of the IngressClass resource that should be used for additional configuration"),
        column("Hosts").says("Hosts that incoming requests are matched against before the ingress rule"),
        column("Address").says("Address is a list containing ingress points for the load-balancer"),
        column("Ports").says("Ports of TLS configurations that open"),
        AGE,
    ],
    cells: |object, now| {
        let hosts: Vec<&str> = list(object, &["spec", "rules"])
            .iter()
            .map(|r| text(r, &["host"]))
            .filter(|h| !h.is_empty())
            .collect();
        let addresses: Vec<&str> =
            list(object, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|one| {
                    if text(one, &["ip"]).is_empty() { text(one, &["hostname"]) } else { text(one, &["ip"]) }
                })
                .collect();
        let secure = !list(object, &["spec", "tls"]).is_empty();
        vec![
            name(object),
            json!(or_none(text(object, &["spec", "ingressClassName"]))),
            json!(if hosts.is_empty() { "*".to_owned() } else { hosts.join(",") }),
            json!(addresses.join(",")),
            json!(if secure { "80, 443" } else { "80" }),
            age(object, now),
        ]
    },
};

pub static INGRESS_CLASS: Printer = Printer {
    columns: &[
        NAME,
        column("Controller").says("Controller that is responsible for handling this class"),
        column("Parameters").says("A reference to a resource with additional parameters"),
        AGE,
    ],
    cells: |object, now| {
        let kind = text(object, &["spec", "parameters", "kind"]);
        let parameters = match text(object, &["spec", "parameters", "apiGroup"]) {
            _ if kind.is_empty() => "<none>".to_owned(),
            "" => format!("{kind}/{}", text(object, &["spec", "parameters", "name"])),
            group => format!("{kind}.{group}/{}", text(object, &["spec", "parameters", "name"])),
        };
        vec![name(object), at(object, &["spec", "controller"]).clone(), json!(parameters), age(object, now)]
    },
};

pub static NETWORK_POLICY: Printer = Printer {
    columns: &[
        NAME,
        column("Pod-Selector").says(
            "Selects the pods to which this NetworkPolicy object applies.  The array of ingress \
            rules is applied to any pods selected by this field. Multiple network policies can \
            select the same set of pods.  In this case, the ingress rules for each are combined \
            additively. This field is NOT optional and follows standard label selector semantics. \
            An empty podSelector matches all pods in this namespace.",
        ),
        AGE,
    ],
    cells: |object, now| {
        vec![name(object), json!(selector(object, &["spec", "podSelector"])), age(object, now)]
    },
};

pub static IP_ADDRESS: Printer = Printer {
    columns: &[NAME, column("ParentRef").of("networking.v1.IPAddressSpec", "parentRef"), AGE],
    cells: |object, now| {
        let parent = at(object, &["spec", "parentRef"]);
        let resource = [text(parent, &["resource"]), text(parent, &["group"])].join(".");
        let path = [resource.trim_end_matches('.'), text(parent, &["namespace"]), text(parent, &["name"])];
        let shown: Vec<&str> = path.into_iter().filter(|part| !part.is_empty()).collect();
        vec![name(object), json!(shown.join("/")), age(object, now)]
    },
};

pub static SERVICE_CIDR: Printer = Printer {
    columns: &[NAME, column("CIDRs").of("networking.v1.ServiceCIDRSpec", "cidrs"), AGE],
    cells: |object, now| {
        vec![name(object), json!(words(object, &["spec", "cidrs"]).join(",")), age(object, now)]
    },
};
