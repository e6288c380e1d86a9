//! Flows: translated conversations, one entry for each direction; those that are not translated, one for both.
//!
//! An entry says what its packets become, so that either direction costs one lookup. The entry of the other direction is
//! found by reversing [`Flow::to`].

use crate::address::{Addr16, Be16, Tuple};
use crate::layout::layout;
use crate::name;

layout! {
    /// A packet's tuple and protocol.
    pub struct FlowKey(40) {
        /// As seen before translation.
        0 => tuple: Tuple,
        /// IP protocol number.
        36 => proto: u8,
        /// Zero.
        37 => zero: [u8; 3],
    }

    /// The next hop of a flow, as the routing table and the neighbours said not long ago.
    pub struct Hop(24) {
        /// Device to leave by; zero for the host's own stack.
        0 => ifindex: u32,
        /// Hardware address of the next hop.
        4 => dmac: [u8; 6],
        /// Hardware address of the device.
        10 => smac: [u8; 6],
        /// Second it was looked up; zero for never. Older than [`HOP_SECONDS`] it is looked up again.
        16 => seen: u32,
        /// Largest packet of the route; zero when packets end in a pod of this node.
        20 => mtu: u32,
    }

    /// One direction of a flow; both of one that is not translated, see [`bits::BOTH`].
    pub struct Flow(108) {
        /// What the packets become.
        0 => to: Tuple,
        /// Stable number of the backend, zero when there is none.
        36 => backend: u32,
        /// The backend's generation when it was picked.
        40 => generation: u32,
        /// Second (of the kernel's monotonic clock) of the last packet.
        44 => last_seen: u32,
        /// `bits::*` bits.
        48 => flags: u32,
        /// Index of the service, for counting.
        52 => service: u32,
        /// The epoch of the policies that let it pass, see [`crate::event::Control::epoch`].
        56 => epoch: u32,
        /// Where its packets leave.
        60 => hop: Hop,
        /// Where its answers leave, if it stands for both directions.
        84 => back: Hop,
    }

    /// Where packets from one address to another went a moment ago.
    pub struct Way(64) {
        /// Who sends them.
        0 => src: Addr16,
        /// Where they go to.
        16 => dst: Addr16,
        /// Index of the device they came by.
        32 => device: u32,
        /// IP protocol number.
        36 => proto: u32,
        /// What the routing table said.
        40 => hop: Hop,
    }

    /// Names the fragments of one datagram.
    pub struct FragmentKey(40) {
        /// Source address, before translation.
        0 => src: Addr16,
        /// Destination address, before translation.
        16 => dst: Addr16,
        /// Identification, as it lies in the header.
        32 => id: u32,
        /// IP protocol number.
        36 => proto: u8,
        /// Zero.
        37 => zero: [u8; 3],
    }

    /// The ports that only the first fragment carries.
    pub struct Fragment(8) {
        /// Source port.
        0 => sport: Be16,
        /// Destination port.
        2 => dport: Be16,
        /// Second the first fragment passed.
        4 => seen: u32,
    }
}

impl FlowKey {
    /// Sets the protocol and the zeros behind it, as one word: the programs would store bytes one by one.
    #[inline(always)]
    pub const fn set_proto(&mut self, proto: u8) {
        const PROTO: usize = core::mem::offset_of!(FlowKey, proto);
        // SAFETY: the key ends with these four bytes, and is aligned to words.
        unsafe { (&raw mut *self).byte_add(PROTO).cast::<u32>().write(u32::from_ne_bytes([proto, 0, 0, 0])) };
    }
}

/// How many flows that are answered elsewhere may be established at a scale: with two entries each they fill half of the table.
pub const fn most_direct(scale: u32) -> u32 {
    name::FLOWS_SIZE as u32 / 4 * scale
}

/// How many flows that nobody has answered yet may be among the established ones at a scale: with one entry each an eighth of that
/// table, as much as a flood can take of it.
pub const fn most_begun(scale: u32) -> u32 {
    name::FLOWS_SIZE as u32 / 8 * scale
}

/// Seconds a looked-up next hop is used: a changed route or neighbour is noticed after that.
pub const HOP_SECONDS: u32 = 1;

/// Bits of [`Flow::flags`].
pub mod bits {
    /// The direction of the packet that began the flow.
    pub const FORWARD: u32 = 1;
    /// The destination was a service.
    pub const SERVICE: u32 = 2;
    /// The source is hidden behind an address of the node.
    pub const MASQUERADE: u32 = 4;
    /// A FIN passed in this direction.
    pub const FIN: u32 = 8;
    /// A RST passed in this direction.
    pub const RST: u32 = 16;
    /// Nothing is translated: it is remembered who began, and that policy allows it.
    pub const PLAIN: u32 = 32;
    /// Packets travel to the backend's node in an IP tunnel, and are answered from there.
    pub const DSR: u32 = 64;
    /// The backend counts this flow as one of its connections.
    pub const COUNTED: u32 = 128;
    /// A pod has begun it with somebody outside the cluster, and the way out has not said yet whether the pod is hidden.
    pub const OUTWARD: u32 = 256;
    /// A FIN passed in the direction of the answers; only where the entry is of both.
    pub const FIN_BACK: u32 = 512;
    /// The entry is of both directions: answers are found by the tuple reversed.
    pub const BOTH: u32 = 1024;
    /// It was answered; only where the entry is of both directions.
    pub const ANSWERED: u32 = 2048;
}

/// Seconds without a packet after which a flow is forgotten.
pub mod timeout {
    /// TCP, both sides talking: a little more than Linux's keepalive of two hours.
    pub const TCP: u32 = 8_000;
    /// TCP after RST, or FIN both ways.
    pub const TCP_CLOSED: u32 = 10;
    /// Only one side has been heard.
    pub const EMBRYO: u32 = 60;
    /// UDP and ICMP, both sides talking.
    pub const DATAGRAM: u32 = 180;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_of_a_key_brings_its_zeros_along() {
        let mut key = FlowKey { proto: 1, zero: [2, 3, 4], ..FlowKey::default() };
        key.tuple.dport = crate::Be16::new(0xffff);
        key.set_proto(132);
        let want = FlowKey { proto: 132, zero: [0; 3], tuple: key.tuple };
        assert_eq!((key, key.tuple.dport.host()), (want, 0xffff));
    }
}
