//! The example of `deploy/examples/hello.yaml`, called until every replica has answered.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;

use crate::cluster::Cluster;
use crate::place::Place;

const HELLO: &str = include_str!("../../deploy/examples/hello.yaml");
const PATIENCE: Duration = Duration::from_secs(60);

/// Who answered, how often, and the median time of an answer.
#[derive(Debug)]
pub struct Answers {
    pub by_pod: BTreeMap<String, usize>,
    pub median: Duration,
    /// When the first answer came, from the moment of the call.
    pub first: Duration,
}

/// Applies the example and calls it through its ClusterIP from a node and through its NodePort from outside.
pub async fn demo(cluster: &Cluster, tell: &(dyn Fn(&str) + Sync)) -> Result<()> {
    cluster.api.apply(HELLO).await.context("apply deploy/examples/hello.yaml")?;
    tell(
        "applied deploy/examples/hello.yaml: a Deployment of 3 replicas, a ClusterIP and a NodePort Service",
    );
    let service: Service =
        cluster.api.eventually("/api/v1/namespaces/default/services/hello", PATIENCE, |_| true).await?;
    let node_port: Service = cluster
        .api
        .eventually("/api/v1/namespaces/default/services/hello-nodeport", PATIENCE, |_| true)
        .await?;
    let vip: IpAddr = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the Service has no ClusterIP")?
        .parse()
        .context("the Service's ClusterIP is no address")?;
    let port = node_port
        .spec
        .and_then(|spec| spec.ports?.first()?.node_port)
        .context("the Service has no NodePort")?;
    let node = cluster.nodes.first().context("a cluster has a node")?;
    let inside = answers(&node.place()?, SocketAddr::new(vip, 80), 3, PATIENCE)?;
    tell(&shown("ClusterIP from a node", SocketAddr::new(vip, 80), &inside));
    let deployment = "/apis/apps/v1/namespaces/default/deployments/hello";
    cluster.api.eventually(deployment, PATIENCE, is_available).await?;
    let outside =
        SocketAddr::new(node.layout.v4().into(), u16::try_from(port).context("a port has 16 bits")?);
    let answered = answers(&Place::host(), outside, 3, PATIENCE)?;
    tell(&shown("NodePort from outside", outside, &answered));
    Ok(())
}

fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    deployment.status.as_ref().is_some_and(|status| status.available_replicas == wanted)
}

fn shown(what: &str, address: SocketAddr, answers: &Answers) -> String {
    let mut text = format!("{what}, http://{address}: median {:.0?}\n", answers.median);
    for (pod, count) in &answers.by_pod {
        text += &format!("      {pod} answered {count} times\n");
    }
    text.trim_end().to_owned()
}

/// Calls `address` from `place`, a new connection each time, until `pods` different pods have answered.
pub fn answers(place: &Place, address: SocketAddr, pods: usize, patience: Duration) -> Result<Answers> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(["call", &address.to_string(), "--pods", &pods.to_string()]);
    command.args(["--seconds", &patience.as_secs().to_string()]);
    place.enter_before_exec(&mut command)?;
    let output = command.output().context("start the caller")?;
    if !output.status.success() {
        bail!("calling {address}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("read the answers of {address}"))
}

/// Lines `pod microseconds`, and a first line with the time of the first answer.
fn parse(text: &str) -> Result<Answers> {
    let mut lines = text.lines();
    let first = lines.next().context("no answer")?.parse().context("the first line is a number")?;
    let mut by_pod = BTreeMap::new();
    let mut times = Vec::new();
    for line in lines {
        let (pod, time) = line.rsplit_once(' ').with_context(|| format!("`{line}` is no answer"))?;
        *by_pod.entry(pod.to_owned()).or_insert(0) += 1;
        times.push(time.parse().with_context(|| format!("`{time}` is no time"))?);
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().context("no answer")?;
    Ok(Answers { by_pod, median: Duration::from_micros(median), first: Duration::from_micros(first) })
}

/// What `hawser-local call` does, in whatever place it was started in: prints what [`parse`] reads.
pub fn call(address: SocketAddr, pods: usize, patience: Duration) -> Result<()> {
    let began = Instant::now();
    let mut out = String::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut last = anyhow::anyhow!("no call was made");
    while seen.len() < pods {
        if began.elapsed() > patience {
            return Err(
                last.context(format!("after {patience:?} only {} of {pods} pods have answered", seen.len()))
            );
        }
        let call = Instant::now();
        match get(address) {
            Ok(pod) => {
                if out.is_empty() {
                    out = format!("{}\n", began.elapsed().as_micros());
                }
                out += &format!("{pod} {}\n", call.elapsed().as_micros());
                seen.insert(pod);
            }
            Err(error) => {
                last = error;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    std::io::stdout().write_all(out.as_bytes()).context("print the answers")
}

/// One HTTP request on a connection of its own; the first line of the body is the pod's name.
fn get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).context("set a time limit")?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("send the request")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    let body = answer.split_once("\r\n\r\n").context("the answer has no body")?.1;
    Ok(body.lines().next().unwrap_or_default().to_owned())
}
