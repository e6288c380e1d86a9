//! What connected sockets are told about their peers, also when there are more of them than slots.
//!
//! What a close gives back is waited for: a program that another test starts holds the sockets too, for a moment.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use abi::name;
use abi::service::{BackendState, SockPeer};
use agent::tables::Balancing;
use aya::maps::{Array, Map, MapData};
use nix::sys::resource::{Resource, setrlimit};
use socket2::SockRef;

use crate::sockets::peer;
use crate::world::{BACKEND_PORT, Clients, NodeWorld, PORT, VIPS, World, allowed, comes_to};

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
    comes_to(|| taken(node), 0, "nobody has connected yet");
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
    comes_to(|| taken(node), 0, "slots that nobody gave back");
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
    comes_to(|| taken(node), 0, "a slot that nobody gave back");
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
    assert_eq!(connections(node), sockets.len() as u64);
    // Cookies come in batches to each processor: which socket found its slot taken is not said by when it was made.
    let owners: BTreeSet<u64> = slots(node).into_iter().map(|slot| slot.cookie).collect();
    let without = sockets.iter().position(|socket| !owners.contains(&cookie(socket)));
    let late = sockets.swap_remove(without.expect("there are more sockets than slots"));
    drop(sockets);
    let counts = || (connections(node), taken(node));
    comes_to(counts, (1, 0), "it is counted, and has no slot");
    late.connect(asked(VIPS[0])).unwrap();
    assert_eq!(counts(), (1, 1), "its slot is free now");
    drop(late);
    comes_to(counts, (0, 0), "nothing is left of it");
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

fn cookie(socket: &UdpSocket) -> u64 {
    SockRef::from(socket).cookie().unwrap()
}

/// How many slots sockets have.
fn taken(node: &NodeWorld) -> usize {
    slots(node).len()
}

/// The slots that sockets have.
fn slots(node: &NodeWorld) -> Vec<SockPeer> {
    let map = Map::from_map_data(MapData::from_pin(node.pins().join(name::SOCK_PEERS)).unwrap()).unwrap();
    let slots: Array<_, SockPeer> = map.try_into().unwrap();
    slots.iter().map(Result::unwrap).filter(|slot| slot.claims != 0).collect()
}
