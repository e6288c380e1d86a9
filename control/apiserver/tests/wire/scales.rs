//! Scales: a small object that stands for a part of a large one, also for who owns it.

use serde_json::{Value, json};

use crate::cluster::cluster;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": {
        "replicas": 2, "selector": { "matchLabels": { "app": "a" } },
        "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": "i:1" }] } } } })
}

fn scale(replicas: i64) -> Value {
    json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" }, "spec": { "replicas": replicas } })
}

/// Who owns the replicas.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    let owning = entries.filter(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some());
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    owning
        .map(|entry| {
            ["manager", "operation", "apiVersion", "subresource"].map(|field| word(entry, field)).join(" ")
        })
        .collect()
}

#[tokio::test]
async fn a_scale_that_is_applied_is_owned_by_who_applied_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let one = format!("{DEPLOYMENTS}/web");
    let (uri, mine) = (format!("{one}/scale?fieldManager=robot"), format!("{one}?fieldManager=a"));
    let made = admin.patch("apply", &mine, &deployment()).await.expect(201);
    assert_eq!(owners(&made), ["a Apply apps/v1 "]);
    admin.patch("apply", &format!("{one}/scale"), &scale(3)).await.refused(422, "Invalid");
    let said = admin.patch("apply", &uri, &scale(3)).await.refused(409, "Conflict");
    assert_eq!(said["message"], "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let forced = admin.patch("apply", &format!("{uri}&force=true"), &scale(3)).await.expect(200);
    assert_eq!((&forced["kind"], &forced["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(owners(&admin.get(&one).await.expect(200)), ["robot Apply apps/v1 scale"]);
    admin.send("PUT", &format!("{one}/scale?fieldManager=hand"), &scale(4)).await.expect(200);
    assert_eq!(owners(&admin.get(&one).await.expect(200)), ["hand Update apps/v1 scale"]);
    let said = admin.patch("apply", &uri, &scale(3)).await.refused(409, "Conflict");
    let want = "conflict with \"hand\" with subresource \"scale\" using autoscaling/v1";
    assert_eq!(said["details"]["causes"][0]["message"], want);
    admin.patch("apply", &uri, &scale(-1)).await.refused(422, "Invalid");
    let said = admin.patch("apply", &uri, &deployment()).await.refused(400, "BadRequest");
    assert_eq!(said["message"], "invalid object type: apps/v1, Kind=Deployment");
    let said = admin.send("PUT", &format!("{one}/scale"), &deployment()).await.refused(400, "BadRequest");
    let want = "Deployment in version \"v1\" cannot be handled as a Scale: converting (v1.Deployment) to (autoscaling.Scale): \
                unknown conversion";
    assert_eq!(said["message"], want);
}

#[tokio::test]
async fn a_path_without_the_method_says_so_in_the_words_of_upstream() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for (method, uri) in [
        ("PUT", DEPLOYMENTS),
        ("POST", "/version"),
        ("POST", "/apis/apps/v1/namespaces/default/deployments/web/scale"),
    ] {
        let said = admin.send(method, uri, &scale(1)).await.refused(405, "MethodNotAllowed");
        assert_eq!(
            said["message"], "the server does not allow this method on the requested resource",
            "{uri}"
        );
    }
}

#[tokio::test]
async fn a_scale_is_of_its_object_and_says_nothing_strange() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", DEPLOYMENTS, &deployment()).await.expect(201);
    let uri = format!("{DEPLOYMENTS}/web/scale");
    let mut other = admin.get(&uri).await.expect(200);
    other["metadata"]["name"] = json!("other");
    admin.send("PUT", &uri, &other).await.refused(400, "BadRequest");
    let strict = format!("{uri}?fieldValidation=Strict");
    let said = admin.patch("merge", &strict, &json!({"spec": {"odd": 2}})).await.refused(422, "Invalid");
    assert_eq!(said["details"]["causes"][0]["field"], "patch");
    admin.patch("merge", &uri, &json!({"spec": {"replicas": "x"}})).await.refused(422, "Invalid");
    admin
        .patch("merge", &format!("{uri}?fieldManager=m"), &json!({"spec": {"replicas": 7}}))
        .await
        .expect(200);
    let owners =
        admin.get(&format!("{DEPLOYMENTS}/web")).await.expect(200)["metadata"]["managedFields"].clone();
    let timeless = |owner: &&Value| owner.get("time").is_none();
    let found: Vec<&Value> = owners.as_array().unwrap().iter().filter(timeless).collect();
    assert_eq!((found.len(), &found[0]["manager"]), (1, &json!("m")));
}
