//! Objects as an API server writes them.

use serde::Deserialize;
use serde_json::{Value, json};

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// A page of a list.
#[derive(Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
}

/// The pages of both lists.
pub struct Lists {
    pub services: Vec<String>,
    pub slices: Vec<String>,
}

/// So many services of so many endpoints.
pub fn lists(services: u32, endpoints: u32) -> Lists {
    let pages = |object: &dyn Fn(u32) -> Value| {
        (0..services)
            .step_by(PAGE as usize)
            .map(|first| {
                let items: Vec<Value> = (first..(first + PAGE).min(services)).map(object).collect();
                json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items })
                    .to_string()
            })
            .collect()
    };
    Lists { services: pages(&service), slices: pages(&|number| slice(number, endpoints, 0)) }
}

fn service(number: u32) -> Value {
    let [_, high, middle, low] = number.to_be_bytes();
    json!({
        "metadata": metadata(&format!("service-{number}"), number, &json!({ "app": format!("app-{number}") })),
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "clusterIP": format!("10.{}.{middle}.{low}", 96 + high), "clusterIPs": [format!("10.{}.{middle}.{low}", 96 + high)],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "selector": { "app": format!("app-{number}") },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
        "status": { "loadBalancer": {} },
    })
}

/// The slice of a service; `turn` picks where its last endpoint is.
pub fn slice(number: u32, endpoints: u32, turn: u32) -> Value {
    let endpoint = |last: u32| {
        let address = number * endpoints + last + if last + 1 == endpoints { turn * 16_777 } else { 0 };
        let [_, high, middle, low] = address.to_be_bytes();
        json!({
            "addresses": [format!("10.{high}.{middle}.{low}")],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("node-{}", address % 100),
            "targetRef": {
                "kind": "Pod", "namespace": "default", "name": format!("app-{number}-{last}-{turn}"),
                "uid": format!("00000000-0000-4000-8000-{address:012x}"),
            },
            "zone": "a",
        })
    };
    let labels = json!({
        "kubernetes.io/service-name": format!("service-{number}"),
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    json!({
        "addressType": "IPv4",
        "metadata": metadata(&format!("service-{number}-x7k2p"), number, &labels),
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn metadata(name: &str, number: u32, labels: &Value) -> Value {
    json!({
        "name": name, "namespace": "default", "uid": format!("00000000-0000-4000-9000-{number:012x}"),
        "resourceVersion": number.to_string(), "creationTimestamp": "2026-01-02T03:04:05Z", "labels": labels,
        "managedFields": [{
            "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
            "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
            "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:app": {} } }, "f:spec": { "f:ports": {} } },
        }],
    })
}
