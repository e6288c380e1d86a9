//! Events: one record in the ring buffer for each thing that somebody watches, nothing otherwise.

use abi::Tuple;
use abi::count::Path;
use abi::endpoint::Link;
use abi::event::{hook, kind};
use abi::flow::{Flow, FlowKey};
use abi::service::SockVip;
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::maps::{CONTROL, EVENTS};
use crate::service::address_of;
use crate::verdict::count;
use crate::words;

/// Where an event happens.
#[derive(Clone, Copy)]
pub struct Place {
    /// `abi::event::hook`.
    pub hook: u32,
    /// Device.
    pub ifindex: u32,
    /// Bytes of the packet.
    pub length: u32,
    /// The rule set that decided; zero if none did.
    pub set: u32,
    /// The rule in it.
    pub rule: u32,
}

impl Place {
    const NOWHERE: Self = Self { hook: 0, ifindex: 0, length: 0, set: 0, rule: 0 };
}

/// Whether somebody wants events of a kind.
#[inline(always)]
pub fn wanted(kind: u32) -> bool {
    CONTROL.get_ptr(0).is_some_and(|control| {
        // SAFETY: array elements live as long as the map; the agent stores whole words.
        unsafe { core::ptr::read_volatile(&raw const (*control).events) & kind != 0 }
    })
}

/// A packet was dropped; `key` is none where it could not be read.
#[inline(always)]
pub fn dropped(place: Place, reason: u32, key: Option<&FlowKey>) {
    if wanted(kind::DROP) {
        emit(place, kind::DROP, reason, key, None);
    }
}

/// A flow passed that policy denies, see [`kind::AUDIT`].
#[inline(always)]
pub fn audited(place: Place, reason: u32, key: &FlowKey) {
    if wanted(kind::AUDIT) {
        emit(place, kind::AUDIT, reason, Some(key), None);
    }
}

/// A flow began, was answered, or ended; `key` is that of its forward half.
#[inline(always)]
pub fn flow(kind: u32, key: &FlowKey, flow: &Flow) {
    if wanted(kind) {
        emit(Place::NOWHERE, kind, 0, Some(key), Some(flow));
    }
}

/// A socket was given a backend; `owner` is none where its namespace is nobody's we know.
#[inline(always)]
pub fn socket(owner: Option<&Link>, entry: &SockVip, proto: u8, service: u32) {
    if !wanted(kind::SOCKET) {
        return;
    }
    let Some(mut record) = EVENTS.reserve(0) else {
        return count(Path::EventsLost, 0);
    };
    let event = record.as_mut_ptr();
    // SAFETY: the record is as large as an event and ours until it is submitted; zero is a value of every field.
    unsafe {
        core::ptr::write_bytes(event, 0, 1);
        (*event).at = now();
        (*event).kind = kind::SOCKET;
        if let Some(link) = owner {
            let client = address_of(link, entry.vip.is_v4());
            (*event).key.tuple.src = *client;
            (*event).to.src = *client;
        }
        (*event).key.tuple.dst = entry.vip;
        (*event).key.tuple.dport = entry.vip_port;
        (*event).key.proto = proto;
        (*event).to.dst = entry.backend;
        (*event).to.dport = entry.backend_port;
        (*event).service = service;
        (*event).backend = entry.id;
        (*event).hook = hook::SOCKET;
    }
    record.submit(0);
}

/// A full buffer loses the event, which is counted; the packet does not wait.
#[inline(always)]
fn emit(place: Place, kind: u32, reason: u32, key: Option<&FlowKey>, flow: Option<&Flow>) {
    let Some(mut record) = EVENTS.reserve(0) else {
        return count(Path::EventsLost, 0);
    };
    let event = record.as_mut_ptr();
    // SAFETY: the record is as large as an event and ours until it is submitted; every field is written.
    unsafe {
        (*event).at = now();
        (*event).kind = kind;
        (*event).reason = reason;
        (*event).ifindex = place.ifindex;
        (*event).length = place.length;
        (*event).hook = place.hook;
        (*event).set = place.set;
        (*event).rule = place.rule;
        match key {
            Some(key) => words::copy(&mut (*event).key, key),
            None => words::clear_raw((&raw mut (*event).key).cast(), size_of::<FlowKey>() / 4),
        }
        match flow {
            Some(flow) => {
                words::copy(&mut (*event).to, &flow.to);
                (*event).service = flow.service;
                (*event).backend = flow.backend;
            }
            None => {
                words::clear_raw((&raw mut (*event).to).cast(), size_of::<Tuple>() / 4);
                (*event).service = 0;
                (*event).backend = 0;
            }
        }
    }
    record.submit(0);
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
