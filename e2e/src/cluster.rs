//! A whole cluster: brought up step by step, each step named; taken down without a trace, also after a crash.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;

use crate::api::{Api, connect};
use crate::cgroup;
use crate::daemon::{self, Daemon};
use crate::image;
use crate::layout::{Layout, MAX_NODES};
use crate::network;
use crate::node::Node;
use crate::place::Place;

const READY_PATIENCE: Duration = Duration::from_secs(30);

/// The programs a cluster is made of.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub control: PathBuf,
    pub agent: PathBuf,
    /// The server of the example image.
    pub hello: PathBuf,
    /// Makes calls in other namespaces.
    pub local: PathBuf,
    /// The objects are kept in this etcd; without, in the embedded store.
    pub etcd: Option<PathBuf>,
}

impl Binaries {
    /// Those in `folder`, as cargo and xtask lay them down.
    pub fn below(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                bail!("{} is missing: `cargo xtask build` makes it", path.display())
            }
        };
        find("hawser-cni")?;
        Ok(Self {
            control: find("hawser-control")?,
            agent: find("hawser-agent")?,
            hello: find("hawser-hello")?,
            local: find("hawser-local")?,
            etcd: None,
        })
    }
}

/// A running cluster.
pub struct Cluster {
    pub layout: Layout,
    pub nodes: Vec<Node>,
    pub control: Daemon,
    /// Runs when [`Binaries::etcd`] names a program.
    pub etcd: Daemon,
    pub api: Api,
    pub binaries: Binaries,
}

impl Cluster {
    /// Brings a cluster of `nodes` nodes up; says what it does through `tell`. What a crashed run left is removed first;
    /// what runs already is left running.
    pub async fn up(
        layout: Layout,
        nodes: u8,
        binaries: Binaries,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        preflight(nodes)?;
        let control = Daemon::new(&layout, "control");
        let etcd = Daemon::new(&layout, "etcd");
        let nodes: Vec<Node> = (1..=nodes).map(|number| Node::new(&layout, number)).collect();
        if control.pid().is_none() {
            down(&layout, false)?;
            check_port(&layout)?;
        } else if control.was_told("--etcd-servers") != binaries.etcd.is_some() {
            bail!("the cluster that is up keeps its objects elsewhere: take it down first");
        }
        for folder in [layout.control(), layout.logs(), layout.pids(), layout.run()] {
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        network::make_bridge(&layout)?;
        let store = match &binaries.etcd {
            Some(program) => crate::etcd::start(&layout, &etcd, program)?,
            None => Vec::new(),
        };
        let api = start_control(&layout, &control, &binaries, &store, tell).await?;
        let cluster = Self { layout, nodes, control, etcd, api, binaries };
        cluster.start_nodes(tell).await?;
        Ok(cluster)
    }

    /// Gives every node the image with the agent, which `hawser-agent check` runs.
    pub fn import_agent(&self) -> Result<()> {
        let archive = image::program_image(image::HAWSER, &self.binaries.agent)?;
        self.nodes.iter().try_for_each(|node| {
            node.import(&archive).with_context(|| format!("give {} the agent's image", node.layout.name()))
        })
    }

    async fn start_nodes(&self, tell: &(dyn Fn(&str) + Sync)) -> Result<()> {
        let began = Instant::now();
        let started: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.nodes.iter().map(|node| scope.spawn(|| node.start(&self.binaries))).collect();
            threads.into_iter().map(|thread| thread.join().expect("starting a node does not panic")).collect()
        });
        for (node, started) in self.nodes.iter().zip(started) {
            started.with_context(|| format!("start {}", node.layout.name()))?;
        }
        tell(&format!(
            "containerd and hawser-agent started on {} in {:.1?}",
            count(self.nodes.len()),
            began.elapsed()
        ));
        for node in &self.nodes {
            self.wait_until_ready(node, began).await?;
        }
        tell(&format!("{} Ready after {:.1?}", count(self.nodes.len()), began.elapsed()));
        Ok(())
    }

    /// Ends early, with the end of its log, when a process of the node is gone.
    async fn wait_until_ready(&self, node: &Node, began: Instant) -> Result<()> {
        let path = format!("/api/v1/nodes/{}", node.layout.name());
        loop {
            node.check()?;
            match self.api.eventually(&path, Duration::from_millis(500), is_ready).await {
                Ok(ready) => {
                    let ranges = ready.spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default();
                    return network::route_pods(&self.layout, &node.layout, &ranges);
                }
                Err(error) if began.elapsed() > READY_PATIENCE => {
                    return Err(error.context(format!(
                        "{}; see {}",
                        node.layout.name(),
                        node.agent.log.display()
                    )));
                }
                Err(_) => {}
            }
        }
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

pub(crate) fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What cannot be mended later is said first.
fn preflight(nodes: u8) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a cluster needs root: it makes namespaces, cgroups and BPF programs");
    }
    if nodes == 0 || nodes > MAX_NODES {
        bail!("a local cluster has 1 to {MAX_NODES} nodes, not {nodes}");
    }
    for program in ["containerd", "ctr", "runc", "ip"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            bail!("`{program}` is not installed; `cargo xtask setup` installs it");
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("this kernel has no type information (CONFIG_DEBUG_INFO_BTF), which the BPF programs need");
    }
    cgroup::unified()?;
    mount_bpffs()
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    let none: Option<&str> = None;
    nix::mount::mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), nix::mount::MsFlags::empty(), none)
        .context("mount the BPF file system on /sys/fs/bpf")
}

fn check_port(layout: &Layout) -> Result<()> {
    let address = format!("127.0.0.1:{}", layout.api_port());
    TcpListener::bind(&address).with_context(|| {
        format!("the API server's address {address} is taken: stop what listens there (`ss -ltnp`)")
    })?;
    Ok(())
}

async fn start_control(
    layout: &Layout,
    control: &Daemon,
    binaries: &Binaries,
    store: &[String],
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Api> {
    let began = Instant::now();
    let port = layout.api_port();
    let mut command = Command::new(&binaries.control);
    command.args(["run", "--roles", "apiserver,scheduler,controllers", "--data-dir"]).arg(layout.control());
    command.args(["--bind-address", &format!("127.0.0.1:{port},{}:{port}", layout.host_v4())]);
    command.args(["--advertise-address", &layout.host_v4().to_string()]);
    command.args(store);
    control.start(command, &Place::host())?;
    while !layout.kubeconfig().exists() {
        control.check()?;
        if began.elapsed() > READY_PATIENCE {
            bail!("hawser-control wrote no kubeconfig; see {}", control.log.display());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let api = connect(&layout.kubeconfig()).await?;
    while let Err(error) = api.text("/readyz").await {
        control.check()?;
        if began.elapsed() > READY_PATIENCE {
            return Err(error.context(format!("the API server is not ready; see {}", control.log.display())));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell(&format!("API server ready after {:.0?}", began.elapsed()));
    Ok(api)
}

/// Stops the cluster and removes every trace; `purge` removes its objects too. Works whatever state it finds.
pub fn down(layout: &Layout, purge: bool) -> Result<()> {
    let mut daemons = daemon::all(layout);
    // Agents first, so that nobody starts what is being stopped.
    daemons.sort_by_key(|daemon| !daemon.name.ends_with("agent"));
    // etcd last: the control plane says goodbye to it.
    let (etcd, others): (Vec<_>, Vec<_>) = daemons.iter().partition(|daemon| daemon.name == "etcd");
    for group in [others, etcd] {
        std::thread::scope(|scope| {
            for daemon in group {
                scope.spawn(|| daemon.stop(Duration::from_secs(5)));
            }
        });
    }
    daemon::kill_all(&daemon::strays(&[layout.control(), layout.etcd(), layout.scratch(), layout.run()])?);
    cgroup::remove(layout)?;
    unmount_below(&[layout.scratch(), layout.run()])?;
    network::remove(layout)?;
    remove_pins(layout)?;
    for folder in [layout.scratch(), layout.run()] {
        remove_folder(&folder)?;
    }
    if purge {
        remove_folder(&layout.data())?;
    }
    let left = [cgroup_names(layout)?, network::leftovers(layout)?].concat();
    if !left.is_empty() {
        bail!("could not remove: {}", left.join(", "));
    }
    // The parents are shared with other clusters; the last one takes them along.
    for folder in ["/run/hawser", "/var/lib/hawser"] {
        fs::remove_dir(folder).ok();
    }
    Ok(())
}

fn cgroup_names(layout: &Layout) -> Result<Vec<String>> {
    Ok(cgroup::leftovers(layout)?.iter().map(|path| path.display().to_string()).collect())
}

/// Unmounts everything below the folders, innermost first.
fn unmount_below(folders: &[PathBuf]) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut ours: Vec<PathBuf> =
        targets.filter(|path| folders.iter().any(|folder| path.starts_with(folder))).collect();
    ours.reverse();
    for path in ours {
        match nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH) {
            // It went with another one, or something else is mounted over it.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unmount {}", path.display())),
        }
    }
    Ok(())
}

fn remove_pins(layout: &Layout) -> Result<()> {
    let Ok(entries) = fs::read_dir("/sys/fs/bpf") else { return Ok(()) };
    for entry in entries.flatten() {
        if layout.owns(&entry.file_name().to_string_lossy()) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
