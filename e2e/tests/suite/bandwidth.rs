//! A pod whose annotations limit its bandwidth: what the kernel was told, and how much passes.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{self, Subject};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 9000;
/// How long what passes is weighed.
const WEIGHED: Duration = Duration::from_secs(2);
/// `10M` of the annotations, in bytes per second.
const RATE: u64 = 1_250_000;
/// The pod with limits, and one without on another node.
const PODS: [(&str, usize); 2] = [("limited", 0), ("free", 1)];

pub async fn cases(cluster: &Cluster, subject: &Subject<'_>) -> Result<()> {
    for (name, node) in PODS {
        let node = cluster.nodes[node].layout.name();
        cluster.api.apply(&pod(name, &node).to_string()).await?;
    }
    let mut pods = Vec::new();
    for (name, _) in PODS {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let is_running = |pod: &Pod| {
            let status = pod.status.as_ref();
            status.is_some_and(|status| {
                let ready = status.container_statuses.iter().flatten().any(|one| one.ready);
                ready && status.pod_ips.as_ref().is_some_and(|ips| ips.len() == 2)
            })
        };
        pods.push(cluster.api.eventually::<Pod>(&path, PATIENCE, is_running).await?);
    }
    let [limited, free] = &pods[..] else { unreachable!("two pods") };
    told(subject, limited).await?;
    for (from, to, way) in [(limited, free, "sends"), (free, limited, "receives")] {
        for address in support::addresses(to) {
            let bytes = pass(subject, from, address).await.with_context(|| format!("to {address}"))?;
            let most = 2 * RATE * WEIGHED.as_secs();
            println!("  a pod with 10M {way} {bytes} bytes in {WEIGHED:?}, {address}");
            ensure!((RATE / 10..most).contains(&bytes), "{bytes} bytes to {address} in {WEIGHED:?}");
        }
    }
    let pods = Api::<Pod>::default_namespaced(cluster.api.client.clone());
    for (name, _) in PODS {
        pods.delete(name, &DeleteParams::default()).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while !paces(subject)?.is_empty() {
        ensure!(Instant::now() < deadline, "limits of a pod that is gone: {:?}", paces(subject)?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn pod(name: &str, node: &str) -> Value {
    let limits = json!({ "kubernetes.io/egress-bandwidth": "10M", "kubernetes.io/ingress-bandwidth": "10M" });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "annotations": if name == "limited" { limits } else { json!({}) } },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "weigh",
                "image": "hawser.dev/hello:local",
                "imagePullPolicy": "Never",
                "args": ["weigh", PORT.to_string(), WEIGHED.as_millis().to_string()],
            }],
        },
    })
}

/// The kernel knows both limits, and the pod's device has a discipline that holds it up.
async fn told(subject: &Subject<'_>, limited: &Pod) -> Result<()> {
    let mut paces = paces(subject)?;
    paces.sort_unstable();
    ensure!(paces == [(0, RATE), (1, RATE)], "the kernel was told {paces:?}, direction and rate");
    let namespace = subject.exec(limited, &["readlink", "/proc/self/ns/net"]).await?;
    let process = process_in(namespace.trim()).with_context(|| format!("nobody is in {namespace}"))?;
    let tc = |arguments: &str| -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{process}/ns/net")).arg("tc").args(arguments.split(' '));
        Ok(String::from_utf8(command.output()?.stdout)?)
    };
    let discipline = tc("qdisc show dev eth0 root")?;
    let stamps = tc("filter show dev eth0 egress")?.contains("tc_pace_out");
    let holds = discipline.contains("qdisc tbf ") && discipline.contains("rate 10Mbit ")
        || discipline.contains("qdisc fq ") && stamps;
    ensure!(holds, "what the pod sends is not held up: {discipline}");
    let filters = tc("filter show dev eth0 ingress")?;
    ensure!(filters.contains("tc_pace_in"), "what the pod receives is not counted: {filters}");
    Ok(())
}

/// Direction and rate of every limit on the first node.
fn paces(subject: &Subject<'_>) -> Result<Vec<(u64, u64)>> {
    let pins = subject.pins()?;
    let pin = pins.iter().find(|pin| pin.ends_with("hw_paces")).context("hw_paces is not pinned")?;
    let rows: Vec<Value> = serde_json::from_str(&support::dump(pin)?)?;
    let number = |value: &Value| value.as_u64().with_context(|| format!("{value} is no number"));
    rows.iter().map(|row| Ok((number(&row["key"]["direction"])?, number(&row["value"]["rate"])?))).collect()
}

/// A process in the network namespace with this name.
fn process_in(namespace: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        std::fs::read_link(format!("/proc/{number}/ns/net")).is_ok_and(|link| link.as_os_str() == namespace)
    })
}

/// How many bytes of all that `from` can send arrive in the time.
async fn pass(subject: &Subject<'_>, from: &Pod, to: IpAddr) -> Result<u64> {
    let address = SocketAddr::new(to, PORT).to_string();
    let said = subject.exec(from, &["hawser-hello", "pour", &address]).await?;
    said.trim().parse().with_context(|| format!("pouring into {address} printed {said:?}"))
}
