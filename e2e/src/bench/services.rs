//! A pod calls another pod, by its own address and through a Service, in turns.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;

use super::RUNS;
use super::stats::Spread;
use crate::cluster::Cluster;

const PODS: &str = include_str!("bench.yaml");
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints connect latency, connections and keep-alive requests per second, and the ratio of VIP to direct.
pub(super) async fn against_direct(cluster: &Cluster) -> Result<()> {
    cluster.api.apply(PODS).await?;
    for pod in ["bench-server", "bench-client"] {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        cluster.api.eventually(&path, PATIENCE, is_ready).await?;
    }
    let server: Pod =
        cluster.api.eventually("/api/v1/namespaces/default/pods/bench-server", PATIENCE, |_| true).await?;
    let service: Service =
        cluster.api.eventually("/api/v1/namespaces/default/services/bench", PATIENCE, |_| true).await?;
    let direct = server.status.and_then(|status| status.pod_ip).context("the server has an address")?;
    let vip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has an address")?;
    println!("\npod to pod on one node, directly and through a ClusterIP");
    println!("  {:<28}{:<30}{:<30}ratio", "", "direct", "ClusterIP");
    for (mode, what) in [("connect", "connections/s"), ("keepalive", "keep-alive requests/s")] {
        let (mut rates, mut medians) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for run in 0..RUNS {
            // Who goes first changes from run to run.
            for turn in 0..2 {
                let side = (run + turn) % 2;
                let address = if side == 0 { format!("{direct}:8080") } else { format!("{vip}:80") };
                let (rate, median) = load(cluster, mode, &address).await?;
                rates[side].push(rate);
                medians[side].push(median);
            }
        }
        print_row(what, &rates);
        if mode == "connect" {
            print_row("connect to answer, us (p50)", &medians);
        }
    }
    Ok(())
}

fn print_row(what: &str, [direct, vip]: &[Vec<f64>; 2]) {
    let (direct, vip) = (Spread::of(direct.clone()), Spread::of(vip.clone()));
    let ratio = vip.median / direct.median;
    println!("  {what:<28}{:<30}{:<30}{ratio:.3}", direct.to_string(), vip.to_string());
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Runs the example's load generator in the client pod for a second; it prints rate and median in microseconds.
async fn load(cluster: &Cluster, mode: &str, address: &str) -> Result<(f64, f64)> {
    let pods: kube::Api<Pod> = kube::Api::default_namespaced(cluster.api.client.clone());
    let parameters = AttachParams::default().stdin(false).stdout(true).stderr(false);
    let command = ["/bin/hawser-hello", "load", mode, address];
    let mut attached = pods.exec("bench-client", command, &parameters).await?;
    let mut out = String::new();
    attached.stdout().context("exec gives standard output")?.read_to_string(&mut out).await?;
    let (rate, median) =
        out.trim().split_once(' ').with_context(|| format!("the load generator printed {out:?}"))?;
    Ok((rate.parse().context("a rate")?, median.parse().context("a median")?))
}
