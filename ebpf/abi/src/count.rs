//! Counters, one cell per CPU.

use crate::layout::layout;

layout! {
    /// Packets and their bytes.
    pub struct Count(16) {
        /// Packets.
        0 => packets: u64,
        /// Bytes of those packets.
        8 => bytes: u64,
    }

    /// What the programs did to the rows of a table.
    pub struct TableCount(16) {
        /// Rows that were added.
        0 => added: u64,
        /// Rows that were removed.
        8 => removed: u64,
    }

    /// What happened to new flows of a service.
    pub struct ServiceCount(16) {
        /// Connections and datagram flows that got a backend.
        0 => connections: u64,
        /// Those refused because there was none.
        8 => refused: u64,
    }
}

/// Tables that forget their oldest rows by themselves: index into the counters of their rows.
pub mod table {
    /// Flows that were not answered.
    pub const EMBRYOS: u32 = 0;
    /// The backend each client keeps.
    pub const AFFINITY: u32 = 1;
}

/// What `flow_expire` found in its walk: index into the gauges.
pub mod gauge {
    /// Entries of the established flows: two for each, and one for those that have not been answered yet.
    pub const FLOWS: u32 = 0;
    /// Entries of flows that were not answered.
    pub const EMBRYOS: u32 = 1;
    /// Flows that hold a source port of the node.
    pub const MASQUERADED: u32 = 2;
    /// Established flows that are answered elsewhere; the programs add those that came since.
    pub const DIRECT: u32 = 5;
    /// Entries of flows that were not answered yet among the established ones; the programs add and take off what came and was
    /// answered since.
    pub const BEGUN: u32 = 6;
    /// The agent's: rows that the table of unanswered flows has given up to make room.
    pub const EVICTED_EMBRYOS: u32 = 3;
    /// The agent's: the same of affinity.
    pub const EVICTED_AFFINITY: u32 = 4;
}

macro_rules! paths {
    ($($number:literal $name:ident $sentence:literal),+ $(,)?) => {
        /// What the programs do with packets that are not dropped; the number is the index of its counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Path { $( #[doc = $sentence] $name = $number ),+ }

        /// Number, name and meaning of every [`Path`].
        pub const PATHS: &[(u32, &str, &str)] = &[$( ($number, stringify!($name), $sentence) ),+];
    };
}

paths! {
    0 Stack "handed to the host's network stack",
    1 Pod "delivered to a pod of this node",
    2 Remote "sent towards another node or the outside",
    3 Service "translated to a backend",
    4 Reply "translated back to the address the client asked for",
    5 Masquerade "sent with an address of the node as source",
    6 Promoted "flows that were answered",
    7 Expired "flows forgotten after silence",
    8 Refused "connects and sends refused because the service has no backend",
    9 Echo "pings of service addresses answered",
    10 Encapsulated "sent to a backend's node in a tunnel",
    11 Decapsulated "arrived in a tunnel",
    12 Healed "moved on from a backend that is gone",
    13 Unanswered "refusals that were not sent, because too many were",
    14 Xdp "forwarded before the stack saw them",
    15 PortCollision "source ports that were tried and taken",
    16 EventsLost "events that found no room, because nobody read fast enough",
    17 Audited "flows let pass that policy denies, because their pod is audited",
}
