//! Load on the API server: creations, gets and lists per second, at several numbers of clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::RUNS;
use super::stats::{Spread, percentile};
use crate::api::{Api, connect};
use crate::cluster::Cluster;

const CLIENTS: [usize; 3] = [1, 16, 64];
const SLICE: Duration = Duration::from_millis(1000);
/// Config maps the lists return.
const LISTED: usize = 500;

#[derive(Debug, Clone, Copy)]
enum Operation {
    Create,
    Get,
    List,
}

/// Runs every operation at every number of clients, interleaved, and prints rates and times.
pub(super) async fn load(cluster: &Cluster) -> Result<()> {
    let kubeconfig = cluster.layout.kubeconfig();
    for namespace in ["bench-create", "bench-list"] {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        post(&cluster.api, "/api/v1/namespaces", &body).await?;
    }
    for number in 0..LISTED {
        post(&cluster.api, "/api/v1/namespaces/bench-list/configmaps", &config_map(number as u64)).await?;
    }
    println!(
        "\nAPI server over HTTPS, load generator on the same processors; lists return {LISTED} config maps"
    );
    println!("  {:<8}{:>8}  {:<34}{:>10}{:>10}", "", "clients", "per second", "p50 ms", "p99 ms");
    let counter = Arc::new(AtomicU64::new(0));
    for operation in [Operation::Create, Operation::Get, Operation::List] {
        for clients in CLIENTS {
            let mut apis = Vec::new();
            for _ in 0..clients.min(8) {
                apis.push(connect(&kubeconfig).await?);
            }
            let (mut rates, mut times) = (Vec::new(), Vec::new());
            for _ in 0..RUNS {
                let began = Instant::now();
                let slice = slice(&apis, clients, operation, &counter).await?;
                rates.push(slice.len() as f64 / began.elapsed().as_secs_f64());
                times.extend(slice);
            }
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
            let name = format!("{operation:?}").to_lowercase();
            println!(
                "  {name:<8}{clients:>8}  {:<34}{:>10.2}{:>10.2}",
                Spread::of(rates).to_string(),
                ms(p50),
                ms(p99)
            );
        }
    }
    Ok(())
}

/// One slice of load; returns how long each request took.
async fn slice(
    apis: &[Api],
    clients: usize,
    operation: Operation,
    counter: &Arc<AtomicU64>,
) -> Result<Vec<Duration>> {
    let end = Instant::now() + SLICE;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let api = apis[client % apis.len()].clone();
            let counter = Arc::clone(counter);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    request(&api, operation, counter.fetch_add(1, Ordering::Relaxed)).await?;
                    times.push(began.elapsed());
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.context("a client ended early")??);
    }
    Ok(times)
}

async fn request(api: &Api, operation: Operation, number: u64) -> Result<()> {
    match operation {
        Operation::Create => {
            post(api, "/api/v1/namespaces/bench-create/configmaps", &config_map(number)).await
        }
        Operation::Get => {
            let name = number % LISTED as u64;
            api.text(&format!("/api/v1/namespaces/bench-list/configmaps/bench-{name}")).await.map(|_| ())
        }
        Operation::List => api.text("/api/v1/namespaces/bench-list/configmaps").await.map(|_| ()),
    }
}

fn config_map(number: u64) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("bench-{number}")},
        "data": {"key": "x".repeat(512)},
    })
}

async fn post(api: &Api, path: &str, body: &serde_json::Value) -> Result<()> {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())?;
    api.client.request_text(request).await.with_context(|| format!("POST {path}"))?;
    Ok(())
}
