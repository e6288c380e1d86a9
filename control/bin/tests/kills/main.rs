//! kill -9 of the API server under load, again and again: no acknowledged write is lost, no revision is given twice, every
//! watch goes on where it was, and every Service keeps an address of its own.
//!
//! `HAWSER_KILLS` says how often; `cargo xtask kills` does it a thousand times.

#[path = "../../benches/api/client.rs"]
mod client;
#[path = "../../benches/api/process.rs"]
mod process;
mod server;
mod watcher;
mod writer;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use rand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, MAPS};
use crate::server::Server;
use crate::watcher::Watcher;
use crate::writer::Writer;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
/// Writers of ConfigMaps, and as many of Services.
const WRITERS: usize = 4;
const WATCHERS: usize = 3;
/// Kills where nobody says how many.
const FEW: usize = 8;

#[test]
fn nothing_is_lost_by_kill_9() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let kills = match std::env::var("HAWSER_KILLS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("HAWSER_KILLS is {text:?}, not a number")),
        Err(_) => FEW,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(kills));
}

async fn run(kills: usize) {
    let mut server = Server::start();
    let client = server.client().await;
    let from = revision(&get(&client, MAPS).await);
    let mut watchers: Vec<Watcher> = (0..WATCHERS).map(|_| Watcher::new(from)).collect();
    let mut writers: Vec<Writer> = (0..WRITERS)
        .flat_map(|number| [Writer::new(MAPS, "map", number), Writer::new(SERVICES, "service", number)])
        .collect();
    let mut latest = from;
    for kill in 1..=kills {
        load_and_kill(&mut server, &mut writers, &mut watchers).await;
        server.respawn();
        latest = check(&server.client().await, &mut writers, latest).await;
        if kill % 100 == 0 {
            println!("{kill} kills");
        }
    }
    let client = server.client().await;
    client.send("POST", MAPS, &json!({ "metadata": { "name": watcher::LAST } })).await.unwrap();
    let acknowledged: BTreeSet<u64> =
        writers.iter().filter(|writer| writer.path == MAPS).flat_map(|writer| writer.given.clone()).collect();
    let list = get(&client, MAPS).await;
    for watcher in &mut watchers {
        assert!(watcher.follow(&client).await, "the server ended a watch");
        watcher.agrees_with(&list, &acknowledged);
    }
    let writes: usize = writers.iter().map(|writer| writer.given.len()).sum();
    println!("{kills} kills, {writes} acknowledged writes, {latest} revisions");
    assert!(writes > kills, "hardly anything was written");
}

/// Lets everybody work on the server for a random time, then kills it.
async fn load_and_kill(server: &mut Server, writers: &mut Vec<Writer>, watchers: &mut Vec<Watcher>) {
    let (mut writing, mut watching) = (JoinSet::new(), JoinSet::new());
    for mut writer in writers.drain(..) {
        let client = server.client().await;
        writing.spawn(async move {
            writer.write(&client).await;
            writer
        });
    }
    for mut watcher in watchers.drain(..) {
        let client = server.client().await;
        watching.spawn(async move {
            watcher.follow(&client).await;
            watcher
        });
    }
    let time = Duration::from_micros(rand::rng().random_range(1_000..150_000));
    tokio::time::sleep(time).await;
    server.kill();
    *writers = writing.join_all().await;
    *watchers = watching.join_all().await;
}

/// Compares what is there with what was acknowledged; returns the revision of the server.
async fn check(client: &Client, writers: &mut [Writer], before: u64) -> u64 {
    let (maps, services) = (get(client, MAPS).await, get(client, SERVICES).await);
    let now = revision(&maps);
    for writer in writers {
        assert!(writer.given.iter().next_back().is_none_or(|given| *given <= now), "a revision went back");
        writer.compare(if writer.path == MAPS { &maps } else { &services }, before);
    }
    let addresses: Vec<&str> = services["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["spec"]["clusterIP"].as_str().unwrap())
        .collect();
    let unique: BTreeSet<&str> = addresses.iter().copied().collect();
    assert_eq!(unique.len(), addresses.len(), "an address was given twice: {addresses:?}");
    let taken = get(client, ADDRESSES).await;
    let taken: BTreeSet<&str> = taken["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(taken, unique, "addresses that are taken, and those of Services");
    now
}

/// The whole answer, which has to be good.
async fn answer(client: &Client, method: &str, path: &str, body: &Value) -> anyhow::Result<Bytes> {
    let response = client.open(method, path, body).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
    Ok(bytes)
}

async fn get(client: &Client, path: &str) -> Value {
    serde_json::from_slice(&answer(client, "GET", path, &Value::Null).await.unwrap()).unwrap()
}

/// The resourceVersion of an object or list.
fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
