//! `hawser-agent check` on the cluster: every way works, what is broken is named, and nothing it made is left.

use std::net::Ipv6Addr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

pub async fn cases(cluster: &Cluster) -> Result<()> {
    cluster.import_agent()?;
    // Nobody else has these addresses on the nodes' link. 48 ways, and the namespace that is gone.
    let [a, b, c, _] = cluster.layout.host_v4().octets();
    let mut v6 = cluster.layout.host_v6().segments();
    v6[7] = 0x200;
    let beside = format!("hawser-{}={a}.{b}.{c}.200,{}", cluster.layout.name, Ipv6Addr::from(v6));
    every_way_works(cluster, &["--outside", &beside], (49, 0)).context("traffic")?;
    node_is_fit(cluster).context("a node")?;
    trouble_is_named(cluster).context("pods that do not start")?;
    nothing_is_left(cluster).await?;
    interrupt(cluster).await.context("interrupted")?;
    nothing_is_left(cluster).await
}

/// While there are pools, the host, which is outside, reaches load balancers. It has no route to pods and ClusterIPs.
pub fn balancers_are_reached(cluster: &Cluster) -> Result<()> {
    every_way_works(cluster, &["--load-balancer", "--nodes", "node-3,node-2"], (41, 8))
}

fn every_way_works(cluster: &Cluster, more: &[&str], wanted: (usize, usize)) -> Result<()> {
    let began = Instant::now();
    let output = traffic(cluster).args(more).output()?;
    let rows = rows(&output)?;
    ensure!(output.status.success(), "{rows:#?}");
    let counted = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count();
    ensure!((counted("ok"), counted("not-run")) == wanted, "{rows:#?}");
    println!("  the traffic matrix took {:.1?}", began.elapsed());
    Ok(())
}

fn node_is_fit(cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes[0];
    let (layout, state) = (&node.layout, node.layout.state());
    let mut command = Command::new(&cluster.binaries.agent);
    command.args(["check", "--scope", "node", "--json", "--run-dir"]).arg(layout.run());
    command.arg("--bpffs").arg(layout.bpffs());
    command.arg("--cri-endpoint").arg(format!("unix://{}", layout.containerd_socket().display()));
    command.arg("--cni-conf-dir").arg(state.join("cni/net.d"));
    command.arg("--cni-bin-dir").arg(state.join("cni/bin"));
    node.place()?.enter_before_exec(&mut command)?;
    let output = command.output()?;
    let rows = rows(&output)?;
    ensure!(output.status.success(), "{rows:#?}");
    for what in
        ["kernel", "privileges", "agent", "uplink eth0", "MTU of pods", "routes to peers", "CNI plugin"]
    {
        ensure!(rows.iter().any(|row| row["what"] == what && row["outcome"] == "ok"), "{what}: {rows:#?}");
    }
    Ok(())
}

fn trouble_is_named(cluster: &Cluster) -> Result<()> {
    let output = traffic(cluster).args(["--image", "hawser.dev/none:1", "--patience", "2"]).output()?;
    ensure!(!output.status.success(), "pods of no image are said to work");
    let rows = rows(&output)?;
    let named = rows.iter().any(|row| {
        row["outcome"] == "failed"
            && row["detail"].as_str().is_some_and(|detail| detail.contains("pod same is"))
    });
    ensure!(named, "{rows:#?}");
    Ok(())
}

async fn interrupt(cluster: &Cluster) -> Result<()> {
    let child = traffic(cluster).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while namespaces(cluster).await? == 0 {
        ensure!(Instant::now() < deadline, "check makes no namespace");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    ensure!(!output.status.success(), "an interrupted check is said to have succeeded");
    let rows = rows(&output)?;
    ensure!(rows.iter().any(|row| row["detail"] == "interrupted"), "{rows:#?}");
    Ok(())
}

async fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    let left = namespaces(cluster).await?;
    ensure!(left == 0, "{left} namespaces are left");
    Ok(())
}

async fn namespaces(cluster: &Cluster) -> Result<usize> {
    let namespaces = Api::<Namespace>::all(cluster.api.client.clone());
    Ok(namespaces.list(&ListParams::default().labels("hawser.dev/check")).await?.items.len())
}

fn traffic(cluster: &Cluster) -> Command {
    let mut command = Command::new(&cluster.binaries.agent);
    command.args(["check", "--scope", "traffic", "--json", "--kubeconfig"]).arg(cluster.layout.kubeconfig());
    command
}

fn rows(output: &Output) -> Result<Vec<Value>> {
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no rows: {}", String::from_utf8_lossy(&output.stderr)))
}
