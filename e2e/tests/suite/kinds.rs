//! Services of every kind and policy, on the cluster that runs the example: two replicas on each of three nodes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::Cluster;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{REPLICAS, Subject};

const SERVICES: &str = include_str!("kinds.yaml");
const PATIENCE: Duration = Duration::from_secs(30);
/// As `kinds.yaml` says; nobody has it on a device.
const EXTERNAL: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77));
/// What a cloud would have given.
const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
const LOOPBACK_NODE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 30080);
const HOST_PORT: u16 = 8090;
const HEALTH: u16 = 10256;

/// Every case, on objects of its own.
pub async fn cases(cluster: &Cluster, subject: &Subject<'_>) -> Result<()> {
    let objects = SERVICES.replace("NODE", &cluster.nodes[0].layout.name());
    cluster.api.apply(&objects).await?;
    let services: Api<Service> = Api::default_namespaced(cluster.api.client.clone());
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": LOAD_BALANCER}]}}});
    let parameters = PatchParams::default();
    services
        .patch_status("kind-balanced", &parameters, &Patch::Merge(status))
        .await
        .context("give an address")?;
    let here = subject.names_on(0).await?;
    let near = SocketAddr::new(vip(&services, "kind-near").await?, 80);
    let close = SocketAddr::new(vip(&services, "kind-close").await?, 80);
    only(cluster, near, &here).context("internalTrafficPolicy: Local")?;
    only(cluster, close, &here).context("trafficDistribution: PreferSameNode")?;
    everybody(cluster, SocketAddr::new(EXTERNAL, 80)).context("an external address")?;
    everybody(cluster, LOOPBACK_NODE_PORT).context("a NodePort on the loopback")?;
    let balanced = SocketAddr::new(LOAD_BALANCER, 80);
    everybody(cluster, balanced).context("a load balancer's address with a local policy, from inside")?;
    let nobody = SocketAddr::new(vip(&services, "kind-nobody").await?, 80);
    subject.hears(nobody, "refused").await.context("a Service without endpoints")?;
    ranges(&services, subject, balanced).await.context("loadBalancerSourceRanges")?;
    health(cluster, &services).await?;
    host_port(cluster).context("hostPort")
}

async fn vip(services: &Api<Service>, name: &str) -> Result<IpAddr> {
    let spec = services.get(name).await?.spec.context("a Service has a spec")?;
    let text = spec.cluster_ip.context("the Service has no ClusterIP")?;
    text.parse().with_context(|| format!("{text} is no address"))
}

/// All replicas answer on node 1.
fn everybody(cluster: &Cluster, address: SocketAddr) -> Result<()> {
    let node = &cluster.nodes[0];
    e2e::answers_from(&cluster.binaries.local, &node.place()?, address, REPLICAS, PATIENCE).map(|_| ())
}

/// On node 1 these replicas answer, and in the end no others.
fn only(cluster: &Cluster, address: SocketAddr, wanted: &BTreeSet<String>) -> Result<()> {
    let place = cluster.nodes[0].place()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answers = e2e::answers_from(&cluster.binaries.local, &place, address, wanted.len(), PATIENCE)?;
        let heard: BTreeSet<String> = answers.by_pod.into_keys().collect();
        if heard == *wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{heard:?} answer instead of {wanted:?}");
    }
}

/// A range that pods are not in keeps them out; without it they are heard again.
async fn ranges(services: &Api<Service>, subject: &Subject<'_>, address: SocketAddr) -> Result<()> {
    for (ranges, hears) in [(json!(["192.0.2.250/32"]), "timed out"), (Value::Null, "client")] {
        let patch = json!({"spec": {"loadBalancerSourceRanges": ranges}});
        services.patch("kind-balanced", &PatchParams::default(), &Patch::Merge(patch)).await?;
        subject.hears(address, hears).await?;
    }
    Ok(())
}

/// The health port of the balanced Service counts its endpoints here, and the proxy is alive.
async fn health(cluster: &Cluster, services: &Api<Service>) -> Result<()> {
    let node = IpAddr::from(cluster.nodes[0].layout.v4());
    let spec = services.get("kind-balanced").await?.spec.context("a Service has a spec")?;
    let port = spec.health_check_node_port.context("no health port was allocated")?;
    let answer = get(SocketAddr::new(node, u16::try_from(port)?), "/")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let weight = answer.to_lowercase().contains("x-load-balancing-endpoint-weight: 2");
    ensure!(weight && answer.contains(r#""localEndpoints":2"#), "{answer}");
    for path in ["/healthz", "/livez"] {
        let answer = get(SocketAddr::new(node, HEALTH), path)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    Ok(())
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match try_get(address, path) {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > deadline => bail!("{address}{path}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn try_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The pod with a hostPort answers on its node's address, also for callers outside.
fn host_port(cluster: &Cluster) -> Result<()> {
    let node = IpAddr::from(cluster.nodes[0].layout.v4());
    let address = SocketAddr::new(node, HOST_PORT);
    for place in [e2e::Place::host(), cluster.nodes[1].place()?] {
        e2e::answers_from(&cluster.binaries.local, &place, address, 1, PATIENCE)?;
    }
    Ok(())
}
