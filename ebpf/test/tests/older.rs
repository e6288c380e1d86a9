//! Flows that are still in the tables of the agent before this one, which had another layout.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Flow, FlowKey, bits};
use abi::node::Node;
use abi::older::{ABSENT, Older, TuplePlaces};
use abi::{Tuple, name};
use anyhow::{Result, ensure};
use aya::maps::{ArrayOfMaps, HashMap, MapData};
use ebpf_test::case::{Case, hold_in};
use ebpf_test::packet::{ACK, FIN, Packet, SYN, packet};
use ebpf_test::runner::REDIRECT;
use ebpf_test::world::{Hook, MASQUERADED, Want, World, node};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A layout of the same size, in which everything lies elsewhere.
const OLDER: Older = Older {
    present: 1,
    proto: 0,
    key: TuplePlaces { dst: 4, src: 20, dport: 36, sport: 38 },
    flags: 0,
    backend: 4,
    generation: 8,
    last_seen: 12,
    service: 16,
    to: TuplePlaces { dst: 20, src: 36, dport: 52, sport: 54 },
    epoch: ABSENT,
};

const KEY: usize = size_of::<FlowKey>();
const FLOW: usize = size_of::<Flow>();
type Table = HashMap<MapData, [u8; KEY], [u8; FLOW]>;

const CASES: &[Case] = &[
    ("a connection whose SYN the agent before has seen is answered", answered),
    ("one that is not translated is answered as well", plain_answered),
    ("one that is not translated and stands for both directions is known in both", plain_both),
    ("the ways of a connection that is taken over are looked up anew", ways_anew),
    ("one of two entries that is not translated is known until it is over", plain_pair),
    ("datagrams whose two entries nobody had answered are answered", datagrams_pair),
    ("an established one stays with its backend", established),
    ("an error about a flow is translated", error_about),
    ("a port that a flow holds is nobody else's", port_held),
    ("what nobody had is not there", unknown),
    ("XDP leaves a flow to TC", not_by_xdp),
];

#[test]
fn every_case_in_both_families() {
    // One port for all masqueraded flows.
    let one_port = Node { cpus: 1, port_max: node().port_min, ..node() };
    hold_in(move || World::taking_over(&one_port, &OLDER), CASES);
}

fn older(w: &mut World, table: &str) -> Result<Table> {
    let outer: ArrayOfMaps<_, Table> = w.runner.map(table)?.try_into()?;
    Ok(outer.get(&0, 0)?)
}

/// Moves all flows into the older tables.
fn hand_over(w: &mut World) -> Result<()> {
    for (own, outer) in [(name::FLOWS, name::OLDER_FLOWS), (name::EMBRYOS, name::OLDER_EMBRYOS)] {
        let mut table = older(w, outer)?;
        let rest = table.keys().collect::<Result<Vec<_>, _>>()?;
        rest.iter().try_for_each(|key| table.remove(key))?;
        for (key, flow) in w.flows(own)? {
            table.insert(key_of(&key), row_of(&flow), 0)?;
        }
    }
    w.forget_flows()
}

/// How many flows are in the older tables.
fn left(w: &mut World) -> Result<[usize; 2]> {
    Ok([older(w, name::OLDER_FLOWS)?.keys().count(), older(w, name::OLDER_EMBRYOS)?.keys().count()])
}

fn key_of(key: &FlowKey) -> [u8; KEY] {
    let mut bytes = [0; KEY];
    put_tuple(&mut bytes, OLDER.key, &key.tuple);
    put(&mut bytes, OLDER.proto, &[key.proto]);
    bytes
}

fn row_of(flow: &Flow) -> [u8; FLOW] {
    let mut bytes = [0; FLOW];
    put_tuple(&mut bytes, OLDER.to, &flow.to);
    for (place, word) in [
        (OLDER.flags, flow.flags),
        (OLDER.backend, flow.backend),
        (OLDER.generation, flow.generation),
        (OLDER.last_seen, flow.last_seen),
        (OLDER.service, flow.service),
    ] {
        put(&mut bytes, place, &word.to_ne_bytes());
    }
    bytes
}

fn put_tuple(bytes: &mut [u8], places: TuplePlaces, tuple: &Tuple) {
    put(bytes, places.src, &tuple.src.bytes);
    put(bytes, places.dst, &tuple.dst.bytes);
    put(bytes, places.sport, &tuple.sport.be.to_ne_bytes());
    put(bytes, places.dport, &tuple.dport.be.to_ne_bytes());
}

fn put(bytes: &mut [u8], place: u32, part: &[u8]) {
    bytes[place as usize..][..part.len()].copy_from_slice(part);
}

fn answered(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let asked = packet(n.pod_a, n.vip).tcp(40000, 80, SYN);
    let got = packet(n.pod_a, n.pod_b).tcp(40000, 8080, SYN);
    w.expect(Hook::FromPodA, &asked, &Want::Sent(Path::Pod, got.clone()))?;
    hand_over(w)?;
    ensure!(left(w)? == [0, 2], "{:?}", left(w)?);
    w.expect(Hook::FromPodB, &got.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    ensure!(left(w)? == [0, 0], "{:?}", left(w)?);
    let (flows, embryos) = (w.flows(name::FLOWS)?.len(), w.flows(name::EMBRYOS)?.len());
    ensure!((flows, embryos) == (2, 0), "answered: {flows} and {embryos}");
    Ok(())
}

fn plain_answered(w: &mut World) -> Result<()> {
    let asked = plain(w)?;
    hand_over(w)?;
    // Agents of other layouts have kept beginnings apart.
    let mut flows = older(w, name::OLDER_FLOWS)?;
    let mut embryos = older(w, name::OLDER_EMBRYOS)?;
    for row in flows.iter().collect::<Result<Vec<_>, _>>()? {
        flows.remove(&row.0)?;
        embryos.insert(row.0, without_both(row.1), 0)?;
    }
    w.expect(Hook::FromPodB, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    ensure!(left(w)? == [0, 0], "{:?}", left(w)?);
    let (flows, embryos) = (w.flows(name::FLOWS)?.len(), w.flows(name::EMBRYOS)?.len());
    ensure!((flows, embryos) == (1, 0), "answered: {flows} and {embryos}");
    Ok(())
}

fn plain_both(w: &mut World) -> Result<()> {
    let asked = plain(w)?;
    w.expect(Hook::FromPodB, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    hand_over(w)?;
    ensure!(left(w)? == [1, 0], "{:?}", left(w)?);
    deny_ingress(w)?;
    let more = asked.answer().tcp(80, 40000, ACK);
    w.expect(Hook::FromPodB, &more, &Want::Sent(Path::Pod, more.clone()))?;
    let (flows, embryos) = (w.flows(name::FLOWS)?.len(), w.flows(name::EMBRYOS)?.len());
    ensure!((flows, embryos, left(w)?) == (1, 0, [0, 0]), "{flows} and {embryos}");
    Ok(())
}

fn ways_anew(w: &mut World) -> Result<()> {
    let asked = packet(w.names.pod_b, w.names.pod_a).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodB, &asked, &Want::Sent(Path::Pod, asked.clone()))?;
    w.expect(Hook::FromPodA, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    let (key, flow) = w.flows(name::FLOWS)?[0];
    hand_over(w)?;
    // The connection before it on this CPU is one whose answers go the other way.
    plain(w)?;
    let more = asked.tcp(40000, 80, ACK);
    w.expect(Hook::FromPodB, &more, &Want::Sent(Path::Pod, more.clone()))?;
    let taken = w.runner.hash::<FlowKey, Flow>(name::FLOWS)?.get(&key, 0)?;
    ensure!(taken.back.seen == 0, "{taken:?} was {flow:?}");
    let back = more.answer().tcp(80, 40000, ACK);
    let sent = w.run(Hook::FromPodA, &back.bytes())?;
    ensure!((sent.code, &sent.frame[..6]) == (REDIRECT, &flow.back.dmac), "{sent:?}, and not as {flow:?}");
    Ok(())
}

fn plain_pair(w: &mut World) -> Result<()> {
    let asked = plain(w)?;
    w.expect(Hook::FromPodB, &asked.answer(), &Want::Sent(Path::Pod, asked.answer()))?;
    let (key, flow) = w.flows(name::FLOWS)?[0];
    hand_over(w)?;
    // Agents of other layouts have kept each direction by itself.
    let reversed = FlowKey { tuple: key.tuple.reversed(), ..key };
    let mut table = older(w, name::OLDER_FLOWS)?;
    table.insert(key_of(&key), row_of(&Flow { flags: bits::FORWARD | bits::PLAIN, ..flow }), 0)?;
    table.insert(key_of(&reversed), row_of(&Flow { flags: bits::PLAIN, to: reversed.tuple, ..flow }), 0)?;
    deny_ingress(w)?;
    let [there, back] = [asked.clone(), asked.answer()];
    for (hook, packet) in [
        (Hook::FromPodB, back.clone().tcp(80, 40000, ACK)),
        (Hook::FromPodA, there.clone().tcp(40000, 80, ACK)),
        (Hook::FromPodA, there.clone().tcp(40000, 80, FIN | ACK)),
        (Hook::FromPodB, back.tcp(80, 40000, FIN | ACK)),
    ] {
        w.expect(hook, &packet, &Want::Sent(Path::Pod, packet.clone()))?;
        ensure!((left(w)?, w.flows(name::FLOWS)?.len()) == ([0, 0], 2), "taken over: {:?}", left(w)?);
    }
    let last = there.tcp(40000, 80, ACK);
    w.expect(Hook::FromPodA, &last, &Want::Sent(Path::Pod, last.clone()))?;
    ensure!(w.flows(name::FLOWS)?.is_empty(), "it is over: {:?}", w.flows(name::FLOWS)?);
    Ok(())
}

fn datagrams_pair(w: &mut World) -> Result<()> {
    let asked = packet(w.names.pod_a, w.names.pod_b).udp(40000, 53);
    w.expect(Hook::FromPodA, &asked, &Want::Sent(Path::Pod, asked.clone()))?;
    let (key, flow) = w.flows(name::FLOWS)?[0];
    w.forget_flows()?;
    hand_over(w)?;
    // Agents before kept each direction of datagrams by itself.
    let reversed = FlowKey { tuple: key.tuple.reversed(), ..key };
    let mut table = older(w, name::OLDER_EMBRYOS)?;
    table.insert(key_of(&key), row_of(&Flow { flags: bits::FORWARD | bits::PLAIN, ..flow }), 0)?;
    table.insert(key_of(&reversed), row_of(&Flow { flags: bits::PLAIN, to: reversed.tuple, ..flow }), 0)?;
    deny_ingress(w)?;
    for (hook, packet) in [(Hook::FromPodB, asked.answer()), (Hook::FromPodA, asked)] {
        w.expect(hook, &packet, &Want::Sent(Path::Pod, packet.clone()))?;
        let found = (left(w)?, w.flows(name::FLOWS)?.len(), w.flows(name::EMBRYOS)?.len());
        ensure!(found == ([0, 0], 2, 0), "{found:?}");
    }
    Ok(())
}

/// Pod A begins a connection with pod B.
fn plain(w: &mut World) -> Result<Packet> {
    let asked = packet(w.names.pod_a, w.names.pod_b).tcp(40000, 80, SYN);
    w.expect(Hook::FromPodA, &asked, &Want::Sent(Path::Pod, asked.clone()))?;
    Ok(asked)
}

/// Nobody may begin anything with pod A: what passes is known to be answers.
fn deny_ingress(w: &mut World) -> Result<()> {
    w.isolate(w.names.pod_a, |row| row.ingress = 1)
}

/// An older row as it was before one entry could stand for both directions.
fn without_both(mut row: [u8; FLOW]) -> [u8; FLOW] {
    let at = OLDER.flags as usize;
    let flags = u32::from_ne_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    put(&mut row, OLDER.flags, &(flags & !bits::BOTH).to_ne_bytes());
    row
}

fn established(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], 0, TCP, &[(n.pod_b, 8080)])?;
    let asked = packet(n.client, n.node).tcp(40000, 30080, SYN);
    w.run(Hook::UplinkIn, &asked.bytes())?;
    let got = packet(n.client, n.pod_b).tcp(40000, 8080, SYN);
    w.run(Hook::FromPodB, &got.answer().bytes())?;
    let known = w.flows(name::FLOWS)?;
    hand_over(w)?;
    ensure!(left(w)? == [2, 0], "{:?}", left(w)?);
    w.reset_services()?;
    w.service(&[(n.node, 30080)], 0, TCP, &[(n.pod_a, 8080)])?;
    let more = packet(n.client, n.node).tcp(40000, 30080, ACK);
    let got = packet(n.client, n.pod_b).tcp(40000, 8080, ACK);
    w.expect(Hook::UplinkIn, &more, &Want::Sent(Path::Pod, got))?;
    ensure!(left(w)? == [0, 0], "{:?}", left(w)?);
    for (key, flow) in known {
        let found = w.runner.hash::<FlowKey, Flow>(name::FLOWS)?.get(&key, 0)?;
        let same = |flow: &Flow| (flow.to, flow.backend, flow.generation, flow.flags, flow.service);
        ensure!(same(&found) == same(&flow), "{found:?} was {flow:?}");
    }
    Ok(())
}

fn error_about(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30053)], 0, UDP, &[(n.pod_b, 5353)])?;
    let asked = packet(n.client, n.node).udp(40000, 30053);
    let got = packet(n.client, n.pod_b).udp(40000, 5353);
    w.expect(Hook::UplinkIn, &asked, &Want::Sent(Path::Pod, got.clone()))?;
    hand_over(w)?;
    let outcome = w.run(Hook::FromPodB, &got.refusal().bytes())?;
    ensure!(outcome.code == REDIRECT, "code {}: {}", outcome.code, w.drops()?);
    let told = Packet::read(&outcome.frame)?;
    ensure!((told.src, told.dst) == (n.node, n.client), "{told:?}");
    Ok(())
}

fn port_held(w: &mut World) -> Result<()> {
    let n = w.names;
    let first = packet(n.pod_a, n.client).udp(40000, 53);
    let hidden = packet(n.node, n.client).udp(MASQUERADED, 53);
    w.expect(Hook::UplinkOut, &first, &Want::Stack(hidden.clone()))?;
    hand_over(w)?;
    let second = packet(n.pod_b, n.client).udp(40001, 53);
    w.expect(Hook::UplinkOut, &second, &Want::Dropped(Drop::NoPort))?;
    w.expect(Hook::UplinkIn, &hidden.answer(), &Want::Sent(Path::Pod, first.answer()))?;
    Ok(())
}

fn unknown(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    hand_over(w)?;
    let late = packet(n.pod_a, n.vip).tcp(40000, 80, ACK);
    w.expect(Hook::FromPodA, &late, &Want::Refused(Drop::NoFlow, late.refusal()))?;
    Ok(())
}

fn not_by_xdp(w: &mut World) -> Result<()> {
    let n = w.names;
    let asked = packet(n.client, n.pod_b).udp(1, 2);
    w.run(Hook::UplinkIn, &asked.bytes())?;
    hand_over(w)?;
    w.expect(Hook::Xdp, &asked, &Want::Passed)?;
    ensure!(left(w)? == [1, 0], "{:?}", left(w)?);
    Ok(())
}
