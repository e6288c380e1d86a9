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
    if between_pods(ctx.skb.skb) != 0 {
        // What pods send each other has been looked at where it left its pod.
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
        // The tunnels' own packets, and what is only routed here.
        return Some(Ok(Verdict::Stack));
    }
    forward_known(ctx, work, Onward::Stack, |_, _| true)
}

/// One if two pods send each other the packet. Verified by itself, and with its buffers off the caller's stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn between_pods(skb: *mut __sk_buff) -> i32 {
    i32::from(is_between_pods(&TcContext::new(skb)))
}

/// Whether they do. Nothing but the addresses is read, where they lie in most packets: most pass.
#[inline(always)]
fn is_between_pods(ctx: &TcContext) -> bool {
    let (start, end) = ctx.range();
    let [pods_v4, pods_v6] = &node().pods;
    match ctx.ethertype() {
        ETH_P_IP if start + ETHERNET + 20 <= end => {
            // SAFETY: compared with the end.
            let [src, dst]: [u32; 2] = unsafe { get(start + ETHERNET + 12) };
            pods_v4.contains_v4(src) && pods_v4.contains_v4(dst) && node().v4.words()[3] != src
        }
        ETH_P_IPV6 if start + ETHERNET + 40 <= end => {
            // SAFETY: as above.
            let ends: [[u32; 4]; 2] = unsafe { get(start + ETHERNET + 8) };
            let [src, dst] = ends.map(Addr16::from_words);
            pods_v6.contains(&src) && pods_v6.contains(&dst) && !same(&node().v6, &src)
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
    let port = tunnel_port();
    packet.proto() == UDP && port != 0 && packet.tuple().dport.host() == port
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
