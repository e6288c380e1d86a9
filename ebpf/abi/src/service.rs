//! Services: one hash lookup and two array reads.
//!
//! `frontend -> service index`, `services[index] -> segment`, `backends[segment.base + pick]`. A change writes a fresh
//! segment and then stores its eight bytes into the service: every frontend moves at once.

use crate::address::{Addr16, Be16};
use crate::layout::layout;

layout! {
    /// An address and port a service answers on.
    pub struct FrontendKey(20) {
        /// The virtual address, or a node's address for a NodePort.
        0 => addr: Addr16,
        /// The port clients use.
        16 => port: Be16,
        /// IP protocol number.
        18 => proto: u8,
        /// Zero; other scopes are not in use yet.
        19 => scope: u8,
    }

    /// What a frontend leads to.
    pub struct Frontend(8) {
        /// Index into the services.
        0 => service: u32,
        /// `frontend::*` bits.
        4 => flags: u32,
    }

    /// A run of backends. Aligned to eight bytes inside [`Service`], so that it changes in one store.
    pub struct Segment(8) {
        /// Index of the first backend.
        0 => base: u32,
        /// How many follow.
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
        /// Nonzero while the service exists.
        20 => live: u32,
    }

    /// Where a service's packets go.
    pub struct Backend(24) {
        /// Address of the pod or host.
        0 => addr: Addr16,
        /// Its port.
        16 => port: Be16,
        /// Zero; no flags are in use yet.
        18 => flags: u16,
        /// Stable number of this address, port and protocol: index into the generations.
        20 => id: u32,
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

    /// The translations of one socket: one for a connected socket, the last four of an unconnected one.
    pub struct SockVips(180) {
        /// The entries; unused ones are zero.
        0 => entries: [SockVip; 4],
        /// Entry to overwrite next.
        176 => next: u32,
    }
}

impl Backend {
    /// Nobody.
    pub const NONE: Self = Self { addr: Addr16::NONE, port: Be16::new(0), flags: 0, id: 0 };
}

/// Bits of [`Frontend::flags`].
pub mod frontend {
    /// Clients inside the cluster reach only backends on their node.
    pub const INTERNAL_LOCAL: u32 = 1;
    /// Clients outside reach only backends on this node, and keep their address.
    pub const EXTERNAL_LOCAL: u32 = 2;
    /// Meant for clients outside: a NodePort, an external address.
    pub const EXTERNAL: u32 = 4;
}
