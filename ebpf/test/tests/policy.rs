//! Network policy in the packet path, in both families.

use abi::count::Path;
use abi::drops::Drop;
use abi::endpoint::bits::AUDIT;
use abi::event::Control;
use abi::flow::Flow;
use abi::name;
use abi::policy::{bits, identity};
use abi::service::frontend;
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{ACK, FIN, Packet, RST, SYN, packet};
use ebpf_test::policy::Row;
use ebpf_test::world::{Hook, MASQUERADED, Want, World};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// A rule set without rows: everything is denied.
const NOTHING: u32 = 7;
/// A rule set of a case's own.
const SET: u32 = 8;
/// An identity of a case's own.
const FRIEND: u32 = identity::FIRST;

const CASES: &[Case] = &[
    ("nobody reaches a pod that may not be reached, and it reaches others", ingress),
    ("a pod that may not send is answered to, and answers", egress),
    ("protocol, port and identity decide, and the longest match wins", rows),
    ("an identity without rows is anybody", anybody),
    ("networks have identities, and addresses of pods their own", networks),
    ("the node reaches every pod, and every pod the node", own_node),
    ("a pod reaches itself through its service", itself),
    ("policy sees the backend, not the service", service),
    ("a packet with the answers of a translated flow is asked as well", twin),
    ("policy sees the client outside, not the NodePort", node_port),
    ("a pod that leaves the cluster is asked before it is hidden", outside),
    ("what comes from another node is asked", other_node),
    ("a change cuts live flows in both directions, and another lets them go on", live),
    ("whatever is answered to a connection passes, and to none nothing does", answered),
    ("a cut flow's answers are no flow of their own", answers),
    ("who answers a connection is asked before it begins another the other way", reversed),
    ("XDP leaves flows of an earlier epoch to TC", xdp),
    ("a connection in its middle is judged like a new one", middle),
    ("audited pods let pass what is denied, and it is counted", audited),
    ("errors about known flows arrive, others are asked like anything", errors),
    ("later fragments go the way of the first", fragments),
    ("connections that are over are forgotten with their last packet", closed),
    ("neighbour discovery is not asked", discovery),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

fn port(who: u32, proto: u8, port: u16) -> Row {
    Row { who, proto, port, bits: bits::PORT, allows: true }
}

fn sent(packet: &Packet) -> Want {
    Want::Sent(Path::Pod, packet.clone())
}

fn deny_ingress(w: &mut World) -> Result<()> {
    w.isolate(w.names.pod_a, |row| row.ingress = NOTHING)
}

fn deny_egress(w: &mut World) -> Result<()> {
    w.isolate(w.names.pod_a, |row| row.egress = NOTHING)
}

fn ingress(w: &mut World) -> Result<()> {
    let n = w.names;
    deny_ingress(w)?;
    for asked in [
        packet(n.pod_b, n.pod_a).tcp(40000, 80, SYN),
        packet(n.pod_b, n.pod_a).udp(40000, 53),
        packet(n.pod_b, n.pod_a).echo(true, 7),
    ] {
        w.expect(Hook::FromPodB, &asked, &Want::Dropped(Drop::PolicyIngress))?;
        let own = Packet { src: n.pod_a, dst: n.pod_b, ..asked };
        w.expect(Hook::FromPodA, &own, &sent(&own))?;
        w.expect(Hook::FromPodB, &own.answer(), &sent(&own.answer()))?;
    }
    Ok(())
}

fn egress(w: &mut World) -> Result<()> {
    let n = w.names;
    deny_egress(w)?;
    let own = packet(n.pod_a, n.pod_b).udp(40000, 53);
    w.expect(Hook::FromPodA, &own, &Want::Dropped(Drop::PolicyEgress))?;
    let asked = packet(n.pod_b, n.pod_a).udp(40001, 53);
    w.expect(Hook::FromPodB, &asked, &sent(&asked))?;
    w.expect(Hook::FromPodA, &asked.answer(), &sent(&asked.answer()))?;
    let far = packet(n.far_pod, n.pod_a).tcp(40001, 80, SYN);
    w.expect(Hook::UplinkIn, &far, &sent(&far))?;
    let answer = far.answer();
    w.expect(Hook::FromPodA, &answer, &Want::Sent(Path::Remote, answer.clone().hops(63)))?;
    Ok(())
}

fn rows(w: &mut World) -> Result<()> {
    let n = w.names;
    w.identify(n.pod_b, FRIEND)?;
    let rules = [
        port(FRIEND, TCP, 80),
        // 0x1f40 to 0x1f4f: 8000 to 8015.
        Row { bits: bits::PORT - 4, ..port(FRIEND, TCP, 8000) },
        Row { allows: false, ..port(FRIEND, TCP, 8005) },
        Row { bits: bits::PROTOCOL, ..port(FRIEND, UDP, 0) },
    ];
    w.rules(SET, &rules)?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    for (number, passes) in
        [(80, true), (81, false), (8000, true), (8015, true), (8016, false), (8005, false)]
    {
        let asked = packet(n.pod_b, n.pod_a).tcp(40000, number, SYN);
        let want = if passes { sent(&asked) } else { Want::Dropped(Drop::PolicyIngress) };
        w.expect(Hook::FromPodB, &asked, &want)?;
    }
    let asked = packet(n.pod_b, n.pod_a).udp(40000, 999);
    w.expect(Hook::FromPodB, &asked, &sent(&asked))?;
    let ping = packet(n.pod_b, n.pod_a).echo(true, 7);
    w.expect(Hook::FromPodB, &ping, &Want::Dropped(Drop::PolicyIngress))?;
    w.rules(SET, &[Row { bits: bits::IDENTITY, ..port(FRIEND, 0, 0) }])?;
    w.expect(Hook::FromPodB, &ping, &sent(&ping))?;
    Ok(())
}

fn anybody(w: &mut World) -> Result<()> {
    let n = w.names;
    w.rules(SET, &[port(identity::ANYBODY, TCP, 80)])?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    let asked = packet(n.pod_b, n.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodB, &asked, &sent(&asked))?;
    w.identify(n.pod_b, FRIEND)?;
    let again = packet(n.pod_b, n.pod_a).tcp(40001, 80, SYN);
    w.expect(Hook::FromPodB, &again, &sent(&again))?;
    w.rules(SET, &[Row { bits: bits::IDENTITY, allows: false, ..port(FRIEND, 0, 0) }])?;
    let third = packet(n.pod_b, n.pod_a).tcp(40002, 80, SYN);
    w.expect(Hook::FromPodB, &third, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn networks(w: &mut World) -> Result<()> {
    let n = w.names;
    let prefix = if n.client.is_ipv4() { 24 } else { 64 };
    w.identify_network(n.client, prefix, FRIEND)?;
    w.rules(SET, &[Row { bits: bits::IDENTITY, ..port(FRIEND, 0, 0) }])?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    let asked = packet(n.client, n.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::UplinkIn, &asked, &sent(&asked))?;
    // An exception inside.
    w.identify_network(n.client, if n.client.is_ipv4() { 32 } else { 128 }, FRIEND + 1)?;
    let again = packet(n.client, n.pod_a).tcp(40001, 80, SYN);
    w.expect(Hook::UplinkIn, &again, &Want::Dropped(Drop::PolicyIngress))?;
    w.identify(n.client, FRIEND)?;
    w.expect(Hook::UplinkIn, &again, &sent(&again))?;
    Ok(())
}

fn own_node(w: &mut World) -> Result<()> {
    let n = w.names;
    w.identify(n.node, identity::HOST)?;
    w.isolate(n.pod_a, |row| (row.ingress, row.egress) = (NOTHING, NOTHING))?;
    let probe = packet(n.node, n.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::ToPodA, &probe, &Want::Stack(probe.clone()))?;
    w.expect(Hook::FromPodA, &probe.answer(), &Want::Stack(probe.answer()))?;
    let own = packet(n.pod_a, n.node).tcp(40001, 10250, SYN);
    w.expect(Hook::FromPodA, &own, &Want::Stack(own.clone()))?;
    let other = packet(n.peer, n.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::ToPodA, &other, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn itself(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_a, 8080)])?;
    w.isolate(n.pod_a, |row| (row.ingress, row.egress) = (NOTHING, NOTHING))?;
    let asked = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    let got =
        w.expect(Hook::FromPodA, &asked, &sent(&packet(n.node, n.pod_a).tcp(MASQUERADED, 8080, SYN)))?;
    w.next_epoch()?;
    w.expect(Hook::FromPodA, &got.answer(), &sent(&asked.answer()))?;
    Ok(())
}

fn service(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    w.identify(n.pod_b, FRIEND)?;
    w.identify(n.pod_a, FRIEND + 1)?;
    w.rules(SET, &[port(FRIEND, TCP, 8080)])?;
    w.rules(SET + 1, &[port(FRIEND + 1, TCP, 8080)])?;
    w.isolate(n.pod_a, |row| row.egress = SET)?;
    w.isolate(n.pod_b, |row| row.ingress = SET + 1)?;
    let asked = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    let got = packet(n.pod_a, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::FromPodA, &asked, &sent(&got))?;
    w.expect(Hook::FromPodB, &got.answer(), &sent(&asked.answer()))?;
    w.isolate(n.pod_a, |row| row.egress = NOTHING)?;
    let again = packet(n.pod_a, n.vip).tcp(40001, 80, SYN);
    w.expect(Hook::FromPodA, &again, &Want::Dropped(Drop::PolicyEgress))?;
    w.isolate(n.pod_a, |row| row.egress = 0)?;
    w.isolate(n.pod_b, |row| row.ingress = NOTHING)?;
    w.expect(Hook::FromPodA, &again, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn twin(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, UDP, &[(n.pod_b, 8080)])?;
    let asked = packet(n.pod_a, n.vip).udp(40000, 80);
    let got = packet(n.pod_a, n.pod_b).udp(40000, 8080);
    w.expect(Hook::FromPodA, &asked, &sent(&got))?;
    w.isolate(n.pod_b, |row| row.ingress = NOTHING)?;
    w.expect(Hook::FromPodA, &asked, &Want::Dropped(Drop::PolicyIngress))?;
    w.expect(Hook::FromPodA, &got, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn node_port(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, TCP, &[(n.pod_a, 8080)])?;
    w.identify(n.node, identity::HOST)?;
    w.identify_network(n.client, if n.client.is_ipv4() { 32 } else { 128 }, FRIEND)?;
    w.rules(SET, &[port(FRIEND, TCP, 8080)])?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    w.expect(Hook::UplinkIn, &asked, &sent(&packet(n.client, n.pod_a).tcp(40000, 8080, SYN)))?;
    w.isolate(n.pod_a, |row| row.ingress = NOTHING)?;
    let again = packet(n.client, n.node).tcp(40001, 30080, SYN);
    w.expect(Hook::UplinkIn, &again, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn outside(w: &mut World) -> Result<()> {
    let n = w.names;
    deny_egress(w)?;
    let out = packet(n.pod_a, n.client).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodA, &out, &Want::Dropped(Drop::PolicyEgress))?;
    w.isolate(n.pod_a, |row| row.egress = 0)?;
    w.expect(Hook::FromPodA, &out, &Want::Sent(Path::Remote, out.clone().hops(63)))?;
    let hidden = packet(n.node, n.client).tcp(MASQUERADED, 80, SYN).hops(63);
    let got = w.expect(Hook::UplinkOut, &out.clone().hops(63), &Want::Stack(hidden))?;
    let keys: Vec<_> = w.flows(name::EMBRYOS)?.into_iter().map(|(key, _)| key.tuple).collect();
    ensure!(keys.len() == 2, "one flow, under the node's address: {keys:?}");
    w.expect(Hook::UplinkIn, &got.answer(), &sent(&out.answer()))?;
    deny_egress(w)?;
    let more = packet(n.pod_a, n.client).tcp(40000, 80, ACK);
    w.expect(Hook::FromPodA, &more, &Want::Dropped(Drop::PolicyEgress))?;
    w.expect(Hook::UplinkIn, &got.answer(), &Want::Dropped(Drop::PolicyEgress))?;
    Ok(())
}

fn other_node(w: &mut World) -> Result<()> {
    let n = w.names;
    w.identify(n.far_pod, FRIEND)?;
    w.rules(SET, &[port(FRIEND, TCP, 80)])?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    let asked = packet(n.far_pod, n.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::UplinkIn, &asked, &sent(&asked))?;
    let refused = packet(n.far_pod, n.pod_a).tcp(40000, 81, SYN);
    w.expect(Hook::UplinkIn, &refused, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

/// A connection from pod B to pod A that was answered.
fn connect(w: &mut World) -> Result<Packet> {
    let n = w.names;
    let asked = packet(n.pod_b, n.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodB, &asked, &sent(&asked))?;
    w.expect(Hook::FromPodA, &asked.answer(), &sent(&asked.answer()))?;
    let more = packet(n.pod_b, n.pod_a).tcp(40000, 80, ACK);
    w.expect(Hook::FromPodB, &more, &sent(&more))?;
    ensure!(w.flows(name::FLOWS)?.len() == 1, "one flow, remembered");
    Ok(more)
}

fn live(w: &mut World) -> Result<()> {
    let more = connect(w)?;
    deny_ingress(w)?;
    for _ in 0..2 {
        w.expect(Hook::FromPodB, &more, &Want::Dropped(Drop::PolicyIngress))?;
        w.expect(Hook::FromPodA, &more.answer(), &Want::Dropped(Drop::PolicyIngress))?;
    }
    w.isolate(w.names.pod_a, |row| row.ingress = 0)?;
    for _ in 0..2 {
        w.expect(Hook::FromPodB, &more, &sent(&more))?;
        w.expect(Hook::FromPodA, &more.answer(), &sent(&more.answer()))?;
    }
    Ok(())
}

fn answered(w: &mut World) -> Result<()> {
    let n = w.names;
    deny_ingress(w)?;
    // A listener's, a closed port's, and that of a host that remembers an older connection.
    for (port, flags) in [(40000, SYN | ACK), (40001, RST | ACK), (40002, ACK)] {
        let answer = packet(n.pod_b, n.pod_a).tcp(80, port, flags);
        w.expect(Hook::FromPodB, &answer, &Want::Dropped(Drop::PolicyIngress))?;
        let asked = packet(n.pod_a, n.pod_b).tcp(port, 80, SYN);
        w.expect(Hook::FromPodA, &asked, &sent(&asked))?;
        w.expect(Hook::FromPodB, &answer, &sent(&answer))?;
    }
    deny_egress(w)?;
    let cut = packet(n.pod_b, n.pod_a).tcp(80, 40002, ACK);
    w.expect(Hook::FromPodB, &cut, &Want::Dropped(Drop::PolicyEgress))?;
    Ok(())
}

fn answers(w: &mut World) -> Result<()> {
    let more = connect(w)?;
    deny_ingress(w)?;
    // The pod that is not reached speaks first; it began nothing.
    w.expect(Hook::FromPodA, &more.answer(), &Want::Dropped(Drop::PolicyIngress))?;
    w.expect(Hook::FromPodB, &more, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn reversed(w: &mut World) -> Result<()> {
    let n = w.names;
    deny_ingress(w)?;
    let asked = packet(n.pod_a, n.pod_b).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodA, &asked, &sent(&asked))?;
    w.expect(Hook::FromPodB, &asked.answer(), &sent(&asked.answer()))?;
    let back = |flags| packet(n.pod_b, n.pod_a).tcp(80, 40000, flags);
    w.expect(Hook::FromPodB, &back(SYN), &Want::Dropped(Drop::PolicyIngress))?;
    w.expect(Hook::FromPodB, &back(ACK), &sent(&back(ACK)))?;
    Ok(())
}

fn xdp(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, TCP, &[(n.far_pod, 8080)])?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    let on = Want::Sent(Path::Remote, packet(n.node, n.far_pod).tcp(MASQUERADED, 8080, SYN).hops(63));
    for _ in 0..2 {
        w.expect(Hook::UplinkIn, &asked, &on)?;
    }
    let fast = Want::Sent(Path::Xdp, packet(n.node, n.far_pod).tcp(MASQUERADED, 8080, SYN).hops(63));
    w.expect(Hook::Xdp, &asked, &fast)?;
    w.next_epoch()?;
    w.expect(Hook::Xdp, &asked, &Want::Passed)?;
    w.expect(Hook::UplinkIn, &asked, &on)?;
    w.expect(Hook::Xdp, &asked, &fast)?;
    Ok(())
}

fn middle(w: &mut World) -> Result<()> {
    let n = w.names;
    w.rules(SET, &[port(identity::ANYBODY, TCP, 80)])?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    let allowed = packet(n.pod_b, n.pod_a).tcp(40000, 80, ACK);
    w.expect(Hook::FromPodB, &allowed, &sent(&allowed))?;
    w.expect(Hook::FromPodA, &allowed.answer(), &sent(&allowed.answer()))?;
    let denied = packet(n.pod_b, n.pod_a).tcp(40000, 81, ACK);
    w.expect(Hook::FromPodB, &denied, &Want::Dropped(Drop::PolicyIngress))?;
    let stray = packet(n.pod_b, n.pod_a).tcp(40001, 80, RST);
    w.expect(Hook::FromPodB, &stray, &sent(&stray))?;
    ensure!(w.flows(name::EMBRYOS)?.is_empty(), "a reset begins nothing");
    Ok(())
}

fn audited(w: &mut World) -> Result<()> {
    let n = w.names;
    let control = w.runner.array::<Control>(name::CONTROL)?.get(&0, 0)?;
    w.isolate(n.pod_a, |row| (row.ingress, row.flags) = (NOTHING, AUDIT))?;
    let before = w.counted(name::PATHS, Path::Audited as u32)?;
    let asked = packet(n.pod_b, n.pod_a).tcp(40000, 80, SYN);
    for _ in 0..3 {
        w.expect(Hook::FromPodB, &asked, &sent(&asked))?;
    }
    ensure!(w.counted(name::PATHS, Path::Audited as u32)? == before + 1, "once for a flow");
    let now = w.runner.array::<Control>(name::CONTROL)?.get(&0, 0)?;
    ensure!(now.epoch == control.epoch + 1, "the epoch has moved on");
    Ok(())
}

fn errors(w: &mut World) -> Result<()> {
    let n = w.names;
    deny_ingress(w)?;
    let out = packet(n.pod_a, n.far_pod).udp(40000, 53);
    w.expect(Hook::FromPodA, &out, &Want::Sent(Path::Remote, out.clone().hops(63)))?;
    let (kind, code) = if n.vip.is_ipv4() { (3, 4) } else { (2, 0) };
    let too_big = packet(n.peer, n.pod_a).error(kind, code, &out, 48);
    w.expect(Hook::UplinkIn, &too_big, &sent(&too_big))?;
    let other = packet(n.pod_a, n.far_pod).udp(40001, 53);
    let unknown = packet(n.peer, n.pod_a).error(kind, code, &other, 48);
    w.expect(Hook::UplinkIn, &unknown, &Want::Dropped(Drop::PolicyIngress))?;
    // A connection that nobody has answered has no entry for its answers.
    let begins = packet(n.pod_a, n.far_pod).tcp(40000, 80, SYN);
    w.run(Hook::FromPodA, &begins.bytes())?;
    let about = |flow: &Packet| packet(n.peer, n.pod_a).error(kind, code, flow, 48);
    w.expect(Hook::UplinkIn, &about(&begins), &sent(&about(&begins)))?;
    let other = about(&packet(n.pod_a, n.far_pod).tcp(40001, 80, SYN));
    w.expect(Hook::UplinkIn, &other, &Want::Dropped(Drop::PolicyIngress))?;
    Ok(())
}

fn fragments(w: &mut World) -> Result<()> {
    let n = w.names;
    w.rules(SET, &[port(identity::ANYBODY, UDP, 53)])?;
    w.isolate(n.pod_a, |row| row.ingress = SET)?;
    let first = packet(n.pod_b, n.pod_a).udp(40000, 53).fragment(0, true);
    let last = packet(n.pod_b, n.pod_a).udp(0x1111, 0x2222).fragment(2, false);
    w.expect(Hook::FromPodB, &last, &Want::Dropped(Drop::PolicyIngress))?;
    w.expect(Hook::FromPodB, &first, &sent(&first))?;
    w.expect(Hook::FromPodB, &last, &sent(&last))?;
    Ok(())
}

fn closed(w: &mut World) -> Result<()> {
    let n = w.names;
    let says = |w: &mut World, from_b: bool, flags| {
        let (hook, packet) = if from_b {
            (Hook::FromPodB, packet(n.pod_b, n.pod_a).tcp(40000, 80, flags))
        } else {
            (Hook::FromPodA, packet(n.pod_a, n.pod_b).tcp(80, 40000, flags))
        };
        w.expect(hook, &packet, &sent(&packet)).map(|_| ())
    };
    let flows = |w: &mut World| -> Result<Vec<Flow>> {
        let tables = [w.flows(name::FLOWS)?, w.flows(name::EMBRYOS)?];
        Ok(tables.into_iter().flatten().map(|(_, flow)| flow).collect())
    };
    connect(w)?;
    says(w, true, FIN | ACK)?;
    says(w, false, ACK)?;
    ensure!(flows(w)?.len() == 1, "one side may still send");
    says(w, false, FIN | ACK)?;
    ensure!(flows(w)?.len() == 1, "the last acknowledgement is to come");
    says(w, true, ACK)?;
    ensure!(flows(w)?.is_empty(), "it is over: {:?}", flows(w)?);
    connect(w)?;
    says(w, true, RST)?;
    ensure!(flows(w)?.is_empty(), "it was reset: {:?}", flows(w)?);
    Ok(())
}

fn discovery(w: &mut World) -> Result<()> {
    let n = w.names;
    if n.vip.is_ipv4() {
        return Ok(());
    }
    deny_ingress(w)?;
    let asked = packet("fe80::1".parse()?, "ff02::1:ff00:2".parse()?).echo(true, 1);
    w.expect(Hook::ToPodA, &asked, &Want::Stack(asked.clone()))?;
    Ok(())
}
