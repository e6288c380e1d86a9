//! Composition: which parts run, and how they are stopped.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Run;
use crate::tables::Tables;

/// Runs the node until SIGTERM or SIGINT. The dataplane stays in the kernel when this returns.
pub fn run(config: Run) -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(Arc::new(config)))
}

async fn serve(config: Arc<Run>) -> Result<()> {
    let stop = CancellationToken::new();
    let _tables = Arc::new(Tables::default());
    tracing::info!(node = config.node_name, "agent runs");
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
    Ok(())
}
