//! Another agent with other maps on every node, one after the other, while connections are held and made.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Binaries, Cluster, Node, Place};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use serde_json::json;

use crate::support::Subject;

const PATIENCE: Duration = Duration::from_secs(30);
const TERM: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_secs(1);

pub async fn cases(cluster: &Cluster, subject: &Subject<'_>) -> Result<()> {
    let next = next_version(cluster)?;
    let vips = subject.cluster_ips().await?;
    let holders = hold(cluster, &vips.iter().map(|ip| SocketAddr::new(*ip, 80)).collect::<Vec<_>>()).await?;
    let mut kept: Vec<TcpStream> =
        (0..cluster.nodes.len()).map(|node| keep(subject.node_port(node))).collect::<Result<_>>()?;
    let callers = callers(cluster, subject, SocketAddr::new(vips[0], 80))?;
    let done = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| -> Result<usize> {
        let threads: Vec<ScopedJoinHandle<'_, Result<usize>>> = callers
            .iter()
            .map(|(place, address)| scope.spawn(|| call(cluster, place, *address, &done)))
            .collect();
        let rolled = roll(cluster, &next, &mut kept);
        done.store(true, Ordering::Relaxed);
        let calls = threads.into_iter().map(|thread| thread.join().expect("a caller does not panic"));
        let calls = calls.collect::<Result<Vec<usize>>>();
        rolled?;
        Ok(calls?.into_iter().sum())
    })?;
    ensure!(calls > 100, "only {calls} calls were made");
    println!("  {calls} new connections, none lost");
    for holder in &holders {
        still_holds(cluster, holder).await.with_context(|| format!("the connection of pod {holder}"))?;
    }
    Ok(())
}

/// Another version lies elsewhere, and its maps are of other sizes: it finds none that it could take over as they are, and has
/// to convert what they hold while packets flow. Which steps of that a kill may fall between: `agent/tests/netns/upgrade.rs`.
fn next_version(cluster: &Cluster) -> Result<Binaries> {
    let folder = cluster.layout.scratch().join("next");
    std::fs::create_dir_all(&folder)?;
    let agent = folder.join("hawser-agent");
    std::fs::copy(&cluster.binaries.agent, &agent).context("copy the agent")?;
    std::fs::copy(cluster.binaries.agent.with_file_name("hawser-cni"), folder.join("hawser-cni"))
        .context("copy the CNI plugin")?;
    Ok(Binaries { agent, ..cluster.binaries.clone() })
}

/// Sizes of the maps of the other version, as `--map-scale`.
const OTHER_SCALE: u32 = 2;

/// Replaces the agent of each node by one of the other version, politely, and then by force by one of the first.
fn roll(cluster: &Cluster, next: &Binaries, kept: &mut [TcpStream]) -> Result<()> {
    for forced in [false, true] {
        for node in &cluster.nodes {
            let name = node.layout.name();
            if forced {
                node.agent.kill()?;
            } else {
                node.agent.stop(TERM);
            }
            exchange(kept).with_context(|| format!("while no agent runs on {name}"))?;
            let (binaries, scale) = if forced { (&cluster.binaries, 1) } else { (next, OTHER_SCALE) };
            let before = layouts(node)?;
            node.start_agent_with(binaries, scale)?;
            wait_until_synced(next, &node.layout.run())?;
            let after = layouts(node)?;
            ensure!(after.len() == 1 && after != before, "{before:?} became {after:?} on {name}");
            exchange(kept).with_context(|| format!("after another agent runs on {name}"))?;
        }
    }
    Ok(())
}

/// The folders of maps, by the layouts they are of.
fn layouts(node: &Node) -> Result<Vec<OsString>> {
    let folder = node.layout.bpffs();
    let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

fn wait_until_synced(binaries: &Binaries, run_dir: &std::path::Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = std::process::Command::new(&binaries.agent);
        let output = command.args(["status", "--json", "--run-dir"]).arg(run_dir).output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if report["synced"].as_array().is_some_and(|known| known.len() == 3) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the agent has not read the cluster: {report}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Pods on the first node that hold a connection to each of these addresses.
async fn hold(cluster: &Cluster, addresses: &[SocketAddr]) -> Result<Vec<String>> {
    let pods = Api::<Pod>::default_namespaced(cluster.api.client.clone());
    let mut names = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let name = format!("holder-{number}");
        let pod = json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": cluster.nodes[0].layout.name(),
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "hold",
                    "image": "hawser.dev/hello:local",
                    "imagePullPolicy": "Never",
                    "args": ["hold", address.to_string()],
                }],
            },
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        names.push(name);
    }
    for name in &names {
        answers(&pods, name, 1).await.with_context(|| format!("pod {name}"))?;
    }
    Ok(names)
}

/// How many answers a holder has printed, once it is at least `least`.
async fn answers(pods: &Api<Pod>, name: &str, least: u64) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = LogParams { tail_lines: Some(1), ..LogParams::default() };
        // There is no log before the container runs, nor while its node's agent starts.
        let log = pods.logs(name, &last).await.unwrap_or_default();
        match log.trim().parse() {
            Ok(count) if count >= least => return Ok(count),
            _ if Instant::now() > deadline => bail!("{least} answers are waited for, and it says {log:?}"),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// It is answered on the connection it began with.
async fn still_holds(cluster: &Cluster, name: &str) -> Result<()> {
    let pods = Api::<Pod>::default_namespaced(cluster.api.client.clone());
    let before = answers(&pods, name, 1).await?;
    answers(&pods, name, before + 1).await?;
    let status = pods.get(name).await?.status.context("a pod has a status")?;
    let restarts = status.container_statuses.iter().flatten().map(|one| one.restart_count).sum::<i32>();
    ensure!(status.phase.as_deref() == Some("Running") && restarts == 0, "{status:?}");
    pods.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// From each node to the Service, and from outside to each node.
fn callers(cluster: &Cluster, subject: &Subject<'_>, vip: SocketAddr) -> Result<Vec<(Place, SocketAddr)>> {
    let mut callers = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        callers.push((node.place()?, vip));
        callers.push((Place::host(), subject.node_port(number)));
    }
    Ok(callers)
}

/// Makes connections until `done`; a single failure ends it.
fn call(cluster: &Cluster, place: &Place, address: SocketAddr, done: &AtomicBool) -> Result<usize> {
    let mut calls = 0;
    while !done.load(Ordering::Relaxed) {
        calls += e2e::calls_without_failure(&cluster.binaries.local, place, address, ROUND)
            .with_context(|| format!("a new connection to {address}"))?;
    }
    Ok(calls)
}

/// A connection that is not let go.
fn keep(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(kept: &mut [TcpStream]) -> Result<()> {
    for stream in kept {
        let peer = stream.peer_addr()?;
        let lost = || format!("the connection to {peer} is lost");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").with_context(lost)?;
        let mut answer = [0; 1024];
        ensure!(stream.read(&mut answer).with_context(lost)? > 0, "{}", lost());
    }
    Ok(())
}
