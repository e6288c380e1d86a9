//! The controllers against an API server in the same process.

mod cron_jobs;
mod custom;
mod deployments;
mod endpoints;
mod namespaces;
mod nodes;
mod owners;
mod quotas;
mod replicas;

use std::time::Duration;

use apiserver::{CONTROLLERS, User};
use http::{Method, Request};
use kube::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// An API server in memory, and the controllers beside it.
struct Running {
    server: apiserver::Running,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.server.shutdown().await;
    }
}

/// Both, and a client that may do everything.
async fn cluster() -> (Running, Client) {
    let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let config = apiserver::Config::loopback(folder.path(), apiserver::Storage::Memory);
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
    // Pods are refused before.
    becomes(&admin, "/api/v1/namespaces/default/serviceaccounts/default", |found| !found.is_null()).await;
    (Running { server, stop, _folder: folder }, admin)
}

async fn ask(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    client.request(request.body(body).unwrap()).await
}

async fn create(client: &Client, path: &str, object: &Value) -> Value {
    ask(client, Method::POST, path, object).await.unwrap()
}

async fn merge(client: &Client, path: &str, patch: &Value) -> Value {
    ask(client, Method::PATCH, path, patch).await.unwrap()
}

async fn delete(client: &Client, path: &str) {
    ask(client, Method::DELETE, path, &Value::Null).await.unwrap();
}

/// Waits until what is at the path is as it should be, and returns it; nothing at all is null.
async fn becomes(client: &Client, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let asked = async {
        loop {
            last = ask(client, Method::GET, path, &Value::Null).await.unwrap_or(Value::Null);
            if wanted(&last) {
                return last.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), asked).await;
    found.unwrap_or_else(|_| panic!("{path} stays as it is: {last}"))
}

/// Waits until nothing is at the path any more.
async fn gone(client: &Client, path: &str) {
    becomes(client, path, Value::is_null).await;
}
