//! The socket hooks against the oracle: datagram sockets connect in the same made-up clusters, which sends nothing, and the
//! kernel's own list says with whom.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use agent::oracle::{Ask, Client, Outcome, Packet};
use agent::tables::Protocol;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::agreement::{aimed, objects, packet, rules, tell, word};
use crate::namespace::Namespace;
use crate::world::{Clients, NodeWorld, World, allowed};

/// What became of a connect.
#[derive(Debug, PartialEq, Eq)]
enum Connected {
    To(SocketAddr),
    Refused,
    NoRoute,
}

fn connect(from: &Namespace, to: SocketAddr) -> Connected {
    from.run(|| {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        match socket.connect(to) {
            Ok(()) => Connected::To(peer(socket.local_addr().unwrap())),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Connected::Refused,
            Err(error) if error.kind() == ErrorKind::NetworkUnreachable => Connected::NoRoute,
            Err(error) => panic!("{to}: {error}"),
        }
    })
}

/// The peer the kernel lists for the socket with this address: `getpeername` would show what was asked for.
fn peer(local: SocketAddr) -> SocketAddr {
    let list = if local.is_ipv4() { "udp" } else { "udp6" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{list}")).unwrap();
    let mut rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| listed(row[1]) == local).expect("the socket is listed");
    listed(row[2])
}

fn listed(text: &str) -> SocketAddr {
    let (address, port) = text.split_once(':').unwrap();
    let word = |at: usize| u32::from_str_radix(&address[at * 8..at * 8 + 8], 16).unwrap().to_ne_bytes();
    let ip: IpAddr = if address.len() == 8 {
        word(0).into()
    } else {
        <[u8; 16]>::try_from([0, 1, 2, 3].map(word).concat()).unwrap().into()
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap())
}

/// The same question, asked by a datagram socket of a pod or of the host.
fn as_socket(node: &NodeWorld, packet: &Packet, host: bool) -> Option<Packet> {
    let Ask::Port(_, port) = packet.ask else { return None };
    let family = usize::from(packet.dst.is_ipv6());
    let (client, src) = if host {
        (Client::Host, node.addresses[family])
    } else {
        (Client::Pod, node.pods[0].addresses[family])
    };
    Some(Packet { client, src, dst: packet.dst, ask: Ask::Port(Protocol::Udp, port) })
}

fn agree(node: &NodeWorld, packet: &Packet) -> Result<Outcome, String> {
    let Ask::Port(_, port) = packet.ask else { unreachable!("sockets have ports") };
    let asked = SocketAddr::new(packet.dst, port);
    let from = if packet.client == Client::Host { &node.namespace } else { &node.pods[0].namespace };
    let (want, got) = (rules(node, packet), connect(from, asked));
    let agrees = match (&want, &got) {
        (Outcome::Forwarded(to), Connected::To(peer)) => to.backends.contains_key(peer),
        (Outcome::Refused(_), Connected::Refused) => true,
        // Left to the packet path, which drops it, or to the routes.
        (Outcome::Dropped(_) | Outcome::NotAService, Connected::To(peer)) => *peer == asked,
        (Outcome::Dropped(_) | Outcome::NotAService, Connected::NoRoute) => true,
        _ => false,
    };
    if agrees { Ok(want) } else { Err(format!("{packet:?}: the rules say {want:?}, the socket {got:?}")) }
}

#[test]
fn sockets_do_what_the_oracle_says() {
    if !allowed() {
        return;
    }
    let world = Mutex::new(World::new(Clients::Sockets));
    for route in ["route add default via 192.0.2.100", "-6 route add default via 2001:db8::100"] {
        world.lock().nodes[0].namespace.ip(route);
    }
    let seen = Mutex::new(BTreeMap::<&str, u32>::new());
    let config = Config { cases: 24, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let asks = prop::collection::vec((packet(), any::<[usize; 4]>(), any::<bool>()), 16);
    let result = TestRunner::new(config).run(&(objects(), asks), |(objects, asks)| {
        let mut world = world.lock();
        let node = &mut world.nodes[0];
        tell(node, &objects);
        for (packet, aim, host) in asks {
            let Some(packet) = as_socket(node, &aimed(&objects, aim, &packet), host) else { continue };
            let rules = agree(node, &packet).map_err(TestCaseError::fail)?;
            *seen.lock().entry(word(&rules)).or_default() += 1;
        }
        Ok(())
    });
    println!("outcomes: {:?}", seen.lock());
    match result {
        Err(TestError::Fail(reason, (objects, _))) => panic!("{reason}\n{objects:#?}"),
        other => other.unwrap(),
    }
}

#[test]
fn the_loopbacks_node_ports_are_the_hosts_own() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Sockets);
    world.serve(&[(1, 0)]);
    let node = &world.nodes[0];
    for (family, loopback) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        let (dst, ask) = (loopback.parse().unwrap(), Ask::Port(Protocol::Udp, crate::world::NODE_PORT));
        let host = Packet { client: Client::Host, src: node.addresses[family], dst, ask };
        assert!(matches!(agree(node, &host), Ok(Outcome::Forwarded(_))), "{:?}", agree(node, &host));
        let pod = Packet { client: Client::Pod, src: node.pods[0].addresses[family], ..host };
        assert_eq!(agree(node, &pod), Ok(Outcome::NotAService));
    }
}
