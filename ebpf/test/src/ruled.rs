//! What packets to a pod cost that policies of many rules are about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::policy::{bits, identity};
use anyhow::{Result, ensure};

use crate::figures::{Figure, family, median};
use crate::packet::{ACK, SYN, packet};
use crate::policy::Row;
use crate::runner::REDIRECT;
use crate::world::{Hook, World};

const TCP: u8 = 6;
/// Runs behind each median: so many rounds, in which the shapes take turns, of so many packets.
const ROUNDS: u16 = 20;
const PACKETS: u16 = 500;
/// Number of the first shape's rule set.
const SET: u32 = 100;

/// The policy about the pod.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// None.
    Nothing,
    /// So many rows, each about another identity and port; the last is the client's.
    Rules(u16),
    /// As many rows about one port for identities of networks; the last is the client's.
    Networks(u16),
}

const SHAPES: [(Shape, &str); 5] = [
    (Shape::Nothing, "no policy"),
    (Shape::Rules(1), "1 rule"),
    (Shape::Rules(100), "100 rules"),
    (Shape::Rules(1_000), "1,000 rules"),
    (Shape::Networks(1_000), "1,000 networks"),
];

/// Measures the first packet of a connection from outside to a pod, and those after it, under every shape.
pub fn measure(world: &mut World, figures: &mut Vec<Figure>) -> Result<()> {
    let mut times = vec![(Vec::new(), Vec::new()); SHAPES.len()];
    for (set, (shape, _)) in (SET..).zip(SHAPES) {
        prepare(world, set, shape)?;
    }
    for round in 0..ROUNDS {
        for (set, ((shape, _), times)) in (SET..).zip(SHAPES.into_iter().zip(&mut times)) {
            choose(world, set, shape)?;
            world.forget_flows()?;
            for number in 0..PACKETS {
                let port = 1024 + round * PACKETS + number;
                times.0.push(time(world, port, SYN)?);
                times.1.push(time(world, 1024 + round * PACKETS, ACK)?);
            }
        }
    }
    world.isolate(world.names.pod_a, |row| row.ingress = 0)?;
    for ((_, words), (first, later)) in SHAPES.iter().zip(times) {
        for (what, times) in [("begins under", first), ("goes on under", later)] {
            let name = format!("{} connection {what} {words}", family(&world.names));
            figures.push(Figure { name, one: median(times), many: None });
        }
    }
    Ok(())
}

fn time(world: &mut World, port: u16, flags: u8) -> Result<u128> {
    let n = world.names;
    let outcome = world.run(Hook::UplinkIn, &packet(n.client, n.pod_a).tcp(port, 80, flags).bytes())?;
    ensure!(outcome.code == REDIRECT, "code {}: {}", outcome.code, world.drops()?);
    Ok(outcome.duration.as_nanos())
}

/// Identities of the shape: others than those of any other.
fn who(set: u32, index: u16) -> u32 {
    identity::FIRST + (set - SET) * 10_000 + u32::from(index)
}

fn prepare(world: &mut World, set: u32, shape: Shape) -> Result<()> {
    let row = |index, port| Row { who: who(set, index), proto: TCP, port, bits: bits::PORT, allows: true };
    let rows: Vec<Row> = match shape {
        Shape::Nothing => Vec::new(),
        Shape::Rules(count) => {
            (1..count).map(|index| row(index, 10_000 + index)).chain([row(0, 80)]).collect()
        }
        Shape::Networks(count) => (0..count).map(|index| row(index, 80)).collect(),
    };
    world.rules(set, &rows)
}

/// Puts a shape in force: the client's identity is that of its last row.
fn choose(world: &mut World, set: u32, shape: Shape) -> Result<()> {
    let n = world.names;
    world.forget_identities()?;
    match shape {
        Shape::Nothing => {}
        Shape::Rules(_) => world.identify(n.client, who(set, 0))?,
        Shape::Networks(count) => {
            for index in 1..count {
                let (network, prefix) = network(n.client, index);
                world.identify_network(network, prefix, who(set, index))?;
            }
            let own = if n.client.is_ipv4() { 24 } else { 64 };
            world.identify_network(n.client, own, who(set, 0))?;
        }
    }
    let ingress = if matches!(shape, Shape::Nothing) { 0 } else { set };
    world.isolate(n.pod_a, |row| row.ingress = ingress)
}

/// One of many networks outside.
fn network(like: IpAddr, index: u16) -> (IpAddr, u32) {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::from_bits(0x0b00_0000 + u32::from(index) * 8).into(), 30),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0x11, index, 0, 0, 0, 0).into(), 64),
    }
}
