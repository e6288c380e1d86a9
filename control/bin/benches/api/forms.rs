//! Long lists in each form: what the server holds while nobody reads them, what they cost, and what others wait meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Client, MAPS};
use crate::load::Load;
use crate::server::Server;
use crate::{PODS, config_map, pod};

const LISTED: usize = 10_000;
const LISTS: usize = 10;

const FORMS: [(&str, &str); 5] = [
    ("JSON", "application/json"),
    ("protobuf", "application/vnd.kubernetes.protobuf"),
    ("table", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ("metadata", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
    (
        "metadata, protobuf",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    ),
];

pub async fn measure() -> Result<()> {
    println!(
        "\n{LISTS} lists of {LISTED} pods        MiB held    us of CPU a pod    longest get meanwhile, ms"
    );
    for (name, accept) in FORMS {
        form(name, accept).await?;
    }
    Ok(())
}

async fn form(name: &str, accept: &'static str) -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(4).await?;
    client.prepare().await?;
    client.send("POST", MAPS, &config_map(0)).await?;
    let load = Load { clients: 64, limit: Some(LISTED), seconds: 60.0 };
    load.run(&client, |n| ("POST", PODS.to_owned(), pod(n))).await?;
    let (base, before) = (server.resident_mib()?, server.cpu_seconds()?);
    let longest = tokio::spawn(gets(server.client(1).await?));
    let mut asked = JoinSet::new();
    for _ in 0..LISTS {
        let client = client.clone();
        asked.spawn(async move { client.open_as(accept, "GET", PODS, &Value::Null).await });
    }
    let mut bodies = Vec::new();
    while let Some(answer) = asked.join_next().await {
        bodies.push(answer?.context("ask for a list")?.into_body());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = server.resident_mib()? - base;
    let mut readers: JoinSet<_> = bodies.into_iter().map(read).collect();
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    let longest = longest.await??.as_secs_f64() * 1e3;
    // What the gets cost is in it too: some thousand, of 20 us each.
    let cpu = (server.cpu_seconds()? - before) * 1e6 / (LISTS * LISTED) as f64;
    println!("{name:24} {held:19.1} {cpu:18.2} {longest:28.1}");
    Ok(())
}

async fn read(mut body: Incoming) -> Result<()> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// Reads one object for two seconds, and tells how long that took at most.
async fn gets(client: Client) -> Result<Duration> {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while began.elapsed() < Duration::from_secs(2) {
        tick.tick().await;
        let asked = Instant::now();
        client.send("GET", &format!("{MAPS}/m-0"), &Value::Null).await?;
        longest = longest.max(asked.elapsed());
    }
    Ok(longest)
}
