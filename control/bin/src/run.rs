//! Composition: the API server, and scheduler and controllers as its clients in the same process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::{Config, Running, User};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{Role, RunOptions};
use crate::memory;

/// Runs the roles until a signal or until one of them fails.
pub async fn run(options: RunOptions) -> Result<()> {
    install_tls_provider();
    let has = |role| options.roles.contains(&role);
    let server = if has(Role::Apiserver) { Some(start_server(&options).await?) } else { None };
    let stop = CancellationToken::new();
    let mut roles: JoinSet<Result<()>> = JoinSet::new();
    if has(Role::Scheduler) {
        let client = client(server.as_ref(), &options, apiserver::SCHEDULER).await?;
        let stop = stop.clone();
        roles.spawn(async move {
            scheduler::run(client, scheduler::Config::default(), stop).await.context("the scheduler failed")
        });
    }
    if has(Role::Controllers) {
        let client = client(server.as_ref(), &options, apiserver::CONTROLLERS).await?;
        let config = controllers_config(server.as_ref(), &options)?;
        let stop = stop.clone();
        roles.spawn(
            async move { controllers::run(client, config, stop).await.context("the controllers failed") },
        );
    }
    let reminded = stop.clone();
    roles.spawn(async move {
        memory::tend(reminded).await;
        Ok(())
    });
    let outcome = wait(&mut roles).await;
    stop.cancel();
    while let Some(ended) = roles.join_next().await {
        if let Err(error) = ended.context("a role panicked").and_then(std::convert::identity) {
            tracing::error!(error = format!("{error:#}"), "a role failed while stopping");
        }
    }
    if let Some(server) = server {
        server.shutdown().await;
    }
    tracing::info!("stopped");
    outcome
}

/// One provider is linked; saying so keeps rustls from guessing.
pub fn install_tls_provider() {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
}

/// Returns after a signal to stop, or with the error of the first role that ends.
async fn wait(roles: &mut JoinSet<Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = roles.join_next() => {
            ended.context("a role panicked")??;
            bail!("a role ended before it was asked to");
        }
    }
}

async fn start_server(options: &RunOptions) -> Result<Running> {
    let config = Config {
        data: options.data_dir.clone(),
        bind: options.bind_address.clone(),
        advertise: options.advertise_address.clone(),
        service_ranges: options.service_cidr.clone(),
        runtime_config: options.runtime_config.clone(),
        storage: options.store.storage(),
        patience: apiserver::Patience::default(),
    };
    apiserver::start(config).await.context("the API server did not start")
}

/// A client in this process where the API server is, else over the network.
async fn client(server: Option<&Running>, options: &RunOptions, user: &str) -> Result<Client> {
    if let Some(server) = server {
        return Ok(Client::new(server.service(User::new(user, &[])), "default"));
    }
    let Some(path) = &options.kubeconfig else {
        bail!("--kubeconfig is needed where the role apiserver is not: it says how to reach the API server");
    };
    remote(path).await
}

/// A client of whoever the kubeconfig names.
pub async fn remote(path: &Path) -> Result<Client> {
    let config =
        kube::config::Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
    let config =
        kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await;
    Client::try_from(config.with_context(|| format!("{} is not usable", path.display()))?)
        .context("make a client")
}

fn controllers_config(server: Option<&Running>, options: &RunOptions) -> Result<controllers::Config> {
    let cluster_ca = match server {
        Some(server) => server.ca_pem.clone(),
        None => {
            let path = options.data_dir.join("pki/ca.crt");
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?
        }
    };
    Ok(controllers::Config {
        cluster_ca,
        cluster_cidrs: options.cluster_cidr.clone(),
        node_grace: Duration::from_secs(options.node_grace_seconds),
    })
}
