//! What happens in a namespace that is deleted.

use serde_json::{Value, json};

use crate::{becomes, cluster, create, delete, gone, merge};

const NAMESPACES: &str = "/api/v1/namespaces";
const A: &str = "/api/v1/namespaces/a";

fn named(kind: &str, metadata: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata })
}

#[tokio::test]
async fn pods_of_a_namespace_go_first_and_its_events_last() {
    let (running, client) = cluster().await;
    create(&client, NAMESPACES, &named("Namespace", json!({ "name": "a" }))).await;
    becomes(&client, &format!("{A}/serviceaccounts/default"), |found| !found.is_null()).await;
    let mut pod = named("Pod", json!({ "name": "p", "finalizers": ["e2e.example.com/finalizer"] }));
    pod["spec"] = json!({ "containers": [{ "name": "c", "image": "i" }] });
    create(&client, &format!("{A}/pods"), &pod).await;
    create(&client, &format!("{A}/configmaps"), &named("ConfigMap", json!({ "name": "m" }))).await;
    let mut event = named("Event", json!({ "name": "e" }));
    event["involvedObject"] = json!({ "kind": "Pod", "namespace": "a", "name": "p" });
    create(&client, &format!("{A}/events"), &event).await;

    delete(&client, A).await;
    let terminating =
        becomes(&client, A, |found| !condition(found, "NamespaceContentRemaining").is_null()).await;
    assert_eq!(terminating["status"]["phase"], "Terminating");
    assert_eq!(condition(&terminating, "NamespaceDeletionContentFailure")["status"], "False");
    let rest = "Some resources are remaining: pods. has 1 resource instances";
    assert_eq!(condition(&terminating, "NamespaceContentRemaining")["message"], rest);
    let leaving = becomes(&client, &format!("{A}/pods/p"), |found| !found.is_null()).await;
    assert!(!leaving["metadata"]["deletionTimestamp"].is_null(), "{leaving}");
    let waiting = becomes(&client, &format!("{A}/configmaps/m"), |found| !found.is_null()).await;
    assert!(waiting["metadata"]["deletionTimestamp"].is_null(), "{waiting}");

    merge(&client, &format!("{A}/pods/p"), &json!({ "metadata": { "finalizers": null } })).await;
    gone(&client, A).await;
    create(&client, NAMESPACES, &named("Namespace", json!({ "name": "a" }))).await;
    for kind in ["pods", "configmaps", "events"] {
        let left = becomes(&client, &format!("{A}/{kind}"), |found| !found.is_null()).await;
        let old = |one: &&Value| ["p", "m", "e"].iter().any(|name| one["metadata"]["name"] == *name);
        assert_eq!(left["items"].as_array().unwrap().iter().find(old), None);
    }
    running.end().await;
}

fn condition<'a>(namespace: &'a Value, type_: &str) -> &'a Value {
    let conditions = namespace["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|one| one["type"] == type_).unwrap_or(&Value::Null)
}
