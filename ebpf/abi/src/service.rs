//! Services: one hash lookup and two array reads.
//!
//! `frontend -> service index`, `services[index] -> segment`, `backends[segment.base + pick]`. A change writes a fresh
//! segment and then stores its eight bytes into the service: every frontend moves at once.
//!
//! Where backends weigh differently, or where every node must choose alike (Maglev), the segment is a run of *slots*, each of
//! which is the index of a backend. The bit that says so is part of the same eight bytes.

use crate::address::{Addr16, Be16};
use crate::layout::layout;

layout! {
    /// An address and port a service answers on. Port and protocol zero stand for the address itself: such a row says that
    /// services own it, so that other ports are refused and pings are answered.
    pub struct FrontendKey(20) {
        /// The virtual address, or a node's address for a NodePort.
        0 => addr: Addr16,
        /// The port clients use.
        16 => port: Be16,
        /// IP protocol number.
        18 => proto: u8,
        /// Zero.
        19 => zero: u8,
    }

    /// What a frontend leads to.
    pub struct Frontend(8) {
        /// Index into the services.
        0 => service: u32,
        /// `frontend::*` bits.
        4 => flags: u32,
    }

    /// A run of backends, or of slots. Aligned to eight bytes inside [`Service`], so that it changes in one store.
    pub struct Segment(8) {
        /// Index of the first backend, or of the first slot.
        0 => base: u32,
        /// How many follow; with [`SLOTS`] set they are slots.
        4 => count: u32,
    }

    /// One port of a service.
    pub struct Service(24) {
        /// All usable backends.
        0 => cluster: Segment,
        /// Those on this node.
        8 => local: Segment,
        /// Seconds a client keeps its backend; zero is no affinity.
        16 => affinity: u32,
        /// `bits::*` bits; zero when the service does not exist.
        20 => flags: u32,
    }

    /// Where a service's packets go.
    pub struct Backend(24) {
        /// Address of the pod or host.
        0 => addr: Addr16,
        /// Its port.
        16 => port: Be16,
        /// Zero; no flags are in use yet.
        18 => flags: u16,
        /// Stable number of this address, port and protocol: index into the backend states.
        20 => id: u32,
    }

    /// What changes about a backend while it exists.
    pub struct BackendState(16) {
        /// Changes when the backend goes.
        0 => generation: u32,
        /// Zero.
        4 => zero: u32,
        /// Connections of this node that have not ended, counted for services that pick the less busy of two.
        8 => connections: u64,
    }

    /// Address, port and protocol of a backend that is gone.
    pub struct BackendKey(20) {
        /// Its address.
        0 => addr: Addr16,
        /// Its port.
        16 => port: Be16,
        /// IP protocol number.
        18 => proto: u8,
        /// Zero.
        19 => zero: u8,
    }

    /// Who to ask instead of a backend that is gone.
    pub struct Tombstone(8) {
        /// Index of the service it served.
        0 => service: u32,
        /// Second it was buried.
        4 => buried: u32,
    }

    /// A prefix of clients a service admits; matched by the longest prefix.
    pub struct SourceRange(20) {
        /// Index of the service, in network order: 32 bits of every prefix.
        0 => service: u32,
        /// The clients' network, after that.
        4 => client: Addr16,
    }

    /// Who asked which service, for session affinity.
    pub struct AffinityKey(20) {
        /// Address of the client: the pod's or the node's, on either path.
        0 => client: Addr16,
        /// Index of the service.
        16 => service: u32,
    }

    /// The backend a client keeps.
    pub struct Affinity(32) {
        /// The backend.
        0 => backend: Backend,
        /// Its generation when it was picked.
        24 => generation: u32,
        /// Second of the client's last new connection.
        28 => seen: u32,
    }

    /// One translation a socket has made.
    pub struct SockVip(44) {
        /// The address the client asked for.
        0 => vip: Addr16,
        /// The address it got.
        16 => backend: Addr16,
        /// The port the client asked for.
        32 => vip_port: Be16,
        /// The port it got.
        34 => backend_port: Be16,
        /// The backend's stable number.
        36 => id: u32,
        /// The backend's generation when it was picked.
        40 => generation: u32,
    }

    /// What a connected socket was translated to, in the slot that its cookie's last bits name.
    pub struct SockPeer(64) {
        /// The cookie of the socket that has the slot.
        0 => cookie: u64,
        /// One while a socket has the slot; more while others find that out.
        8 => claims: u64,
        /// The translation.
        16 => entry: SockVip,
        /// One while it is counted as a connection of its backend.
        60 => counted: u32,
    }

    /// The translations of one socket: one for a connected socket, the last four of an unconnected one.
    pub struct SockVips(184) {
        /// The entries; unused ones are zero.
        0 => entries: [SockVip; 4],
        /// Entry to overwrite next.
        176 => next: u32,
        /// One while the first entry is counted as a connection of its backend.
        180 => counted: u32,
    }
}

impl Backend {
    /// Nobody.
    pub const NONE: Self = Self { addr: Addr16::NONE, port: Be16::new(0), flags: 0, id: 0 };
}

/// Bit of [`Segment::count`]: the run is one of slots.
pub const SLOTS: u32 = 1 << 31;

impl Segment {
    /// How many backends or slots there are.
    #[inline(always)]
    pub const fn len(&self) -> u32 {
        self.count & !SLOTS
    }

    /// Whether nobody is there.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the run is one of slots.
    #[inline(always)]
    pub const fn has_slots(&self) -> bool {
        self.count & SLOTS != 0
    }
}

/// Bits of [`Frontend::flags`].
pub mod frontend {
    /// Clients inside the cluster reach only backends on their node.
    pub const INTERNAL_LOCAL: u32 = 1;
    /// Clients outside reach only backends on this node, and keep their address.
    pub const EXTERNAL_LOCAL: u32 = 2;
    /// Meant for clients outside: a NodePort, a load balancer's or an external address.
    pub const EXTERNAL: u32 = 4;
    /// Only clients inside the service's source ranges are admitted.
    pub const SOURCE_RANGES: u32 = 8;
    /// Only for sockets of the host: a NodePort on a loopback address.
    pub const HOST_ONLY: u32 = 16;
    /// The row of an address, not of a port of it; see [`FrontendKey`](super::FrontendKey).
    pub const ADDRESS: u32 = 32;
}

/// Bits of [`Service::flags`].
pub mod bits {
    /// The service exists.
    pub const LIVE: u32 = 1;
    /// Somewhere in the cluster there is a usable backend: where policy finds none, packets are dropped, not refused.
    pub const SOMEBODY: u32 = 2;
    /// Pick by the hash of the flow, so that every node picks alike (segments are Maglev tables).
    pub const HASH: u32 = 4;
    /// Pick the less busy of two.
    pub const LEAST: u32 = 8;
    /// Clients outside are answered by the backend's node directly: packets travel there in an IP tunnel.
    pub const DSR: u32 = 16;
    /// Socket hooks leave this service to the packet path.
    pub const NO_SOCKETS: u32 = 32;
}

/// Words of the filter of virtual addresses.
pub const FILTER_WORDS: u32 = 1024;

/// Where an address is in the filter: index of the word and the bit in it. A clear bit proves that no frontend has the address.
#[inline(always)]
pub const fn filter_place(addr: &Addr16) -> (u32, u64) {
    let words = addr.words();
    let mixed =
        (words[0] ^ words[1].rotate_left(11) ^ words[2].rotate_left(19) ^ words[3]).wrapping_mul(0x9e37_79b1);
    let at = mixed >> 16;
    (at >> 6, 1 << (at & 63))
}
