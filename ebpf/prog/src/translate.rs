//! Translation on the wire: what the socket hooks did not see, and what comes from outside.

use abi::Addr16;
use abi::count::Path;
use abi::drops::Drop;
use abi::event::hook::{POD_IN, POD_OUT, UPLINK_IN};
use abi::flow::bits;
use abi::service::bits as service_kind;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;

use crate::deliver::{DELIVER, deliver, is_pod};
use crate::flow::Entry;
use crate::forward::{closes, path};
use crate::maps::{CONTROL, ENDPOINTS, Known, UNMASKED, Work, work};
use crate::packet::{ACK, Packet, Part, Ports, RST, SCTP, SYN, TCP};
use crate::service::{self, Client, Picked, same};
use crate::verdict::{Verdict, count, leave};
use crate::{
    ending, find, flow, fragment, hop, icmp_error, masquerade, nat, partner, policy, table, way, words,
};

/// Flags of a packet whose flow is still to be begun, see [`begin_and_deliver`].
pub const BEGINS: u32 = 1 << 31;

/// The entry of a packet that can have one by itself.
#[inline(always)]
pub fn entry(work: &mut Work) -> Option<Entry> {
    work.settles = 0;
    work.tunnelled = 0;
    work.back = 0;
    fragment::recall(work);
    let has_key = matches!(work.packet.ports, Ports::Pair | Ports::EchoRequest | Ports::EchoReply);
    if has_key { find::find(work) } else { None }
}

/// Gives the packet the tuple its flow says, or finds out that it begins one because it asks for a service. Flags are zero when
/// the packet stays as it is.
#[inline(always)]
pub fn translate(
    ctx: &TcContext,
    work: &mut Work,
    client: Client,
    entry: Option<Entry>,
) -> Result<u32, Drop> {
    match follow(ctx, work, entry)? {
        0 => ask(work, client),
        flags => Ok(flags),
    }
}

/// Finds out whether a packet without a flow begins one.
#[inline(always)]
pub fn ask(work: &mut Work, client: Client) -> Result<u32, Drop> {
    if matches!(work.packet.part, Part::Later) || matches!(work.packet.ports, Ports::Unread) {
        return unreadable(&work.packet).map_or(Ok(0), Err);
    }
    if !work.packet.has_ports() {
        return Ok(0);
    }
    if !partner::find(client)? {
        return Ok(0);
    }
    if work.packet.is_connection() && work.packet.tcp_flags & (SYN | ACK) != SYN {
        return Err(unknown_connection());
    }
    fragment::record(work);
    Ok(BEGINS)
}

/// Why a packet whose ports nobody knows is dropped: only where it asks for a service. Addresses of the node have a stack
/// behind them, which has its own opinion.
#[inline(always)]
fn unreadable(packet: &Packet) -> Option<Drop> {
    let dst = &packet.tuple().dst;
    if !service::is_candidate(dst) || nat::node_address(packet.v4()).is_some_and(|node| same(node, dst)) {
        return None;
    }
    Some(if matches!(packet.part, Part::Later) { Drop::FragmentOrder } else { Drop::ExtensionHeaders })
}

/// Gives the packet the tuple of the flow it belongs to, if it belongs to one.
#[inline(always)]
pub fn follow(ctx: &TcContext, work: &mut Work, entry: Option<Entry>) -> Result<u32, Drop> {
    if matches!(work.packet.ports, Ports::Error) {
        return icmp_error::follow(ctx);
    }
    let Some(entry) = entry else {
        return Ok(0);
    };
    policy::renew(work, entry)?;
    flow::touch(work, entry, flow::now());
    // SAFETY: see `Entry`.
    let (flags, generation, backend) = unsafe {
        let flow = entry.as_ref();
        words::copy(&mut work.to, &flow.to);
        (flow.flags, flow.generation, flow.backend)
    };
    hop::keep(work, hop::KNOWN);
    fragment::record(work);
    if flags & bits::PLAIN != 0 {
        if closes(&work.packet, flags) {
            ending::close(flags);
        }
        return Ok(flags);
    }
    let of_service = flags & (bits::FORWARD | bits::SERVICE) == bits::FORWARD | bits::SERVICE;
    if of_service && service::generation(backend) != generation {
        work.answer.tuple = work.to.reversed();
        work.answer.set_proto(work.packet.key.proto);
        ending::forget(&work.packet.key, &work.answer);
        work.settles = 0;
        // A datagram moves on to another backend at once; a connection cannot.
        return if work.packet.is_connection() { Err(Drop::BackendGone) } else { Ok(0) };
    }
    if flags & bits::DSR != 0 {
        work.settles = 0;
        work.tunnelled = 1;
        if work.packet.is_connection() && work.packet.tcp_flags & (SYN | ACK | RST) == ACK {
            flow::establish(work);
        }
    } else {
        nat::rewrite(ctx)?;
    }
    count(path(flags), u64::from(ctx.len()));
    Ok(flags)
}

/// Begins the flow that [`translate`] found a partner for, and delivers its first packet.
#[inline(always)]
pub fn begin_and_deliver(ctx: &TcContext, hook: u32) -> i32 {
    match begin_flow(ctx.skb.skb, hook) {
        DELIVER => deliver(ctx, hook),
        code => code,
    }
}

/// Verified by itself, and with its buffers off the callers' stacks.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_flow(skb: *mut __sk_buff, hook: u32) -> i32 {
    let ctx = TcContext::new(skb);
    let Some(work) = work() else {
        return leave(&ctx, hook, Err(Drop::FlowTable));
    };
    let begun = begin(&ctx, work, hook != UPLINK_IN).and_then(|()| {
        work.to = work.forward.to;
        work.tunnelled = work.forward.flags & bits::DSR;
        if work.tunnelled != 0 {
            return Ok(());
        }
        hop::keep(work, hop::NEW);
        nat::rewrite(&ctx)
    });
    match begun {
        Ok(()) => {
            count(Path::Service, u64::from(ctx.len()));
            DELIVER
        }
        Err(reason) => leave(&ctx, hook, Err(reason)),
    }
}

/// Remembers a new flow to the partner that was found.
///
/// The client keeps its address where the answer is sure to come back this way: from pods of this node (unless the pod
/// would talk to itself), and towards backends of this node.
#[inline(always)]
fn begin(ctx: &TcContext, work: &mut Work, inside: bool) -> Result<(), Drop> {
    let Picked { backend, generation, service, bits: service_bits } = work.scratch.picked;
    let hide = if inside {
        same(&backend.addr, &work.packet.tuple().src)
    } else {
        !is_here(&backend.addr, work.packet.v4())
    };
    flow::prepare(work, &backend.addr, backend.port);
    policy::admit(work)?;
    work.forward.backend = backend.id;
    work.forward.generation = generation;
    work.forward.service = service;
    work.forward.flags = bits::FORWARD | bits::SERVICE;
    if service_bits & service_kind::LEAST != 0 {
        work.forward.flags |= bits::COUNTED;
    }
    if hide && !inside && service_bits & service_kind::DSR != 0 && matches!(work.packet.part, Part::Whole) {
        work.forward.flags |= bits::DSR;
        return flow::create(work);
    }
    if hide {
        work.forward.flags |= bits::MASQUERADE;
        return masquerade::create(ctx, work);
    }
    flow::create(work)
}

/// Why a packet in the middle of a connection we do not know is dropped: it is not refused while flows are still being
/// taken over from another agent's tables.
#[inline(always)]
fn unknown_connection() -> Drop {
    let converting = CONTROL.get_ptr(0).is_some_and(|control| {
        // SAFETY: array elements live as long as the map; the agent stores whole words.
        unsafe { core::ptr::read_volatile(&raw const (*control).grace) > flow::now() }
    });
    if converting { Drop::Converting } else { Drop::NoFlow }
}

/// Remembers a flow that is not translated, if policy lets it begin, and sends its first packet on.
#[inline(always)]
pub fn track_and_deliver(ctx: &TcContext, hook: u32) -> i32 {
    match track(ctx.skb.skb, hook) {
        DELIVER => deliver(ctx, hook),
        code => code,
    }
}

/// Verified by itself, and with its buffers off the callers' stacks.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn track(skb: *mut __sk_buff, hook: u32) -> i32 {
    let ctx = TcContext::new(skb);
    let begun = work().ok_or(Drop::FlowTable).and_then(|work| begin_plain(&ctx, work, hook));
    match begun {
        Ok(()) if hook == POD_IN => leave(&ctx, hook, Ok(Verdict::Stack)),
        Ok(()) => DELIVER,
        Err(reason) => leave(&ctx, hook, Err(reason)),
    }
}

#[inline(always)]
fn begin_plain(ctx: &TcContext, work: &mut Work, hook: u32) -> Result<(), Drop> {
    let asks = work.packet.asks();
    if !asks && find::answer_plain() != 0 {
        return answer(work);
    }
    let (dst, dport) = (work.packet.tuple().dst, work.packet.tuple().dport);
    flow::prepare(work, &dst, dport);
    work.forward.flags = bits::FORWARD | bits::PLAIN;
    if hook == POD_OUT && !is_pod(&dst) {
        work.forward.flags |= bits::OUTWARD;
    }
    policy::admit(work)?;
    // Before it came out of a pod or in by an uplink, no other hook has translated it.
    let is_untouched = asks && hook != POD_IN;
    if !is_untouched {
        flow::prepare_answer(work);
        if flow::answer_is_known(work) {
            // Its answers are those of the flow that another hook has translated.
            return Ok(());
        }
    }
    let kept = matches!(work.packet.ports, Ports::Pair | Ports::EchoRequest);
    if kept && !matches!(work.packet.part, Part::Later) && work.packet.tcp_flags & RST == 0 {
        fragment::record(work);
        // A flow that finds no room is asked about with every packet.
        let kept = hook != POD_IN && settle(ctx, work);
        if flow::begin(work) {
            hop::keep(work, if kept { hop::KEPT } else { hop::KNOWN });
        }
    }
    Ok(())
}

/// Gives a flow that begins the next hops of both directions, as far as they are known: policy has found pods of this node. Answers
/// whether the packet's own is.
#[inline(always)]
fn settle(ctx: &TcContext, work: &mut Work) -> bool {
    if work.forward.hop.seen == 0 {
        // SAFETY: a plain field of the context.
        let device = unsafe { (*ctx.skb.skb).ifindex };
        match way::known(ctx, &work.packet, device) {
            Some(hop) => words::copy(&mut work.forward.hop, hop),
            None => return false,
        }
    }
    if work.forward.back.seen == 0
        && let Some(hop) = way::back(&work.packet, work.forward.hop.ifindex)
    {
        words::copy(&mut work.forward.back, hop);
    }
    words::copy(&mut work.hop, &work.forward.hop);
    true
}

/// Lets a packet pass that has turned out to be the first answer to a flow.
#[inline(always)]
fn answer(work: &mut Work) -> Result<(), Drop> {
    work.known = Known::Unseen;
    let Some(entry) = find::find(work) else {
        return Ok(());
    };
    policy::renew(work, entry)?;
    flow::touch(work, entry, flow::now());
    hop::keep(work, hop::KNOWN);
    Ok(())
}

/// Hides a pod behind the node's address on its way out, unless it answers somebody who began.
#[inline(always)]
pub fn hide(ctx: &TcContext, work: &mut Work) -> Result<(), Drop> {
    if matches!(work.packet.part, Part::Later) {
        return Err(Drop::FragmentOrder);
    }
    // Of a connection whose beginning was not seen nobody knows who began it.
    let begins = match work.packet.proto() {
        TCP | SCTP => work.packet.tcp_flags & (SYN | ACK) == SYN,
        _ => !matches!(work.packet.ports, Ports::Error),
    };
    if !begins || is_unmasked(&work.packet.tuple().dst) {
        flow::stays(work);
        return Ok(());
    }
    let (dst, dport) = (work.packet.tuple().dst, work.packet.tuple().dport);
    flow::prepare(work, &dst, dport);
    work.forward.flags = bits::FORWARD | bits::MASQUERADE;
    fragment::record(work);
    masquerade::create(ctx, work)?;
    // What was remembered under the pod's own address.
    work.answer.tuple = work.packet.key.tuple.reversed();
    table::forget(&work.answer);
    work.to = work.forward.to;
    nat::rewrite(ctx)?;
    count(Path::Masquerade, u64::from(ctx.len()));
    Ok(())
}

/// Whether pods reach this address under their own.
#[inline(always)]
fn is_unmasked(addr: &Addr16) -> bool {
    UNMASKED.get(&Key::new(128, *addr)).is_some()
}

/// Whether packets for `addr` end on this node.
#[inline(always)]
fn is_here(addr: &Addr16, v4: bool) -> bool {
    ENDPOINTS.get_ptr(addr).is_some() || nat::node_address(v4).is_some_and(|node| same(node, addr))
}
