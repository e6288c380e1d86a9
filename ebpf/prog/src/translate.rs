//! Translation on the wire: what the socket hooks did not see, and what comes from outside.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::bits;
use abi::service::bits as service_bits;
use abi::{Addr16, Be16};
use aya_ebpf::programs::TcContext;

use crate::flow::Entry;
use crate::forward::path;
use crate::maps::{ENDPOINTS, Known, Work};
use crate::packet::{ACK, Packet, Ports, SYN, TCP};
use crate::service::{self, Ask, Client, Lookup, Picked, same};
use crate::verdict::count;
use crate::{flow, icmp_error, masquerade, nat};

/// The entry of a packet that can have one by itself.
#[inline(always)]
pub fn entry(work: &mut Work) -> Option<Entry> {
    work.settles = 0;
    if work.packet.is_fragment()
        || !matches!(work.packet.ports, Ports::Pair | Ports::EchoRequest | Ports::EchoReply)
    {
        return None;
    }
    if matches!(work.known, Known::No) {
        return None;
    }
    flow::find(work)
}

/// Gives the packet the tuple its flow says, beginning a flow if it asks for a service. Flags are zero when the packet stays
/// as it is.
#[inline(always)]
pub fn translate(
    ctx: &TcContext,
    work: &mut Work,
    client: Client,
    entry: Option<Entry>,
) -> Result<u32, Drop> {
    let inside = matches!(client, Client::Inside);
    if work.packet.is_fragment() {
        return if inside && service::is_candidate(&work.packet.tuple().dst) {
            Err(Drop::Fragment)
        } else {
            Ok(0)
        };
    }
    let flags = follow(ctx, work, entry)?;
    if flags != 0 || !work.packet.has_ports() {
        return Ok(flags);
    }
    if inside && !service::is_candidate(&work.packet.tuple().dst) {
        return Ok(0);
    }
    let Some(picked) = ask(&work.packet, client)? else {
        return Ok(0);
    };
    if work.packet.proto() == TCP && work.packet.tcp_flags & (SYN | ACK) != SYN {
        return Err(Drop::NoFlow);
    }
    begin(work, &picked, inside)?;
    work.to = work.forward.to;
    nat::rewrite(ctx)?;
    count(Path::Service, u64::from(ctx.len()));
    Ok(work.forward.flags)
}

/// The backend for a packet that begins a flow to a service; none if it asks for no service.
#[inline(always)]
fn ask(packet: &Packet, client: Client) -> Result<Option<Picked>, Drop> {
    let asked = packet.tuple();
    let ask = Ask {
        addr: &asked.dst,
        port: asked.dport,
        proto: packet.proto(),
        client,
        spread: service::spread(&asked.src, nat::pair(asked), packet.proto()),
    };
    match service::lookup(&ask, || asked.src) {
        Lookup::Picked(picked) => Ok(Some(picked)),
        Lookup::NotAService => Ok(None),
        Lookup::Nobody => Err(Drop::NoBackend),
        Lookup::NobodyHere => Err(Drop::NoLocalBackend),
        Lookup::NotAdmitted => Err(Drop::SourceRange),
        Lookup::UnknownPort => Err(Drop::UnknownPort),
        Lookup::Unallocated => Err(Drop::Unallocated),
    }
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
    flow::touch(&work.packet, entry, flow::now());
    // SAFETY: see `Entry`.
    let (flags, generation, backend) = unsafe {
        let flow = entry.as_ref();
        work.to = flow.to;
        (flow.flags, flow.generation, flow.backend)
    };
    work.origin = work.packet.key;
    work.settles = 1;
    if flags & bits::PLAIN != 0 {
        return Ok(flags);
    }
    let of_service = flags & (bits::FORWARD | bits::SERVICE) == bits::FORWARD | bits::SERVICE;
    if of_service && service::generation(backend) != generation {
        work.answer.tuple = work.to.reversed();
        work.answer.proto = work.packet.key.proto;
        work.answer.zero = [0; 3];
        flow::forget(&work.packet.key, &work.answer);
        work.settles = 0;
        // A datagram moves on to another backend at once; a connection cannot.
        return if work.packet.proto() == TCP { Err(Drop::BackendGone) } else { Ok(0) };
    }
    nat::rewrite(ctx)?;
    count(path(flags), u64::from(ctx.len()));
    Ok(flags)
}

/// Remembers a new flow to `picked`.
///
/// The client keeps its address where the answer is sure to come back this way: from pods of this node (unless the pod
/// would talk to itself), and towards backends of this node.
#[inline(always)]
fn begin(work: &mut Work, picked: &Picked, inside: bool) -> Result<(), Drop> {
    let backend = &picked.backend;
    let hide = if inside {
        same(&backend.addr, &work.packet.tuple().src)
    } else {
        !is_here(&backend.addr, work.packet.v4())
    };
    prepare(work, &backend.addr, backend.port);
    work.forward.backend = backend.id;
    work.forward.generation = picked.generation;
    work.forward.service = picked.service;
    work.forward.flags = bits::FORWARD | bits::SERVICE;
    if picked.bits & service_bits::LEAST != 0 {
        work.forward.flags |= bits::COUNTED;
        service::connected(backend.id);
    }
    if hide {
        work.forward.flags |= bits::MASQUERADE;
        return masquerade::create(work);
    }
    flow::create(work)
}

/// Hides a pod behind the node's address on its way out, unless it answers somebody who began.
///
/// TCP says itself who began; for the rest [`remember_stranger`] has.
#[inline(always)]
pub fn hide(ctx: &TcContext, work: &mut Work, entry: Option<Entry>) -> Result<(), Drop> {
    if work.packet.is_fragment() {
        return Err(Drop::Fragment);
    }
    if follow(ctx, work, entry)? != 0 {
        return Ok(());
    }
    let begins = match work.packet.proto() {
        TCP => work.packet.tcp_flags & (SYN | ACK) == SYN,
        _ => !matches!(work.packet.ports, Ports::Error),
    };
    if !begins {
        return Ok(());
    }
    let (dst, dport) = (work.packet.tuple().dst, work.packet.tuple().dport);
    prepare(work, &dst, dport);
    work.forward.flags = bits::FORWARD | bits::MASQUERADE;
    masquerade::create(work)?;
    work.to = work.forward.to;
    nat::rewrite(ctx)?;
    count(Path::Masquerade, u64::from(ctx.len()));
    Ok(())
}

/// Remembers that a packet from outside the cluster began a conversation with a pod.
#[inline(always)]
pub fn remember_stranger(work: &mut Work) -> Result<(), Drop> {
    let begins = match work.packet.ports {
        Ports::Pair => work.packet.proto() != TCP,
        Ports::EchoRequest => true,
        Ports::EchoReply | Ports::Error | Ports::None => false,
    };
    if !begins || work.packet.is_fragment() {
        return Ok(());
    }
    let (dst, dport) = (work.packet.tuple().dst, work.packet.tuple().dport);
    prepare(work, &dst, dport);
    work.forward.flags = bits::FORWARD | bits::PLAIN;
    flow::create(work)
}

/// Fills a new flow that goes to `dst`.
#[inline(always)]
fn prepare(work: &mut Work, dst: &Addr16, dport: Be16) {
    let from = &work.packet.key.tuple;
    work.forward.to.src = from.src;
    work.forward.to.sport = from.sport;
    work.forward.to.dst = *dst;
    work.forward.to.dport = dport;
    work.forward.backend = 0;
    work.forward.generation = 0;
    work.forward.service = 0;
    work.forward.last_seen = flow::now();
    work.forward.hop.seen = 0;
}

/// Whether packets for `addr` end on this node.
#[inline(always)]
fn is_here(addr: &Addr16, v4: bool) -> bool {
    ENDPOINTS.get_ptr(addr).is_some() || nat::node_address(v4).is_some_and(|node| same(node, addr))
}
