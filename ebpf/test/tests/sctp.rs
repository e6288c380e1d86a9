//! SCTP: other ports and addresses, and a checksum over the whole packet that stays right without reading it.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, bits};
use abi::name;
use abi::service::frontend;
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{
    ABORT, Body, COOKIE_ACK, DATA, ERROR, INIT, Packet, SHUTDOWN_ACK, SHUTDOWN_COMPLETE, packet,
};
use ebpf_test::world::{Hook, MASQUERADED, Want, World};

const SCTP: u8 = 132;

const CASES: &[Case] = &[
    ("an association to a service reaches its backend and answers come back", service),
    ("packets of every length keep a right checksum", lengths),
    ("a NodePort forwards to another node, in TC and before the stack", node_port),
    ("an association of a pod takes the node's address on its way out", masquerade),
    ("a chunk in the middle of an unknown association is refused, unless it is an end", middle),
    ("who begins is refused under the tag it has chosen, others under their own", refused),
    ("an association whose backend is gone ends at once", gone),
    ("ABORT and SHUTDOWN COMPLETE end the flow", ends),
    ("a fragment whose checksum cannot be changed is dropped", fragment),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

fn data(packet: Packet) -> Packet {
    let (sport, dport) = packet.ports();
    packet.sctp(sport, dport, DATA)
}

fn service(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 3868)], 0, SCTP, &[(n.pod_b, 3869)])?;
    let asked = packet(n.pod_a, n.vip).sctp(40000, 3868, INIT);
    let got = packet(n.pod_a, n.pod_b).sctp(40000, 3869, INIT);
    w.expect(Hook::FromPodA, &asked, &Want::Sent(Path::Pod, got.clone()))?;
    // The first finds the next hop, the others use it.
    for _ in 0..3 {
        w.expect(Hook::FromPodB, &got.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
        w.expect(Hook::FromPodA, &data(asked.clone()), &Want::Sent(Path::Pod, data(got.clone())))?;
    }
    Ok(())
}

fn lengths(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 3868)], 0, SCTP, &[(n.pod_b, 3869)])?;
    w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).sctp(40000, 3868, INIT).bytes())?;
    for length in (1..200).chain([255, 256, 257, 511, 512, 1024, 1399, 1400]) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        let with =
            |to, port| Packet { body: Body::Sctp(40000, port, DATA, bytes.clone()), ..packet(n.pod_a, to) };
        w.expect(Hook::FromPodA, &with(n.vip, 3868), &Want::Sent(Path::Pod, with(n.pod_b, 3869)))?;
    }
    Ok(())
}

fn node_port(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 33868)], frontend::EXTERNAL, SCTP, &[(n.far_pod, 3869)])?;
    let asked = packet(n.client, n.node).sctp(40000, 33868, INIT);
    let want = packet(n.node, n.far_pod).sctp(MASQUERADED, 3869, INIT).hops(63);
    let got = w.expect(Hook::UplinkIn, &asked, &Want::Sent(Path::Remote, want))?.hops(64);
    let (asked, got, back) = (data(asked), data(got.clone()), got.answer());
    let answer = |asked: &Packet| Packet { body: asked.answer().body, ..packet(n.node, n.client) };
    for (hook, path) in [
        (Hook::UplinkIn, Path::Remote),
        (Hook::UplinkIn, Path::Remote),
        (Hook::Xdp, Path::Xdp),
        (Hook::XdpFrag, Path::Xdp),
    ] {
        w.expect(hook, &back, &Want::Sent(path, answer(&asked).hops(63)))?;
        w.expect(hook, &asked, &Want::Sent(path, got.clone().hops(63)))?;
    }
    Ok(())
}

fn masquerade(w: &mut World) -> Result<()> {
    let n = w.names;
    let out = packet(n.pod_a, n.client).sctp(40000, 3868, INIT);
    let want = packet(n.node, n.client).sctp(MASQUERADED, 3868, INIT);
    let got = w.expect(Hook::UplinkOut, &out, &Want::Stack(want))?;
    w.expect(Hook::UplinkIn, &got.answer(), &Want::Sent(Path::Pod, out.answer()))?;
    w.expect(Hook::UplinkOut, &data(out), &Want::Stack(data(got)))?;
    Ok(())
}

fn middle(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 3868)], 0, SCTP, &[(n.pod_b, 3869)])?;
    let late = |chunk| packet(n.pod_a, n.vip).sctp(40000, 3868, chunk);
    for chunk in [DATA, SHUTDOWN_ACK] {
        w.expect(Hook::FromPodA, &late(chunk), &Want::Refused(Drop::NoFlow, late(chunk).refusal()))?;
    }
    for chunk in [ABORT, SHUTDOWN_COMPLETE, ERROR, COOKIE_ACK] {
        w.expect(Hook::FromPodA, &late(chunk), &Want::Dropped(Drop::NoFlow))?;
    }
    Ok(())
}

/// RFC 9260, 5.1 and 8.4.
fn refused(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 3868)], 0, SCTP, &[])?;
    // A packet's verification tag is aabbccdd, the initiate tag of an INIT its first data.
    for (chunk, tag, flags) in [
        (INIT, *b"data", 0),
        (DATA, [0xaa, 0xbb, 0xcc, 0xdd], 1),
        (SHUTDOWN_ACK, [0xaa, 0xbb, 0xcc, 0xdd], 1),
    ] {
        let asked = packet(n.pod_a, n.vip).sctp(40000, 3868, chunk);
        w.expect(Hook::FromPodA, &asked, &Want::Refused(Drop::NoBackend, asked.refusal()))?;
        let frame = w.run(Hook::FromPodA, &asked.bytes())?.frame;
        let sctp = if n.vip.is_ipv4() { &frame[34..] } else { &frame[54..] };
        ensure!(sctp.len() == 16 && sctp[4..8] == tag && sctp[13] == flags, "{chunk}: {sctp:02x?}");
    }
    Ok(())
}

fn gone(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 3868)], 0, SCTP, &[(n.pod_b, 3869)])?;
    let asked = packet(n.pod_a, n.vip).sctp(40000, 3868, INIT);
    let got = Packet::read(&w.run(Hook::FromPodA, &asked.bytes())?.frame)?;
    w.run(Hook::FromPodB, &got.answer().bytes())?;
    w.retire(1)?;
    let more = data(asked);
    w.expect(Hook::FromPodA, &more, &Want::Refused(Drop::BackendGone, more.refusal()))?;
    Ok(())
}

fn ends(w: &mut World) -> Result<()> {
    let n = w.names;
    for chunk in [ABORT, SHUTDOWN_COMPLETE] {
        w.reset(n)?;
        w.service(&[(n.vip, 3868)], 0, SCTP, &[(n.pod_b, 3869)])?;
        let asked = packet(n.pod_a, n.vip).sctp(40000, 3868, INIT);
        let got = Packet::read(&w.run(Hook::FromPodA, &asked.bytes())?.frame)?;
        w.run(Hook::FromPodB, &got.answer().bytes())?;
        w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).sctp(40000, 3868, chunk).bytes())?;
        let flows = w.flows(name::FLOWS)?;
        ensure!(flows.iter().any(|(_, flow)| flow.flags & bits::RST != 0), "{flows:?}");
        for (key, flow) in flows {
            let flow = Flow { last_seen: flow.last_seen.saturating_sub(11), ..flow };
            w.runner.hash(name::FLOWS)?.insert(key, flow, 0)?;
        }
        w.runner.run(name::FLOW_EXPIRE, 1, &[0; 64])?;
        ensure!(w.flows(name::FLOWS)?.is_empty(), "a closed association is forgotten soon");
    }
    Ok(())
}

fn fragment(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 3868)], 0, SCTP, &[(n.pod_b, 3869)])?;
    let first = packet(n.pod_a, n.vip).sctp(40000, 3868, INIT).fragment(0, true);
    w.expect(Hook::FromPodA, &first, &Want::Dropped(Drop::SctpFragment))?;
    Ok(())
}
