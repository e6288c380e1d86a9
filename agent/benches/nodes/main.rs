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
use std::process::Command;
use std::time::Duration;

use agent::desired::overlay::{Tunnelling, When};
use load::{MEASURES, Measure, measure, serve};
use namespace::Namespace;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use paired::{Turn, median, turn};
use plain::{Between, Plain};
use serde::{Deserialize, Serialize};
use world::{Clients, World};

/// Worlds that are made for each way, one in a process of its own after the other.
const WORLDS: usize = 9;
/// Pairs of turns in each world for each figure.
const PAIRS: usize = 15;
/// How long a turn lasts.
const TIME: Duration = Duration::from_millis(80);
const PORT: u16 = 8080;
/// Says to a process of this bench which world it is to make.
const ORDERS: &str = "HAWSER_BENCH_WORLD";

/// One world: how its nodes are joined, and which side is made first. Two worlds with the same programs differ by more than the turns
/// within either of them, and so do two sides by when they were made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Orders {
    between: Between,
    ours_first: bool,
}

/// What a world gave for one measure.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    /// Medians of ours and of the plain side.
    figures: [f64; 2],
    /// The median of the pairs' ratios, ours to plain, more being better.
    ratio: f64,
    /// CPU time for each of what is counted, in microseconds, of ours and of the plain side.
    cpu: [f64; 2],
}

fn main() {
    if !world::allowed() {
        return;
    }
    if let Ok(orders) = std::env::var(ORDERS) {
        let found = one_world(serde_json::from_str(&orders).expect("orders are JSON"));
        return println!("{}", serde_json::to_string(&found).expect("figures are JSON"));
    }
    println!(
        "one client, one server on another node, all on one CPU; {WORLDS} worlds, each a process of its own, of {PAIRS} pairs of {} ms; medians of the worlds, and of their ratios with [lowest, highest]",
        TIME.as_millis()
    );
    for between in [Between::Routes, Between::Vxlan] {
        println!("\n{between:?}");
        let worlds: Vec<Vec<Found>> = (0..WORLDS)
            .map(|number| another_process(Orders { between, ours_first: number % 2 == 0 }))
            .collect();
        for (number, (what, words, more)) in MEASURES.into_iter().enumerate() {
            let all: Vec<Found> = worlds.iter().map(|world| world[number].clone()).collect();
            show(what, words, more, &all);
        }
    }
}

fn another_process(orders: Orders) -> Vec<Found> {
    let mut command = Command::new(std::env::current_exe().expect("a process knows its program"));
    command.env(ORDERS, serde_json::to_string(&orders).expect("orders are JSON"));
    let output = command.output().expect("the program runs again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a world gives figures")
}

fn one_world(orders: Orders) -> Vec<Found> {
    stay_on_one_cpu();
    let when = if orders.between == Between::Routes { When::Auto } else { When::Always };
    let (world, plain) = if orders.ours_first {
        let world = ours(when);
        (world, Plain::new(orders.between))
    } else {
        let plain = Plain::new(orders.between);
        (ours(when), plain)
    };
    let server = SocketAddr::new(world.nodes[1].pods[0].addresses[0], PORT);
    compare((&world.nodes[0].pods[0].namespace, server), (&plain.client, plain.server()))
}

fn ours(when: When) -> World {
    let mut world = World::new(Clients::Wire);
    serve(&world.nodes[1].pods[0].namespace, PORT);
    for node in &mut world.nodes {
        node.tunnelling = Tunnelling { when, ..Tunnelling::default() };
        node.reconciler = None;
        node.start();
    }
    world.serve(&[(1, 0)]);
    world
}

/// Keeps client, server, and what the kernel does for both on one CPU: what waking another one takes differs from turn to turn by more
/// than what is compared.
fn stay_on_one_cpu() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu().expect("a CPU runs this")).expect("a set has room for it");
    sched_setaffinity(Pid::from_raw(0), &one).expect("a process may keep to a CPU that runs it");
}

fn compare(ours: (&Namespace, SocketAddr), plain: (&Namespace, SocketAddr)) -> Vec<Found> {
    let figures = MEASURES.map(|(what, _, more)| {
        let mut turns = [Vec::new(), Vec::new()];
        for pair in 0..PAIRS {
            // Who goes first changes from pair to pair.
            for place in 0..2 {
                let side = (pair + place) % 2;
                let (from, to) = [ours, plain][side];
                turns[side].push(turn(|| measure(what, from, to, TIME)));
            }
        }
        found(&turns, more)
    });
    figures.into()
}

fn found(turns: &[Vec<Turn>; 2], more: bool) -> Found {
    let middle =
        |of: fn(&Turn) -> f64| [0, 1].map(|side: usize| median(turns[side].iter().map(of).collect()));
    let ratios = turns[0].iter().zip(&turns[1]).map(|(ours, plain)| ours.figure / plain.figure);
    let ratio = median(ratios.map(|ratio| if more { ratio } else { 1.0 / ratio }).collect());
    let cpu = |turn: &Turn| turn.cpu.as_secs_f64() * 1e6 / (turn.figure * TIME.as_secs_f64());
    Found { figures: middle(|turn| turn.figure), ratio, cpu: middle(cpu) }
}

/// The medians of both sides and of the worlds' ratios, and what each of what is counted costs.
fn show(what: Measure, words: &str, more: bool, worlds: &[Found]) {
    let side = |of: &dyn Fn(&Found) -> f64| median(worlds.iter().map(of).collect());
    let turned = if more { "" } else { ", the other way round" };
    let ratios: Vec<f64> = worlds.iter().map(|world| world.ratio).collect();
    let [own, other] = [0, 1].map(|at: usize| side(&|world| world.figures[at]));
    line(words, [own, other], &ratios, turned);
    if matches!(what, Measure::Connects | Measure::KeepAlive) {
        let ratios: Vec<f64> = worlds.iter().map(|world| world.cpu[1] / world.cpu[0]).collect();
        let cpu = [0, 1].map(|at: usize| side(&|world| world.cpu[at]));
        line("  CPU for each, us", cpu, &ratios, ", the other way round");
    }
}

fn line(words: &str, [own, other]: [f64; 2], ratios: &[f64], turned: &str) {
    let digits = usize::from(own < 1000.0);
    let (low, high) =
        ratios.iter().fold((f64::MAX, f64::MIN), |(low, high), one| (low.min(*one), high.max(*one)));
    println!(
        "  {words:<28}ours {own:>9.digits$} plain {other:>9.digits$}   {:.3} [{low:.3}, {high:.3}]{turned}",
        median(ratios.to_vec())
    );
}
