//! What ResourceQuotas say is used.

use serde_json::{Value, json};

use crate::{ask, becomes, cluster, create, delete, merge};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn quota(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": name }, "spec": spec })
}

fn pod(name: &str, resources: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "containers": [{ "name": "c", "image": "i", "resources": resources }] } })
}

#[tokio::test]
async fn a_quota_follows_what_comes_and_goes_in_its_namespace() {
    let (running, client) = cluster().await;
    let path = format!("{QUOTAS}/all");
    let hard = json!({ "pods": "5", "cpu": "1", "requests.memory": "500Mi", "configmaps": "10", "services": "10",
                       "services.nodeports": "1", "count/replicasets.apps": "5", "resourcequotas": "1" });
    let using = |wanted: Value| {
        move |found: &Value| {
            let mut all = wanted.as_object().unwrap().iter();
            all.all(|(name, amount)| found["status"]["used"][name] == *amount)
        }
    };
    create(&client, QUOTAS, &quota("all", &json!({ "hard": hard }))).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    becomes(
        &client,
        &path,
        using(json!({ "pods": "0", "cpu": "0", "configmaps": "1", "resourcequotas": "1" })),
    )
    .await;

    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    create(&client, maps, &map).await;
    let ports = json!({ "type": "NodePort", "ports": [{ "port": 80 }] });
    let service =
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" }, "spec": ports });
    create(&client, "/api/v1/namespaces/default/services", &service).await;
    create(&client, PODS, &pod("a", &json!({ "requests": { "cpu": "250m", "memory": "100Mi" } }))).await;
    let busy = json!({ "pods": "1", "cpu": "250m", "requests.memory": "100Mi", "configmaps": "2", "services.nodeports": "1" });
    becomes(&client, &path, using(busy)).await;

    delete(&client, &format!("{maps}/a")).await;
    delete(&client, "/api/v1/namespaces/default/services/a").await;
    delete(&client, &format!("{PODS}/a")).await;
    becomes(
        &client,
        &path,
        using(json!({ "pods": "0", "cpu": "0", "configmaps": "1", "services.nodeports": "0" })),
    )
    .await;

    merge(&client, &path, &json!({ "spec": { "hard": { "cpu": "2", "pods": null } } })).await;
    let changed = becomes(&client, &path, |found| found["status"]["hard"]["cpu"] == "2").await;
    assert_eq!(changed["status"]["used"].get("pods"), None, "{changed}");
    let other = json!({ "status": { "hard": { "cpu": "9" } } });
    let repatched = ask(&client, http::Method::PATCH, &format!("{path}/status"), &other).await.unwrap();
    assert_eq!(repatched["status"]["hard"]["cpu"], "9");
    becomes(&client, &path, |found| found["status"]["hard"]["cpu"] == "2").await;
    running.end().await;
}

#[tokio::test]
async fn objects_are_counted_of_kinds_that_exist_and_events_never() {
    let (running, client) = cluster().await;
    let hard = json!({ "count/leases.coordination.k8s.io": "1", "count/events": "1", "count/podtemplates": "1",
                       "count/widgets.example.com": "1" });
    create(&client, QUOTAS, &quota("counts", &json!({ "hard": hard }))).await;
    let lease =
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "a" } });
    create(&client, "/apis/coordination.k8s.io/v1/namespaces/default/leases", &lease).await;
    let counted = |found: &Value| found["status"]["used"]["count/leases.coordination.k8s.io"] == "1";
    let found = becomes(&client, &format!("{QUOTAS}/counts"), counted).await;
    let want = json!({ "count/leases.coordination.k8s.io": "1", "count/podtemplates": "0" });
    assert_eq!(found["status"]["used"], want);
    running.end().await;
}

#[tokio::test]
async fn scoped_quotas_count_the_pods_they_mean() {
    let (running, client) = cluster().await;
    let hard = json!({ "pods": "5" });
    for scope in ["BestEffort", "NotBestEffort"] {
        let spec = json!({ "hard": hard, "scopes": [scope] });
        create(&client, QUOTAS, &quota(&scope.to_lowercase(), &spec)).await;
    }
    let pods = |amount: &'static str| move |found: &Value| found["status"]["used"]["pods"] == amount;
    create(&client, PODS, &pod("a", &json!({}))).await;
    becomes(&client, &format!("{QUOTAS}/besteffort"), pods("1")).await;
    becomes(&client, &format!("{QUOTAS}/notbesteffort"), pods("0")).await;
    create(&client, PODS, &pod("b", &json!({ "requests": { "cpu": "1" } }))).await;
    becomes(&client, &format!("{QUOTAS}/notbesteffort"), pods("1")).await;
    becomes(&client, &format!("{QUOTAS}/besteffort"), pods("1")).await;
    running.end().await;
}
