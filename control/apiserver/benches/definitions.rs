//! What definitions cost: memory and time of 200 CustomResourceDefinitions with a schema of 48 KB each.
//!
//! Measured on two cores shared with other builds: 0.9 to 1.1 s to create them (1.3 s of CPU for the whole run), 14.7 MiB
//! more than before, 14.9 MiB after OpenAPI v2 was read (0.17 s, 11.4 MB), 27.6 MiB once every schema is compiled.

use std::time::Instant;

use apiserver::{Config, InProcess, User, start};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};
use tower::Service;

const DEFINITIONS: usize = 200;
const SCHEMA: usize = 48 << 10;
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::loopback(folder.path(), apiserver::Storage::Embedded);
    let running = start(config).await.expect("a server");
    let client = running.service(User::new("admin", &["system:masters"]));
    // Documents of this build are hashed once; that is no cost of definitions.
    read(&client, "/openapi/v2").await;
    read(&client, "/openapi/v3").await;
    let schema = schema();
    let size = schema.to_string().len();
    let before = resident();
    let step = |what: &str, began: Instant| {
        let grown = (resident() - before) / 1024.0;
        println!(
            "{what:<52} {:>7.0} ms {grown:>7.1} MiB more than before",
            began.elapsed().as_secs_f64() * 1e3
        );
    };
    println!(
        "{DEFINITIONS} definitions with a schema of {size} bytes; {:.1} MiB resident before",
        before / 1024.0
    );
    let began = Instant::now();
    for number in 0..DEFINITIONS {
        create(&client, PATH, &definition(number, &schema)).await;
    }
    step("created", began);
    let began = Instant::now();
    let bytes = read(&client, "/openapi/v2").await;
    step(&format!("OpenAPI v2 read ({bytes} bytes)"), began);
    let began = Instant::now();
    read(&client, "/openapi/v3").await;
    step("index of OpenAPI v3 read", began);
    let began = Instant::now();
    for number in 0..DEFINITIONS {
        let object = json!({ "apiVersion": "bench.example.com/v1", "kind": format!("Kind{number}"),
            "metadata": { "name": "one" }, "spec": { "part0": { "field0": "x" } } });
        let path = format!("/apis/bench.example.com/v1/namespaces/default/kind{number}s");
        create(&client, &path, &object).await;
    }
    step("one object of each created (schemas are compiled)", began);
    running.shutdown().await;
}

/// An ordinary schema: parts with fields, each with a type and a description.
fn schema() -> Value {
    let field = json!({ "type": "string", "maxLength": 253,
        "description": "What this field is for is told here in about as many words as people who write definitions use." });
    let mut parts = Map::new();
    while json!(parts).to_string().len() < SCHEMA {
        let fields: Map<String, Value> =
            (0..15).map(|number| (format!("field{number}"), field.clone())).collect();
        parts.insert(format!("part{}", parts.len()), json!({ "type": "object", "properties": fields }));
    }
    json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": parts } } })
}

fn definition(number: usize, schema: &Value) -> Value {
    let plural = format!("kind{number}s");
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.bench.example.com") },
        "spec": { "group": "bench.example.com", "scope": "Namespaced",
            "names": { "plural": plural, "kind": format!("Kind{number}") },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }] } })
}

async fn create(client: &InProcess, path: &str, object: &Value) {
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(object.to_string()))).expect("a request");
    let response = client.clone().call(request).await.expect("an answer");
    assert_eq!(response.status(), 201, "{path}");
}

/// Reads a document piece by piece; returns its length.
async fn read(client: &InProcess, path: &str) -> usize {
    let request = Request::get(path).body(Full::new(Bytes::new())).expect("a request");
    let mut body = client.clone().call(request).await.expect("an answer").into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("a frame").data_ref().map_or(0, Bytes::len);
    }
    length
}

/// Resident memory of this process in KiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it tells this");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
