//! A node goes down with everything on it, and comes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Place};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use crate::support::{REPLICAS, Subject};

/// The control plane waits for fifty seconds before it gives a node up.
const PATIENCE: Duration = Duration::from_secs(90);
const CALLS: Duration = Duration::from_secs(2);

pub async fn cases(cluster: &Cluster, subject: &Subject<'_>) -> Result<()> {
    let (lost, left) = (&cluster.nodes[2], &cluster.nodes[0]);
    let name = lost.layout.name();
    let local = &cluster.binaries.local;
    lost.crash().with_context(|| format!("end everything on {name}"))?;
    let dead = Instant::now();
    cluster.api.eventually(&format!("/api/v1/nodes/{name}"), PATIENCE, |node| !is_ready(node)).await?;
    no_endpoint_is_on(cluster, &name).await?;
    println!("  services leave {name} {:.1?} after it was lost", dead.elapsed());

    let remaining = REPLICAS - REPLICAS / cluster.nodes.len();
    let outside = subject.node_port(0);
    e2e::answers_from(local, &Place::host(), outside, remaining, PATIENCE)?;
    for ip in subject.cluster_ips().await? {
        let vip = SocketAddr::new(ip, 80);
        e2e::answers_from(local, &left.place()?, vip, remaining, PATIENCE)?;
        e2e::calls_without_failure(local, &left.place()?, vip, CALLS).context("from a node that is left")?;
    }
    e2e::calls_without_failure(local, &Place::host(), outside, CALLS).context("from outside")?;

    lost.start(&cluster.binaries).with_context(|| format!("bring {name} back"))?;
    cluster.api.eventually(&format!("/api/v1/nodes/{name}"), PATIENCE, is_ready).await?;
    Subject::find(cluster).await.with_context(|| format!("the pods of {name} run again"))?;
    let back = subject.node_port(2);
    e2e::answers_from(local, &Place::host(), back, REPLICAS, PATIENCE)
        .context("from outside, when it is back")?;
    let vip = SocketAddr::new(subject.cluster_ips().await?[0], 80);
    e2e::answers_from(local, &lost.place()?, vip, REPLICAS, PATIENCE)
        .context("from the node that is back")?;
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn no_endpoint_is_on(cluster: &Cluster, node: &str) -> Result<()> {
    let slices = Api::<EndpointSlice>::default_namespaced(cluster.api.client.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = slices.list(&ListParams::default().labels("kubernetes.io/service-name=hello")).await?;
        let endpoints = listed.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let there = endpoints.filter(|endpoint| {
            let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            endpoint.node_name.as_deref() == Some(node) && is_ready != Some(false)
        });
        let there = there.count();
        if there == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{there} endpoints are still on {node}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
