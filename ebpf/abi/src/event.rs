//! Events: what `hawser-agent monitor` shows, written to the ring buffer only while somebody asks for it.

use crate::address::Tuple;
use crate::flow::FlowKey;
use crate::layout::layout;

layout! {
    /// One thing that happened to a packet.
    pub struct Event(120) {
        /// Nanoseconds of the kernel's monotonic clock.
        0 => at: u64,
        /// `kind::*`, one bit.
        8 => kind: u32,
        /// Number of the drop reason, for drops and refusals.
        12 => reason: u32,
        /// Device the packet came by or left by.
        16 => ifindex: u32,
        /// Bytes of the packet.
        20 => length: u32,
        /// The packet as it came.
        24 => key: FlowKey,
        /// What it became; zero if it did not get that far.
        64 => to: Tuple,
        /// Index of the service.
        100 => service: u32,
        /// Stable number of the backend.
        104 => backend: u32,
        /// `hook::*`.
        108 => hook: u32,
        /// Number of the rule set that decided; zero if none did.
        112 => set: u32,
        /// Number of the rule in it; zero if no row matched.
        116 => rule: u32,
    }

    /// What the agent tells running programs; one row, mapped into its memory.
    pub struct Control(16) {
        /// `kind::*` bits of the events somebody wants.
        0 => events: u32,
        /// Until this second, packets of unknown connections are dropped instead of refused: flows are being converted.
        4 => grace: u32,
        /// How many tombstones there are: with none, nobody looks for one.
        8 => tombstones: u32,
        /// Epoch of the policies: flows that were let pass in another one are looked at again.
        12 => epoch: u32,
    }
}

/// What happened, as a bit of [`Event::kind`] and [`Control::events`].
pub mod kind {
    /// A packet was dropped.
    pub const DROP: u32 = 1;
    /// A flow began.
    pub const BEGUN: u32 = 2;
    /// A flow was answered for the first time.
    pub const ANSWERED: u32 = 4;
    /// A flow was forgotten.
    pub const ENDED: u32 = 8;
    /// A socket was translated.
    pub const SOCKET: u32 = 16;
    /// A flow passed that policy denies, because its pod is audited; the reason is that of the drop it would have been.
    pub const AUDIT: u32 = 32;
}

/// Where it happened; zero where it does not matter.
pub mod hook {
    /// A socket of this node.
    pub const SOCKET: u32 = 1;
    /// From a pod.
    pub const POD_OUT: u32 = 2;
    /// To a pod.
    pub const POD_IN: u32 = 3;
    /// From outside, TC.
    pub const UPLINK_IN: u32 = 4;
    /// To the outside.
    pub const UPLINK_OUT: u32 = 5;
    /// From outside, XDP.
    pub const XDP: u32 = 6;
    /// The walk that forgets silent flows.
    pub const EXPIRE: u32 = 7;
}
