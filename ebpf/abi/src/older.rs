//! Where the agent before this one has the parts of its flows: its programs may have known another layout.

use crate::layout::layout;

/// The place of a field that the other layout does not have: it counts as zero.
pub const ABSENT: u32 = u32::MAX;
/// Bytes of the longest key that is understood.
pub const KEY_BYTES: usize = 64;

layout! {
    /// Offsets of the fields of a tuple.
    pub struct TuplePlaces(16) {
        /// Source address, sixteen bytes.
        0 => src: u32,
        /// Destination address, sixteen bytes.
        4 => dst: u32,
        /// Source port, two bytes.
        8 => sport: u32,
        /// Destination port, two bytes.
        12 => dport: u32,
    }

    /// Read-only data of the programs: offsets in bytes. Of numbers, four bytes are read.
    pub struct Older(64) {
        /// One while flows are taken over, zero otherwise.
        0 => present: u32,
        /// In a key.
        4 => key: TuplePlaces,
        /// In a key, one byte.
        20 => proto: u32,
        /// In a flow.
        24 => to: TuplePlaces,
        /// In a flow.
        40 => backend: u32,
        /// In a flow.
        44 => generation: u32,
        /// In a flow.
        48 => last_seen: u32,
        /// In a flow.
        52 => flags: u32,
        /// In a flow.
        56 => service: u32,
        /// In a flow.
        60 => epoch: u32,
    }
}

impl Older {
    /// There is nothing to take over.
    pub const NONE: Self = Self {
        present: 0,
        key: TuplePlaces { src: 0, dst: 0, sport: 0, dport: 0 },
        proto: 0,
        to: TuplePlaces { src: 0, dst: 0, sport: 0, dport: 0 },
        backend: 0,
        generation: 0,
        last_seen: 0,
        flags: 0,
        service: 0,
        epoch: 0,
    };
}
