//! Silent flows are forgotten, by a program or from outside the kernel; others are not.

use std::net::{SocketAddr, UdpSocket};

use abi::flow::{Flow, FlowKey};
use abi::name;
use agent::kernel::Kernel;
use agent::kernel::features::Optional;
use agent::kernel::meters::{self, open};
use aya::maps::{HashMap, MapData};

use crate::world::{Clients, NodeWorld, World, allowed};

const SILENT: u16 = 5001;
const FRESH: u16 = 5002;

fn flows(node: &NodeWorld) -> HashMap<MapData, FlowKey, Flow> {
    open(&node.pins(), name::FLOWS).unwrap()
}

/// The kernel walks over the flows, or the agent.
const WALKS: [&[Optional]; 2] = [&[], &[Optional::ForEach]];

fn restart(node: &mut NodeWorld, disabled: &[Optional]) {
    node.disabled = disabled.to_vec();
    node.reconciler = None;
    node.start();
}

/// Ports that flows of the first pod go to.
fn ports(node: &NodeWorld) -> Vec<u16> {
    let own = node.pods[0].addresses[0];
    let table = flows(node);
    let keys = table.keys().filter_map(Result::ok).filter(|key| key.tuple.src.ip() == own);
    let mut ports: Vec<u16> = keys.map(|key| key.tuple.dport.host()).collect();
    ports.sort_unstable();
    ports
}

/// Neither port is answered: the flows are forgotten after a minute of silence.
#[test]
fn silent_flows_are_forgotten_on_every_kernel() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    for disabled in WALKS {
        restart(node, disabled);
        let to = node.pods[1].addresses[0];
        node.pods[0].namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in [SILENT, FRESH] {
                socket.send_to(b"?", SocketAddr::new(to, port)).unwrap();
            }
        });
        assert_eq!(ports(node), [SILENT, FRESH]);
        let mut table = flows(node);
        let keys: Vec<FlowKey> = table.keys().collect::<Result<_, _>>().unwrap();
        for key in keys.into_iter().filter(|key| key.tuple.dport.host() == SILENT) {
            let flow = table.get(&key, 0).unwrap();
            table.insert(key, Flow { last_seen: flow.last_seen.saturating_sub(61), ..flow }, 0).unwrap();
        }
        let kernel = &mut node.reconciler.as_mut().unwrap().kernel;
        kernel.expire_flows().unwrap();
        assert_eq!(ports(node), [FRESH], "{:?}", node.disabled);
        assert!(meters::read(&node.pins()).unwrap().flows >= 1, "what stays is counted");
        for key in flows(node).keys().collect::<Result<Vec<_>, _>>().unwrap() {
            table.remove(&key).unwrap();
        }
    }
}

/// Of each socket: most of one's would fill the table.
const MANY: u16 = 60_000;
const SOCKETS: u16 = 2;

#[test]
fn what_a_full_table_gives_up_is_counted() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    for disabled in WALKS {
        restart(node, disabled);
        let kernel = &mut node.reconciler.as_mut().unwrap().kernel;
        kernel.expire_flows().unwrap();
        let before = meters::read(&node.pins()).unwrap();
        let to = node.pods[1].addresses[0];
        node.pods[0].namespace.run(|| {
            for _ in 0..SOCKETS {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                for port in 1..=MANY {
                    socket.send_to(b"?", SocketAddr::new(to, port)).unwrap();
                }
            }
        });
        let kernel = &mut node.reconciler.as_mut().unwrap().kernel;
        kernel.expire_flows().unwrap();
        let after = meters::read(&node.pins()).unwrap();
        let evicted =
            |meters: &meters::Meters| meters.evicted.iter().find(|(map, _)| *map == name::EMBRYOS).unwrap().1;
        let given_up = evicted(&after) - evicted(&before);
        let added = u64::from(SOCKETS) * u64::from(MANY);
        let all = |meters: &meters::Meters| meters.flows + meters.embryos;
        assert_eq!(all(&after) + given_up, all(&before) + added, "{:?}", node.disabled);
        assert!(given_up > added / 10, "{given_up}");
    }
}
