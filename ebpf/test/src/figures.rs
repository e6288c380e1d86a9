//! What packets cost: nanoseconds as the kernel measures single runs, in one flow and spread over many.

use std::net::{IpAddr, Ipv6Addr};

use abi::Be16;
use abi::node::Node;
use abi::service::frontend;
use anyhow::{Result, ensure};

use crate::packet::{ACK, Packet, RST, SYN, packet};
use crate::ruled;
use crate::runner::{REDIRECT, STACK, TX};
use crate::world::{Hook, Names, World, families, node};

/// Runs behind each median.
const RUNS: usize = 40_000;
/// Flows that packets are spread over, so that no cache holds them all.
const FLOWS: usize = 128_000;
/// Two entries for each flow, and room.
const SCALE: u32 = 4;
/// Flows whose next hops are looked up before as many packets are measured: what takes a second is stale at its end.
const BATCH: usize = 20_000;

/// Median nanoseconds of one kind of packet.
#[derive(Debug)]
pub struct Figure {
    /// The packet and its way.
    pub name: String,
    /// All of one flow.
    pub one: u128,
    /// Of many flows in turn.
    pub many: Option<u128>,
}

/// One kind of packet.
struct Kind {
    name: &'static str,
    hook: Hook,
    /// Brings the flow's next hop up to date.
    refresh: Hook,
    code: i32,
}

/// Measures every kind of packet in both families.
pub fn measure() -> Result<Vec<Figure>> {
    // Room for many masqueraded flows towards few backends.
    let mut world = World::with(&Node { port_min: Be16::new(1024), ..node() }, SCALE)?;
    let mut figures = Vec::new();
    // What is left when a program does nothing but look at the protocol, count and return.
    let mut arp = vec![0; 64];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for (name, hook) in [("TC", Hook::FromPodA), ("XDP", Hook::Xdp)] {
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            times.push(world.run(hook, &arp)?.duration.as_nanos());
        }
        figures.push(Figure { name: format!("ARP, {name}: the floor"), one: median(times), many: None });
    }
    for names in families() {
        world.reset(names)?;
        plain(&mut world, &mut figures)?;
        connection(&mut world, &mut figures)?;
        ruled::measure(&mut world, &mut figures)?;
        cluster_ip(&mut world, &mut figures)?;
        node_port(&mut world, &mut figures)?;
    }
    Ok(figures)
}

pub(crate) fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(crate) fn family(names: &Names) -> &'static str {
    if names.vip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Packets that no service is asked for by.
fn plain(world: &mut World, figures: &mut Vec<Figure>) -> Result<()> {
    let n = world.names;
    let kinds = [
        ("pod to pod", Hook::FromPodA, packet(n.pod_a, n.pod_b).tcp(40000, 80, ACK)),
        ("pod to far pod", Hook::FromPodA, packet(n.pod_a, n.far_pod).tcp(40000, 80, ACK)),
        ("pod to far pod, leaving", Hook::UplinkOut, packet(n.pod_a, n.far_pod).tcp(40000, 80, ACK)),
        ("outside to the host", Hook::UplinkIn, packet(n.client, n.node).tcp(40000, 22, ACK)),
        ("masquerade", Hook::UplinkOut, packet(n.pod_a, n.client).tcp(40000, 443, SYN)),
    ];
    for (name, hook, packet) in kinds {
        let frame = packet.bytes();
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            times.push(world.run(hook, &frame)?.duration.as_nanos());
        }
        figures.push(Figure { name: format!("{} {name}", family(&n)), one: median(times), many: None });
    }
    Ok(())
}

/// The packets that a connection to a pod of another node begins and ends with, on both nodes.
fn connection(world: &mut World, figures: &mut Vec<Figure>) -> Result<()> {
    world.forget_flows()?;
    let n = world.names;
    let steps = |port| {
        let [out, back] = [(n.pod_a, n.far_pod), (n.far_pod, n.pod_a)].map(|(src, dst)| packet(src, dst));
        let asks = |packet: Packet, flags| packet.tcp(port, 80, flags);
        let answers = |packet: Packet, flags| packet.tcp(80, port, flags);
        [
            ("begins, its SYN", Hook::FromPodA, asks(out.clone(), SYN)),
            ("begins, the answer", Hook::UplinkIn, answers(back.clone(), SYN | ACK)),
            ("begins, its ACK", Hook::FromPodA, asks(out.clone(), ACK)),
            ("ends, its RST", Hook::FromPodA, asks(out.clone(), RST)),
            ("is begun, the SYN", Hook::UplinkIn, asks(back.clone(), SYN)),
            ("is begun, its answer", Hook::FromPodA, answers(out.clone(), SYN | ACK)),
            ("is begun, the ACK", Hook::UplinkIn, asks(back.clone(), ACK)),
            ("is ended, the RST", Hook::UplinkIn, asks(back, RST)),
        ]
    };
    let mut times: Vec<Vec<u128>> = vec![Vec::new(); steps(0).len()];
    for run in 0..RUNS / 4 {
        for (times, (name, hook, packet)) in times.iter_mut().zip(steps(1024 + run as u16)) {
            let outcome = world.run(hook, &packet.bytes())?;
            ensure!(outcome.code == REDIRECT, "{name}: code {}", outcome.code);
            times.push(outcome.duration.as_nanos());
        }
    }
    for (times, (name, ..)) in times.into_iter().zip(steps(0)) {
        let name = format!("{} connection {name}", family(&n));
        figures.push(Figure { name, one: median(times), many: None });
    }
    Ok(())
}

/// A pod's connection through a service's address to a pod of the same node, without the socket hooks.
fn cluster_ip(world: &mut World, figures: &mut Vec<Figure>) -> Result<()> {
    let n = world.names;
    world.service(&[(n.vip, 80)], 0, 6, &[(n.pod_b, 8080)])?;
    let mut flows = Vec::new();
    for number in 0..30_000 {
        let asked = packet(n.pod_a, n.vip).tcp(1024 + number, 80, SYN);
        let got = Packet::read(&world.run(Hook::FromPodA, &asked.bytes())?.frame)?;
        world.run(Hook::FromPodB, &got.answer().bytes())?;
        flows.push((established(&asked), established(&got.answer())));
    }
    let forward =
        Kind { name: "ClusterIP, TC", hook: Hook::FromPodA, refresh: Hook::FromPodA, code: REDIRECT };
    let reply =
        Kind { name: "ClusterIP, TC, reply", hook: Hook::FromPodB, refresh: Hook::FromPodB, code: REDIRECT };
    both(world, figures, &flows, &[forward], &[reply])
}

/// A machine outside, and a backend on another node: both directions leave by the device they came by.
fn node_port(world: &mut World, figures: &mut Vec<Figure>) -> Result<()> {
    world.forget_flows()?;
    let n = world.names;
    let backends: Vec<(IpAddr, u16)> = (0..20).map(|number| (n.far_pod, 8000 + number)).collect();
    world.service(&[(n.node, 30080)], frontend::EXTERNAL, 6, &backends)?;
    let mut flows = Vec::new();
    for number in 0..FLOWS {
        let asked = packet(client(&n, number), n.node).tcp((1024 + number % 32_000) as u16, 30080, SYN);
        let got = Packet::read(&world.run(Hook::UplinkIn, &asked.bytes())?.frame)?;
        world.run(Hook::UplinkIn, &got.answer().bytes())?;
        flows.push((established(&asked), established(&got.answer())));
    }
    let kind = |name, hook, code| Kind { name, hook, refresh: Hook::UplinkIn, code };
    both(
        world,
        figures,
        &flows,
        &[kind("NodePort SNAT, TC", Hook::UplinkIn, REDIRECT), kind("NodePort SNAT, XDP", Hook::Xdp, TX)],
        &[
            kind("NodePort SNAT, TC, reply", Hook::UplinkIn, REDIRECT),
            kind("NodePort SNAT, XDP, reply", Hook::Xdp, TX),
        ],
    )
}

/// One of many machines outside.
fn client(names: &Names, number: usize) -> IpAddr {
    let host = (number / 32_000) as u8 + 1;
    match names.client {
        IpAddr::V4(_) => IpAddr::from([198, 18, 0, host]),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, u16::from(host)).into(),
    }
}

/// A packet in the middle of the connection that `packet` began.
fn established(packet: &Packet) -> Vec<u8> {
    let (sport, dport) = packet.ports();
    Packet { hops: 64, ..packet.clone().tcp(sport, dport, ACK) }.bytes()
}

fn both(
    world: &mut World,
    figures: &mut Vec<Figure>,
    flows: &[(Vec<u8>, Vec<u8>)],
    forward: &[Kind],
    reply: &[Kind],
) -> Result<()> {
    let (asked, answered): (Vec<&[u8]>, Vec<&[u8]>) =
        flows.iter().map(|(asked, answered)| (&asked[..], &answered[..])).unzip();
    for (kinds, frames) in [(forward, &asked), (reply, &answered)] {
        for kind in kinds {
            let one = timed(world, kind, &frames[..1])?;
            let many = Some(timed(world, kind, frames)?);
            figures.push(Figure { name: format!("{} {}", family(&world.names), kind.name), one, many });
        }
    }
    Ok(())
}

/// The median over [`RUNS`] runs that take the frames in turn.
fn timed(world: &mut World, kind: &Kind, frames: &[&[u8]]) -> Result<u128> {
    let mut times = Vec::with_capacity(RUNS);
    let mut missed = 0;
    let mut order = frames.iter().cycle();
    while times.len() < RUNS {
        let batch: Vec<&[u8]> = order.by_ref().take(BATCH).copied().collect();
        for frame in &batch[..BATCH.min(frames.len())] {
            // The second run finds what the first looked up; flows before it in the batch have left the caches again.
            world.run(kind.refresh, frame)?;
        }
        for frame in batch {
            let outcome = world.run(kind.hook, frame)?;
            if outcome.code == kind.code { times.push(outcome.duration.as_nanos()) } else { missed += 1 }
        }
        // On a busy machine a hop grows stale between the two runs, and the packet goes the long way: those are not counted.
        let goes_nowhere = missed > 10 * RUNS;
        ensure!(!goes_nowhere && kind.code != STACK, "{}: {missed} packets went another way", kind.name);
    }
    Ok(median(times))
}
