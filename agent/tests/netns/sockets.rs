//! The socket hooks against the oracle: sockets connect and send in the same made-up clusters; the kernel's own list says with
//! whom, or the first packet on the wire.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::oracle::{Ask, Client, Outcome, Packet};
use agent::tables::{ObjectName, PodOptions, Protocol};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use socket2::{Domain, Socket, Type};

use crate::agreement::{aimed, objects, packet, rules, tell, word};
use crate::namespace::Namespace;
use crate::world::{Clients, NodeWorld, World, allowed};

/// What became of a connect.
#[derive(Debug, PartialEq, Eq)]
enum Connected {
    To(SocketAddr),
    Refused,
    NoRoute,
    /// Nothing was sent.
    Silent,
}

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// A datagram socket connects, which sends nothing.
    Connected,
    /// A datagram socket sends without connecting.
    Unconnected,
    /// A stream connects.
    Stream,
}

impl How {
    const ALL: [Self; 3] = [Self::Connected, Self::Unconnected, Self::Stream];

    fn protocol(self) -> Protocol {
        if self == Self::Stream { Protocol::Tcp } else { Protocol::Udp }
    }
}

fn ask(from: &Namespace, to: SocketAddr, how: How) -> Connected {
    from.run(|| {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        if how == How::Connected {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            let done = socket.connect(to);
            return outcome(to, done, || Some(peer(socket.local_addr().unwrap())));
        }
        let wire = Wire::tap();
        let kind = if how == How::Stream { Type::STREAM } else { Type::DGRAM };
        let socket = Socket::new(Domain::for_address(to), kind.nonblocking(), None).unwrap();
        socket.bind(&SocketAddr::new(any, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let done = match how {
            How::Stream => socket.connect(&to.into()),
            _ => socket.send_to(b"who?", &to.into()).map(drop),
        };
        // What is on its way was sent, whatever came back at once.
        let done = match done {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        };
        match wire.sent(how.protocol(), port, done.is_ok()) {
            Some(peer) => Connected::To(peer),
            None => outcome(to, done, || None),
        }
    })
}

fn outcome(to: SocketAddr, done: io::Result<()>, peer: impl FnOnce() -> Option<SocketAddr>) -> Connected {
    match done {
        Ok(()) => peer().map_or(Connected::Silent, Connected::To),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Connected::Refused,
        Err(error) if error.kind() == ErrorKind::NetworkUnreachable => Connected::NoRoute,
        Err(error) => panic!("{to}: {error}"),
    }
}

/// Every packet of the namespace, without its link header.
struct Wire(Socket);

impl Wire {
    fn tap() -> Self {
        const ETH_P_ALL: i32 = 3;
        let every = socket2::Protocol::from(ETH_P_ALL.to_be() >> 16);
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(every)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self(socket)
    }

    /// Where the first packet from this port went; `expected` ones are waited for.
    fn sent(&self, protocol: Protocol, port: u16, expected: bool) -> Option<SocketAddr> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let mut bytes = [0_u8; 256];
            match (&self.0).read(&mut bytes) {
                Ok(length) => {
                    let found = destination(&bytes[..length], protocol, port);
                    if found.is_some() {
                        return found;
                    }
                }
                Err(_) if !expected => return None,
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }
}

fn destination(packet: &[u8], protocol: Protocol, port: u16) -> Option<SocketAddr> {
    let (dst, number, header): (IpAddr, u8, usize) = match packet.first()? >> 4 {
        4 => (<[u8; 4]>::try_from(packet.get(16..20)?).unwrap().into(), *packet.get(9)?, 20),
        6 => (<[u8; 16]>::try_from(packet.get(24..40)?).unwrap().into(), *packet.get(6)?, 40),
        _ => return None,
    };
    let word =
        |at: usize| Some(u16::from_be_bytes(packet.get(header + at..header + at + 2)?.try_into().unwrap()));
    (number == protocol.number() && word(0)? == port).then_some(())?;
    Some(SocketAddr::new(dst, word(2)?))
}

/// The peer the kernel lists for the socket with this address: `getpeername` would show what was asked for.
pub fn peer(local: SocketAddr) -> SocketAddr {
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

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Host,
    Pod,
    /// A pod whose sockets are left alone.
    Spared,
}

impl Who {
    const ALL: [Self; 3] = [Self::Host, Self::Pod, Self::Spared];

    fn namespace(self, node: &NodeWorld) -> &Namespace {
        match self {
            Self::Host => &node.namespace,
            Self::Pod => &node.pods[0].namespace,
            Self::Spared => &node.pods[1].namespace,
        }
    }

    fn addresses(self, node: &NodeWorld) -> &[IpAddr] {
        match self {
            Self::Host => &node.addresses,
            Self::Pod => &node.pods[0].addresses,
            Self::Spared => &node.pods[1].addresses,
        }
    }
}

/// The same question, asked by a socket.
fn as_socket(node: &NodeWorld, packet: &Packet, who: Who, how: How) -> Option<Packet> {
    let Ask::Port(_, port) = packet.ask else { return None };
    let src = who.addresses(node)[usize::from(packet.dst.is_ipv6())];
    let client = if who == Who::Host { Client::Host } else { Client::Pod };
    Some(Packet { client, src, dst: packet.dst, ask: Ask::Port(how.protocol(), port) })
}

fn agree(node: &NodeWorld, packet: &Packet, who: Who, how: How) -> Result<Outcome, String> {
    let Ask::Port(_, port) = packet.ask else { unreachable!("sockets have ports") };
    let asked = SocketAddr::new(packet.dst, port);
    let (want, got) = (rules(node, packet), ask(who.namespace(node), asked, how));
    if who == Who::Spared {
        let is_asked = got == Connected::To(asked);
        return if is_asked { Ok(want) } else { Err(format!("{packet:?} {how:?}: not left alone: {got:?}")) };
    }
    let agrees = match (&want, &got) {
        (Outcome::Forwarded(to), Connected::To(peer)) => to.backends.contains_key(peer),
        (Outcome::Refused(_), Connected::Refused) => true,
        // Left to the packet path, which drops it, or to the routes.
        (Outcome::Dropped(_) | Outcome::NotAService, Connected::To(peer)) => *peer == asked,
        (Outcome::Dropped(_) | Outcome::NotAService, Connected::NoRoute)
        | (Outcome::Dropped(_), Connected::Silent) => true,
        _ => false,
    };
    if agrees {
        Ok(want)
    } else {
        Err(format!("{packet:?} {how:?}: the rules say {want:?}, the socket {got:?}"))
    }
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
    let spared = ObjectName { namespace: "default".into(), name: "pod1".into() };
    world.lock().nodes[0].tables.update(|rows| {
        drop(rows.pods.insert(spared, Arc::new(PodOptions { no_sockets: true, ..PodOptions::default() })));
    });
    let seen = Mutex::new(BTreeMap::<&str, u32>::new());
    let config = Config { cases: 24, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let (who, how) = (prop::sample::select(&Who::ALL[..]), prop::sample::select(&How::ALL[..]));
    let asks = prop::collection::vec((packet(), any::<[usize; 4]>(), who, how), 16);
    let result = TestRunner::new(config).run(&(objects(), asks), |(objects, asks)| {
        let mut world = world.lock();
        let node = &mut world.nodes[0];
        tell(node, &objects);
        for (packet, aim, who, how) in asks {
            let Some(packet) = as_socket(node, &aimed(&objects, aim, &packet), who, how) else { continue };
            let rules = agree(node, &packet, who, how).map_err(TestCaseError::fail)?;
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
        assert!(
            matches!(agree(node, &host, Who::Host, How::Connected), Ok(Outcome::Forwarded(_))),
            "{:?}",
            agree(node, &host, Who::Host, How::Connected)
        );
        let pod = Packet { client: Client::Pod, src: node.pods[0].addresses[family], ..host };
        assert_eq!(agree(node, &pod, Who::Pod, How::Connected), Ok(Outcome::NotAService));
    }
}
