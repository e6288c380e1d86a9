//! Refusals on the wire: a TCP RST, an SCTP ABORT, or an ICMP port unreachable, in the place of the packet that cannot be served.

use abi::count::Path;
use abi::drops::Drop;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;

use crate::flow::now;
use crate::maps::{Work, work};
use crate::nat::{load_into, store, store_bytes};
use crate::packet::{ACK, ETHERNET, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP};
use crate::sctp;
use crate::verdict::count;

/// Hops of a packet that begins here.
const HOPS: u8 = 64;
/// Refusals a CPU sends in one second; those beyond are dropped in silence, so that a flood is not answered by another.
const PER_SECOND: u32 = 1000;

/// What a CPU has refused of late.
#[repr(C)]
struct Refusals {
    second: u32,
    sent: u32,
}

#[btf_map(name = "hw_refusals")]
static REFUSALS: PerCpuArray<Refusals, 1> = PerCpuArray::new();

/// Turns the packet into its refusal and sends it back where it came from, or drops it when it cannot be answered.
/// `direction` is BPF_F_INGRESS for the host's own.
#[inline(always)]
pub fn answer(ctx: &TcContext, direction: u64) -> i32 {
    // A function of its own keeps its buffers off the caller's stack.
    answer_skb(ctx.skb.skb, direction)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_skb(skb: *mut __sk_buff, direction: u64) -> i32 {
    if !may_answer() {
        count(Path::Unanswered, 0);
        return TC_ACT_SHOT as i32;
    }
    try_answer(&TcContext::new(skb), direction).unwrap_or(TC_ACT_SHOT as i32)
}

#[inline(always)]
fn may_answer() -> bool {
    let Some(cell) = REFUSALS.get_ptr_mut(0) else {
        return false;
    };
    let now = now();
    // SAFETY: the cell belongs to this CPU.
    let cell = unsafe { &mut *cell };
    if cell.second != now {
        *cell = Refusals { second: now, sent: 0 };
    }
    cell.sent += 1;
    cell.sent <= PER_SECOND
}

#[inline(always)]
fn try_answer(ctx: &TcContext, direction: u64) -> Option<i32> {
    let work = work()?;
    // Headers between the IP header and the transport are not copied into an answer.
    if work.packet.l4 != header_end(work) || work.packet.is_fragment() {
        return None;
    }
    let made = match work.packet.proto() {
        TCP if work.packet.tcp_flags & RST == 0 => reset(ctx, work),
        UDP => unreachable(ctx, work),
        SCTP => abort(ctx, work)?,
        _ => return None,
    };
    made.ok()?;
    send_back(ctx, direction)
}

#[inline(always)]
fn send_back(ctx: &TcContext, direction: u64) -> Option<i32> {
    let macs: [[u8; 6]; 2] = ctx.load(0).ok()?;
    store(ctx, 0, &[macs[1], macs[0]]).ok()?;
    // SAFETY: a plain field of the context; the helper checks the device.
    Some(unsafe { bpf_redirect((*ctx.skb.skb).ifindex, direction) } as i32)
}

#[inline(always)]
fn header_end(work: &Work) -> u32 {
    ETHERNET as u32 + if work.packet.v4() { 20 } else { 40 }
}

/// A RST that the sender accepts (RFC 9293, 3.5.2): its sequence number is what the sender expects next.
#[inline(always)]
fn reset(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    let l4 = work.packet.l4 as usize;
    let old: [u32; 4] = ctx.load(l4).map_err(|_| Drop::Truncated)?;
    let header_words = (old[3].to_ne_bytes()[0] >> 4) as u32;
    let data = ctx.len().saturating_sub(work.packet.l4 + header_words * 4);
    let has = |flag: u32| u32::from(work.packet.tcp_flags & flag != 0);
    let (sequence, acknowledged, flags) = if has(ACK) == 1 {
        (old[2], 0, RST)
    } else {
        let next = u32::from_be(old[1]).wrapping_add(data + has(SYN) + has(crate::packet::FIN));
        (0, next.to_be(), RST | ACK)
    };
    let ports = swapped_ports(work);
    let offset_and_flags = u32::from_ne_bytes([0x50, flags as u8, 0, 0]);
    let mut header = [ports, sequence, acknowledged, offset_and_flags, 0];
    resize(ctx, l4 as u32 + 20)?;
    let sum = sum(&header, pseudo(work, TCP, 20));
    header[4] = u32::from(fold(sum));
    store(ctx, l4, &header)?;
    ip(ctx, work, TCP, 20)
}

/// An ABORT, if there is an answer. Of an ICMP error an SCTP host need not take notice (RFC 9260, 10), and Linux does not give up for it.
#[inline(always)]
fn abort(ctx: &TcContext, work: &mut Work) -> Option<Result<(), Drop>> {
    let l4 = work.packet.l4 as usize;
    let header: [u32; 4] = ctx.load(l4).ok()?;
    // The initiate tag of an INIT; packets with other chunks may end here.
    let tag: u32 = ctx.load(l4 + usize::from(sctp::SHORT)).unwrap_or(0);
    let answer = sctp::refusal(swapped_ports(work), &header, tag)?;
    Some(write_abort(ctx, work, &answer))
}

#[inline(always)]
fn write_abort(ctx: &TcContext, work: &Work, answer: &[u32; 4]) -> Result<(), Drop> {
    resize(ctx, work.packet.l4 + u32::from(sctp::SHORT))?;
    store(ctx, work.packet.l4 as usize, answer)?;
    ip(ctx, work, SCTP, sctp::SHORT)
}

/// The ports of an answer, as they lie in its header.
#[inline(always)]
fn swapped_ports(work: &Work) -> u32 {
    let tuple = work.packet.tuple();
    u32::from(tuple.dport.be) | (u32::from(tuple.sport.be) << 16)
}

/// Tells the sender that its packet is larger than `work.hop.mtu`, or drops it. `direction` is BPF_F_INGRESS where what is told
/// has to be translated on its way in.
#[inline(always)]
pub fn too_big(ctx: &TcContext, direction: u64) -> i32 {
    too_big_skb(ctx.skb.skb, direction)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn too_big_skb(skb: *mut __sk_buff, direction: u64) -> i32 {
    if !may_answer() {
        count(Path::Unanswered, 0);
        return TC_ACT_SHOT as i32;
    }
    let ctx = TcContext::new(skb);
    try_too_big(&ctx).and_then(|()| send_back(&ctx, direction)).unwrap_or(TC_ACT_SHOT as i32)
}

#[inline(always)]
fn try_too_big(ctx: &TcContext) -> Option<()> {
    let work = work()?;
    if work.packet.l4 != header_end(work) || work.packet.is_fragment() {
        return None;
    }
    let mtu = work.hop.mtu.to_be();
    // Fragmentation needed has sixteen bits for it, packet too big all of them.
    let kind = if work.packet.v4() { [3, 4] } else { [2, 0] };
    error(ctx, work, kind, mtu, 5).ok()
}

/// Port unreachable.
#[inline(always)]
fn unreachable(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    let kind = if work.packet.v4() { [3, 3] } else { [1, 4] };
    error(ctx, work, kind, 0, 2)
}

/// An ICMP error of a type and code, with the head of the packet it is about: `words` of the transport header. The kernel cuts no
/// packet before the place of a checksum that a device is still to compute.
#[inline(always)]
fn error(ctx: &TcContext, work: &mut Work, kind: [u8; 2], value: u32, words: usize) -> Result<(), Drop> {
    let (header, room, proto) = if work.packet.v4() { (5, 28, ICMP) } else { (10, 48, ICMPV6) };
    load_into(ctx, ETHERNET, &mut work.buffer[2..], header + words)?;
    work.buffer[0] = u32::from_ne_bytes([kind[0], kind[1], 0, 0]);
    work.buffer[1] = value;
    let size = (4 * (2 + header + words)) as u16;
    let seed = if work.packet.v4() { 0 } else { pseudo(work, ICMPV6, size) };
    work.buffer[0] |= u32::from(fold(sum_of(&work.buffer, u32::from(size), seed))) << 16;
    put(ctx, work, room, proto, size)
}

/// Makes room before the packet, cuts off what is not shown, and writes both headers: `size` bytes of the buffer follow.
#[inline(always)]
fn put(ctx: &TcContext, work: &mut Work, room: i32, proto: u8, size: u16) -> Result<(), Drop> {
    let header = if work.packet.v4() { 20 } else { 40 };
    // SAFETY: the context is the program's own.
    if unsafe { bpf_skb_adjust_room(ctx.as_ptr().cast(), room, BPF_ADJ_ROOM_MAC, 0) } != 0 {
        return Err(Drop::Rewrite);
    }
    resize(ctx, (ETHERNET + header) as u32 + u32::from(size))?;
    store_bytes(ctx, ETHERNET + header, work.buffer.as_ptr().cast(), u32::from(size))?;
    ip(ctx, work, proto, size)
}

/// Writes the IP header of an answer that carries `length` bytes of `proto`.
#[inline(always)]
fn ip(ctx: &TcContext, work: &Work, proto: u8, length: u16) -> Result<(), Drop> {
    let tuple = work.packet.tuple();
    if work.packet.v4() {
        let total = (length + 20).to_be();
        let (src, dst) = (tuple.dst.words()[3], tuple.src.words()[3]);
        let first = u32::from_ne_bytes([0x45, 0, 0, 0]) | (u32::from(total) << 16);
        // Do not fragment: identification zero is allowed then.
        let second = u32::from_ne_bytes([0, 0, 0x40, 0]);
        let third = u32::from_ne_bytes([HOPS, proto, 0, 0]);
        let mut header = [first, second, third, src, dst];
        header[2] |= u32::from(fold(sum(&header, 0))) << 16;
        store(ctx, ETHERNET, &header)
    } else {
        let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
        let second = u32::from(length.to_be()) | (u32::from_ne_bytes([0, 0, proto, HOPS]));
        store(ctx, ETHERNET, &[first, second])?;
        store(ctx, ETHERNET + 8, &tuple.dst)?;
        store(ctx, ETHERNET + 24, &tuple.src)
    }
}

/// Sum over the pseudo header of an answer.
#[inline(always)]
fn pseudo(work: &Work, proto: u8, length: u16) -> u32 {
    let tuple = work.packet.tuple();
    let rest = [u32::from_ne_bytes([0, proto, 0, 0]), u32::from(length.to_be())];
    if work.packet.v4() {
        sum(&[tuple.src.words()[3], tuple.dst.words()[3]], sum(&rest, 0))
    } else {
        sum_of(&tuple.src, 32, sum(&rest, 0))
    }
}

#[inline(always)]
fn sum<T>(bytes: &T, seed: u32) -> u32 {
    sum_of(bytes, size_of::<T>() as u32, seed)
}

#[inline(always)]
fn sum_of<T>(bytes: &T, size: u32, seed: u32) -> u32 {
    let from = core::ptr::from_ref(bytes).cast_mut().cast();
    // SAFETY: the pointer leads to `size` readable bytes; the helper does not write.
    (unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from, size, seed) }) as u32
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    !(twice as u16)
}

#[inline(always)]
fn resize(ctx: &TcContext, length: u32) -> Result<(), Drop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_skb_change_tail(ctx.as_ptr().cast(), length, 0) } {
        0 => Ok(()),
        _ => Err(Drop::Rewrite),
    }
}
