//! NodePorts follow the machine's addresses, with traffic.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::desired::NodePortAddresses;
use agent::sources::links;
use tokio_util::sync::CancellationToken;

use crate::namespace::Namespace;
use crate::world::{BACKEND_PORT, Clients, NODE_PORT, NodeWorld, World, allowed};

/// Addresses the machine does not have at first, inside the prefixes of NodePorts; and one outside of them.
const LATER: [&str; 2] = ["203.0.113.5", "2001:db8:5::5"];
const FOREIGN: &str = "203.0.114.5";
const PATIENCE: Duration = Duration::from_secs(30);

fn echo(namespace: &Namespace) {
    let socket = namespace.run(|| UdpSocket::bind(("::", BACKEND_PORT)).unwrap());
    std::thread::spawn(move || {
        let mut text = [0; 64];
        while let Ok((length, peer)) = socket.recv_from(&mut text) {
            drop(socket.send_to(&text[..length], peer));
        }
    });
}

fn answers(from: &Namespace, to: IpAddr) -> bool {
    from.run(|| {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut text = [0; 64];
        // Nobody there is an error of either call.
        socket.connect(SocketAddr::new(to, NODE_PORT)).is_ok()
            && socket.send(b"who?").is_ok()
            && socket.recv(&mut text).is_ok()
    })
}

/// Lets the reconciler follow until the address answers or does not.
fn becomes(outside: &Namespace, node: &mut NodeWorld, to: IpAddr, want: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        node.round();
        if answers(outside, to) == want {
            return;
        }
        assert!(Instant::now() < deadline, "{to} never comes to answer: {want}");
    }
}

#[test]
fn node_ports_answer_on_addresses_that_came_and_no_more_on_those_that_went() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let prefixes = ["203.0.113.0/24", "2001:db8:5::/64"].map(|prefix| prefix.parse().unwrap());
    world.nodes[0].nodeport = NodePortAddresses::Within(prefixes.to_vec());
    world.nodes[0].reconciler = None;
    world.nodes[0].start();
    echo(&world.nodes[0].pods[0].namespace);
    world.serve(&[(0, 0)]);
    for route in ["203.0.113.0/24 via 192.0.2.1", "203.0.114.0/24 via 192.0.2.1"] {
        world.outside.ip(&format!("route add {route}"));
    }
    world.outside.ip("-6 route add 2001:db8:5::/64 via 2001:db8::1");
    let (outside, nodes) = (&world.outside, &mut world.nodes);
    let node = &mut nodes[0];
    let (stop, tables) = (CancellationToken::new(), Arc::clone(&node.tables));
    let follow = node.namespace.run(|| {
        let stop = stop.clone();
        // Inherits this thread's network namespace, as the runtime's own threads do.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(links::run(["uplink".to_owned()].into(), tables, stop));
        })
    });
    assert!(!answers(outside, node.addresses[0]), "the node's own address is in none of the prefixes");
    for _ in 0..2 {
        for later in LATER {
            let to: IpAddr = later.parse().unwrap();
            let change = |verb: &str| {
                format!("addr {verb} {later}/{} dev uplink", if to.is_ipv4() { 32 } else { 128 })
            };
            assert!(!answers(outside, to));
            node.namespace.ip(&change("add"));
            becomes(outside, node, to, true);
            node.namespace.ip(&change("del"));
            becomes(outside, node, to, false);
        }
    }
    node.namespace.ip(&format!("addr add {FOREIGN}/32 dev uplink"));
    let foreign: IpAddr = FOREIGN.parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !node.tables.look(|rows| rows.host_addresses.contains(&foreign)) {
        assert!(Instant::now() < deadline, "the address is never seen");
        std::thread::sleep(Duration::from_millis(20));
    }
    node.round();
    assert!(!answers(outside, foreign), "{foreign} is in none of the prefixes");
    stop.cancel();
    follow.join().unwrap();
}
