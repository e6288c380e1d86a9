//! The agent as `deploy/hawser.yaml` runs it: its arguments, its environment and the rights of its service account, on a node
//! that somebody else has made; and `deploy/uninstall.yaml` afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Layout, Place};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support;

const INSTALL: &str = include_str!("../../../deploy/hawser.yaml");
const UNINSTALL: &str = include_str!("../../../deploy/uninstall.yaml");
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
    let cluster = Cluster::up(layout.clone(), 1, support::binaries()?, &|line| println!("{line}")).await?;
    cluster.api.apply(INSTALL).await?;
    let node = Installed::new(&cluster).await?;
    cluster.nodes[0].agent.stop(Duration::from_secs(5));
    node.finish(node.agent("cleanup", &[]))?;
    let before = node.traces()?;

    let mut agent = node.start()?;
    node.wait_until_synced().await?;
    let pod = Sandbox::attach(&node, "one")?;
    pod.serve()?;
    let mut stream = node.connect(pod.addresses[0])?;
    exchange(&mut stream)?;
    // A rolling update: the old one is told to end, and the new one finds everything.
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.id() as i32), signal)?;
        agent.wait()?;
        exchange(&mut stream)?;
        agent = node.start()?;
        node.wait_until_synced().await?;
        exchange(&mut stream)?;
    }
    pod.detach(&node)?;
    agent.kill()?;
    agent.wait()?;
    let log = fs::read_to_string(node.log())?;
    for word in ["forbidden", "Forbidden", "403"] {
        ensure!(!log.contains(word), "the service account may not do all that is asked: {log}");
    }
    ensure!(
        node.folder.join("bin/hawser-cni").exists() && node.folder.join("net.d/05-hawser.conflist").exists()
    );

    let arguments = arguments(UNINSTALL, "initContainers")?;
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| *word != "cleanup").collect();
    node.finish(node.agent("cleanup", &arguments))?;
    let after = node.traces()?;
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    for folder in ["bin", "net.d"] {
        let left = fs::read_dir(node.folder.join(folder))?.count();
        ensure!(left == 0, "{left} files are left in {folder}");
    }
    ensure!(!node.folder.join("state").exists(), "the addresses are still remembered");
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
    folder: PathBuf,
    place: Place,
}

impl<'a> Installed<'a> {
    async fn new(cluster: &'a Cluster) -> Result<Self> {
        let folder = cluster.layout.scratch().join("installed");
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
        let authority = cluster.nodes[0].layout.state().join("credentials/ca.crt");
        fs::copy(authority, folder.join("account/ca.crt"))?;
        let place = cluster.nodes[0].place()?;
        Ok(Self { cluster, folder, place })
    }

    fn log(&self) -> PathBuf {
        self.cluster.layout.logs().join("installed.log")
    }

    /// The agent with these arguments, its mounted paths turned into those of this node.
    fn agent(&self, verb: &str, arguments: &[&str]) -> Command {
        let layout = &self.cluster.nodes[0].layout;
        let cgroup = self.place.cgroup.clone().unwrap_or_default();
        let mounts = [
            ("/host/cgroup", cgroup),
            ("/host/cni/bin", self.folder.join("bin")),
            ("/host/cni/net.d", self.folder.join("net.d")),
            ("/var/lib/hawser/agent", self.folder.join("state")),
        ];
        let mut command = Command::new(&self.cluster.binaries.agent);
        command.arg(verb).arg("--run-dir").arg(layout.run().join("installed"));
        command.arg("--bpffs").arg(layout.bpffs());
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
    fn start(&self) -> Result<Child> {
        let arguments = arguments(INSTALL, "containers")?;
        ensure!(arguments[0] == "run", "{arguments:?}");
        let arguments: Vec<&str> = arguments[1..].iter().map(String::as_str).collect();
        let mut command = self.agent("run", &arguments);
        let layout = &self.cluster.nodes[0].layout;
        command.arg("--service-account-dir").arg(self.folder.join("account"));
        command.arg("--state-dir").arg(self.folder.join("state"));
        let objects = documents(INSTALL)?;
        let config = objects.iter().find(|object| object["kind"] == "ConfigMap").context("no ConfigMap")?;
        let data: BTreeMap<String, String> = serde_json::from_value(config["data"].clone())?;
        command.envs(data);
        let server = format!("https://{}:{}", self.cluster.layout.host_v4(), self.cluster.layout.api_port());
        command.env("HAWSER_API_SERVER", server).env("NODE_NAME", layout.name());
        command.env("NODE_IP", layout.addresses().map(|address| address.to_string()).join(","));
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
            command.args(["status", "--json", "--run-dir"]);
            command.arg(self.cluster.nodes[0].layout.run().join("installed"));
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

    /// Devices, routes, rules, neighbours that stay, and pins.
    fn traces(&self) -> Result<Vec<String>> {
        let mut traces = Vec::new();
        let questions = [
            "-o link",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
            "neigh show nud permanent",
        ];
        for question in questions {
            // The kernel's own link-local address comes when its duplicate detection is over.
            let answer = self.ip(question)?;
            traces.extend(answer.lines().filter(|line| !line.starts_with("local fe80:")).map(str::to_owned));
        }
        let mut filters = Command::new("tc");
        filters.args(["filter", "show", "dev", "eth0", "ingress"]);
        traces.push(self.finish(filters)?);
        traces.push(format!("pins {}", self.cluster.nodes[0].layout.bpffs().exists()));
        Ok(traces)
    }

    fn connect(&self, to: IpAddr) -> Result<TcpStream> {
        let netns = self.place.netns.clone().context("a node has a namespace")?;
        let stream =
            inside(&netns, move || TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    let mut back = [0; 4];
    stream.write_all(b"ping").context("the connection is lost")?;
    stream.read_exact(&mut back).context("the connection is lost")?;
    ensure!(&back == b"ping");
    Ok(())
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
    fn attach(node: &Installed<'_>, name: &str) -> Result<Self> {
        let name = format!("hawser-{}-{name}", node.cluster.layout.name);
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
        command.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=one");
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
