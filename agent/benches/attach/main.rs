//! Attaching pods: our CNI plugin and agent beside the reference plugins `bridge` and `host-local`.
//!
//! `cargo bench --bench attach`. What is measured is what a container runtime waits for: from the start of the plugin to its
//! end, for ADD and for DEL, one after the other and eight at a time. The reference plugins are Debian's
//! (`containernetworking-plugins`, in /usr/lib/cni or where CNI_PATH says), with IPv4 alone and without rules; ours gives both
//! families. Needs root. Everything happens in namespaces made here, the same for all runs: taking one down holds the lock that
//! every change of a device needs.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the node of the namespace tests and uses half of it"
)]

#[path = "../../tests/netns/namespace.rs"]
mod namespace;
#[path = "../../tests/netns/served.rs"]
mod served;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use namespace::Namespace;
use serde_json::{Value, json};
use served::{Served, call, plugin};

const RUNS: usize = 5;
/// Sandboxes of one run.
const SANDBOXES: usize = 64;
const AT_A_TIME: usize = 8;

/// Whoever attaches.
struct Plugin<'a> {
    name: &'static str,
    node: &'a Namespace,
    path: PathBuf,
    configuration: Value,
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: attaching needs root");
        return;
    }
    let ours = Served::new(&["10.244.1.0/24", "fd00:244:0:1::/64"]);
    let host = Namespace::new();
    let addresses = tempfile::tempdir().expect("a folder for host-local can be made");
    let mut plugins = vec![Plugin {
        name: "ours",
        node: &ours.namespace,
        path: plugin(),
        configuration: ours.configuration(),
    }];
    match reference() {
        Some(path) => plugins.push(Plugin {
            name: "bridge and host-local",
            node: &host,
            path,
            configuration: json!({
                "cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "cni0",
                "isDefaultGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": addresses.path(),
                    "ranges": [[{ "subnet": "10.88.0.0/16" }]],
                },
            }),
        }),
        None => println!("without the reference plugins: apt-get install containernetworking-plugins"),
    }
    println!(
        "{RUNS} interleaved runs of {SANDBOXES} sandboxes; milliseconds from the plugin's start to its end"
    );
    let sandboxes: Vec<Namespace> = (0..SANDBOXES).map(|_| Namespace::new()).collect();
    for at_a_time in [1, AT_A_TIME] {
        let mut times = vec![(Vec::new(), Vec::new()); plugins.len()];
        for run in 0..RUNS {
            for (plugin, (adds, dels)) in plugins.iter().zip(&mut times) {
                let before = devices(plugin.node);
                let (added, deleted) = measure(plugin, run, at_a_time, &sandboxes);
                // What DEL leaves for later belongs to nobody's next run; a bridge stays.
                while devices(plugin.node) > before.max(3) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                adds.extend(added);
                dels.extend(deleted);
            }
        }
        for (plugin, (adds, dels)) in plugins.iter().zip(times) {
            println!("{at_a_time} at a time, {}: ADD {}, DEL {}", plugin.name, shown(adds), shown(dels));
        }
    }
}

/// Where the reference plugins are, if they are.
fn reference() -> Option<PathBuf> {
    let named = std::env::var("CNI_PATH").unwrap_or_else(|_| "/usr/lib/cni".to_owned());
    let path = Path::new(&named).join("bridge");
    path.exists().then_some(path)
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    format!("p50 {:.2} p99 {:.2} most {:.2}", at(50), at(99), at(100))
}

/// How many devices a node has.
fn devices(node: &Namespace) -> usize {
    node.run(|| nix::net::if_::if_nameindex().expect("devices can be listed").iter().count())
}

/// The times of every ADD and DEL of one run.
fn measure(
    plugin: &Plugin<'_>,
    run: usize,
    at_a_time: usize,
    sandboxes: &[Namespace],
) -> (Vec<Duration>, Vec<Duration>) {
    let each = |verb: &str| {
        std::thread::scope(|scope| {
            let work = |part: usize| {
                let mine = sandboxes.iter().enumerate().skip(part).step_by(at_a_time);
                mine.map(|(number, sandbox)| timed(plugin, verb, &format!("r{run}s{number}"), sandbox))
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..at_a_time).map(|part| scope.spawn(move || work(part))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no plugin fails")).collect::<Vec<_>>()
        })
    };
    let added = each("ADD");
    (added, each("DEL"))
}

fn timed(plugin: &Plugin<'_>, verb: &str, id: &str, sandbox: &Namespace) -> Duration {
    let netns = sandbox.path();
    let start = Instant::now();
    let said = call(plugin.node, &plugin.path, verb, (id, &netns), &plugin.configuration);
    let took = start.elapsed();
    assert!(said.well, "{} {verb}: {}", plugin.name, said.answer);
    took
}
