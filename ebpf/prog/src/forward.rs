//! Forwarding: packets of known flows to their known next hop, read and written in place. Whatever is not plain is left to
//! the rest of the program, or, under XDP, to the stack.

use abi::Tuple;
use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, HOP_SECONDS, Hop, bits};

use crate::bytes::{Bytes, get, put};
use crate::flow::Entry;
use crate::maps::{Known, Work, work};
use crate::nat::pair;
use crate::packet::{ETHERNET, Packet, RST, SCTP, TCP, parse_plain};
use crate::verdict::{Verdict, count};
use crate::{ending, find, flow, hop, policy, sctp, service, sum};

/// Who has the packet after it was translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// The flow's next hop.
    Hop,
    /// The stack, which has routed it already.
    Stack,
}

/// What a header of either family takes to be rewritten; there are no options in it.
trait Header {
    /// Offset of the transport header.
    const L4: usize;
    /// Offset of the TTL or hop limit.
    const HOPS: usize;
    /// What the addresses change in the transport checksum.
    fn difference(old: &Tuple, new: &Tuple) -> u32;
    /// Writes both addresses; `hops` is spent as well, if there is one.
    ///
    /// # Safety
    /// The header at `start` lies before the packet's end.
    unsafe fn write(start: usize, to: &Tuple, difference: u32, spend: bool);
    /// Spends a hop and leaves the addresses.
    ///
    /// # Safety
    /// As for [`Header::write`].
    unsafe fn spend(start: usize);
}

/// What one hop less changes in a sum: the TTL is the first byte of its word.
const ONE_HOP_V4: u32 = !(u16::from_ne_bytes([1, 0]) as u32);
/// The hop limit is the second byte of its word.
pub const ONE_HOP_V6: u32 = !(u16::from_ne_bytes([0, 1]) as u32);

struct V4;
struct V6;

impl Header for V4 {
    const L4: usize = ETHERNET + 20;
    const HOPS: usize = ETHERNET + 8;

    #[inline(always)]
    fn difference(old: &Tuple, new: &Tuple) -> u32 {
        sum::addresses_v4(old, new)
    }

    #[inline(always)]
    unsafe fn write(start: usize, to: &Tuple, difference: u32, spend: bool) {
        // SAFETY: the caller has compared with the end.
        unsafe {
            let mut spent = 0;
            if spend {
                let hops: u8 = get(start + Self::HOPS);
                put(start + Self::HOPS, hops - 1);
                spent = ONE_HOP_V4;
            }
            let old: u16 = get(start + ETHERNET + 10);
            put(start + ETHERNET + 10, sum::update(old, difference, spent));
            put(start + ETHERNET + 12, to.src.words()[3]);
            put(start + ETHERNET + 16, to.dst.words()[3]);
        }
    }

    #[inline(always)]
    unsafe fn spend(start: usize) {
        // SAFETY: the caller has compared with the end.
        unsafe {
            let hops: u8 = get(start + Self::HOPS);
            put(start + Self::HOPS, hops - 1);
            let old: u16 = get(start + ETHERNET + 10);
            put(start + ETHERNET + 10, sum::update(old, ONE_HOP_V4, 0));
        }
    }
}

impl Header for V6 {
    const L4: usize = ETHERNET + 40;
    const HOPS: usize = ETHERNET + 7;

    #[inline(always)]
    fn difference(old: &Tuple, new: &Tuple) -> u32 {
        sum::addresses(old, new)
    }

    #[inline(always)]
    unsafe fn write(start: usize, to: &Tuple, _difference: u32, spend: bool) {
        // SAFETY: the caller has compared with the end.
        unsafe {
            if spend {
                let hops: u8 = get(start + Self::HOPS);
                put(start + Self::HOPS, hops - 1);
            }
            put(start + ETHERNET + 8, to.src.words());
            put(start + ETHERNET + 24, to.dst.words());
        }
    }

    #[inline(always)]
    unsafe fn spend(start: usize) {
        // SAFETY: the caller has compared with the end.
        unsafe {
            let hops: u8 = get(start + Self::HOPS);
            put(start + Self::HOPS, hops - 1);
        }
    }
}

/// Reads the packet and forwards it if it is plain, belongs to a flow, and that flow's next hop is fresh.
#[inline(always)]
pub fn forward_plain<B: Bytes>(bytes: &B, onward: Onward) -> Option<Result<Verdict, Drop>> {
    let work = work()?;
    work.known = Known::Unseen;
    if parse_plain(bytes, &mut work.packet) { forward_known(bytes, work, onward, |_, _| true) } else { None }
}

/// Forwards a plain packet if it belongs to a flow and that flow's next hop is fresh, and if `is_sender` says of the packet and its entry
/// that it comes from where it says. [`Work::known`] stays [`Known::Unseen`] if that does not.
#[inline(always)]
pub fn forward_known<B: Bytes>(
    bytes: &B,
    work: &mut Work,
    onward: Onward,
    is_sender: impl Fn(&Work, Option<Entry>) -> bool,
) -> Option<Result<Verdict, Drop>> {
    let entry = find::find_settled::<B>(work, is_sender)?;
    let packet = &work.packet;
    // SAFETY: see `Entry`.
    let flow = unsafe { entry.as_ref() };
    let flags = flow.flags;
    let of_service = flags & (bits::FORWARD | bits::SERVICE) == bits::FORWARD | bits::SERVICE;
    if flow.epoch != policy::epoch() {
        return None;
    }
    if flags & bits::DSR != 0 || (of_service && service::generation(flow.backend) != flow.generation) {
        return None;
    }
    let is_routed_elsewhere = of_service || is_answer_to_itself(flags);
    if (is_routed_elsewhere || flags & bits::OUTWARD != 0) && matches!(onward, Onward::Stack) {
        // The stack has routed it to the service's address, not to the backend's; or it is still to be hidden.
        return None;
    }
    let now = flow::now();
    // SAFETY: as above.
    let hop = unsafe { &*hop::of(work, flow) };
    if matches!(onward, Onward::Hop) && !is_usable(bytes, packet, hop, now) {
        return None;
    }
    flow::touch(work, entry, now);
    // SAFETY: as above.
    let flow = unsafe { entry.as_ref() };
    let result = if packet.v4() {
        send::<B, V4>(bytes, packet, (flow, hop), onward)
    } else {
        send::<B, V6>(bytes, packet, (flow, hop), onward)
    };
    if closes(packet, flags) {
        ending::close(flags);
    }
    Some(result)
}

/// Whether packets with these flags that leave the host answer what it has sent itself through a service.
#[inline(always)]
pub fn is_answer_to_itself(flags: u32) -> bool {
    flags & (bits::FORWARD | bits::SERVICE | bits::MASQUERADE) == bits::SERVICE | bits::MASQUERADE
}

/// Whether the packet may end a flow that is forgotten with its last packet.
#[inline(always)]
pub fn closes(packet: &Packet, flags: u32) -> bool {
    flags & bits::PLAIN != 0 && (flags & (bits::FIN | bits::FIN_BACK) != 0 || packet.tcp_flags & RST != 0)
}

/// Whether the packet can go where the flow's packets went a moment ago.
#[inline(always)]
fn is_usable<B: Bytes>(bytes: &B, packet: &Packet, hop: &Hop, now: u32) -> bool {
    let fresh = hop.seen != 0 && now.wrapping_sub(hop.seen) <= HOP_SECONDS;
    fresh && bytes.can_send(hop) && (hop.mtu == 0 || (packet.hops > 1 && bytes.largest(packet) <= hop.mtu))
}

#[inline(always)]
fn send<B: Bytes, H: Header>(
    bytes: &B,
    packet: &Packet,
    (flow, hop): (&Flow, &Hop),
    onward: Onward,
) -> Result<Verdict, Drop> {
    let leaves = matches!(onward, Onward::Hop) && hop.ifindex != 0;
    let spend = leaves && hop.mtu != 0;
    if flow.flags & bits::PLAIN == 0 {
        rewrite::<B, H>(bytes, packet, flow, spend)?;
        count(path(flow.flags), u64::from(bytes.length()));
    } else if spend {
        spend_hop::<B, H>(bytes, packet)?;
    }
    if !leaves {
        return Ok(Verdict::Stack);
    }
    let (start, end) = bytes.range();
    if start + ETHERNET > end {
        return Err(Drop::Truncated);
    }
    // SAFETY: compared with the end; both hardware addresses lie side by side as in the frame.
    unsafe { put(start, *(&raw const hop.dmac).cast::<[u32; 3]>()) };
    Ok(bytes.send(hop))
}

#[inline(always)]
fn spend_hop<B: Bytes, H: Header>(bytes: &B, packet: &Packet) -> Result<(), Drop> {
    if !packet.v4() {
        bytes.uncovered(ONE_HOP_V6);
    }
    let (start, end) = bytes.range();
    if start + H::L4 > end {
        return Err(Drop::Truncated);
    }
    // SAFETY: compared with the end.
    unsafe { H::spend(start) };
    Ok(())
}

/// Gives the packet the flow's tuple.
#[inline(always)]
fn rewrite<B: Bytes, H: Header>(bytes: &B, packet: &Packet, flow: &Flow, spend: bool) -> Result<(), Drop> {
    let (old, new) = (packet.tuple(), &flow.to);
    let difference = H::difference(old, new);
    let (was, becomes) = (pair(old), pair(new));
    let ports = if was == becomes { 0 } else { sum::difference(was, becomes) };
    if packet.proto() == SCTP {
        return rewrite_sctp::<B, H>(bytes, packet, flow, difference, spend);
    }
    let at = if packet.proto() == TCP { H::L4 + 16 } else { H::L4 + 6 };
    bytes.transport(packet, at, difference, ports)?;
    if spend && !packet.v4() {
        bytes.uncovered(ONE_HOP_V6);
    }
    let (start, end) = bytes.range();
    if start + H::L4 + 8 > end {
        return Err(Drop::Truncated);
    }
    // SAFETY: compared with the end.
    unsafe {
        H::write(start, new, difference, spend);
        if was != becomes {
            put(start + H::L4, becomes);
        }
    }
    Ok(())
}

/// Like [`rewrite`]; no checksum covers the addresses.
#[inline(always)]
fn rewrite_sctp<B: Bytes, H: Header>(
    bytes: &B,
    packet: &Packet,
    flow: &Flow,
    difference: u32,
    spend: bool,
) -> Result<(), Drop> {
    let (was, becomes) = (pair(packet.tuple()), pair(&flow.to));
    let change = if was == becomes { 0 } else { sctp::sctp_difference(was ^ becomes, packet.length) };
    if !packet.v4() {
        bytes.uncovered(difference);
        if spend {
            bytes.uncovered(ONE_HOP_V6);
        }
    }
    bytes.uncovered(sum::difference(was, becomes));
    let (start, end) = bytes.range();
    if start + H::L4 + sctp::HEAD > end {
        return Err(Drop::Truncated);
    }
    // SAFETY: compared with the end.
    let changed = unsafe {
        H::write(start, &flow.to, difference, spend);
        put(start + H::L4, becomes);
        let old: u32 = get(start + H::L4 + sctp::CHECKSUM);
        put(start + H::L4 + sctp::CHECKSUM, old ^ change);
        sum::difference(old, old ^ change)
    };
    bytes.uncovered(changed);
    Ok(())
}

/// What happens to the packets of a flow, for counting.
#[inline(always)]
pub fn path(flags: u32) -> Path {
    if flags & bits::FORWARD == 0 {
        Path::Reply
    } else if flags & bits::SERVICE != 0 {
        Path::Service
    } else {
        Path::Masquerade
    }
}
