//! etcd's own puts on the same disk, beside what the API server does on it: plain gRPC, nothing but key and value.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::RUNS;
use crate::etcd_server::{self, Etcd};
use crate::load::{self, SECONDS};

/// Connections, as the API server's clients have.
const CONNECTIONS: usize = 8;
/// Bytes of a value: what a ConfigMap of the bench has in the store.
const VALUE: usize = 1200;

pub async fn measure() -> Result<()> {
    if !etcd_server::available() {
        return Ok(());
    }
    let etcd = Etcd::start();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let connected = etcd_client::Client::connect(etcd.options("/").endpoints, None).await;
        connections.push(connected.context("connect to etcd")?.kv_client());
    }
    println!("\n{}", load::HEADING);
    let next = Arc::new(AtomicUsize::new(0));
    for clients in [1, 16, 64] {
        let (mut rates, mut times) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let began = Instant::now();
            let mut writers = JoinSet::new();
            for client in 0..clients {
                writers.spawn(put(connections[client % CONNECTIONS].clone(), Arc::clone(&next), began));
            }
            let mut run = Vec::new();
            while let Some(ended) = writers.join_next().await {
                run.extend(ended??);
            }
            rates.push(run.len() as f64 / began.elapsed().as_secs_f64());
            times.extend(run);
        }
        load::print("etcd's raw put", clients, &rates, &mut times, None);
    }
    Ok(())
}

async fn put(
    mut etcd: etcd_client::KvClient,
    next: Arc<AtomicUsize>,
    began: Instant,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while began.elapsed().as_secs_f64() < SECONDS {
        let key = format!("/registry/configmaps/default/m-{}", next.fetch_add(1, Ordering::Relaxed));
        let sent = Instant::now();
        etcd.put(key, vec![b'x'; VALUE], None).await?;
        times.push(sent.elapsed());
    }
    Ok(times)
}
