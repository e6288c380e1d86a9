//! What sockets were translated to, for the life of each.
//!
//! A connected socket has a slot of an array: cookies are given one after another, so sockets of one time lie side by side, and
//! claiming a slot allocates nothing. A socket whose slot another has, and an unconnected one, use the socket's own storage,
//! which takes two allocations and two deferred frees.

use core::intrinsics::AtomicOrdering;

use abi::service::{SockPeer, SockVip, SockVips};
use abi::{Addr16, Be16, name};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sk_storage_get};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::{SockAddrContext, SockContext};

use crate::maps::{SOCK_PEERS, SOCK_VIPS};
use crate::packet::{TCP, UDP};
use crate::service::{self, same};
use crate::sock::ALLOW;

const _: () = assert!(name::SOCK_PEERS_SIZE.is_power_of_two());

/// The slot of a socket, whoever has it.
#[inline(always)]
fn slot(cookie: u64) -> Option<*mut SockPeer> {
    SOCK_PEERS.get_ptr_mut(cookie as u32 & (name::SOCK_PEERS_SIZE as u32 - 1))
}

/// The slot of the socket, if it has it.
#[inline(always)]
fn own_slot(cookie: u64) -> Option<*mut SockPeer> {
    // SAFETY: array elements live as long as the map; nobody else writes this cookie.
    slot(cookie).filter(|slot| unsafe { core::ptr::read_volatile(&raw const (**slot).cookie) } == cookie)
}

/// Takes a free slot. Of several sockets that try at once at most one gets it, perhaps none.
#[inline(always)]
fn claim(cookie: u64) -> Option<*mut SockPeer> {
    let slot = slot(cookie)?;
    // SAFETY: array elements live as long as the map; every writer of the claims is atomic.
    let claims = unsafe { core::ptr::read_volatile(&raw const (*slot).claims) };
    if claims != 0 {
        return None;
    }
    add_claims(slot, 1);
    // SAFETY: as above.
    if unsafe { core::ptr::read_volatile(&raw const (*slot).claims) } == 1 {
        return Some(slot);
    }
    add_claims(slot, u64::MAX);
    None
}

/// The old value is not asked for: Linux before 5.12 cannot tell it.
#[inline(always)]
fn add_claims(slot: *mut SockPeer, number: u64) {
    // SAFETY: array elements live as long as the map; every writer of this word is atomic.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
            &raw mut (*slot).claims,
            number,
        );
    }
}

/// Keeps what a connected socket was translated to, in place of what it was before. False where it finds no room.
#[inline(always)]
pub fn keep(ctx: &SockAddrContext, entry: &SockVip, counted: u32) -> bool {
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    if let Some(slot) = own_slot(cookie).or_else(|| claim(cookie)) {
        // SAFETY: the context's socket is valid for the length of the program.
        let before = unsafe { SOCK_VIPS.get_ptr_mut(ctx) };
        if !before.is_null() {
            // SAFETY: not null; the socket is locked by its caller. It may have found its slot taken when it connected before.
            let before = unsafe { &mut *before };
            hang_up(&before.entries[0], &mut before.counted);
        }
        // SAFETY: the slot is this socket's, which is locked by its caller.
        let slot = unsafe { &mut *slot };
        hang_up(&slot.entry, &mut slot.counted);
        slot.entry = *entry;
        slot.counted = counted;
        slot.cookie = cookie;
        return true;
    }
    // SAFETY: the context's socket is valid for the length of the program.
    let kept = unsafe { SOCK_VIPS.get_or_insert_ptr_mut(ctx, None) };
    if kept.is_null() {
        return false;
    }
    // SAFETY: not null; the socket is locked by its caller.
    let kept = unsafe { &mut *kept };
    hang_up(&kept.entries[0], &mut kept.counted);
    kept.entries[0] = *entry;
    kept.counted = counted;
    true
}

/// Takes back the count of a connection.
#[inline(always)]
fn hang_up(entry: &SockVip, counted: &mut u32) {
    if *counted != 0 {
        *counted = 0;
        service::disconnected(entry.id, entry.generation);
    }
}

/// What made the socket talk to this backend.
#[inline(always)]
pub fn of_backend(ctx: &SockAddrContext, backend: &Addr16, port: Be16) -> Option<&'static SockVip> {
    let is_of = |entry: &&SockVip| entry.backend_port.be == port.be && same(&entry.backend, backend);
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    // SAFETY: array elements live as long as the map; the slot is this socket's.
    if let Some(entry) = own_slot(cookie).map(|slot| unsafe { &(*slot).entry }).filter(is_of) {
        return Some(entry);
    }
    // SAFETY: the context's socket is valid for the length of the program.
    let kept = unsafe { SOCK_VIPS.get_ptr_mut(ctx) };
    if kept.is_null() {
        return None;
    }
    // SAFETY: not null; storage lives as long as the socket.
    let kept = unsafe { &*kept };
    for at in 0..4 {
        let entry = &kept.entries[at];
        if is_of(&entry) {
            return Some(entry);
        }
    }
    None
}

/// The last close of a socket.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: a plain field of the context.
    let protocol = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock).protocol) };
    if protocol != u32::from(TCP) && protocol != u32::from(UDP) {
        return ALLOW;
    }
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    if let Some(slot) = own_slot(cookie) {
        // SAFETY: the slot is this socket's, and nobody else has the socket any more.
        let own = unsafe { &mut *slot };
        hang_up(&own.entry, &mut own.counted);
        // SAFETY: as above; the claim goes last.
        unsafe { core::ptr::write_volatile(&raw mut (*slot).cookie, 0) };
        add_claims(slot, u64::MAX);
    }
    let map = (&raw const SOCK_VIPS).cast_mut().cast();
    // SAFETY: the context is the socket, valid for the length of the program.
    let kept =
        unsafe { bpf_sk_storage_get(map, ctx.sock.cast(), core::ptr::null_mut(), 0) }.cast::<SockVips>();
    if !kept.is_null() {
        // SAFETY: not null; nobody else has the socket any more.
        let kept = unsafe { &mut *kept };
        hang_up(&kept.entries[0], &mut kept.counted);
    }
    ALLOW
}
