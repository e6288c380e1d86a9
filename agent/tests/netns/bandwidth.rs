//! Pods with limits: everything they send and receive is counted against them, whichever way it goes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use abi::drops::Drop;
use abi::pace::{IN, OUT, Pace, PaceKey, cost};
use agent::kernel::Kernel;
use agent::tables::{EndpointState, Limits, ObjectName, PodOptions};
use aya::maps::{HashMap, Map, MapData};

use crate::namespace::Namespace;
use crate::paths::{all_protocols, answer};
use crate::world::{BACKEND_PORT, Clients, NodeWorld, OUTSIDE, World, allowed};

/// Bytes per second.
const RATE: u64 = 10_000_000;
/// So few that a flood does not fit, however slow the machine is.
const SLOW: u64 = 1_000;
const DATAGRAMS: usize = 20;
const BYTES: usize = 1_000;

/// Limits the first pod of a node.
fn limit(node: &mut NodeWorld, egress: Option<u64>, ingress: Option<u64>) {
    let pod = ObjectName { namespace: "default".into(), name: "pod0".into() };
    let options = PodOptions { limits: Limits { egress, ingress }, ..PodOptions::default() };
    node.tables.update(|rows| drop(rows.pods.insert(pod, Arc::new(options))));
    node.round();
}

fn pace(node: &NodeWorld, direction: u8) -> Option<Pace> {
    let Some(EndpointState::Applied(attachment)) = node.tables.endpoint_state(&node.pods[0].id) else {
        panic!("the pod is attached")
    };
    let map = Map::from_map_data(MapData::from_pin(node.pins().join("hw_paces")).unwrap()).unwrap();
    let paces: HashMap<_, PaceKey, Pace> = map.try_into().unwrap();
    paces.get(&PaceKey { mac: attachment.pod_mac, direction, zero: 0 }, 0).ok()
}

/// What `tc` says about the pod's device.
fn tc(namespace: &Namespace, arguments: &str) -> String {
    let output = namespace.run(|| Command::new("tc").args(arguments.split(' ')).output().unwrap());
    String::from_utf8(output.stdout).unwrap()
}

fn dropped(node: &mut NodeWorld) -> u64 {
    let counters = node.reconciler.as_mut().unwrap().kernel.counters().unwrap();
    counters.drops[&format!("{:?}", Drop::Bandwidth)].packets
}

/// A socket that takes datagrams.
fn sink(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Sends datagrams as long as nothing holds the sender up.
fn send(namespace: &Namespace, to: SocketAddr, datagrams: usize) {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = namespace.run(|| UdpSocket::bind((any, 0)).unwrap());
    socket.set_nonblocking(true).unwrap();
    for _ in 0..datagrams {
        _ = socket.send_to(&[0; BYTES], to);
    }
}

/// Bytes that the pod's device has sent by its discipline.
fn sent(namespace: &Namespace) -> usize {
    let text = tc(namespace, "-s qdisc show dev eth0 root");
    let word = text.split_whitespace().skip_while(|word| *word != "Sent").nth(1);
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Sends datagrams that all arrive; what is counted before and after.
fn spend<T>(from: &Namespace, to: (&Namespace, IpAddr), count: impl Fn() -> T) -> (T, T) {
    let sink = sink(to.0, to.1);
    let before = count();
    send(from, sink.local_addr().unwrap(), DATAGRAMS);
    for _ in 0..DATAGRAMS {
        sink.recv_from(&mut [0; 2 * BYTES]).expect("no datagram is lost");
    }
    (before, count())
}

#[test]
fn limits_hold_whichever_way_packets_go() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    world.serve(&[(0, 1)]);
    limit(&mut world.nodes[0], Some(RATE), Some(RATE));
    let [near, far] = &world.nodes[..] else { panic!("two nodes") };
    let pod = &near.pods[0];
    let least = cost(RATE, (DATAGRAMS * BYTES) as u64);
    for (family, outside) in OUTSIDE.into_iter().enumerate() {
        let outside: IpAddr = outside.parse().unwrap();
        for (who, namespace, address) in [
            ("a pod of this node", &near.pods[1].namespace, near.pods[1].addresses[family]),
            ("a pod of another node", &far.pods[0].namespace, far.pods[0].addresses[family]),
            ("its own node", &near.namespace, near.addresses[family]),
            ("a machine outside", &world.outside, outside),
        ] {
            let (before, after) = spend(&pod.namespace, (namespace, address), || sent(&pod.namespace));
            assert!(after - before >= DATAGRAMS * BYTES, "to {who}: {before}, {after}");
            if address == outside {
                continue;
            }
            let tokens = || pace(near, IN).unwrap().next;
            let (before, after) = spend(namespace, (&pod.namespace, pod.addresses[family]), tokens);
            assert!(after - before >= least, "from {who}: {before}, {after}");
        }
    }
    answer(&near.pods[1].namespace, BACKEND_PORT, "near");
    all_protocols(
        &pod.namespace,
        near.pods[1].addresses[0],
        BACKEND_PORT,
        &format!("near {}", pod.addresses[0]),
    );
}

#[test]
fn what_is_too_much_waits_or_is_dropped() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    world.serve(&[(0, 1)]);
    for (egress, ingress) in [(Some(SLOW), None), (None, Some(SLOW))] {
        let node = &mut world.nodes[0];
        limit(node, egress, ingress);
        let before = dropped(node);
        let (slow, other) = (&node.pods[0], &node.pods[1]);
        let (from, to) = if egress.is_some() { (slow, other) } else { (other, slow) };
        let sink = sink(&to.namespace, to.addresses[0]);
        send(&from.namespace, sink.local_addr().unwrap(), 1_000);
        sink.set_nonblocking(true).unwrap();
        let arrived = (0..1_000).take_while(|_| sink.recv_from(&mut [0; 2 * BYTES]).is_ok()).count();
        assert!(arrived < 500, "{egress:?} {ingress:?}: {arrived} arrived");
        assert!(ingress.is_none() || dropped(node) > before + 500, "{before}, {}", dropped(node));
    }
}

#[test]
fn limits_come_change_and_go_and_survive_the_agent() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    let traces = |node: &NodeWorld| {
        let pod = &node.pods[0].namespace;
        let root = tc(pod, "qdisc show dev eth0 root");
        let stamps = tc(pod, "filter show dev eth0 egress").contains("tc_pace_out");
        // Who has `fq` has stamps; who has not, has neither.
        assert_eq!(root.contains("qdisc fq "), stamps, "{root}");
        let sends = stamps || root.contains("qdisc tbf ");
        [sends, tc(pod, "filter show dev eth0 ingress").contains("tc_pace_in")]
    };
    let rates = |node: &NodeWorld| [OUT, IN].map(|direction| pace(node, direction).map(|pace| pace.rate));
    limit(node, Some(RATE), None);
    assert_eq!((traces(node), rates(node)), ([true, false], [Some(RATE), None]));
    limit(node, Some(2 * RATE), Some(RATE));
    assert_eq!((traces(node), rates(node)), ([true, true], [Some(2 * RATE), Some(RATE)]));
    // The next agent does not know the pods yet: what is there stays, and is made right when it does.
    node.reconciler = None;
    node.tables.update(|rows| rows.pods.clear());
    node.start();
    assert_eq!((traces(node), rates(node)), ([true, true], [Some(2 * RATE), Some(RATE)]));
    limit(node, None, Some(RATE));
    assert_eq!((traces(node), rates(node)), ([false, true], [None, Some(RATE)]));
    limit(node, None, None);
    assert_eq!((traces(node), rates(node)), ([false; 2], [None; 2]));
    limit(node, Some(RATE), Some(RATE));
    let id = node.pods[0].id.clone();
    node.tables.remove_endpoint(&id);
    node.round();
    let map = Map::from_map_data(MapData::from_pin(node.pins().join("hw_paces")).unwrap()).unwrap();
    let paces: HashMap<_, PaceKey, Pace> = map.try_into().unwrap();
    assert_eq!(paces.keys().count(), 0, "limits of a pod that is gone");
}
