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
mod plain;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::net::SocketAddr;

use agent::desired::overlay::{Tunnelling, When};
use load::{MEASURES, measure, serve};
use namespace::Namespace;
use plain::{Between, Plain};
use world::{Clients, World};

const RUNS: usize = 9;
const PORT: u16 = 8080;

fn main() {
    if !world::allowed() {
        return;
    }
    println!(
        "one client, one server on another node, medians of {RUNS} interleaved runs of half a second (lowest to highest)"
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

fn compare(ours: (&Namespace, SocketAddr), plain: (&Namespace, SocketAddr)) {
    for (what, words, more) in MEASURES {
        let mut figures = [Vec::new(), Vec::new()];
        for run in 0..RUNS {
            // Who goes first changes from run to run.
            for turn in 0..2 {
                let side = (run + turn) % 2;
                let (from, to) = [ours, plain][side];
                figures[side].push(measure(what, from, to));
            }
        }
        let [ours, plain] = figures.map(spread);
        let shown = |(middle, low, high): (f64, f64, f64)| {
            let digits = usize::from(middle < 100.0);
            format!("{middle:.digits$} ({low:.digits$} to {high:.digits$})")
        };
        let ratio = if more { ours.0 / plain.0 } else { plain.0 / ours.0 };
        println!("  {words:<28}ours {:<28}plain {:<28}{ratio:.3}", shown(ours), shown(plain));
    }
}

fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}
