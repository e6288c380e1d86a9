//! Taints of nodes, and who has to leave.

use serde_json::{Value, json};

use crate::{becomes, cluster, create, merge};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A pod on the node that tolerates the taint: for a time, or for ever.
fn pod(name: &str, seconds: &Value) -> Value {
    let toleration = json!({ "key": "kubernetes.io/e2e-evict-taint-key", "operator": "Equal", "value": "evictTaintVal",
                             "effect": "NoExecute", "tolerationSeconds": seconds });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "nodeName": "n", "tolerations": [toleration], "containers": [{ "name": "c", "image": "i" }] } })
}

#[tokio::test]
async fn pods_leave_a_tainted_node_when_their_patience_ends() {
    let (running, client) = cluster().await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" } });
    create(&client, "/api/v1/nodes", &node).await;
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    merge(&client, "/api/v1/nodes/n/status", &json!({ "status": { "conditions": ready } })).await;
    becomes(&client, "/api/v1/nodes/n", |found| found["spec"]["taints"].is_null()).await;
    for (name, seconds) in [("patient", json!(1)), ("lasting", json!(null))] {
        create(&client, PODS, &pod(name, &seconds)).await;
    }
    let taint = json!({ "key": "kubernetes.io/e2e-evict-taint-key", "value": "evictTaintVal", "effect": "NoExecute" });
    merge(&client, "/api/v1/nodes/n", &json!({ "spec": { "taints": [taint] } })).await;
    let leaves = |found: &Value| !found["metadata"]["deletionTimestamp"].is_null();
    becomes(&client, &format!("{PODS}/patient"), leaves).await;
    becomes(&client, &format!("{PODS}/lasting"), |found| !found.is_null() && !leaves(found)).await;
    running.end().await;
}
