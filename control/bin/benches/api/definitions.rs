//! What definitions cost: memory and time of 200 CustomResourceDefinitions with a schema of 48 KB each.
//!
//! Growth is counted from a server that has just become ready, so that it has all that the first documents and the
//! first connection cost as well.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::server::Server;

const DEFINITIONS: usize = 200;
const SCHEMA: usize = 48 << 10;
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Memory is looked at when the server has had time to give back what it does not need.
const REST: Duration = Duration::from_secs(5);

pub async fn measure() -> Result<()> {
    let server = Server::start().await?;
    tokio::time::sleep(REST).await;
    let idle = server.resident_mib()?;
    let client = server.client(1).await?;
    let schema = schema();
    println!(
        "\n{DEFINITIONS} definitions with a schema of {} bytes, idle {idle:.1} MiB",
        schema.to_string().len()
    );
    let begun = (Instant::now(), server.cpu_seconds()?);
    for number in 0..DEFINITIONS {
        client.send("POST", PATH, &definition(number, &schema)).await?;
    }
    step(&server, "created", idle, begun).await?;
    for what in ["OpenAPI v2 read", "OpenAPI v2 read again"] {
        let begun = (Instant::now(), server.cpu_seconds()?);
        let bytes = client.send("GET", "/openapi/v2", &Value::Null).await?;
        step(&server, &format!("{what} ({bytes} bytes)"), idle, begun).await?;
    }
    let begun = (Instant::now(), server.cpu_seconds()?);
    for number in 0..DEFINITIONS {
        let object = json!({ "apiVersion": "bench.example.com/v1", "kind": format!("Kind{number}"),
            "metadata": { "name": "one" }, "spec": { "part0": { "field0": "x" } } });
        let path = format!("/apis/bench.example.com/v1/namespaces/default/kind{number}s");
        client.send("POST", &path, &object).await?;
    }
    step(&server, "an object of each created (schemas are compiled)", idle, begun).await
}

/// Tells what came of a step that began at a moment and a CPU time.
async fn step(server: &Server, what: &str, idle: f64, begun: (Instant, f64)) -> Result<()> {
    let took = begun.0.elapsed().as_secs_f64();
    let used = server.cpu_seconds()? - begun.1;
    tokio::time::sleep(REST).await;
    let grown = server.resident_mib()? - idle;
    println!("{what:<50} {took:>6.2} s {used:>6.2} s of CPU {grown:>7.1} MiB more than idle");
    Ok(())
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
