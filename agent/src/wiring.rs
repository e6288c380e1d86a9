//! Composition: which parts run, and how they are stopped.

pub(crate) mod api_client;
mod complaints;
mod health;
mod pods;
pub mod policy;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::audit::{self, Audits};
use crate::admin::explain::{self, Explainer, Question};
use crate::admin::metrics::Metrics;
use crate::admin::monitor::hub::Hub;
use crate::admin::report::Report;
use crate::admin::server::Admin;
use crate::admin::what_if::Foresight;
use crate::admin::{client, server, sysdump};
use crate::config::{Ask, Cleanup, Explain, Monitor, Run, Sysdump};
use crate::desired::overlay::{Tunnelling, When};
use crate::health::proxy::Proxy;
use crate::health::pulse::Pulse;
use crate::kernel::linux::{LinuxKernel, Settings};
use crate::load_balancer;
use crate::pods::events;
use crate::reconcile::run::Reconciling;
use crate::sources;
use crate::sources::cni::install;
use crate::sources::kube::blocks::Taker;
use crate::tables::Tables;

/// Runs the node until SIGTERM or SIGINT. The dataplane stays in the kernel when this returns.
pub fn run(config: Run) -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::INFO.into())
                .from_env_lossy(),
        )
        .init();
    if !nix::unistd::geteuid().is_root() {
        bail!("the agent must run as root: it loads eBPF programs and makes network devices");
    }
    let uplinks = sources::links::discover(&config.node_name, &config.node_ip, &config.uplink).context(
        "find the uplinks; name them with --uplink, or give this machine's own addresses with --node-ip",
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(Arc::new(config), uplinks))
}

/// Asks the running agent and prints the answer.
pub fn ask(ask: &Ask, show: fn(&Report) -> String) -> Result<()> {
    let report = client::report(&ask.run_dir)?;
    if ask.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", show(&report));
    }
    Ok(())
}

/// Prints what happens to a packet; fails when rules and programs disagree.
pub fn explain(explain: Explain) -> Result<()> {
    let Explain { src, dst, proto: protocol, ask } = explain;
    let explanation = client::explain(&ask.run_dir, Question { src, dst, protocol })?;
    if ask.json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        print!("{}", explain::show::text(&explanation));
    }
    if !explanation.disagreements.is_empty() {
        bail!("rules and programs disagree");
    }
    Ok(())
}

/// Prints events until the agent ends or nobody reads.
pub fn monitor(monitor: Monitor) -> Result<()> {
    let Monitor { filter, ask } = monitor;
    client::monitor(&ask.run_dir, filter, |line| {
        let mut out = std::io::stdout().lock();
        if ask.json {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        } else {
            writeln!(out, "{line}")?;
        }
        Ok(out.flush()?)
    })
}

/// Writes the archive for a report of a fault.
pub fn sysdump(wanted: &Sysdump) -> Result<()> {
    let parts = sysdump::collect(&wanted.run_dir, &wanted.bpffs);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let archive = sysdump::archive(&parts, "hawser-sysdump", now.as_secs());
    if wanted.to.as_os_str() == "-" {
        return std::io::stdout().lock().write_all(&archive).context("write the archive");
    }
    let shown = wanted.to.display();
    let mut file = std::fs::OpenOptions::new();
    // Names and addresses of a cluster are nobody else's business.
    file.write(true).create(true).truncate(true).mode(0o600);
    file.open(&wanted.to)
        .and_then(|mut file| file.write_all(&archive))
        .with_context(|| format!("write {shown}"))?;
    println!("{shown}: {} parts", parts.len());
    Ok(())
}

/// Removes everything of ours from this node.
pub fn cleanup(cleanup: &Cleanup) -> Result<()> {
    if cleanup.kube_proxy {
        say_removed(&crate::kernel::kube_proxy::remove()?);
        return Ok(());
    }
    if client::report(&cleanup.run_dir).is_ok() {
        bail!("an agent runs with run directory {}; stop it first", cleanup.run_dir.display());
    }
    // The configuration first: nobody asks for a network that goes.
    let mut removed = Vec::new();
    if let Some(dir) = &cleanup.cni_conf_dir {
        removed.extend(install::remove_conflist(dir)?);
    }
    if let Some(dir) = &cleanup.cni_bin_dir {
        removed.extend(install::remove_plugin(dir)?);
    }
    removed.extend(crate::kernel::cleanup::cleanup(&cleanup.bpffs)?);
    for dir in cleanup.state_dir.iter().filter(|dir| dir.exists()) {
        std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
        removed.push(format!("folder {}", dir.display()));
    }
    let sockets = [server::socket(&cleanup.run_dir), install::socket(&cleanup.run_dir)];
    removed.extend(install::remove_sockets(&cleanup.run_dir, sockets)?);
    say_removed(&removed);
    if cleanup.stay { wait_for_end() } else { Ok(()) }
}

/// Waits for SIGTERM or SIGINT.
fn wait_for_end() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn say_removed(removed: &[String]) {
    for line in removed {
        println!("removed {line}");
    }
    if removed.is_empty() {
        println!("nothing to remove");
    }
}

async fn serve(config: Arc<Run>, mut uplinks: sources::links::Uplinks) -> Result<()> {
    let stop = CancellationToken::new();
    let tables = Arc::new(Tables::default());
    let tasks = TaskTracker::new();
    let client = api_client::connect(&config.access).await?;
    let cni = pods::restore(&config, &tables)?;

    let settings = Settings {
        bpffs: config.bpffs.clone(),
        cgroup: config.cgroup_root.clone(),
        node: config.node_ip.clone(),
        services: config.service_cidr.clone(),
        pods: config.cluster_cidr.clone(),
        disabled: config.disable_feature.clone(),
        tunnel_port: if config.tunnel == When::Never { 0 } else { config.tunnel_port },
        xdp: config.xdp,
        scale: config.map_scale,
    };
    tables.update(|rows| uplinks.tell(rows));
    uplinks.facts.mtu = pods_mtu(config.mtu, uplinks.facts.mtu)?;
    uplinks.facts.tunnelling =
        Tunnelling { when: config.tunnel, port: config.tunnel_port, vni: config.tunnel_vni };
    uplinks.facts.unmasked = unmasked(&config.no_masquerade_cidr);
    uplinks.facts.nodeport = config.nodeport_addresses.clone();
    let pulse = Arc::<Pulse>::default();
    let proxy = Arc::new(Proxy::new(Arc::clone(&pulse), Arc::clone(&tables), config.node_name.clone()));
    let facts = uplinks.facts.clone();
    let (reconciling, thread) = Reconciling::start(
        move || LinuxKernel::start(settings),
        Arc::clone(&tables),
        uplinks.facts,
        Arc::clone(&pulse),
    )
    .await
    .context("take over the dataplane")?;
    let metrics = Metrics {
        pulse,
        proxy,
        tables: Arc::clone(&tables),
        facts,
        pins: reconciling.pins.clone(),
        cni: cni.clone(),
        audits: Audits::default(),
        scale: config.map_scale,
    };
    let admin = admin(&config, &metrics, &reconciling);
    let audits = metrics.audits.clone();
    tasks.spawn(audit::run(admin.hub.clone(), Arc::clone(&tables), audits, stop.clone()));
    health::start(&config, metrics, &tasks, &stop);
    tasks.spawn(sources::kube::run(
        client.clone(),
        Arc::clone(&tables),
        config.node_name.clone(),
        stop.clone(),
    ));
    let taker = Taker {
        client: client.clone(),
        pools: config.config_map.clone(),
        node: config.node_name.clone(),
        tables: Arc::clone(&tables),
    };
    tasks.spawn(taker.run(stop.clone()));
    let recorder = events::start(client.clone(), config.node_name.clone(), stop.clone());
    tasks.spawn(load_balancer::run(
        client.clone(),
        config.config_map.clone(),
        config.node_name.clone(),
        Arc::clone(&tables),
        stop.clone(),
    ));
    tasks.spawn(complaints::run(Arc::clone(&tables), recorder, stop.clone()));
    tasks.spawn(watch_uplinks(uplinks.devices, Arc::clone(&tables), stop.clone()));
    let mut admin = tasks.spawn(server::run(server::socket(&config.run_dir), admin, stop.clone()));
    pods::start(&config, client, cni, Arc::clone(&tables), &tasks, &stop).await?;
    tracing::info!(node = config.node_name, "agent runs");

    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let outcome = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = &mut admin => ended.context("the admin server panicked")?.context("serve admin.sock"),
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    reconciling.stop();
    if thread.join().is_err() {
        bail!("the reconciler panicked");
    }
    outcome
}

/// Who answers on the admin socket.
fn admin(config: &Run, metrics: &Metrics, reconciling: &Reconciling) -> Admin {
    let (tables, facts) = (Arc::clone(&metrics.tables), metrics.facts.clone());
    let (services, pins) = (config.service_cidr.clone(), metrics.pins.clone());
    let hub = Hub::new(pins.clone(), Arc::clone(&tables), facts.clone(), services.clone());
    let foresight = Foresight { tables: Arc::clone(&tables), facts: facts.clone(), pins: pins.clone() };
    let explainer = Explainer { tables, facts, services, pods: config.cluster_cidr.clone(), pins };
    Admin { reconciling: reconciling.clone(), explainer, foresight, hub }
}

/// The largest packet of pods, which the uplinks must be able to carry.
fn pods_mtu(wanted: Option<u32>, uplinks: u32) -> Result<u32> {
    match wanted {
        Some(wanted) if wanted > uplinks => {
            bail!("--mtu {wanted} is more than the uplinks carry, which is {uplinks}")
        }
        wanted => Ok(wanted.unwrap_or(uplinks)),
    }
}

/// Without bits of hosts, as the kernel keeps them.
fn unmasked(networks: &[IpNetwork]) -> BTreeSet<IpNetwork> {
    networks.iter().filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok()).collect()
}

async fn watch_uplinks(devices: BTreeSet<String>, tables: Arc<Tables>, stop: CancellationToken) {
    sources::links::run(devices, tables, stop).await;
}
