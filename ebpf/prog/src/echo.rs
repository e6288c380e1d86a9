//! Pings of service addresses: nobody has them on a device, so the programs answer.

use abi::Be16;
use abi::count::Path;
use abi::drops::Drop;
use abi::service::FrontendKey;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::programs::TcContext;

use crate::bytes::Bytes;
use crate::maps::{FRONTENDS, Work, work};
use crate::nat::{l3_checksum, l4_checksum, load_into, store, store_bytes};
use crate::packet::{ETHERNET, Packet, Ports};
use crate::service::{is_candidate, is_service_address};
use crate::sum;
use crate::verdict::Verdict;

/// Hops of an answer.
const HOPS: u8 = 64;

/// No answer: the packet is something else.
const NONE: i32 = -1;
/// No answer: only services may have the address, and none has it.
const LOST: i32 = -2;

/// Turns an echo request for a service's address into its answer, and sends it back where it came from. `direction` is
/// BPF_F_INGRESS for the host's own.
#[inline(always)]
pub fn answer(ctx: &TcContext, packet: &Packet, direction: u64) -> Result<Option<Verdict>, Drop> {
    if !matches!(packet.ports, Ports::EchoRequest) || packet.is_fragment() {
        return Ok(None);
    }
    match answer_echo(ctx.skb.skb, direction) {
        NONE => Ok(None),
        LOST => Err(Drop::Unallocated),
        SHOT => Err(Drop::Rewrite),
        code => Ok(Some(Verdict::Sent(Path::Echo, code))),
    }
}

const SHOT: i32 = TC_ACT_SHOT as i32;

/// Verified by itself, and with its buffers off the callers' stacks.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_echo(skb: *mut __sk_buff, direction: u64) -> i32 {
    let ctx = TcContext::new(skb);
    let Some(work) = work() else {
        return NONE;
    };
    if !is_asked(work) {
        return if is_service_address(&work.packet.tuple().dst) { LOST } else { NONE };
    }
    match turn(&ctx, work) {
        // SAFETY: a plain field of the context; the helper checks the device.
        Ok(()) => (unsafe { bpf_redirect((*ctx.skb.skb).ifindex, direction) }) as i32,
        Err(_) => SHOT,
    }
}

/// Whether a service has the address.
#[inline(always)]
fn is_asked(work: &mut Work) -> bool {
    let front = &mut work.scratch.front;
    *front = FrontendKey { addr: work.packet.key.tuple.dst, port: Be16::new(0), proto: 0, zero: 0 };
    is_candidate(&front.addr) && FRONTENDS.get_ptr(&*front).is_some()
}

/// The ICMP type; code zero follows in the same half word.
#[inline(always)]
fn kind(v4: bool, request: bool) -> u16 {
    let kind = match (v4, request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    u16::from_ne_bytes([kind, 0])
}

/// Makes the request its answer: addresses change places, which no sum minds, and the packet gets hops of its own.
#[inline(always)]
fn turn(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    let (v4, l4) = (work.packet.v4(), work.packet.l4 as usize);
    let (request, reply) = (kind(v4, true), kind(v4, false));
    l4_checksum(ctx, l4 + 2, sum::difference(u32::from(request), u32::from(reply)), 0)?;
    store(ctx, l4, &reply)?;
    swap(ctx, work, 0, 6)?;
    if !v4 {
        load_into(ctx, ETHERNET + 6, &mut work.buffer, 1)?;
        // The hop limit is the second byte of its half word in the sum.
        let old = work.buffer[0] & u32::from(u16::from_ne_bytes([0, 0xff]));
        ctx.uncovered(sum::difference(old, u32::from(u16::from_ne_bytes([0, HOPS]))));
        store(ctx, ETHERNET + 7, &HOPS)?;
        return swap(ctx, work, ETHERNET + 8, 16);
    }
    load_into(ctx, ETHERNET + 8, &mut work.buffer, 1)?;
    // The TTL is the first byte of its half word in the sum.
    let old = work.buffer[0] & u32::from(u16::from_ne_bytes([0xff, 0]));
    l3_checksum(ctx, ETHERNET + 10, sum::difference(old, u32::from(u16::from_ne_bytes([HOPS, 0]))))?;
    store(ctx, ETHERNET + 8, &HOPS)?;
    swap(ctx, work, ETHERNET + 12, 4)
}

/// Lets two neighbours of `size` bytes change places.
#[inline(always)]
fn swap(ctx: &TcContext, work: &mut Work, at: usize, size: usize) -> Result<(), Drop> {
    load_into(ctx, at, &mut work.buffer, size / 2)?;
    let both = work.buffer.as_ptr().cast::<u8>();
    // SAFETY: the buffer holds both now.
    store_bytes(ctx, at, unsafe { both.add(size) }.cast(), size as u32)?;
    store_bytes(ctx, at + size, both.cast(), size as u32)
}
