//! Facts of the node, fixed when the programs are loaded.

use crate::address::{Addr16, Be16, Prefix};
use crate::layout::layout;

layout! {
    /// Read-only data of every program.
    pub struct Node(184) {
        /// The node's IPv4 address, or none.
        0 => v4: Addr16,
        /// The node's IPv6 address, or none.
        16 => v6: Addr16,
        /// Virtual addresses of services, one prefix per family.
        32 => services: [Prefix; 2],
        /// Addresses of all pods, one prefix per family.
        96 => pods: [Prefix; 2],
        /// Number of CPUs that share the source ports.
        160 => cpus: u32,
        /// First source port of masqueraded flows: above Linux's ephemeral ports, so that no socket of the host collides.
        164 => port_min: Be16,
        /// Last source port of masqueraded flows.
        166 => port_max: Be16,
        /// `feature::*` bits.
        168 => features: u32,
        /// Index of a device of ours that forwards: routes are looked up as if packets came by it, where the device they
        /// did come by is not allowed to forward. Zero for none.
        172 => router: u32,
        /// Most flows that are answered elsewhere and may be established: such flows are easily forged, others keep their room.
        176 => direct: u32,
        /// Most flows that nobody has answered yet and that are among the established ones all the same.
        180 => begun: u32,
    }
}

/// Bits of [`Node::features`]: what the running kernel can do.
pub mod feature {
    /// `bpf_set_retval` (5.18): a refused connect says ECONNREFUSED instead of EPERM.
    pub const SET_RETVAL: u32 = 1;
    /// `bpf_ktime_get_coarse_ns` (5.11): the second costs a load instead of a clock.
    pub const COARSE_CLOCK: u32 = 4;
}
