//! Traffic between pods of two nodes: ours, on one link and in tunnels, beside the kernel's own forwarding on the same links.
//!
//! `cargo bench --bench nodes`. Needs root; everything happens in namespaces made here.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the world of the namespace tests and uses half of it"
)]

#[path = "../traffic/load.rs"]
mod load;
#[path = "../../tests/netns/namespace.rs"]
mod namespace;
mod paired;
mod plain;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use agent::desired::overlay::{Tunnelling, When};
use load::{MEASURES, Measure, measure, serve};
use namespace::Namespace;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use paired::{Middle, Turn, turn};
use plain::{Between, Plain};
use world::{Clients, World};

/// Pairs of turns for each figure.
const PAIRS: usize = 41;
/// How long a turn lasts.
const TIME: Duration = Duration::from_millis(200);
const PORT: u16 = 8080;

fn main() {
    if !world::allowed() {
        return;
    }
    stay_on_one_cpu();
    println!(
        "one client, one server on another node, all on one CPU; {PAIRS} pairs of {} ms each; medians, and of the pairs' ratios with 95 % certainty [from, to]",
        TIME.as_millis()
    );
    let mut world = World::new(Clients::Wire);
    serve(&world.nodes[1].pods[0].namespace, PORT);
    for (when, between) in [(When::Auto, Between::Routes), (When::Always, Between::Vxlan)] {
        for node in &mut world.nodes {
            node.tunnelling = Tunnelling { when, ..Tunnelling::default() };
            node.reconciler = None;
            node.start();
        }
        world.serve(&[(1, 0)]);
        let plain = Plain::new(between);
        let ours = SocketAddr::new(world.nodes[1].pods[0].addresses[0], PORT);
        println!("\n{between:?}");
        compare((&world.nodes[0].pods[0].namespace, ours), (&plain.client, plain.server()));
    }
}

/// Keeps client, server, and what the kernel does for both on one CPU: what waking another one takes differs from turn to turn by more
/// than what is compared.
fn stay_on_one_cpu() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu().expect("a CPU runs this")).expect("a set has room for it");
    sched_setaffinity(Pid::from_raw(0), &one).expect("a process may keep to a CPU that runs it");
}

fn compare(ours: (&Namespace, SocketAddr), plain: (&Namespace, SocketAddr)) {
    for (what, words, more) in MEASURES {
        let mut turns = [Vec::new(), Vec::new()];
        for pair in 0..PAIRS {
            // Who goes first changes from pair to pair.
            for place in 0..2 {
                let side = (pair + place) % 2;
                let (from, to) = [ours, plain][side];
                turns[side].push(turn(|| measure(what, from, to, TIME)));
            }
        }
        show(words, if more { "" } else { ", the other way round" }, &turns, |turn| turn.figure, more);
        if matches!(what, Measure::Connects | Measure::KeepAlive) {
            let each = |turn: Turn| turn.cpu.as_secs_f64() * 1e6 / (turn.figure * TIME.as_secs_f64());
            show("  CPU for each, us", ", the other way round", &turns, each, false);
        }
    }
}

/// One line: the medians of both sides and the ratio of the pairs, ours to plain where `more` is better.
fn show(words: &str, turned: &str, [ours, plain]: &[Vec<Turn>; 2], of: impl Fn(Turn) -> f64, more: bool) {
    let middle = |turns: &[Turn]| Middle::of(turns.iter().map(|turn| of(*turn)).collect());
    let ratios = ours.iter().zip(plain).map(|(ours, plain)| of(*ours) / of(*plain));
    let ratio = Middle::of(ratios.map(|ratio| if more { ratio } else { 1.0 / ratio }).collect());
    let [own, other] = [middle(ours), middle(plain)].map(|one| one.median);
    let digits = usize::from(own < 1000.0);
    println!(
        "  {words:<28}ours {own:>9.digits$} plain {other:>9.digits$}   {:.3} [{:.3}, {:.3}]{turned}",
        ratio.median, ratio.low, ratio.high
    );
}
