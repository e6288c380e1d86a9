//! What connected sockets are told about their peers, also when there are more of them than slots.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use abi::name;
use abi::service::{BackendState, SockPeer};
use agent::tables::Balancing;
use aya::maps::{Array, Map, MapData};
use nix::sys::resource::{Resource, setrlimit};

use crate::sockets::peer;
use crate::world::{BACKEND_PORT, Clients, NodeWorld, PORT, VIPS, World, allowed};

/// More than there are slots: these cannot all have one.
const BEYOND: usize = 300;

#[test]
fn every_connected_socket_sees_the_address_it_asked_for() {
    if !allowed() {
        return;
    }
    room_for_sockets();
    let mut world = World::new(Clients::Sockets);
    world.serve(&[(1, 0)]);
    let node = &world.nodes[0];
    assert_eq!(taken(node), 0, "nobody has connected yet");
    let pod = &node.pods[0];
    let (vips, backends) = (VIPS.map(asked), [0, 1].map(|family| backend(&world, family)));
    let sockets = pod.namespace.run(|| {
        let sockets: Vec<UdpSocket> =
            (0..name::SOCK_PEERS_SIZE + BEYOND).map(|at| connected(vips[at % 2])).collect();
        for (at, socket) in sockets.iter().enumerate() {
            assert_eq!(socket.peer_addr().unwrap(), vips[at % 2], "socket {at}");
        }
        for at in [0, 1, sockets.len() - 2, sockets.len() - 1] {
            assert_eq!(
                peer(sockets[at].local_addr().unwrap()),
                backends[at % 2],
                "socket {at} is translated"
            );
        }
        sockets
    });
    let full = taken(node);
    assert!(full > name::SOCK_PEERS_SIZE / 2, "only {full} of them have a slot");
    drop(sockets);
    assert_eq!(taken(node), 0, "slots that nobody gave back");
}

#[test]
fn a_socket_that_connects_again_sees_the_new_address() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Sockets);
    world.serve(&[(1, 0)]);
    let (node, elsewhere) = (&world.nodes[0], "192.0.2.9:53".parse().unwrap());
    node.pods[0].namespace.run(|| {
        let socket = connected(asked(VIPS[0]));
        for to in [elsewhere, asked(VIPS[0]), asked(VIPS[0])] {
            socket.connect(to).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), to);
        }
        assert_eq!(taken(node), 1);
    });
    assert_eq!(taken(node), 0);
}

#[test]
fn a_socket_that_gets_its_slot_late_counts_once() {
    if !allowed() {
        return;
    }
    room_for_sockets();
    let mut world = World::new(Clients::Sockets);
    world.serve(&[(1, 0)]);
    let node = &mut world.nodes[0];
    node.tables.update(|rows| {
        for service in rows.services.values_mut() {
            Arc::make_mut(service).balancing = Balancing::LeastConnections;
        }
    });
    let reconciler = node.reconciler.as_mut().unwrap();
    node.namespace.run(|| reconciler.round(Instant::now()));
    let node = &world.nodes[0];
    let mut sockets: Vec<UdpSocket> = node.pods[0]
        .namespace
        .run(|| (0..name::SOCK_PEERS_SIZE + BEYOND).map(|_| connected(asked(VIPS[0]))).collect());
    let last = sockets.pop().unwrap();
    let all = sockets.len() as u64 + 1;
    assert_eq!(connections(node), all);
    drop(sockets);
    assert_eq!((connections(node), taken(node)), (1, 0), "the last one had no slot");
    last.connect(asked(VIPS[0])).unwrap();
    assert_eq!((connections(node), taken(node)), (1, 1));
    drop(last);
    assert_eq!((connections(node), taken(node)), (0, 0));
}

fn room_for_sockets() {
    let files = (name::SOCK_PEERS_SIZE + 4 * BEYOND) as u64;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).unwrap();
}

/// Connections that all backends are counted for.
fn connections(node: &NodeWorld) -> u64 {
    let map = Map::from_map_data(MapData::from_pin(node.pins().join(name::BACKEND_STATES)).unwrap()).unwrap();
    let states: Array<_, BackendState> = map.try_into().unwrap();
    states.iter().map(|state| state.unwrap().connections).sum()
}

fn asked(vip: &str) -> SocketAddr {
    SocketAddr::new(vip.parse().unwrap(), PORT)
}

fn backend(world: &World, family: usize) -> SocketAddr {
    SocketAddr::new(world.nodes[1].pods[0].addresses[family], BACKEND_PORT)
}

fn connected(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// How many slots sockets have.
fn taken(node: &NodeWorld) -> usize {
    let map = Map::from_map_data(MapData::from_pin(node.pins().join(name::SOCK_PEERS)).unwrap()).unwrap();
    let slots: Array<_, SockPeer> = map.try_into().unwrap();
    slots.iter().filter(|slot| slot.as_ref().is_ok_and(|slot| slot.claims != 0)).count()
}
