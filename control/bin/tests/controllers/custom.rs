//! Custom resources with the controllers running: what goes with a namespace, an owner, or a kind.

use kube::Client;
use serde_json::{Value, json};

use crate::{cluster, create, delete, gone};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

async fn define(client: &Client) {
    let spec = json!({ "type": "object", "properties": { "replicas": { "type": "integer" } } });
    let schema = json!({ "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } });
    let definition = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": { "group": "stable.example.com", "scope": "Namespaced",
            "names": { "plural": "crontabs", "kind": "CronTab" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }] } });
    create(client, DEFINITIONS, &definition).await;
}

fn crontab(name: &str) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "spec": {} })
}

/// A ConfigMap that belongs to an object.
fn owned(name: &str, owner: &Value) -> Value {
    let reference = json!({ "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"] });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": [reference] } })
}

#[tokio::test]
async fn custom_objects_go_with_their_namespace_and_take_what_they_own_along() {
    let (running, client) = cluster().await;
    define(&client).await;

    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a" } });
    create(&client, "/api/v1/namespaces", &namespace).await;
    create(&client, &CRONTABS.replace("/default/", "/a/"), &crontab("one")).await;
    delete(&client, "/api/v1/namespaces/a").await;
    gone(&client, "/api/v1/namespaces/a").await;

    let owner = create(&client, CRONTABS, &crontab("owner")).await;
    create(&client, MAPS, &owned("first", &owner)).await;
    delete(&client, &format!("{CRONTABS}/owner")).await;
    gone(&client, &format!("{MAPS}/first")).await;

    let owner = create(&client, CRONTABS, &crontab("owner")).await;
    create(&client, MAPS, &owned("second", &owner)).await;
    delete(&client, DEFINITION).await;
    gone(&client, &format!("{MAPS}/second")).await;
    gone(&client, DEFINITION).await;

    // A kind that went does not keep namespaces waiting.
    create(&client, "/api/v1/namespaces", &namespace).await;
    delete(&client, "/api/v1/namespaces/a").await;
    gone(&client, "/api/v1/namespaces/a").await;
    running.end().await;
}
