//! From outside, before the stack: packets of flows that are known, and whose next hop is. TC has begun these flows and looks
//! their hops up again; all other packets pass to it.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

use crate::bytes::{Bytes, Frame};
use crate::forward::{Onward, forward_plain};
use crate::verdict::{self, Verdict};

/// For devices whose frames lie in one piece, and for kernels that know no others.
#[xdp]
pub fn xdp_uplink(ctx: XdpContext) -> u32 {
    follow(&Frame::<false>(ctx))
}

/// For frames in several pieces (5.18): drivers with large packets only take programs that allow them.
#[xdp(frags)]
pub fn xdp_uplink_frag(ctx: XdpContext) -> u32 {
    follow(&Frame::<true>(ctx))
}

#[inline(always)]
fn follow<B: Bytes>(bytes: &B) -> u32 {
    match forward_plain(bytes, Onward::Hop) {
        None | Some(Ok(Verdict::Stack)) => XDP_PASS,
        Some(Ok(Verdict::Sent(path, code))) => {
            verdict::count(path, u64::from(bytes.length()));
            code as u32
        }
        Some(Err(reason)) => verdict::lose(reason, u64::from(bytes.length())),
    }
}
