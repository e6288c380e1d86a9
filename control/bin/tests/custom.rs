//! Custom resources with the controllers running: what goes with a namespace, an owner, or a kind.

use std::time::Duration;

use apiserver::{CONTROLLERS, Running, User};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// An API server in memory, and the controllers beside it.
async fn cluster(folder: &std::path::Path, stop: &CancellationToken) -> (Running, Client) {
    let config = apiserver::Config::loopback(folder, apiserver::Storage::Memory);
    let server = apiserver::start(config).await.unwrap();
    let client =
        |name: &str, groups: &[&str]| Client::new(server.service(User::new(name, groups)), "default");
    let config = controllers::Config {
        cluster_ca: server.ca_pem.clone(),
        cluster_cidrs: Vec::new(),
        node_grace: Duration::from_secs(50),
    };
    let run = controllers::run(client(CONTROLLERS, &[]), config, stop.clone());
    tokio::spawn(async move { run.await.unwrap() });
    let admin = client("admin", &["system:masters"]);
    (server, admin)
}

async fn ask(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    client.request(request.body(body).unwrap()).await
}

async fn create(client: &Client, path: &str, object: &Value) -> Value {
    ask(client, Method::POST, path, object).await.unwrap()
}

async fn delete(client: &Client, path: &str) {
    ask(client, Method::DELETE, path, &Value::Null).await.unwrap();
}

/// Waits until nothing is at the path any more.
async fn gone(client: &Client, path: &str) {
    let asked = async {
        while ask(client, Method::GET, path, &Value::Null).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap_or_else(|_| panic!("{path} stays"));
}

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
    let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let (server, client) = cluster(folder.path(), &stop).await;
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
    stop.cancel();
    server.shutdown().await;
}
