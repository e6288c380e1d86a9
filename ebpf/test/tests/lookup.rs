//! Who gets which backend, who is refused and who is dropped: the answers of the service lookup, in both families.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;

use abi::count::Path;
use abi::drops::Drop;
use abi::event::Control;
use abi::name;
use abi::service::{
    BackendKey, BackendState, Frontend, SLOTS, Segment, SourceRange, Tombstone, bits, frontend,
};
use abi::{Addr16, Be16};
use anyhow::{Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{ACK, Body, Packet, SYN, packet};
use ebpf_test::runner::SHOT;
use ebpf_test::world::{Hook, MASQUERADED, Want, World};

const TCP: u8 = 6;
const UDP: u8 = 17;

const CASES: &[Case] = &[
    ("a client outside every source range is dropped, wherever it is", source_ranges),
    ("an unknown port of a service's address is refused", unknown_port),
    ("an unknown port of a load balancer's address is nobody's business", unknown_port_outside),
    ("pods reach backends anywhere by an external address with a local policy", short_circuit),
    ("an internal policy binds clients outside as well", internal_local),
    (
        "where policy finds nobody here, the packet is dropped; where there is nobody at all, it is refused",
        nobody,
    ),
    ("slots weigh backends", weights),
    ("a service that picks by hash picks the same backend again, and not for everybody", hashed),
    ("the less busy of two is picked, and counted until its flow ends", least_connections),
    ("a NodePort of the loopback is not for packets", host_only),
    ("a client does not keep a backend that takes no new connections of its service", kept_no_longer),
    ("a ping of a service's address is answered, of another is not", echo),
    (
        "datagrams to a backend that is gone move on to another, and its answers come from the one that is gone",
        healed,
    ),
    ("a connection to a backend that is gone is reset, until somebody new has the address", reset),
    (
        "the host's own packets for a service, which no socket hook saw, find a backend of this node",
        from_host,
    ),
    (
        "what the host sends itself through a service comes in again, and so does the answer",
        from_host_to_itself,
    ),
    ("the host's own packets for a service are refused and dropped as a pod's", host_refused),
    ("refusals beyond a thousand a second are dropped in silence", rate_limit),
];

#[test]
fn every_answer_in_both_families() {
    hold(CASES);
}

/// Admits the clients of a prefix, whose length counts from the start of the sixteen bytes.
fn admit(w: &mut World, service: u32, client: IpAddr, length: u32) -> Result<()> {
    let row = SourceRange { service: service.to_be(), client: Addr16::from(client) };
    let mut ranges: LpmTrie<_, SourceRange, u32> = w.runner.map(name::SOURCE_RANGES)?.try_into()?;
    Ok(ranges.insert(&Key::new(32 + length, row), 1, 0)?)
}

fn source_ranges(w: &mut World) -> Result<()> {
    let n = w.names;
    let flags = frontend::EXTERNAL | frontend::SOURCE_RANGES;
    w.service(&[(n.vip, 80)], flags, TCP, &[(n.pod_b, 8080)])?;
    let service = w.change_service(|_| {})?;
    let from = |source| packet(source, n.vip).tcp(40000, 80, SYN);
    w.expect(Hook::UplinkIn, &from(n.client), &Want::Dropped(Drop::SourceRange))?;
    w.expect(Hook::FromPodA, &from(n.pod_a), &Want::Dropped(Drop::SourceRange))?;
    // The client's network: all but the last byte.
    admit(w, service, n.client, 120)?;
    let reached = |source| Want::Sent(Path::Pod, packet(source, n.pod_b).tcp(40000, 8080, SYN));
    w.expect(Hook::UplinkIn, &from(n.client), &reached(n.client))?;
    w.expect(Hook::FromPodA, &from(n.pod_a), &Want::Dropped(Drop::SourceRange))?;
    admit(w, service + 1, n.pod_a, 128)?;
    w.expect(Hook::FromPodA, &from(n.pod_a), &Want::Dropped(Drop::SourceRange))?;
    admit(w, service, n.pod_a, 128)?;
    w.expect(Hook::FromPodA, &from(n.pod_a), &reached(n.pod_a))?;
    Ok(())
}

fn address(w: &mut World, flags: u32) -> Result<()> {
    w.frontend(w.names.vip, 0, 0, Frontend { service: 0, flags: frontend::ADDRESS | flags })
}

fn unknown_port(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    address(w, 0)?;
    for (hook, source) in [(Hook::FromPodA, n.pod_a), (Hook::UplinkIn, n.client)] {
        let syn = packet(source, n.vip).tcp(40000, 81, SYN);
        w.expect(hook, &syn, &Want::Refused(Drop::UnknownPort, syn.refusal()))?;
        let datagram = packet(source, n.vip).udp(40000, 80);
        w.expect(hook, &datagram, &Want::Refused(Drop::UnknownPort, datagram.refusal()))?;
    }
    Ok(())
}

fn unknown_port_outside(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.client, 80)], frontend::EXTERNAL, TCP, &[(n.pod_b, 8080)])?;
    w.frontend(n.client, 0, 0, Frontend { service: 0, flags: frontend::ADDRESS | frontend::EXTERNAL })?;
    let syn = packet(n.pod_a, n.client).tcp(40000, 81, SYN);
    w.expect(Hook::FromPodA, &syn, &Want::Sent(Path::Remote, syn.clone().hops(63)))?;
    Ok(())
}

fn short_circuit(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL | frontend::EXTERNAL_LOCAL, TCP, &[(n.pod_b, 8080)])?;
    let from = |source| packet(source, n.node).tcp(40000, 30080, SYN);
    w.expect(Hook::UplinkIn, &from(n.client), &Want::Dropped(Drop::NoLocalBackend))?;
    let reached = packet(n.pod_a, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::FromPodA, &from(n.pod_a), &Want::Sent(Path::Pod, reached))?;
    Ok(())
}

fn internal_local(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], frontend::INTERNAL_LOCAL, TCP, &[(n.far_pod, 8080)])?;
    for (hook, source) in [(Hook::FromPodA, n.pod_a), (Hook::UplinkIn, n.client)] {
        let syn = packet(source, n.vip).tcp(40000, 80, SYN);
        w.expect(hook, &syn, &Want::Dropped(Drop::NoLocalBackend))?;
    }
    Ok(())
}

fn nobody(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], frontend::INTERNAL_LOCAL, TCP, &[])?;
    let syn = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodA, &syn, &Want::Refused(Drop::NoBackend, syn.refusal()))?;
    w.change_service(|service| service.flags |= bits::SOMEBODY)?;
    w.expect(Hook::FromPodA, &syn, &Want::Dropped(Drop::NoLocalBackend))?;
    Ok(())
}

/// Sends the first packets of many flows and counts where they went.
fn spread(w: &mut World, ports: std::ops::Range<u16>) -> Result<BTreeMap<IpAddr, u32>> {
    let n = w.names;
    let mut counts = BTreeMap::new();
    for port in ports {
        let syn = packet(n.pod_a, n.vip).tcp(port, 80, SYN);
        let outcome = w.run(Hook::FromPodA, &syn.bytes())?;
        ensure!(outcome.code != SHOT, "port {port} was dropped");
        let got = Packet::read(&outcome.frame)?;
        *counts.entry(got.dst).or_default() += 1;
        w.run(if got.dst == n.pod_b { Hook::FromPodB } else { Hook::UplinkIn }, &got.answer().bytes())?;
    }
    Ok(counts)
}

/// A service over both local pods through a table of slots, which is one of `abi::service::SLOTS`.
fn with_slots(w: &mut World, slots: &[u32], flags: u32) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080), (n.far_pod, 8080)])?;
    let mut base = 0;
    w.change_service(|service| {
        base = service.cluster.base;
        service.cluster = Segment { base: 100, count: slots.len() as u32 | SLOTS };
        service.flags |= flags;
    })?;
    for (at, slot) in (100..).zip(slots) {
        w.runner.array::<u32>(name::SLOTS)?.set(at, base + slot, 0)?;
    }
    Ok(())
}

fn weights(w: &mut World) -> Result<()> {
    let n = w.names;
    with_slots(w, &[0, 0, 0, 1], 0)?;
    let counts = spread(w, 20_000..20_800)?;
    let (heavy, light) = (counts[&n.pod_b], counts[&n.far_pod]);
    ensure!((540..660).contains(&heavy) && light == 800 - heavy, "600 to 200, but {counts:?}");
    Ok(())
}

fn hashed(w: &mut World) -> Result<()> {
    with_slots(w, &[0, 1, 0, 1, 0, 1, 0], bits::HASH)?;
    let first = spread(w, 20_000..20_200)?;
    ensure!(first.len() == 2 && first.values().all(|count| *count > 60), "lopsided: {first:?}");
    for port in 20_000..20_020 {
        let one = spread(w, port..port + 1)?;
        w.forget_flows()?;
        ensure!(one == spread(w, port..port + 1)?, "port {port} changed its mind");
    }
    Ok(())
}

fn least_connections(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080), (n.far_pod, 8080)])?;
    w.change_service(|service| service.flags |= bits::LEAST)?;
    let mut states = w.runner.array::<BackendState>(name::BACKEND_STATES)?;
    for id in 1..3 {
        let state = states.get(&id, 0)?;
        states.set(id, BackendState { connections: 0, ..state }, 0)?;
    }
    let counts = spread(w, 20_000..20_400)?;
    let (one, other) = (counts[&n.pod_b], counts[&n.far_pod]);
    ensure!(one.abs_diff(other) <= 20, "two drawn with replacement stay close: {counts:?}");
    let states = w.runner.array::<BackendState>(name::BACKEND_STATES)?;
    let counted = states.get(&1, 0)?.connections + states.get(&2, 0)?.connections;
    ensure!(counted == 400, "{counted} connections counted");
    // One that was counted down too often.
    let mut states = w.runner.array::<BackendState>(name::BACKEND_STATES)?;
    for (id, connections) in [(1, u64::MAX - 1000), (2, 10_000)] {
        let state = states.get(&id, 0)?;
        states.set(id, BackendState { connections, ..state }, 0)?;
    }
    let counts = spread(w, 30_000..30_200)?;
    ensure!(counts[&n.pod_b] > 110, "it is the less busy of two: {counts:?}");
    Ok(())
}

fn kept_no_longer(w: &mut World) -> Result<()> {
    let n = w.names;
    w.affinity = 60;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.far_pod, 1), (n.far_pod, 2)])?;
    let ask = |w: &mut World, port: u16| -> Result<u16> {
        let outcome = w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).udp(port, 53).bytes())?;
        Ok(Packet::read(&outcome.frame)?.ports().1)
    };
    let first = ask(w, 1000)?;
    // The other one alone; both live.
    let other = 3 - first;
    w.change_service(|row| {
        row.cluster = Segment { base: row.cluster.base + u32::from(other) - 1, count: 1 }
    })?;
    ensure!(ask(w, 1001)? == other, "a backend that is none of this service's any more was kept");
    w.change_service(|row| {
        row.cluster = Segment { base: row.cluster.base + 1 - u32::from(other), count: 2 }
    })?;
    ensure!(ask(w, 1002)? == other, "and the one that took its place is not");
    Ok(())
}

fn host_only(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], frontend::EXTERNAL | frontend::HOST_ONLY, TCP, &[(n.pod_b, 8080)])?;
    let syn = packet(n.client, n.vip).tcp(40000, 80, SYN);
    w.expect(Hook::UplinkIn, &syn, &Want::Stack(syn.clone()))?;
    Ok(())
}

fn echo(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let ping = |source| packet(source, n.vip).echo(true, 7).hops(9);
    w.expect(Hook::FromPodA, &ping(n.pod_a), &Want::Dropped(Drop::Unallocated))?;
    address(w, 0)?;
    for (hook, source) in [(Hook::FromPodA, n.pod_a), (Hook::UplinkIn, n.client), (Hook::UplinkOut, n.node)] {
        let answer = packet(n.vip, source).echo(false, 7);
        w.expect(hook, &ping(source), &Want::Sent(Path::Echo, answer))?;
    }
    Ok(())
}

/// Buries a backend whose place is taken by those of the last service.
fn bury(w: &mut World, addr: IpAddr, port: u16, proto: u8) -> Result<()> {
    let service = w.change_service(|_| {})?;
    let key = BackendKey { addr: Addr16::from(addr), port: Be16::new(port), proto, zero: 0 };
    w.runner.hash(name::TOMBSTONES)?.insert(key, Tombstone { service, buried: 0 }, 0)?;
    let control = Control { tombstones: 1, ..Control::default() };
    Ok(w.runner.array(name::CONTROL)?.set(0, control, 0)?)
}

fn healed(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    bury(w, n.far_pod, 5353, UDP)?;
    let lost = packet(n.pod_a, n.far_pod).udp(40000, 5353);
    let moved = packet(n.pod_a, n.pod_b).udp(40000, 5353);
    w.expect(Hook::FromPodA, &lost, &Want::Sent(Path::Pod, moved.clone()))?;
    w.expect(Hook::FromPodB, &moved.answer(), &Want::Sent(Path::Pod, lost.answer()))?;
    let other = packet(n.pod_a, n.far_pod).udp(40000, 5354);
    w.expect(Hook::FromPodA, &other, &Want::Sent(Path::Remote, other.clone().hops(63)))?;
    Ok(())
}

fn reset(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    bury(w, n.far_pod, 8080, TCP)?;
    let late = packet(n.pod_a, n.far_pod).tcp(40000, 8080, ACK);
    w.expect(Hook::FromPodA, &late, &Want::Refused(Drop::BackendGone, late.refusal()))?;
    let anew = packet(n.pod_a, n.far_pod).tcp(40001, 8080, SYN);
    w.expect(Hook::FromPodA, &anew, &Want::Sent(Path::Remote, anew.clone().hops(63)))?;
    w.expect(Hook::FromPodA, &late, &Want::Sent(Path::Remote, late.clone().hops(63)))?;
    // Who connects from where a backend was is answered.
    bury(w, n.pod_a, 40002, TCP)?;
    let own = packet(n.pod_a, n.pod_b).tcp(40002, 80, SYN);
    w.expect(Hook::FromPodA, &own, &Want::Sent(Path::Pod, own.clone()))?;
    w.expect(Hook::FromPodB, &own.answer(), &Want::Sent(Path::Pod, own.answer()))?;
    Ok(())
}

fn from_host(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let syn = packet(n.node, n.vip).tcp(40000, 80, SYN);
    let translated = packet(n.node, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::UplinkOut, &syn, &Want::Sent(Path::Pod, translated.clone()))?;
    let answer = translated.answer();
    let Body::Tcp(sport, dport, ..) = answer.body else { unreachable!() };
    let answer = Packet { body: Body::Tcp(sport, dport, SYN | ACK, Vec::new()), ..answer };
    let wanted = Packet { body: Body::Tcp(80, dport, SYN | ACK, Vec::new()), src: n.vip, ..answer.clone() };
    w.expect(Hook::FromPodB, &answer, &Want::Stack(wanted))?;
    // Known flows as well: the stack has routed them to the service's address.
    let ack = packet(n.node, n.vip).tcp(40000, 80, ACK);
    w.expect(Hook::UplinkOut, &ack, &Want::Sent(Path::Pod, packet(n.node, n.pod_b).tcp(40000, 8080, ACK)))?;
    Ok(())
}

fn from_host_to_itself(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.node, 8080)])?;
    let asked = |flags| packet(n.node, n.vip).tcp(40000, 80, flags);
    let got = |flags| packet(n.vip, n.node).tcp(MASQUERADED, 8080, flags);
    for flags in [SYN, ACK] {
        let want = Want::Sent(Path::Stack, got(flags));
        let came = w.expect(Hook::UplinkOut, &asked(flags), &want)?;
        // It passes the other hook as what it has become.
        w.expect(Hook::UplinkIn, &came, &Want::Stack(came.clone()))?;
        let answer = Want::Sent(Path::Stack, asked(flags).answer());
        let back = w.expect(Hook::UplinkOut, &came.answer(), &answer)?;
        w.expect(Hook::UplinkIn, &back, &Want::Stack(back.clone()))?;
    }
    let frame = w.run(Hook::UplinkOut, &asked(ACK).bytes())?.frame;
    ensure!(frame[..6] == frame[6..12], "to the device itself: {:02x?}", &frame[..12]);
    Ok(())
}

fn host_refused(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[])?;
    let syn = packet(n.node, n.vip).tcp(40000, 80, SYN);
    w.expect(Hook::UplinkOut, &syn, &Want::Refused(Drop::NoBackend, syn.refusal()))?;
    w.change_service(|service| service.flags |= bits::SOMEBODY)?;
    w.expect(Hook::UplinkOut, &syn, &Want::Dropped(Drop::NoLocalBackend))?;
    Ok(())
}

fn rate_limit(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[])?;
    let unanswered = w.counted(name::PATHS, Path::Unanswered as u32)?;
    let datagram = packet(n.pod_a, n.vip).udp(40000, 53).bytes();
    let mut silent = 0;
    for _ in 0..6_000 {
        silent += u64::from(w.run(Hook::FromPodA, &datagram)?.code == SHOT);
    }
    ensure!(silent > 0, "six thousand refusals in a moment, and all were sent");
    ensure!(w.counted(name::PATHS, Path::Unanswered as u32)? - unanswered == silent, "not counted");
    // The next second has refusals of its own.
    thread::sleep(std::time::Duration::from_millis(1100));
    let datagram = packet(n.pod_a, n.vip).udp(40000, 53);
    w.expect(Hook::FromPodA, &datagram, &Want::Refused(Drop::NoBackend, datagram.refusal()))?;
    Ok(())
}
