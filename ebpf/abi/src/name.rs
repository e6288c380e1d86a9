//! Names and sizes of maps and programs.

/// A map: the name it is pinned under and how many entries it holds.
#[derive(Debug)]
pub struct Map {
    /// At most fifteen bytes.
    pub name: &'static str,
    /// Capacity.
    pub entries: usize,
}

macro_rules! maps {
    ($( $(#[$meta:meta])* $constant:ident = $name:literal, $size:ident = $entries:literal; )+) => {
        $( $(#[$meta])* pub const $constant: &str = $name;
           /// Capacity of the map of the same name.
           pub const $size: usize = $entries; )+
        /// Every pinned map.
        pub const MAPS: &[Map] = &[$( Map { name: $name, entries: $entries } ),+];
    };
}

maps! {
    /// Frontends by address, port and protocol.
    FRONTENDS = "hw_frontends", FRONTENDS_SIZE = 65536;
    /// Services by index.
    SERVICES = "hw_services", SERVICES_SIZE = 32768;
    /// Backends in segments.
    BACKENDS = "hw_backends", BACKENDS_SIZE = 131072;
    /// Generation of each backend by its stable number: it changes when the backend goes.
    GENERATIONS = "hw_generations", GENERATIONS_SIZE = 65536;
    /// Local pods by address.
    ENDPOINTS = "hw_endpoints", ENDPOINTS_SIZE = 4096;
    /// Local pods by link.
    LINKS = "hw_links", LINKS_SIZE = 2048;
    /// Addresses of the pod, or of the host, by the cookie of its network namespace.
    NAMESPACES = "hw_netns", NAMESPACES_SIZE = 4096;
    /// The backend each client keeps, for services with affinity: the oldest give way.
    AFFINITY = "hw_affinity", AFFINITY_SIZE = 65536;
    /// Flows that were answered: never evicted.
    FLOWS = "hw_flows", FLOWS_SIZE = 131072;
    /// Flows that were not answered yet: the oldest give way.
    EMBRYOS = "hw_embryos", EMBRYOS_SIZE = 65536;
    /// Translations of each socket.
    SOCK_VIPS = "hw_sock_vips", SOCK_VIPS_SIZE = 0;
    /// Drops by reason.
    DROPS = "hw_drops", DROPS_SIZE = 64;
    /// Packets by path.
    PATHS = "hw_paths", PATHS_SIZE = 64;
    /// New flows by service.
    SERVICE_COUNTS = "hw_svc_counts", SERVICE_COUNTS_SIZE = 32768;
}

/// Name of the global that holds [`crate::node::Node`].
pub const NODE: &str = "NODE";

/// From a pod: TC, ingress of the host's end of its link.
pub const TC_POD_OUT: &str = "tc_pod_out";
/// Towards a pod, from the host's stack: TC, egress of the host's end of its link.
pub const TC_POD_IN: &str = "tc_pod_in";
/// From the outside: TC, ingress of an uplink.
pub const TC_UPLINK_IN: &str = "tc_uplink_in";
/// To the outside: TC, egress of an uplink.
pub const TC_UPLINK_OUT: &str = "tc_uplink_out";
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
    FLOW_EXPIRE,
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];
