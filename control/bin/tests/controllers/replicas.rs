//! The pods of ReplicationControllers.

use serde_json::{Value, json};

use crate::{becomes, cluster, create, delete, gone, merge};

const SETS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn controller(name: &str, replicas: u32, spec: Value) -> Value {
    let template = json!({ "metadata": { "labels": { "app": name } }, "spec": spec });
    json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": name },
            "spec": { "replicas": replicas, "selector": { "app": name }, "template": template } })
}

fn containers() -> Value {
    json!({ "containers": [{ "name": "c", "image": "i" }] })
}

fn pods(found: &Value) -> &[Value] {
    found["items"].as_array().map_or(&[], Vec::as_slice)
}

#[tokio::test]
async fn a_replication_controller_makes_scales_releases_adopts_and_leaves_pods() {
    let (running, client) = cluster().await;
    let of = |label: &str| format!("{PODS}?labelSelector=app={label}");
    create(&client, SETS, &controller("rc", 2, containers())).await;
    let made = becomes(&client, &of("rc"), |found| pods(found).len() == 2).await;
    becomes(&client, &format!("{SETS}/rc"), |found| found["status"]["replicas"] == 2).await;

    let name = pods(&made)[0]["metadata"]["name"].as_str().unwrap();
    merge(&client, &format!("{PODS}/{name}"), &json!({ "metadata": { "labels": { "app": "free" } } })).await;
    let owners = |found: &Value| found["metadata"]["ownerReferences"].clone();
    becomes(&client, &format!("{PODS}/{name}"), |found| owners(found).is_null()).await;
    becomes(&client, &of("rc"), |found| pods(found).len() == 2).await;

    merge(&client, &format!("{SETS}/rc/scale"), &json!({ "spec": { "replicas": 3 } })).await;
    becomes(&client, &of("rc"), |found| pods(found).len() == 3).await;
    merge(&client, &format!("{SETS}/rc/scale"), &json!({ "spec": { "replicas": 1 } })).await;
    becomes(&client, &of("rc"), |found| pods(found).len() == 1).await;

    create(&client, SETS, &controller("free", 1, containers())).await;
    let adopted = becomes(&client, &format!("{PODS}/{name}"), |found| !owners(found).is_null()).await;
    assert_eq!(owners(&adopted)[0]["name"], "free");
    assert_eq!(owners(&adopted)[0]["controller"], true);

    delete(&client, &format!("{SETS}/free")).await;
    gone(&client, &format!("{SETS}/free")).await;
    becomes(&client, &format!("{PODS}/{name}"), |found| !found.is_null() && owners(found).is_null()).await;
    running.end().await;
}

#[tokio::test]
async fn pods_that_are_refused_are_a_condition_until_they_are_not() {
    let (running, client) = cluster().await;
    let mut spec = containers();
    spec["serviceAccountName"] = json!("late");
    create(&client, SETS, &controller("rc", 1, spec)).await;
    let failure = |found: &Value| {
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|one| one["type"] == "ReplicaFailure")
    };
    let refused = becomes(&client, &format!("{SETS}/rc"), |found| failure(found).is_some()).await;
    let told = failure(&refused).unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("FailedCreate")));
    assert!(told["message"].as_str().unwrap().contains("late"), "{told}");
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "late" } });
    create(&client, "/api/v1/namespaces/default/serviceaccounts", &account).await;
    becomes(&client, &format!("{SETS}/rc"), |found| {
        failure(found).is_none() && found["status"]["replicas"] == 1
    })
    .await;
    running.end().await;
}
