//! The socket's server: a connection is answered with the report as one JSON document.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::reconcile::run::Reconciling;

/// Where the socket of the agent with this run directory is.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

/// Serves until `stop`.
pub async fn run(path: PathBuf, reconciling: Reconciling, stop: CancellationToken) -> Result<()> {
    let listener = listen(&path)?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("accept on admin.sock")?,
            () = stop.cancelled() => return Ok(()),
        };
        let reconciling = reconciling.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &reconciling).await {
                tracing::warn!(%error, "status could not be sent");
            }
        });
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    // Left by an agent that was killed.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))?;
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).with_context(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

async fn answer(mut stream: UnixStream, reconciling: &Reconciling) -> Result<()> {
    let report = reconciling.report().await?;
    stream.write_all(&serde_json::to_vec(&report)?).await?;
    stream.shutdown().await?;
    Ok(())
}
