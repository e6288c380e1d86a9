//! What the running kernel can do, as the agent finds it out: older ones do without.

use abi::name;
use abi::node::feature;
use aya::util::KernelVersion;

fn is_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|running| running >= KernelVersion::new(major, minor, 0))
}

/// Whether frames in several pieces are known to XDP (5.18).
pub fn has_frags() -> bool {
    is_at_least(5, 18)
}

/// Whether a lookup of a route says how large its packets may be (5.12).
pub fn tells_mtu() -> bool {
    is_at_least(5, 12)
}

/// Whether a map can be walked by a program (5.13).
pub fn has_walks() -> bool {
    is_at_least(5, 13)
}

/// Whether XDP programs can be run on a device of one's choice (5.14).
pub fn runs_xdp() -> bool {
    is_at_least(5, 14)
}

/// What a case wants to see and this kernel does not have.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this kernel cannot run {}", self.0)
    }
}

impl std::error::Error for Missing {}

/// Whether this kernel takes a program.
pub fn takes(program: &str) -> bool {
    match program {
        name::XDP_UPLINK_FRAG => has_frags(),
        name::FLOW_EXPIRE => has_walks(),
        _ => true,
    }
}

/// Bits of [`abi::node::Node::features`].
pub fn features() -> u32 {
    let bit = |present, bit| if present { bit } else { 0 };
    bit(is_at_least(5, 18), feature::SET_RETVAL) | bit(is_at_least(5, 11), feature::COARSE_CLOCK)
}
