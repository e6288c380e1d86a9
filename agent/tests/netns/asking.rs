//! What people are told of a live node: explanations and events.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use abi::event::Control;
use abi::service::Backend;
use agent::admin::explain::{Explainer, Explanation, Question};
use agent::admin::monitor::hub::{Hub, Subscription};
use agent::admin::monitor::line::{Filter, Line, Shown};
use agent::tables::Protocol;
use aya::maps::{Array, Map, MapData};

use crate::world::{Clients, NODE_PORT, NodeWorld, OUTSIDE, PORT, VIPS, World, allowed, comes_to};

const PATIENCE: Duration = Duration::from_secs(30);

pub fn explain(node: &NodeWorld, src: &str, dst: &str) -> Explanation {
    let explainer = Explainer {
        tables: Arc::clone(&node.tables),
        facts: node.reconciler.as_ref().unwrap().facts().clone(),
        services: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        pods: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
        pins: Some(node.pins()),
    };
    let question = Question { src: src.into(), dst: dst.into(), protocol: Protocol::Udp };
    node.namespace.run(move || explainer.explain(&question).unwrap())
}

#[test]
fn explain_shows_rules_maps_and_programs() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    world.serve(&[(1, 0)]);
    let node = &world.nodes[0];
    for (src, dst) in [
        ("default/pod0", format!("{}:{PORT}", VIPS[0])),
        ("default/pod0", format!("[{}]:{PORT}", VIPS[1])),
        ("default/pod0", format!("default/web:{PORT}")),
        (OUTSIDE[0], format!("192.0.2.1:{NODE_PORT}")),
        ("host", format!("{}:{PORT}", VIPS[0])),
    ] {
        let explained = explain(node, src, &dst);
        assert_eq!(explained.disagreements, Vec::<String>::new(), "{src} {dst}");
        assert_eq!(explained.service.as_deref(), Some("default/web:Udp"), "{src} {dst}");
        let [backend] = &explained.backends[..] else { panic!("one backend: {explained:?}") };
        let far = &world.nodes[1].pods[0].addresses[usize::from(backend.address.is_ipv6())];
        assert_eq!(backend.address.ip(), *far);
        assert!(backend.egress.contains("device uplink via"), "{}", backend.egress);
        match src {
            "host" => assert!(explained.live.starts_with("not run"), "{}", explained.live),
            _ => assert!(explained.live.starts_with("sent to"), "{}", explained.live),
        }
        let text = agent::admin::explain::show::text(&explained);
        assert!(text.contains("rules, maps and programs agree"), "{text}");
    }
    assert_eq!(explain(node, OUTSIDE[0], &format!("192.0.2.1:{NODE_PORT}")).nat, "hidden behind 192.0.2.1");
    let direct = explain(node, "default/pod0", "198.51.100.1:53");
    assert_eq!((direct.service.as_deref(), direct.egress.as_deref()), (None, Some("no route")));
}

#[test]
fn explain_finds_maps_that_are_not_as_the_rules_want() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    world.serve(&[(0, 1)]);
    let node = &world.nodes[0];
    let map = Map::from_map_data(MapData::from_pin(node.pins().join("hw_backends")).unwrap()).unwrap();
    let mut backends: Array<_, Backend> = map.try_into().unwrap();
    for at in 0..64 {
        let backend = backends.get(&at, 0).unwrap();
        if backend != Backend::default() {
            backends.set(at, Backend { port: abi::Be16::new(9), ..backend }, 0).unwrap();
        }
    }
    let explained = explain(node, "default/pod0", &format!("{}:{PORT}", VIPS[0]));
    assert_eq!(explained.disagreements.len(), 2, "{:?}", explained.disagreements);
    assert!(explained.disagreements[0].contains("the programs did"), "{:?}", explained.disagreements);
    assert!(explained.disagreements[1].contains("the maps hold"), "{:?}", explained.disagreements);
}

pub fn hub(node: &NodeWorld) -> Hub {
    let services = vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()];
    let facts = node.reconciler.as_ref().unwrap().facts().clone();
    Hub::new(Some(node.pins()), Arc::clone(&node.tables), facts, services)
}

/// On a runtime of its own: a world is made and taken down outside of one.
fn line(subscription: &mut Subscription) -> Option<Line> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, subscription.next()).await }).expect("in time")
}

pub fn next(subscription: &mut Subscription) -> Shown {
    match line(subscription) {
        Some(Line::Event(event)) => *event,
        other => panic!("an event, not {other:?}"),
    }
}

/// The kinds of events that the programs of a node write.
pub fn wanted(node: &NodeWorld) -> u32 {
    let map = Map::from_map_data(MapData::from_pin(node.pins().join("hw_control")).unwrap()).unwrap();
    let control: Array<_, Control> = map.try_into().unwrap();
    control.get(&0, 0).unwrap().events
}

fn send(node: &NodeWorld, to: SocketAddr) {
    node.pods[0].namespace.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"hello", to).unwrap();
    });
}

#[test]
fn monitors_see_flows_and_drops_by_name_while_they_listen() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    world.serve(&[(1, 0)]);
    let node = &world.nodes[0];
    let hub = hub(node);
    assert_eq!(wanted(node), 0);
    let drops = Filter { drops: true, pod: Some("default/pod0".into()), ..Filter::default() };
    let mut drops = hub.subscribe(drops).unwrap();
    let mut flows = hub
        .subscribe(Filter { flows: true, service: Some("default/web".into()), ..Filter::default() })
        .unwrap();
    comes_to(|| wanted(node), 63, "the programs write for both");
    send(node, SocketAddr::new(VIPS[0].parse().unwrap(), PORT));
    send(node, "10.96.200.200:53".parse().unwrap());
    let begun = next(&mut flows);
    assert_eq!((begun.kind.as_str(), begun.service.as_deref()), ("begun", Some("default/web:Udp")));
    let far = SocketAddr::new(world.nodes[1].pods[0].addresses[0], crate::world::BACKEND_PORT);
    assert_eq!(begun.backend, Some(far));
    let drop = next(&mut drops);
    assert_eq!((drop.kind.as_str(), drop.hook.as_str()), ("drop", "pod out"));
    assert_eq!(drop.pods, ["default/pod0"]);
    assert!(drop.reason.as_ref().unwrap().starts_with("Unallocated"), "{drop:?}");
    std::mem::drop((drops, flows));
    comes_to(|| wanted(node), 0, "nobody listens, and programs write no more");
}

#[test]
fn a_slow_monitor_is_told_what_it_lost() {
    if !allowed() {
        return;
    }
    let world = World::new(Clients::Wire);
    let node = &world.nodes[0];
    let mut slow = hub(node).subscribe(Filter { drops: true, ..Filter::default() }).unwrap();
    // More than the backlog holds, in portions that the ring holds.
    for _ in 0..20 {
        node.pods[0].namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..500 {
                socket.send_to(b"hello", "10.96.200.200:53").unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    let line = line(&mut slow);
    assert!(matches!(line, Some(Line::Lost(count)) if count > 500), "{line:?}");
    assert_eq!(next(&mut slow).kind, "drop", "and goes on");
}
