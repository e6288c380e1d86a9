//! Tables that forget their oldest rows by themselves: what the programs add and remove is counted, so that the rest can be told.

use abi::count::table;
use abi::drops::Drop;
use abi::flow::{Flow, FlowKey};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};

use crate::maps::{EMBRYOS, TABLE_COUNTS};

/// Remembers one half of a flow that was not answered.
#[inline(always)]
pub fn remember(key: &FlowKey, flow: &Flow) -> Result<(), Drop> {
    if remember_new(key, flow) {
        return Ok(());
    }
    EMBRYOS.insert(key, flow, u64::from(BPF_ANY)).map_err(|_| Drop::FlowTable)
}

/// The same, unless there is one; answers whether it was remembered.
#[inline(always)]
pub fn remember_new(key: &FlowKey, flow: &Flow) -> bool {
    let is_new = EMBRYOS.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok();
    if is_new {
        added(table::EMBRYOS);
    }
    is_new
}

/// Forgets it. A key that is not in the table is what we want.
#[inline(always)]
pub fn forget(key: &FlowKey) {
    if EMBRYOS.remove(key).is_ok()
        && let Some(cell) = TABLE_COUNTS.get_ptr_mut(table::EMBRYOS)
    {
        // SAFETY: the cell belongs to this CPU.
        unsafe { (*cell).removed += 1 };
    }
}

/// Counts a new row.
#[inline(always)]
pub fn added(table: u32) {
    if let Some(cell) = TABLE_COUNTS.get_ptr_mut(table) {
        // SAFETY: the cell belongs to this CPU.
        unsafe { (*cell).added += 1 };
    }
}
