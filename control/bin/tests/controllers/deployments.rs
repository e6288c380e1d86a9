//! Deployments and budgets over pods that somebody reports as running, after upstream's conformance tests.

use http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{ask, becomes, cluster, create, delete, gone, merge};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// Says of every pod that it runs and is ready, for as long as it is held.
fn kubelet(client: &Client) -> AbortOnDropHandle<()> {
    let client = client.clone();
    let status =
        json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let found = ask(&client, Method::GET, PODS, &Value::Null).await.unwrap();
            for pod in items(&found).iter().filter(|pod| pod["status"]["phase"] == "Pending") {
                let path = format!("{PODS}/{}/status", pod["metadata"]["name"].as_str().unwrap());
                if let Err(error) = ask(&client, Method::PATCH, &path, &status).await {
                    assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{error}");
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }))
}

fn items(found: &Value) -> &[Value] {
    found["items"].as_array().map_or(&[], Vec::as_slice)
}

fn deployment(name: &str, replicas: u32, image: &str, strategy: &str) -> Value {
    let spec = json!({ "containers": [{ "name": "c", "image": image }] });
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": { "test": "new" } },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": name } }, "strategy": { "type": strategy },
                      "template": { "metadata": { "labels": { "app": name } }, "spec": spec } } })
}

/// Whether as many pods of that image are ready, and no others are left.
fn runs(replicas: u32, image: &'static str) -> impl Fn(&Value) -> bool {
    move |found| {
        let status = &found["status"];
        found["spec"]["template"]["spec"]["containers"][0]["image"] == image
            && status["observedGeneration"] == found["metadata"]["generation"]
            && ["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"]
                .iter()
                .all(|count| status[*count] == replicas)
    }
}

#[tokio::test]
async fn a_deployment_lives_through_patches_updates_and_a_status_of_somebody_else() {
    let (running, client) = cluster().await;
    let _kubelet = kubelet(&client);
    let path = format!("{DEPLOYMENTS}/d");
    create(&client, DEPLOYMENTS, &deployment("d", 2, "one", "RollingUpdate")).await;
    becomes(&client, &path, runs(2, "one")).await;

    let containers = json!([{ "name": "c", "image": "two" }]);
    let patch = json!({ "spec": { "replicas": 1, "template": { "spec": { "containers": containers } } } });
    merge(&client, &path, &patch).await;
    becomes(&client, &path, runs(1, "two")).await;
    let mut updated = deployment("d", 2, "three", "RollingUpdate");
    updated["metadata"]["labels"]["test"] = json!("updated");
    ask(&client, Method::PUT, &path, &updated).await.unwrap();
    let settled = becomes(&client, &path, runs(2, "three")).await;
    assert_eq!(settled["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");

    let status = json!({ "readyReplicas": 0, "availableReplicas": 0 });
    let foreign = json!({ "metadata": { "labels": { "test": "status" } }, "status": status });
    let told = merge(&client, &format!("{path}/status"), &foreign).await;
    assert_eq!(told["metadata"]["labels"]["test"], "updated");
    becomes(&client, &path, runs(2, "three")).await;

    let sets = becomes(&client, SETS, |found| items(found).len() == 3).await;
    assert!(
        items(&sets)
            .iter()
            .all(|set| set["metadata"]["ownerReferences"][0]["uid"] == settled["metadata"]["uid"])
    );
    merge(&client, &path, &json!({ "spec": { "revisionHistoryLimit": 0 } })).await;
    becomes(&client, SETS, |found| items(found).len() == 1).await;
    ask(&client, Method::DELETE, &format!("{DEPLOYMENTS}?labelSelector=test=updated"), &Value::Null)
        .await
        .unwrap();
    gone(&client, &path).await;
    for rest in [SETS, PODS] {
        becomes(&client, rest, |found| !found.is_null() && items(found).is_empty()).await;
    }
    running.end().await;
}

#[tokio::test]
async fn a_deployment_that_recreates_has_no_pods_of_two_kinds() {
    let (running, client) = cluster().await;
    let path = format!("{DEPLOYMENTS}/d");
    create(&client, DEPLOYMENTS, &deployment("d", 2, "one", "Recreate")).await;
    let images = |found: &Value| -> Vec<String> {
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        items(found).iter().map(image).collect()
    };
    // The second time the set of the template is there already.
    for (old, new) in [("one", "two"), ("two", "one")] {
        let pods = becomes(&client, PODS, |found| images(found) == [old, old]).await;
        let last = format!("{PODS}/{}", items(&pods)[0]["metadata"]["name"].as_str().unwrap());
        merge(&client, &last, &json!({ "metadata": { "finalizers": ["example.com/hold"] } })).await;
        let containers = json!([{ "name": "c", "image": new }]);
        merge(&client, &path, &json!({ "spec": { "template": { "spec": { "containers": containers } } } }))
            .await;
        becomes(&client, &last, |found| !found["metadata"]["deletionTimestamp"].is_null()).await;
        becomes(&client, PODS, |found| images(found) == [old]).await;
        // Whoever does not wait makes the new ones within milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(images(&ask(&client, Method::GET, PODS, &Value::Null).await.unwrap()), [old]);
        merge(&client, &last, &json!({ "metadata": { "finalizers": null } })).await;
    }
    becomes(&client, PODS, |found| images(found) == ["one", "one"]).await;
    running.end().await;
}

#[tokio::test]
async fn an_eviction_is_blocked_until_the_budget_is_changed_to_allow_it() {
    let (running, client) = cluster().await;
    let _kubelet = kubelet(&client);
    let path = format!("{BUDGETS}/b");
    let selector = json!({ "matchLabels": { "app": "d" } });
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" },
                         "spec": { "minAvailable": 3, "selector": selector } });
    create(&client, BUDGETS, &budget).await;
    create(&client, DEPLOYMENTS, &deployment("d", 3, "one", "RollingUpdate")).await;
    let healthy = |count: u32, allowed: u32| {
        move |found: &Value| {
            let status = &found["status"];
            status["currentHealthy"] == count
                && status["disruptionsAllowed"] == allowed
                && status["observedGeneration"] == found["metadata"]["generation"]
        }
    };
    becomes(&client, &path, healthy(3, 0)).await;
    let name = async || {
        let pods = becomes(&client, PODS, |found| items(found).len() == 3).await;
        items(&pods)[0]["metadata"]["name"].as_str().unwrap().to_owned()
    };
    let evict = async |name: &str| {
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } });
        ask(&client, Method::POST, &format!("{PODS}/{name}/eviction"), &eviction).await
    };
    let is_blocked = |answer: Result<Value, kube::Error>| {
        let Err(kube::Error::Api(status)) = answer else { panic!("{answer:?}") };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        assert!(causes.into_iter().any(|cause| cause.reason == "DisruptionBudget"), "{status:?}");
    };
    let first = name().await;
    is_blocked(evict(&first).await);
    merge(&client, &path, &json!({ "spec": { "minAvailable": 2 } })).await;
    becomes(&client, &path, healthy(3, 1)).await;
    evict(&first).await.unwrap();
    merge(&client, &path, &json!({ "spec": { "minAvailable": null, "maxUnavailable": 0 } })).await;
    is_blocked(evict(&name().await).await);
    becomes(&client, &path, healthy(3, 0)).await;
    delete(&client, &path).await;
    evict(&name().await).await.unwrap();
    running.end().await;
}
