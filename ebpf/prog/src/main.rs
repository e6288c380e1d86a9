//! The eBPF programs: one file per hook, one per concern.
//!
//! Hooks: [`pod`], [`uplink`] and [`pace`] (TC), [`sock`] (cgroup), [`expire`]. Concerns: [`packet`] parses, [`service`] picks a
//! backend, [`flow`] remembers, [`find`] finds it again, [`nat`] rewrites, [`policy`] admits, [`deliver`] sends, [`verdict`] is the one door out.

#![no_std]
#![expect(internal_features, reason = "atomic addition has no other name on this target")]
#![feature(core_intrinsics)]
#![no_main]

mod affinity;
mod bridge;
mod bytes;
mod deliver;
mod echo;
mod ending;
mod event;
mod expire;
mod find;
mod flow;
mod forward;
mod fragment;
mod hop;
mod icmp_error;
mod key;
mod maps;
mod masquerade;
mod nat;
mod older;
mod pace;
mod packet;
mod partner;
mod peer;
mod pod;
mod policy;
mod refuse;
mod sctp;
mod service;
mod sock;
mod source_range;
mod sum;
mod table;
mod tombstone;
mod translate;
mod tunnel;
mod uplink;
mod verdict;
mod way;
mod words;
mod xdp;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel only grants GPL-only helpers to programs that declare a compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
