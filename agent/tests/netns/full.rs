//! More than the maps hold, and more than is usual in one object.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::oracle::{Ask, Client, Packet};
use agent::probe::Live;
use agent::tables::{ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint};
use serde_json::json;

use crate::agreement::{Objects, compare, tell};
use crate::policies;
use crate::world::{BACKEND_PORT, Clients, NodeWorld, World, allowed};

/// Services, and external addresses of each: with the rows of the addresses themselves, more than there is room for.
const SERVICES: u32 = 90;
const ADDRESSES: u32 = 400;

fn name(number: u32) -> ObjectName {
    ObjectName { namespace: "default".into(), name: format!("s{number:02}") }
}

fn slice(number: u32, endpoints: Vec<SliceEndpoint>) -> Arc<Slice> {
    Arc::new(Slice {
        service: name(number).name,
        endpoints,
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
    })
}

fn service(number: u32, addresses: u32) -> Arc<Service> {
    let external = |at: u32| Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number * 1000 + at);
    Arc::new(Service {
        cluster_ips: vec![Ipv4Addr::new(10, 96, 1, number as u8).into()],
        external_ips: (0..addresses).map(|at| external(at).into()).collect(),
        ports: vec![ServicePort { port: 80, ..ServicePort::default() }],
        created: number.into(),
        ..Service::default()
    })
}

fn crowd() -> Objects {
    let endpoint =
        SliceEndpoint { node: Some("n2".into()), ..SliceEndpoint::new("10.244.2.2".parse().unwrap()) };
    let services = (0..SERVICES).map(|number| (name(number), service(number, ADDRESSES)));
    (
        services.collect(),
        (0..SERVICES).map(|number| (name(number), slice(number, vec![endpoint.clone()]))).collect(),
    )
}

/// A pod asks; the programs do what the rules say, and this is it.
fn ask(node: &NodeWorld, dst: IpAddr) -> Result<Live, String> {
    let ask = Ask::Port(Protocol::Tcp, 80);
    let packet = Packet { client: Client::Pod, src: node.pods[0].addresses[0], dst, ask };
    compare(node, &packet).map(|(_, live)| live)
}

/// Lets the reconciler do its work, until nothing fails but for want of room in the maps: a kernel that is short of memory does not
/// wait for it. The reconciler's time goes on with each attempt, and never back: what it has put off would wait for ever.
fn round(node: &mut NodeWorld, now: &mut Instant) {
    let reconciler = node.reconciler.as_mut().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    node.namespace.run(|| reconciler.round(*now));
    while reconciler.failures.values().any(|failure| !failure.is_full) {
        assert!(Instant::now() < deadline, "{:?}", reconciler.failures);
        std::thread::sleep(Duration::from_millis(20));
        *now += Duration::from_secs(60);
        node.namespace.run(|| reconciler.round(*now));
    }
}

#[test]
fn a_service_that_finds_no_room_is_named_and_all_others_are_served() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    let mut complaints = node.tables.complaints().unwrap();
    let (services, slices) = crowd();
    tell(node, &Objects::default());
    node.tables.update(|rows| (rows.services, rows.slices) = (services, slices));
    let mut now = Instant::now();
    round(node, &mut now);
    let told: Vec<String> =
        std::iter::from_fn(|| complaints.try_recv().ok()).map(|complaint| complaint.object.name).collect();
    let failures = &node.reconciler.as_ref().unwrap().failures;
    assert!(!told.is_empty() && told.len() < 20, "{} of {SERVICES} do not fit", told.len());
    assert_eq!(failures.values().filter(|failure| failure.is_full).count(), told.len(), "{failures:?}");
    for number in 0..SERVICES {
        if told.contains(&name(number).name) {
            continue;
        }
        for dst in [service(number, 0).cluster_ips[0], service(number, ADDRESSES).external_ips[399]] {
            assert!(matches!(ask(node, dst), Ok(Live::Forwarded(..))), "{number}: {:?}", ask(node, dst));
        }
    }
    // As soon as others want less, everybody is served.
    node.tables.update(|rows| {
        for number in 0..SERVICES / 2 {
            rows.services.insert(name(number), service(number, 1));
        }
    });
    for _ in 0..3 {
        now += Duration::from_secs(60);
        round(node, &mut now);
    }
    assert!(node.reconciler.as_ref().unwrap().failures.is_empty());
    for number in 0..SERVICES {
        assert!(matches!(ask(node, service(number, 0).cluster_ips[0]), Ok(Live::Forwarded(..))), "{number}");
    }
}

#[test]
fn one_slice_may_have_five_thousand_endpoints() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    let endpoint = |at: u32| {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 2, 2).to_bits() + at);
        SliceEndpoint { node: Some("n2".into()), ..SliceEndpoint::new(address.into()) }
    };
    let objects: Objects = (
        BTreeMap::from([(name(0), service(0, 0))]),
        BTreeMap::from([(name(0), slice(0, (0..5000).map(endpoint).collect()))]),
    );
    tell(node, &objects);
    let backends: Vec<usize> =
        node.reconciler.as_ref().unwrap().actual.segments.values().map(Vec::len).collect();
    assert_eq!(backends, [5000]);
    let vip = service(0, 0).cluster_ips[0];
    let mut chosen = std::collections::BTreeSet::new();
    for _ in 0..16 {
        match ask(node, vip) {
            Ok(Live::Forwarded(to, ..)) => drop(chosen.insert(format!("{to:?}"))),
            other => panic!("{other:?}"),
        }
    }
    assert!(chosen.len() > 8, "of all of them: {chosen:?}");
}

/// Blocks and ports of one policy whose rows are more than the map holds.
const BLOCKS: u32 = 1_400;
const PORTS: u16 = 100;

#[test]
fn a_policy_that_finds_no_room_is_named_and_isolates_and_all_others_hold() {
    if !allowed() {
        return;
    }
    let mut world = policies::knowing();
    let mut complaints = world.nodes[0].tables.complaints().unwrap();
    let huge = {
        let block = |at: u32| Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + at);
        let peers: Vec<_> =
            (0..BLOCKS).map(|at| json!({ "ipBlock": { "cidr": format!("{}/32", block(at)) } })).collect();
        let ports: Vec<_> = (0..PORTS).map(|at| json!({ "port": 1 + 2 * at })).collect();
        let everybody = json!({ "ports": [{ "port": BACKEND_PORT }] });
        json!({ "podSelector": policies::labelled("n0-1"), "ingress": [everybody, { "from": peers, "ports": ports }] })
    };
    let to = policies::address(&world, 0, 1, 0);
    assert_eq!(policies::reaches(&world, (0, 0), to), (true, true));
    let mut now = Instant::now();
    policies::put(&world, "huge", Some(huge));
    round(&mut world.nodes[0], &mut now);
    let complaint = complaints.try_recv().expect("its owner is told");
    assert_eq!(
        (complaint.kind, &*complaint.object.name, complaint.reason),
        ("NetworkPolicy", "huge", "DataplaneFull")
    );
    let huge = ObjectName { namespace: "default".into(), name: "huge".into() };
    assert_eq!(world.nodes[0].tables.policies_without_room(), [huge].into());
    assert_eq!(policies::reaches(&world, (1, 0), to), (false, false), "what cannot be said is denied");
    // The others are small enough.
    let few = json!({
        "podSelector": policies::labelled("n0-0"),
        "ingress": [{ "ports": [{ "port": BACKEND_PORT, "protocol": "UDP" }] }],
    });
    policies::put(&world, "few", Some(few));
    now += Duration::from_secs(60);
    round(&mut world.nodes[0], &mut now);
    let neighbour = policies::address(&world, 0, 0, 0);
    assert_eq!(policies::reaches(&world, (1, 0), neighbour), (false, true));
    assert!(complaints.try_recv().is_err(), "it is said once");

    policies::put(&world, "huge", None);
    now += Duration::from_secs(60);
    round(&mut world.nodes[0], &mut now);
    assert!(world.nodes[0].reconciler.as_ref().unwrap().failures.is_empty());
    assert!(world.nodes[0].tables.policies_without_room().is_empty());
    assert_eq!(policies::reaches(&world, (1, 0), to), (true, true));
}
