//! The pods' side of the node: CNI, and unless a kubelet does it, registration, pods and the kubelet API.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_cri::v1::VersionResponse;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Run};
use crate::kubelet_api;
use crate::node::{Identity, Machine, Registration};
use crate::pods::cri::Cri;
use crate::pods::dns::Dns;
use crate::pods::events;
use crate::pods::execute::Executor;
use crate::pods::names::{self, Folders};
use crate::pods::objects::Objects;
use crate::pods::rotate;
use crate::pods::sandbox::NodeFacts;
use crate::pods::supervisor::{Registry, Supervisor};
use crate::pods::volumes::Volumes;
use crate::sources::cni::{Cni, install};
use crate::tables::Tables;

/// How long a runtime may take to start.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);
const RUNTIME_PAUSE: Duration = Duration::from_millis(200);

/// Puts the attachments of before a restart back into the tables. Before the reconciler's first look, or it would wait.
pub(super) fn restore(config: &Run, tables: &Arc<Tables>) -> Result<Cni> {
    Cni::restore(Arc::clone(tables), &config.state_dir).context("restore the pods' addresses")
}

/// Serves CNI, and runs the pods of this node.
pub(super) async fn start(
    config: &Run,
    client: kube::Client,
    cni: Cni,
    tables: Arc<Tables>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<()> {
    let runtime = match config.pods {
        config::Pods::On => Some(connect(&config.cri_endpoint).await?),
        config::Pods::Off => None,
    };
    if let Some((cri, _)) = &runtime {
        forget_vanished(cri, &cni).await?;
    }
    let socket = install::socket(&config.run_dir);
    let spool = cni.spool().to_owned();
    let listener = cni.listen(&socket)?;
    let serving = cni.serve(listener, stop.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(error = crate::pods::worker::chain(&error), "no pod gets a network any more");
        }
    });
    if let Some(dir) = &config.cni_bin_dir {
        install::plugin(dir).context("install the CNI plugin")?;
    }
    if let Some(dir) = &config.cni_conf_dir {
        install::conflist(dir, &socket, &spool).context("install the CNI configuration")?;
    }
    if let Some(runtime) = runtime {
        run_pods(config, client, runtime, tables, (tasks, stop)).await?;
    }
    Ok(())
}

/// Waits for the runtime, which may be starting beside us.
async fn connect(endpoint: &str) -> Result<(Cri, VersionResponse)> {
    let cri = Cri::connect(endpoint)?;
    let deadline = tokio::time::Instant::now() + RUNTIME_PATIENCE;
    let mut told = false;
    loop {
        match cri.version().await {
            Ok(version) => return Ok((cri, version)),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no container runtime answers at {endpoint}"));
            }
            Err(error) => {
                if !told {
                    tracing::warn!(endpoint, %error, "waiting for the container runtime");
                }
                told = true;
                tokio::time::sleep(RUNTIME_PAUSE).await;
            }
        }
    }
}

/// Attachments of sandboxes the runtime has lost would hold their addresses for ever. Nobody can attach meanwhile: the
/// socket is not there yet.
async fn forget_vanished(cri: &Cri, cni: &Cni) -> Result<()> {
    let sandboxes = cri.sandboxes(names::everything()).await.context("list the sandboxes")?;
    let known: HashSet<String> = sandboxes.into_iter().map(|sandbox| sandbox.id).collect();
    let removed = cni.retain(|id| known.contains(&id.container_id)).context("release addresses")?;
    if removed > 0 {
        tracing::info!(removed, "addresses of sandboxes that are gone were released");
    }
    Ok(())
}

async fn run_pods(
    config: &Run,
    client: kube::Client,
    (cri, version): (Cri, VersionResponse),
    tables: Arc<Tables>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Result<()> {
    let recorder = events::start(client.clone(), config.node_name.clone(), stop.clone());
    let folders = Folders::new(&config.state_dir);
    std::fs::create_dir_all(folders.pods()).context("make the folder for pods")?;
    let objects = Objects::new(client.clone());
    let dns = Dns::of_node(
        config.cluster_dns.clone(),
        config.cluster_domain.clone(),
        std::path::Path::new("/etc/resolv.conf"),
    )
    .context("read /etc/resolv.conf")?;
    let executor = Executor {
        cri: cri.clone(),
        runtime: version.runtime_name.clone(),
        volumes: Volumes::new(objects.clone(), folders.clone()),
        objects,
        recorder: recorder.clone(),
        node: Arc::new(NodeFacts {
            name: config.node_name.clone(),
            cgroup_parent: config.cgroup_parent.clone(),
            memory: Machine::read(&config.state_dir).memory,
            dns,
            folders,
        }),
        addresses: Arc::new(config.node_ip.clone()),
    };
    let identity = Identity {
        name: config.node_name.clone(),
        addresses: config.node_ip.clone(),
        kubelet_port: config.kubelet_address.port(),
        state_dir: config.state_dir.clone(),
        runtime: format!("{}://{}", version.runtime_name, version.runtime_version.trim_start_matches('v')),
    };
    let registry = Registry::default();
    let api = kubelet_api::Server::bind(config, client.clone(), executor.clone(), registry.clone())
        .await
        .context("serve the kubelet API")?;
    tasks.spawn(api.run(stop.clone()));
    tasks.spawn(rotate::run(cri.clone(), executor.node.folders.clone(), stop.clone()));
    tasks.spawn(Registration::new(identity, client, cri, tables, recorder).run(stop.clone()));
    tasks.spawn(Supervisor::new(executor, registry, stop.clone()).run());
    Ok(())
}
