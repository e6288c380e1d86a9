//! Beginnings go where packets between the same addresses went a moment ago, without asking the routing table.

use abi::flow::{Flow, Hop as NextHop, Way};
use abi::name;
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{Packet, SYN, packet};
use ebpf_test::runner::REDIRECT;
use ebpf_test::world::{Hook, World};

/// A hardware address that the routing table does not know.
const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

const CASES: &[Case] = &[
    ("a connection goes where the one before it went", followed),
    ("answers to a connection from elsewhere go where those to the one before went", answered),
    ("between other addresses, by another protocol or device it does not", others),
    ("what was looked up long ago is looked up again", stale),
    ("a packet larger than the way allows asks the routing table", too_big),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

fn asks(w: &World, port: u16) -> Packet {
    packet(w.names.pod_a, w.names.far_pod).tcp(port, 80, SYN)
}

/// Whether a packet goes to the hardware address that only ways know.
fn strays(w: &mut World, hook: Hook, packet: &Packet) -> Result<bool> {
    let outcome = w.run(hook, &packet.bytes())?;
    ensure!(outcome.code == REDIRECT, "code {}: {}", outcome.code, w.drops()?);
    ensure!(Packet::read(&outcome.frame)?.hops + 1 == packet.hops, "a hop is spent");
    Ok(outcome.frame[..6] == ELSEWHERE)
}

/// Begins a connection, and changes what was remembered of its way.
fn lead_astray(w: &mut World, change: impl Fn(NextHop) -> NextHop) -> Result<()> {
    let first = asks(w, 40000);
    ensure!(!strays(w, Hook::FromPodA, &first)?, "nobody went there yet");
    w.runner.change_cells(name::WAYS, |way: Way| match way.hop.seen {
        0 => way,
        _ => Way { hop: change(NextHop { dmac: ELSEWHERE, ..way.hop }), ..way },
    })
}

fn followed(w: &mut World) -> Result<()> {
    lead_astray(w, |hop| hop)?;
    let asked = asks(w, 40001);
    ensure!(strays(w, Hook::FromPodA, &asked)?, "it goes the same way");
    let flows: Vec<Flow> = w.flows(name::FLOWS)?.into_iter().map(|(_, flow)| flow).collect();
    ensure!(flows.iter().filter(|flow| flow.hop.dmac == ELSEWHERE).count() == 1, "and keeps it: {flows:?}");
    Ok(())
}

fn answered(w: &mut World) -> Result<()> {
    let n = w.names;
    let asks = |port| packet(n.far_pod, n.pod_a).tcp(port, 80, SYN);
    w.run(Hook::UplinkIn, &asks(40000).bytes())?;
    let first = asks(40000).answer();
    ensure!(!strays(w, Hook::FromPodA, &first)?, "nobody was answered yet");
    w.runner.change_cells(name::WAYS, |way: Way| match way.hop.seen {
        0 => way,
        _ => Way { hop: NextHop { dmac: ELSEWHERE, ..way.hop }, ..way },
    })?;
    w.run(Hook::UplinkIn, &asks(40001).bytes())?;
    let led = w.flows(name::FLOWS)?.into_iter().filter(|(_, flow)| flow.back.dmac == ELSEWHERE).count();
    ensure!(led == 1, "the entry has it before its answer comes");
    w.runner.change_cells(name::WAYS, |_| Way::default())?;
    ensure!(strays(w, Hook::FromPodA, &asks(40001).answer())?, "and the answer goes there");
    Ok(())
}

fn others(w: &mut World) -> Result<()> {
    let n = w.names;
    for (hook, other) in [
        (Hook::FromPodB, packet(n.pod_b, n.far_pod).tcp(40001, 80, SYN)),
        (Hook::FromPodA, packet(n.pod_a, n.far_pod).udp(40001, 80)),
    ] {
        lead_astray(w, |hop| hop)?;
        ensure!(!strays(w, hook, &other)?, "{other:?} is another's");
        w.reset(n)?;
    }
    lead_astray(w, |hop| hop)?;
    w.runner.change_cells(name::WAYS, |way: Way| Way { device: way.device + 1, ..way })?;
    let asked = asks(w, 40001);
    ensure!(!strays(w, Hook::FromPodA, &asked)?, "it came by another device");
    Ok(())
}

fn stale(w: &mut World) -> Result<()> {
    lead_astray(w, |hop| NextHop { seen: hop.seen.saturating_sub(5), ..hop })?;
    let asked = asks(w, 40001);
    ensure!(!strays(w, Hook::FromPodA, &asked)?, "the table is asked");
    let again = asks(w, 40002);
    ensure!(!strays(w, Hook::FromPodA, &again)?, "and what it said takes its place");
    Ok(())
}

fn too_big(w: &mut World) -> Result<()> {
    lead_astray(w, |hop| NextHop { mtu: 39, ..hop })?;
    let asked = asks(w, 40001);
    ensure!(!strays(w, Hook::FromPodA, &asked)?, "the way is too narrow");
    Ok(())
}
