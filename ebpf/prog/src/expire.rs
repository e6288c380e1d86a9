//! Forgetting silent flows, in the kernel: the agent runs this program and copies nothing.

use abi::count::{Path, gauge};
use abi::flow::{Flow, FlowKey, bits, timeout};
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::cty::{c_long, c_void};
use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::ending::{forget, is_left_behind, is_over, twin};
use crate::maps::{EMBRYOS, FLOWS, GAUGES};
use crate::table;
use crate::verdict::count;

/// What a walk over a table has found.
#[repr(C)]
struct Tally {
    entries: u64,
    masqueraded: u64,
    direct: u64,
    begun: u64,
}

/// Walks both tables. Attached nowhere: run through BPF_PROG_TEST_RUN.
#[classifier]
pub fn flow_expire(_ctx: TcContext) -> i32 {
    let mut flows = Tally { entries: 0, masqueraded: 0, direct: 0, begun: 0 };
    let mut embryos = Tally { entries: 0, masqueraded: 0, direct: 0, begun: 0 };
    walk((&raw const FLOWS).cast(), &mut flows);
    walk((&raw const EMBRYOS).cast(), &mut embryos);
    set(gauge::FLOWS, flows.entries);
    set(gauge::EMBRYOS, embryos.entries);
    set(gauge::MASQUERADED, flows.masqueraded + embryos.masqueraded);
    set(gauge::DIRECT, flows.direct);
    set(gauge::BEGUN, flows.begun);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn walk(table: *const c_void, tally: &mut Tally) {
    let callback = visit as *const () as *mut c_void;
    let tally = core::ptr::from_mut(tally).cast();
    // SAFETY: map and tally outlive the call and the callback has the signature the helper wants.
    unsafe { bpf_for_each_map_elem(table.cast_mut(), callback, tally, 0) };
}

#[inline(always)]
fn set(index: u32, value: u64) {
    if let Some(cell) = GAUGES.get_ptr_mut(index) {
        // SAFETY: array elements live as long as the map; one walk runs at a time.
        unsafe { core::ptr::write_volatile(cell, value) };
    }
}

extern "C" fn visit(_map: *mut c_void, key: *const FlowKey, entry: *const Flow, tally: *mut Tally) -> c_long {
    // SAFETY: the helper passes pointers into the element and to the caller's tally, valid for the call.
    let (key, entry, tally) = unsafe { (*key, *entry, &mut *tally) };
    if is_left_behind(&key, &entry) {
        table::forget(&key);
        return 0;
    }
    let twin = twin(&key, &entry);
    if is_over(&key, &entry, &twin, timeout::TCP_CLOSED) {
        forget(&key, &twin);
        count(Path::Expired, 0);
        return 0;
    }
    tally.entries += 1;
    tally.masqueraded += begins_with(&entry, bits::MASQUERADE);
    tally.direct += begins_with(&entry, bits::DSR);
    tally.begun += begun(&entry);
    0
}

/// One if the entry is of the forward direction and has another bit; without a branch, which would double the verifier's ways.
#[inline(always)]
fn begins_with(entry: &Flow, bit: u32) -> u64 {
    u64::from(entry.flags & (entry.flags >> bit.trailing_zeros()) & bits::FORWARD)
}

/// One if the entry stands for both directions and was not answered. Without a branch as well.
#[inline(always)]
fn begun(entry: &Flow) -> u64 {
    let bit = |bit: u32| u64::from(entry.flags >> bit.trailing_zeros()) & 1;
    bit(bits::BOTH) & (bit(bits::ANSWERED) ^ 1)
}
