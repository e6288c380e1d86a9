//! Many watchers of one kind: how late events are at a quiet pace, how many are delivered when writers do not wait, and what
//! it takes to begin with much that is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, MAPS};
use crate::config_map;
use crate::load::Load;
use crate::server::Server;

/// What all watchers have seen together.
#[derive(Default)]
struct Seen {
    events: AtomicU64,
    /// When each event came, in nanoseconds after the start, less when its write began.
    late: parking_lot::Mutex<Vec<Duration>>,
}

pub async fn measure() -> Result<()> {
    println!();
    paced(1000, 50, 10).await?;
    saturated(500, 10).await?;
    begun(50, 10_000).await?;
    println!();
    for watchers in [0, 1000, 4000] {
        elsewhere(watchers, 200, 5).await?;
    }
    Ok(())
}

/// Writers make `rate` changes a second for some seconds.
async fn paced(watchers: usize, rate: u32, seconds: u32) -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.send("POST", MAPS, &map(Duration::ZERO)).await?;
    let origin = Instant::now();
    let seen = Arc::new(Seen::default());
    let base = server.resident_mib()?;
    let _watches = watch(&client, watchers, origin, &seen).await?;
    let (before, memory) = (server.cpu_seconds()?, server.resident_mib()? - base);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..rate * seconds {
        tick.tick().await;
        client.send("PUT", &format!("{MAPS}/m"), &map(origin.elapsed())).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = server.cpu_seconds()? - before;
    let events = seen.events.load(Ordering::Relaxed);
    let mut late = std::mem::take(&mut *seen.late.lock());
    late.sort_unstable();
    let ms =
        |share: f64| late[((late.len() as f64 * share) as usize).min(late.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{watchers} watchers, {rate} writes/s: event p50 {:.1} ms, p99 {:.1} ms; {:.2} us of CPU an event; {:.1} KiB a watcher",
        ms(0.5),
        ms(0.99),
        cpu * 1e6 / events as f64,
        memory * 1024.0 / watchers as f64
    );
    Ok(())
}

/// Eight writers write as fast as they can.
async fn saturated(watchers: usize, seconds: u64) -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.send("POST", MAPS, &map(Duration::ZERO)).await?;
    let origin = Instant::now();
    let seen = Arc::new(Seen::default());
    let _watches = watch(&client, watchers, origin, &seen).await?;
    let before = server.cpu_seconds()?;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        writers.spawn(async move {
            while origin.elapsed() < Duration::from_secs(seconds) {
                client.send("PUT", &format!("{MAPS}/m"), &map(origin.elapsed())).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let events = seen.events.load(Ordering::Relaxed);
    let cpu = server.cpu_seconds()? - before;
    println!(
        "{watchers} watchers, saturated: {:.0} events/s; {:.2} us of CPU an event",
        events as f64 / origin.elapsed().as_secs_f64(),
        cpu * 1e6 / events as f64
    );
    Ok(())
}

/// Watchers of one object each, as kubelets are, while something else is written.
async fn elsewhere(watchers: usize, rate: u32, seconds: u32) -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    client.send("POST", MAPS, &map(Duration::ZERO)).await?;
    let mut bodies = Vec::new();
    for n in 0..watchers {
        let path = format!("{MAPS}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dw-{n}");
        bodies.push(client.open("GET", &path, &Value::Null).await.context("open a watch")?.into_body());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.cpu_seconds()?;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    for n in 1..=rate * seconds {
        tick.tick().await;
        client.send("PUT", &format!("{MAPS}/m"), &map(Duration::from_nanos(n.into()))).await?;
    }
    let cpu = (server.cpu_seconds()? - before) * 1e6 / f64::from(rate * seconds);
    println!("{watchers} watchers of other objects, {rate} writes/s: {cpu:.0} us of CPU a write");
    drop(bodies);
    Ok(())
}

/// Watchers who begin with what is there, and at first do not read.
async fn begun(watchers: usize, objects: usize) -> Result<()> {
    let server = Server::start().await?;
    let client = server.client(8).await?;
    let load = Load { clients: 64, limit: Some(objects), seconds: 60.0 };
    load.run(&client, |n| ("POST", MAPS.to_owned(), config_map(n))).await?;
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let (base, before) = (server.resident_mib()?, server.cpu_seconds()?);
    let mut bodies = Vec::new();
    for _ in 0..watchers {
        bodies.push(client.open("GET", &path, &Value::Null).await.context("open a watch")?.into_body());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = server.resident_mib()? - base;
    let began = Instant::now();
    let mut readers: JoinSet<_> = bodies.into_iter().map(read_beginning).collect();
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    println!(
        "{watchers} watchers begin with {objects} objects: {held:.1} MiB while nobody reads; all have read after {:.2} s, \
         {:.2} us of CPU an object",
        began.elapsed().as_secs_f64(),
        (server.cpu_seconds()? - before) * 1e6 / (watchers * objects) as f64
    );
    Ok(())
}

/// Reads until a bookmark says that this was everything.
async fn read_beginning(mut body: Incoming) -> Result<()> {
    let end = b"initial-events-end";
    // What came last may be half of it.
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        seen.extend_from_slice(frame?.data_ref().map_or(&[], |bytes| bytes));
        if memchr::memmem::find(&seen, end).is_some() {
            return Ok(());
        }
        seen.drain(..seen.len().saturating_sub(end.len()));
    }
    bail!("a watch ended before it had told everything")
}

fn map(at: Duration) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" },
            "data": { "at": at.as_nanos().to_string(), "key": "x".repeat(500) } })
}

/// Opens watches that count events and note how late they are.
async fn watch(client: &Client, watchers: usize, origin: Instant, seen: &Arc<Seen>) -> Result<JoinSet<()>> {
    let mut watches = JoinSet::new();
    for _ in 0..watchers {
        let path = format!("{MAPS}?watch=1&resourceVersion=0");
        let mut body = client.open("GET", &path, &Value::Null).await.context("open a watch")?.into_body();
        let seen = Arc::clone(seen);
        watches.spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                let Some(bytes) = frame.data_ref() else { continue };
                let now = origin.elapsed();
                for at in memchr::memmem::find_iter(bytes, b"\"at\":\"") {
                    let digits = &bytes[at + 6..];
                    let nanos = digits.iter().take_while(|byte| byte.is_ascii_digit());
                    let nanos = nanos.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
                    seen.events.fetch_add(1, Ordering::Relaxed);
                    if nanos > 0 {
                        seen.late.lock().push(now.saturating_sub(Duration::from_nanos(nanos)));
                    }
                }
            }
        });
    }
    // The first event of each tells what is there.
    while seen.events.load(Ordering::Relaxed) < watchers as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    seen.events.store(0, Ordering::Relaxed);
    Ok(watches)
}
