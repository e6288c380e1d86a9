//! Pods on this node.

use crate::address::Addr16;
use crate::layout::layout;

layout! {
    /// How to reach the local pod that has an address, and whom it may talk to.
    pub struct Endpoint(28) {
        /// The host's end of its link.
        0 => ifindex: u32,
        /// Hardware address inside the pod.
        4 => mac: [u8; 6],
        /// Hardware address of the host's end.
        10 => host_mac: [u8; 6],
        /// Number of the rule set for what comes to it; zero if everything may. See [`crate::policy`].
        16 => ingress: u32,
        /// The same for what it sends.
        20 => egress: u32,
        /// `bits::*`.
        24 => flags: u32,
    }

    /// Whose packets and sockets these are; keyed by the index of the host's end of a link, and by the cookie of a network
    /// namespace.
    pub struct Link(44) {
        /// The pod's IPv4 address, or none.
        0 => v4: Addr16,
        /// The pod's IPv6 address, or none.
        16 => v6: Addr16,
        /// `link::*` bits.
        32 => flags: u32,
        /// Hardware address inside the pod; zeros where it is not known, and is not looked at.
        36 => mac: [u8; 6],
        /// Zero.
        42 => zero: [u8; 2],
    }
}

/// Bits of [`Endpoint::flags`].
pub mod bits {
    /// What its rule sets deny passes, and is told.
    pub const AUDIT: u32 = 1;
}

/// Bits of [`Link::flags`].
pub mod link {
    /// The host itself.
    pub const HOST: u32 = 1;
    /// The socket hooks leave its clients to the packet path.
    pub const NO_SOCKETS: u32 = 2;
}
