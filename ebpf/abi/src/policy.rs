//! Network policy: who may talk to whom, compiled into rule sets that are looked up once for a flow.
//!
//! An address has an identity, which stands for everything that rules can ask of it. A rule set belongs to one direction of
//! one or more pods; its rows say for an identity, a protocol and a port what becomes of a flow. The longest match decides;
//! an identity without any row in a set is treated as [`identity::ANYBODY`]; where that has no row either, the flow is denied.
//! A set is never changed: pods get another one, the epoch moves on, and flows are looked at again.

use crate::address::Be16;
use crate::layout::layout;

layout! {
    /// A row of a rule set; matched by the longest prefix, whose length is one of [`bits`].
    pub struct RuleKey(12) {
        /// Number of the rule set.
        0 => set: u32,
        /// Whom it is about.
        4 => identity: u32,
        /// IP protocol number.
        8 => proto: u8,
        /// Zero.
        9 => zero: u8,
        /// Destination port, zero for protocols without ports.
        10 => port: Be16,
    }

    /// What a row says.
    pub struct Ruling(8) {
        /// `action::*`.
        0 => action: u32,
        /// Number of the rule that says so, for people.
        4 => rule: u32,
    }
}

/// How many bits of a [`RuleKey`] count.
pub mod bits {
    /// Every protocol.
    pub const IDENTITY: u32 = 64;
    /// Every port of a protocol.
    pub const PROTOCOL: u32 = 80;
    /// One port; fewer bits for runs of ports.
    pub const PORT: u32 = 96;
}

/// Values of [`Ruling::action`].
pub mod action {
    /// The flow passes.
    pub const ALLOW: u32 = 1;
    /// The flow is dropped.
    pub const DENY: u32 = 2;
}

/// Identities that are always there.
pub mod identity {
    /// Whoever has no rows of its own in a set.
    pub const ANYBODY: u32 = 0;
    /// This node: always allowed, both ways.
    pub const HOST: u32 = 1;
    /// Addresses that nobody has asked for by name.
    pub const WORLD: u32 = 2;
    /// An address that is between two identities: what ClusterNetworkPolicies have a say in is denied to it.
    pub const NOBODY: u32 = 3;
    /// The first that is given to somebody.
    pub const FIRST: u32 = 16;
}
