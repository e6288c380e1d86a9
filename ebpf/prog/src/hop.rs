//! The next hops that flows keep, one for each direction.

use abi::endpoint::Endpoint;
use abi::flow::{Flow, Hop};

use crate::find::back;
use crate::maps::{EMBRYOS, FLOWS, Work};
use crate::words;

/// What [`Work::settles`] is for a packet of a flow that began before.
pub const KNOWN: u32 = 1;
/// The same for the first packet of one.
pub const NEW: u32 = 2;
/// The flow has it already, and it is [`Work::hop`].
pub const KEPT: u32 = 3;

/// Words of two hardware addresses side by side.
const FRAME: usize = 3;

/// Where the packets of the other direction go, if the entry stands for both.
#[inline(always)]
pub fn of_answers(work: &Work, flow: &Flow) -> *const Hop {
    // SAFETY: as below.
    unsafe { (&raw const flow.hop).add(back(work) as usize ^ 1) }
}

/// Where the packets of this direction go.
#[inline(always)]
pub fn of(work: &Work, flow: &Flow) -> *const Hop {
    // SAFETY: the hop of the answers lies behind that of what is asked.
    unsafe { (&raw const flow.hop).add(back(work) as usize) }
}

const _: () =
    assert!(core::mem::offset_of!(Flow, back) == core::mem::offset_of!(Flow, hop) + size_of::<Hop>());

/// Lets the packet's flow keep the next hop that is looked up for it: one that is [`NEW`] or [`KNOWN`].
#[inline(always)]
pub fn keep(work: &mut Work, which: u32) {
    work.origin = work.packet.key;
    if work.back != 0 {
        work.origin.tuple = work.packet.key.tuple.reversed();
    }
    work.settles = which;
}

/// Fills the way to a pod of this node.
#[inline(always)]
pub fn lead_to(hop: &mut Hop, endpoint: &Endpoint, now: u32) {
    hop.ifindex = endpoint.ifindex;
    // SAFETY: both addresses lie side by side in both, aligned to words.
    unsafe { words::copy_raw((&raw mut hop.dmac).cast(), (&raw const endpoint.mac).cast(), FRAME) };
    hop.mtu = 0;
    hop.seen = now;
}

const _: () = assert!(
    core::mem::offset_of!(Hop, smac) == core::mem::offset_of!(Hop, dmac) + 6
        && core::mem::offset_of!(Endpoint, host_mac) == core::mem::offset_of!(Endpoint, mac) + 6
        && core::mem::offset_of!(Hop, dmac) % 4 == 0
        && core::mem::offset_of!(Endpoint, mac) % 4 == 0
);

/// Remembers where the packets of this direction go, if they go there every time.
#[inline(always)]
pub fn settle(work: &Work) {
    if work.settles == 0 || work.settles == KEPT {
        return;
    }
    let known = if work.settles == NEW { None } else { FLOWS.get_ptr_mut(&work.origin) };
    let Some(entry) = known.or_else(|| EMBRYOS.get_ptr_mut(&work.origin)) else {
        return;
    };
    // SAFETY: see `Entry`. Readers on other CPUs that see half of it send one packet of a moved route astray.
    unsafe {
        let at = of(work, &*entry).cast_mut();
        (*at).ifindex = work.hop.ifindex;
        words::copy_raw((&raw mut (*at).dmac).cast(), (&raw const work.hop.dmac).cast(), FRAME);
        (*at).mtu = work.hop.mtu;
        core::ptr::write_volatile(&raw mut (*at).seen, work.hop.seen);
    }
}
