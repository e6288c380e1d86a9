//! Masquerade: a source port of the node for flows that leave it under the node's address.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::timeout;
use abi::{Be16, Tuple};
use aya_ebpf::bindings::{__sk_buff, BPF_F_CURRENT_NETNS};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id};
use aya_ebpf::programs::TcContext;

use crate::maps::{Work, node, work};
use crate::nat::node_address;
use crate::packet::{Ports, TCP, UDP};
use crate::service::same;
use crate::verdict::count;
use crate::{flow, table};

/// Ports tried in a row, and rows, before a destination counts as exhausted. Many, so that the last free ports of a destination
/// are found: a collision is one or two lookups.
const ROW: u32 = 32;
const ROWS: u32 = 64;
/// Rows after which closed flows are pressed for their ports.
const PATIENT: u32 = 4;
/// How often a port that turned out to be the host's own is replaced.
const HOST_TRIES: u32 = 4;

/// A run of source ports.
struct Range {
    first: u32,
    count: u32,
}

/// All ports that masquerade may use.
#[inline(always)]
fn everything() -> Range {
    let facts = node();
    let (min, max) = (u32::from(facts.port_min.host()), u32::from(facts.port_max.host()));
    Range { first: min, count: (max - min + 1).max(1) }
}

/// Those of this CPU, which is the only one to try them first: two CPUs seldom want the same.
#[inline(always)]
fn stripe() -> Range {
    let all = everything();
    let cpus = node().cpus.max(1);
    let count = (all.count / cpus).max(1);
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Range { first: all.first + (cpu % cpus) * count % all.count, count }
}

/// Remembers the flow in `work`, whose packets go to `forward.to` from the node's address and a port that is free.
///
/// A port may serve any number of destinations: only the whole tuple of the answer has to be unique, also among the sockets of
/// the host.
#[inline(always)]
pub fn create(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    if !matches!(work.packet.ports, Ports::Pair | Ports::EchoRequest) {
        return Err(Drop::UnknownProtocol);
    }
    let own = node_address(work.packet.v4()).ok_or(Drop::NoPort)?;
    // What the host sends itself through a service has to look as if it came from elsewhere, and its answer has to go there:
    // to the service's address the host knows a way.
    let to_itself = same(&work.forward.to.dst, own);
    work.forward.to.src = if to_itself { work.packet.key.tuple.dst } else { *own };
    flow::prepare_answer(work);
    work.row = 0;
    for _ in 0..HOST_TRIES {
        if claim_port() == 0 {
            return Err(Drop::NoPort);
        }
        if is_hosts(ctx.skb.skb) == 0 {
            work.forward.to.sport = work.answer.tuple.dport;
            return flow::complete(work);
        }
        table::forget(&work.answer);
        count(Path::PortCollision, 0);
    }
    Err(Drop::NoPort)
}

/// Tries the port that belongs to the client's, then rows of ports from `work.row` on, until one of them is free. Verified by
/// itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_port() -> i32 {
    for _ in 0..ROWS {
        if claim_row() == 1 {
            return 1;
        }
    }
    0
}

/// Tries the next row of ports. One if `work.answer` has got one of them. Verified by itself.
///
/// The first row is one port, which follows from the client's address and port: a client that uses its port again is mapped
/// to the same one again, whose last connection the other end may still remember. It takes the new one for its continuation,
/// as it would without us: sequence numbers and timestamps (RFC 6191) of one client only grow.
///
/// The others are ports at random, at a random distance from each other: taken ports would grow into long runs otherwise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_row() -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    let row = work.row;
    work.row = row.wrapping_add(1);
    work.closed_for = if row < PATIENT { timeout::TCP_CLOSED } else { 0 };
    if row == 0 {
        let all = everything();
        return i32::from(claim(work, all.first + own_number(&work.reverse.to) % all.count));
    }
    let range = if row == 1 { stripe() } else { everything() };
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let stride = (random >> 16) | 1;
    for attempt in 0..ROW {
        if claim(work, range.first + random.wrapping_add(attempt.wrapping_mul(stride)) % range.count) {
            return 1;
        }
    }
    0
}

#[inline(always)]
fn claim(work: &mut Work, port: u32) -> bool {
    work.answer.tuple.dport = Be16::new(port as u16);
    let claimed = flow::claim_answer(work);
    if !claimed {
        count(Path::PortCollision, 0);
    }
    claimed
}

/// A number of the client that `answers` go to; neighbouring ports have neighbouring numbers, so that those of one client are
/// all different.
#[inline(always)]
fn own_number(answers: &Tuple) -> u32 {
    let [a, b, c, d] = answers.dst.words();
    let address = (a ^ b ^ c ^ d).wrapping_mul(0x9e37_79b1) >> 8;
    address + u32::from(answers.dport.host())
}

/// `struct bpf_sock_tuple` of IPv4.
#[repr(C)]
struct ShortTuple {
    src: u32,
    dst: u32,
    sport: Be16,
    dport: Be16,
}

impl ShortTuple {
    #[inline(always)]
    fn of(tuple: &Tuple) -> Self {
        let ([_, _, _, src], [_, _, _, dst]) = (tuple.src.words(), tuple.dst.words());
        Self { src, dst, sport: tuple.sport, dport: tuple.dport }
    }
}

/// Whether a socket of the host would get the answers that `work.answer` stands for. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_hosts(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else {
        return 0;
    };
    // The kernel's tuple of IPv6 is ours; that of IPv4 lies at its beginning.
    let mut tuple = work.answer.tuple;
    let at = &raw mut tuple;
    let mut size = size_of::<Tuple>();
    if work.packet.v4() {
        size = size_of::<ShortTuple>();
        // SAFETY: the longer tuple has room for the shorter one, whose alignment is not stricter.
        unsafe { at.cast::<ShortTuple>().write(ShortTuple::of(&work.answer.tuple)) };
    }
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the tuple is as long as said, and outlives the call.
    let socket = unsafe {
        match work.packet.proto() {
            TCP => bpf_skc_lookup_tcp(skb.cast(), at.cast(), size as u32, netns, 0),
            UDP => bpf_sk_lookup_udp(skb.cast(), at.cast(), size as u32, netns, 0),
            // The kernel offers no lookup for the others.
            _ => return 0,
        }
    };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a reference that the lookup gave.
    unsafe { bpf_sk_release(socket.cast()) };
    1
}
