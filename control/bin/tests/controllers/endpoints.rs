//! Endpoints of Services, and slices of Endpoints.

use serde_json::{Value, json};

use crate::{becomes, cluster, create, delete, gone, merge};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn service(name: &str, selector: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": selector, "ports": [{ "name": "http", "port": 80 }] } })
}

fn first_address(endpoints: &Value) -> &Value {
    &endpoints["subsets"][0]["addresses"][0]["ip"]
}

fn first_target(endpoints: &Value) -> Value {
    endpoints["subsets"][0]["addresses"][0]["targetRef"].clone()
}

/// When the change that Endpoints carry began.
fn began(endpoints: &Value) -> &Value {
    &endpoints["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"]
}

#[tokio::test]
async fn endpoints_follow_the_pods_of_a_service_and_go_with_it() {
    let (running, client) = cluster().await;
    let web = format!("{ENDPOINTS}/web");
    let service = create(&client, SERVICES, &service("web", &json!({ "app": "web" }))).await;
    let empty = becomes(&client, &web, |found| !found.is_null()).await;
    assert_eq!(empty.get("subsets"), None, "{empty}");
    assert_eq!(empty["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"], "endpoint-controller");

    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    create(&client, PODS, &pod).await;
    let since = "2026-01-01T00:00:00Z";
    let ready = |ready: &str| {
        json!({ "status": { "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }],
                            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": since }] } })
    };
    assert_eq!(began(&empty), &service["metadata"]["creationTimestamp"]);
    merge(&client, &format!("{PODS}/a/status"), &ready("True")).await;
    let listed = becomes(&client, &web, |found| first_address(found) == "10.1.2.3").await;
    assert_eq!(began(&listed), since);
    // Slices list pods that are on a node.
    let slices = format!("{SLICES}?labelSelector=kubernetes.io/service-name=web");
    let endpoint = |found: &Value| found["items"][0]["endpoints"][0].clone();
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" } });
    create(&client, "/api/v1/nodes", &node).await;
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" }, "target": { "name": "n" } });
    create(&client, &format!("{PODS}/a/binding"), &binding).await;
    let sliced = becomes(&client, &slices, |found| endpoint(found)["conditions"]["ready"] == true).await;
    assert_eq!(endpoint(&sliced)["addresses"], json!(["10.1.2.3"]));
    assert_eq!(endpoint(&sliced)["targetRef"], first_target(&listed));
    merge(&client, &format!("{PODS}/a/status"), &ready("False")).await;
    becomes(&client, &web, |found| {
        first_address(found).is_null() && found["subsets"][0]["notReadyAddresses"][0]["ip"] == "10.1.2.3"
    })
    .await;
    becomes(&client, &slices, |found| endpoint(found)["conditions"]["ready"] == false).await;

    delete(&client, &web).await;
    becomes(&client, &web, |found| !found.is_null() && found["metadata"]["uid"] != empty["metadata"]["uid"])
        .await;
    delete(&client, &format!("{SERVICES}/web")).await;
    gone(&client, &web).await;
    becomes(&client, &slices, |found| found["items"] == json!([])).await;
    running.end().await;
}

#[tokio::test]
async fn endpoints_written_by_hand_are_mirrored_through_their_life() {
    let (running, client) = cluster().await;
    let slices = format!("{SLICES}?labelSelector=kubernetes.io/service-name=db");
    let by_hand = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": name },
                "subsets": [{ "addresses": [{ "ip": "10.1.2.3" }], "ports": [{ "port": 80 }] }] })
    };
    create(&client, SERVICES, &service("db", &Value::Null)).await;
    create(&client, ENDPOINTS, &by_hand("db")).await;
    create(&client, ENDPOINTS, &by_hand("alone")).await;
    let mirrors = |address: &'static str| {
        move |found: &Value| {
            let items = found["items"].as_array().unwrap();
            items.len() == 1 && items[0]["endpoints"][0]["addresses"] == json!([address])
        }
    };
    let made = becomes(&client, &slices, mirrors("10.1.2.3")).await;
    let labels = &made["items"][0]["metadata"]["labels"];
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io",
        "{made}"
    );
    let moved = json!({ "subsets": [{ "addresses": [{ "ip": "10.2.3.4" }], "ports": [{ "port": 80 }] }] });
    merge(&client, &format!("{ENDPOINTS}/db"), &moved).await;
    becomes(&client, &slices, mirrors("10.2.3.4")).await;
    delete(&client, &format!("{ENDPOINTS}/db")).await;
    becomes(&client, &slices, |found| found["items"] == json!([])).await;
    // Nobody's Service, nobody's business.
    becomes(&client, &format!("{ENDPOINTS}/alone"), |found| first_address(found) == "10.1.2.3").await;
    running.end().await;
}
