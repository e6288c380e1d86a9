//! Services from the text of a list to the maps, and changes of one endpoint: how long, how much processor, how much memory.
//!
//! `cargo bench --bench changes`. The text is what an API server sends, the maps are the kernel's; the network between is left
//! out. Needs root. Everything happens in namespaces made here.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the world of the namespace tests and uses part of it"
)]

#[path = "../../tests/netns/namespace.rs"]
mod namespace;
mod objects;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::kernel::linux::LinuxKernel;
use agent::reconcile::apply::Reconciler;
use agent::sources::kube::decode::{self, Context, object_name};
use agent::sources::kube::objects as api;
use agent::tables::{Source, Tables};
use world::{Clients, NodeWorld, World};

const ENDPOINTS: u32 = 10;
/// Single changes that are timed.
const CHANGES: u32 = 3_000;
/// How long a thousand changes per second go on.
const SUSTAINED: Duration = Duration::from_secs(5);

fn main() {
    if !world::allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    println!("services of {ENDPOINTS} endpoints each, from the text of lists to maps written");
    for (services, scale) in [(1_000, 1), (10_000, 2), (50_000, 8)] {
        let node = &mut world.nodes[0];
        node.reconciler = None;
        node.tables = Arc::new(Tables::default());
        node.scale = scale;
        for source in [
            Source::Nodes,
            Source::Endpoints,
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
        ] {
            node.tables.synced(source);
        }
        node.start();
        measure(node, services);
    }
}

fn measure(node: &mut NodeWorld, services: u32) {
    let lists = objects::lists(services, ENDPOINTS);
    let before = memory();
    let start = Instant::now();
    learn(&node.tables, &lists);
    let learnt = start.elapsed();
    drop(lists);
    let tables = Arc::clone(&node.tables);
    let reconciler = node.reconciler.as_mut().expect("it was started");
    let begun = Instant::now();
    reconciler.round(Instant::now());
    let written = begun.elapsed();
    assert!(reconciler.failures.is_empty(), "{:?}", reconciler.failures.iter().next());
    assert_eq!(reconciler.actual.services.len(), services as usize);
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
    let after = memory();
    println!(
        "  {services:>6}: {:>8.1} ms = {:.1} decoded + {:.1} written; memory {:.1} MiB of its own, {:.1} of maps; {} bytes per service",
        ms(learnt + written),
        ms(learnt),
        ms(written),
        after.own / 1024.0,
        after.maps / 1024.0,
        ((after.own - before.own) * 1024.0 / f64::from(services)) as i64,
    );
    single(reconciler, &tables, services);
    sustained(reconciler, &tables, services);
}

/// What the watches do with the pages of a list.
fn learn(tables: &Tables, lists: &objects::Lists) {
    let mut context = Context::default();
    let mut services = BTreeMap::new();
    for page in &lists.services {
        for object in serde_json::from_str::<objects::List<api::Service>>(page)
            .expect("the objects are written here")
            .items
        {
            let name = object_name(&object);
            services.insert(name, Arc::new(decode::service(object, &mut context).expect("it is ours")));
        }
    }
    tables.replace_services(services);
    tables.synced(Source::Services);
    let mut slices = BTreeMap::new();
    for page in &lists.slices {
        for object in serde_json::from_str::<objects::List<api::EndpointSlice>>(page)
            .expect("the objects are written here")
            .items
        {
            let name = object_name(&object);
            slices.insert(name, Arc::new(decode::slice(object, &mut context).expect("it is ours")));
        }
    }
    tables.replace_slices(slices);
    tables.synced(Source::Slices);
}

/// From the text of one slice to its service in the maps.
fn change(
    reconciler: &mut Reconciler<LinuxKernel>,
    tables: &Tables,
    context: &mut Context,
    text: &str,
) -> Duration {
    let start = Instant::now();
    let object: api::EndpointSlice = serde_json::from_str(text).expect("the objects are written here");
    let name = object_name(&object);
    tables.put_slice(name, decode::slice(object, context).map(Arc::new));
    reconciler.round(Instant::now());
    start.elapsed()
}

fn single(reconciler: &mut Reconciler<LinuxKernel>, tables: &Tables, services: u32) {
    let mut context = Context::default();
    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|turn| {
            let text = objects::slice(turn.wrapping_mul(7919) % services, ENDPOINTS, turn + 1).to_string();
            change(reconciler, tables, &mut context, &text)
        })
        .collect();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!(
        "          one endpoint changes: p50 {:.0} us, p99 {:.0} us, most {:.0} us",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn sustained(reconciler: &mut Reconciler<LinuxKernel>, tables: &Tables, services: u32) {
    let mut context = Context::default();
    let count = SUSTAINED.as_millis() as u32;
    let texts: Vec<String> = (0..count)
        .map(|turn| {
            objects::slice(turn.wrapping_mul(104_729) % services, ENDPOINTS, turn + 100_000).to_string()
        })
        .collect();
    let (start, busy) = (Instant::now(), processor());
    for (turn, text) in (1_u32..).zip(&texts) {
        change(reconciler, tables, &mut context, text);
        let due = start + Duration::from_millis(u64::from(turn));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let share = (processor() - busy).as_secs_f64() / start.elapsed().as_secs_f64();
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("          {rate:.0} changes per second: {:.1} % of a processor", share * 100.0);
}

/// Processor time of this thread.
fn processor() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("every thread has this clock");
    Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32)
}

/// Resident memory in KiB.
struct Memory {
    own: f64,
    maps: f64,
}

fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux says so");
        line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).expect("a number of kB")
    };
    Memory { own: of("RssAnon:"), maps: of("RssFile:") + of("RssShmem:") }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
