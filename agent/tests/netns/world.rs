//! A small cluster: two nodes and a machine outside on one link, pods on the nodes, an agent's reconciler for each node.
//!
//! ```text
//!   outside  192.0.2.100 (bridge)
//!     |-- node 1  192.0.2.1  pods 10.244.1.0/24
//!     `-- node 2  192.0.2.2  pods 10.244.2.0/24          and the same in IPv6
//! ```

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use agent::desired::overlay::Tunnelling;
use agent::desired::{NodeFacts, NodePortAddresses};
use agent::kernel::Kernel;
use agent::kernel::features::Optional;
use agent::kernel::linux::{LinuxKernel, Settings};
use agent::kernel::xdp::Mode;
use agent::reconcile::apply::Reconciler;
use agent::sources::links::discover;
use agent::tables::{
    Endpoint, EndpointId, EndpointState, Node, ObjectName, Protocol, Service, ServicePort, Slice,
    SliceEndpoint, Source, Tables,
};

use ipnetwork::IpNetwork;

use crate::namespace::Namespace;

/// Virtual addresses of the one service.
pub const VIPS: [&str; 2] = ["10.96.0.10", "fd00:96::a"];
/// Its port and its NodePort.
pub const PORT: u16 = 80;
pub const NODE_PORT: u16 = 30080;
/// Where its backends listen.
pub const BACKEND_PORT: u16 = 8080;
/// The machine outside.
pub const OUTSIDE: [&str; 2] = ["192.0.2.100", "2001:db8::100"];

/// How long anything may take that does not depend on us.
const PATIENCE: Duration = Duration::from_secs(30);

/// Worlds share the process's cgroup: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Which programs translate the clients' packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clients {
    /// The socket hooks.
    Sockets,
    /// Only what is on the wire: the hooks are attached to a cgroup without processes.
    Wire,
}

pub struct Pod {
    pub namespace: Namespace,
    pub addresses: Vec<IpAddr>,
    pub id: EndpointId,
}

pub struct NodeWorld {
    pub namespace: Namespace,
    pub addresses: Vec<IpAddr>,
    pub tables: Arc<Tables>,
    pub reconciler: Option<Reconciler<LinuxKernel>>,
    pub pods: Vec<Pod>,
    pub bpffs: PathBuf,
    pub disabled: Vec<Optional>,
    pub xdp: Mode,
    pub nodeport: NodePortAddresses,
    /// Of its maps.
    pub scale: u32,
    pub affinity: u32,
    pub tunnelling: Tunnelling,
    pub name: String,
    pub cgroup: PathBuf,
}

pub struct World {
    pub outside: Namespace,
    pub nodes: Vec<NodeWorld>,
    cgroups: Vec<PathBuf>,
    _alone: MutexGuard<'static, ()>,
}

/// Whether the machine lets us; without privilege the test is skipped with a line, unless this is CI.
pub fn allowed() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the namespace tests need root");
    println!("skipped: the namespace tests need root");
    false
}

/// Waits until something is as it should be.
pub fn comes_to<T: PartialEq + Debug>(is: impl Fn() -> T, want: T, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while is() != want && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(is(), want, "{what}");
}

impl World {
    /// Two nodes; the first has two pods, the second one.
    pub fn new(clients: Clients) -> Self {
        crate::sweep::sweep();
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let outside = Namespace::new();
        outside.ip("link add br0 type bridge");
        outside.ip("addr add 192.0.2.100/24 dev br0");
        outside.ip("addr add 2001:db8::100/64 dev br0 nodad");
        outside.ip("link set br0 up");
        let home = cgroup("dataplane-home");
        std::fs::write(home.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        let mut cgroups = vec![home.clone()];
        let mut nodes = Vec::new();
        for number in 1..=2 {
            // One process can be in one cgroup: the second node's clients are only seen on the wire.
            let cgroup = if number == 1 && clients == Clients::Sockets {
                home.clone()
            } else {
                let empty = cgroup(&format!("dataplane-empty{number}"));
                cgroups.push(empty.clone());
                empty
            };
            let addresses = [format!("192.0.2.{number}/24"), format!("2001:db8::{number}/64")];
            nodes.push(NodeWorld::new(number, (&outside, "br0"), addresses, cgroup));
        }
        let mut world = Self { outside, nodes, cgroups, _alone: alone };
        world.settle_links();
        for (node, pods) in [(0, 2), (1, 1)] {
            for number in 0..pods {
                world.nodes[node].add_pod(number);
            }
        }
        world
    }

    /// Adds a third node with one pod, on a link of its own behind the machine outside, which is everybody's router.
    pub fn add_far_node(&mut self) {
        for (setting, name) in [("ipv4", "all"), ("ipv6", "all")] {
            let path = format!("/proc/sys/net/{setting}/conf/{name}/forwarding");
            self.outside.run(|| std::fs::write(path, "1").unwrap());
        }
        self.outside.ip("link add br1 type bridge");
        self.outside.ip("addr add 198.51.100.100/24 dev br1");
        self.outside.ip("addr add 2001:db8:1::100/64 dev br1 nodad");
        self.outside.ip("link set br1 up");
        let cgroup = cgroup("dataplane-empty3");
        self.cgroups.push(cgroup.clone());
        let addresses = ["198.51.100.3/24".to_owned(), "2001:db8:1::3/64".to_owned()];
        self.nodes.push(NodeWorld::new(3, (&self.outside, "br1"), addresses, cgroup));
        for node in &self.nodes {
            let far = node.name == "n3";
            let (v4, v6) = if far { ("198.51.100.100", "2001:db8:1::100") } else { (OUTSIDE[0], OUTSIDE[1]) };
            node.namespace.ip(&format!("route add default via {v4}"));
            node.namespace.ip(&format!("-6 route add default via {v6}"));
        }
        self.settle_links();
        self.nodes[2].add_pod(0);
    }

    /// Takes the uplink of the first node away, and makes another one like it.
    pub fn plug_anew(&mut self) {
        let node = &self.nodes[0].namespace;
        node.ip("link del uplink");
        let networks = ["192.0.2.1/24".to_owned(), "2001:db8::1/64".to_owned()];
        plug(node, "port1", (&self.outside, "br0"), &networks);
        self.settle_links();
    }

    /// Tells every node about the service: its backends are these pods (node, pod).
    pub fn serve(&mut self, backends: &[(usize, usize)]) {
        let endpoints = backends.iter().flat_map(|(node, pod)| {
            let node = &self.nodes[*node];
            node.pods[*pod].addresses.iter().map(|address| (*address, node.name.clone()))
        });
        self.tell(&endpoints.collect::<Vec<_>>());
    }

    /// The same with one backend, which is a node itself.
    pub fn serve_by(&mut self, node: usize) {
        let node = &self.nodes[node];
        let endpoints = node.addresses.iter().map(|address| (*address, node.name.clone()));
        self.tell(&endpoints.collect::<Vec<_>>());
    }

    fn tell(&mut self, endpoints: &[(IpAddr, String)]) {
        let peers: Vec<(String, Node)> = self.nodes.iter().map(NodeWorld::object).collect();
        for node in &mut self.nodes {
            node.learn(endpoints, &peers);
        }
    }

    /// Waits until every link has finished duplicate address detection: before, it does not ask for its neighbours.
    fn settle_links(&self) {
        let deadline = Instant::now() + PATIENCE;
        let all = || self.nodes.iter().map(|node| &node.namespace).chain([&self.outside]);
        while all().any(|namespace| namespace.ip("-6 addr show tentative").contains("inet6")) {
            assert!(Instant::now() < deadline, "links do not settle");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.reconciler = None;
            node.namespace.run(|| agent::kernel::cleanup::cleanup(&node.bpffs)).expect("cleanup");
        }
        let root = agent::kernel::features::cgroup2_mount().unwrap();
        std::fs::write(root.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        self.cgroups.iter().for_each(|cgroup| remove_cgroup(cgroup));
    }
}

/// Programs that another test has started in the meantime were born into the process's cgroup, and end soon.
fn remove_cgroup(cgroup: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = std::fs::remove_dir(cgroup) {
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        assert!(busy && Instant::now() < deadline, "{}: {error}", cgroup.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl NodeWorld {
    fn new(
        number: usize,
        (outside, bridge): (&Namespace, &str),
        networks: [String; 2],
        cgroup: PathBuf,
    ) -> Self {
        let namespace = Namespace::new();
        plug(&namespace, &format!("port{number}"), (outside, bridge), &networks);
        let addresses = networks.iter().map(|network| network.parse::<IpNetwork>().unwrap().ip()).collect();
        let bpffs = PathBuf::from(format!("/sys/fs/bpf/dataplane-{}-{number}", std::process::id()));
        let mut node = Self {
            namespace,
            addresses,
            tables: Arc::new(Tables::default()),
            reconciler: None,
            pods: Vec::new(),
            bpffs,
            disabled: Vec::new(),
            xdp: Mode::Auto,
            nodeport: NodePortAddresses::Primary,
            scale: 1,
            affinity: 0,
            tunnelling: Tunnelling::default(),
            name: format!("n{number}"),
            cgroup,
        };
        node.start();
        node
    }

    /// Starts the reconciler, as an agent does: on what the kernel has.
    pub fn start(&mut self) {
        let settings = Settings {
            bpffs: self.bpffs.clone(),
            cgroup: Some(self.cgroup.clone()),
            node: self.addresses.clone(),
            services: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            pods: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
            disabled: self.disabled.clone(),
            tunnel_port: self.tunnelling.port,
            xdp: self.xdp,
            scale: self.scale,
        };
        let (tables, name, addresses) = (Arc::clone(&self.tables), self.name.clone(), self.addresses.clone());
        let tunnelling = self.tunnelling;
        let nodeport = self.nodeport.clone();
        self.reconciler = Some(self.namespace.run(move || {
            let uplinks = discover(&name, &addresses, &["uplink".to_owned()]).expect("the uplink exists");
            tables.update(|rows| uplinks.tell(rows));
            let kernel = LinuxKernel::start(settings).expect("the programs load");
            let facts = NodeFacts { nodeport, tunnelling, ..uplinks.facts };
            Reconciler::new(kernel, tables, facts).expect("the kernel is readable")
        }));
        self.round();
    }

    /// Looks at the machine's links and addresses again, as after news of the kernel, and lets the reconciler do its work.
    pub fn look(&mut self) {
        let uplinks = self.namespace.run(|| discover(&self.name, &self.addresses, &["uplink".to_owned()]));
        let uplinks = uplinks.expect("the uplink exists");
        self.tables.update_node(|rows| {
            let looked = rows.links.looked + 1;
            uplinks.tell(rows);
            rows.links.looked = looked;
            true
        });
        self.round();
    }

    /// Where the programs and maps are pinned.
    pub fn pins(&self) -> PathBuf {
        self.reconciler.as_ref().unwrap().kernel.pins().unwrap()
    }

    /// Name of the host's end of a pod's link.
    pub fn link(&self, pod: usize) -> String {
        match self.tables.endpoint_state(&self.pods[pod].id) {
            Some(EndpointState::Applied(attachment)) => attachment.host_link,
            state => panic!("attached, not {state:?}"),
        }
    }

    /// Lets the reconciler do its work once.
    pub fn round(&mut self) {
        let reconciler = self.reconciler.as_mut().unwrap();
        self.namespace.run(|| reconciler.round(Instant::now()));
        assert!(reconciler.failures.is_empty(), "{:?}", reconciler.failures);
    }

    pub fn add_pod(&mut self, number: usize) {
        self.add_pod_of(
            &ObjectName { namespace: "default".to_owned(), name: format!("pod{number}") },
            number,
        );
    }

    /// Attaches a pod with the addresses that go with a number.
    pub fn add_pod_of(&mut self, name: &ObjectName, number: usize) {
        let namespace = Namespace::new();
        let node = &self.name[1..];
        let addresses: Vec<IpAddr> = vec![
            format!("10.244.{node}.{}", number + 2).parse().unwrap(),
            format!("fd00:244:0:{node}::{}", number + 2).parse().unwrap(),
        ];
        let endpoint = Endpoint {
            container_id: format!("{}-{}-{number}", self.name, std::process::id()),
            ifname: "eth0".to_owned(),
            netns_path: namespace.path(),
            pod_namespace: name.namespace.clone(),
            pod_name: name.name.clone(),
            addresses: addresses.clone(),
            ..Endpoint::default()
        };
        let id = endpoint.id();
        self.tables.put_endpoint(endpoint);
        for source in [
            Source::Endpoints,
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
            Source::Nodes,
        ] {
            self.tables.synced(source);
        }
        self.round();
        assert!(matches!(self.tables.endpoint_state(&id), Some(EndpointState::Applied(_))));
        self.pods.push(Pod { namespace, addresses, id });
    }

    /// Prefixes of its pods.
    pub fn pod_cidrs(&self) -> [String; 2] {
        let node = &self.name[1..];
        [format!("10.244.{node}.0/24"), format!("fd00:244:0:{node}::/64")]
    }

    fn object(&self) -> (String, Node) {
        let cidrs = self.pod_cidrs();
        let node = Node {
            addresses: self.addresses.clone(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            ..Node::default()
        };
        (self.name.clone(), node)
    }

    fn learn(&mut self, backends: &[(IpAddr, String)], peers: &[(String, Node)]) {
        let name = ObjectName { namespace: "default".to_owned(), name: "web".to_owned() };
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let port = |protocol| ServicePort {
            name: format!("{protocol:?}"),
            port: PORT,
            protocol,
            node_port: Some(NODE_PORT),
        };
        let service = Service {
            cluster_ips: VIPS.iter().map(|vip| vip.parse().unwrap()).collect(),
            ports: protocols.map(port).to_vec(),
            affinity: self.affinity,
            ..Service::default()
        };
        let endpoint = |(address, node): &(IpAddr, String)| SliceEndpoint {
            node: Some(node.as_str().into()),
            ..SliceEndpoint::new(*address)
        };
        let slice = Slice {
            service: "web".to_owned(),
            endpoints: backends.iter().map(endpoint).collect(),
            ports: protocols.map(|protocol| (format!("{protocol:?}"), protocol, BACKEND_PORT)).to_vec(),
        };
        self.tables.update(|rows| {
            rows.services.insert(name.clone(), Arc::new(service));
            rows.slices.insert(name, Arc::new(slice));
            rows.nodes = peers.iter().map(|(name, node)| (name.clone(), Arc::new(node.clone()))).collect();
        });
        for source in [Source::Services, Source::Slices, Source::Nodes] {
            self.tables.synced(source);
        }
        self.round();
    }

    /// Everything the maps hold: hashes as `bpftool` prints them, and the first rows of the arrays; without counters and flows.
    pub fn map_dump(&self) -> String {
        let folder = agent::kernel::objects::folder(&self.bpffs, self.scale);
        let hashes = ["hw_frontends", "hw_endpoints", "hw_links"].map(|name| dump(&folder.join(name)));
        let arrays = [
            rows::<abi::service::Service>(&folder.join("hw_services")),
            rows::<abi::service::Backend>(&folder.join("hw_backends")),
            rows::<abi::service::BackendState>(&folder.join("hw_bk_states")),
        ];
        hashes.into_iter().chain(arrays).collect()
    }
}

/// Makes a node's uplink, whose other end is a port of a bridge outside.
fn plug(node: &Namespace, port: &str, (outside, bridge): (&Namespace, &str), networks: &[String; 2]) {
    node.ip("link add uplink type veth peer name port");
    node.ip(&format!("link set port netns {} name {port}", outside.path().display()));
    outside.ip(&format!("link set {port} master {bridge} up"));
    node.ip(&format!("addr add {} dev uplink", networks[0]));
    node.ip(&format!("addr add {} dev uplink nodad", networks[1]));
    node.ip("link set uplink up");
}

/// The first rows of a pinned array.
fn rows<T: aya::Pod + std::fmt::Debug>(pin: &Path) -> String {
    let map = aya::maps::Map::from_map_data(aya::maps::MapData::from_pin(pin).unwrap()).unwrap();
    let array: aya::maps::Array<_, T> = map.try_into().unwrap();
    (0..128).map(|index| format!("{:?}\n", array.get(&index, 0).unwrap())).collect()
}

/// `bpftool map dump` of a pinned map.
pub fn dump(pin: &Path) -> String {
    let output = std::process::Command::new("bpftool")
        .args(["map", "dump", "pinned"])
        .arg(pin)
        .output()
        .expect("bpftool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cgroup(name: &str) -> PathBuf {
    let root = agent::kernel::features::cgroup2_mount().expect("a cgroup2 mount");
    let path = root.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}
