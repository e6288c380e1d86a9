//! Limits of bandwidth, inside the pod's namespace: every packet of the pod passes its device, wherever it goes or comes from.
//!
//! What the pod sends gets a time of departure, which the queueing discipline `fq` of the device holds to: nothing is lost, and
//! the sender's socket is held up, because the packet still belongs to it. What comes to the pod has been on its way already, and
//! what is more than the limit is dropped.

use abi::drops::Drop;
use abi::event::hook;
use abi::pace::{IN, OUT, Pace, PaceKey, cost, departure};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::maps::PACES;
use crate::verdict::leave;

/// Offsets of the hardware addresses in a frame.
const DESTINATION: usize = 0;
const SOURCE: usize = 6;

/// From a pod with a limit: TC, egress of the device inside the pod.
#[classifier]
pub fn tc_pace_out(ctx: TcContext) -> i32 {
    match admit(&ctx, SOURCE, OUT) {
        Ok(Some(at)) => {
            stamp(ctx.skb.skb, at);
            TC_ACT_UNSPEC
        }
        Ok(None) => TC_ACT_UNSPEC,
        Err(reason) => leave(&ctx, hook::POD_OUT, Err(reason)),
    }
}

/// To a pod with a limit: TC, ingress of the device inside the pod.
#[classifier]
pub fn tc_pace_in(ctx: TcContext) -> i32 {
    match admit(&ctx, DESTINATION, IN) {
        Ok(_) => TC_ACT_UNSPEC,
        Err(reason) => leave(&ctx, hook::POD_IN, Err(reason)),
    }
}

/// When the packet may go on; nothing is said about frames that are nobody's in particular.
#[inline(always)]
fn admit(ctx: &TcContext, mac: usize, direction: u8) -> Result<Option<u64>, Drop> {
    let key = PaceKey { mac: ctx.load(mac).map_err(|_| Drop::Truncated)?, direction, zero: 0 };
    let Some(pace) = PACES.get_ptr_mut(key) else {
        return Ok(None);
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the program runs under RCU: the element's memory stays valid. Every access to what changes is of a whole word.
    let (rate, slack, next) =
        unsafe { ((*pace).rate, (*pace).slack, (&raw const (*pace).next).read_volatile()) };
    let at = departure(now, next, slack).ok_or(Drop::Bandwidth)?;
    if next < now {
        // Another processor may do the same: what it has added since is forgotten, a packet's worth.
        // SAFETY: as above.
        unsafe { (&raw mut (*pace).next).write_volatile(now) };
    }
    spend(pace, cost(rate, length(ctx)));
    Ok(Some(at))
}

/// Bytes on the wire, with the headers of all packets that this one will be cut into.
#[inline(always)]
fn length(ctx: &TcContext) -> u64 {
    // SAFETY: a plain field of the context.
    u64::from(unsafe { (*ctx.skb.skb).wire_len })
}

#[inline(always)]
fn spend(pace: *mut Pace, time: u64) {
    // `core` offers no atomic arithmetic on this target, though the machine has it.
    // SAFETY: the element's memory stays valid, and everybody who adds to this word does it like this.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            &raw mut (*pace).next,
            time,
        );
    }
}

/// A time that the stack has given is kept if it is later.
#[inline(always)]
fn stamp(skb: *mut __sk_buff, at: u64) {
    // SAFETY: plain fields of the context, which the kernel lets programs write.
    unsafe {
        if (*skb).tstamp < at {
            (*skb).tstamp = at;
        }
    }
}
