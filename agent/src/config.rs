//! The command line of the agent, parsed into types.

use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;

use crate::admin::monitor::line::Filter;
use crate::desired::NodePortAddresses;
use crate::desired::overlay::{Tunnelling, When};
use crate::kernel::features::Optional;
use crate::kernel::xdp::Mode;
use crate::pools::Place;
use crate::tables::Protocol;

/// The node of a Hawser cluster: dataplane, pod network and pods.
#[derive(Debug, Parser)]
#[command(name = "hawser-agent", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node in the foreground until SIGTERM.
    Run(Box<Run>),
    /// Show features, endpoints, counters, drops and errors of the running agent.
    Status(Ask),
    /// Show services with their frontends, backends and counters.
    Services(Ask),
    /// Say what happens to a packet, by the rules and in the live programs.
    Explain(Explain),
    /// Show flows and drops as they happen.
    Monitor(Monitor),
    /// Ask about NetworkPolicies.
    #[command(subcommand)]
    Policy(Policy),
    /// Write what the agent and the kernel say of this node into one archive, for a report of a fault; no credentials.
    Sysdump(Sysdump),
    /// Check the node this runs on, and with short-lived pods who reaches whom in the cluster; fails when something is broken.
    Check(Box<Check>),
    /// Answer in a pod that `check` has made.
    #[command(hide = true)]
    CheckServe(CheckServe),
    /// Ask from a pod that `check` has made.
    #[command(hide = true)]
    CheckCall(CheckCall),
    /// Remove every device, route, program and map of Hawser on this node, or what a kube-proxy has left, and say what was
    /// removed.
    Cleanup(Cleanup),
}

/// Flags of the commands that ask a running agent.
#[derive(Debug, Clone, Args)]
pub struct Ask {
    /// The agent's run directory.
    #[arg(long, default_value = "/run/hawser")]
    pub run_dir: PathBuf,
    /// Print the JSON behind the table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `hawser-agent explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// Who asks: an address, `host`, or a pod of this node as namespace/name.
    pub src: String,
    /// What is asked: address:port, an address for a ping, or a Service's port as namespace/name:port.
    pub dst: String,
    /// Protocol of the packet.
    #[arg(long, value_enum, default_value = "tcp")]
    pub proto: Protocol,
    /// How to reach the agent.
    #[command(flatten)]
    pub ask: Ask,
}

/// Questions about policies.
#[derive(Debug, Clone, Subcommand)]
pub enum Policy {
    /// List the live flows of this node that policies would cut, without applying them.
    WhatIf(WhatIf),
}

/// Flags of `hawser-agent policy what-if`.
#[derive(Debug, Clone, Args)]
pub struct WhatIf {
    /// NetworkPolicies in YAML or JSON, as for `kubectl apply`; `-` reads them from the standard input.
    #[arg(short, long)]
    pub filename: PathBuf,
    /// What if they were deleted.
    #[arg(long)]
    pub delete: bool,
    /// How to reach the agent.
    #[command(flatten)]
    pub ask: Ask,
}

/// Flags of `hawser-agent monitor`.
#[derive(Debug, Clone, Args)]
pub struct Monitor {
    /// What to show.
    #[command(flatten)]
    pub filter: Filter,
    /// How to reach the agent.
    #[command(flatten)]
    pub ask: Ask,
}

/// Flags of `hawser-agent sysdump`.
#[derive(Debug, Clone, Args)]
pub struct Sysdump {
    /// The archive; `-` is standard output.
    #[arg(long, default_value = "hawser-sysdump.tar")]
    pub to: PathBuf,
    /// Folder on a bpffs where programs, maps and links are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/hawser")]
    pub bpffs: PathBuf,
    /// The agent's run directory.
    #[arg(long, default_value = "/run/hawser")]
    pub run_dir: PathBuf,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// The node this runs on, then the traffic of the cluster.
    All,
    /// The node this runs on.
    Node,
    /// The traffic of the cluster; runs anywhere.
    Traffic,
}

/// A machine beside the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The device that leads to them.
    pub link: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A text that describes no machine beside the nodes.
#[derive(Debug, thiserror::Error)]
pub enum NotBeside {
    /// There is no device.
    #[error("it must be DEVICE=ADDRESS[,ADDRESS]")]
    NoDevice,
    /// What follows the device is no list of addresses.
    #[error(transparent)]
    Address(#[from] AddrParseError),
}

impl FromStr for Beside {
    type Err = NotBeside;

    fn from_str(text: &str) -> Result<Self, NotBeside> {
        let (link, addresses) = text.split_once('=').ok_or(NotBeside::NoDevice)?;
        let addresses = addresses.split(',').map(str::parse).collect::<Result<_, AddrParseError>>()?;
        Ok(Self { link: link.to_owned(), addresses })
    }
}

/// Flags of `hawser-agent check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// What to check.
    #[arg(long, value_enum, default_value = "all")]
    pub scope: Scope,
    /// How to reach the API server.
    #[command(flatten)]
    pub access: Access,
    /// The agent's run directory.
    #[arg(long, default_value = "/run/hawser")]
    pub run_dir: PathBuf,
    /// Folder on a bpffs where programs, maps and links are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/hawser")]
    pub bpffs: PathBuf,
    /// Where the container runtime looks for CNI plugins; default: /host/cni/bin if it is there, else /opt/cni/bin.
    #[arg(long)]
    pub cni_bin_dir: Option<PathBuf>,
    /// Where it looks for their configuration; default: /host/cni/net.d if it is there, else /etc/cni/net.d.
    #[arg(long)]
    pub cni_conf_dir: Option<PathBuf>,
    /// Container runtime endpoint.
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub cri_endpoint: String,
    /// Image with this program; default: that of the DaemonSet kube-system/hawser, else hawser.dev/hawser:latest.
    #[arg(long)]
    pub image: Option<String>,
    /// The node that asks, and after a comma the other one; default: the first two that are Ready.
    #[arg(long, value_delimiter = ',', num_args = 1)]
    pub nodes: Vec<String>,
    /// Ask from outside as another machine on the nodes' link: a device of this machine that leads there, and addresses that nobody
    /// has, as `eth0=192.0.2.250,2001:db8::250`. It has routes to pods and Services by the nodes, and goes with check.
    #[arg(long, value_parser = Beside::from_str)]
    pub outside: Option<Beside>,
    /// Have the cluster give the load balancers' addresses, and expect that it announces them. Otherwise check gives them, which is
    /// enough for pods and nodes.
    #[arg(long)]
    pub load_balancer: bool,
    /// Seconds in which pods have to start, and after that each way has to work.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub patience: u64,
    /// Print JSON: one object per row, in a list.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `hawser-agent check-serve`.
#[derive(Debug, Clone, Args)]
pub struct CheckServe {
    /// The name to answer with.
    #[arg(long)]
    pub name: String,
    /// TCP and UDP port.
    #[arg(long)]
    pub port: u16,
}

/// Flags of `hawser-agent check-call`.
#[derive(Debug, Clone, Args)]
pub struct CheckCall {
    /// Seconds in which every answer has to come.
    #[arg(long)]
    pub patience: u64,
    /// What to ask, as JSON.
    pub asks: String,
}

/// Flags of `hawser-agent cleanup`.
#[derive(Debug, Clone, Args)]
pub struct Cleanup {
    /// Folder on a bpffs where programs, maps and links are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/hawser")]
    pub bpffs: PathBuf,
    /// Remove what a kube-proxy has left in this network namespace instead; the agent may go on.
    #[arg(long)]
    pub kube_proxy: bool,
    /// Remove the CNI plugin from here as well.
    #[arg(long)]
    pub cni_bin_dir: Option<PathBuf>,
    /// Remove the CNI configuration from here as well.
    #[arg(long)]
    pub cni_conf_dir: Option<PathBuf>,
    /// Remove the addresses of pods that are remembered here as well.
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Wait for SIGTERM afterwards: what a DaemonSet runs must not end.
    #[arg(long)]
    pub stay: bool,
    /// The agent's run directory: a running agent is asked to be stopped first.
    #[arg(long, default_value = "/run/hawser")]
    pub run_dir: PathBuf,
}

/// Whether the agent runs the pods of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pods {
    /// The agent runs pods over CRI.
    On,
    /// A kubelet runs them; the agent only provides the network.
    Off,
}

fn nodeport_addresses(text: &str) -> Result<NodePortAddresses, String> {
    if text == "primary" {
        return Ok(NodePortAddresses::Primary);
    }
    let prefixes: Result<_, _> = text.split(',').map(str::parse).collect();
    prefixes
        .map(NodePortAddresses::Within)
        .map_err(|error| format!("neither `primary` nor prefixes: {error}"))
}

fn map_scale(text: &str) -> Result<u32, String> {
    let scale = text.parse::<u32>().ok().filter(|scale| scale.is_power_of_two() && *scale <= 64);
    scale.ok_or_else(|| "it must be 1, 2, 4, 8, 16, 32 or 64".to_owned())
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Where its documentation says.
    Default,
    /// On these addresses; on none, it does not run.
    On(Vec<SocketAddr>),
}

impl FromStr for Listen {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text {
            "default" => Ok(Self::Default),
            "off" | "" => Ok(Self::On(Vec::new())),
            list => list.split(',').map(str::parse).collect::<Result<_, _>>().map(Self::On),
        }
    }
}

impl Listen {
    /// The addresses, if the default is this port of these.
    pub fn addresses(&self, default: &[IpAddr], port: u16) -> Vec<SocketAddr> {
        match self {
            Self::Default => default.iter().map(|address| SocketAddr::new(*address, port)).collect(),
            Self::On(addresses) => addresses.clone(),
        }
    }
}

/// The way to the API server.
#[derive(Debug, Clone, Args)]
pub struct Access {
    /// Credentials for the API server; default: the pod's service account.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Where the API server is, for a pod's service account: an address that is reached before services are, as
    /// `https://192.0.2.10:6443`. Default: the service that the environment names, which somebody else has to provide first.
    #[arg(long, env = "HAWSER_API_SERVER", conflicts_with = "kubeconfig")]
    pub api_server: Option<http::Uri>,
    /// Folder with `token` and `ca.crt` of the service account; the token is read again as it is renewed.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    pub service_account_dir: PathBuf,
}

/// Flags of `hawser-agent run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Name of this node's Node object.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// How to reach the API server.
    #[command(flatten)]
    pub access: Access,
    /// Addresses of this node, at most one per family.
    #[arg(long, env = "NODE_IP", required = true, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Whether to run this node's pods.
    #[arg(long, value_enum, default_value = "on")]
    pub pods: Pods,
    /// Container runtime endpoint.
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub cri_endpoint: String,
    /// What survives a restart of the machine: address journal, CNI spool, volumes, logs.
    #[arg(long, default_value = "/var/lib/hawser/agent")]
    pub state_dir: PathBuf,
    /// Sockets: `cni.sock`, `admin.sock`.
    #[arg(long, default_value = "/run/hawser")]
    pub run_dir: PathBuf,
    /// Folder on a bpffs where programs, maps and links are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/hawser")]
    pub bpffs: PathBuf,
    /// cgroup2 folder whose processes are clients of services; default: the cgroup2 mount.
    #[arg(long)]
    pub cgroup_root: Option<PathBuf>,
    /// cgroup under which pods are placed.
    #[arg(long, default_value = "kubepods")]
    pub cgroup_parent: String,
    /// Where to install the CNI plugin; not given, it is not installed.
    #[arg(long)]
    pub cni_bin_dir: Option<PathBuf>,
    /// Where to install the CNI configuration; not given, it is not installed.
    #[arg(long)]
    pub cni_conf_dir: Option<PathBuf>,
    /// Devices towards other nodes and the outside; default: those that hold a node address.
    #[arg(long, env = "HAWSER_UPLINK", value_delimiter = ',')]
    pub uplink: Vec<String>,
    /// Where the kubelet API (logs, exec, port-forward) listens.
    #[arg(long, default_value = "0.0.0.0:10250")]
    pub kubelet_address: SocketAddr,
    /// Serving certificate of the kubelet API.
    #[arg(long)]
    pub kubelet_cert: Option<PathBuf>,
    /// Key of the serving certificate.
    #[arg(long)]
    pub kubelet_key: Option<PathBuf>,
    /// CA that signs the certificates of the kubelet API's clients.
    #[arg(long)]
    pub client_ca: Option<PathBuf>,
    /// Prefixes of all pods of the cluster: not masqueraded.
    #[arg(
        long,
        env = "HAWSER_CLUSTER_CIDR",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,fd00:244::/48"
    )]
    pub cluster_cidr: Vec<IpNetwork>,
    /// Largest packet of pods; default: that of the uplinks. Packets into tunnels may be 50 bytes smaller (70 between IPv6
    /// addresses), which pods are told as by any router on the way.
    #[arg(long, env = "HAWSER_MTU", value_parser = clap::value_parser!(u32).range(1280..=65_535))]
    pub mtu: Option<u32>,
    /// When packets between pods go in tunnels (VXLAN): to nodes on other links, to all nodes, to none.
    #[arg(long, env = "HAWSER_TUNNEL", value_enum, default_value = "auto")]
    pub tunnel: When,
    /// UDP port that tunnels arrive at, the same on every node.
    #[arg(long, env = "HAWSER_TUNNEL_PORT", default_value_t = Tunnelling::default().port, value_parser = clap::value_parser!(u16).range(1..))]
    pub tunnel_port: u16,
    /// Number of the tunnels' virtual network (VNI), the same on every node.
    #[arg(long, env = "HAWSER_TUNNEL_VNI", default_value_t = Tunnelling::default().vni, value_parser = clap::value_parser!(u32).range(1..=0xff_ffff))]
    pub tunnel_vni: u32,
    /// Networks outside the cluster that pods reach under their own addresses instead of the node's: those with routes back to
    /// the pods.
    #[arg(long, env = "HAWSER_NO_MASQUERADE_CIDR", value_delimiter = ',')]
    pub no_masquerade_cidr: Vec<IpNetwork>,
    /// Prefixes of the cluster's service addresses, at most one per family.
    #[arg(
        long,
        env = "HAWSER_SERVICE_CIDR",
        value_delimiter = ',',
        default_value = "10.96.0.0/16,fd00:96::/112"
    )]
    pub service_cidr: Vec<IpNetwork>,
    /// Addresses of the host that NodePorts answer on: `primary` (the node's own, and for the host itself the loopback's), or
    /// prefixes, whose addresses are followed as they come and go.
    #[arg(long, env = "HAWSER_NODEPORT_ADDRESSES", default_value = "primary", value_parser = nodeport_addresses)]
    pub nodeport_addresses: NodePortAddresses,
    /// The ConfigMap with pools of addresses (key `pools.yaml`), as NAMESPACE/NAME; Leases about load balancers are in its
    /// namespace. Where the cluster allocates no podCIDRs, the node takes blocks for its pods out of pools of the kind Pod.
    #[arg(long, env = "HAWSER_CONFIG_MAP", default_value = "kube-system/hawser")]
    pub config_map: Place,
    /// Capacity of the maps for services and flows, as a power of two: 1 holds 16,384 service ports and 131,072 backends.
    #[arg(long, env = "HAWSER_MAP_SCALE", default_value = "1", value_parser = map_scale)]
    pub map_scale: u32,
    /// Where `/healthz` and `/livez` answer, as kube-proxy's do; default: port 10256 of the node's addresses, where cloud load
    /// balancers ask. `off`: nowhere.
    #[arg(long, env = "HAWSER_HEALTHZ_BIND_ADDRESS", default_value = "default")]
    pub healthz_bind_address: Listen,
    /// Where `/metrics` answers, for Prometheus. `off`: nowhere.
    #[arg(long, env = "HAWSER_METRICS_BIND_ADDRESS", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: Listen,
    /// Where packets from outside are met: before the stack (XDP, in the driver) or in it (TC). `hawser-agent status` says for
    /// each device which it is, and why.
    #[arg(long, env = "HAWSER_XDP", value_enum, default_value = "auto")]
    pub xdp: Mode,
    /// Do without these features of the kernel, as an older one would.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub disable_feature: Vec<Optional>,
    /// Name servers of the cluster for pods; not given, pods resolve names as the node does.
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
}
