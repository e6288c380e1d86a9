//! The one door out: every program returns through [`leave`], which counts once.

use abi::count::{Count, Path};
use abi::drops::Drop;
use abi::event::hook::UPLINK_OUT;
use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::TcContext;

use crate::event::{self, Place};
use crate::maps::{DROPS, PATHS, work};
use crate::refuse;
use crate::translate::BEGINS;

/// What becomes of a packet.
#[must_use]
pub enum Verdict {
    /// The stack, or the next program, has it.
    Stack,
    /// Sent by a redirect helper, whose return code this is.
    Sent(Path, i32),
}

/// What comes after a packet was looked at.
#[must_use]
pub enum Then {
    /// It leaves the program.
    Leave(Verdict),
    /// It is delivered where its destination is.
    Deliver,
    /// Its flow begins, and then it is delivered.
    Begin,
    /// The same, for a flow that is not translated.
    Track,
    /// Its pod is hidden, and then it leaves.
    Hide,
    /// It came in a tunnel, which is taken off first.
    Arrive,
}

/// What comes after a translation that answered with these flags.
#[inline(always)]
pub fn then(flags: u32) -> Then {
    match flags {
        BEGINS => Then::Begin,
        0 => Then::Track,
        _ => Then::Deliver,
    }
}

/// Turns a program's result into the kernel's return code, counting it. `hook` is one of `abi::event::hook`.
#[inline(always)]
pub fn leave(ctx: &TcContext, hook: u32, result: Result<Verdict, Drop>) -> i32 {
    let bytes = u64::from(ctx.len());
    match result {
        Ok(Verdict::Stack) => {
            add(&PATHS, Path::Stack as u32, bytes);
            TC_ACT_UNSPEC
        }
        Ok(Verdict::Sent(path, code)) => {
            add(&PATHS, path as u32, bytes);
            code
        }
        Err(reason) => {
            dropped(ctx, hook, reason);
            TC_ACT_SHOT as i32
        }
    }
}

/// Like [`leave`], for hooks where the sender can be told: what is refused for a reason is answered.
#[inline(always)]
pub fn leave_answering(ctx: &TcContext, hook: u32, result: Result<Verdict, Drop>) -> i32 {
    match result {
        Err(reason @ (Drop::NoBackend | Drop::NoFlow | Drop::BackendGone | Drop::UnknownPort)) => {
            // The answer takes the place of the packet, which still counts as dropped.
            dropped(ctx, hook, reason);
            let direction = if hook == UPLINK_OUT { u64::from(BPF_F_INGRESS) } else { 0 };
            refuse::answer(ctx, direction)
        }
        result => leave(ctx, hook, result),
    }
}

/// A result as the number that functions verified by themselves answer with.
#[inline(always)]
pub fn encode(result: Result<u32, Drop>) -> i32 {
    match result {
        Ok(value) => value as i32,
        Err(reason) => -(reason as i32),
    }
}

/// What [`encode`] was given.
#[inline(always)]
pub fn decode(code: i32) -> Result<u32, Drop> {
    if code >= 0 {
        return Ok(code as u32);
    }
    // SAFETY: negative numbers come from `encode` alone, which has negated the number of a reason.
    Err(unsafe { core::mem::transmute::<i32, Drop>(-code) })
}

/// The way out of XDP for a packet that is dropped.
#[inline(always)]
pub fn lose(reason: Drop, bytes: u64) -> u32 {
    add(&DROPS, reason as u32, bytes);
    XDP_DROP
}

/// Counts a step on the way of a packet.
#[inline(always)]
pub fn count(path: Path, bytes: u64) {
    add(&PATHS, path as u32, bytes);
}

#[inline(always)]
fn dropped(ctx: &TcContext, hook: u32, reason: Drop) {
    add(&DROPS, reason as u32, u64::from(ctx.len()));
    // SAFETY: a plain field of the context.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let key = match reason {
        // The headers were not read to their end.
        Drop::Truncated | Drop::NotIp | Drop::ExtensionHeaders => None,
        _ => work().map(|work| &work.packet.key),
    };
    let (set, rule) = match reason {
        Drop::PolicyEgress | Drop::PolicyIngress => {
            work().map_or((0, 0), |work| (work.question.set, work.question.rule))
        }
        _ => (0, 0),
    };
    event::dropped(Place { hook, ifindex, length: ctx.len(), set, rule }, reason as u32, key);
}

#[inline(always)]
fn add<const N: usize>(map: &PerCpuArray<Count, N>, index: u32, bytes: u64) {
    if let Some(cell) = map.get_ptr_mut(index) {
        // SAFETY: the cell belongs to this CPU, and programs are not preempted by others of the same hook.
        unsafe {
            (*cell).packets += 1;
            (*cell).bytes += bytes;
        }
    }
}
