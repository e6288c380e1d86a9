//! Pods of several nodes: two on one link, a third behind a router.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use agent::desired::overlay::DEVICE;
use agent::kernel::features::Optional;

use crate::namespace::Namespace;
use crate::paths::{all_protocols, answer};
use crate::world::{BACKEND_PORT, Clients, NODE_PORT, NodeWorld, OUTSIDE, PORT, VIPS, World, allowed};

const PATIENCE: Duration = Duration::from_secs(30);
const STREAM_PORT: u16 = 9000;

/// Who answers on each node's first pod and on its host.
const PODS: [&str; 3] = ["pod1", "pod2", "pod3"];
const HOSTS: [&str; 3] = ["host1", "host2", "host3"];

/// A world of three nodes that know each other; `families` says which addresses the nodes have.
fn three(families: fn(&IpAddr) -> bool) -> World {
    let mut world = World::new(Clients::Wire);
    world.add_far_node();
    for node in &mut world.nodes {
        // Answers have to come by the device that questions left by.
        for name in ["all", "default", "uplink"] {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            node.namespace.run(|| std::fs::write(path, "1").unwrap());
        }
        if !node.addresses.iter().all(families) {
            node.addresses.retain(families);
            node.reconciler = None;
            node.start();
        }
    }
    for (at, node) in world.nodes.iter().enumerate() {
        answer(&node.pods[0].namespace, BACKEND_PORT, PODS[at]);
        answer(&node.namespace, BACKEND_PORT, HOSTS[at]);
    }
    world.serve(&[(2, 0)]);
    world
}

fn leads_through_a_tunnel(node: &NodeWorld, to: IpAddr) -> bool {
    node.namespace.ip(&format!("route get {to}")).contains(DEVICE)
}

#[test]
fn pods_and_hosts_of_all_nodes_reach_each_other_under_their_own_addresses() {
    if !allowed() {
        return;
    }
    let world = three(|_| true);
    for (from, asks) in world.nodes.iter().enumerate() {
        for (to, answers) in world.nodes.iter().enumerate().filter(|(to, _)| *to != from) {
            let far = from == 2 || to == 2;
            for family in 0..2 {
                let (client, pod) = (asks.pods[0].addresses[family], answers.pods[0].addresses[family]);
                assert_eq!(leads_through_a_tunnel(asks, pod), far, "{from} to {to}");
                all_protocols(&asks.pods[0].namespace, pod, BACKEND_PORT, &format!("{} {client}", PODS[to]));
                let host = asks.addresses[family];
                all_protocols(&asks.namespace, pod, BACKEND_PORT, &format!("{} {host}", PODS[to]));
                // Behind a router, nodes are reached as their pods are.
                let seen = if far { client } else { host };
                let own = answers.addresses[family];
                all_protocols(&asks.pods[0].namespace, own, BACKEND_PORT, &format!("{} {seen}", HOSTS[to]));
            }
        }
    }
    // And everybody the service of the far pod, which sees the client.
    for (family, vip) in VIPS.iter().enumerate() {
        let client = world.nodes[0].pods[0].addresses[family];
        let from = &world.nodes[0].pods[0].namespace;
        all_protocols(from, vip.parse().unwrap(), PORT, &format!("pod3 {client}"));
    }
}

#[test]
fn one_family_between_the_nodes_carries_both_of_the_pods() {
    if !allowed() {
        return;
    }
    for families in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let world = three(families);
        for (from, to) in [(0, 2), (2, 0), (0, 1)] {
            for family in 0..2 {
                let [client, pod] = [from, to].map(|node: usize| world.nodes[node].pods[0].addresses[family]);
                let asks = &world.nodes[from].pods[0].namespace;
                all_protocols(asks, pod, BACKEND_PORT, &format!("{} {client}", PODS[to]));
            }
        }
    }
}

#[test]
fn an_uplink_that_is_made_anew_has_programs_at_the_next_look() {
    if !allowed() {
        return;
    }
    for disabled in [Vec::new(), vec![Optional::Tcx]] {
        let mut world = World::new(Clients::Wire);
        world.nodes[0].disabled = disabled;
        world.nodes[0].reconciler = None;
        world.nodes[0].start();
        answer(&world.nodes[1].pods[0].namespace, BACKEND_PORT, "pod2");
        world.serve(&[(1, 0)]);
        // Nobody has looked while there was none.
        world.plug_anew();
        world.nodes[0].look();
        for family in 0..2 {
            let node = &world.nodes[0];
            let (own, client) = (node.addresses[family], node.pods[0].addresses[family]);
            let far = world.nodes[1].pods[0].addresses[family];
            all_protocols(&node.pods[0].namespace, far, BACKEND_PORT, &format!("pod2 {client}"));
            all_protocols(&world.outside, own, NODE_PORT, &format!("pod2 {own}"));
        }
    }
}

/// Sends back what it gets.
fn echo(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind(("::", STREAM_PORT)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut piece = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

fn connect(from: &Namespace, to: IpAddr) -> TcpStream {
    let to = SocketAddr::new(to, STREAM_PORT);
    let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends as many bytes there and back.
fn exchange(stream: &mut TcpStream, bytes: usize) {
    let piece = vec![7; 1 << 14];
    let mut back = vec![0; 1 << 14];
    for _ in 0..bytes.div_ceil(piece.len()) {
        stream.write_all(&piece).unwrap();
        stream.read_exact(&mut back).unwrap();
    }
}

/// Takes a node's addresses off the link they share with others, or puts them back on.
fn move_node(node: &mut NodeWorld, alone: bool) {
    let [(v4, was4, is4), (v6, was6, is6)] = [(0, 24, 32), (1, 64, 128)].map(|(family, shared, single)| {
        let (was, is) = if alone { (shared, single) } else { (single, shared) };
        (node.addresses[family], was, is)
    });
    let links = &node.namespace;
    links.ip(&format!("addr del {v4}/{was4} dev uplink"));
    links.ip(&format!("addr add {v4}/{is4} dev uplink"));
    links.ip(&format!("addr del {v6}/{was6} dev uplink"));
    links.ip(&format!("addr add {v6}/{is6} dev uplink nodad"));
    for router in OUTSIDE {
        let family = if router.contains(':') { "-6" } else { "-4" };
        links.ip(&format!("{family} route replace {router} dev uplink"));
        links.ip(&format!("{family} route replace default via {router} dev uplink"));
    }
}

#[test]
fn connections_survive_when_a_peer_leaves_the_link_and_comes_back() {
    if !allowed() {
        return;
    }
    let mut world = three(|_| true);
    echo(&world.nodes[1].pods[0].namespace);
    let mut streams: Vec<TcpStream> = (0..2)
        .map(|family| connect(&world.nodes[0].pods[0].namespace, world.nodes[1].pods[0].addresses[family]))
        .collect();
    for alone in [false, true, false] {
        // One after the other, with packets in between: the peers do not agree for a while.
        for at in [0, 1] {
            let pods = world.nodes[1 - at].pods[0].addresses.clone();
            let node = &mut world.nodes[at];
            if alone != leads_through_a_tunnel(node, pods[0]) {
                move_node(node, alone);
                node.look();
            }
            for (family, stream) in streams.iter_mut().enumerate() {
                assert_eq!(leads_through_a_tunnel(node, pods[family]), alone, "{}", pods[family]);
                exchange(stream, 1 << 18);
            }
        }
    }
}

#[test]
fn pods_are_told_how_large_packets_may_be_in_a_tunnel() {
    if !allowed() {
        return;
    }
    for (families, room) in [(IpAddr::is_ipv4 as fn(&IpAddr) -> bool, 1450), (IpAddr::is_ipv6, 1430)] {
        let world = three(families);
        let [near, far] = [0, 2].map(|node: usize| &world.nodes[node].pods[0]);
        echo(&far.namespace);
        for to in &far.addresses {
            let mut stream = connect(&near.namespace, *to);
            exchange(&mut stream, 1 << 20);
            let learnt = near.namespace.ip(&format!("route get {to}"));
            assert!(learnt.contains(&format!("mtu {room}")), "{learnt}");
        }
        let link = near.namespace.ip("link show eth0");
        assert!(link.contains("mtu 1500"), "towards others nothing is smaller: {link}");
    }
}

#[test]
fn nodes_join_and_leave_and_what_the_kernel_forgot_is_put_back() {
    if !allowed() {
        return;
    }
    let mut world = three(|_| true);
    echo(&world.nodes[2].pods[0].namespace);
    let far = world.nodes[2].pods[0].addresses.clone();
    let traces = |node: &NodeWorld| {
        [
            "-4 route show table all proto 75",
            "-6 route show table all proto 75",
            "neigh show",
            "rule",
            "-6 rule",
        ]
        .map(|what| node.namespace.ip(what).lines().filter(|line| !line.contains("STALE")).count())
    };
    let mut stream = connect(&world.nodes[0].pods[0].namespace, far[0]);
    let before = traces(&world.nodes[0]);
    let node = &mut world.nodes[0];
    let known = node.tables.node("n3").unwrap();
    node.tables.update_node(|rows| rows.nodes.remove("n3").is_some());
    node.round();
    assert!(!leads_through_a_tunnel(node, far[0]));
    assert!(!node.namespace.ip("neigh show").contains("198.51.100.3"));
    assert!(!node.namespace.ip("rule").contains("lookup 75"));
    node.tables.update_node(|rows| rows.nodes.insert("n3".to_owned(), known).is_none());
    node.round();
    exchange(&mut stream, 1 << 16);
    assert_eq!(traces(node), before);

    // A restart finds all of it; flows are looked at once more.
    node.reconciler = None;
    node.start();
    let operations = 1 + u64::from(!agent::kernel::features::Features::probe().tcx) * 2;
    assert_eq!(node.reconciler.as_ref().unwrap().operations, operations);
    for harm in
        [format!("link del {DEVICE}"), format!("link set {DEVICE} down"), "link set uplink down".into()]
    {
        node.namespace.ip(&harm);
        if harm.contains("uplink") {
            node.namespace.ip("link set uplink up");
            node.namespace.ip("addr replace 2001:db8::1/64 dev uplink nodad");
            node.namespace.ip("route replace default via 192.0.2.100");
            node.namespace.ip("-6 route replace default via 2001:db8::100");
        }
        node.look();
        exchange(&mut stream, 1 << 16);
    }
    // Ours are all gone in the end.
    let node = &mut world.nodes[0];
    node.reconciler = None;
    node.namespace.run(|| agent::kernel::cleanup::cleanup(&node.bpffs)).unwrap();
    assert_eq!(traces(node)[..2], [0, 0]);
    assert!(!node.namespace.ip("rule").contains("lookup 75"));
    assert!(!node.namespace.ip("link").contains("hawser"));
}
