//! Packets of known flows: forwarded in place, in TC and before the stack, in both families.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, FlowKey, Hop as NextHop, bits};
use abi::name;
use abi::service::frontend;
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{ACK, FIN, Packet, RST, SYN, packet};
use ebpf_test::runner::{PASS, REDIRECT, TX};
use ebpf_test::world::{Hook, NEIGHBOUR, Want, World};

const TCP: u8 = 6;
const UDP: u8 = 17;
const XDP: [Hook; 2] = [Hook::Xdp, Hook::XdpFrag];

const CASES: &[Case] = &[
    ("a NodePort's packets and answers are forwarded before the stack", both_ways),
    ("TC and XDP make the same packet, addressed to the next hop", same_frame),
    ("what XDP does not follow passes untouched", passed),
    ("a hop that was looked up long ago is looked up again", stale),
    ("a packet larger than the route allows is left to the stack", too_big),
    ("a connection that ends before the stack is seen to end", ends),
    ("a backend that is gone ends the connection", gone),
    ("a datagram without a checksum stays without one", unsummed),
    ("a datagram nobody answers is forwarded before the stack as well", one_way),
    ("packets to a pod of this node keep their hops", to_pod),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

/// What a client asks, and what the backend gets; their answers are the reverse.
struct Talk {
    asked: Packet,
    got: Packet,
}

/// Begins a conversation with a backend elsewhere through TC, until the next hops of both directions are known.
fn talk(w: &mut World, protocol: u8) -> Result<Talk> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, protocol, &[(n.far_pod, 8080)])?;
    let ask = |flags| match protocol {
        TCP => packet(n.client, n.node).tcp(40000, 30080, flags),
        _ => packet(n.client, n.node).udp(40000, 30080),
    };
    let first = Packet::read(&w.run(Hook::UplinkIn, &ask(SYN).bytes())?.frame)?;
    for _ in 0..2 {
        w.run(Hook::UplinkIn, &first.answer().bytes())?;
        w.run(Hook::UplinkIn, &ask(ACK).bytes())?;
    }
    let (port, _) = first.ports();
    let got = match protocol {
        TCP => packet(n.node, n.far_pod).tcp(port, 8080, ACK),
        _ => packet(n.node, n.far_pod).udp(port, 8080),
    };
    Ok(Talk { asked: ask(ACK), got })
}

fn forwarded(packet: Packet) -> Want {
    Want::Sent(Path::Xdp, packet.hops(63))
}

fn both_ways(w: &mut World) -> Result<()> {
    for protocol in [TCP, UDP] {
        let Talk { asked, got } = talk(w, protocol)?;
        for hook in XDP {
            w.expect(hook, &asked, &forwarded(got.clone()))?;
            w.expect(hook, &got.answer(), &forwarded(asked.answer()))?;
        }
        w.reset(w.names)?;
    }
    Ok(())
}

fn same_frame(w: &mut World) -> Result<()> {
    for protocol in [TCP, UDP] {
        let Talk { asked, got } = talk(w, protocol)?;
        for packet in [asked, got.answer()] {
            let tc = w.run(Hook::UplinkIn, &packet.bytes())?;
            let xdp = w.run(Hook::Xdp, &packet.bytes())?;
            ensure!((tc.code, xdp.code) == (REDIRECT, TX), "{} {}", tc.code, xdp.code);
            ensure!(tc.frame == xdp.frame, "{:02x?}\n{:02x?}", tc.frame, xdp.frame);
            ensure!(tc.frame[..6] == NEIGHBOUR, "{:02x?}", &tc.frame[..12]);
        }
        w.reset(w.names)?;
    }
    Ok(())
}

fn passed(w: &mut World) -> Result<()> {
    let Talk { asked, got } = talk(w, TCP)?;
    let n = w.names;
    let mut frames: Vec<Vec<u8>> = [
        packet(n.client, n.node).tcp(40001, 30080, SYN),
        packet(n.client, n.node).tcp(40000, 22, ACK),
        packet(n.client, n.pod_a).udp(1, 2),
        packet(n.client, n.node).echo(true, 7),
        asked.clone().fragment(0, true),
        asked.clone().fragment(3, false),
        asked.clone().hops(1),
        got.answer().hops(0),
    ]
    .iter()
    .map(Packet::bytes)
    .collect();
    frames.push(with_options(&asked));
    for length in 14..asked.bytes().len() - 4 {
        let mut cut = asked.bytes();
        cut.truncate(length);
        if length < if n.node.is_ipv4() { 54 } else { 74 } {
            frames.push(cut);
        }
    }
    for frame in frames {
        for hook in XDP {
            let outcome = w.run(hook, &frame)?;
            ensure!(outcome.code == PASS, "{hook:?} {frame:02x?}: code {}", outcome.code);
            ensure!(outcome.frame == frame, "{hook:?} {frame:02x?}: changed");
        }
    }
    Ok(())
}

/// IPv4 with a no-operation option; IPv6 with empty destination options.
fn with_options(packet: &Packet) -> Vec<u8> {
    let bytes = packet.bytes();
    let (mut frame, rest) = if packet.src.is_ipv4() {
        let (head, rest) = bytes.split_at(34);
        (head.to_vec(), [&[1, 1, 1, 0], rest].concat())
    } else {
        let (head, rest) = bytes.split_at(54);
        (head.to_vec(), [&[6, 0, 1, 4, 0, 0, 0, 0], rest].concat())
    };
    if packet.src.is_ipv4() {
        frame[14] = 0x46;
    } else {
        frame[20] = 60;
    }
    frame.extend(rest);
    frame
}

/// Changes every entry of the established flows.
fn edit(w: &mut World, change: impl Fn(Flow) -> Flow) -> Result<()> {
    let entries: Vec<(FlowKey, Flow)> = w.flows(name::FLOWS)?;
    for (key, flow) in entries {
        w.runner.hash(name::FLOWS)?.insert(key, change(flow), 0)?;
    }
    Ok(())
}

fn stale(w: &mut World) -> Result<()> {
    let Talk { asked, got } = talk(w, TCP)?;
    edit(w, |flow| Flow { hop: NextHop { seen: flow.hop.seen.saturating_sub(5), ..flow.hop }, ..flow })?;
    w.expect(Hook::Xdp, &asked, &Want::Passed)?;
    w.expect(Hook::UplinkIn, &asked, &Want::Sent(Path::Remote, got.clone().hops(63)))?;
    w.expect(Hook::Xdp, &asked, &forwarded(got))?;
    Ok(())
}

fn too_big(w: &mut World) -> Result<()> {
    let Talk { asked, got } = talk(w, TCP)?;
    edit(w, |flow| Flow { hop: NextHop { mtu: 40, ..flow.hop }, ..flow })?;
    w.expect(Hook::Xdp, &asked, &Want::Passed)?;
    // The route has become wider meanwhile.
    w.expect(Hook::UplinkIn, &asked, &Want::Sent(Path::Remote, got.clone().hops(63)))?;
    w.expect(Hook::Xdp, &asked, &forwarded(got))?;
    Ok(())
}

fn ends(w: &mut World) -> Result<()> {
    for (flag, bit) in [(FIN, bits::FIN), (RST, bits::RST)] {
        let Talk { asked, got } = talk(w, TCP)?;
        let last = Packet { ..asked.clone() }.tcp(40000, 30080, flag | ACK);
        let (port, _) = got.ports();
        w.expect(Hook::Xdp, &last, &forwarded(got.clone().tcp(port, 8080, flag | ACK)))?;
        let closing = w.flows(name::FLOWS)?.iter().filter(|(_, flow)| flow.flags & bit != 0).count();
        ensure!(closing == 1, "{closing} directions are closing");
        w.reset(w.names)?;
    }
    Ok(())
}

fn gone(w: &mut World) -> Result<()> {
    let Talk { asked, .. } = talk(w, TCP)?;
    w.retire(1)?;
    w.expect(Hook::Xdp, &asked, &Want::Passed)?;
    let before = w.counted(name::DROPS, Drop::BackendGone as u32)?;
    w.run(Hook::UplinkIn, &asked.bytes())?;
    ensure!(w.counted(name::DROPS, Drop::BackendGone as u32)? == before + 1, "{}", w.drops()?);
    Ok(())
}

fn unsummed(w: &mut World) -> Result<()> {
    if !w.names.node.is_ipv4() {
        return Ok(());
    }
    let Talk { asked, .. } = talk(w, UDP)?;
    let mut frame = asked.bytes();
    frame[40..42].fill(0);
    for hook in [Hook::UplinkIn, Hook::Xdp] {
        let outcome = w.run(hook, &frame)?;
        ensure!(outcome.frame[40..42] == [0, 0], "{hook:?}: {:02x?}", outcome.frame);
        ensure!(outcome.frame[26..30] != frame[26..30], "{hook:?}: not translated");
    }
    Ok(())
}

fn one_way(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30514)], frontend::EXTERNAL, UDP, &[(n.far_pod, 514)])?;
    let asked = packet(n.client, n.node).udp(40000, 30514);
    let first = Packet::read(&w.run(Hook::UplinkIn, &asked.bytes())?.frame)?;
    w.run(Hook::UplinkIn, &asked.bytes())?;
    w.expect(Hook::Xdp, &asked, &Want::Sent(Path::Xdp, first))?;
    Ok(())
}

fn to_pod(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, TCP, &[(n.pod_b, 8080)])?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    let got = packet(n.client, n.pod_b).tcp(40000, 8080, SYN);
    // The first begins the flow, the second looks the pod up, the third finds it.
    for _ in 0..3 {
        w.expect(Hook::UplinkIn, &asked, &Want::Sent(Path::Pod, got.clone()))?;
    }
    w.expect(Hook::Xdp, &asked, &Want::Passed)?;
    for _ in 0..3 {
        w.expect(Hook::FromPodB, &got.answer(), &Want::Sent(Path::Remote, asked.answer().hops(63)))?;
    }
    Ok(())
}
