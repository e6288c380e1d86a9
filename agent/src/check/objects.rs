//! The objects that check makes: a namespace with a few pods and Services. Pure.

use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Port of the servers' pods, TCP and UDP.
pub const PORT: u16 = 8080;
/// Port of their Services.
pub const SERVICE_PORT: u16 = 80;
/// Label of the namespaces, by which those of a killed check are found.
pub const LABEL: &str = "hawser.dev/check";
/// A class nobody else has, so that no cloud makes a load balancer.
const CLASS: &str = "hawser.dev/check";

/// The namespace, named by the API server.
pub fn namespace() -> core::Namespace {
    typed(json!({
        "metadata": {
            "generateName": "hawser-check-",
            // One of the pods is in the network of its node.
            "labels": { LABEL: "", "pod-security.kubernetes.io/enforce": "privileged" },
        },
    }))
}

/// A pod that answers with its own name, on this node.
pub fn server(name: &str, node: &str, image: &str) -> core::Pod {
    let arguments = ["check-serve", "--name", name, "--port", &PORT.to_string()].map(str::to_owned);
    pod(name, node, image, &arguments, false)
}

/// A pod that asks, on this node: of the pod network or of the node's.
pub fn caller(name: &str, node: &str, image: &str, asks: &str, patience: u64) -> core::Pod {
    let arguments = ["check-call", "--patience", &patience.to_string(), "--", asks].map(str::to_owned);
    pod(name, node, image, &arguments, name == HOST_CALLER)
}

/// Name of the caller in the pod network.
pub const POD_CALLER: &str = "caller-pod";
/// Name of the one in its node's.
pub const HOST_CALLER: &str = "caller-host";

fn pod(name: &str, node: &str, image: &str, arguments: &[String], host_network: bool) -> core::Pod {
    typed(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "dnsPolicy": "Default",
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "check",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/hawser-agent"],
                "args": arguments,
            }],
        },
    }))
}

/// The Service of the server with this name; `asks_cluster`: the cluster gives its load balancer an address.
pub fn service(name: &str, asks_cluster: bool) -> core::Service {
    let port = |protocol: &str| json!({ "name": protocol.to_lowercase(), "port": SERVICE_PORT, "targetPort": PORT, "protocol": protocol });
    let mut object = json!({
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "selector": { "app": name },
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [port("TCP"), port("UDP")],
        },
    });
    if !asks_cluster {
        object["spec"]["loadBalancerClass"] = CLASS.into();
    }
    typed(object)
}

/// The status that gives the load balancer of the server with this number its addresses: of networks for tests between
/// devices (RFC 2544) and for documentation (RFC 3849), which nobody routes.
pub fn balanced(number: usize, families: &[String]) -> Value {
    let address = |family: &String| match family.as_str() {
        "IPv6" => json!({ "ip": format!("2001:db8:75::{}", number + 1) }),
        _ => json!({ "ip": format!("198.18.75.{}", number + 1) }),
    };
    let ingress: Vec<Value> = families.iter().map(address).collect();
    json!({ "status": { "loadBalancer": { "ingress": ingress } } })
}

fn typed<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("a literal of the kind's shape")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_caller_is_in_the_network_of_its_node() {
        let is_host = |pod: core::Pod| pod.spec.unwrap().host_network;
        assert_eq!(is_host(caller(HOST_CALLER, "n1", "i", "[]", 3)), Some(true));
        assert_eq!(is_host(caller(POD_CALLER, "n1", "i", "[]", 3)), Some(false));
        let spec = server("same", "n2", "i").spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n2"));
        assert_eq!(spec.containers[0].args.as_ref().unwrap()[2], "same");
    }

    #[test]
    fn only_a_cluster_that_is_asked_gives_addresses() {
        assert_eq!(service("a", false).spec.unwrap().load_balancer_class.as_deref(), Some(CLASS));
        assert_eq!(service("a", true).spec.unwrap().load_balancer_class, None);
        let families = ["IPv4".to_owned(), "IPv6".to_owned()];
        let ingress = &balanced(1, &families)["status"]["loadBalancer"]["ingress"];
        assert_eq!(ingress[0]["ip"], "198.18.75.2");
        assert_eq!(ingress[1]["ip"], "2001:db8:75::2");
        assert_eq!(balanced(0, &families[..1])["status"]["loadBalancer"]["ingress"][1], Value::Null);
    }
}
