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

fn embryos(node: &NodeWorld) -> HashMap<MapData, FlowKey, Flow> {
    open(&node.pins(), name::EMBRYOS).unwrap()
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
    let table = embryos(node);
    let keys = table.keys().filter_map(Result::ok).filter(|key| key.tuple.src.ip() == own);
    let mut ports: Vec<u16> = keys.map(|key| key.tuple.dport.host()).collect();
    ports.sort_unstable();
    ports
}

/// Neither port is answered: the flows stay embryos, and are forgotten after a minute of silence.
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
        let mut table = embryos(node);
        let keys: Vec<FlowKey> = table.keys().collect::<Result<_, _>>().unwrap();
        for key in keys
            .into_iter()
            .filter(|key| [key.tuple.dport, key.tuple.sport].iter().any(|p| p.host() == SILENT))
        {
            let flow = table.get(&key, 0).unwrap();
            table.insert(key, Flow { last_seen: flow.last_seen.saturating_sub(61), ..flow }, 0).unwrap();
        }
        let kernel = &mut node.reconciler.as_mut().unwrap().kernel;
        kernel.expire_flows().unwrap();
        assert_eq!(ports(node), [FRESH], "{:?}", node.disabled);
        assert!(meters::read(&node.pins()).unwrap().embryos >= 2, "both halves of what stays are counted");
        for key in embryos(node).keys().collect::<Result<Vec<_>, _>>().unwrap() {
            table.remove(&key).unwrap();
        }
    }
}

/// Half of them would fill the table.
const MANY: u16 = 40_000;

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
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 1..=MANY {
                socket.send_to(b"?", SocketAddr::new(to, port)).unwrap();
            }
        });
        let kernel = &mut node.reconciler.as_mut().unwrap().kernel;
        kernel.expire_flows().unwrap();
        let after = meters::read(&node.pins()).unwrap();
        let evicted =
            |meters: &meters::Meters| meters.evicted.iter().find(|(map, _)| *map == name::EMBRYOS).unwrap().1;
        let given_up = evicted(&after) - evicted(&before);
        let added = 2 * u64::from(MANY);
        assert_eq!(after.embryos + given_up, before.embryos + added, "{:?}", node.disabled);
        assert!(given_up > added / 10, "{given_up}");
    }
}
