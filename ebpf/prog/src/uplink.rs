//! The two hooks on devices that leave the node.

use abi::Addr16;
use abi::drops::Drop;
use abi::event::hook;
use abi::flow::bits;
use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::bytes::{Bytes, get};
use crate::deliver::{BEGIN, DELIVER, HIDE, REST, TRACK, TUNNEL, deliver, is_pod};
use crate::echo;
use crate::forward::{Onward, forward_known, is_answer_to_itself};
use crate::maps::{ENDPOINTS, Known, node, tunnel_port, work};
use crate::nat::node_address;
use crate::packet::{ETH_P_IP, ETH_P_IPV6, ETHERNET, Frame, Packet, UDP, parse, parse_plain};
use crate::service::{Client, is_candidate, same};
use crate::translate::{BEGINS, ask, begin_and_deliver, entry, follow, hide, track_and_deliver, translate};
use crate::tunnel::{decapsulate_skb, may_arrive};
use crate::verdict::{Then, Verdict, decode, encode, leave, leave_answering, then};

/// From outside: NodePorts, answers to what left under the node's address, packets for pods.
#[classifier]
pub fn tc_uplink_in(ctx: TcContext) -> i32 {
    let mut code = match uplink_in_known(ctx.skb.skb) {
        REST => uplink_in_rest(ctx.skb.skb),
        code => code,
    };
    if code == TUNNEL {
        code = decapsulate_skb(ctx.skb.skb, hook::UPLINK_IN);
    }
    match code {
        DELIVER => deliver(&ctx, hook::UPLINK_IN),
        BEGIN => begin_and_deliver(&ctx, hook::UPLINK_IN),
        TRACK => track_and_deliver(&ctx, hook::UPLINK_IN),
        code => code,
    }
}

/// To the outside: pods take the node's address, the host's answers the service's.
#[classifier]
pub fn tc_uplink_out(ctx: TcContext) -> i32 {
    if passes(ctx.skb.skb) != 0 {
        // What pods send each other has been looked at where it left its pod, in a tunnel or not.
        return leave(&ctx, hook::UPLINK_OUT, Ok(Verdict::Stack));
    }
    let code = match uplink_out_known(ctx.skb.skb) {
        REST => uplink_out_rest(ctx.skb.skb),
        code => code,
    };
    match code {
        DELIVER => deliver(&ctx, hook::UPLINK_OUT),
        BEGIN => begin_and_deliver(&ctx, hook::UPLINK_OUT),
        HIDE => hide_skb(ctx.skb.skb),
        code => code,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn uplink_in_known(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    in_known(&ctx).map_or(REST, |result| leave(&ctx, hook::UPLINK_IN, result))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn uplink_out_known(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    out_known(&ctx).map_or(REST, |result| leave(&ctx, hook::UPLINK_OUT, result))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn uplink_in_rest(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    match inward(&ctx) {
        Ok(Then::Deliver | Then::Hide) => DELIVER,
        Ok(Then::Begin) => BEGIN,
        Ok(Then::Track) => TRACK,
        Ok(Then::Arrive) => TUNNEL,
        Ok(Then::Leave(verdict)) => leave(&ctx, hook::UPLINK_IN, Ok(verdict)),
        Err(reason) => leave_answering(&ctx, hook::UPLINK_IN, Err(reason)),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hide_skb(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    let result = work().ok_or(Drop::FlowTable).and_then(|work| hide(&ctx, work));
    leave(&ctx, hook::UPLINK_OUT, result.map(|()| Verdict::Stack))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn uplink_out_rest(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    match out(&ctx) {
        Ok(Then::Hide) => HIDE,
        Ok(Then::Deliver | Then::Arrive | Then::Track) => DELIVER,
        Ok(Then::Begin) => BEGIN,
        Ok(Then::Leave(verdict)) => leave(&ctx, hook::UPLINK_OUT, Ok(verdict)),
        Err(reason) => leave_answering(&ctx, hook::UPLINK_OUT, Err(reason)),
    }
}

#[inline(always)]
fn inward(ctx: &TcContext) -> Result<Then, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    if !matches!(parse(ctx, &mut work.packet)?, Frame::Ip) {
        return Ok(Then::Leave(Verdict::Stack));
    }
    if let Some(verdict) = echo::answer(ctx, &work.packet, 0)? {
        return Ok(Then::Leave(verdict));
    }
    if may_arrive(&work.packet) {
        work.tunnelled = 0;
        return Ok(Then::Arrive);
    }
    let entry = entry(work);
    let flags = translate(ctx, work, Client::Outside, entry)?;
    if flags == BEGINS {
        return Ok(Then::Begin);
    }
    if flags == 0 {
        let ours = ENDPOINTS.get_ptr(&work.packet.key.tuple.dst).is_some();
        return Ok(if ours { Then::Track } else { Then::Leave(Verdict::Stack) });
    }
    if flags & (bits::FORWARD | bits::MASQUERADE | bits::SERVICE) == bits::MASQUERADE {
        decode(follow_own(ctx.skb.skb))?;
    }
    Ok(Then::Deliver)
}

/// The pod's own end of a conversation may have been translated as well; such a packet needs both flows every time. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_own(skb: *mut __sk_buff) -> i32 {
    let Some(work) = work() else {
        return encode(Err(Drop::FlowTable));
    };
    work.known = Known::Unseen;
    let settles = work.settles;
    let own = entry(work);
    let followed = follow(&TcContext::new(skb), work, own);
    work.settles = if own.is_some() { 0 } else { settles };
    encode(followed)
}

#[inline(always)]
fn in_known(ctx: &TcContext) -> Option<Result<Verdict, Drop>> {
    let work = work()?;
    work.known = Known::Unseen;
    if !parse_plain(ctx, &mut work.packet) {
        return None;
    }
    if is_tunnel(&work.packet) && is_for_host(&work.packet) {
        // What is inside comes by again, on the tunnels' device.
        return Some(Ok(Verdict::Stack));
    }
    forward_known(ctx, work, Onward::Hop, |_, _| true)
}

#[inline(always)]
fn out_known(ctx: &TcContext) -> Option<Result<Verdict, Drop>> {
    let work = work()?;
    work.known = Known::Unseen;
    if !parse_plain(ctx, &mut work.packet) {
        return None;
    }
    if origin() == FOREIGN {
        // What is only routed here, and what has longer headers than most.
        return Some(Ok(Verdict::Stack));
    }
    forward_known(ctx, work, Onward::Stack, |_, _| true)
}

/// One if two pods send each other the packet, or if it is a tunnel's between this node and another. Verified by itself, and with its
/// buffers off the caller's stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn passes(skb: *mut __sk_buff) -> i32 {
    i32::from(is_between_us(&TcContext::new(skb)))
}

/// Whether it is one of those, as far as its headers are where most packets have them: most pass. What is asked of the others answers the
/// same for packets with longer headers, see [`origin`].
#[inline(always)]
fn is_between_us(ctx: &TcContext) -> bool {
    const V4: usize = ETHERNET + 20;
    const V6: usize = ETHERNET + 40;
    let (start, end) = ctx.range();
    let node = node();
    let [pods_v4, pods_v6] = &node.pods;
    match ctx.ethertype() {
        ETH_P_IP if start + V4 + 8 <= end => {
            // SAFETY: compared with the end.
            let ([src, dst], head): ([u32; 2], [u16; 5]) =
                unsafe { (get(start + ETHERNET + 12), get(start + ETHERNET)) };
            if node.v4.words()[3] != src {
                return pods_v4.contains_v4(src) && pods_v4.contains_v4(dst);
            }
            let is_plain = head[0].to_ne_bytes()[0] == 0x45 && head[3] & 0x3fff_u16.to_be() == 0;
            // SAFETY: as above.
            let port = unsafe { get(start + V4 + 2) };
            is_plain
                && is_tunnels(head[4].to_ne_bytes()[1], port)
                && !is_candidate(&Addr16::from_v4_word(dst))
        }
        ETH_P_IPV6 if start + V6 + 8 <= end => {
            // SAFETY: as above.
            let (ends, next, port): ([[u32; 4]; 2], u8, u16) =
                unsafe { (get(start + ETHERNET + 8), get(start + ETHERNET + 6), get(start + V6 + 2)) };
            let [src, dst] = ends.map(Addr16::from_words);
            if same(&node.v6, &src) {
                return is_tunnels(next, port) && !is_candidate(&dst);
            }
            pods_v6.contains(&src) && pods_v6.contains(&dst)
        }
        _ => false,
    }
}

/// Packets that are none of ours on their way out.
const FOREIGN: i32 = 0;
/// From a pod to somewhere outside the cluster.
const LEAVES: i32 = 1;
/// From the host itself.
const FROM_HOST: i32 = 2;

/// Whose packet leaves. Verified by itself: every comparison would be another way through what follows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn origin() -> i32 {
    match work() {
        Some(work) if leaves_the_cluster(&work.packet) => LEAVES,
        Some(work) if is_from_host(&work.packet) => {
            let tunnel = is_tunnel(&work.packet) && !is_candidate(&work.packet.tuple().dst);
            if tunnel { FOREIGN } else { FROM_HOST }
        }
        _ => FOREIGN,
    }
}

/// The stack has routed what it is left.
#[inline(always)]
fn out(ctx: &TcContext) -> Result<Then, Drop> {
    let work = work().ok_or(Drop::FlowTable)?;
    if !matches!(parse(ctx, &mut work.packet)?, Frame::Ip) {
        return Ok(Then::Leave(Verdict::Stack));
    }
    let origin = origin();
    if origin == FOREIGN {
        return Ok(Then::Leave(Verdict::Stack));
    }
    let leaves = origin == LEAVES;
    if !leaves && let Some(verdict) = echo::answer(ctx, &work.packet, u64::from(BPF_F_INGRESS))? {
        return Ok(Then::Leave(verdict));
    }
    let entry = entry(work);
    let mut flags = follow(ctx, work, entry)?;
    if leaves {
        let undecided = flags == 0 || flags & bits::OUTWARD != 0;
        return Ok(if undecided { Then::Hide } else { Then::Leave(Verdict::Stack) });
    }
    // What the socket hooks did not translate: raw sockets, services and pods that do without the hooks, and what they leave to
    // be dropped here.
    if flags == 0 {
        flags = ask(work, Client::Inside)?;
    }
    let asks = flags & (bits::FORWARD | bits::SERVICE) == bits::FORWARD | bits::SERVICE;
    if asks || flags == BEGINS || is_answer_to_itself(flags) {
        Ok(then(flags))
    } else {
        Ok(Then::Leave(Verdict::Stack))
    }
}

/// Whether the packet goes from node to node with another inside, as far as its port tells.
#[inline(always)]
fn is_tunnel(packet: &Packet) -> bool {
    is_tunnels(packet.proto(), packet.tuple().dport.be)
}

/// Whether a protocol and a port, as it lies in the header, are those of the tunnels.
#[inline(always)]
fn is_tunnels(proto: u8, port: u16) -> bool {
    let own = tunnel_port();
    proto == UDP && own != 0 && u16::from_be(port) == own
}

#[inline(always)]
fn is_for_host(packet: &Packet) -> bool {
    node_address(packet.v4()).is_some_and(|own| same(own, &packet.tuple().dst))
}

#[inline(always)]
fn is_from_host(packet: &Packet) -> bool {
    node_address(packet.v4()).is_some_and(|own| same(own, &packet.tuple().src))
}

#[inline(always)]
fn leaves_the_cluster(packet: &Packet) -> bool {
    is_pod(&packet.tuple().src) && !is_pod(&packet.tuple().dst)
}
