//! What the API server costs and how fast it answers: a process of its own with its objects on disk, HTTP/2 over TLS, the
//! load generator on the same processors.
//!
//! `cargo bench --bench api` measures everything; arguments choose parts: `start`, `objects`, `growth`, `pods`,
//! `lists`, `forms`, `watches`, `definitions`, `etcd`.
//! Rates are medians of [`RUNS`] runs with their spread; CPU is the server's own, from `/proc/PID/stat`.

mod client;
mod definitions;
mod etcd;
#[path = "../../../store/tests/etcd_server/mod.rs"]
mod etcd_server;
mod forms;
mod load;
mod process;
mod server;
mod watches;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::client::Client;
use crate::load::{Load, measure};
use crate::server::Server;

/// As the server has, so that the load generator takes no more of the processors than it must.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PODS: &str = "/api/v1/namespaces/default/pods";
/// Runs of everything that has a spread.
const RUNS: usize = 5;
/// Pods of the full cluster.
const MANY: usize = 30_000;
/// Pods of one list.
const LISTED: usize = 2_000;

fn main() -> Result<()> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let load = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    println!("load before: {}", load.trim());
    runtime.block_on(async {
        if is_wanted("start") {
            start().await?;
        }
        if is_wanted("objects") {
            objects().await?;
        }
        if is_wanted("growth") {
            growth().await?;
        }
        if is_wanted("pods") {
            pods().await?;
        }
        if is_wanted("lists") {
            lists().await?;
        }
        if is_wanted("forms") {
            forms::measure().await?;
        }
        if is_wanted("watches") {
            watches::measure().await?;
        }
        if is_wanted("definitions") {
            definitions::measure().await?;
        }
        if is_wanted("etcd") {
            etcd::measure().await?;
        }
        Ok(())
    })
}

/// Start to ready and memory: empty, and with 30,000 pods.
async fn start() -> Result<()> {
    let mut server = Server::start().await?;
    let first = server.ready_ms;
    server.restart().await?;
    let then = server.ready_ms;
    println!("\nstart to ready, empty: {first:.0} ms with a new PKI, {then:.0} ms afterwards");
    let before = server.cpu_seconds()?;
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    let idle = (server.cpu_seconds()? - before) / 20.0 * 100.0;
    println!("idle: {:.1} MiB, {idle:.2} % of a core", server.resident_mib()?);
    let client = server.client(8).await?;
    client.prepare().await?;
    let begun = std::time::Instant::now();
    let load = Load { clients: 64, limit: Some(MANY), seconds: 600.0 };
    let outcome = load.run(&client, |n| ("POST", PODS.to_owned(), pod(n))).await?;
    let took = begun.elapsed().as_secs_f64();
    println!("{} pods made in {took:.1} s, {:.0}/s", outcome.times.len(), outcome.times.len() as f64 / took);
    println!("with {MANY} pods: {:.1} MiB after making them", server.resident_mib()?);
    server.restart().await?;
    println!("  started again: ready after {:.0} ms, {:.1} MiB", server.ready_ms, server.resident_mib()?);
    Ok(())
}

/// ConfigMaps: created, read, patched.
async fn objects() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.prepare().await?;
    println!("\n{}", load::HEADING);
    for clients in [1, 16, 64] {
        measure("ConfigMap create", &server, &client, clients, |n| {
            ("POST", client::MAPS.to_owned(), config_map(n))
        })
        .await?;
    }
    for clients in [1, 16, 64] {
        measure("ConfigMap get", &server, &client, clients, |n| ("GET", one_map(n), Value::Null)).await?;
    }
    measure("merge patch", &server, &client, 64, |n| {
        ("PATCH", one_map(n), json!({ "data": { "key": n.to_string() } }))
    })
    .await?;
    measure("server-side apply", &server, &client, 64, |n| {
        (
            "APPLY",
            format!("{}?fieldManager=bench&force=true", one_map(n)),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("m-{}", n % 1000) },
                "data": { "applied": n.to_string() },
            }),
        )
    })
    .await?;
    Ok(())
}

/// Whether creation slows down as objects become many.
async fn growth() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.prepare().await?;
    println!("\n{}", load::HEADING);
    for there in [1_000, 100_000] {
        let missing = there - server.sent.load(std::sync::atomic::Ordering::Relaxed);
        let load = Load { clients: 64, limit: Some(missing), seconds: 600.0 };
        load.next(&server, &client, |n| ("POST", client::MAPS.to_owned(), config_map(n))).await?;
        let what = format!("create, {there} there");
        measure(&what, &server, &client, 64, |n| ("POST", client::MAPS.to_owned(), config_map(n))).await?;
    }
    Ok(())
}

/// Pods: created, their status patched, deleted.
async fn pods() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.prepare().await?;
    println!("\n{}", load::HEADING);
    let made = measure("pod create", &server, &client, 64, |n| ("POST", PODS.to_owned(), pod(n))).await?;
    measure("strategic status patch", &server, &client, 64, move |n| {
        ("STRATEGIC", format!("{}/status", one_pod(n % made)), json!({ "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": if n % 2 == 0 { "True" } else { "False" }, "reason": format!("r{n}") }] } }))
    })
    .await?;
    let load = Load { clients: 64, limit: Some(made), seconds: 60.0 };
    let before = server.cpu_seconds()?;
    let outcome = load
        .run(&client, |n| ("DELETE", format!("{}?gracePeriodSeconds=0", one_pod(n)), Value::Null))
        .await?;
    outcome.print("pod delete", 64, server.cpu_seconds()? - before);
    Ok(())
}

/// A list of 2,000 pods in JSON.
async fn lists() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.prepare().await?;
    let load = Load { clients: 64, limit: Some(LISTED), seconds: 60.0 };
    load.run(&client, |n| ("POST", PODS.to_owned(), pod(n))).await?;
    println!("\n{} of {LISTED} pods each", load::HEADING);
    for clients in [1, 16] {
        measure("list", &server, &client, clients, |_| ("GET", PODS.to_owned(), Value::Null)).await?;
    }
    Ok(())
}

fn one_map(n: usize) -> String {
    format!("{}/m-{}", client::MAPS, n % 1000)
}

fn one_pod(n: usize) -> String {
    format!("{PODS}/p-{n}")
}

/// About one KiB.
fn config_map(n: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("m-{n}") },
            "data": { "key": "x".repeat(900) } })
}

fn pod(n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("p-{n}"), "labels": { "app": "bench", "shard": (n % 100).to_string() } },
        "spec": { "containers": [{ "name": "main", "image": "registry.example/app:1.2.3",
            "ports": [{ "containerPort": 8080, "name": "http" }],
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
            "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } } }] },
    })
}

/// What the parts share.
impl Client {
    /// The account without which pods are not admitted.
    async fn prepare(&self) -> Result<()> {
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        self.send("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await?;
        Ok(())
    }
}
