//! A load balancer's address from a pool: given, announced on the link of the nodes, and taken over when its announcer dies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Place};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::check;
use crate::support::REPLICAS;

const PATIENCE: Duration = Duration::from_secs(30);
const KUBELET: u16 = 10250;
const LEASE: &str = "hawser-announce-link";

/// The pool is part of the nodes' own network, and the host is a neighbour of theirs.
pub async fn cases(cluster: &Cluster) -> Result<()> {
    let [a, b, c, _] = cluster.layout.host_v4().octets();
    let pool = format!("{a}.{b}.{c}.240/29");
    let mut v6 = cluster.layout.host_v6().segments();
    v6[7] = 0xf000;
    let pool = format!("{pool}, '{}/120'", Ipv6Addr::from(v6));
    let objects = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: hawser, namespace: kube-system}}\n\
         data:\n  pools.yaml: |\n    - {{name: link, kind: LoadBalancer, cidrs: [{pool}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: pooled}}\n\
         spec: {{type: LoadBalancer, selector: {{app: hello}}, ports: [{{port: 80, targetPort: http}}]}}\n"
    );
    cluster.api.apply(&objects).await?;
    let address = given(cluster).await.context("an address is given")?;
    ensure!(address == IpAddr::from(Ipv4Addr::new(a, b, c, 240)), "the first of the pool, not {address}");
    reach(cluster, address).context("the address answers")?;
    check::balancers_are_reached(cluster).context("check, with addresses of the pool")?;
    let first = holder(cluster, None).await?;
    ensure!(neighbour(address)? == hardware_address(cluster, &first)?, "the announcer is the neighbour");
    let node = cluster.nodes.iter().find(|node| node.layout.name() == first).context("a node announces")?;
    node.agent.kill()?;
    let dead = Instant::now();
    let second = holder(cluster, Some(&first)).await.context("somebody else announces")?;
    let mac = hardware_address(cluster, &second)?;
    while neighbour(address)? != mac {
        ensure!(dead.elapsed() < PATIENCE, "the host's neighbour is {}", neighbour(address)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("  {second} announces {:.2?} after the agent of {first} was killed", dead.elapsed());
    reach(cluster, address).context("the address answers at its new announcer")?;
    node.start_agent(&cluster.binaries)?;
    let kubelet = SocketAddr::new(node.layout.v4().into(), KUBELET);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&kubelet, Duration::from_secs(1)).is_err() {
        ensure!(Instant::now() < deadline, "the agent of {first} is not back");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster
        .api
        .apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hawser, namespace: kube-system}\n")
        .await
}

async fn given(cluster: &Cluster) -> Result<IpAddr> {
    let services = Api::<Service>::default_namespaced(cluster.api.client.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = services.get("pooled").await?.status;
        let ingress = status.and_then(|status| status.load_balancer?.ingress).unwrap_or_default();
        if let Some(address) = ingress.first().and_then(|one| one.ip.as_deref()) {
            return Ok(address.parse()?);
        }
        ensure!(Instant::now() < deadline, "its status has none");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn reach(cluster: &Cluster, address: IpAddr) -> Result<()> {
    let address = SocketAddr::new(address, 80);
    e2e::answers_from(&cluster.binaries.local, &Place::host(), address, REPLICAS, PATIENCE).map(drop)
}

/// Who holds the Lease, once it is not `but`.
async fn holder(cluster: &Cluster, but: Option<&str>) -> Result<String> {
    let leases = Api::<Lease>::namespaced(cluster.api.client.clone(), "kube-system");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity);
        match holder {
            Some(holder) if Some(holder.as_str()) != but => return Ok(holder),
            _ if Instant::now() > deadline => bail!("{holder:?} holds {LEASE}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Hardware address of the host's neighbour with this address.
fn neighbour(address: IpAddr) -> Result<String> {
    word_after(&ip(&["neighbour", "show", &address.to_string()])?, "lladdr")
}

fn hardware_address(cluster: &Cluster, node: &str) -> Result<String> {
    let node = cluster.nodes.iter().find(|known| known.layout.name() == node).context("the node is known")?;
    let address = node.layout.v4().to_string();
    // The host has spoken with every node.
    word_after(&ip(&["neighbour", "show", &address])?, "lladdr")
}

fn ip(arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8(Command::new("ip").args(arguments).output()?.stdout)?)
}

fn word_after(text: &str, word: &str) -> Result<String> {
    let mut words = text.split_whitespace().skip_while(|known| *known != word);
    words.nth(1).map(str::to_owned).with_context(|| format!("{text:?} names no {word}"))
}
