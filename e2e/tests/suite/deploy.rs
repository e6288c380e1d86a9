//! The agent as `deploy/hawser.yaml` runs it: its arguments, its environment and the rights of its service account, on three
//! nodes that somebody else has made; and `deploy/uninstall.yaml` afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Layout, Node, NodeLayout, Place};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support;
use crate::traces::{self, Loaded, Traces};

const INSTALL: &str = include_str!("../../../deploy/hawser.yaml");
const UNINSTALL: &str = include_str!("../../../deploy/uninstall.yaml");
const NODES: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 8080;

#[test]
fn the_manifest_installs_and_takes_everything_away_again() -> Result<()> {
    if support::is_skipped() {
        return Ok(());
    }
    let _turn = support::turn()?;
    let layout: Layout = "dply:7".parse()?;
    e2e::down(&layout, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(run(&layout));
    drop(runtime);
    if outcome.is_err() {
        support::print_logs(&layout);
    }
    e2e::down(&layout, true)?;
    outcome?;
    support::nothing_is_left(&layout)
}

async fn run(layout: &Layout) -> Result<()> {
    let cluster =
        Cluster::up(layout.clone(), NODES, support::binaries()?, &|line| println!("{line}")).await?;
    cluster.nodes.iter().try_for_each(Node::clear)?;
    cluster.api.apply(INSTALL).await?;
    let mut nodes = Vec::new();
    for node in &cluster.nodes {
        nodes.push(Installed::new(&cluster, node).await?);
    }
    let before = nodes.iter().map(Installed::traces).collect::<Result<Vec<_>>>()?;
    let mut agents = start(&nodes, "auto").await?;
    let pods = nodes.iter().map(Sandbox::attach).collect::<Result<Vec<_>>>()?;
    let mut streams = connections(&nodes, &pods)?;
    // A rolling update, and a crash after which everything goes through tunnels.
    for (signal, tunnel) in [(Signal::SIGTERM, "auto"), (Signal::SIGKILL, "always")] {
        end(&mut agents, signal)?;
        exchange(&mut streams)?;
        agents = start(&nodes, tunnel).await?;
        exchange(&mut streams)?;
    }
    let loaded = nodes.iter().map(Installed::loaded).collect::<Result<Vec<_>>>()?;
    for (pod, node) in pods.iter().zip(&nodes) {
        pod.detach(node)?;
    }
    end(&mut agents, Signal::SIGKILL)?;
    for ((node, before), loaded) in nodes.iter().zip(&before).zip(&loaded) {
        node.keeps_to_its_rights()?;
        let installed = traces::difference(before, &node.traces()?);
        let name = node.layout.name();
        println!("  {name}: {} traces, {} programs, maps and links", installed.len(), loaded.len());
        ensure!(installed.len() > 50 && loaded.len() > 20, "{name} is not installed: {installed:#?}");
        node.uninstall()?;
        node.is_as(before, loaded).with_context(|| name)?;
    }
    Ok(())
}

/// An agent on each node, once it has read the cluster.
async fn start(nodes: &[Installed<'_>], tunnel: &str) -> Result<Vec<Child>> {
    let agents = nodes.iter().map(|node| node.start(tunnel)).collect::<Result<Vec<_>>>()?;
    for node in nodes {
        node.wait_until_synced().await?;
    }
    Ok(agents)
}

fn end(agents: &mut Vec<Child>, signal: Signal) -> Result<()> {
    for mut agent in agents.drain(..) {
        kill(Pid::from_raw(i32::try_from(agent.id())?), signal)?;
        agent.wait()?;
    }
    Ok(())
}

/// From each node, and from the pod of each node to that of the next.
fn connections(nodes: &[Installed<'_>], pods: &[Sandbox]) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for (number, (node, pod)) in nodes.iter().zip(pods).enumerate() {
        pod.serve()?;
        let own = node.place.netns.clone().context("a node has a namespace")?;
        streams.push(connect(&own, pod.addresses[0])?);
        let previous = &pods[(number + pods.len() - 1) % pods.len()];
        for address in &pod.addresses {
            streams.push(connect(&previous.netns, *address)?);
        }
    }
    exchange(&mut streams)?;
    Ok(streams)
}

fn connect(netns: &Path, to: IpAddr) -> Result<TcpStream> {
    let begun = Instant::now();
    // The other node's agent may not know the pod's prefix yet.
    loop {
        let second = Duration::from_secs(1);
        match inside(netns, move || TcpStream::connect_timeout(&SocketAddr::new(to, PORT), second))? {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => {
                ensure!(begun.elapsed() < PATIENCE, "connect to {to} from {}: {error}", netns.display());
            }
        }
    }
}

fn exchange(streams: &mut [TcpStream]) -> Result<()> {
    for stream in streams {
        let mut back = [0; 4];
        let peer = stream.peer_addr()?;
        let lost = || format!("the connection to {peer} is lost");
        stream.write_all(b"ping").with_context(lost)?;
        stream.read_exact(&mut back).with_context(lost)?;
        ensure!(&back == b"ping");
    }
    Ok(())
}

/// The arguments of the first container of a DaemonSet.
fn arguments(manifest: &str, kind: &str) -> Result<Vec<String>> {
    let set = documents(manifest)?
        .into_iter()
        .find(|object| object["kind"] == "DaemonSet")
        .context("no DaemonSet")?;
    let arguments = set["spec"]["template"]["spec"][kind][0]["args"].clone();
    Ok(serde_json::from_value(arguments)?)
}

fn documents(manifest: &str) -> Result<Vec<Value>> {
    manifest.split("\n---\n").map(|text| Ok(serde_saphyr::from_str(text)?)).collect()
}

/// A node on which the manifest is installed: what the kubelet would mount lies in a folder.
struct Installed<'a> {
    cluster: &'a Cluster,
    layout: &'a NodeLayout,
    folder: PathBuf,
    place: Place,
}

impl<'a> Installed<'a> {
    async fn new(cluster: &'a Cluster, node: &'a Node) -> Result<Self> {
        let layout = &node.layout;
        let folder = cluster.layout.scratch().join("installed").join(layout.name());
        for name in ["account", "bin", "net.d"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.api.client.clone(), "kube-system");
        let asked = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let token = accounts.create_token_request("hawser", &PostParams::default(), &asked).await?;
        fs::write(
            folder.join("account/token"),
            token.status.and_then(|status| status.token).context("no token")?,
        )?;
        fs::copy(layout.state().join("credentials/ca.crt"), folder.join("account/ca.crt"))?;
        Ok(Self { cluster, layout, folder, place: node.place()? })
    }

    fn log(&self) -> PathBuf {
        self.cluster.layout.logs().join(format!("{}-installed.log", self.layout.name()))
    }

    fn run_dir(&self) -> PathBuf {
        self.layout.run().join("installed")
    }

    /// The agent with these arguments, its mounted paths turned into those of this node.
    fn agent(&self, verb: &str, arguments: &[&str]) -> Command {
        let cgroup = self.place.cgroup.clone().unwrap_or_default();
        let mounts = [
            ("/host/cgroup", cgroup),
            ("/host/cni/bin", self.folder.join("bin")),
            ("/host/cni/net.d", self.folder.join("net.d")),
            ("/var/lib/hawser/agent", self.folder.join("state")),
        ];
        let mut command = Command::new(&self.cluster.binaries.agent);
        command.arg(verb).arg("--run-dir").arg(self.run_dir());
        command.arg("--bpffs").arg(self.layout.bpffs());
        for argument in arguments {
            let (flag, value) = argument.split_once('=').unwrap_or((argument, ""));
            match mounts.iter().find(|(mounted, _)| *mounted == value) {
                Some((_, path)) => command.arg(format!("{flag}={}", path.display())),
                None => command.arg(argument),
            };
        }
        command
    }

    /// As the DaemonSet's container.
    fn start(&self, tunnel: &str) -> Result<Child> {
        let arguments = arguments(INSTALL, "containers")?;
        ensure!(arguments[0] == "run", "{arguments:?}");
        let arguments: Vec<&str> = arguments[1..].iter().map(String::as_str).collect();
        let mut command = self.agent("run", &arguments);
        command.arg("--service-account-dir").arg(self.folder.join("account"));
        command.arg("--state-dir").arg(self.folder.join("state"));
        let objects = documents(INSTALL)?;
        let config = objects.iter().find(|object| object["kind"] == "ConfigMap").context("no ConfigMap")?;
        let data: BTreeMap<String, String> = serde_json::from_value(config["data"].clone())?;
        command.envs(data);
        let server = format!("https://{}:{}", self.cluster.layout.host_v4(), self.cluster.layout.api_port());
        command.env("HAWSER_API_SERVER", server).env("NODE_NAME", self.layout.name());
        command.env("HAWSER_TUNNEL", tunnel);
        command.env("NODE_IP", self.layout.addresses().map(|address| address.to_string()).join(","));
        let log = File::options().append(true).create(true).open(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.place.enter_before_exec(&mut command)?;
        command.spawn().context("start the agent")
    }

    fn finish(&self, mut command: Command) -> Result<String> {
        self.place.enter_before_exec(&mut command)?;
        let output = command.stdin(Stdio::null()).output()?;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command:?}: {shown}");
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn wait_until_synced(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let mut command = Command::new(&self.cluster.binaries.agent);
            command.args(["status", "--json", "--run-dir"]).arg(self.run_dir());
            let status = self.finish(command);
            let report: Value =
                status.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_default());
            let known = report["synced"].as_array().map_or(0, Vec::len);
            let failures = report["failures"].as_array().map_or(0, Vec::len);
            let installed = self.folder.join("net.d/05-hawser.conflist").exists();
            if known >= 3 && failures == 0 && installed {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{report:#}\n{}", fs::read_to_string(self.log())?);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(arguments.split(' '));
        self.finish(command)
    }

    /// As the containers of `deploy/uninstall.yaml`.
    fn uninstall(&self) -> Result<()> {
        ensure!(self.folder.join("bin/hawser-cni").exists());
        ensure!(self.folder.join("net.d/05-hawser.conflist").exists());
        let arguments = arguments(UNINSTALL, "initContainers")?;
        let arguments: Vec<&str> =
            arguments.iter().map(String::as_str).filter(|word| *word != "cleanup").collect();
        self.finish(self.agent("cleanup", &arguments)).map(drop)
    }

    /// Everything outside of the kubelet's mounts that an installation could leave, and what lies in those.
    fn traces(&self) -> Result<Traces> {
        let mut folders = ["bin", "net.d", "state"].map(|name| self.folder.join(name)).to_vec();
        folders.extend([self.run_dir(), self.layout.bpffs()]);
        traces::read(&self.place, &folders)
    }

    fn loaded(&self) -> Result<Loaded> {
        traces::loaded(&self.place, &self.layout.bpffs())
    }

    fn keeps_to_its_rights(&self) -> Result<()> {
        let log = fs::read_to_string(self.log())?;
        for word in ["forbidden", "Forbidden"] {
            ensure!(!log.contains(word), "the service account may not do all that is asked: {log}");
        }
        Ok(())
    }

    /// The node is as it was: the kernel takes some things down only after a while.
    fn is_as(&self, before: &Traces, loaded: &Loaded) -> Result<()> {
        let begun = Instant::now();
        loop {
            let different = traces::difference(before, &self.traces()?);
            let left = traces::still_loaded(loaded)?;
            if different.is_empty() && left.is_empty() {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{different:#?}, still loaded: {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Runs `work` in a network namespace, on a thread of its own.
fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let namespace = File::open(netns).with_context(|| format!("open {}", netns.display()))?;
    let thread = std::thread::spawn(move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).map(|()| work())
    });
    Ok(thread.join().expect("the work does not panic")?)
}

/// A pod's namespace, attached by the installed plugin with the installed configuration, as a runtime does.
struct Sandbox {
    name: String,
    netns: PathBuf,
    addresses: Vec<IpAddr>,
}

impl Sandbox {
    fn attach(node: &Installed<'_>) -> Result<Self> {
        let name = format!("hawser-{}-pod{}", node.cluster.layout.name, node.layout.number);
        node.ip(&format!("netns add {name}"))?;
        let mut pod = Self { netns: Path::new("/run/netns").join(&name), name, addresses: Vec::new() };
        let result: Value = serde_json::from_str(&pod.call(node, "ADD")?)?;
        for given in result["ips"].as_array().context("no addresses")? {
            let address =
                given["address"].as_str().and_then(|text| text.split('/').next()).context("no address")?;
            pod.addresses.push(address.parse()?);
        }
        ensure!(!pod.addresses.is_empty(), "{result}");
        Ok(pod)
    }

    fn call(&self, node: &Installed<'_>, verb: &str) -> Result<String> {
        let list: Value = serde_json::from_slice(&fs::read(node.folder.join("net.d/05-hawser.conflist"))?)?;
        let mut plugin = list["plugins"][0].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        plugin["name"] = list["name"].clone();
        plugin["runtimeConfig"] = json!({});
        let mut command = Command::new(node.folder.join("bin/hawser-cni"));
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.name)
            .env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", &self.netns).env("CNI_PATH", node.folder.join("bin"));
        command.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        node.place.enter_before_exec(&mut command)?;
        let mut child = command.spawn().context("start the plugin")?;
        child.stdin.take().context("no stdin")?.write_all(plugin.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        if !output.status.success() {
            bail!("{verb}: {text}");
        }
        Ok(text)
    }

    /// Sends back what it gets.
    fn serve(&self) -> Result<()> {
        let listener = inside(&self.netns, || TcpListener::bind(("::", PORT)))??;
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut piece = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut piece) {
                        if stream.write_all(&piece[..length]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(())
    }

    fn detach(&self, node: &Installed<'_>) -> Result<()> {
        self.call(node, "DEL")?;
        node.ip(&format!("netns del {}", self.name))?;
        Ok(())
    }
}
