//! Evictions: pods go as their disruption budget allows, and nobody is evicted by a question.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::objects::pod;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod that runs, ready or not.
async fn running(admin: &Client, name: &str, ready: bool) {
    admin.send("POST", PODS, &pod(name, json!({"app": "a"}))).await.expect(201);
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    admin.patch("merge", &format!("{PODS}/{name}/status"), &status).await.expect(200);
}

/// A budget for these pods, with a status its controller would have written.
async fn budget(admin: &Client, name: &str, spec: Value, status: Value) {
    let mut object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    admin.send("POST", BUDGETS, &object).await.expect(201);
    told(admin, name, status).await;
}

async fn told(admin: &Client, name: &str, mut status: Value) {
    status["observedGeneration"] = json!(1);
    admin.patch("merge", &format!("{BUDGETS}/{name}/status"), &json!({"status": status})).await.expect(200);
}

fn eviction(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})
}

async fn evict(admin: &Client, name: &str) -> crate::cluster::Answer {
    admin.send("POST", &format!("{PODS}/{name}/eviction"), &eviction(name)).await
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    running(&admin, "p", true).await;
    let object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    admin.send("POST", BUDGETS, &object).await.expect(201);
    let unseen = evict(&admin, "p").await;
    assert_eq!(unseen.headers["retry-after"], "10");
    let cause = &unseen.refused(429, "TooManyRequests")["details"]["causes"][0];
    let want = "The disruption budget b is still being processed by the server.";
    assert_eq!((&cause["reason"], &cause["message"]), (&json!("DisruptionBudget"), &json!(want)));

    told(&admin, "b", json!({"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1})).await;
    let refused = evict(&admin, "p").await;
    assert!(!refused.headers.contains_key("retry-after"), "a client would try again by itself");
    let status = refused.refused(429, "TooManyRequests");
    assert_eq!(status["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let want = "The disruption budget b needs 1 healthy pods and has 1 currently";
    assert_eq!(status["details"]["causes"][0]["message"], want);

    told(&admin, "b", json!({"disruptionsAllowed": 1})).await;
    assert_eq!(evict(&admin, "p").await.expect(201)["status"], "Success");
    admin.get(&format!("{PODS}/p")).await.refused(404, "NotFound");
    let spent = admin.get(&format!("{BUDGETS}/b")).await.expect(200)["status"].clone();
    assert_eq!(spent["disruptionsAllowed"], 0);
    assert!(spent["disruptedPods"]["p"].is_string(), "{spent}");
    assert_eq!(spent["conditions"][0]["reason"], "InsufficientPods");
}

#[tokio::test]
async fn two_budgets_for_one_pod_are_a_fault() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    running(&admin, "p", true).await;
    for name in ["a", "b"] {
        budget(&admin, name, json!({}), json!({"disruptionsAllowed": 1})).await;
    }
    let status = evict(&admin, "p").await.expect(500);
    let want =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!((&status["message"], &status["reason"]), (&json!(want), &Value::Null));
    admin.get(&format!("{PODS}/p")).await.expect(200);
}

#[tokio::test]
async fn pods_that_are_not_ready_go_as_the_policy_says() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for name in ["p", "q", "r"] {
        running(&admin, name, false).await;
    }
    let short = json!({"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2});
    budget(&admin, "b", json!({}), short.clone()).await;
    evict(&admin, "p").await.refused(429, "TooManyRequests");
    told(&admin, "b", json!({"disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 2})).await;
    evict(&admin, "p").await.expect(201);
    told(&admin, "b", short).await;
    evict(&admin, "q").await.refused(429, "TooManyRequests");
    let policy = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    admin.patch("merge", &format!("{BUDGETS}/b"), &policy).await.expect(200);
    evict(&admin, "q").await.expect(201);
    let left = admin.get(&format!("{BUDGETS}/b")).await.expect(200)["status"].clone();
    assert_eq!((&left["disruptionsAllowed"], &left["disruptedPods"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn pods_that_do_not_run_yet_or_any_more_are_not_counted() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    budget(&admin, "b", json!({}), json!({"disruptionsAllowed": 0})).await;
    admin.send("POST", PODS, &pod("pending", json!({"app": "a"}))).await.expect(201);
    evict(&admin, "pending").await.expect(201);
    running(&admin, "done", true).await;
    let done = json!({"status": {"phase": "Succeeded"}});
    admin.patch("merge", &format!("{PODS}/done/status"), &done).await.expect(200);
    evict(&admin, "done").await.expect(201);
    for name in ["pending", "done"] {
        admin.get(&format!("{PODS}/{name}")).await.refused(404, "NotFound");
    }
    // A budget that selects nothing, and a pod that nothing selects.
    let none = json!({"spec": {"selector": {"matchLabels": null}}});
    admin.patch("merge", &format!("{BUDGETS}/b"), &none).await.expect(200);
    admin.send("POST", PODS, &pod("bare", json!({}))).await.expect(201);
    let status = json!({"status": {"phase": "Running"}});
    admin.patch("merge", &format!("{PODS}/bare/status"), &status).await.expect(200);
    evict(&admin, "bare").await.expect(201);
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_goes() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut object = pod("p", json!({}));
    object["spec"]["nodeName"] = json!("n1");
    admin.send("POST", PODS, &object).await.expect(201);
    let mut wrong = eviction("p");
    wrong["deleteOptions"] = json!({"preconditions": {"uid": "other"}});
    admin.send("POST", &format!("{PODS}/p/eviction"), &wrong).await.refused(409, "Conflict");
    admin.send("POST", &format!("{PODS}/p/eviction"), &eviction("q")).await.refused(400, "BadRequest");
    evict(&admin, "p").await.expect(201);
    let going = admin.get(&format!("{PODS}/p")).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let condition = &going["status"]["conditions"][0];
    assert_eq!(condition["type"], "DisruptionTarget");
    assert_eq!(condition["reason"], "EvictionByEvictionAPI");
}

#[tokio::test]
async fn a_dry_run_deletes_nothing_wherever_it_is_asked_for() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    running(&admin, "p", true).await;
    budget(&admin, "b", json!({}), json!({"disruptionsAllowed": 1})).await;
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]});
    let mut asked = eviction("p");
    asked["deleteOptions"] = json!({"dryRun": ["All"]});
    admin.send("POST", &format!("{PODS}/p/eviction"), &asked).await.expect(201);
    admin.send("POST", &format!("{PODS}/p/eviction?dryRun=All"), &eviction("p")).await.expect(201);
    admin.send("DELETE", &format!("{PODS}/p"), &options).await.expect(200);
    admin.send("DELETE", PODS, &options).await.expect(200);
    let pod = admin.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(pod["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(pod["status"]["conditions"].as_array().unwrap().len(), 1);
    assert_eq!(admin.get(&format!("{BUDGETS}/b")).await.expect(200)["status"]["disruptionsAllowed"], 1);
    let strange = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["Some"]});
    admin.send("DELETE", &format!("{PODS}/p"), &strange).await.refused(422, "Invalid");
}
