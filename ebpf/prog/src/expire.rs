//! Forgetting silent flows, in the kernel: the agent runs this program and copies nothing.

use abi::count::Path;
use abi::flow::{Flow, FlowKey, bits, timeout};
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::cty::{c_long, c_void};
use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::flow;
use crate::maps::{EMBRYOS, FLOWS};
use crate::packet::TCP;
use crate::verdict::count;

/// Walks both tables. Attached nowhere: run through BPF_PROG_TEST_RUN.
#[classifier]
pub fn flow_expire(_ctx: TcContext) -> i32 {
    let callback = visit as *const () as *mut c_void;
    // SAFETY: the maps outlive the call and the callback has the signature the helper wants.
    unsafe {
        bpf_for_each_map_elem((&raw const FLOWS).cast_mut().cast(), callback, core::ptr::null_mut(), 0);
        bpf_for_each_map_elem((&raw const EMBRYOS).cast_mut().cast(), callback, core::ptr::null_mut(), 0);
    }
    TC_ACT_UNSPEC
}

extern "C" fn visit(_map: *mut c_void, key: *const FlowKey, entry: *const Flow, _ctx: *mut c_void) -> c_long {
    // SAFETY: the helper passes pointers into the element, valid for the call.
    let (key, entry) = unsafe { (*key, *entry) };
    let twin = FlowKey { tuple: entry.to.reversed(), ..key };
    let (answered, other) = match FLOWS.get_ptr(&twin) {
        Some(other) => (true, Some(other)),
        None => (false, EMBRYOS.get_ptr(&twin)),
    };
    let mut seen = entry.last_seen;
    let mut flags = entry.flags;
    let mut both_closed = false;
    if let Some(other) = other {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        let (last_seen, other_flags) = unsafe { ((*other).last_seen, (*other).flags) };
        if last_seen > seen {
            seen = last_seen;
        }
        both_closed = flags & other_flags & bits::FIN != 0;
        flags |= other_flags;
    }
    let patience = if key.proto == TCP {
        if both_closed || flags & bits::RST != 0 {
            timeout::TCP_CLOSED
        } else if answered {
            timeout::TCP
        } else {
            timeout::EMBRYO
        }
    } else if answered {
        timeout::DATAGRAM
    } else {
        timeout::EMBRYO
    };
    if flow::now().saturating_sub(seen) >= patience {
        flow::forget(&key, &twin);
        count(Path::Expired, 0);
    }
    0
}
