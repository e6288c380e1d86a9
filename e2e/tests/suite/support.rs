//! What the cluster cases ask of the example.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Binaries, Cluster, Layout, Place};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams};
use serde_json::json;
use tokio::io::AsyncReadExt;

const PATIENCE: Duration = Duration::from_secs(60);
const EXAMPLE: &str = include_str!("../../../deploy/examples/hello.yaml");
pub const REPLICAS: usize = 6;
const HTTP_NODE_PORT: u16 = 30080;
const UDP_NODE_PORT: u16 = 30081;

/// One case at a time, of all test runs on this machine: each brings up a cluster of its own, under a name of its own.
pub fn turn() -> Result<File> {
    let path = "/run/lock/hawser-suite";
    let file = File::create(path).with_context(|| format!("create {path}"))?;
    // The kernel takes the lock back from who ends, however that happens.
    file.lock().with_context(|| format!("lock {path}"))?;
    Ok(file)
}

/// Without root there is no cluster: that is a failure in CI and a printed line elsewhere.
pub fn is_skipped() -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "the cluster test needs root, and CI must have it");
    println!("skipped: the cluster test needs root");
    true
}

/// The programs as `cargo xtask test` builds them.
pub fn binaries() -> Result<Binaries> {
    Binaries::below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"))
}

/// The end of every log, for the reader of a failure.
pub fn print_logs(layout: &Layout) {
    let Ok(entries) = std::fs::read_dir(layout.logs()) else { return };
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("---- {}", entry.path().display());
        println!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    }
}

/// No process, link, namespace, cgroup, mount, pin or file of the cluster.
pub fn nothing_is_left(layout: &Layout) -> Result<()> {
    let name = format!("hawser-{}", layout.name);
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    for place in [layout.scratch(), layout.run(), layout.data()] {
        ensure!(!place.exists(), "{} is left", place.display());
        ensure!(
            !mounts.contains(&*place.to_string_lossy()),
            "something is mounted below {}",
            place.display()
        );
    }
    for folder in [
        "/sys/fs/bpf",
        "/run/netns",
        "/sys/class/net",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/pids",
    ] {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let found = entry.file_name().to_string_lossy().into_owned();
            ensure!(!found.starts_with(&name), "{folder}/{found} is left");
        }
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let ours = command.contains(&*layout.scratch().to_string_lossy())
            || command.contains(&*layout.run().to_string_lossy());
        ensure!(!ours, "a process is left: {}", command.replace('\0', " "));
    }
    Ok(())
}

/// An address of the example, and how to talk to it.
pub struct Target {
    pub name: String,
    pub address: SocketAddr,
    pub is_udp: bool,
    pub is_cluster_ip: bool,
}

/// The example with more replicas than the file says, so that three nodes carry two each.
pub struct Subject<'a> {
    cluster: &'a Cluster,
    local: std::path::PathBuf,
}

impl<'a> Subject<'a> {
    pub async fn deploy(cluster: &'a Cluster) -> Result<Self> {
        cluster.api.apply(EXAMPLE).await?;
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.api.client.clone());
        let scale = json!({"spec": {"replicas": REPLICAS}});
        deployments
            .patch("hello", &PatchParams::default(), &Patch::Merge(scale))
            .await
            .context("scale the example")?;
        Self::find(cluster).await
    }

    /// Waits until the example that is there is available.
    pub async fn find(cluster: &'a Cluster) -> Result<Self> {
        let path = "/apis/apps/v1/namespaces/default/deployments/hello";
        let available = |deployment: &Deployment| {
            let status = deployment.status.as_ref();
            status.is_some_and(|status| {
                let wanted = i32::try_from(REPLICAS).ok();
                status.available_replicas == wanted && status.updated_replicas == wanted
            })
        };
        cluster.api.eventually(path, PATIENCE, available).await?;
        Ok(Self { cluster, local: binaries()?.local })
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::default_namespaced(self.cluster.api.client.clone());
        let listed = pods.list(&ListParams::default().labels("app=hello")).await?;
        Ok(listed.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
    }

    pub async fn is_spread(&self) -> Result<()> {
        let pods = self.pods().await?;
        let nodes: BTreeSet<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
        ensure!(nodes.len() == 3, "all pods run on {nodes:?}");
        let addresses: BTreeSet<String> =
            pods.iter().flat_map(addresses).map(|address| address.to_string()).collect();
        ensure!(
            addresses.len() == pods.len() * 2,
            "pods do not have two addresses each of their own: {addresses:?}"
        );
        Ok(())
    }

    pub async fn cluster_ips(&self) -> Result<Vec<IpAddr>> {
        let services: Api<Service> = Api::default_namespaced(self.cluster.api.client.clone());
        let spec = services.get("hello").await?.spec.context("a Service has a spec")?;
        let texts = spec.cluster_ips.context("the Service has no ClusterIPs")?;
        texts.iter().map(|text| text.parse().with_context(|| format!("{text} is no address"))).collect()
    }

    /// The HTTP NodePort of a node, over IPv4.
    pub fn node_port(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.cluster.nodes[node].layout.v4().into(), HTTP_NODE_PORT)
    }

    pub async fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for ip in self.cluster_ips().await? {
            for (is_udp, port, protocol) in [(false, 80, "TCP"), (true, 81, "UDP")] {
                let address = SocketAddr::new(ip, port);
                targets.push(Target {
                    name: format!("ClusterIP {protocol} {address}"),
                    address,
                    is_udp,
                    is_cluster_ip: true,
                });
            }
        }
        for ip in self.cluster.nodes[0].layout.addresses() {
            for (is_udp, port, protocol) in [(false, HTTP_NODE_PORT, "TCP"), (true, UDP_NODE_PORT, "UDP")] {
                let address = SocketAddr::new(ip, port);
                targets.push(Target {
                    name: format!("NodePort {protocol} {address}"),
                    address,
                    is_udp,
                    is_cluster_ip: false,
                });
            }
        }
        Ok(targets)
    }

    pub fn callers(&self) -> Result<Vec<(&'static str, Place)>> {
        let nodes = &self.cluster.nodes;
        Ok(vec![("node 1", nodes[0].place()?), ("node 2", nodes[1].place()?), ("outside", Place::host())])
    }

    /// All replicas answer a caller in `place`.
    pub fn answers(&self, place: &Place, target: &Target) -> Result<()> {
        if target.is_udp {
            return e2e::echoes_from(&self.local, place, target.address, REPLICAS, Duration::from_secs(20));
        }
        e2e::answers_from(&self.local, place, target.address, REPLICAS, Duration::from_secs(20)).map(|_| ())
    }

    /// Some replica answers a call made inside a pod.
    pub async fn answers_a_pod(&self, target: &Target) -> Result<()> {
        let pods = self.pods().await?;
        let pod = pods.first().context("there is a pod")?;
        let names: Vec<String> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        let address = target.address;
        let protocol = if target.is_udp { "udp" } else { "tcp" };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = self.ask(pod, protocol, address).await?;
            if names.iter().any(|name| said.lines().next() == Some(name)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("asking {address} over {protocol} in a pod printed {said:?}");
            }
        }
    }

    /// The replicas on a node.
    pub async fn names_on(&self, node: usize) -> Result<BTreeSet<String>> {
        let name = self.cluster.nodes[node].layout.name();
        let is_there =
            |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name.as_str());
        Ok(self.pods().await?.into_iter().filter(is_there).filter_map(|pod| pod.metadata.name).collect())
    }

    /// A pod that asks an address hears these words in the end.
    pub async fn hears(&self, address: SocketAddr, words: &str) -> Result<()> {
        let pods = self.pods().await?;
        let pod = pods.first().context("there is a pod")?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.ask(pod, "tcp", address).await?;
            if said.contains(words) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "asking {address} in a pod printed {said:?}");
        }
    }

    /// What a pod hears when it asks an address with the example's own client.
    async fn ask(&self, pod: &Pod, protocol: &str, address: SocketAddr) -> Result<String> {
        let address = address.to_string();
        let command = format!("/bin/hawser-hello ask {protocol} {address} 2>&1");
        self.exec(pod, &["sh", "-c", &command]).await
    }

    pub async fn exec(&self, pod: &Pod, command: &[&str]) -> Result<String> {
        let pods: Api<Pod> = Api::default_namespaced(self.cluster.api.client.clone());
        let name = pod.metadata.name.as_deref().context("a pod has a name")?;
        let parameters = AttachParams::default().stdin(false).stdout(true).stderr(true);
        let whole = async {
            let mut attached = pods.exec(name, command.iter().copied(), &parameters).await?;
            let mut out = String::new();
            attached.stdout().context("exec gives standard output")?.read_to_string(&mut out).await?;
            anyhow::Ok(out)
        };
        let limit = Duration::from_secs(15);
        let ended = tokio::time::timeout(limit, whole).await;
        ended.with_context(|| format!("`{}` in {name} did not end within {limit:?}", command.join(" ")))?
    }

    /// A pod on each node sees the other's own address.
    pub async fn pods_reach_pods(&self) -> Result<()> {
        let pods = self.pods().await?;
        for from in &pods {
            for to in pods.iter().filter(|to| to.metadata.name != from.metadata.name) {
                for (own, peer) in addresses(from).into_iter().zip(addresses(to)) {
                    let target = SocketAddr::new(peer, 8080);
                    let said = self.ask(from, "tcp", target).await?;
                    let wanted = format!("client {own}");
                    let seen = said.lines().nth(1).unwrap_or_default().replace("::ffff:", "");
                    ensure!(seen == wanted, "{target} saw `{seen}`, not `{wanted}`");
                }
            }
        }
        Ok(())
    }

    /// A listener on the host, outside of the cluster, sees the node's address and not the pod's.
    pub async fn masquerade(&self) -> Result<()> {
        let pods = self.pods().await?;
        let pod = pods.first().context("there is a pod")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod has a node")?;
        let node =
            self.cluster.nodes.iter().find(|one| one.layout.name() == node).context("the node is ours")?;
        let layout = &self.cluster.layout;
        for (host, wanted) in [
            (IpAddr::from(layout.host_v4()), IpAddr::from(node.layout.v4())),
            (layout.host_v6().into(), node.layout.v6().into()),
        ] {
            let listener = TcpListener::bind((host, 0))?;
            let target = listener.local_addr()?;
            let seen = std::thread::spawn(move || -> Result<IpAddr> {
                listener.set_nonblocking(true)?;
                let deadline = Instant::now() + Duration::from_secs(10);
                loop {
                    match listener.accept() {
                        Ok((_, peer)) => return Ok(peer.ip()),
                        Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                        Err(error) => return Err(error).context("nobody connected"),
                    }
                }
            });
            // The listener answers nothing; only who connects counts.
            self.ask(pod, "tcp", target).await?;
            let seen = seen.join().expect("the listener does not panic")?;
            ensure!(seen == wanted, "{target} saw {seen} instead of the node's {wanted}");
        }
        Ok(())
    }

    /// What the agent of the first node has pinned.
    pub fn pins(&self) -> Result<Vec<std::path::PathBuf>> {
        let mut pins = Vec::new();
        for version in std::fs::read_dir(self.cluster.nodes[0].layout.bpffs())? {
            let version = version?.path();
            if version.is_dir() {
                pins.extend(std::fs::read_dir(version)?.flatten().map(|entry| entry.path()));
            }
        }
        Ok(pins)
    }

    pub fn dumps_name_fields(&self) -> Result<()> {
        let services = self
            .pins()?
            .into_iter()
            .find(|pin| pin.ends_with("hw_frontends"))
            .context("no map hw_frontends is pinned")?;
        let dump = dump(&services)?;
        for field in ["addr", "port", "proto"] {
            ensure!(dump.contains(&format!("\"{field}\"")), "the dump has no field {field}: {dump:.400}");
        }
        Ok(())
    }

    /// Maps that hold what the agent wrote, not what packets did.
    fn configured(&self) -> Result<Vec<(String, String)>> {
        let tables = ["hw_frontends", "hw_services", "hw_backends", "hw_endpoints"];
        let pins = self.pins()?.into_iter().filter(|pin| tables.iter().any(|table| pin.ends_with(table)));
        let mut dumps =
            pins.map(|pin| Ok((pin.display().to_string(), dump(&pin)?))).collect::<Result<Vec<_>>>()?;
        dumps.sort();
        ensure!(dumps.len() == tables.len(), "some of {tables:?} are not pinned");
        Ok(dumps)
    }

    pub async fn survives_agent_kill(&self) -> Result<()> {
        let node = &self.cluster.nodes[0];
        let before = self.configured()?;
        let vip = SocketAddr::new(self.cluster_ips().await?[0], 80);
        node.agent.kill()?;
        // Every call is a new connection; one failure ends the caller with an error.
        let (local, place) = (self.local.clone(), node.place()?);
        let caller = std::thread::spawn(move || {
            e2e::calls_without_failure(&local, &place, vip, Duration::from_secs(4))
        });
        let outside = e2e::calls_without_failure(
            &self.local,
            &Place::host(),
            self.node_port(0),
            Duration::from_secs(1),
        );
        outside.context("from outside while no agent runs")?;
        node.start_agent(&self.cluster.binaries)?;
        let calls =
            caller.join().expect("the caller does not panic").context("from the node, across the restart")?;
        ensure!(calls > 100, "only {calls} calls in four seconds");
        let after = self.configured()?;
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            ensure!(before == after, "{name} was changed by the restart:\n{before:.2000}\n{after:.2000}");
        }
        Ok(())
    }

    pub async fn replaces_pods(&self) -> Result<()> {
        let pods: Api<Pod> = Api::default_namespaced(self.cluster.api.client.clone());
        let victim =
            self.pods().await?.first().and_then(|pod| pod.metadata.name.clone()).context("there is a pod")?;
        pods.delete(&victim, &DeleteParams::default()).await?;
        let deadline = Instant::now() + PATIENCE;
        while pods.get_opt(&victim).await?.is_some() {
            ensure!(Instant::now() < deadline, "{victim} is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self::find(self.cluster).await.map(|_| ())
    }

    pub async fn logs_and_exec(&self) -> Result<()> {
        let pods: Api<Pod> = Api::default_namespaced(self.cluster.api.client.clone());
        let all = self.pods().await?;
        let pod = all.first().context("there is a pod")?;
        let said = self.exec(pod, &["sh", "-c", "echo out; echo seen by logs > /proc/1/fd/1"]).await?;
        ensure!(said == "out\n", "exec printed {said:?}");
        let name = pod.metadata.name.as_deref().context("a pod has a name")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let log = pods.logs(name, &LogParams::default()).await?;
            if log.contains("seen by logs") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the log holds {log:?}");
        }
    }
}

/// A pod's addresses, IPv4 first.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
    let mut addresses: Vec<IpAddr> = ips.into_iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

/// What `bpftool` shows of a pinned map, as JSON.
pub fn dump(pin: &Path) -> Result<String> {
    let output =
        Command::new("bpftool").args(["map", "dump", "pinned"]).arg(pin).output().context("start bpftool")?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
