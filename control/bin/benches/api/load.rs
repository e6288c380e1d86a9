//! Requests from many clients at once, for a time or up to a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::RUNS;
use crate::client::Client;
use crate::server::Server;

/// Seconds of one run.
pub const SECONDS: f64 = 2.0;

pub const HEADING: &str =
    "                        clients  per second (lowest to highest)     p50 ms    p99 ms  server's CPU us";

/// How much load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub clients: usize,
    /// Requests at most.
    pub limit: Option<usize>,
    pub seconds: f64,
}

/// What came of it.
pub struct Outcome {
    pub times: Vec<Duration>,
    pub seconds: f64,
}

impl Load {
    /// Sends request `n` for n = 0, 1, 2 ... as fast as the clients can.
    pub async fn run(
        self,
        client: &Client,
        request: impl Fn(usize) -> (&'static str, String, Value) + Send + Sync + Clone + 'static,
    ) -> Result<Outcome> {
        self.run_from(client, 0, request).await
    }

    /// The same with the numbers the server has not seen yet.
    pub async fn next(
        self,
        server: &Server,
        client: &Client,
        request: impl Fn(usize) -> (&'static str, String, Value) + Send + Sync + Clone + 'static,
    ) -> Result<Outcome> {
        let outcome = self.run_from(client, server.sent.load(Ordering::Relaxed), request).await?;
        server.sent.fetch_add(outcome.times.len(), Ordering::Relaxed);
        Ok(outcome)
    }

    async fn run_from(
        self,
        client: &Client,
        first: usize,
        request: impl Fn(usize) -> (&'static str, String, Value) + Send + Sync + Clone + 'static,
    ) -> Result<Outcome> {
        let next = Arc::new(AtomicUsize::new(first));
        let limit = self.limit.map_or(usize::MAX, |limit| first + limit);
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let (client, request, next) = (client.clone(), request.clone(), Arc::clone(&next));
            clients.spawn(async move {
                let mut times = Vec::new();
                while began.elapsed().as_secs_f64() < self.seconds {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= limit {
                        break;
                    }
                    let (method, path, body) = request(n);
                    let sent = Instant::now();
                    client.send(method, &path, &body).await?;
                    times.push(sent.elapsed());
                }
                anyhow::Ok(times)
            });
        }
        let mut times = Vec::new();
        while let Some(ended) = clients.join_next().await {
            times.extend(ended??);
        }
        Ok(Outcome { times, seconds: began.elapsed().as_secs_f64() })
    }
}

impl Outcome {
    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    pub fn print(mut self, what: &str, clients: usize, cpu: f64) {
        let rate = self.rate();
        print(what, clients, &[rate], &mut self.times, Some(cpu));
    }
}

/// Measures one kind of request in [`RUNS`] runs and prints a line; returns how many were sent.
pub async fn measure(
    what: &str,
    server: &Server,
    client: &Client,
    clients: usize,
    request: impl Fn(usize) -> (&'static str, String, Value) + Send + Sync + Clone + 'static,
) -> Result<usize> {
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    let before = server.cpu_seconds()?;
    for _ in 0..RUNS {
        let load = Load { clients, limit: None, seconds: SECONDS };
        let outcome = load.next(server, client, request.clone()).await?;
        rates.push(outcome.rate());
        times.extend(outcome.times);
    }
    print(what, clients, &rates, &mut times, Some(server.cpu_seconds()? - before));
    Ok(times.len())
}

/// One line; `cpu` is what all requests together took of the server.
pub fn print(what: &str, clients: usize, rates: &[f64], times: &mut [Duration], cpu: Option<f64>) {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    times.sort_unstable();
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let ms = |share: f64| at(share).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let (low, high) = (rates.first().copied().unwrap_or_default(), rates.last().copied().unwrap_or_default());
    let rate = format!("{:.0} ({low:.0} to {high:.0})", rates[rates.len() / 2]);
    let cpu = cpu.map_or("-".to_owned(), |cpu| format!("{:.0}", cpu * 1e6 / times.len().max(1) as f64));
    println!("{what:<24}{clients:>7}  {rate:<34}{:>9.2} {:>9.2} {cpu:>16}", ms(0.5), ms(0.99));
}
