//! No connection is lost by us: an agent in a process of its own is killed, fails to load, and comes back without an API server,
//! while connections begin, last and end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::desired::overlay::Tunnelling;
use agent::kernel::Kernel;
use agent::kernel::convert::Step;
use agent::kernel::features::Optional;
use agent::kernel::linux::{LinuxKernel, Settings};
use agent::kernel::xdp::Mode;
use agent::reconcile::apply::Reconciler;
use agent::sources::kube::learn;
use agent::sources::links::discover;
use agent::tables::{Endpoint, Source, Tables};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::field::Field;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::load::{Load, Outcome, declined, serve};
use crate::world::{BACKEND_PORT, Clients, NODE_PORT, NodeWorld, PORT, VIPS, World, allowed};

/// Says to a process of this test that it is the agent, and how.
const ORDERS: &str = "HAWSER_TEST_AGENT";

/// Longest life of the agent's process: longer than the test, so that nothing is left of a test that was ended.
const LIFETIME: Duration = Duration::from_secs(60);

/// New connections per second. Those from outside hold a port of the node for ten seconds after their end, and there are not
/// many more than four thousand.
const INSIDE: u64 = 700;
const OUTSIDE: u64 = 300;

/// What the agent's process is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    namespace: PathBuf,
    bpffs: PathBuf,
    cgroup: PathBuf,
    name: String,
    addresses: Vec<std::net::IpAddr>,
    endpoints: Vec<Endpoint>,
    /// What the API server says; nothing when it is away.
    objects: Option<Vec<Value>>,
    /// How many files it may open: too few to load all programs, if given.
    files: Option<u64>,
    /// By how much its maps are larger: another scale is another layout.
    scale: u32,
    /// Whether it attaches by TCX where it can.
    tcx: bool,
    /// After which step of a conversion it is killed.
    until: Option<String>,
}

/// Kills its process when a conversion has come so far.
struct Until(String);

impl<S: tracing::Subscriber> Layer<S> for Until {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
            if field.name() == "step" && format!("{value:?}") == self.0 {
                kill(Pid::this(), Signal::SIGKILL).unwrap();
            }
        });
    }
}

/// The agent's process; in the test run itself this does nothing.
#[test]
fn agent_process() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let namespace = std::fs::File::open(&orders.namespace).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    if let Some(files) = orders.files {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, files, files).unwrap();
    }
    if let Some(step) = orders.until {
        tracing_subscriber::registry().with(Until(step)).init();
    }
    let settings = Settings {
        scale: orders.scale,
        bpffs: orders.bpffs,
        cgroup: Some(orders.cgroup),
        node: orders.addresses.clone(),
        services: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        pods: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
        tunnel_port: Tunnelling::default().port,
        disabled: if orders.tcx { Vec::new() } else { vec![Optional::Tcx] },
        xdp: Mode::Auto,
    };
    let uplinks = discover(&orders.name, &orders.addresses, &["uplink".to_owned()]).unwrap();
    let tables = Arc::<Tables>::default();
    tables.update(|rows| rows.uplinks.clone_from(&uplinks.devices));
    orders.endpoints.into_iter().for_each(|endpoint| tables.put_endpoint(endpoint));
    tables.synced(Source::Endpoints);
    if let Some(objects) = orders.objects {
        for object in objects {
            let kind = object["kind"].as_str().unwrap().to_owned();
            tables.update(|rows| assert!(learn(rows, &kind, object).unwrap()));
        }
        for source in [
            Source::Services,
            Source::Slices,
            Source::Nodes,
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
        ] {
            tables.synced(source);
        }
    }
    let kernel = LinuxKernel::start(settings).unwrap_or_else(|error| {
        println!("\nfailed: {error}");
        std::process::exit(3);
    });
    let mut reconciler = Reconciler::new(kernel, tables, uplinks.facts).unwrap();
    reconciler.round(Instant::now());
    assert!(reconciler.failures.is_empty(), "{:?}", reconciler.failures);
    println!("\nready");
    let born = Instant::now();
    while born.elapsed() < LIFETIME {
        std::thread::sleep(Duration::from_millis(200));
        reconciler.round(Instant::now());
        reconciler.kernel.expire_flows().unwrap();
    }
}

/// A running agent; killed without a word when it is dropped.
pub struct Agent(Child);

impl Agent {
    /// Waits until it has ended by itself.
    pub fn end(mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // SIGKILL. A process that has ended by itself cannot be killed.
        _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// How an agent's process is.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    /// What the API server says; nothing when it is away.
    pub objects: Option<&'a [Value]>,
    /// How many files it may open, if that is limited.
    pub files: Option<u64>,
    /// By how much its maps are larger.
    pub scale: u32,
    /// Whether it attaches by TCX where it can.
    pub tcx: bool,
    /// After which step of a conversion it is killed.
    pub until: Option<Step>,
}

impl<'a> Manner<'a> {
    fn of(objects: &'a [Value]) -> Self {
        Self { objects: Some(objects), files: None, scale: 1, tcx: true, until: None }
    }
}

/// Starts the agent's process and waits for its first word.
pub fn start(node: &NodeWorld, manner: Manner<'_>) -> (Agent, String) {
    let mut agent = spawn(node, manner);
    let mut words = BufReader::new(agent.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = words.find(|word| word.starts_with("ready") || word.starts_with("failed"));
    (agent, first.expect("a word before the end"))
}

/// Starts the agent's process.
pub fn spawn(node: &NodeWorld, manner: Manner<'_>) -> Agent {
    let endpoints = node.tables.look(|rows| rows.endpoints.values().cloned().collect());
    let orders = Orders {
        namespace: node.namespace.path(),
        bpffs: node.bpffs.clone(),
        cgroup: node.cgroup.clone(),
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        endpoints,
        objects: manner.objects.map(<[_]>::to_vec),
        files: manner.files,
        scale: manner.scale,
        tcx: manner.tcx,
        until: manner.until.map(|step| format!("{step:?}")),
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "continuity::agent_process", "--nocapture", "--test-threads=1"])
        .env(ORDERS, serde_json::to_string(&orders).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Agent(child)
}

/// The service and its backends as the API server would have them.
fn objects(world: &World, backends: &[(usize, usize)]) -> Vec<Value> {
    let ports = |port: &str, number: u16| {
        ["TCP", "UDP"].map(
            |protocol| json!({ "name": protocol, "protocol": protocol, port: number, "nodePort": NODE_PORT }),
        )
    };
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "default", "name": "web" },
        "spec": { "type": "NodePort", "clusterIP": VIPS[0], "clusterIPs": VIPS, "ports": ports("port", PORT) },
    })];
    for family in 0..2 {
        let endpoints: Vec<Value> = backends
            .iter()
            .map(|(node, pod)| {
                let node = &world.nodes[*node];
                json!({ "addresses": [node.pods[*pod].addresses[family]], "nodeName": node.name })
            })
            .collect();
        let slice_ports = ["TCP", "UDP"]
            .map(|protocol| json!({ "name": protocol, "protocol": protocol, "port": BACKEND_PORT }));
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "addressType": if family == 0 { "IPv4" } else { "IPv6" },
            "metadata": {
                "namespace": "default", "name": format!("web-{family}"),
                "labels": { "kubernetes.io/service-name": "web" },
            },
            "endpoints": endpoints, "ports": slice_ports,
        }));
    }
    for node in &world.nodes {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name },
            "spec": { "podCIDRs": node.pod_cidrs() },
            "status": {
                "addresses": node.addresses.iter()
                    .map(|address| json!({ "type": "InternalIP", "address": address })).collect::<Vec<_>>(),
            },
        }));
    }
    objects
}

#[test]
fn no_connection_is_lost_by_what_happens_to_the_agent() {
    under_load(true, |node, agent, manner| (trouble(node, agent, manner), 1));
}

/// Lets something `happen` to an agent while connections begin, last and end; it answers with the scale of the maps in the end.
/// No connection may notice.
pub fn under_load(tcx: bool, happen: impl Fn(&NodeWorld, Agent, Manner<'_>) -> (Agent, u32)) {
    if !allowed() {
        return;
    }
    // The process's sockets are either the first node's or nobody's.
    for clients in [Clients::Sockets, Clients::Wire] {
        println!("{clients:?}");
        let mut world = World::new(clients);
        let backends = [(0, 0), (1, 0)];
        world.serve(&backends);
        let objects = objects(&world, &backends);
        // From here on the first node's agent is a process of its own.
        world.nodes[0].reconciler = None;
        serve(&world.nodes[0].pods[0].namespace, BACKEND_PORT);
        serve(&world.nodes[1].pods[0].namespace, BACKEND_PORT);
        let node = &world.nodes[0];
        let manner = Manner { tcx, ..Manner::of(&objects) };
        let (agent, word) = start(node, manner);
        assert_eq!(word, "ready");
        let vip = SocketAddr::new(VIPS[0].parse().unwrap(), PORT);
        let mut loads = vec![("inside", Load::start(&node.pods[1].namespace, vip, INSIDE))];
        if clients == Clients::Wire {
            let node_port = SocketAddr::new(node.addresses[0], NODE_PORT);
            loads.push(("outside", Load::start(&world.outside, node_port, OUTSIDE)));
        }
        std::thread::sleep(Duration::from_secs(1));
        let (agent, scale) = happen(node, agent, manner);
        loads.iter().for_each(|(_, load)| load.suffice());
        drop(agent);
        let declined: u64 = world.nodes.iter().map(|node| declined(&node.pods[0].namespace)).sum();
        let outcomes = loads.into_iter().map(|(whence, load)| (whence, load.stop())).collect::<Vec<_>>();
        println!("  dropped: {:?}", drops(&agent::kernel::objects::folder(&node.bpffs, scale)));
        outcomes.iter().for_each(|(whence, outcome)| {
            println!("  {whence}: {outcome:?}");
            judge(whence, outcome, declined);
        });
    }
}

/// Everything that happens to an agent.
fn trouble(node: &NodeWorld, agent: Agent, manner: Manner<'_>) -> Agent {
    let step = |what: &str| {
        println!("  {what}");
        std::thread::sleep(Duration::from_millis(500));
    };
    let ready = |manner: Manner<'_>| {
        let (agent, word) = start(node, manner);
        assert_eq!(word, "ready");
        agent
    };
    drop(agent);
    step("killed");
    let agent = ready(manner);
    step("back");
    let (failed, word) = start(node, Manner { files: Some(40), scale: 2, ..manner });
    assert!(word.starts_with("failed"), "{word}");
    drop(failed);
    step("a second one failed to load");
    drop(agent);
    let agent = ready(Manner { objects: None, ..manner });
    step("back without an API server");
    drop(agent);
    let agent = ready(manner);
    step("back with it");
    agent
}

fn drops(pins: &Path) -> Vec<(&'static str, u64)> {
    let meters = agent::kernel::meters::read(pins).unwrap();
    let counted = meters.drops.into_iter().map(|(reason, tally)| (reason, tally.packets));
    counted.filter(|(_, packets)| *packets > 0).collect()
}

/// Servers that have no time have `declined` so many connections.
fn judge(whence: &str, outcome: &Outcome, declined: u64) {
    assert_eq!(outcome.errors, Vec::<String>::new(), "{whence}");
    let excused = outcome.unhandled + declined;
    assert!(outcome.begun_again <= excused, "{whence}: a SYN was lost: {outcome:?}, {declined} declined");
    assert!(outcome.suffices(), "{whence}: too little was tried: {outcome:?}");
}
