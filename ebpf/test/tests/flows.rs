//! The lives of flows: how they are counted, how they end, and how their ports come back.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use abi::count::{Path, gauge};
use abi::drops::Drop;
use abi::endpoint::Link;
use abi::event::Control;
use abi::flow::{Flow, FlowKey, Hop, bits, timeout};
use abi::name;
use abi::node::Node;
use abi::service::{BackendState, bits as service_bits};
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold_in};
use ebpf_test::packet::{ACK, INIT, Packet, RST, SYN, packet};
use ebpf_test::runner::{REDIRECT, SHOT, STACK};
use ebpf_test::world::{Hook, MASQUERADED, Want, World, node};

const TCP: u8 = 6;

/// A hardware address that only an entry knows.
const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

const CASES: &[Case] = &[
    ("while flows are converted, unknown connections are dropped, not refused", converting),
    ("a connection that is not translated has one entry for both directions, and the next hop of each", both),
    ("datagrams, associations and echoes have one entry for both directions as well", every_protocol),
    ("answers to datagrams pass where nobody may begin, and other datagrams do not", answers_only),
    ("a connection that is asked for again when there is room is one, and outlives its embryo", asked_again),
    ("datagrams are embryos beyond the share, and are moved by their answer", share_of_datagrams),
    ("an answered conversation of datagrams is kept for longer than one that nobody answers", patience),
    ("a connection between pods of a node begins with the next hops of both directions", near),
    ("a flow vouches for the link and the hardware address of its pod, and for no others", vouched),
    ("a spoofed answer is none", spoofed_answer),
    ("the first answer goes where the beginning said, and is counted once", first_answer),
    ("a beginning whose way is known spends no hop that it does not have", last_hop),
    ("beginnings have a share of the flows, and are embryos beyond it", share),
    ("the walk counts flows, embryos and ports of the node", gauges),
    ("a connection counts for its backend from its answer to its end", counted),
    ("a backend that went while it was counted is not counted down", counted_gone),
    ("a port whose flow is over is taken over", reclaimed),
    ("a closed flow gives its port up when there is no other", pressed),
    ("a client's ports are mapped one to one, and to the same again", one_to_one),
    ("a port that a socket of the host would get answers at is left alone", host_socket),
    ("with 99 of 100 ports taken, every new flow still finds one", nearly_exhausted),
];

#[test]
fn every_case_in_both_families() {
    // One stripe of ports for all CPUs: the cases fill it, as they do the share of beginnings.
    hold_in(|| World::with(&Node { cpus: 1, begun: 4, ..node() }, 1), CASES);
}

fn expire(w: &mut World) -> Result<()> {
    w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64]).map(|_| ())
}

fn edit(w: &mut World, table: &str, change: impl Fn(Flow) -> Flow) -> Result<()> {
    let entries: Vec<(FlowKey, Flow)> = w.flows(table)?;
    for (key, flow) in entries {
        w.runner.hash(table)?.insert(key, change(flow), 0)?;
    }
    Ok(())
}

fn converting(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let control = |grace| Control { grace, ..Control::default() };
    let late = packet(n.pod_a, n.vip).tcp(40000, 80, ACK);
    w.runner.array(name::CONTROL)?.set(0, control(u32::MAX), 0)?;
    w.expect(Hook::FromPodA, &late, &Want::Dropped(Drop::Converting))?;
    w.runner.array(name::CONTROL)?.set(0, control(0), 0)?;
    w.expect(Hook::FromPodA, &late, &Want::Refused(Drop::NoFlow, late.refusal()))?;
    Ok(())
}

fn both(w: &mut World) -> Result<()> {
    let n = w.names;
    let asked = packet(n.pod_a, n.far_pod).tcp(40000, 80, SYN);
    w.run(Hook::FromPodA, &asked.bytes())?;
    let begun = only(w.flows(name::FLOWS)?)?;
    ensure!(begun.flags == bits::FORWARD | bits::PLAIN | bits::BOTH, "{begun:?}");
    ensure!(begun.hop.seen != 0 && begun.back.seen != 0, "the next hops from the first packet on: {begun:?}");
    ensure!(begun.hop.mtu != 0 && begun.back.mtu == 0, "out by the route, back into the pod: {begun:?}");
    let mac = |frame: &[u8]| frame[..6].to_vec();
    let answer = w.run(Hook::UplinkIn, &asked.answer().bytes())?;
    ensure!((answer.code, mac(&answer.frame)) == (REDIRECT, begun.back.dmac.to_vec()), "{answer:?}");
    let flow = only(w.flows(name::FLOWS)?)?;
    ensure!(w.flows(name::EMBRYOS)?.is_empty(), "it is in one place");
    ensure!((flow.flags, flow.to) == (begun.flags | bits::ANSWERED, begun.to), "{flow:?}");
    ensure!(flow.back.seen != 0 && flow.back.ifindex != flow.hop.ifindex, "{flow:?}");
    Ok(())
}

fn every_protocol(w: &mut World) -> Result<()> {
    let n = w.names;
    let from = packet(n.pod_a, n.far_pod);
    for asked in [
        from.clone().udp(40000, 53),
        from.clone().udp(53, 40000),
        from.clone().udp(53, 53),
        from.clone().sctp(40000, 3868, INIT),
        from.clone().echo(true, 7),
    ] {
        w.forget_flows()?;
        w.run(Hook::FromPodA, &asked.bytes())?;
        ensure!(counts(w)? == (1, 0, 1), "{asked:?}: {:?}", counts(w)?);
        for _ in 0..2 {
            w.expect(Hook::UplinkIn, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
            ensure!(counts(w)? == (1, 0, 0), "{asked:?} is answered once: {:?}", counts(w)?);
        }
        let flow = only(w.flows(name::FLOWS)?)?;
        ensure!(flow.flags & (bits::BOTH | bits::ANSWERED) == bits::BOTH | bits::ANSWERED, "{flow:?}");
        ensure!(flow.hop.mtu != 0 && flow.back.seen != 0 && flow.back.mtu == 0, "both next hops: {flow:?}");
    }
    Ok(())
}

fn answers_only(w: &mut World) -> Result<()> {
    let n = w.names;
    let asked = packet(n.pod_a, n.pod_b).udp(40000, 5353);
    w.run(Hook::FromPodA, &asked.bytes())?;
    // Nobody may begin anything with pod A.
    w.isolate(n.pod_a, |row| row.ingress = 1)?;
    for _ in 0..2 {
        w.expect(Hook::FromPodB, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    }
    let other = packet(n.pod_b, n.pod_a).udp(5353, 40001);
    w.expect(Hook::FromPodB, &other, &Want::Dropped(Drop::PolicyIngress))?;
    ensure!(counts(w)? == (1, 0, 0), "{:?}", counts(w)?);
    Ok(())
}

fn asked_again(w: &mut World) -> Result<()> {
    let asked: Vec<Packet> = (40000..40005).map(|port| begin(w, port)).collect::<Result<_>>()?;
    let (late, first) = (&asked[4], &asked[0]);
    w.run(Hook::FromPodA, &late.bytes())?;
    ensure!(counts(w)? == (4, 1, 4), "there is no room yet: {:?}", counts(w)?);
    w.run(Hook::UplinkIn, &first.answer().bytes())?;
    w.run(Hook::FromPodA, &late.bytes())?;
    ensure!(counts(w)?.0 == 5, "it has begun anew: {:?}", counts(w)?);
    edit(w, name::EMBRYOS, |flow| Flow {
        last_seen: flow.last_seen.saturating_sub(timeout::EMBRYO),
        ..flow
    })?;
    expire(w)?;
    ensure!(counts(w)? == (5, 0, 4), "only what it has left behind goes: {:?}", counts(w)?);
    w.run(Hook::UplinkIn, &late.answer().bytes())?;
    ensure!(counts(w)? == (5, 0, 3), "it is answered: {:?}", counts(w)?);
    Ok(())
}

fn share_of_datagrams(w: &mut World) -> Result<()> {
    let n = w.names;
    let asked: Vec<Packet> = (40000..40006).map(|port| packet(n.pod_a, n.far_pod).udp(port, 53)).collect();
    for asked in &asked {
        w.run(Hook::FromPodA, &asked.bytes())?;
    }
    ensure!(counts(w)? == (4, 2, 4), "four may be among the flows: {:?}", counts(w)?);
    w.isolate(n.pod_a, |row| row.ingress = 1)?;
    for asked in &asked {
        w.expect(Hook::UplinkIn, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    }
    ensure!(counts(w)? == (6, 0, 0), "all of them are answered: {:?}", counts(w)?);
    Ok(())
}

fn patience(w: &mut World) -> Result<()> {
    let n = w.names;
    for port in [40000, 40001] {
        let asked = packet(n.pod_a, n.far_pod).udp(port, 53);
        w.run(Hook::FromPodA, &asked.bytes())?;
        if port == 40000 {
            w.run(Hook::UplinkIn, &asked.answer().bytes())?;
        }
    }
    for (silent, left) in [(timeout::EMBRYO, 1), (timeout::DATAGRAM, 0)] {
        edit(w, name::FLOWS, |flow| Flow { last_seen: flow.last_seen.saturating_sub(silent), ..flow })?;
        expire(w)?;
        ensure!(w.flows(name::FLOWS)?.len() == left, "after {silent} s: {:?}", w.flows(name::FLOWS)?);
    }
    Ok(())
}

fn near(w: &mut World) -> Result<()> {
    let n = w.names;
    let asked = packet(n.pod_a, n.pod_b).tcp(40000, 80, SYN);
    let sent = w.run(Hook::FromPodA, &asked.bytes())?;
    let begun = only(w.flows(name::FLOWS)?)?;
    let (there, back) = (begun.hop, begun.back);
    ensure!(there.seen != 0 && back.seen != 0 && (there.mtu, back.mtu) == (0, 0), "both are pods: {begun:?}");
    ensure!(there.ifindex != back.ifindex && sent.frame[..6] == there.dmac, "{begun:?}: {sent:?}");
    let answer = w.run(Hook::FromPodB, &asked.answer().bytes())?;
    ensure!(answer.code == REDIRECT && answer.frame[..6] == back.dmac, "{begun:?}: {answer:?}");
    Ok(())
}

/// A frame from a hardware address.
fn framed(packet: &Packet, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = packet.bytes();
    frame[6..12].copy_from_slice(&mac);
    frame
}

fn vouched(w: &mut World) -> Result<()> {
    let more = begin(w, 40000)?.tcp(40000, 80, ACK);
    let mac = only(w.flows(name::FLOWS)?)?.back.dmac;
    let links = w.runner.hash::<u32, Link>(name::LINKS)?.iter().collect::<Result<Vec<_>, _>>()?;
    for (hook, mac, reason) in [
        (Hook::FromPodB, mac, Drop::Spoofed),
        (Hook::FromPodA, ELSEWHERE, Drop::SpoofedMac),
        (Hook::FromPodB, ELSEWHERE, Drop::Spoofed),
    ] {
        let before = w.counted(name::DROPS, reason as u32)?;
        w.run(hook, &framed(&more, mac))?;
        ensure!(w.counted(name::DROPS, reason as u32)? == before + 1, "{hook:?} {mac:?}: {}", w.drops()?);
    }
    w.runner.clear::<u32, Link>(name::LINKS)?;
    let own = w.run(Hook::FromPodA, &framed(&more, mac))?.code;
    let others = [(Hook::FromPodB, mac), (Hook::FromPodA, ELSEWHERE)]
        .map(|(hook, mac)| w.run(hook, &framed(&more, mac)).map(|outcome| outcome.code));
    for (device, link) in links {
        w.runner.hash(name::LINKS)?.insert(device, link, 0)?;
    }
    let [other_link, other_mac] = others;
    ensure!(
        (own, other_link?, other_mac?) == (REDIRECT, SHOT, SHOT),
        "the table is asked where the flow is silent"
    );
    Ok(())
}

fn spoofed_answer(w: &mut World) -> Result<()> {
    let asked = begin(w, 40000)?;
    let mac = only(w.flows(name::FLOWS)?)?.back.dmac;
    for hook in [Hook::FromPodA, Hook::FromPodB] {
        let before = w.counted(name::DROPS, Drop::Spoofed as u32)?;
        w.run(hook, &framed(&asked.answer(), mac))?;
        ensure!(w.counted(name::DROPS, Drop::Spoofed as u32)? == before + 1, "{hook:?}: {}", w.drops()?);
    }
    ensure!(counts(w)? == (1, 0, 1), "nobody has answered: {:?}", counts(w)?);
    Ok(())
}

fn first_answer(w: &mut World) -> Result<()> {
    let asked = begin(w, 40000)?;
    edit(w, name::FLOWS, |flow| Flow { back: Hop { dmac: ELSEWHERE, ..flow.back }, ..flow })?;
    let before = (w.counted(name::PATHS, Path::Promoted as u32)?, counts(w)?);
    let answer = w.run(Hook::UplinkIn, &asked.answer().bytes())?;
    ensure!(answer.code == REDIRECT && answer.frame[..6] == ELSEWHERE, "no table is asked: {answer:?}");
    let after = (w.counted(name::PATHS, Path::Promoted as u32)?, counts(w)?);
    ensure!((before, after) == ((before.0, (1, 0, 1)), (before.0 + 1, (1, 0, 0))), "{before:?}, {after:?}");
    w.run(Hook::UplinkIn, &asked.answer().bytes())?;
    ensure!((w.counted(name::PATHS, Path::Promoted as u32)?, counts(w)?) == after, "it is answered once");
    Ok(())
}

fn last_hop(w: &mut World) -> Result<()> {
    begin(w, 40000)?;
    let asked = Packet { hops: 1, ..packet(w.names.pod_a, w.names.far_pod).tcp(40001, 80, SYN) };
    let left = w.run(Hook::FromPodA, &asked.bytes())?;
    ensure!(left.code == STACK, "the stack says that its time is exceeded: {left:?}");
    Ok(())
}

fn only(flows: Vec<(FlowKey, Flow)>) -> Result<Flow> {
    ensure!(flows.len() == 1, "{flows:?}");
    Ok(flows[0].1)
}

/// A connection of pod A to a pod of another node.
fn begin(w: &mut World, port: u16) -> Result<Packet> {
    let asked = packet(w.names.pod_a, w.names.far_pod).tcp(port, 80, SYN);
    w.run(Hook::FromPodA, &asked.bytes())?;
    Ok(asked)
}

/// How many entries are in both tables, and how many beginnings count.
fn counts(w: &mut World) -> Result<(usize, usize, u64)> {
    let begun = w.runner.array::<u64>(name::GAUGES)?.get(&gauge::BEGUN, 0)?;
    Ok((w.flows(name::FLOWS)?.len(), w.flows(name::EMBRYOS)?.len(), begun))
}

fn share(w: &mut World) -> Result<()> {
    w.runner.array::<u64>(name::GAUGES)?.set(gauge::BEGUN, 0, 0)?;
    let asked: Vec<Packet> = (40000..40006).map(|port| begin(w, port)).collect::<Result<_>>()?;
    ensure!(counts(w)? == (4, 2, 4), "four may be among the flows: {:?}", counts(w)?);
    for asked in &asked {
        w.run(Hook::UplinkIn, &asked.answer().bytes())?;
        w.run(Hook::UplinkIn, &asked.answer().bytes())?;
    }
    ensure!(counts(w)? == (6, 0, 0), "all of them are answered: {:?}", counts(w)?);
    for (_, flow) in w.flows(name::FLOWS)? {
        ensure!(flow.flags & (bits::BOTH | bits::ANSWERED) == bits::BOTH | bits::ANSWERED, "{flow:?}");
    }
    begin(w, 40006)?;
    let reset = begin(w, 40007)?.tcp(40007, 80, RST);
    w.run(Hook::FromPodA, &reset.bytes())?;
    ensure!(counts(w)? == (7, 0, 1), "one is reset before its answer: {:?}", counts(w)?);
    w.runner.array::<u64>(name::GAUGES)?.set(gauge::BEGUN, 3, 0)?;
    expire(w)?;
    ensure!(counts(w)? == (7, 0, 1), "the walk counts anew: {:?}", counts(w)?);
    edit(w, name::FLOWS, |flow| Flow { last_seen: flow.last_seen.saturating_sub(60), ..flow })?;
    expire(w)?;
    ensure!(counts(w)? == (6, 0, 0), "the one that nobody answered is forgotten: {:?}", counts(w)?);
    Ok(())
}

fn gauges(w: &mut World) -> Result<()> {
    let n = w.names;
    for port in 40000..40003 {
        let out = packet(n.pod_a, n.client).udp(port, 53);
        let got = Packet::read(&w.run(Hook::UplinkOut, &out.bytes())?.frame)?;
        if port == 40000 {
            w.run(Hook::UplinkIn, &got.answer().bytes())?;
        }
    }
    w.run(Hook::UplinkIn, &packet(n.client, n.pod_a).udp(1, 2).bytes())?;
    expire(w)?;
    let gauges = w.runner.array::<u64>(name::GAUGES)?;
    let found = [gauge::FLOWS, gauge::EMBRYOS, gauge::MASQUERADED].map(|index| gauges.get(&index, 0));
    let [flows, embryos, masqueraded] = found;
    let found = (flows?, embryos?, masqueraded?);
    ensure!(found == (3, 4, 3), "flows, embryos and masqueraded: {found:?}");
    Ok(())
}

fn connections(w: &mut World, id: u32) -> Result<u64> {
    Ok(w.runner.array::<BackendState>(name::BACKEND_STATES)?.get(&id, 0)?.connections)
}

/// A service that counts, and one answered and one unanswered connection to it.
fn connect(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    w.change_service(|service| service.flags |= service_bits::LEAST)?;
    for port in [40000, 40001] {
        w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).tcp(port, 80, SYN).bytes())?;
    }
    w.run(Hook::FromPodB, &packet(n.pod_b, n.pod_a).tcp(8080, 40000, SYN | ACK).bytes())?;
    Ok(())
}

fn counted(w: &mut World) -> Result<()> {
    let n = w.names;
    let before = connections(w, 1)?;
    connect(w)?;
    ensure!(connections(w, 1)? == before + 1, "the answered one counts");
    w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).tcp(40000, 80, RST).bytes())?;
    expire(w)?;
    ensure!(connections(w, 1)? == before + 1, "closed, but not forgotten yet");
    for table in [name::FLOWS, name::EMBRYOS] {
        edit(w, table, |flow| Flow { last_seen: flow.last_seen.saturating_sub(100), ..flow })?;
    }
    let expired = w.counted(name::PATHS, Path::Expired as u32)?;
    expire(w)?;
    ensure!(w.counted(name::PATHS, Path::Expired as u32)? == expired + 2, "two flows are forgotten");
    ensure!(connections(w, 1)? == before, "and counted down once: {}", connections(w, 1)?);
    Ok(())
}

fn counted_gone(w: &mut World) -> Result<()> {
    connect(w)?;
    let counted = connections(w, 1)?;
    w.retire(1)?;
    // Closed and silent: on a machine that has not run for two hours, silence alone is not enough.
    edit(w, name::FLOWS, |flow| {
        let last_seen = flow.last_seen.saturating_sub(100);
        Flow { last_seen, flags: flow.flags | bits::RST, ..flow }
    })?;
    expire(w)?;
    ensure!(w.flows(name::FLOWS)?.is_empty(), "forgotten");
    ensure!(connections(w, 1)? == counted, "its number may be another's by now");
    Ok(())
}

/// Takes all source ports towards one destination but those that `free` names.
fn fill(w: &mut World, free: impl Fn(u16) -> bool) -> Result<()> {
    let n = w.names;
    let first = packet(n.pod_a, n.client).udp(1, 53);
    w.run(Hook::UplinkOut, &first.bytes())?;
    let (_, flow) = w.flows(name::EMBRYOS)?.remove(0);
    w.forget_flows()?;
    for port in (61_000..=65_535).filter(|port| !free(*port)) {
        let asked = packet(n.pod_a, n.client).udp(port, 53);
        let got = packet(n.node, n.client).udp(port, 53);
        for (from, to, flags) in [
            (&asked, &got, bits::FORWARD | bits::MASQUERADE),
            (&got.answer(), &asked.answer(), bits::MASQUERADE),
        ] {
            let half = Flow { to: key(to).tuple, flags, ..flow };
            w.runner.hash(name::EMBRYOS)?.insert(key(from), half, 0)?;
        }
    }
    Ok(())
}

fn reclaimed(w: &mut World) -> Result<()> {
    let n = w.names;
    fill(w, |_| false)?;
    let next = packet(n.pod_b, n.client).udp(9, 53);
    w.expect(Hook::UplinkOut, &next, &Want::Dropped(Drop::NoPort))?;
    // One flow is over; its port is free, and its other half goes with it.
    let old = w.flows(name::EMBRYOS)?.into_iter().find(|(_, flow)| flow.flags & bits::FORWARD != 0);
    let (key, flow) = old.expect("the ports are taken");
    let other = FlowKey { tuple: flow.to.reversed(), ..key };
    for key in [key, other] {
        let half: Flow = w.runner.hash(name::EMBRYOS)?.get(&key, 0)?;
        w.runner.hash(name::EMBRYOS)?.insert(key, Flow { last_seen: 0, ..half }, 0)?;
    }
    let collisions = w.counted(name::PATHS, Path::PortCollision as u32)?;
    // A flow tries many ports, but not all: the next packet has another try.
    let mut outcome = w.run(Hook::UplinkOut, &next.bytes())?;
    for _ in 0..100 {
        if outcome.code == STACK {
            break;
        }
        outcome = w.run(Hook::UplinkOut, &next.bytes())?;
    }
    ensure!(outcome.code == STACK, "{}", w.drops()?);
    ensure!(Packet::read(&outcome.frame)?.ports().0 == flow.to.sport.host(), "the port that was given up");
    ensure!(w.counted(name::PATHS, Path::PortCollision as u32)? > collisions, "collisions are counted");
    ensure!(w.runner.hash::<FlowKey, Flow>(name::EMBRYOS)?.get(&key, 0).is_err(), "no half is left");
    Ok(())
}

fn pressed(w: &mut World) -> Result<()> {
    let n = w.names;
    fill(w, |_| false)?;
    // As if all were connections: a flow that is answered has both halves among the flows.
    for (key, flow) in w.flows(name::EMBRYOS)? {
        w.runner.hash(name::FLOWS)?.insert(FlowKey { proto: TCP, ..key }, flow, 0)?;
    }
    w.runner.clear::<FlowKey, Flow>(name::EMBRYOS)?;
    let next = packet(n.pod_b, n.client).tcp(9, 53, SYN);
    w.expect(Hook::UplinkOut, &next, &Want::Dropped(Drop::NoPort))?;
    edit(w, name::FLOWS, |flow| Flow { flags: flow.flags | bits::FIN, ..flow })?;
    let want = packet(n.node, n.client).tcp(MASQUERADED, 53, SYN);
    w.expect(Hook::UplinkOut, &next, &Want::Stack(want)).map(drop)
}

fn one_to_one(w: &mut World) -> Result<()> {
    let collisions = w.counted(name::PATHS, Path::PortCollision as u32)?;
    // As many ports as there are.
    let clients = 40_000..40_000 + (65_535 - MASQUERADED + 1);
    let first = clients.clone().map(|port| masqueraded(w, port)).collect::<Result<Vec<_>>>()?;
    ensure!(first.iter().collect::<BTreeSet<_>>().len() == first.len(), "two of them share a port");
    let tried = w.counted(name::PATHS, Path::PortCollision as u32)?;
    ensure!(tried == collisions, "{} were tried in vain", tried - collisions);
    w.forget_flows()?;
    let again = clients.rev().step_by(100).map(|port| masqueraded(w, port)).collect::<Result<Vec<_>>>()?;
    ensure!(first.into_iter().rev().step_by(100).eq(again), "to others the second time");
    Ok(())
}

/// The port of the node that a new flow of pod A gets.
fn masqueraded(w: &mut World, port: u16) -> Result<u16> {
    let outcome = w.run(Hook::UplinkOut, &packet(w.names.pod_a, w.names.client).udp(port, 53).bytes())?;
    ensure!(outcome.code == STACK, "{}", w.drops()?);
    Ok(Packet::read(&outcome.frame)?.ports().0)
}

fn host_socket(w: &mut World) -> Result<()> {
    let wanted = masqueraded(w, 40_000)?;
    w.forget_flows()?;
    let any = if w.names.node.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind((any, wanted))?;
    let collisions = w.counted(name::PATHS, Path::PortCollision as u32)?;
    ensure!(masqueraded(w, 40_000)? != wanted, "the host has a socket at port {wanted}");
    ensure!(w.counted(name::PATHS, Path::PortCollision as u32)? > collisions, "it counts as a collision");
    drop(socket);
    w.forget_flows()?;
    ensure!(masqueraded(w, 40_000)? == wanted, "the socket is gone");
    Ok(())
}

fn nearly_exhausted(w: &mut World) -> Result<()> {
    let n = w.names;
    fill(w, |port| port % 100 == 7)?;
    // Every hundredth port is free; each new flow gives its own back.
    for number in 0..1000 {
        let out = packet(n.pod_b, n.peer).udp(number + 1, 53);
        let out = Packet { dst: n.client, ..out };
        let outcome = w.run(Hook::UplinkOut, &out.bytes())?;
        ensure!(outcome.code == STACK, "flow {number}: {}", w.drops()?);
        let got = Packet::read(&outcome.frame)?;
        for (key, flow) in
            [(&out, &got), (&got.answer(), &out.answer())].map(|(from, to)| (key(from), key(to)))
        {
            ensure!(key != flow, "translated");
            w.runner.hash::<FlowKey, Flow>(name::EMBRYOS)?.remove(&key)?;
        }
    }
    Ok(())
}

fn key(packet: &Packet) -> FlowKey {
    let (sport, dport) = packet.ports();
    FlowKey {
        tuple: abi::Tuple {
            src: packet.src.into(),
            dst: packet.dst.into(),
            sport: abi::Be16::new(sport),
            dport: abi::Be16::new(dport),
        },
        proto: 17,
        zero: [0; 3],
    }
}
