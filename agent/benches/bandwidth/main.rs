//! How exactly pods keep to the limits their annotations set: TCP and UDP, sending and receiving, on a node and between nodes.
//!
//! `cargo bench --bench bandwidth`. Needs root; everything happens in namespaces made here. What is counted is what the
//! application receives, so that headers are missing from it: 3 % of large packets over IPv4.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the world of the namespace tests and uses half of it"
)]

#[path = "../../tests/netns/namespace.rs"]
mod namespace;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::tables::{Limits, ObjectName, PodOptions};
use anyhow::Result;
use namespace::Namespace;
use world::{Clients, World};

const PORT: u16 = 9000;
/// The bucket is empty after the first part, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(3);
const MEGABIT: u64 = 125_000;

fn main() -> Result<()> {
    if !world::allowed() {
        return Ok(());
    }
    let mut world = World::new(Clients::Wire);
    world.serve(&[(0, 1)]);
    println!("what arrives of a limit, in percent, over {TIME:?}");
    println!("limit            direction  protocol  same node  other node");
    for megabits in [1, 10, 100, 1_000] {
        for sends in [true, false] {
            let rate = megabits * MEGABIT;
            let limits = Limits { egress: sends.then_some(rate), ingress: (!sends).then_some(rate) };
            limit(&mut world, limits);
            for udp in [false, true] {
                let arrived = [(0, 1), (1, 0)].map(|(node, pod)| {
                    let limited = &world.nodes[0].pods[0];
                    let other = &world.nodes[node].pods[pod];
                    let (from, to) = if sends { (limited, other) } else { (other, limited) };
                    let bytes = received(&from.namespace, &to.namespace, to.addresses[0], udp)?;
                    anyhow::Ok(100.0 * bytes as f64 / (rate as f64 * TIME.as_secs_f64()))
                });
                let [near, far] = arrived;
                let (near, far) = (near?, far?);
                let direction = if sends { "egress" } else { "ingress" };
                let protocol = if udp { "UDP" } else { "TCP" };
                println!("{megabits:>5} Mbit/s     {direction:<9}  {protocol:<8}  {near:>9.1}  {far:>10.1}");
            }
        }
    }
    Ok(())
}

fn limit(world: &mut World, limits: Limits) {
    let pod = ObjectName { namespace: "default".into(), name: "pod0".into() };
    let options = PodOptions { limits, ..PodOptions::default() };
    world.nodes[0].tables.update(|rows| drop(rows.pods.insert(pod, Arc::new(options))));
    world.nodes[0].round();
}

/// Bytes that arrive after the warm-up.
fn received(from: &Namespace, to: &Namespace, address: IpAddr, udp: bool) -> Result<usize> {
    let target = SocketAddr::new(address, PORT);
    let end = Instant::now() + WARM_UP + TIME;
    if udp { datagrams(from, to, target, end) } else { stream(from, to, target, end) }
}

fn stream(from: &Namespace, to: &Namespace, target: SocketAddr, end: Instant) -> Result<usize> {
    let listener = to.run(|| TcpListener::bind(target))?;
    let mut client = from.run(|| TcpStream::connect(target))?;
    let (mut server, _) = listener.accept()?;
    client.set_write_timeout(Some(Duration::from_millis(100)))?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(std::thread::scope(|scope| {
        scope.spawn(move || {
            while Instant::now() < end {
                _ = client.write(&[0; 1 << 16]);
            }
        });
        count(end, || server.read(&mut [0; 1 << 16]).unwrap_or(0))
    }))
}

fn datagrams(from: &Namespace, to: &Namespace, target: SocketAddr, end: Instant) -> Result<usize> {
    let server = to.run(|| UdpSocket::bind(target))?;
    let client = from.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.set_write_timeout(Some(Duration::from_millis(100)))?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(std::thread::scope(|scope| {
        scope.spawn(move || {
            while Instant::now() < end {
                _ = client.send_to(&[0; 1_400], target);
            }
        });
        count(end, || server.recv(&mut [0; 2_000]).unwrap_or(0))
    }))
}

fn count(end: Instant, mut receive: impl FnMut() -> usize) -> usize {
    let mut bytes = 0;
    while Instant::now() < end {
        let piece = receive();
        if Instant::now() + TIME > end {
            bytes += piece;
        }
    }
    bytes
}
