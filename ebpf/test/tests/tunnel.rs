//! Direct answers: to the backend's node in a tunnel, from there to the client in the service's name.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, bits, most_direct};
use abi::name;
use abi::service::{bits as policy, frontend};
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::kernel;
use ebpf_test::packet::{ACK, Body, FIN, INIT, Packet, SYN, packet};
use ebpf_test::runner::REDIRECT;
use ebpf_test::world::{Hook, Want, World};
use std::net::IpAddr;

const PROTOCOLS: [u8; 3] = [6, 17, 132];

const CASES: &[Case] = &[
    ("a client's packets travel whole to the backend's node", encapsulated),
    ("clients inside and backends of this node need no tunnel", not_needed),
    ("a packet that does not fit the tunnel is answered with what would", too_big),
    ("one that does not fit its route is the stack's in IPv4, and answered in IPv6", too_big_for_route),
    ("a connection stays when its client has acknowledged, and goes when it has closed", lives),
    ("acknowledgements that nobody asked for fill no more than half of the table", forged),
    ("from the tunnel to the pod, and from the pod straight to the client", decapsulated),
    ("what was lost is begun again with any packet", begun_again),
    ("other tunnels are the stack's", other_tunnels),
    ("a packet for a backend's node that no route leads to is dropped", no_route),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

fn serve(w: &mut World, protocol: u8, backend: IpAddr) -> Result<()> {
    w.service(&[(w.names.vip, 80)], frontend::EXTERNAL, protocol, &[(backend, 8080)])?;
    w.change_service(|service| service.flags |= policy::DSR).map(|_| ())
}

fn from_client(w: &World, protocol: u8) -> Packet {
    let asked = packet(w.names.client, w.names.vip);
    match protocol {
        6 => asked.tcp(40000, 80, SYN),
        17 => asked.udp(40000, 80),
        _ => asked.sctp(40000, 80, INIT),
    }
}

/// A packet around another, as the programs make it: the port is where fragments would have their name.
fn around(src: IpAddr, dst: IpAddr, inside: &Packet, port: u16) -> Vec<u8> {
    let number = if src.is_ipv4() { 4 } else { 41 };
    let body = Body::Other(number, inside.bytes()[14..].to_vec());
    let mut frame = Packet { body, ..packet(src, dst) }.bytes();
    if src.is_ipv4() {
        frame[18..20].copy_from_slice(&port.to_be_bytes());
        frame[20..22].copy_from_slice(&[0x40, 0]);
        frame[24..26].fill(0);
        let sum: u32 =
            frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[16..18].copy_from_slice(&port.to_be_bytes());
    }
    frame
}

fn encapsulated(w: &mut World) -> Result<()> {
    let n = w.names;
    for protocol in PROTOCOLS {
        w.reset(n)?;
        serve(w, protocol, n.far_pod)?;
        let asked = from_client(w, protocol);
        let want = around(n.node, n.far_pod, &asked.clone().hops(63), 8080);
        for _ in 0..3 {
            let sent = w.counted(name::PATHS, Path::Encapsulated as u32)?;
            let outcome = w.run(Hook::UplinkIn, &asked.bytes())?;
            ensure!(outcome.code == REDIRECT, "{protocol}: code {}: {}", outcome.code, w.drops()?);
            ensure!(outcome.frame[14..] == want[14..], "{:02x?}\n{want:02x?}", outcome.frame);
            ensure!(w.counted(name::PATHS, Path::Encapsulated as u32)? == sent + 1, "counted");
            // XDP leaves tunnels to TC.
            w.expect(Hook::Xdp, &asked, &Want::Passed)?;
        }
    }
    Ok(())
}

fn no_route(w: &mut World) -> Result<()> {
    let nowhere = if w.names.vip.is_ipv4() { "203.0.113.9" } else { "2001:db8:9::9" };
    for protocol in PROTOCOLS {
        w.reset(w.names)?;
        serve(w, protocol, nowhere.parse()?)?;
        w.expect(Hook::UplinkIn, &from_client(w, protocol), &Want::Dropped(Drop::Rewrite))?;
    }
    Ok(())
}

fn not_needed(w: &mut World) -> Result<()> {
    let n = w.names;
    serve(w, 6, n.pod_b)?;
    let asked = from_client(w, 6);
    let got = packet(n.client, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::UplinkIn, &asked, &Want::Sent(Path::Pod, got))?;
    w.reset(n)?;
    serve(w, 6, n.far_pod)?;
    let asked = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    let got = packet(n.pod_a, n.far_pod).tcp(40000, 8080, SYN).hops(63);
    w.expect(Hook::FromPodA, &asked, &Want::Sent(Path::Remote, got))?;
    Ok(())
}

fn too_big(w: &mut World) -> Result<()> {
    let n = w.names;
    serve(w, 17, n.far_pod)?;
    let with =
        |length: usize| Packet { body: Body::Udp(40000, 80, vec![0x5a; length]), ..packet(n.client, n.vip) };
    // The route takes 1500 bytes: two IP headers and that of UDP, and the rest is data.
    let header = if n.vip.is_ipv4() { 20 } else { 40 };
    let room = 1500 - 2 * header - 8;
    let outcome = w.run(Hook::UplinkIn, &with(room).bytes())?;
    ensure!(outcome.frame.len() == 1514, "{} bytes: {}", outcome.frame.len(), w.drops()?);
    let large = with(room + 1);
    let dropped = w.counted(name::DROPS, Drop::TooBig as u32)?;
    let outcome = w.run(Hook::UplinkIn, &large.bytes())?;
    ensure!(outcome.code == REDIRECT, "code {}: {}", outcome.code, w.drops()?);
    ensure!(w.counted(name::DROPS, Drop::TooBig as u32)? == dropped + 1, "{}", w.drops()?);
    let room = if kernel::tells_mtu() { 1500 - header } else { 1280 };
    ensure!(told(&outcome.frame, &large)? == room, "{:02x?}", outcome.frame);
    Ok(())
}

/// The size that the sender of `large` is told by its destination.
fn told(frame: &[u8], large: &Packet) -> Result<usize> {
    let told = Packet::read(frame)?;
    ensure!((told.src, told.dst) == (large.dst, large.src), "{told:?}");
    let v4 = large.src.is_ipv4();
    let Body::Error(kind, code, _) = told.body else { anyhow::bail!("{told:?}") };
    ensure!((kind, code) == if v4 { (3, 4) } else { (2, 0) }, "type {kind}, code {code}");
    let at = 14 + if v4 { 20 } else { 40 } + 4;
    let inside = told.inside()?;
    ensure!((inside.src, inside.dst, inside.ports()) == (large.src, large.dst, large.ports()), "{inside:?}");
    Ok(u32::from_be_bytes(frame[at..at + 4].try_into()?) as usize)
}

fn too_big_for_route(w: &mut World) -> Result<()> {
    let n = w.names;
    let large = Packet { body: Body::Udp(40000, 80, vec![0x5a; 1500]), ..packet(n.pod_a, n.far_pod) };
    if n.vip.is_ipv4() || !kernel::tells_mtu() {
        w.expect(Hook::FromPodA, &large, &Want::Stack(large.clone()))?;
        return Ok(());
    }
    let dropped = w.counted(name::DROPS, Drop::TooBig as u32)?;
    let outcome = w.run(Hook::FromPodA, &large.bytes())?;
    ensure!(outcome.code == REDIRECT, "code {}: {}", outcome.code, w.drops()?);
    ensure!(w.counted(name::DROPS, Drop::TooBig as u32)? == dropped + 1, "{}", w.drops()?);
    ensure!(told(&outcome.frame, &large)? == 1500, "{:02x?}", outcome.frame);
    Ok(())
}

fn lives(w: &mut World) -> Result<()> {
    let n = w.names;
    serve(w, 6, n.far_pod)?;
    w.run(Hook::UplinkIn, &from_client(w, 6).bytes())?;
    ensure!(w.flows(name::FLOWS)?.is_empty(), "nobody has answered");
    let say =
        |w: &mut World, flags| w.run(Hook::UplinkIn, &packet(n.client, n.vip).tcp(40000, 80, flags).bytes());
    say(w, ACK)?;
    ensure!(w.flows(name::FLOWS)?.len() == 2 && w.flows(name::EMBRYOS)?.is_empty(), "acknowledged");
    let age = |w: &mut World| -> Result<()> {
        for (key, flow) in w.flows(name::FLOWS)? {
            let last_seen = flow.last_seen.saturating_sub(100);
            w.runner.hash(name::FLOWS)?.insert(key, Flow { last_seen, ..flow }, 0)?;
        }
        w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64]).map(|_| ())
    };
    age(w)?;
    ensure!(w.flows(name::FLOWS)?.len() == 2, "a silent connection stays");
    say(w, FIN | ACK)?;
    age(w)?;
    ensure!(w.flows(name::FLOWS)?.is_empty(), "a closed one goes");
    Ok(())
}

fn forged(w: &mut World) -> Result<()> {
    let n = w.names;
    serve(w, 6, n.far_pod)?;
    let most = most_direct(1) as usize;
    w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64])?;
    let connect = |w: &mut World, vip_port: u16, port: u16| -> Result<()> {
        for flags in [SYN, ACK] {
            w.run(Hook::UplinkIn, &packet(n.client, n.vip).tcp(port, vip_port, flags).bytes())?;
        }
        Ok(())
    };
    for port in 1..=most + 100 {
        connect(w, 80, port as u16)?;
    }
    let established = w.flows(name::FLOWS)?.len();
    ensure!(established == 2 * most, "{established} entries of {most} flows");
    // Other flows find room, and direct ones again when some have gone.
    w.service(&[(n.vip, 81)], frontend::EXTERNAL, 6, &[(n.pod_b, 8080)])?;
    w.run(Hook::UplinkIn, &packet(n.client, n.vip).tcp(40000, 81, SYN).bytes())?;
    w.run(Hook::FromPodB, &packet(n.pod_b, n.client).tcp(8080, 40000, SYN | ACK).bytes())?;
    ensure!(w.flows(name::FLOWS)?.len() == 2 * most + 2, "the other is established");
    w.forget_flows()?;
    w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64])?;
    connect(w, 80, 1)?;
    ensure!(w.flows(name::FLOWS)?.len() == 2, "there is room again");
    Ok(())
}

fn decapsulated(w: &mut World) -> Result<()> {
    let n = w.names;
    for protocol in PROTOCOLS {
        w.reset(n)?;
        serve(w, protocol, n.pod_b)?;
        let asked = from_client(w, protocol);
        let mut got = asked.clone();
        got.dst = n.pod_b;
        match &mut got.body {
            Body::Tcp(_, port, ..) | Body::Udp(_, port, _) | Body::Sctp(_, port, ..) => *port = 8080,
            _ => {}
        }
        for _ in 0..3 {
            let arrived = w.counted(name::PATHS, Path::Decapsulated as u32)?;
            let outcome = w.run(Hook::UplinkIn, &around(n.peer, n.pod_b, &asked, 8080))?;
            ensure!(outcome.code == REDIRECT, "{protocol}: code {}: {}", outcome.code, w.drops()?);
            let read = Packet::read(&outcome.frame)?;
            ensure!(read == got, "{protocol}: {read:?}\n{got:?}");
            ensure!(w.counted(name::PATHS, Path::Decapsulated as u32)? == arrived + 1, "counted");
            let want = Want::Sent(Path::Remote, asked.answer().hops(63));
            w.expect(Hook::FromPodB, &got.answer(), &want)?;
            w.expect(Hook::UplinkOut, &asked.answer(), &Want::Stack(asked.answer()))?;
        }
        let flows = w.flows(name::FLOWS)?;
        ensure!(flows.len() == 2, "one flow: {flows:?}");
        ensure!(
            flows.iter().all(|(_, flow)| flow.flags & bits::MASQUERADE == 0),
            "the client keeps its address"
        );
    }
    Ok(())
}

fn begun_again(w: &mut World) -> Result<()> {
    let n = w.names;
    serve(w, 6, n.pod_b)?;
    let late = packet(n.client, n.vip).tcp(40000, 80, ACK);
    let outcome = w.run(Hook::UplinkIn, &around(n.peer, n.pod_b, &late, 8080))?;
    ensure!(
        Packet::read(&outcome.frame)? == packet(n.client, n.pod_b).tcp(40000, 8080, ACK),
        "{}",
        w.drops()?
    );
    // Another pod has the connection now.
    let outcome = w.run(Hook::UplinkIn, &around(n.peer, n.pod_a, &late, 9090))?;
    ensure!(
        Packet::read(&outcome.frame)? == packet(n.client, n.pod_a).tcp(40000, 9090, ACK),
        "{}",
        w.drops()?
    );
    Ok(())
}

fn other_tunnels(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], frontend::EXTERNAL, 6, &[(n.pod_b, 8080)])?;
    let inside = packet(n.client, n.vip).tcp(40000, 80, SYN);
    for (outer, inside) in [
        // Its service does not answer directly; no service at all; not for a pod.
        (n.pod_b, inside.clone()),
        (n.pod_b, packet(n.client, n.pod_b).tcp(40000, 81, SYN)),
        (n.node, inside),
    ] {
        let frame = around(n.peer, outer, &inside, 8080);
        let outcome = w.run(Hook::UplinkIn, &frame)?;
        ensure!(outcome.code == ebpf_test::runner::STACK, "{outer}: code {}", outcome.code);
        ensure!(outcome.frame == frame, "changed");
    }
    Ok(())
}
