//! The socket's server: one request per connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::explain::{Explainer, Question};
use super::monitor::hub::Hub;
use super::monitor::line::Filter;
use super::request::{Answer, Request};
use super::what_if::{Foresight, Proposal};
use crate::kernel::kube_proxy::{self, Leftovers};
use crate::reconcile::run::Reconciling;

/// Longest request: as long as an object of the API may be.
const LONGEST: u64 = 3 << 20;
/// How long an asker may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers.
#[derive(Clone)]
pub struct Admin {
    /// Knows the state of the node.
    pub reconciling: Reconciling,
    /// Explains packets.
    pub explainer: Explainer,
    /// Knows what policies would do.
    pub foresight: Foresight,
    /// Hands events out.
    pub hub: Hub,
}

/// Where the socket of the agent with this run directory is.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

/// Serves until `stop`.
pub async fn run(path: PathBuf, admin: Admin, stop: CancellationToken) -> Result<()> {
    let listener = listen(&path)?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("accept on admin.sock")?,
            () = stop.cancelled() => return Ok(()),
        };
        let (admin, stop) = (admin.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                answered = answer(stream, &admin) => if let Err(error) = answered {
                    tracing::warn!(%error, "a request on admin.sock was not answered");
                },
                () = stop.cancelled() => {}
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

async fn answer(stream: UnixStream, admin: &Admin) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut asker = BufReader::new(read.take(LONGEST));
    tokio::time::timeout(PATIENCE, asker.read_line(&mut line)).await.context("nothing was asked")??;
    match serde_json::from_str(&line).context("the request is none we know; are both of one version?")? {
        Request::Report => {
            let mut report = admin.reconciling.report().await?;
            report.kube_proxy = tokio::task::spawn_blocking(leftovers).await?;
            write.write_all(&serde_json::to_vec(&report)?).await?;
        }
        Request::Explain(question) => {
            let answer = explain(admin.explainer.clone(), question).await?;
            write.write_all(&answer).await?;
        }
        Request::WhatIf(proposal) => {
            let answer = what_if(admin.foresight.clone(), proposal).await?;
            write.write_all(&answer).await?;
        }
        Request::Monitor(filter) => {
            // A reader that hangs up is noticed even when nothing happens.
            let mut nothing = String::new();
            tokio::select! {
                done = monitor(&admin.hub, filter, &mut write) => done?,
                _ = asker.read_line(&mut nothing) => {}
            }
        }
    }
    // Somebody who has hung up has what he wanted.
    _ = write.shutdown().await;
    Ok(())
}

/// What a kube-proxy has left, in words.
fn leftovers() -> Vec<String> {
    match kube_proxy::find() {
        Ok(Leftovers { found, absent }) => {
            let found = found
                .into_iter()
                .map(|what| format!("left {what}; `hawser-agent cleanup --kube-proxy` removes it"));
            found
                .chain(absent.into_iter().map(|tool| format!("{tool} is not installed to look with")))
                .collect()
        }
        Err(error) => vec![format!("its leftovers could not be looked for: {error}")],
    }
}

/// On a thread that may wait for the kernel.
async fn explain(explainer: Explainer, question: Question) -> Result<Vec<u8>> {
    let explained = tokio::task::spawn_blocking(move || explainer.explain(&question)).await?;
    let answer = match explained {
        Ok(explanation) => Answer::Ok(explanation),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    Ok(serde_json::to_vec(&answer)?)
}

async fn what_if(foresight: Foresight, proposal: Proposal) -> Result<Vec<u8>> {
    let answered = tokio::task::spawn_blocking(move || foresight.answer(&proposal)).await?;
    let answer = match answered {
        Ok(consequences) => Answer::Ok(consequences),
        Err(error) => Answer::Error(format!("{:#}", anyhow::Error::from(error))),
    };
    Ok(serde_json::to_vec(&answer)?)
}

async fn monitor(hub: &Hub, filter: Filter, write: &mut OwnedWriteHalf) -> Result<()> {
    let mut subscription = hub.subscribe(filter)?;
    while let Some(line) = subscription.next().await {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        if write.write_all(&text).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
