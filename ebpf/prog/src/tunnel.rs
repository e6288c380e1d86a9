//! Direct answers: packets for a service whose backend is on another node travel there whole, in an IP tunnel addressed to the
//! backend, and that node answers the client in the service's name.
//!
//! ```text
//!  client ---> VIP:port        this node     IP(node -> pod) [ client -> VIP:port ]     the pod's node
//!  client <--- VIP:port  <------------------------------------------------------------- pod
//! ```
//!
//! The pod's port travels in the outer header, in the place of what names fragments: the outer packet is never fragmented.

use abi::Be16;
use abi::count::Path;
use abi::drops::Drop;
use abi::flow::bits;
use abi::service::{FrontendKey, bits as service_kind};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{__sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6};
use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use aya_ebpf::programs::TcContext;

use crate::bytes::Bytes;
use crate::deliver::{DELIVER, hops_left, route, spend_hop, to_neighbour};
use crate::maps::{ENDPOINTS, FRONTENDS, SERVICES, Work, work};
use crate::nat::{load_into, node_address, store_bytes};
use crate::packet::{ETHERNET, Packet, Plain, SCTP, TCP, UDP, parse, parse_plain};
use crate::service::same;
use crate::verdict::{Verdict, count, leave};
use crate::{find, flow, nat, policy, refuse, sum};

/// IPv4 and IPv6 inside an IP packet.
const IPIP: u8 = 4;
const IPV6: u8 = 41;
/// Hops of the outer packet.
const HOPS: u8 = 64;
/// What every link carries (RFC 8200, 5): told where the route's own size is not known.
const SMALLEST: u32 = 1280;
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGH: i64 = 7;
const FIB_TOO_BIG: i64 = 8;

/// Bytes of the outer header.
#[inline(always)]
fn overhead(v4: bool) -> u32 {
    if v4 { 20 } else { 40 }
}

/// Sends the packet to the node of its backend, and leaves the program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn encapsulate_skb(skb: *mut __sk_buff, hook: u32) -> i32 {
    let ctx = TcContext::new(skb);
    let result = work().ok_or(Drop::FlowTable).and_then(|work| encapsulate(&ctx, work));
    let too_big = matches!(result, Err(Drop::TooBig));
    let code = leave(&ctx, hook, result);
    // The client is told as by the router that the tunnel looks like to it.
    if too_big { refuse::too_big(&ctx, 0) } else { code }
}

#[inline(always)]
fn encapsulate(ctx: &TcContext, work: &mut Work) -> Result<Verdict, Drop> {
    let v4 = work.packet.v4();
    let Some(hops) = hops_left(ctx, &work.packet) else {
        return Ok(Verdict::Stack);
    };
    let own = *node_address(v4).ok_or(Drop::Rewrite)?;
    let longest = ctx.largest(&work.packet) + overhead(v4);
    let (found, request) = route(ctx, v4, &own, &work.to.dst, longest);
    match found {
        FIB_SUCCESS | FIB_NO_NEIGH => {}
        FIB_TOO_BIG => {
            // SAFETY: both members of the union are sixteen bits; this one is the route's.
            let mtu = u32::from(unsafe { request.__bindgen_anon_1.mtu_result });
            // Kernels before 5.12 give back what they were asked.
            work.hop.mtu = if mtu < longest { mtu.saturating_sub(overhead(v4)) } else { SMALLEST };
            return Err(Drop::TooBig);
        }
        _ => return Err(Drop::Rewrite),
    }
    spend_hop(ctx, &work.packet, hops)?;
    let length = ctx.len() - ETHERNET as u32;
    let flags = if v4 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 };
    // SAFETY: the context is the program's own.
    let code = unsafe {
        bpf_skb_adjust_room(ctx.as_ptr().cast(), overhead(v4) as i32, BPF_ADJ_ROOM_MAC, u64::from(flags))
    };
    if code != 0 {
        return Err(Drop::Rewrite);
    }
    outer_header(work, v4, length, &own);
    store_bytes(ctx, ETHERNET, work.buffer.as_ptr().cast(), overhead(v4))?;
    count(Path::Encapsulated, u64::from(ctx.len()));
    Ok(Verdict::Sent(Path::Remote, to_neighbour(&request)))
}

/// Writes the header around `length` bytes into the buffer.
#[inline(always)]
fn outer_header(work: &mut Work, v4: bool, length: u32, own: &abi::Addr16) {
    let (port, dst) = (work.to.dport.host(), work.to.dst);
    let header = &mut work.buffer;
    if v4 {
        let [high, low] = ((length + 20) as u16).to_be_bytes();
        header[0] = u32::from_ne_bytes([0x45, 0, high, low]);
        let [high, low] = port.to_be_bytes();
        header[1] = u32::from_ne_bytes([high, low, 0x40, 0]);
        header[2] = u32::from_ne_bytes([HOPS, IPIP, 0, 0]);
        header[3] = own.words()[3];
        header[4] = dst.words()[3];
        let mut all = 0;
        for word in 0..5 {
            all += u64::from(header[word]);
        }
        header[2] |= u32::from(sum::update(0xffff, sum::fold(all), 0)) << 16;
    } else {
        let [high, low] = port.to_be_bytes();
        header[0] = u32::from_ne_bytes([0x60, 0, high, low]);
        let [high, low] = (length as u16).to_be_bytes();
        header[1] = u32::from_ne_bytes([high, low, IPV6, HOPS]);
        let (src, dst) = (own.words(), dst.words());
        for word in 0..4 {
            header[2 + word] = src[word];
            header[6 + word] = dst[word];
        }
    }
}

/// Whether the packet may be one of [`encapsulate_skb`], for a pod of this node.
#[inline(always)]
pub fn may_arrive(packet: &Packet) -> bool {
    let inside = if packet.v4() { IPIP } else { IPV6 };
    packet.proto() == inside && !packet.is_fragment() && ENDPOINTS.get_ptr(&packet.tuple().dst).is_some()
}

/// Takes the packet out of the tunnel and gives it its pod, if it asks for a service that answers directly. All other tunnels
/// are the stack's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decapsulate_skb(skb: *mut __sk_buff, hook: u32) -> i32 {
    let ctx = TcContext::new(skb);
    match work().ok_or(Drop::FlowTable).and_then(|work| decapsulate(&ctx, work)) {
        Ok(true) => DELIVER,
        Ok(false) => leave(&ctx, hook, Ok(Verdict::Stack)),
        Err(reason) => leave(&ctx, hook, Err(reason)),
    }
}

#[inline(always)]
fn decapsulate(ctx: &TcContext, work: &mut Work) -> Result<bool, Drop> {
    let v4 = work.packet.v4();
    if work.packet.l4 != ETHERNET as u32 + overhead(v4) || !answers_directly(ctx, work) {
        return Ok(false);
    }
    load_into(ctx, ETHERNET, &mut work.buffer, 2)?;
    let port = if v4 { work.buffer[1] as u16 } else { (work.buffer[0] >> 16) as u16 };
    let pod = work.packet.key.tuple.dst;
    let room = -(overhead(v4) as i32);
    // SAFETY: the context is the program's own.
    if unsafe { bpf_skb_adjust_room(ctx.as_ptr().cast(), room, BPF_ADJ_ROOM_MAC, 0) } != 0 {
        return Err(Drop::Rewrite);
    }
    count(Path::Decapsulated, u64::from(ctx.len()));
    if !parse_plain(ctx, &mut work.packet) {
        work.packet.plain = Plain::No;
        _ = parse(ctx, &mut work.packet)?;
    }
    let known = find::find(work).filter(|entry| {
        // SAFETY: see `Entry`.
        let flow = unsafe { entry.as_ref() };
        same(&flow.to.dst, &pod) && flow.to.dport.be == port
    });
    match known {
        Some(entry) => {
            policy::renew(work, entry)?;
            flow::touch(work, entry, flow::now());
        }
        None => {
            // The node that sent it has decided; what is lost here is begun again.
            flow::prepare(work, &pod, Be16 { be: port });
            policy::admit(work)?;
            work.forward.flags = bits::FORWARD | bits::SERVICE;
            flow::create(work)?;
        }
    }
    work.to = work.packet.key.tuple;
    work.to.dst = pod;
    work.to.dport = Be16 { be: port };
    nat::rewrite(ctx)?;
    count(Path::Service, u64::from(ctx.len()));
    work.settles = 0;
    Ok(true)
}

/// Whether the packet inside is for a frontend of a service whose backends answer directly.
#[inline(always)]
fn answers_directly(ctx: &TcContext, work: &mut Work) -> bool {
    let at = work.packet.l4 as usize;
    let (proto, l4) = if work.packet.v4() {
        if load_into(ctx, at, &mut work.buffer, 5).is_err() || work.buffer[0] & 0xff != 0x45 {
            return false;
        }
        // Fragments have no ports for all of them.
        if (work.buffer[1] >> 16) as u16 & 0x3fff_u16.to_be() != 0 {
            return false;
        }
        work.scratch.front.addr = abi::Addr16::from_v4_word(work.buffer[4]);
        ((work.buffer[2] >> 8) as u8, at + 20)
    } else {
        if load_into(ctx, at, &mut work.buffer, 10).is_err() || work.buffer[0] & 0xf0 != 0x60 {
            return false;
        }
        let header = &work.buffer;
        work.scratch.front.addr = abi::Addr16::from_words([header[6], header[7], header[8], header[9]]);
        ((work.buffer[1] >> 16) as u8, at + 40)
    };
    if !matches!(proto, TCP | UDP | SCTP) || load_into(ctx, l4, &mut work.buffer, 1).is_err() {
        return false;
    }
    let front: &mut FrontendKey = &mut work.scratch.front;
    front.port = Be16 { be: (work.buffer[0] >> 16) as u16 };
    front.proto = proto;
    front.zero = 0;
    let Some(frontend) = FRONTENDS.get_ptr(&*front) else {
        return false;
    };
    // SAFETY: the program runs under RCU; the field is read once.
    let Some(service) = SERVICES.get_ptr(unsafe { (*frontend).service }) else {
        return false;
    };
    // SAFETY: array elements live as long as the map.
    unsafe { core::ptr::read_volatile(&raw const (*service).flags) & service_kind::DSR != 0 }
}
