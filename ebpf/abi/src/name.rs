//! Names and sizes of maps and programs.

/// A map: the name it is pinned under and how many entries it holds.
#[derive(Debug)]
pub struct Map {
    /// At most fifteen bytes.
    pub name: &'static str,
    /// Capacity at scale one.
    pub entries: usize,
    /// Whether the capacity grows with the scale the agent is given.
    pub scaled: bool,
}

impl Map {
    /// Capacity at a scale, which is a power of two.
    pub const fn capacity(&self, scale: u32) -> usize {
        if self.scaled { self.entries * scale as usize } else { self.entries }
    }
}

macro_rules! maps {
    ($( $(#[$meta:meta])* $constant:ident = $name:literal, $size:ident = $entries:literal, $growth:ident; )+) => {
        $( $(#[$meta])* pub const $constant: &str = $name;
           /// Capacity of the map of the same name, at scale one.
           pub const $size: usize = $entries; )+
        /// Every pinned map.
        pub const MAPS: &[Map] = &[$( Map { name: $name, entries: $entries, scaled: growth!($growth) } ),+];
    };
}

macro_rules! growth {
    (scaled) => {
        true
    };
    (fixed) => {
        false
    };
}

maps! {
    /// Frontends by address, port and protocol; rows cost memory only while they exist.
    FRONTENDS = "hw_frontends", FRONTENDS_SIZE = 65536, scaled;
    /// Services by index.
    SERVICES = "hw_services", SERVICES_SIZE = 16384, scaled;
    /// Backends in segments.
    BACKENDS = "hw_backends", BACKENDS_SIZE = 131072, scaled;
    /// Indices of backends in segments of slots.
    SLOTS = "hw_slots", SLOTS_SIZE = 262144, scaled;
    /// Generation and connections of each backend by its stable number.
    BACKEND_STATES = "hw_bk_states", BACKEND_STATES_SIZE = 65536, scaled;
    /// Which addresses may be a frontend: one bit each, see [`crate::service::filter_place`].
    VIP_FILTER = "hw_vip_filter", VIP_FILTER_SIZE = 1024, fixed;
    /// Clients that services admit.
    SOURCE_RANGES = "hw_src_ranges", SOURCE_RANGES_SIZE = 65536, scaled;
    /// Backends that went not long ago.
    TOMBSTONES = "hw_tombstones", TOMBSTONES_SIZE = 16384, fixed;
    /// Local pods by address.
    ENDPOINTS = "hw_endpoints", ENDPOINTS_SIZE = 4096, fixed;
    /// Local pods by link.
    LINKS = "hw_links", LINKS_SIZE = 2048, fixed;
    /// Networks that pods reach under their own addresses, though no pod has one of theirs.
    UNMASKED = "hw_unmasked", UNMASKED_SIZE = 16384, fixed;
    /// Identities of addresses that belong to somebody: pods of the whole cluster, and the node's own.
    IDENTITIES = "hw_identities", IDENTITIES_SIZE = 65536, scaled;
    /// Identities of networks that policies name.
    CIDRS = "hw_cidrs", CIDRS_SIZE = 16384, scaled;
    /// Rows of the rule sets.
    RULES = "hw_rules", RULES_SIZE = 131072, scaled;
    /// Addresses of the pod, or of the host, by the cookie of its network namespace.
    NAMESPACES = "hw_netns", NAMESPACES_SIZE = 4096, fixed;
    /// The backend each client keeps, for services with affinity: the oldest give way.
    AFFINITY = "hw_affinity", AFFINITY_SIZE = 65536, scaled;
    /// Flows that were answered: never evicted.
    FLOWS = "hw_flows", FLOWS_SIZE = 131072, scaled;
    /// Flows that were not answered yet: the oldest give way.
    EMBRYOS = "hw_embryos", EMBRYOS_SIZE = 65536, scaled;
    /// Ports of datagrams in fragments.
    FRAGMENTS = "hw_fragments", FRAGMENTS_SIZE = 8192, fixed;
    /// What connected sockets were translated to. A power of two.
    SOCK_PEERS = "hw_sock_peers", SOCK_PEERS_SIZE = 16384, fixed;
    /// Translations of other sockets, and of those whose slot another has.
    SOCK_VIPS = "hw_sock_vips", SOCK_VIPS_SIZE = 0, fixed;
    /// Pods with limited bandwidth.
    PACES = "hw_paces", PACES_SIZE = 4096, fixed;
    /// What the agent tells running programs.
    CONTROL = "hw_control", CONTROL_SIZE = 1, fixed;
    /// Events; the size is in bytes.
    EVENTS = "hw_events", EVENTS_SIZE = 262144, fixed;
    /// Devices that XDP may send by: those whose driver has our program.
    XDP_DEVICES = "hw_xdp_devices", XDP_DEVICES_SIZE = 64, fixed;
    /// Drops by reason.
    DROPS = "hw_drops", DROPS_SIZE = 64, fixed;
    /// Packets by path.
    PATHS = "hw_paths", PATHS_SIZE = 64, fixed;
    /// What the last walk over the flows found.
    GAUGES = "hw_gauges", GAUGES_SIZE = 16, fixed;
    /// What happened to the rows of tables, see [`crate::count::table`].
    TABLE_COUNTS = "hw_tbl_counts", TABLE_COUNTS_SIZE = 4, fixed;
    /// New flows by service.
    SERVICE_COUNTS = "hw_svc_counts", SERVICE_COUNTS_SIZE = 16384, scaled;
}

/// Where each CPU's packets went a moment ago; lives as long as the programs.
pub const WAYS: &str = "hw_ways";
/// How many of them a CPU remembers: a power of two.
pub const WAYS_SIZE: usize = 256;

/// Name of the global that holds [`crate::node::Node`].
pub const NODE: &str = "NODE";

/// Name of the global that holds the UDP port of the tunnels between nodes, in host order; zero where there are none.
pub const TUNNEL_PORT: &str = "TUNNEL_PORT";

/// Name of the global that holds [`crate::older::Older`].
pub const OLDER: &str = "OLDER";

/// Holds the table of answered flows of the agent before this one, while they are taken over.
pub const OLDER_FLOWS: &str = "hw_older_flows";
/// The same for flows that were not answered.
pub const OLDER_EMBRYOS: &str = "hw_older_embryo";
/// Which programs the bridges lead to: index of the first in [`BRIDGE_PROGRAMS`].
pub const BRIDGE: &str = "hw_bridge";
/// The programs of the agent before this one in the order of [`BRIDGES`], then this one's.
pub const BRIDGE_PROGRAMS: &str = "hw_bridge_progs";

/// From a pod: TC, ingress of the host's end of its link.
pub const TC_POD_OUT: &str = "tc_pod_out";
/// Towards a pod, from the host's stack: TC, egress of the host's end of its link.
pub const TC_POD_IN: &str = "tc_pod_in";
/// From the outside: TC, ingress of an uplink.
pub const TC_UPLINK_IN: &str = "tc_uplink_in";
/// To the outside: TC, egress of an uplink.
pub const TC_UPLINK_OUT: &str = "tc_uplink_out";
/// From a pod with limited bandwidth: TC, egress of the device inside the pod.
pub const TC_PACE_OUT: &str = "tc_pace_out";
/// To a pod with limited bandwidth: TC, ingress of the device inside the pod.
pub const TC_PACE_IN: &str = "tc_pace_in";
/// From the outside: XDP, before the stack; forwards packets of flows whose next hop is known.
pub const XDP_UPLINK: &str = "xdp_uplink";
/// The same for frames in several pieces.
pub const XDP_UPLINK_FRAG: &str = "xdp_uplink_frag";
/// Counts the end of a socket's connection: cgroup, release of a socket.
pub const SOCK_RELEASE: &str = "sock_release";
/// Forgets silent flows; run by the agent, attached nowhere.
pub const FLOW_EXPIRE: &str = "flow_expire";

/// The socket hooks, by program name.
pub const SOCKET_PROGRAMS: &[&str] =
    &["connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];

/// Every program of the object.
pub const PROGRAMS: &[&str] = &[
    TC_POD_OUT,
    TC_POD_IN,
    TC_UPLINK_IN,
    TC_UPLINK_OUT,
    TC_PACE_OUT,
    TC_PACE_IN,
    XDP_UPLINK,
    XDP_UPLINK_FRAG,
    FLOW_EXPIRE,
    SOCK_RELEASE,
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];

/// Programs that are attached while one agent takes over from another, and the ones they lead to.
pub const BRIDGES: [(&str, &str); 4] = [
    ("bridge_pod_out", TC_POD_OUT),
    ("bridge_pod_in", TC_POD_IN),
    ("bridge_up_in", TC_UPLINK_IN),
    ("bridge_up_out", TC_UPLINK_OUT),
];
