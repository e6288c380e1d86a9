//! Every path of the programs, in both families.

use abi::Addr16;
use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, bits, timeout};
use abi::name;
use abi::service::{Affinity, AffinityKey, frontend};
use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{ACK, Body, FIN, Packet, RST, SYN, packet};
use ebpf_test::runner::{SHOT, TUNNEL_PORT};
use ebpf_test::world::{Hook, MASQUERADED, SENDER, Want, World};

const TCP: u8 = 6;
const UDP: u8 = 17;

const CASES: &[Case] = &[
    ("a pod reaches a pod of its node without its address changing", pod_to_pod),
    ("a pod reaches a pod of another node, one hop further", pod_to_far_pod),
    ("a packet for the host goes to its stack", pod_to_host),
    ("a packet with another's source address is dropped", spoofed),
    ("a frame with another's hardware address is dropped, whatever it carries", spoofed_hardware),
    ("a packet whose hops are spent goes to the stack, which answers", spent_hops),
    ("a SYN to the VIP leaves for the backend and the answer comes from the VIP", vip_local),
    ("a datagram to the VIP leaves for a far backend and the answer is translated on arrival", vip_far),
    ("a pod that is its own backend talks to itself through the node's address", hairpin),
    ("a client keeps its backend, another has its own, and a dead one is replaced", affinity),
    ("a service without backends answers with RST or port unreachable", no_backend),
    ("a segment in the middle of an unknown connection is not given a backend", middle_of_connection),
    ("a datagram moves on when its backend is gone, a connection ends", backend_gone),
    ("an address in the service prefix without a service is dropped", unallocated),
    ("a NodePort with a backend here keeps the client's address", node_port_local),
    ("a NodePort with a backend elsewhere takes the node's address", node_port_far),
    ("a NodePort whose backend is the host itself answers from the NodePort", node_port_host),
    ("externalTrafficPolicy Local without a local backend drops", node_port_local_only),
    ("a pod takes the node's address on its way out and the answer finds it", masquerade),
    ("an echo request is masqueraded by its identifier", masquerade_echo),
    ("two pods with the same port get different ones towards the same destination", masquerade_twice),
    (
        "when all ports towards a destination are taken, the next flow is dropped and counted",
        masquerade_exhausted,
    ),
    ("ports that begin again make a closed flow an open one", reopened),
    ("a protocol without ports cannot be masqueraded", masquerade_other),
    ("towards networks that are excepted a pod keeps its address", unmasked),
    ("an answer to a stranger who began is not masqueraded", stranger),
    ("a packet between nodes passes untouched", between_nodes),
    (
        "a tunnel between nodes is the stack's, whatever service has its port on the node",
        tunnel_between_nodes,
    ),
    ("a service may have the port of the tunnels", service_with_the_tunnels_port),
    ("an answered flow moves to the table that is not evicted", promotion),
    ("packet too big about a masqueraded packet reaches its pod", error_about_masqueraded),
    ("an error from a backend comes from the NodePort", error_from_backend),
    ("silent flows are forgotten, others are not", expiry),
    ("a packet from an unknown link is dropped", unknown_link),
    ("a packet of a pod that ends inside a header is dropped", truncated),
    ("a frame of a pod that is neither IP nor ARP is dropped, ARP is the stack's", not_ip),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

fn sent(path: Path, packet: Packet) -> Want {
    Want::Sent(path, packet)
}

fn pod_to_pod(w: &mut World) -> Result<()> {
    let n = w.names;
    for packet in [
        packet(n.pod_a, n.pod_b).tcp(40000, 80, SYN),
        packet(n.pod_a, n.pod_b).udp(40000, 53),
        packet(n.pod_a, n.pod_b).echo(true, 7),
    ] {
        w.expect(Hook::FromPodA, &packet, &sent(Path::Pod, packet.clone()))?;
        w.expect(Hook::UplinkIn, &packet, &sent(Path::Pod, packet.clone()))?;
    }
    Ok(())
}

fn pod_to_far_pod(w: &mut World) -> Result<()> {
    let n = w.names;
    let packet = packet(n.pod_a, n.far_pod).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodA, &packet, &sent(Path::Remote, packet.clone().hops(63)))?;
    w.expect(Hook::UplinkOut, &packet, &Want::Stack(packet.clone()))?;
    Ok(())
}

fn pod_to_host(w: &mut World) -> Result<()> {
    let n = w.names;
    let packet = packet(n.pod_a, n.node).tcp(40000, 22, SYN);
    w.expect(Hook::FromPodA, &packet, &Want::Stack(packet.clone()))?;
    w.expect(Hook::ToPodA, &packet.answer(), &Want::Stack(packet.answer()))?;
    Ok(())
}

fn spoofed(w: &mut World) -> Result<()> {
    let n = w.names;
    for source in [n.pod_b, n.node, n.client] {
        let packet = packet(source, n.far_pod).udp(40000, 80);
        w.expect(Hook::FromPodA, &packet, &Want::Dropped(Drop::Spoofed))?;
    }
    Ok(())
}

fn spoofed_hardware(w: &mut World) -> Result<()> {
    let n = w.names;
    let mut arp = packet(n.pod_a, n.pod_b).udp(40000, 80).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let asked = packet(n.pod_a, n.far_pod);
    // The second packet of the flow takes another way through the program.
    let plain = asked.clone().udp(40000, 80).bytes();
    for frame in [plain.clone(), plain, asked.udp(40000, 80).fragment(0, true).bytes(), arp] {
        assert_ne!(w.run(Hook::FromPodA, &frame)?.code, SHOT);
        for changed in [6, 11] {
            let mut frame = frame.clone();
            frame[changed] ^= 4;
            let before = w.counted(name::DROPS, Drop::SpoofedMac as u32)?;
            ensure!(w.run(Hook::FromPodA, &frame)?.code == SHOT, "byte {changed} of {frame:02x?}");
            ensure!(w.counted(name::DROPS, Drop::SpoofedMac as u32)? == before + 1, "{}", w.drops()?);
        }
    }
    Ok(())
}

fn spent_hops(w: &mut World) -> Result<()> {
    let n = w.names;
    let packet = packet(n.pod_a, n.far_pod).udp(40000, 80).hops(1);
    w.expect(Hook::FromPodA, &packet, &Want::Stack(packet.clone()))?;
    Ok(())
}

fn vip_local(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let asked = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    let got = packet(n.pod_a, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::FromPodA, &asked, &sent(Path::Pod, got.clone()))?;
    w.expect(Hook::FromPodB, &got.answer(), &sent(Path::Pod, asked.answer()))?;
    let more = packet(n.pod_a, n.vip).tcp(40000, 80, ACK);
    w.expect(Hook::FromPodA, &more, &sent(Path::Pod, packet(n.pod_a, n.pod_b).tcp(40000, 8080, ACK)))?;
    Ok(())
}

fn vip_far(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.far_pod, 5353)])?;
    let asked = packet(n.pod_a, n.vip).udp(40000, 53);
    let got = packet(n.pod_a, n.far_pod).udp(40000, 5353);
    w.expect(Hook::FromPodA, &asked, &sent(Path::Remote, got.clone().hops(63)))?;
    w.expect(Hook::UplinkIn, &got.answer(), &sent(Path::Pod, asked.answer()))?;
    w.expect(Hook::ToPodA, &got.answer(), &Want::Stack(asked.answer()))?;
    Ok(())
}

fn hairpin(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_a, 8080)])?;
    let asked = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    let want = sent(Path::Pod, packet(n.node, n.pod_a).tcp(MASQUERADED, 8080, SYN));
    let got = w.expect(Hook::FromPodA, &asked, &want)?;
    w.expect(Hook::FromPodA, &got.answer(), &sent(Path::Pod, asked.answer()))?;
    Ok(())
}

fn no_backend(w: &mut World) -> Result<()> {
    let n = w.names;
    for protocol in [TCP, UDP] {
        w.service(&[(n.vip, 80), (n.node, 30080)], frontend::EXTERNAL, protocol, &[])?;
    }
    for (hook, from, to, port) in
        [(Hook::FromPodA, n.pod_a, n.vip, 80), (Hook::UplinkIn, n.client, n.node, 30080)]
    {
        let asked = packet(from, to).tcp(40000, port, SYN);
        w.expect(hook, &asked, &Want::Refused(Drop::NoBackend, asked.refusal()))?;
        let asked = packet(from, to).udp(40000, port);
        w.expect(hook, &asked, &Want::Refused(Drop::NoBackend, asked.refusal()))?;
    }
    Ok(())
}

fn affinity(w: &mut World) -> Result<()> {
    let n = w.names;
    w.affinity = 60;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.far_pod, 1), (n.far_pod, 2), (n.far_pod, 3), (n.far_pod, 4)])?;
    let ask = |w: &mut World, port: u16| -> Result<u16> {
        let outcome = w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).udp(port, 53).bytes())?;
        Ok(Packet::read(&outcome.frame)?.ports().1)
    };
    let first = ask(w, 1000)?;
    for port in 1001..1040 {
        ensure!(ask(w, port)? == first, "the client keeps its backend");
    }
    let other = packet(n.pod_b, n.vip).udp(1000, 53);
    w.run(Hook::FromPodB, &other.bytes())?;
    ensure!(
        w.runner.hash::<AffinityKey, Affinity>(name::AFFINITY)?.keys().count() == 2,
        "one for each client"
    );
    w.retire(u32::from(first))?;
    let kept = ask(w, 2000)?;
    for port in 2001..2040 {
        ensure!(ask(w, port)? == kept, "and the one that took its place");
    }
    Ok(())
}

fn middle_of_connection(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    for flags in [ACK, SYN | ACK, FIN | ACK] {
        let packet = packet(n.pod_a, n.vip).tcp(40000, 80, flags);
        w.expect(Hook::FromPodA, &packet, &Want::Refused(Drop::NoFlow, packet.refusal()))?;
    }
    let reset = packet(n.pod_a, n.vip).tcp(40000, 80, RST);
    w.expect(Hook::FromPodA, &reset, &Want::Dropped(Drop::NoFlow))?;
    Ok(())
}

fn error_about_masqueraded(w: &mut World) -> Result<()> {
    let n = w.names;
    for out in [
        packet(n.pod_a, n.client).tcp(40000, 443, SYN),
        packet(n.pod_a, n.client).udp(40000, 53),
        packet(n.pod_a, n.client).echo(true, 7),
    ] {
        let mut hidden = out.clone();
        hidden.src = n.node;
        hidden.body = match out.body {
            Body::Tcp(_, port, flags, ref data) => Body::Tcp(MASQUERADED, port, flags, data.clone()),
            Body::Udp(_, port, ref data) => Body::Udp(MASQUERADED, port, data.clone()),
            _ => Body::Echo(true, MASQUERADED),
        };
        let got = w.expect(Hook::UplinkOut, &out, &Want::Stack(hidden))?;
        // A router on the way says that the packet is too big.
        let (kind, code) = if n.client.is_ipv4() { (3, 4) } else { (2, 0) };
        let error = packet(n.peer, n.node).error(kind, code, &got, 48);
        let outcome = w.run(Hook::UplinkIn, &error.bytes())?;
        ensure!(outcome.code == ebpf_test::runner::REDIRECT, "code {}: {}", outcome.code, w.drops()?);
        let told = Packet::read(&outcome.frame)?;
        ensure!((told.src, told.dst) == (n.peer, n.pod_a), "{told:?}");
        let inside = told.inside()?;
        ensure!((inside.src, inside.dst, inside.ports()) == (n.pod_a, n.client, out.ports()), "{inside:?}");
    }
    Ok(())
}

fn error_from_backend(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30053)], frontend::EXTERNAL, UDP, &[(n.pod_b, 5353)])?;
    let asked = packet(n.client, n.node).udp(40000, 30053);
    let got =
        w.expect(Hook::UplinkIn, &asked, &sent(Path::Pod, packet(n.client, n.pod_b).udp(40000, 5353)))?;
    let outcome = w.run(Hook::FromPodB, &got.refusal().bytes())?;
    ensure!(outcome.code == ebpf_test::runner::REDIRECT, "code {}: {}", outcome.code, w.drops()?);
    let told = Packet::read(&outcome.frame)?;
    ensure!((told.src, told.dst) == (n.node, n.client), "{told:?}");
    let inside = told.inside()?;
    ensure!((inside.src, inside.dst, inside.ports()) == (n.client, n.node, asked.ports()), "{inside:?}");
    Ok(())
}

fn expiry(w: &mut World) -> Result<()> {
    let n = w.names;
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    if uptime
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .is_some_and(|up: u32| up <= timeout::EMBRYO)
    {
        println!("skipped: no flow can be old on a machine that has just started");
        return Ok(());
    }
    for port in [40000, 40001] {
        w.run(Hook::UplinkOut, &packet(n.pod_a, n.client).udp(port, 53).bytes())?;
    }
    w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64])?;
    ensure!(w.flows(name::EMBRYOS)?.len() == 4, "fresh flows stay");
    for (key, flow) in w.flows(name::EMBRYOS)? {
        if [key.tuple.sport.host(), flow.to.dport.host()].contains(&40000) {
            w.runner.hash(name::EMBRYOS)?.insert(key, Flow { last_seen: 0, ..flow }, 0)?;
        }
    }
    w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64])?;
    let left = w.flows(name::EMBRYOS)?;
    ensure!(left.len() == 2, "only the silent flow is forgotten: {left:?}");
    Ok(())
}

fn backend_gone(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let datagram = packet(n.pod_a, n.vip).udp(40000, 53);
    let segment = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodA, &datagram, &sent(Path::Pod, packet(n.pod_a, n.pod_b).udp(40000, 5353)))?;
    w.expect(Hook::FromPodA, &segment, &sent(Path::Pod, packet(n.pod_a, n.pod_b).tcp(40000, 8080, SYN)))?;
    w.retire(1)?;
    w.retire(2)?;
    // The service moves to another backend.
    w.reset_services()?;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.far_pod, 5353)])?;
    w.expect(
        Hook::FromPodA,
        &datagram,
        &sent(Path::Remote, packet(n.pod_a, n.far_pod).udp(40000, 5353).hops(63)),
    )?;
    let late = packet(n.pod_a, n.vip).tcp(40000, 80, ACK);
    w.expect(Hook::FromPodA, &late, &Want::Refused(Drop::BackendGone, late.refusal()))?;
    Ok(())
}

fn unallocated(w: &mut World) -> Result<()> {
    let n = w.names;
    let packet = packet(n.pod_a, n.vip).tcp(40000, 99, SYN);
    w.expect(Hook::FromPodA, &packet, &Want::Dropped(Drop::Unallocated))?;
    Ok(())
}

fn node_port_local(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, TCP, &[(n.pod_b, 8080)])?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    let got = packet(n.client, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::UplinkIn, &asked, &sent(Path::Pod, got.clone()))?;
    w.expect(Hook::FromPodB, &got.answer(), &sent(Path::Remote, asked.answer().hops(63)))?;
    w.expect(Hook::UplinkOut, &asked.answer(), &Want::Stack(asked.answer()))?;
    Ok(())
}

fn node_port_far(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30053)], frontend::EXTERNAL, UDP, &[(n.far_pod, 5353)])?;
    let asked = packet(n.client, n.node).udp(40000, 30053);
    let want = packet(n.node, n.far_pod).udp(MASQUERADED, 5353).hops(63);
    let got = w.expect(Hook::UplinkIn, &asked, &sent(Path::Remote, want))?;
    w.expect(Hook::UplinkOut, &got, &Want::Stack(got.clone()))?;
    w.expect(Hook::UplinkIn, &got.answer(), &sent(Path::Remote, asked.answer().hops(63)))?;
    // The same client keeps its port.
    let again = w.expect(Hook::UplinkIn, &asked, &sent(Path::Remote, got.clone()))?;
    ensure!(again.ports() == got.ports(), "{again:?}");
    Ok(())
}

fn tunnel_between_nodes(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, TUNNEL_PORT)], frontend::EXTERNAL, UDP, &[(n.pod_b, 5353)])?;
    let (here, back) =
        (packet(n.client, n.node).udp(40000, TUNNEL_PORT), packet(n.node, n.client).udp(40000, TUNNEL_PORT));
    w.expect(Hook::UplinkIn, &here, &Want::Stack(here.clone()))?;
    w.expect(Hook::UplinkOut, &back, &Want::Stack(back.clone()))?;
    Ok(())
}

fn service_with_the_tunnels_port(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, TUNNEL_PORT)], 0, UDP, &[(n.pod_b, 5353)])?;
    for (hook, from) in [(Hook::FromPodA, n.pod_a), (Hook::UplinkOut, n.node)] {
        let got = packet(from, n.pod_b).udp(40000, 5353);
        w.expect(hook, &packet(from, n.vip).udp(40000, TUNNEL_PORT), &sent(Path::Pod, got))?;
    }
    Ok(())
}

fn node_port_host(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, TCP, &[(n.node, 8080)])?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    let got = packet(n.client, n.node).tcp(40000, 8080, SYN);
    w.expect(Hook::UplinkIn, &asked, &Want::Stack(got.clone()))?;
    w.expect(Hook::UplinkOut, &got.answer(), &Want::Stack(asked.answer()))?;
    Ok(())
}

fn node_port_local_only(w: &mut World) -> Result<()> {
    let n = w.names;
    let flags = frontend::EXTERNAL | frontend::EXTERNAL_LOCAL;
    w.service(&[(n.node, 30080)], flags, TCP, &[(n.far_pod, 8080)])?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    w.expect(Hook::UplinkIn, &asked, &Want::Dropped(Drop::NoLocalBackend))?;
    let inside = packet(n.pod_a, n.node).tcp(40000, 30080, SYN);
    let got = packet(n.pod_a, n.far_pod).tcp(40000, 8080, SYN).hops(63);
    w.expect(Hook::FromPodA, &inside, &sent(Path::Remote, got))?;
    Ok(())
}

fn masquerade(w: &mut World) -> Result<()> {
    let n = w.names;
    for (out, hidden) in [
        (packet(n.pod_a, n.client).tcp(40000, 443, SYN), packet(n.node, n.client).tcp(MASQUERADED, 443, SYN)),
        (packet(n.pod_a, n.client).udp(40000, 53), packet(n.node, n.client).udp(MASQUERADED, 53)),
    ] {
        w.expect(Hook::FromPodA, &out, &sent(Path::Remote, out.clone().hops(63)))?;
        let got = w.expect(Hook::UplinkOut, &out, &Want::Stack(hidden))?;
        w.expect(Hook::UplinkIn, &got.answer(), &sent(Path::Pod, out.answer()))?;
        w.expect(Hook::UplinkOut, &out, &Want::Stack(got))?;
    }
    Ok(())
}

fn masquerade_echo(w: &mut World) -> Result<()> {
    let n = w.names;
    let out = packet(n.pod_a, n.client).echo(true, 7);
    let got =
        w.expect(Hook::UplinkOut, &out, &Want::Stack(packet(n.node, n.client).echo(true, MASQUERADED)))?;
    w.expect(Hook::UplinkIn, &got.answer(), &sent(Path::Pod, out.answer()))?;
    Ok(())
}

fn masquerade_twice(w: &mut World) -> Result<()> {
    let n = w.names;
    let mut ports = std::collections::BTreeSet::new();
    for number in 0..200 {
        let source = if number % 2 == 0 { n.pod_a } else { n.pod_b };
        let out = packet(source, n.client).udp(40000 + number / 2, 53);
        let got =
            w.expect(Hook::UplinkOut, &out, &Want::Stack(packet(n.node, n.client).udp(MASQUERADED, 53)))?;
        ensure!(ports.insert(got.ports().0), "port {} was given twice", got.ports().0);
    }
    Ok(())
}

fn masquerade_exhausted(w: &mut World) -> Result<()> {
    let n = w.names;
    let mut ports = std::collections::BTreeSet::new();
    let before = w.counted(name::DROPS, Drop::NoPort as u32)?;
    // One more than there are ports; the sources are spread over two pods.
    for number in 0..4600u16 {
        let source = if number % 2 == 0 { n.pod_a } else { n.pod_b };
        let outcome = w.run(Hook::UplinkOut, &packet(source, n.client).udp(1000 + number, 53).bytes())?;
        if outcome.code == ebpf_test::runner::STACK {
            let port = Packet::read(&outcome.frame)?.ports().0;
            ensure!(port >= MASQUERADED && ports.insert(port), "port {port}");
        }
    }
    ensure!(w.counted(name::DROPS, Drop::NoPort as u32)? > before, "{} ports in use", ports.len());
    // Another destination has all ports to itself.
    let other = packet(n.pod_a, n.peer).udp(40000, 53);
    w.expect(Hook::UplinkOut, &other, &Want::Stack(packet(n.node, n.peer).udp(MASQUERADED, 53)))?;
    Ok(())
}

fn reopened(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let to = |flags| packet(n.pod_a, n.vip).tcp(40000, 80, flags);
    let back = |flags| packet(n.pod_b, n.pod_a).tcp(8080, 40000, flags);
    let closing = |w: &mut World| -> Result<usize> {
        Ok(w.flows(name::FLOWS)?.iter().filter(|(_, flow)| flow.flags & bits::FIN != 0).count())
    };
    for _ in 0..2 {
        w.run(Hook::FromPodA, &to(SYN).bytes())?;
        w.run(Hook::FromPodB, &back(SYN | ACK).bytes())?;
        ensure!(closing(w)? == 0, "open");
        w.run(Hook::FromPodA, &to(FIN | ACK).bytes())?;
        w.run(Hook::FromPodB, &back(FIN | ACK).bytes())?;
        ensure!(closing(w)? == 2, "closed in both directions");
    }
    Ok(())
}

fn unmasked(w: &mut World) -> Result<()> {
    let n = w.names;
    let mut excepted: LpmTrie<_, Addr16, u32> = w.runner.map(name::UNMASKED)?.try_into()?;
    let network = Key::new(120, Addr16::from(n.client));
    excepted.insert(&network, 1, 0)?;
    let packet = packet(n.pod_a, n.client);
    for packet in [packet.clone().tcp(40000, 80, SYN), packet.clone().udp(40000, 53), packet.echo(true, 7)] {
        w.expect(Hook::UplinkOut, &packet, &Want::Stack(packet.clone()))?;
    }
    let mut excepted: LpmTrie<_, Addr16, u32> = w.runner.map(name::UNMASKED)?.try_into()?;
    Ok(excepted.remove(&network)?)
}

fn masquerade_other(w: &mut World) -> Result<()> {
    let n = w.names;
    let mut out = packet(n.pod_a, n.client);
    out.body = ebpf_test::packet::Body::Other(47, vec![0; 16]);
    w.expect(Hook::UplinkOut, &out, &Want::Dropped(Drop::UnknownProtocol))?;
    Ok(())
}

fn stranger(w: &mut World) -> Result<()> {
    let n = w.names;
    for inward in [
        packet(n.client, n.pod_a).tcp(40000, 80, SYN),
        packet(n.client, n.pod_a).udp(40000, 53),
        packet(n.peer, n.pod_a).echo(true, 9),
    ] {
        w.expect(Hook::UplinkIn, &inward, &sent(Path::Pod, inward.clone()))?;
        let answer = inward.answer();
        w.expect(Hook::FromPodA, &answer, &sent(Path::Remote, answer.clone().hops(63)))?;
        w.expect(Hook::UplinkOut, &answer, &Want::Stack(answer.clone()))?;
    }
    Ok(())
}

fn between_nodes(w: &mut World) -> Result<()> {
    let n = w.names;
    let packet = packet(n.peer, n.node).tcp(40000, 22, SYN);
    w.expect(Hook::UplinkIn, &packet, &Want::Stack(packet.clone()))?;
    w.expect(Hook::UplinkOut, &packet.answer(), &Want::Stack(packet.answer()))?;
    ensure!(w.flows(name::EMBRYOS)?.is_empty() && w.flows(name::FLOWS)?.is_empty(), "no flow is remembered");
    Ok(())
}

fn promotion(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    let asked = packet(n.pod_a, n.vip).udp(40000, 53);
    let got = packet(n.pod_a, n.pod_b).udp(40000, 5353);
    w.expect(Hook::FromPodA, &asked, &sent(Path::Pod, got.clone()))?;
    ensure!(
        w.flows(name::EMBRYOS)?.len() == 2 && w.flows(name::FLOWS)?.is_empty(),
        "an embryo in both directions"
    );
    w.expect(Hook::FromPodB, &got.answer(), &sent(Path::Pod, asked.answer()))?;
    ensure!(
        w.flows(name::EMBRYOS)?.is_empty() && w.flows(name::FLOWS)?.len() == 2,
        "a flow in both directions"
    );
    Ok(())
}

fn unknown_link(w: &mut World) -> Result<()> {
    let n = w.names;
    let outcome = w.runner.run(name::TC_POD_OUT, 1, &packet(n.pod_a, n.pod_b).udp(1, 2).bytes())?;
    ensure!(outcome.code == ebpf_test::runner::SHOT, "code {}", outcome.code);
    w.counted(name::DROPS, Drop::UnknownLink as u32).context("counted").map(|_| ())
}

fn truncated(w: &mut World) -> Result<()> {
    let n = w.names;
    let ports = if n.vip.is_ipv4() { 34 } else { 54 };
    for whole in [packet(n.pod_a, n.pod_b).tcp(40000, 80, SYN), packet(n.pod_a, n.vip).udp(40000, 80)] {
        for length in [ports + 2, ports - 4] {
            let before = w.counted(name::DROPS, Drop::Truncated as u32)?;
            let Ok(outcome) = w.run(Hook::FromPodA, &whole.bytes()[..length]) else {
                // Some kernels do not run programs on frames that end inside the network header.
                ensure!(length < ports, "{length} bytes are refused");
                continue;
            };
            ensure!(outcome.code == SHOT, "{length} bytes: code {}", outcome.code);
            ensure!(
                w.counted(name::DROPS, Drop::Truncated as u32)? == before + 1,
                "{length}: {}",
                w.drops()?
            );
        }
    }
    Ok(())
}

fn not_ip(w: &mut World) -> Result<()> {
    for (kind, code, map, index) in [
        ([0x88, 0xcc], ebpf_test::runner::SHOT, name::DROPS, Drop::NotIp as u32),
        ([0x08, 0x06], ebpf_test::runner::STACK, name::PATHS, Path::Stack as u32),
    ] {
        let mut frame = vec![0; 64];
        frame[6..12].copy_from_slice(&SENDER);
        frame[12..14].copy_from_slice(&kind);
        let before = w.counted(map, index)?;
        let outcome = w.run(Hook::FromPodA, &frame)?;
        ensure!(outcome.code == code, "{kind:02x?}: code {}", outcome.code);
        ensure!(w.counted(map, index)? == before + 1, "{kind:02x?}: not counted once");
    }
    Ok(())
}
