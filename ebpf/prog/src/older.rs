//! The flows of the agent before this one: while its tables are converted, whoever meets a packet of theirs takes the flow over
//! at once. Nothing writes to those tables any more, but programs that were running when this agent's took their place.
//!
//! Fields are found by the offsets that the agent before has left. In programs that were loaded when there was nothing to
//! convert, all of this is dead code, which the kernel removes.

use core::ffi::c_void;
use core::ptr::NonNull;

use abi::Be16;
use abi::flow::{Flow, FlowKey};
use abi::older::{ABSENT, KEY_BYTES, Older, TuplePlaces};
use abi::{Addr16, Tuple};
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::{ArrayOfMaps, HashMap, LruHashMap};
use aya_ebpf::helpers::generated::{bpf_map_delete_elem, bpf_map_lookup_elem};
use aya_ebpf::macros::btf_map;

use crate::maps::{self, work};
use crate::table;

/// Set by the loader.
#[unsafe(no_mangle)]
static OLDER: Global<Older> = Global::new(Older::NONE);

// The agent gives both the table they hold; what they are declared with stands in for a layout that is not known here.
#[btf_map(name = "hw_older_flows")]
static FLOWS: ArrayOfMaps<HashMap<FlowKey, Flow, 1>, 1> = ArrayOfMaps::new();
#[btf_map(name = "hw_older_embryo")]
static EMBRYOS: ArrayOfMaps<LruHashMap<FlowKey, Flow, 1>, 1> = ArrayOfMaps::new();

type Table = NonNull<c_void>;

/// The flow that is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// That of the packet.
    Packet,
    /// That of `work.answer`.
    Answer,
}

/// Whether flows are taken over.
#[inline(always)]
pub fn is_there() -> bool {
    places().present != 0
}

/// Takes a flow over, if the agent before this one had it; answers whether it did.
#[inline(always)]
pub fn take_over(which: Which) -> bool {
    is_there() && adopt(u32::from(matches!(which, Which::Answer))) != 0
}

/// Whether the agent before this one had the flow of `work.answer`, which was not taken over yet.
#[inline(always)]
pub fn has_answer() -> bool {
    is_there() && has() != 0
}

/// Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn has() -> i32 {
    if !is_there() {
        return 0;
    }
    let Some(work) = work() else {
        return 0;
    };
    work.older.write(&work.answer);
    i32::from(flows().is_some_and(|table| find(table, &work.older).is_some()))
        | i32::from(embryos().is_some_and(|table| find(table, &work.older).is_some()))
}

/// Verified by itself. `work.forward` and `work.reverse` are overwritten: who looks for a flow has not begun one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn adopt(answer: u32) -> i32 {
    if !is_there() {
        return 0;
    }
    let Some(work) = work() else {
        return 0;
    };
    work.own = if answer != 0 { work.answer } else { work.packet.key };
    work.older.write(&work.own);
    let Some(answered) = fetch(&work.older, &mut work.forward) else {
        return 0;
    };
    keep(&work.own, &work.forward, answered);
    work.twin.tuple = work.forward.to.reversed();
    work.twin.set_proto(work.own.proto);
    // What was taken over may end here, and would come to life again.
    leave_behind(&work.older);
    work.older.write(&work.twin);
    if fetch(&work.older, &mut work.reverse).is_some() {
        keep(&work.twin, &work.reverse, answered);
        leave_behind(&work.older);
    }
    1
}

/// Remembers a flow, unless somebody else has. A table that is full leaves it to the one that is never.
#[inline(always)]
fn keep(key: &FlowKey, flow: &Flow, answered: bool) {
    let flags = u64::from(BPF_NOEXIST);
    let kept =
        answered && (maps::FLOWS.insert(key, flow, flags).is_ok() || maps::FLOWS.get_ptr(key).is_some());
    if !kept {
        // Another CPU that took the same flow over has written the same.
        _ = table::remember_new(key, flow);
    }
}

/// Reads a flow; answers whether it was answered.
#[inline(always)]
fn fetch(key: &Key, into: &mut Flow) -> Option<bool> {
    if let Some(found) = flows().and_then(|table| find(table, key)) {
        read(found, into);
        return Some(true);
    }
    let found = embryos().and_then(|table| find(table, key))?;
    read(found, into);
    Some(false)
}

#[inline(always)]
fn leave_behind(key: &Key) {
    for table in [flows(), embryos()] {
        if let Some(table) = table {
            // SAFETY: the table is a map, and the key at least as long as its keys. One that is not there is what we want.
            unsafe { bpf_map_delete_elem(table.as_ptr(), key.as_ptr().cast_mut()) };
        }
    }
}

#[inline(always)]
fn flows() -> Option<Table> {
    held((&raw const FLOWS).cast())
}

#[inline(always)]
fn embryos() -> Option<Table> {
    held((&raw const EMBRYOS).cast())
}

#[inline(always)]
fn held(outer: *const c_void) -> Option<Table> {
    let first = 0_u32;
    // SAFETY: an array of maps, whose keys are such numbers.
    NonNull::new(unsafe {
        bpf_map_lookup_elem(outer.cast_mut().cast(), (&raw const first).cast_mut().cast())
    })
    .map(NonNull::cast)
}

#[inline(always)]
fn find(table: Table, key: &Key) -> Option<*const u8> {
    // SAFETY: the table is a map, and the key at least as long as its keys.
    let found = unsafe { bpf_map_lookup_elem(table.as_ptr().cast(), key.as_ptr().cast_mut()) };
    if found.is_null() { None } else { Some(found.cast_const().cast()) }
}

/// The offsets, by reference into read-only data, like the facts of the node.
#[inline(always)]
fn places() -> &'static Older {
    // SAFETY: `Global` holds exactly one `Older`; see `maps::node` for the rest.
    unsafe { &*core::hint::black_box((&raw const OLDER).cast::<Older>()) }
}

/// A key as the other layout has it. What is not known of it is zero: nobody writes there.
#[repr(C)]
pub struct Key([u32; KEY_BYTES / 4]);

impl Key {
    #[inline(always)]
    fn write(&mut self, key: &FlowKey) {
        let start = self.0.as_mut_ptr().cast::<u8>();
        let places = places();
        // SAFETY: the agent has compared every offset with the length of a key.
        unsafe {
            start.add(places.key.src as usize).cast::<Addr16>().write(key.tuple.src);
            start.add(places.key.dst as usize).cast::<Addr16>().write(key.tuple.dst);
            start.add(places.key.sport as usize).cast::<u16>().write(key.tuple.sport.be);
            start.add(places.key.dport as usize).cast::<u16>().write(key.tuple.dport.be);
            start.add(places.proto as usize).write(key.proto);
        }
    }

    #[inline(always)]
    fn as_ptr(&self) -> *const c_void {
        self.0.as_ptr().cast()
    }
}

#[inline(always)]
fn read(from: *const u8, into: &mut Flow) {
    let places = places();
    into.to = tuple(from, &places.to);
    into.backend = word(from, places.backend);
    into.generation = word(from, places.generation);
    into.last_seen = word(from, places.last_seen);
    into.flags = word(from, places.flags);
    into.service = word(from, places.service);
    into.epoch = word(from, places.epoch);
    // Looked up with the next packet of each direction.
    into.hop.seen = 0;
    into.back.seen = 0;
}

#[inline(always)]
fn tuple(from: *const u8, places: &TuplePlaces) -> Tuple {
    // SAFETY: the agent has compared every offset with the length of a flow.
    unsafe {
        Tuple {
            src: from.add(places.src as usize).cast::<Addr16>().read(),
            dst: from.add(places.dst as usize).cast::<Addr16>().read(),
            sport: Be16 { be: from.add(places.sport as usize).cast::<u16>().read() },
            dport: Be16 { be: from.add(places.dport as usize).cast::<u16>().read() },
        }
    }
}

#[inline(always)]
fn word(from: *const u8, place: u32) -> u32 {
    if place == ABSENT {
        return 0;
    }
    // SAFETY: as above.
    unsafe { from.add(place as usize).cast::<u32>().read() }
}
