//! The example of `deploy/examples/hello.yaml`, called until every replica has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;

use crate::cluster::Cluster;
use crate::place::Place;

const HELLO: &str = include_str!("../../deploy/examples/hello.yaml");
/// As the example says.
const NODE_PORT: u16 = 30080;
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
    apply(cluster).await?;
    tell(
        "applied deploy/examples/hello.yaml: a Deployment of 3 replicas, a ClusterIP and a NodePort Service",
    );
    let node = cluster.nodes.first().context("a cluster has a node")?;
    let local = &cluster.binaries.local;
    let vip = cluster_ip(cluster).await?;
    let inside = answers_from(local, &node.place()?, vip, 3, PATIENCE)?;
    tell(&shown("ClusterIP from a node", vip, &inside));
    let outside = SocketAddr::new(node.layout.v4().into(), NODE_PORT);
    let answered = answers_from(local, &Place::host(), outside, 3, PATIENCE)?;
    tell(&shown("NodePort from outside", outside, &answered));
    let deployment = "/apis/apps/v1/namespaces/default/deployments/hello";
    cluster.api.eventually(deployment, PATIENCE, is_available).await?;
    Ok(())
}

/// Applies the example and waits for the first answer through its ClusterIP.
pub(crate) async fn first_answer(cluster: &Cluster) -> Result<()> {
    apply(cluster).await?;
    let node = cluster.nodes.first().context("a cluster has a node")?;
    let vip = cluster_ip(cluster).await?;
    answers_from(&cluster.binaries.local, &node.place()?, vip, 1, PATIENCE)?;
    Ok(())
}

async fn apply(cluster: &Cluster) -> Result<()> {
    cluster.api.apply(HELLO).await.context("apply deploy/examples/hello.yaml")
}

async fn cluster_ip(cluster: &Cluster) -> Result<SocketAddr> {
    let path = "/api/v1/namespaces/default/services/hello";
    let service: Service = cluster.api.eventually(path, PATIENCE, |_| true).await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no ClusterIP")?;
    Ok(SocketAddr::new(ip.parse().with_context(|| format!("{ip} is no address"))?, 80))
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

/// Calls `address` from `place`, a new connection each time, until `pods` different pods have answered. `local` is the
/// program `hawser-local`, which makes the calls there.
pub fn answers_from(
    local: &Path,
    place: &Place,
    address: SocketAddr,
    pods: usize,
    patience: Duration,
) -> Result<Answers> {
    let text = run_in(
        local,
        place,
        &["call", &address.to_string(), "--pods", &pods.to_string(), "--seconds", &seconds(patience)],
    )?;
    parse(&text).with_context(|| format!("read the answers of {address}"))
}

/// The same with datagrams to the example's echo port.
pub fn echoes_from(
    local: &Path,
    place: &Place,
    address: SocketAddr,
    pods: usize,
    patience: Duration,
) -> Result<()> {
    let arguments =
        ["call", &address.to_string(), "--udp", "--pods", &pods.to_string(), "--seconds", &seconds(patience)];
    run_in(local, place, &arguments).map(|_| ())
}

/// Calls for `time` without a pause; a single failure is an error. Returns how many calls were made.
pub fn calls_without_failure(
    local: &Path,
    place: &Place,
    address: SocketAddr,
    time: Duration,
) -> Result<usize> {
    let text =
        run_in(local, place, &["call", &address.to_string(), "--strict", "--seconds", &seconds(time)])?;
    Ok(text.lines().count().saturating_sub(1))
}

fn seconds(time: Duration) -> String {
    time.as_secs().to_string()
}

fn run_in(local: &Path, place: &Place, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(local);
    command.args(arguments);
    place.enter_before_exec(&mut command)?;
    let output = command.output().with_context(|| format!("start {}", local.display()))?;
    if !output.status.success() {
        bail!("{}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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

/// What `hawser-local call` does in whatever place it was started in.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub address: SocketAddr,
    /// Over UDP instead of HTTP.
    pub udp: bool,
    /// Ends once this many pods have answered; without it, calls until the time is over.
    pub pods: Option<usize>,
    /// A failed call ends everything.
    pub strict: bool,
    pub time: Duration,
}

impl Call {
    /// Makes the calls and prints what [`parse`] reads.
    pub fn run(self) -> Result<()> {
        let began = Instant::now();
        let mut out = String::new();
        let mut seen = BTreeSet::new();
        let mut last = None;
        loop {
            if self.pods.is_some_and(|pods| seen.len() >= pods) {
                break;
            }
            if began.elapsed() > self.time {
                let Some(pods) = self.pods else { break };
                let error = last.unwrap_or_else(|| anyhow::anyhow!("the others never answered"));
                return Err(error.context(format!(
                    "in {:?} only {} of {pods} pods have answered",
                    self.time,
                    seen.len()
                )));
            }
            let call = Instant::now();
            match if self.udp { echo(self.address) } else { get(self.address) } {
                Ok(pod) => {
                    if out.is_empty() {
                        out = format!("{}\n", began.elapsed().as_micros());
                    }
                    out += &format!("{pod} {}\n", call.elapsed().as_micros());
                    seen.insert(pod);
                }
                Err(error) if self.strict => {
                    return Err(error.context(format!("after {:?}", began.elapsed())));
                }
                Err(error) => {
                    last = Some(error);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        std::io::stdout().write_all(out.as_bytes()).context("print the answers")
    }
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

/// One datagram from a port of its own; the first line of the answer is the pod's name.
fn echo(address: SocketAddr) -> Result<String> {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
    let socket = UdpSocket::bind(any).context("bind a UDP socket")?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).context("set a time limit")?;
    socket.send_to(b"hello", address).context("send a datagram")?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).context("wait for the answer")?;
    if from != address {
        bail!("the answer came from {from}, not from {address}");
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).lines().next().unwrap_or_default().to_owned())
}
