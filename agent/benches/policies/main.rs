//! Packets between two pods of a node while policies of many rules are about them: what a rule costs, beside none.
//!
//! `cargo bench --bench policies`. Needs root. Everything happens in namespaces made here.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the world of the namespace tests and uses part of it"
)]

#[path = "../traffic/load.rs"]
mod load;
#[path = "../../tests/netns/namespace.rs"]
mod namespace;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::tables::policy::{ClusterPod, Holds, Namespace, Peer, Policy, Ports, Requirement, Rule, Selector};
use agent::tables::{ObjectName, Protocol};
use load::{MEASURES, measure, serve};
use world::{Clients, NodeWorld, World};

const RUNS: usize = 5;
/// How long one figure is taken.
const TIME: Duration = Duration::from_millis(500);
const PORT: u16 = 8080;

/// How many rules, and of what kind.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// No policy.
    Nothing,
    /// So many rules, each about other pods and another port; the last admits the client.
    Rules(u16),
    /// One rule with so many networks, the client's own the last of them.
    Networks(u32),
}

const SHAPES: [Shape; 5] =
    [Shape::Nothing, Shape::Rules(1), Shape::Rules(100), Shape::Rules(1_000), Shape::Networks(1_000)];

fn main() {
    if !world::allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    let server = SocketAddr::new(node.pods[0].addresses[0], PORT);
    serve(&node.pods[0].namespace, PORT);
    println!("two pods of a node, medians of {RUNS} interleaved runs of half a second (lowest to highest)");
    let mut figures = vec![vec![Vec::new(); SHAPES.len()]; MEASURES.len()];
    let mut written = vec![Vec::new(); SHAPES.len()];
    for run in 0..RUNS {
        for turn in 0..SHAPES.len() {
            let column = (run + turn) % SHAPES.len();
            written[column].push(apply(node, SHAPES[column]).as_secs_f64() * 1e3);
            for (row, (what, ..)) in figures.iter_mut().zip(MEASURES) {
                row[column].push(measure(what, &node.pods[1].namespace, server, TIME));
            }
        }
    }
    for (row, (_, words, _)) in figures.into_iter().zip(MEASURES) {
        println!("  {words}");
        let columns: Vec<(f64, f64, f64)> = row.into_iter().map(spread).collect();
        for (shape, (middle, low, high)) in SHAPES.iter().zip(&columns) {
            let shape = format!("{shape:?}");
            println!(
                "    {shape:<16} {middle:>9.1} ({low:.1} to {high:.1}), {:.3} of none",
                middle / columns[0].0
            );
        }
    }
    println!("  from the rows to the maps, ms");
    for (shape, times) in SHAPES.iter().zip(written) {
        let (middle, low, high) = spread(times);
        println!("    {:<16} {middle:>9.2} ({low:.2} to {high:.2})", format!("{shape:?}"));
    }
}

fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}

/// Puts one policy for each direction in force; answers how long that took.
fn apply(node: &mut NodeWorld, shape: Shape) -> Duration {
    let pods: BTreeMap<ObjectName, Arc<ClusterPod>> = node
        .pods
        .iter()
        .enumerate()
        .map(|(number, pod)| {
            let labels = Arc::new(BTreeMap::from([("app".into(), format!("pod{number}").into())]));
            let row = ClusterPod { addresses: pod.addresses.clone().into(), labels, ..ClusterPod::default() };
            (named(&format!("pod{number}")), Arc::new(row))
        })
        .collect();
    node.tables.update(|rows| {
        rows.policy.pods = pods;
        rows.policy.namespaces = BTreeMap::from([("default".to_owned(), Arc::new(Namespace::default()))]);
        rows.policy.policies.clear();
        if let Some(rules) = rules(shape) {
            let all = Policy { ingress: Some(rules.clone()), egress: Some(rules), ..Policy::default() };
            rows.policy.policies.insert(named("all"), Arc::new(all));
        }
    });
    let start = Instant::now();
    node.round();
    start.elapsed()
}

fn rules(shape: Shape) -> Option<Vec<Rule>> {
    let port = |port| Some(vec![Ports::Range(Protocol::Tcp, port, port)]);
    match shape {
        Shape::Nothing => None,
        Shape::Rules(count) => {
            let others = (1..count).map(|index| Rule {
                index,
                peers: Some(vec![pods(&format!("other{index}"))]),
                ports: port(index),
            });
            let both = Some(vec![pods("pod0"), pods("pod1")]);
            Some(others.chain([Rule { index: 0, peers: both, ports: port(PORT) }]).collect())
        }
        Shape::Networks(count) => {
            let block = |number: u32| Peer::Block {
                cidr: format!("{}/30", Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number * 8))
                    .parse()
                    .expect("it is one"),
                except: BTreeSet::new(),
            };
            let own =
                Peer::Block { cidr: "10.244.1.0/24".parse().expect("it is one"), except: BTreeSet::new() };
            let peers = (1..count).map(block).chain([own]).collect();
            Some(vec![Rule { index: 0, peers: Some(peers), ports: port(PORT) }])
        }
    }
}

/// Pods with this label, in the policy's namespace.
fn pods(app: &str) -> Peer {
    let requirement = Requirement { key: "app".into(), holds: Holds::In(BTreeSet::from([app.into()])) };
    Peer::Pods { namespaces: None, pods: Selector { requirements: BTreeSet::from([requirement]) } }
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
}
