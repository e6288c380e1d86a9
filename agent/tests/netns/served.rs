//! A node whose agent answers CNI, and what a container runtime does with a plugin.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::desired::overlay::Tunnelling;
use agent::health::pulse::Pulse;
use agent::kernel::linux::{LinuxKernel, Settings};
use agent::kernel::xdp::Mode;
use agent::reconcile::run::Reconciling;
use agent::sources::cni::Cni;
use agent::sources::links::discover;
use agent::tables::{Source, Tables};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::namespace::Namespace;

/// How long an agent may take to answer on its socket.
const PATIENCE: Duration = Duration::from_secs(30);

/// Several of them may be there at once.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A node.
pub struct Served {
    pub namespace: Namespace,
    pub tables: Arc<Tables>,
    /// Journal, spool and socket.
    pub state: tempfile::TempDir,
    pub bpffs: PathBuf,
    cgroup: PathBuf,
    _outside: Namespace,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Served {
    /// With an agent that runs, and room for as many pods as these prefixes hold.
    pub fn new(pod_cidrs: &[&str]) -> Self {
        crate::sweep::sweep();
        let (namespace, outside) = (Namespace::new(), Namespace::new());
        namespace.ip("link add uplink type veth peer name far");
        namespace.ip(&format!("link set far netns {}", outside.path().display()));
        outside.ip("link set far up");
        for address in ["192.0.2.1/24", "2001:db8::1/64"] {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev uplink{nodad}"));
        }
        namespace.ip("link set uplink up");
        let own = format!("served-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let cgroup = agent::kernel::features::cgroup2_mount().expect("a cgroup2 mount").join(&own);
        std::fs::create_dir_all(&cgroup).unwrap();
        let tables = Arc::new(Tables::default());
        for source in [
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
            Source::Nodes,
        ] {
            tables.synced(source);
        }
        tables.set_pod_cidrs(pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect());
        let mut node = Self {
            namespace,
            tables,
            state: tempfile::tempdir().unwrap(),
            bpffs: PathBuf::from("/sys/fs/bpf").join(own),
            cgroup,
            _outside: outside,
            running: None,
        };
        node.start();
        node
    }

    /// Starts the agent, and waits for its socket.
    pub fn start(&mut self) {
        let stop = CancellationToken::new();
        let settings = Settings {
            bpffs: self.bpffs.clone(),
            cgroup: Some(self.cgroup.clone()),
            node: node_addresses(),
            services: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            pods: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
            disabled: Vec::new(),
            tunnel_port: Tunnelling::default().port,
            xdp: Mode::Off,
            scale: 1,
        };
        let (tables, state, stopped) = (Arc::clone(&self.tables), self.state.path().to_owned(), stop.clone());
        // Threads inherit the namespace of the one that starts them.
        let thread =
            self.namespace.run(|| std::thread::spawn(move || serve(settings, tables, &state, stopped)));
        self.running = Some((stop, thread));
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "the agent does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the agent; what it made stays.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.cancel();
            thread.join().unwrap();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.state.path().join("cni.sock")
    }

    /// The configuration of our plugin.
    pub fn configuration(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "hawser", "type": "hawser-cni",
            "agentSocket": self.socket(), "spoolDir": self.state.path().join("cni-del"),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        self.namespace.run(|| agent::kernel::cleanup::cleanup(&self.bpffs)).expect("cleanup");
        std::fs::remove_dir(&self.cgroup).unwrap();
    }
}

fn node_addresses() -> Vec<IpAddr> {
    ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap()).to_vec()
}

fn serve(settings: Settings, tables: Arc<Tables>, state: &Path, stop: CancellationToken) {
    let uplinks = discover("n1", &node_addresses(), &["uplink".to_owned()]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cni = Cni::restore(Arc::clone(&tables), state).unwrap();
        let (reconciling, thread) = Reconciling::start(
            move || LinuxKernel::start(settings),
            tables,
            uplinks.facts,
            Arc::<Pulse>::default(),
        )
        .await
        .unwrap();
        let listener = cni.listen(&state.join("cni.sock")).unwrap();
        cni.serve(listener, stop).await.unwrap();
        reconciling.stop();
        thread.join().unwrap();
    });
}

/// What a plugin printed, if anything, and whether it ended well.
pub struct Said {
    pub well: bool,
    pub answer: Value,
}

/// A runtime on this node: the plugin is started in the node's namespace with a configuration and asked for one verb.
pub fn call(
    node: &Namespace,
    plugin: &Path,
    verb: &str,
    (id, netns): (&str, &Path),
    configuration: &Value,
) -> Said {
    call_for(node, plugin, verb, (id, netns, ""), configuration)
}

/// The same for a pod whose unique number the runtime knows.
pub fn call_for(
    node: &Namespace,
    plugin: &Path,
    verb: &str,
    (id, netns, uid): (&str, &Path, &str),
    configuration: &Value,
) -> Said {
    let known = if uid.is_empty() { String::new() } else { format!(";K8S_POD_UID={uid}") };
    node.run(|| {
        let mut child = Command::new(plugin)
            .env_clear()
            .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")])
            .env("CNI_NETNS", netns)
            .env("CNI_PATH", plugin.parent().unwrap())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={id}{known}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(configuration.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Said { well: output.status.success(), answer }
    })
}

/// Our plugin, as this build has it; in release as it is shipped, by `xtask` as by this.
pub fn plugin() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let built = own.ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["rustc", "--quiet", "--offline", "--package", "cni", "--bin", "hawser-cni"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut folder = built.to_owned();
    if built.ends_with("release") {
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        build.args(["--release", "--target", &target, "--", "-Cstrip=symbols"]);
        folder = built.with_file_name(target).join("release");
    }
    assert!(build.status().unwrap().success(), "the plugin builds");
    folder.join("hawser-cni")
}
