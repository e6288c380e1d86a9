//! Bridges: while one agent takes over from another, they stand at every hook of TC and hand each packet on to the program of
//! one or the other. Where they lead is one word, so that all hooks change sides at once.

use abi::drops::Drop;
use abi::event::hook::{POD_IN, POD_OUT, UPLINK_IN, UPLINK_OUT};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;

use crate::verdict::leave;

#[btf_map(name = "hw_bridge")]
static BRIDGE: Array<u32, 1> = Array::new();
#[btf_map(name = "hw_bridge_progs")]
static PROGRAMS: ProgramArray<8> = ProgramArray::new();

macro_rules! bridges {
    ($($name:ident $at:literal $hook:ident),+ $(,)?) => {$(
        /// See [`abi::name::BRIDGES`], whose order the number is of.
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            cross(&ctx, $at, $hook)
        }
    )+};
}

bridges! {
    bridge_pod_out 0 POD_OUT,
    bridge_pod_in 1 POD_IN,
    bridge_up_in 2 UPLINK_IN,
    bridge_up_out 3 UPLINK_OUT,
}

#[inline(always)]
fn cross(ctx: &TcContext, at: u32, hook: u32) -> i32 {
    if let Some(side) = BRIDGE.get_ptr(0) {
        // SAFETY: array elements live as long as the map, and the agent stores whole words; nothing is held that a program
        // which does not return would have to give back.
        unsafe { PROGRAMS.tail_call(ctx, core::ptr::read_volatile(side) + at) };
    }
    // Nobody is there, which the agent does not let happen.
    leave(ctx, hook, Err(Drop::Converting))
}
