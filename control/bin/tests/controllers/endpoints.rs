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

#[tokio::test]
async fn endpoints_follow_the_pods_of_a_service_and_go_with_it() {
    let (running, client) = cluster().await;
    let web = format!("{ENDPOINTS}/web");
    create(&client, SERVICES, &service("web", &json!({ "app": "web" }))).await;
    let empty = becomes(&client, &web, |found| !found.is_null()).await;
    assert_eq!(empty.get("subsets"), None, "{empty}");
    assert_eq!(empty["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"], "endpoint-controller");

    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    create(&client, PODS, &pod).await;
    let ready = |ready: &str| {
        json!({ "status": { "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }],
                            "conditions": [{ "type": "Ready", "status": ready }] } })
    };
    merge(&client, &format!("{PODS}/a/status"), &ready("True")).await;
    becomes(&client, &web, |found| first_address(found) == "10.1.2.3").await;
    merge(&client, &format!("{PODS}/a/status"), &ready("False")).await;
    becomes(&client, &web, |found| {
        first_address(found).is_null() && found["subsets"][0]["notReadyAddresses"][0]["ip"] == "10.1.2.3"
    })
    .await;

    delete(&client, &web).await;
    becomes(&client, &web, |found| !found.is_null() && found["metadata"]["uid"] != empty["metadata"]["uid"])
        .await;
    delete(&client, &format!("{SERVICES}/web")).await;
    gone(&client, &web).await;
    running.end().await;
}
