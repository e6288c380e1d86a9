//! The servers that say how the node is.

use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::metrics::Metrics;
use crate::config::Run;
use crate::health::services;
use crate::plain_http::{self, Reply};

/// kube-proxy's port for `/healthz`.
const HEALTHZ: u16 = 10256;

/// Starts them.
pub(super) fn start(config: &Run, metrics: Metrics, tasks: &TaskTracker, stop: &CancellationToken) {
    let (proxy, tables) = (&metrics.proxy, &metrics.tables);
    for address in config.healthz_bind_address.addresses(&config.node_ip, HEALTHZ) {
        let proxy = Arc::clone(proxy);
        let answer = move |path: String| {
            let reply = proxy.answer(&path);
            async move { reply }
        };
        tasks.spawn(plain_http::run(address, "the proxy's health", answer, stop.clone()));
    }
    tasks.spawn(services::run(Arc::clone(tables), metrics.facts.clone(), Arc::clone(proxy), stop.clone()));
    for address in config.metrics_bind_address.addresses(&[], 0) {
        let metrics = metrics.clone();
        let answer = move |path: String| {
            let metrics = metrics.clone();
            async move {
                // Reading maps and walking tables takes its time: not that of the runtime's threads.
                let reply = tokio::task::spawn_blocking(move || metrics.answer(&path)).await;
                reply.unwrap_or_else(|_| Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "no figures\n"))
            }
        };
        tasks.spawn(plain_http::run(address, "metrics", answer, stop.clone()));
    }
}
