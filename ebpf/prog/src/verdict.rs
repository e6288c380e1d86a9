//! The one door out: every program returns through [`leave`], which counts once.

use abi::count::{Count, Path};
use abi::drops::Drop;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::TcContext;

use crate::maps::{DROPS, PATHS};
use crate::refuse;

/// What becomes of a packet.
#[must_use]
pub enum Verdict {
    /// The stack, or the next program, has it.
    Stack,
    /// Sent by a redirect helper, whose return code this is.
    Sent(Path, i32),
}

/// Turns a program's result into the kernel's return code, counting it.
#[inline(always)]
pub fn leave(ctx: &TcContext, result: Result<Verdict, Drop>) -> i32 {
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
            add(&DROPS, reason as u32, bytes);
            TC_ACT_SHOT as i32
        }
    }
}

/// Like [`leave`], for hooks where the sender can be told: what is refused for a reason is answered.
#[inline(always)]
pub fn leave_answering(ctx: &TcContext, result: Result<Verdict, Drop>) -> i32 {
    match result {
        Err(reason @ (Drop::NoBackend | Drop::NoFlow | Drop::BackendGone)) => {
            // The answer takes the place of the packet, which still counts as dropped.
            add(&DROPS, reason as u32, u64::from(ctx.len()));
            refuse::answer(ctx)
        }
        result => leave(ctx, result),
    }
}

/// Counts a step on the way of a packet.
#[inline(always)]
pub fn count(path: Path, bytes: u64) {
    add(&PATHS, path as u32, bytes);
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
