//! Traffic through services: ours beside the pod's own address and beside rulesets in the shape kube-proxy writes.
//!
//! `cargo bench --bench traffic [-- SIZE...]`; sizes are numbers of services of ten endpoints. Needs root, nft and
//! iptables-legacy-restore. Everything happens in namespaces made here.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the world of the namespace tests and uses half of it"
)]

mod cluster;
mod load;
#[path = "../../tests/netns/namespace.rs"]
mod namespace;
mod shapes;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cluster::{ENDPOINTS, MEASURED, Ours, PORT, address_of, vip_of};
use load::{MEASURES, connect_alone, measure, serve};
use namespace::Namespace;
use shapes::{Baseline, NFTABLES_LIMIT, Shape};
use world::Clients;

const RUNS: usize = 5;
/// How long one figure is taken.
const TIME: Duration = Duration::from_millis(500);
const SIZES: [u32; 4] = [1, 1_000, 10_000, 50_000];

fn main() {
    if !world::allowed() {
        return;
    }
    let named: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if named.is_empty() { SIZES.to_vec() } else { named };
    println!(
        "one client, one server, medians of {RUNS} interleaved runs of half a second (lowest to highest)"
    );
    let mut ours = Ours::new(Clients::Sockets);
    let baselines = [Shape::Direct, Shape::Nftables, Shape::Iptables].map(|shape| (shape, Baseline::new()));
    for (_, baseline) in &baselines {
        serve(&baseline.server, PORT);
    }
    for size in sizes {
        let start = Instant::now();
        ours.load(size);
        println!("\n{size} services of {ENDPOINTS} endpoints");
        println!("  loaded: ours {:.2?}", start.elapsed());
        for (shape, baseline) in &baselines {
            let start = Instant::now();
            baseline.load(*shape, size);
            println!("  loaded: {shape:?} {:.2?}", start.elapsed());
        }
        table(size, &ours, &baselines);
    }
    drop(ours);
    non_service();
}

/// One row of figures for each measure.
fn table(size: u32, ours: &Ours, [direct, nftables, iptables]: &[(Shape, Baseline); 3]) {
    let ours_vip = SocketAddr::new(vip_of(MEASURED).into(), 80);
    let vip = SocketAddr::new(shapes::vip_of(MEASURED).into(), 80);
    let plain = SocketAddr::new(address_of(MEASURED, 0).into(), PORT);
    let columns: [(&str, &Namespace, SocketAddr); 5] = [
        ("pod address", ours.client(), ours.direct()),
        ("our VIP", ours.client(), ours_vip),
        ("router, no rules", &direct.1.client, plain),
        ("nftables VIP", &nftables.1.client, vip),
        ("iptables VIP", &iptables.1.client, vip),
    ];
    let mut figures = vec![vec![Vec::new(); columns.len()]; MEASURES.len()];
    for run in 0..RUNS {
        // Who goes first changes from run to run.
        for turn in 0..columns.len() {
            let column = (run + turn) % columns.len();
            let (name, from, to) = columns[column];
            if name == "nftables VIP" && size > NFTABLES_LIMIT {
                continue;
            }
            for (row, (what, ..)) in figures.iter_mut().zip(MEASURES) {
                row[column].push(measure(what, from, to, TIME));
            }
        }
    }
    let failed = load::FAILED.swap(0, Ordering::Relaxed);
    println!("  connects that failed, all columns together: {failed}");
    println!("  {:<28}{}", "", columns.map(|(name, ..)| format!("{name:<26}")).concat());
    for (row, (_, words, more)) in figures.into_iter().zip(MEASURES) {
        print_row(words, more, row);
    }
}

fn print_row(words: &str, more: bool, row: Vec<Vec<f64>>) {
    let measured = |row: Vec<f64>| if row.is_empty() { (f64::NAN, f64::NAN, f64::NAN) } else { spread(row) };
    let spreads: Vec<(f64, f64, f64)> = row.into_iter().map(measured).collect();
    print!("  {words:<28}");
    for (middle, low, high) in &spreads {
        let digits = if *middle < 100.0 { 1 } else { 0 };
        print!("{:<26}", format!("{middle:.digits$} ({low:.digits$} to {high:.digits$})"));
    }
    let better = |at: usize| if more { spreads[1].0 / spreads[at].0 } else { spreads[at].0 / spreads[1].0 };
    println!("ours is {:.3} of direct, {:.2} x nftables, {:.2} x iptables", better(0), better(3), better(4));
}

fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}

/// What the hooks add to a connect(2) that is none of their business: a pod of a node with hooks, and one of a node without.
fn non_service() {
    let elsewhere = SocketAddr::new(std::net::Ipv4Addr::new(198, 51, 100, 7).into(), 80);
    let mut times = [Vec::new(), Vec::new()];
    for run in 0..2 * RUNS {
        let side = run % 2;
        let ours = Ours::new(if side == 0 { Clients::Wire } else { Clients::Sockets });
        times[side].push(connect_alone(ours.client(), elsewhere));
    }
    let [without, with] = [0, 1].map(|side| spread(std::mem::take(&mut times[side])));
    println!(
        "\nconnect(2) of a datagram socket to no service, ns: {:.0} ({:.0} to {:.0}) without hooks, {:.0} ({:.0} to {:.0}) with, {:.0} added",
        without.0,
        without.1,
        without.2,
        with.0,
        with.1,
        with.2,
        with.0 - without.0
    );
}
