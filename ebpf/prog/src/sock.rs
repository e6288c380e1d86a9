//! The socket hooks: clients on this node are translated once per connection, at no cost per packet.
//!
//! The address the client asked for is kept for the life of the socket, so that `getpeername` and `recvmsg` show it: see
//! [`crate::peer`].

use abi::count::Path;
use abi::endpoint::{Link, link};
use abi::node::feature;
use abi::service::{SockVip, SockVips, bits};
use abi::{Addr16, Be16};
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::maps::{NAMESPACES, SOCK_VIPS, node};
use crate::packet::{TCP, UDP};
use crate::service::{self, Ask, Client, Lookup, Picked, Scratch, address_of, is_candidate, same};
use crate::verdict::count;
use crate::{event, peer};

pub const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
type Address = (Addr16, Be16);

macro_rules! hooks {
    ($($hook:ident $attach:ident $family:ident $action:ident),+ $(,)?) => {$(
        #[cgroup_sock_addr($attach)]
        pub fn $hook(ctx: SockAddrContext) -> i32 {
            $action::<$family>(&ctx)
        }
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

/// Whose socket it is: the pod or host, and which of them. A namespace that nobody announced is told from others by its
/// cookie.
struct Owner {
    link: Option<&'static Link>,
    cookie: u64,
}

impl Owner {
    #[inline(always)]
    fn of(ctx: &SockAddrContext) -> Self {
        // SAFETY: the context is the program's own.
        let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        let link = NAMESPACES.get_ptr(cookie).map(|link| unsafe { &*link });
        Self { link, cookie }
    }

    #[inline(always)]
    fn has(&self, flag: u32) -> bool {
        self.link.is_some_and(|link| link.flags & flag != 0)
    }

    /// Writes its address as it would be on the wire.
    #[inline(always)]
    fn tell(&self, v4: bool, address: &mut Addr16) {
        *address = match self.link {
            Some(link) => *address_of(link, v4),
            None => Addr16::from_words([0, 0, (self.cookie >> 32) as u32, self.cookie as u32]),
        };
    }
}

/// What a socket that asks for an address gets.
enum Answer {
    /// The address itself: no service has it, or the packet path decides.
    Itself,
    /// ECONNREFUSED.
    Refused,
    /// The backend in the scratch.
    Backend,
}

/// Looks up what `owner` gets for an address. What a service drops is left alone here: the packet path drops it, and connect
/// ends as it would at any silent address.
#[inline(always)]
fn ask(owner: &Owner, vip: &Addr16, port: Be16, proto: u8, scratch: &mut Scratch) -> Answer {
    if owner.has(link::NO_SOCKETS) {
        return Answer::Itself;
    }
    let client = if owner.has(link::HOST) { Client::Host } else { Client::Inside };
    // The source port is not known yet; inside the cluster nobody else has to pick alike.
    // SAFETY: the helper has no preconditions.
    let spread = unsafe { bpf_get_prandom_u32() };
    let ask = Ask { addr: vip, port, proto, client, spread };
    match service::lookup(&ask, scratch, |client| owner.tell(vip.is_v4(), client)) {
        Lookup::Picked if scratch.picked.bits & bits::NO_SOCKETS != 0 => Answer::Itself,
        Lookup::Picked => Answer::Backend,
        Lookup::Nobody | Lookup::UnknownPort => Answer::Refused,
        Lookup::NotAService | Lookup::NobodyHere | Lookup::NotAdmitted | Lookup::Unallocated => {
            Answer::Itself
        }
    }
}

/// A code that the verifier knows the range of: it loses sight of that when the compiler spills the value.
#[inline(always)]
fn bounded(code: i32) -> i32 {
    core::hint::black_box(code) & ALLOW
}

/// connect(2).
#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    bounded(connect_to::<F>(ctx))
}

/// sendmsg(2) of an unconnected socket.
#[inline(always)]
fn send<F: Family>(ctx: &SockAddrContext) -> i32 {
    bounded(send_to::<F>(ctx))
}

/// One backend for the life of the connection. A socket that cannot be told later what it was translated to is
/// left to the packet path.
#[inline(always)]
fn connect_to<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (vip, port) = read::<F>(ctx);
    if !is_candidate(&vip) {
        return ALLOW;
    }
    let Some(proto) = protocol(ctx) else {
        return ALLOW;
    };
    let owner = Owner::of(ctx);
    let mut scratch = Scratch::EMPTY;
    match ask(&owner, &vip, port, proto, &mut scratch) {
        Answer::Itself => ALLOW,
        Answer::Refused => refuse(),
        Answer::Backend => {
            let picked = &scratch.picked;
            let mut entry = SockVip::default();
            translation(&mut entry, &vip, port, picked);
            let counted = u32::from(picked.bits & bits::LEAST != 0);
            if !peer::keep(ctx, &entry, counted) {
                return ALLOW;
            }
            if counted != 0 {
                service::connected(picked.backend.id);
            }
            write::<F>(ctx, &picked.backend.addr, picked.backend.port);
            event::socket(owner.link, &entry, proto, picked.service);
            ALLOW
        }
    }
}

/// The socket stays with its backend as long as that lives.
#[inline(always)]
fn send_to<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (vip, port) = read::<F>(ctx);
    if !is_candidate(&vip) {
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
    let owner = Owner::of(ctx);
    let mut scratch = Scratch::EMPTY;
    match ask(&owner, &vip, port, UDP, &mut scratch) {
        Answer::Itself => ALLOW,
        Answer::Refused => refuse(),
        Answer::Backend => {
            let picked = &scratch.picked;
            let at = kept.next & 3;
            kept.next = at + 1;
            if let Some(slot) = kept.entries.get_mut(at as usize) {
                translation(slot, &vip, port, picked);
                event::socket(owner.link, slot, UDP, picked.service);
            }
            write::<F>(ctx, &picked.backend.addr, picked.backend.port);
            ALLOW
        }
    }
}

/// Written field by field into the socket's storage: a copy would not fit the stack.
#[inline(always)]
fn translation(slot: &mut SockVip, vip: &Addr16, vip_port: Be16, picked: &Picked) {
    slot.vip = *vip;
    slot.backend = picked.backend.addr;
    slot.vip_port = vip_port;
    slot.backend_port = picked.backend.port;
    slot.id = picked.backend.id;
    slot.generation = picked.generation;
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
    let (backend, port) = read::<F>(ctx);
    if let Some(entry) = peer::of_backend(ctx, &backend, port) {
        let (vip, vip_port) = (entry.vip, entry.vip_port);
        write::<F>(ctx, &vip, vip_port);
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
