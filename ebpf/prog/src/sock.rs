//! The socket hooks: clients on this node are translated once per connection, at no cost per packet.
//!
//! The address the client asked for is kept with the socket, so that `getpeername` and `recvmsg` show it.

use abi::count::Path;
use abi::node::feature;
use abi::service::{SockVip, SockVips};
use abi::{Addr16, Be16};
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::maps::{NAMESPACES, SOCK_VIPS, node};
use crate::packet::{TCP, UDP};
use crate::service::{self, Client, Lookup, Picked, same};
use crate::verdict::count;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
type Address = (Addr16, Be16);

macro_rules! hooks {
    ($($hook:ident $attach:ident $family:ident $action:ident),+ $(,)?) => {$(
        #[cgroup_sock_addr($attach)]
        pub fn $hook(ctx: SockAddrContext) -> i32 { $action::<$family>(&ctx) }
    )+};
}

hooks! {
    connect4 connect4 V4 connect,
    connect6 connect6 V6 connect,
    sendmsg4 sendmsg4 V4 send,
    sendmsg6 sendmsg6 V6 send,
    recvmsg4 recvmsg4 V4 show,
    recvmsg6 recvmsg6 V6 show,
    getpeername4 getpeername4 V4 show,
    getpeername6 getpeername6 V6 show,
}

/// How a family keeps its address in the context. An IPv6 socket may talk to a mapped IPv4 address: the same sixteen bytes.
trait Family {
    fn address(ctx: *const bpf_sock_addr) -> Addr16;
    fn set_address(ctx: *mut bpf_sock_addr, address: &Addr16);
}

struct V4;
struct V6;

impl Family for V4 {
    #[inline(always)]
    fn address(ctx: *const bpf_sock_addr) -> Addr16 {
        // SAFETY: a plain field of the context.
        Addr16::from_v4_word(unsafe { core::ptr::read_volatile(&raw const (*ctx).user_ip4) })
    }

    #[inline(always)]
    fn set_address(ctx: *mut bpf_sock_addr, address: &Addr16) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*ctx).user_ip4, address.words()[3]) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: *const bpf_sock_addr) -> Addr16 {
        // SAFETY: plain fields of the context, read word by word as the verifier wants it.
        let words = unsafe {
            let at = (&raw const (*ctx).user_ip6).cast::<u32>();
            [
                core::ptr::read_volatile(at),
                core::ptr::read_volatile(at.add(1)),
                core::ptr::read_volatile(at.add(2)),
                core::ptr::read_volatile(at.add(3)),
            ]
        };
        Addr16::from_words(words)
    }

    #[inline(always)]
    fn set_address(ctx: *mut bpf_sock_addr, address: &Addr16) {
        let words = address.words();
        // SAFETY: as above.
        unsafe {
            let at = (&raw mut (*ctx).user_ip6).cast::<u32>();
            core::ptr::write_volatile(at, words[0]);
            core::ptr::write_volatile(at.add(1), words[1]);
            core::ptr::write_volatile(at.add(2), words[2]);
            core::ptr::write_volatile(at.add(3), words[3]);
        }
    }
}

#[inline(always)]
fn read<F: Family>(ctx: &SockAddrContext) -> Address {
    // SAFETY: a plain field of the context; the port is in its first two bytes, in network order.
    let port = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_port) };
    (F::address(ctx.sock_addr), Be16 { be: port as u16 })
}

#[inline(always)]
fn write<F: Family>(ctx: &SockAddrContext, address: &Addr16, port: Be16) {
    F::set_address(ctx.sock_addr, address);
    // SAFETY: a plain field of the context.
    unsafe { core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.be)) };
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> Option<u8> {
    // SAFETY: a plain field of the context.
    match unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) } as u8 {
        TCP => Some(TCP),
        UDP => Some(UDP),
        _ => None,
    }
}

/// The address of the pod or host that the socket belongs to: as it would be on the wire. A namespace that nobody announced
/// is told from others by its cookie.
#[inline(always)]
fn client(ctx: &SockAddrContext, v4: bool) -> Addr16 {
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    match NAMESPACES.get_ptr(cookie) {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        Some(link) => unsafe { if v4 { (*link).v4 } else { (*link).v6 } },
        None => Addr16::from_words([0, 0, (cookie >> 32) as u32, cookie as u32]),
    }
}

/// connect(2): one backend for the life of the connection.
#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (vip, port) = read::<F>(ctx);
    if !service::is_candidate(&vip) {
        return ALLOW;
    }
    let Some(proto) = protocol(ctx) else {
        return ALLOW;
    };
    match service::lookup(&vip, port, proto, Client::Inside, || client(ctx, vip.is_v4())) {
        Lookup::NotAService => ALLOW,
        Lookup::Nobody | Lookup::NobodyHere => refuse(),
        Lookup::Picked(picked) => {
            let entry = translation(vip, port, &picked);
            // SAFETY: the context's socket is valid for the length of the program.
            let kept = unsafe { SOCK_VIPS.get_or_insert_ptr_mut(ctx, None) };
            if !kept.is_null() {
                // SAFETY: not null; the socket is locked by its caller.
                unsafe { (*kept).entries[0] = entry };
            }
            write::<F>(ctx, &entry.backend, entry.backend_port);
            ALLOW
        }
    }
}

/// sendmsg(2) of an unconnected socket: the socket stays with its backend as long as that lives.
#[inline(always)]
fn send<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (vip, port) = read::<F>(ctx);
    if !service::is_candidate(&vip) {
        return ALLOW;
    }
    // SAFETY: the context's socket is valid for the length of the program.
    let kept = unsafe { SOCK_VIPS.get_or_insert_ptr_mut(ctx, None) };
    if kept.is_null() {
        return REFUSE;
    }
    // SAFETY: not null; storage lives as long as the socket.
    let kept = unsafe { &mut *kept };
    if let Some(entry) = remembered(kept, &vip, port) {
        write::<F>(ctx, &entry.backend, entry.backend_port);
        return ALLOW;
    }
    match service::lookup(&vip, port, UDP, Client::Inside, || client(ctx, vip.is_v4())) {
        Lookup::NotAService => ALLOW,
        Lookup::Nobody | Lookup::NobodyHere => refuse(),
        Lookup::Picked(picked) => {
            let entry = translation(vip, port, &picked);
            let at = kept.next & 3;
            kept.next = at + 1;
            if let Some(slot) = kept.entries.get_mut(at as usize) {
                *slot = entry;
            }
            write::<F>(ctx, &entry.backend, entry.backend_port);
            ALLOW
        }
    }
}

#[inline(always)]
fn translation(vip: Addr16, vip_port: Be16, picked: &Picked) -> SockVip {
    SockVip {
        vip,
        backend: picked.backend.addr,
        vip_port,
        backend_port: picked.backend.port,
        id: picked.backend.id,
        generation: picked.generation,
    }
}

#[inline(always)]
fn remembered(kept: &SockVips, vip: &Addr16, port: Be16) -> Option<SockVip> {
    for at in 0..4 {
        let entry = &kept.entries[at];
        if entry.vip_port.be == port.be && same(&entry.vip, vip) {
            let alive = service::generation(entry.id) == entry.generation;
            return if alive { Some(*entry) } else { None };
        }
    }
    None
}

/// recvmsg(2) and getpeername(2): the backend is shown as the address the client asked for.
#[inline(always)]
fn show<F: Family>(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context's socket is valid for the length of the program.
    let kept = unsafe { SOCK_VIPS.get_ptr_mut(ctx) };
    if kept.is_null() {
        return ALLOW;
    }
    // SAFETY: not null; storage lives as long as the socket.
    let kept = unsafe { &*kept };
    let (backend, port) = read::<F>(ctx);
    for at in 0..4 {
        let entry = &kept.entries[at];
        if entry.backend_port.be == port.be && same(&entry.backend, &backend) {
            let (vip, vip_port) = (entry.vip, entry.vip_port);
            write::<F>(ctx, &vip, vip_port);
            return ALLOW;
        }
    }
    ALLOW
}

#[inline(always)]
fn refuse() -> i32 {
    count(Path::Refused, 0);
    if node().features & feature::SET_RETVAL != 0 {
        // SAFETY: the helper exists on this kernel, or the verifier removes this branch.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}
