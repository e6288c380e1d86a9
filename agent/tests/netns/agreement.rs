//! The programs against the oracle: made-up clusters go through `desired` and the reconciler into real maps, made-up packets
//! through the pinned programs, and the oracle has to allow what came out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::desired::NodePortAddresses;
use agent::kernel::trial::Trial;
use agent::oracle::{Ask, Client, Here, Outcome, Packet, decide};
use agent::probe::{self, Live};
use agent::tables::{
    Balancing, Hints, HostPort, Node, ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint,
    Source,
};
use ipnetwork::IpNetwork;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::world::{Clients, NodeWorld, OUTSIDE, World, allowed};

/// Clusters per run; `HAWSER_CASES` asks for more.
const CASES: u32 = 32;
const SERVICES: usize = 3;

pub type Objects = (BTreeMap<ObjectName, Arc<Service>>, BTreeMap<ObjectName, Arc<Slice>>);

fn name(number: usize) -> ObjectName {
    ObjectName { namespace: "default".into(), name: format!("s{number}") }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

/// Addresses differ from service to service, as the API server sees to.
fn service(number: usize) -> impl Strategy<Value = Service> {
    let families = prop_oneof![Just((true, true)), Just((true, false)), Just((false, true))];
    let ports = prop::collection::vec((0..3u16, protocol(), any::<bool>()), 1..3);
    let range = prop::sample::select(vec![
        "192.0.2.64/26",
        "0.0.0.0/0",
        "10.244.0.0/16",
        "2001:db8::/32",
        "192.0.2.1/32",
    ]);
    let policies = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    let balancing = prop_oneof![3 => Just(Balancing::Random), 1 => Just(Balancing::Maglev), 1 => Just(Balancing::LeastConnections)];
    let weights = prop::collection::btree_map(
        prop::sample::select(vec!["n1", "n2", "10.244.2.2", "10.244.1.2"]).prop_map(str::to_owned),
        prop_oneof![Just(0u16), Just(1), Just(3)],
        0..3,
    );
    let ranges = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(range, 1..3)];
    (
        families,
        ports,
        ranges,
        policies,
        prop_oneof![Just(0u32), Just(60)],
        balancing,
        (weights, prop::bool::weighted(0.2)),
    )
        .prop_map(
            move |(
                (v4, v6),
                ports,
                ranges,
                (internal, external, has_external, has_balancer),
                affinity,
                balancing,
                (weights, dsr),
            )| {
                let both = |four: String, six: String| {
                    [v4.then(|| ip(&four)), v6.then(|| ip(&six))].into_iter().flatten().collect::<Vec<_>>()
                };
                let of = |wanted: bool, four: &str, six: &str| {
                    if wanted {
                        both(format!("{four}.{number}"), format!("{six}::{number}"))
                    } else {
                        Vec::new()
                    }
                };
                let mut seen = BTreeSet::new();
                let port = |(index, protocol, node): (u16, Protocol, bool)| {
                    seen.insert((index, protocol)).then(|| ServicePort {
                        name: format!("p{index}{protocol:?}"),
                        port: 80 + index,
                        protocol,
                        node_port: node.then_some(30_000 + number as u16 * 10 + index),
                    })
                };
                Service {
                    cluster_ips: both(
                        format!("10.96.0.{}", number + 10),
                        format!("fd00:96::{:x}", number + 10),
                    ),
                    external_ips: of(has_external, "198.51.100", "2001:db8:e"),
                    load_balancer_ips: of(has_balancer, "203.0.113", "2001:db8:b"),
                    source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
                    ports: ports.into_iter().filter_map(port).collect(),
                    internal_local: internal,
                    external_local: external,
                    affinity,
                    balancing,
                    weights,
                    dsr,
                    ..Service::default()
                }
            },
        )
}

fn endpoint() -> impl Strategy<Value = SliceEndpoint> {
    let address = prop::sample::select(vec![
        ("10.244.1.2", "n1"),
        ("10.244.1.3", "n1"),
        ("192.0.2.1", "n1"),
        ("10.244.2.2", "n2"),
        ("10.244.2.3", "n2"),
        ("192.0.2.2", "n2"),
        ("fd00:244:0:1::2", "n1"),
        ("fd00:244:0:2::2", "n2"),
        ("fd00:244:0:2::3", "n2"),
    ]);
    // Ready, serving, terminating.
    let state = prop_oneof![
        4 => Just((true, true, false)),
        2 => Just((false, true, true)),
        1 => Just((false, false, true)),
        1 => Just((false, false, false)),
    ];
    let hints = |names: [&'static str; 2]| {
        prop_oneof![
            2 => Just(Vec::new()),
            3 => prop::sample::select(names.to_vec()).prop_map(|name| vec![name.to_owned()]),
        ]
    };
    (address, state, hints(["a", "b"]), hints(["n1", "n2"])).prop_map(
        |((address, node), (ready, serving, terminating), zones, nodes)| SliceEndpoint {
            ready,
            serving,
            terminating,
            node: Some(node.into()),
            hints: Hints::new(zones, nodes),
            ..SliceEndpoint::new(ip(address))
        },
    )
}

pub fn objects() -> impl Strategy<Value = Objects> {
    let one = |number: usize| {
        (service(number), prop::collection::vec(prop::collection::vec(endpoint(), 0..5), 0..4))
    };
    (one(0), one(1), one(2)).prop_map(|(a, b, c)| {
        let (mut services, mut slices) = Objects::default();
        for (number, (service, lists)) in [a, b, c].into_iter().enumerate() {
            for (part, endpoints) in lists.into_iter().enumerate() {
                let ports = service
                    .ports
                    .iter()
                    .map(|port| (port.name.clone(), port.protocol, 8000 + port.port))
                    .collect();
                let mut own = name(number);
                let service = std::mem::replace(&mut own.name, format!("s{number}-{part}"));
                slices.insert(own, Arc::new(Slice { service, endpoints, ports }));
            }
            services.insert(name(number), Arc::new(service));
        }
        (services, slices)
    })
}

/// Every address that means something, and some that do not.
pub fn packet() -> impl Strategy<Value = Packet> {
    let number = 0..=SERVICES;
    let address = prop_oneof![
        6 => (number.clone(), prop::sample::select(vec![("10.96.0.", "fd00:96::", 10), ("198.51.100.", "2001:db8:e::", 0), ("203.0.113.", "2001:db8:b::", 0)]))
            .prop_map(|(number, (four, six, base))| (format!("{four}{}", base + number), format!("{six}{:x}", base + number))),
        3 => Just(("192.0.2.1".to_owned(), "2001:db8::1".to_owned())),
        1 => Just(("10.96.9.9".to_owned(), "fd00:96::99".to_owned())),
    ];
    let ask = prop_oneof![
        8 => (protocol(), prop_oneof![80..84u16, (0..SERVICES as u16, 0..4u16).prop_map(|(service, port)| 30_000 + service * 10 + port)])
            .prop_map(|(protocol, port)| Ask::Port(protocol, port)),
        1 => Just(Ask::Echo),
    ];
    let client = prop_oneof![
        Just((Client::Pod, "10.244.1.2", "fd00:244:0:1::2")),
        Just((Client::Outside, OUTSIDE[0], OUTSIDE[1])),
        Just((Client::Outside, "192.0.2.7", "2001:db9::7")),
    ];
    (address, ask, client, any::<bool>()).prop_map(|((four, six), ask, (client, src4, src6), v4)| Packet {
        client,
        src: ip(if v4 { src4 } else { src6 }),
        dst: ip(if v4 { &four } else { &six }),
        ask,
    })
}

/// A packet for a frontend that exists, if there is any.
pub fn aimed(objects: &Objects, aim: [usize; 4], packet: &Packet) -> Packet {
    let pick = |from: usize, all: usize| if all == 0 { None } else { Some(from % all) };
    let find = || {
        let service = objects.0.values().nth(pick(aim[0], objects.0.len())?)?;
        let port = service.ports.get(pick(aim[1], service.ports.len())?)?;
        let virtual_ones =
            service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
        let mut places: Vec<(IpAddr, u16)> = virtual_ones.map(|address| (*address, port.port)).collect();
        places.extend(
            port.node_port
                .iter()
                .flat_map(|number| [(ip("192.0.2.1"), *number), (ip("2001:db8::1"), *number)]),
        );
        places.retain(|(address, _)| address.is_ipv4() == packet.src.is_ipv4());
        let (dst, number) = places[pick(aim[2], places.len())?];
        Some(Packet { dst, ask: Ask::Port(port.protocol, number), ..*packet })
    };
    // One in four is left as it is.
    if aim[3].is_multiple_of(4) { *packet } else { find().unwrap_or(*packet) }
}

pub fn tell(node: &mut NodeWorld, (services, slices): &Objects) {
    let member = |number: u8, zone: &str| {
        let cidrs = [format!("10.244.{number}.0/24"), format!("fd00:244:0:{number}::/64")];
        let member = Node {
            addresses: [format!("192.0.2.{number}"), format!("2001:db8::{number}")]
                .map(|text| ip(&text))
                .to_vec(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            zone: Some(zone.into()),
            ..Node::default()
        };
        (format!("n{number}"), Arc::new(member))
    };
    node.tables.update(|rows| {
        rows.services.clone_from(services);
        rows.slices.clone_from(slices);
        rows.nodes = [member(1, "a"), member(2, "b")].into();
    });
    for source in [
        Source::Services,
        Source::Slices,
        Source::Nodes,
        Source::Policies,
        Source::ClusterPolicies,
        Source::Namespaces,
        Source::ClusterPods,
    ] {
        node.tables.synced(source);
    }
    node.round();
}

/// What the oracle says.
pub fn rules(node: &NodeWorld, packet: &Packet) -> Outcome {
    let reconciler = node.reconciler.as_ref().unwrap();
    let services: [IpNetwork; 2] = ["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()];
    let here = Here { facts: reconciler.facts(), services: &services };
    node.tables.look(|rows| decide(rows, here, packet))
}

/// What the programs did, held against the oracle: an error says where they differ.
pub fn compare(node: &NodeWorld, packet: &Packet) -> Result<(Outcome, Live), String> {
    let rules = rules(node, packet);
    let trial = Trial::new(&node.pins());
    let device = match packet.client {
        Client::Outside => "uplink".to_owned(),
        Client::Pod | Client::Host => node.link(0),
    };
    let ask = || {
        let index = nix::net::if_::if_nametoindex(device.as_str()).expect("the device exists");
        probe::ask(&trial, packet, index)
    };
    let mut live = node.namespace.run(ask).map_err(|error| error.to_string())?;
    if probe::is_muted(&rules, &live) {
        // At most a thousand refusals are sent in a second.
        std::thread::sleep(Duration::from_millis(1100));
        live = node.namespace.run(ask).map_err(|error| error.to_string())?;
    }
    match probe::disagreement(&rules, &live) {
        Some(what) => Err(format!("{packet:?}: {what}")),
        None => Ok((rules, live)),
    }
}

#[test]
fn programs_do_what_the_oracle_says() {
    programs_agree(NodePortAddresses::Primary);
}

#[test]
fn programs_do_what_the_oracle_says_about_prefixes_of_node_ports() {
    // One family has NodePorts, and not on the pods' side of the host.
    programs_agree(NodePortAddresses::Within(vec!["192.0.2.0/24".parse().unwrap()]));
}

fn programs_agree(nodeport: NodePortAddresses) {
    if !allowed() {
        return;
    }
    let cases = std::env::var("HAWSER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut world = Mutex::new(World::new(Clients::Wire));
    let node = &mut world.get_mut().nodes[0];
    host_port(node);
    node.nodeport = nodeport;
    node.reconciler = None;
    node.start();
    let seen = Mutex::new(BTreeMap::<&str, u32>::new());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let clusters = (objects(), prop::collection::vec((packet(), any::<[usize; 4]>()), 24));
    let result = TestRunner::new(config).run(&clusters, |(objects, packets)| {
        let mut world = world.lock();
        let node = &mut world.nodes[0];
        tell(node, &objects);
        for (packet, aim) in packets {
            let packet = aimed(&objects, aim, &packet);
            let (rules, _) = compare(node, &packet).map_err(TestCaseError::fail)?;
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

/// The second pod takes the NodePort that no service of these has.
fn host_port(node: &mut NodeWorld) {
    let port = HostPort { host_ip: None, host_port: 30_003, container_port: 9000, protocol: Protocol::Tcp };
    let id = node.pods[1].id.clone();
    node.tables.update(|rows| rows.endpoints.get_mut(&id).unwrap().host_ports = vec![port]);
}

pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::NotAService => "not a service",
        Outcome::Echo => "echo",
        Outcome::Refused(_) => "refused",
        Outcome::Dropped(_) => "dropped",
        Outcome::Forwarded(_) => "forwarded",
    }
}

#[test]
fn a_trial_leaves_nothing_behind() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    world.nodes[0].affinity = 60;
    world.serve(&[(0, 1), (1, 0)]);
    let node = &world.nodes[0];
    let packet = Packet {
        client: Client::Pod,
        src: node.pods[0].addresses[0],
        dst: ip(crate::world::VIPS[0]),
        ask: Ask::Port(Protocol::Tcp, crate::world::PORT),
    };
    let (_, live) = compare(node, &packet).expect("no disagreement");
    assert!(matches!(live, Live::Forwarded(..)), "{live:?}");
    for map in ["hw_flows", "hw_embryos", "hw_affinity"] {
        let dump = crate::world::dump(&node.pins().join(map));
        assert!(!dump.contains("key"), "{map}: {dump}");
    }
}
