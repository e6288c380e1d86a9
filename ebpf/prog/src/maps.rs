//! Every map, and the facts of the node.

use abi::count::{Count, ServiceCount, TableCount};
use abi::endpoint::{Endpoint, Link};
use abi::event::{Control, Event};
use abi::flow::{Flow, FlowKey, Fragment, FragmentKey, Hop, Way};
use abi::name;
use abi::node::Node;
use abi::pace::{Pace, PaceKey};
use abi::policy::{RuleKey, Ruling};
use abi::service::{
    Affinity, AffinityKey, Backend, BackendKey, BackendState, Frontend, FrontendKey, Service, SockPeer,
    SockVips, SourceRange, Tombstone,
};
use abi::{Addr16, Be16, Prefix, Tuple};
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;

use crate::older::Key;
use crate::packet::Packet;
use crate::policy::Question;
use crate::service::Scratch;

/// Set by the loader.
#[unsafe(no_mangle)]
static NODE: Global<Node> = Global::new(Node {
    v4: Addr16::NONE,
    v6: Addr16::NONE,
    services: [Prefix::NONE; 2],
    pods: [Prefix::NONE; 2],
    cpus: 1,
    port_min: Be16::new(61000),
    port_max: Be16::new(65535),
    features: 0,
    router: 0,
    direct: 0,
    begun: 0,
});

/// Set by the loader.
#[unsafe(no_mangle)]
static TUNNEL_PORT: Global<u16> = Global::new(0);

#[btf_map(name = "hw_frontends")]
pub static FRONTENDS: HashMap<
    FrontendKey,
    Frontend,
    { name::FRONTENDS_SIZE },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();
// Maps with this flag are mapped into the agent's memory: it stores whole words, without a system call.
#[btf_map(name = "hw_services")]
pub static SERVICES: Array<Service, { name::SERVICES_SIZE }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "hw_backends")]
pub static BACKENDS: Array<Backend, { name::BACKENDS_SIZE }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "hw_slots")]
pub static SLOTS: Array<u32, { name::SLOTS_SIZE }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "hw_bk_states")]
pub static BACKEND_STATES: Array<BackendState, { name::BACKEND_STATES_SIZE }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
#[btf_map(name = "hw_vip_filter")]
pub static VIP_FILTER: Array<u64, { name::VIP_FILTER_SIZE }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "hw_src_ranges")]
pub static SOURCE_RANGES: LpmTrie<SourceRange, u32, { name::SOURCE_RANGES_SIZE }> = LpmTrie::new();
#[btf_map(name = "hw_tombstones")]
pub static TOMBSTONES: LruHashMap<BackendKey, Tombstone, { name::TOMBSTONES_SIZE }> = LruHashMap::new();
#[btf_map(name = "hw_endpoints")]
pub static ENDPOINTS: HashMap<Addr16, Endpoint, { name::ENDPOINTS_SIZE }> = HashMap::new();
#[btf_map(name = "hw_links")]
pub static LINKS: HashMap<u32, Link, { name::LINKS_SIZE }> = HashMap::new();
#[btf_map(name = "hw_netns")]
pub static NAMESPACES: HashMap<u64, Link, { name::NAMESPACES_SIZE }> = HashMap::new();
#[btf_map(name = "hw_paces")]
pub static PACES: HashMap<PaceKey, Pace, { name::PACES_SIZE }> = HashMap::new();
#[btf_map(name = "hw_unmasked")]
pub static UNMASKED: LpmTrie<Addr16, u32, { name::UNMASKED_SIZE }> = LpmTrie::new();
#[btf_map(name = "hw_identities")]
pub static IDENTITIES: HashMap<Addr16, u32, { name::IDENTITIES_SIZE }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
#[btf_map(name = "hw_cidrs")]
pub static CIDRS: LpmTrie<Addr16, u32, { name::CIDRS_SIZE }> = LpmTrie::new();
#[btf_map(name = "hw_rules")]
pub static RULES: LpmTrie<RuleKey, Ruling, { name::RULES_SIZE }> = LpmTrie::new();
#[btf_map(name = "hw_affinity")]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity, { name::AFFINITY_SIZE }> = LruHashMap::new();
#[btf_map(name = "hw_flows")]
pub static FLOWS: HashMap<FlowKey, Flow, { name::FLOWS_SIZE }> = HashMap::new();
#[btf_map(name = "hw_embryos")]
pub static EMBRYOS: LruHashMap<FlowKey, Flow, { name::EMBRYOS_SIZE }> = LruHashMap::new();
#[btf_map(name = "hw_fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { name::FRAGMENTS_SIZE }> = LruHashMap::new();
#[btf_map(name = "hw_control")]
pub static CONTROL: Array<Control, { name::CONTROL_SIZE }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map(name = "hw_events")]
pub static EVENTS: RingBuf<Event, { name::EVENTS_SIZE }> = RingBuf::new();
#[btf_map(name = "hw_gauges")]
pub static GAUGES: Array<u64, { name::GAUGES_SIZE }> = Array::new();
#[btf_map(name = "hw_sock_peers")]
pub static SOCK_PEERS: Array<SockPeer, { name::SOCK_PEERS_SIZE }> = Array::new();
#[btf_map(name = "hw_sock_vips")]
pub static SOCK_VIPS: SkStorage<SockVips> = SkStorage::new();
#[btf_map(name = "hw_xdp_devices")]
pub static XDP_DEVICES: DevMapHash<{ name::XDP_DEVICES_SIZE }> = DevMapHash::new();
#[btf_map(name = "hw_drops")]
pub static DROPS: PerCpuArray<Count, { name::DROPS_SIZE }> = PerCpuArray::new();
#[btf_map(name = "hw_paths")]
pub static PATHS: PerCpuArray<Count, { name::PATHS_SIZE }> = PerCpuArray::new();
#[btf_map(name = "hw_tbl_counts")]
pub static TABLE_COUNTS: PerCpuArray<TableCount, { name::TABLE_COUNTS_SIZE }> = PerCpuArray::new();
#[btf_map(name = "hw_svc_counts")]
pub static SERVICE_COUNTS: PerCpuArray<ServiceCount, { name::SERVICE_COUNTS_SIZE }> = PerCpuArray::new();

/// What a look at the tables has shown.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Known {
    /// Nobody has looked.
    Unseen,
    /// The packet belongs to a flow.
    Yes,
    /// It does not.
    No,
}

/// What a program holds while it handles one packet: too much for its stack of 512 bytes.
#[repr(C)]
pub struct Work {
    pub packet: Packet,
    /// Whether a flow's table has the packet: what was looked up once is not looked up again.
    pub known: Known,
    /// The packet as it came, for the flow that keeps its next hop.
    pub origin: FlowKey,
    /// Names the datagram it is a fragment of.
    pub fragment: FragmentKey,
    /// One if it goes to its backend in a tunnel.
    pub tunnelled: u32,
    /// Whether that flow may keep it: zero, [`crate::hop::KNOWN`] or [`crate::hop::NEW`].
    pub settles: u32,
    /// One if the packet answers a flow whose entry is of both directions.
    pub back: u32,
    /// The key of the flow's answers.
    pub answer: FlowKey,
    pub forward: Flow,
    pub reverse: Flow,
    /// What the packet becomes.
    pub to: Tuple,
    /// Who serves the packet.
    pub scratch: Scratch,
    /// The next hop that was looked up.
    pub hop: Hop,
    /// The next row of source ports to try, and for how many seconds a closed flow keeps its port from them.
    pub row: u32,
    pub closed_for: u32,
    /// What policy is asked.
    pub question: Question,
    /// The flow that is taken over, its other direction, and the key of one of them in the older tables.
    pub own: FlowKey,
    pub twin: FlowKey,
    pub older: Key,
    /// Headers on their way from or to the packet.
    pub buffer: [u32; 18],
}

#[btf_map(name = "hw_work")]
static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

#[btf_map(name = "hw_ways")]
pub static WAYS: PerCpuArray<Way, { name::WAYS_SIZE }> = PerCpuArray::new();

/// This CPU's work: programs of these hooks run with softirqs off, one at a time.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    let cell = WORK.get_ptr_mut(0)?;
    // SAFETY: nobody else on this CPU holds the cell, see above.
    Some(unsafe { &mut *cell })
}

/// UDP port of the tunnels between nodes, in host order; zero where there are none.
#[inline(always)]
pub fn tunnel_port() -> u16 {
    TUNNEL_PORT.load()
}

/// The facts of the node, by reference into read-only data: a copy would not fit the stack.
#[inline(always)]
pub fn node() -> &'static Node {
    // SAFETY: `Global` holds exactly one `Node`; the pointer is hidden from the optimizer because the loader replaces
    // the bytes. `black_box` keeps the initial value from being folded in.
    unsafe { &*core::hint::black_box((&raw const NODE).cast::<Node>()) }
}
