//! Delivery: to a pod of this node, to the host, or along the routes.

use abi::Addr16;
use abi::count::Path;
use abi::drops::Drop;
use abi::event::hook::{UPLINK_IN, UPLINK_OUT};
use abi::flow::Hop;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, bpf_fib_lookup as FibLookup, bpf_redir_neigh};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_l3_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
};
use aya_ebpf::programs::TcContext;

use crate::bytes::Bytes;
use crate::flow;
use crate::forward::ONE_HOP_V6;
use crate::hop;
use crate::maps::{ENDPOINTS, Work, node, work};
use crate::nat::{node_address, store, store_bytes};
use crate::packet::{ETHERNET, Packet};
use crate::refuse;
use crate::service::same;
use crate::tunnel::encapsulate_skb;
use crate::verdict::{Verdict, leave};
use crate::{way, words};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const FIB_SUCCESS: i64 = 0;
const FIB_FORWARDING_OFF: i64 = 5;
const FIB_NO_NEIGH: i64 = 7;
const FIB_TOO_BIG: i64 = 8;

/// What a program answers with that leaves the rest to [`deliver`]; no code of the kernel's.
pub const DELIVER: i32 = -100;
/// The same, before the packet's flow is begun.
pub const BEGIN: i32 = -101;
/// A pod has to be hidden first.
pub const HIDE: i32 = -104;
/// A tunnel has to be taken off first.
pub const TUNNEL: i32 = -103;
/// The same, before it is asked whether the packet's flow may begin, and remembered untranslated.
pub const TRACK: i32 = -105;
/// The same, before anything was done: it is no plain packet of a known flow.
pub const REST: i32 = -102;

/// Sends the packet where its destination is, and leaves the program. The packet's flow remembers where that was.
#[inline(always)]
pub fn deliver(ctx: &TcContext, hook: u32) -> i32 {
    match work() {
        Some(work) if work.tunnelled != 0 => encapsulate_skb(ctx.skb.skb, hook),
        _ => deliver_skb(ctx.skb.skb, hook),
    }
}

/// Verified by itself, and with its buffers off the callers' stacks.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn deliver_skb(skb: *mut __sk_buff, hook: u32) -> i32 {
    let ctx = TcContext::new(skb);
    let result = work().ok_or(Drop::FlowTable).and_then(|work| send(&ctx, work, hook));
    let too_big = matches!(result, Err(Drop::TooBig));
    let code = leave(&ctx, hook, result);
    if !too_big {
        return code;
    }
    // What it is told meets the same flow: a pod's on the way to it, one from outside as if it had come by here.
    refuse::too_big(&ctx, if hook == UPLINK_IN { u64::from(BPF_F_INGRESS) } else { 0 })
}

#[inline(always)]
fn send(ctx: &TcContext, work: &mut Work, hook: u32) -> Result<Verdict, Drop> {
    if work.settles == hop::KEPT {
        return go(ctx, work, hook);
    }
    if let Some(verdict) = to_pod(ctx, work, hook)? {
        return Ok(verdict);
    }
    if is_host(&work.packet) {
        work.hop = Hop { ifindex: 0, dmac: [0; 6], smac: [0; 6], seen: flow::now(), mtu: 0 };
        hop::settle(work);
        return if hook == UPLINK_OUT { back_in(ctx) } else { Ok(Verdict::Stack) };
    }
    along_routes(ctx, work, hook)
}

/// Sends the first packet of a flow where it was found to go when that began.
#[inline(always)]
fn go(ctx: &TcContext, work: &Work, hook: u32) -> Result<Verdict, Drop> {
    if work.hop.mtu == 0 {
        return put_in(ctx, work, hook);
    }
    match hops_left(ctx, &work.packet) {
        Some(hops) => along(ctx, work, hops),
        None => Ok(Verdict::Stack),
    }
}

/// Delivers to a pod of this node, if the destination is one.
#[inline(always)]
pub fn to_pod(ctx: &TcContext, work: &mut Work, hook: u32) -> Result<Option<Verdict>, Drop> {
    let Some(endpoint) = ENDPOINTS.get_ptr(&work.packet.key.tuple.dst) else {
        return Ok(None);
    };
    // SAFETY: the program runs under RCU: the element's memory stays valid.
    hop::lead_to(&mut work.hop, unsafe { &*endpoint }, flow::now());
    hop::settle(work);
    put_in(ctx, work, hook).map(Some)
}

/// Puts the packet into its pod, of which [`Work::hop`] tells.
#[inline(always)]
fn put_in(ctx: &TcContext, work: &Work, hook: u32) -> Result<Verdict, Drop> {
    write_frame(ctx, work)?;
    // Only what comes in can be put into the pod's namespace directly.
    // SAFETY: the helpers check the device.
    let code = unsafe {
        if hook == UPLINK_OUT {
            bpf_redirect(work.hop.ifindex, 0)
        } else {
            bpf_redirect_peer(work.hop.ifindex, 0)
        }
    };
    Ok(Verdict::Sent(Path::Pod, code as i32))
}

/// Writes both hardware addresses of [`Work::hop`].
#[inline(always)]
fn write_frame(ctx: &TcContext, work: &Work) -> Result<(), Drop> {
    store_bytes(ctx, 0, (&raw const work.hop.dmac).cast(), 12)
}

/// Gives the host what it has sent itself through a service: as if it came in where it was going out.
#[inline(always)]
fn back_in(ctx: &TcContext) -> Result<Verdict, Drop> {
    let macs: [[u8; 6]; 2] = ctx.load(0).map_err(|_| Drop::Truncated)?;
    store(ctx, 0, &[macs[1], macs[1]])?;
    // SAFETY: a plain field of the context; the helper checks the device.
    let code = unsafe { bpf_redirect((*ctx.skb.skb).ifindex, u64::from(BPF_F_INGRESS)) };
    Ok(Verdict::Sent(Path::Stack, code as i32))
}

#[inline(always)]
fn is_host(packet: &Packet) -> bool {
    node_address(packet.v4()).is_some_and(|address| same(address, &packet.tuple().dst))
}

/// Sends the packet as the routing table says. Everything unusual (no route, too big, time exceeded) is the stack's, which
/// answers with the right ICMP error; only IPv6 packets that are too big are answered here, because the stack forwards none
/// as long as the machine as a whole does not.
#[inline(always)]
fn along_routes(ctx: &TcContext, work: &mut Work, hook: u32) -> Result<Verdict, Drop> {
    let packet = &work.packet;
    if is_unroutable(&packet.tuple().dst) {
        return Ok(Verdict::Stack);
    }
    let Some(hops) = hops_left(ctx, packet) else {
        return Ok(Verdict::Stack);
    };
    // SAFETY: a plain field of the context.
    let device = unsafe { (*ctx.skb.skb).ifindex };
    if let Some(hop) = way::known(ctx, packet, device) {
        words::copy(&mut work.hop, hop);
        return along(ctx, work, hops);
    }
    let mut request = request(ctx, packet, device);
    let mut found = look_up(ctx, &mut request);
    if found == FIB_FORWARDING_OFF && node().router != 0 {
        // Uplinks keep the machine's own forwarding setting; what came in there leaves as if it came by a device of ours.
        request = self::request(ctx, packet, node().router);
        found = look_up(ctx, &mut request);
    }
    match found {
        FIB_SUCCESS => {
            work.hop.ifindex = request.ifindex;
            work.hop.dmac = request.dmac;
            work.hop.smac = request.smac;
            work.hop.mtu = mtu(&request);
            work.hop.seen = flow::now();
            hop::settle(work);
            way::remember(&work.packet, device, &work.hop);
        }
        FIB_NO_NEIGH => {}
        // Kernels before 5.12 answer with the packet's own length.
        FIB_TOO_BIG if !packet.v4() && hook != UPLINK_OUT && mtu(&request) < ctx.largest(packet) => {
            work.hop.mtu = mtu(&request);
            return Err(Drop::TooBig);
        }
        FIB_FORWARDING_OFF => {
            spend_hop(ctx, packet, hops)?;
            // SAFETY: the helper looks the next hop up itself.
            let code = unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) };
            return Ok(Verdict::Sent(Path::Remote, code as i32));
        }
        _ => return Ok(Verdict::Stack),
    }
    spend_hop(ctx, &work.packet, hops)?;
    // Also where the hardware address is known: only the kernel's own way checks now and then that it still holds.
    Ok(Verdict::Sent(Path::Remote, to_neighbour(&request)))
}

/// Sends the packet where the last one like it went.
#[inline(always)]
fn along(ctx: &TcContext, work: &Work, hops: u8) -> Result<Verdict, Drop> {
    hop::settle(work);
    spend_hop(ctx, &work.packet, hops)?;
    write_frame(ctx, work)?;
    // SAFETY: the helper checks the device.
    let code = unsafe { bpf_redirect(work.hop.ifindex, 0) };
    Ok(Verdict::Sent(Path::Remote, code as i32))
}

/// Looks up the way of a packet between two addresses that is `length` bytes long.
#[inline(always)]
pub fn route(ctx: &TcContext, v4: bool, src: &Addr16, dst: &Addr16, length: u32) -> (i64, FibLookup) {
    // SAFETY: a plain field of the context.
    let device = unsafe { (*ctx.skb.skb).ifindex };
    let ask = |device| {
        // SAFETY: all-zero bytes are a valid request.
        let mut request: FibLookup = unsafe { core::mem::zeroed() };
        request.family = if v4 { AF_INET } else { AF_INET6 };
        request.ifindex = device;
        request.__bindgen_anon_1.tot_len = length as u16;
        if v4 {
            request.__bindgen_anon_3.ipv4_src = src.words()[3];
            request.__bindgen_anon_4.ipv4_dst = dst.words()[3];
        } else {
            request.__bindgen_anon_3.ipv6_src = src.words();
            request.__bindgen_anon_4.ipv6_dst = dst.words();
        }
        request
    };
    let mut request = ask(device);
    let mut found = look_up(ctx, &mut request);
    if found == FIB_FORWARDING_OFF && node().router != 0 {
        request = ask(node().router);
        found = look_up(ctx, &mut request);
    }
    (found, request)
}

#[inline(always)]
fn request(ctx: &TcContext, packet: &Packet, device: u32) -> FibLookup {
    // SAFETY: all-zero bytes are a valid request.
    let mut request: FibLookup = unsafe { core::mem::zeroed() };
    request.family = if packet.v4() { AF_INET } else { AF_INET6 };
    request.l4_protocol = packet.proto();
    request.ifindex = device;
    request.__bindgen_anon_1.tot_len = ctx.largest(packet) as u16;
    if packet.v4() {
        request.__bindgen_anon_3.ipv4_src = packet.tuple().src.words()[3];
        request.__bindgen_anon_4.ipv4_dst = packet.tuple().dst.words()[3];
    } else {
        request.__bindgen_anon_3.ipv6_src = packet.tuple().src.words();
        request.__bindgen_anon_4.ipv6_dst = packet.tuple().dst.words();
    }
    request
}

#[inline(always)]
fn look_up(ctx: &TcContext, request: &mut FibLookup) -> i64 {
    // SAFETY: the request is initialized and as long as stated.
    unsafe { bpf_fib_lookup(ctx.as_ptr().cast(), &raw mut *request, size_of::<FibLookup>() as i32, 0) }
}

/// Largest packet of the route; on kernels that do not say (before 5.12), the length of the packet that was asked for.
#[inline(always)]
fn mtu(request: &FibLookup) -> u32 {
    // SAFETY: both members of the union are sixteen bits.
    u32::from(unsafe { request.__bindgen_anon_1.mtu_result })
}

/// Lets the kernel resolve the next hop's hardware address.
#[inline(always)]
pub fn to_neighbour(request: &FibLookup) -> i32 {
    // SAFETY: all-zero bytes are a valid next hop; the union is read as the family says.
    unsafe {
        let mut next: bpf_redir_neigh = core::mem::zeroed();
        next.nh_family = u32::from(request.family);
        if request.family == AF_INET {
            next.__bindgen_anon_1.ipv4_nh = request.__bindgen_anon_4.ipv4_dst;
        } else {
            next.__bindgen_anon_1.ipv6_nh = request.__bindgen_anon_4.ipv6_dst;
        }
        bpf_redirect_neigh(request.ifindex, &raw mut next, size_of::<bpf_redir_neigh>() as i32, 0) as i32
    }
}

/// Whether an address is one of the cluster's pods.
#[inline(always)]
pub fn is_pod(address: &Addr16) -> bool {
    let pods = &node().pods;
    pods[0].contains(address) || pods[1].contains(address)
}

/// Multicast and link-local destinations stay on their link.
#[inline(always)]
fn is_unroutable(dst: &Addr16) -> bool {
    if dst.is_v4() {
        let first = dst.bytes[12];
        first >= 224 || (first == 169 && dst.bytes[13] == 254)
    } else {
        dst.bytes[0] == 0xff || (dst.bytes[0] == 0xfe && dst.bytes[1] & 0xc0 == 0x80)
    }
}

/// The TTL or hop limit, if it allows another hop.
#[inline(always)]
pub fn hops_left(ctx: &TcContext, packet: &Packet) -> Option<u8> {
    let at = if packet.v4() { ETHERNET + 8 } else { ETHERNET + 7 };
    ctx.load::<u8>(at).ok().filter(|hops| *hops > 1)
}

#[inline(always)]
pub fn spend_hop(ctx: &TcContext, packet: &Packet, hops: u8) -> Result<(), Drop> {
    if !packet.v4() {
        ctx.uncovered(ONE_HOP_V6);
        return store(ctx, ETHERNET + 7, &(hops - 1));
    }
    let (old, new) =
        (u16::from_ne_bytes([hops, packet.proto()]), u16::from_ne_bytes([hops - 1, packet.proto()]));
    // SAFETY: the context is the program's own.
    let code = unsafe {
        bpf_l3_csum_replace(ctx.as_ptr().cast(), (ETHERNET + 10) as u32, u64::from(old), u64::from(new), 2)
    };
    if code != 0 {
        return Err(Drop::Rewrite);
    }
    store(ctx, ETHERNET + 8, &(hops - 1))
}
