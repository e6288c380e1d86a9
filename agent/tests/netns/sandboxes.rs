//! Sandboxes by the hundred, made and removed as a container runtime does it: nothing of them stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::desired::endpoints::LINK_PREFIX;
use agent::ipam::Addresses;
use agent::tables::policy::ClusterPod;
use agent::tables::{ObjectName, Tables};
use cni::spool;
use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::policies::learned;
use crate::served::{Said, Served, call, call_for, plugin};
use crate::sweep::left_in;
use crate::world::{allowed, dump};

const POD_CIDRS: [&str; 2] = ["10.244.1.0/24", "fd00:244:0:1::/64"];
const SANDBOXES: usize = 200;
const AT_A_TIME: usize = 8;

/// Everything on the node that a sandbox leaves a trace in.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    devices: BTreeSet<String>,
    routes: String,
    rows: Vec<usize>,
    pins: BTreeSet<PathBuf>,
    attachments: usize,
    queued: usize,
}

impl Traces {
    fn of(node: &Served) -> Self {
        let folder = agent::kernel::objects::folder(&node.bpffs, 1);
        let rows = |map| dump(&folder.join(map)).matches("\"key\"").count();
        let lines =
            |text: String| text.lines().map(|line| line.split(':').nth(1).unwrap().to_owned()).collect();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let journal = node.state.path().join("addresses.journal");
        Self {
            devices: lines(node.namespace.ip("-o link")),
            // The kernel gives devices link-local addresses in its own time.
            routes: ["-4", "-6"]
                .map(|family| node.namespace.ip(&format!("{family} route show table all")))
                .concat()
                .lines()
                .filter(|route| !route.contains("fe80:"))
                .collect::<Vec<_>>()
                .join("\n"),
            rows: ["hw_endpoints", "hw_links", "hw_netns"].map(rows).to_vec(),
            pins: std::fs::read_dir(&folder).unwrap().map(|pin| pin.unwrap().path()).collect(),
            attachments: Addresses::open(&journal, boot.trim()).unwrap().endpoints().count(),
            queued: spool::waiting(&node.state.path().join("cni-del")).unwrap().len(),
        }
    }
}

impl Traces {
    fn pods(&self) -> usize {
        self.devices.iter().filter(|name| name.trim().starts_with(LINK_PREFIX)).count()
    }
}

/// The traces once they are as wanted, or as they are after a while: DEL answers before the kernel has done its part.
fn becomes(node: &Served, wanted: impl Fn(&Traces) -> bool) -> Traces {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let traces = Traces::of(node);
        if wanted(&traces) || Instant::now() > deadline {
            return traces;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Does the same for every sandbox, several at a time.
fn each<T: Send>(sandboxes: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
    let share = sandboxes.len().div_ceil(AT_A_TIME);
    std::thread::scope(|scope| {
        for (part, chunk) in sandboxes.chunks_mut(share).enumerate() {
            let work = &work;
            scope.spawn(move || {
                for (at, sandbox) in chunk.iter_mut().enumerate() {
                    work(part * share + at, sandbox);
                }
            });
        }
    });
}

fn addresses(said: &Said) -> Vec<&str> {
    said.answer["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str()).collect()
}

#[test]
fn two_hundred_sandboxes_leave_nothing() {
    if !allowed() {
        return;
    }
    let plugin = plugin();
    let mut node = Served::new(&POD_CIDRS);
    let configuration = node.configuration();
    let verb = |node: &Served, verb, number: usize, netns: &Path, configuration: &Value| {
        call(&node.namespace, &plugin, verb, (&format!("sandbox{number}"), netns), configuration)
    };
    // Once around, so that what an agent keeps for ever is there.
    let first = Namespace::new();
    assert!(verb(&node, "ADD", SANDBOXES, &first.path(), &configuration).well);
    assert!(verb(&node, "DEL", SANDBOXES, &first.path(), &configuration).well);
    drop(first);
    let before = becomes(&node, |traces| traces.pods() == 0);

    let mut sandboxes: Vec<Option<Namespace>> = Vec::new();
    sandboxes.resize_with(SANDBOXES, || Some(Namespace::new()));
    each(&mut sandboxes, |number, sandbox| {
        let netns = sandbox.as_ref().unwrap().path();
        let added = verb(&node, "ADD", number, &netns, &configuration);
        assert!(added.well && addresses(&added).len() == 2, "{}", added.answer);
        let mut check = configuration.clone();
        check["prevResult"] = added.answer;
        let checked = verb(&node, "CHECK", number, &netns, &check);
        assert!(checked.well, "{}", checked.answer);
    });
    let full = Traces::of(&node);
    assert_eq!((full.attachments, full.pods()), (SANDBOXES, SANDBOXES));
    each(&mut sandboxes[..SANDBOXES - AT_A_TIME], |number, sandbox| {
        let netns = sandbox.as_ref().unwrap().path();
        if number % 4 == 0 {
            // It has gone before anybody said so.
            *sandbox = None;
        }
        let deleted = verb(&node, "DEL", number, &netns, &configuration);
        assert!(deleted.well, "{}", deleted.answer);
        *sandbox = None;
    });
    // The rest goes while no agent runs.
    node.stop();
    let late = node.socket();
    std::fs::remove_file(late).unwrap();
    each(&mut sandboxes[SANDBOXES - AT_A_TIME..], |number, sandbox| {
        let deleted = verb(&node, "DEL", SANDBOXES - AT_A_TIME + number, Path::new(""), &configuration);
        assert!(deleted.well, "{}", deleted.answer);
        *sandbox = None;
    });
    drop(sandboxes);
    node.start();
    let after = becomes(&node, |traces| *traces == before);
    assert_eq!(after, before);
}

#[test]
fn an_agent_that_is_away_is_said_at_once_and_removals_wait() {
    if !allowed() {
        return;
    }
    let plugin = plugin();
    let mut node = Served::new(&POD_CIDRS);
    let pod = Namespace::new();
    let verb = |node: &Served, verb, configuration: &Value| {
        call(&node.namespace, &plugin, verb, ("sandbox", &pod.path()), configuration)
    };
    let configuration = node.configuration();
    assert!(verb(&node, "ADD", &configuration).well);
    node.stop();
    for (asked, code) in [("ADD", 11), ("STATUS", 50)] {
        let start = Instant::now();
        let said = verb(&node, asked, &configuration);
        assert_eq!((said.well, &said.answer["code"]), (false, &json!(code)), "{asked}: {}", said.answer);
        assert!(start.elapsed() < Duration::from_secs(5), "{asked} is not tried again and again");
    }
    assert!(verb(&node, "DEL", &configuration).well);
    let mut nowhere = configuration;
    nowhere["spoolDir"] = json!("/proc/nowhere");
    let said = verb(&node, "DEL", &nowhere);
    assert_eq!(
        said.answer["code"], 5,
        "it cannot be queued, so the runtime has to ask again: {}",
        said.answer
    );
    node.start();
    assert_eq!(Traces::of(&node).attachments, 0);
}

#[test]
fn a_pod_gets_ipv6_where_its_namespace_had_it_turned_off() {
    if !allowed() {
        return;
    }
    let plugin = plugin();
    let node = Served::new(&POD_CIDRS);
    let pod = Namespace::new();
    pod.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    let added = call(&node.namespace, &plugin, "ADD", ("sandbox", &pod.path()), &node.configuration());
    assert!(added.well, "{}", added.answer);
    let shown = pod.ip("-o addr show dev eth0 scope global");
    for address in addresses(&added) {
        assert!(shown.contains(address), "{address} is not among {shown}");
    }
    assert!(pod.ip("-6 route show default").starts_with("default via fe80::"), "{}", pod.ip("-6 route"));
}

#[test]
fn both_ends_of_a_pods_link_are_set_as_they_have_to_be() {
    if !allowed() {
        return;
    }
    let plugin = plugin();
    let node = Served::new(&POD_CIDRS);
    let pod = Namespace::new();
    // What a machine may say about devices to come.
    node.namespace.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/default/forwarding", "0").unwrap();
    });
    let added = call(&node.namespace, &plugin, "ADD", ("sandbox", &pod.path()), &node.configuration());
    assert!(added.well, "{}", added.answer);
    let link = added.answer["interfaces"][0]["name"].as_str().unwrap();
    let setting = |namespace: &Namespace, path: String| {
        namespace
            .run(|| std::fs::read_to_string(Path::new("/proc/sys/net").join(path)).unwrap().trim().to_owned())
    };
    for (name, wanted) in [
        ("ipv4/conf/{}/forwarding", "1"),
        ("ipv4/conf/{}/rp_filter", "0"),
        ("ipv6/conf/{}/forwarding", "1"),
        ("ipv6/conf/{}/accept_ra", "0"),
    ] {
        assert_eq!(setting(&node.namespace, name.replace("{}", link)), wanted, "{name}");
    }
    assert_eq!(setting(&pod, "ipv6/conf/eth0/accept_ra".into()), "0");
    // One for every CPU would make pods slow to attach on large machines.
    for shown in [node.namespace.ip(&format!("-d link show {link}")), pod.ip("-d link show eth0")] {
        assert!(shown.contains("numtxqueues 1 numrxqueues 1"), "{shown}");
    }
    let filters = |side: &str| {
        let asked = format!("filter show dev {link} {side}");
        let output = node.namespace.run(|| std::process::Command::new("tc").args(asked.split(' ')).output());
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    for (side, program) in [("ingress", "tc_pod_out"), ("egress", "tc_pod_in")] {
        assert!(filters(side).contains(&format!("{program} direct-action")), "{side}: {}", filters(side));
    }
}

/// Unique numbers of two pods that have one name, one after the other.
const NUMBERS: [u128; 2] = [0xaa, 0xbb];

fn learn_pod(tables: &Tables, uid: u128, app: &str) {
    let labels = Arc::new([("app".into(), app.into())].into());
    let name = ObjectName { namespace: "default".into(), name: "sandbox".into() };
    tables.put_cluster_pod(name, Some(Arc::new(ClusterPod { uid, labels, ..ClusterPod::default() })));
}

#[test]
fn a_pod_is_attached_when_the_api_server_has_told_of_it_and_not_of_another_by_its_name() {
    if !allowed() {
        return;
    }
    let plugin = plugin();
    let node = Served::new(&POD_CIDRS);
    let (name, row) = learned("closed", json!({ "podSelector": { "matchLabels": { "app": "closed" } } }));
    node.tables.put_policy(name, Some(row));
    // The one that had the name before, whom no policy is about.
    learn_pod(&node.tables, NUMBERS[0], "open");
    let pod = Namespace::new();
    let configuration = node.configuration();
    let uid = format!("00000000-0000-0000-0000-{:012x}", NUMBERS[1]);
    let (added, waited) = std::thread::scope(|scope| {
        let add =
            || call_for(&node.namespace, &plugin, "ADD", ("sandbox", &pod.path(), &uid), &configuration);
        let adding = scope.spawn(add);
        // Longer than an ADD takes by far; shorter than it waits.
        std::thread::sleep(Duration::from_secs(2));
        let waited = !adding.is_finished();
        learn_pod(&node.tables, NUMBERS[1], "closed");
        (adding.join().unwrap(), waited)
    });
    assert!(waited, "it is another's labels that policies were asked about");
    assert!(added.well, "{}", added.answer);
    let rows = dump(&agent::kernel::objects::folder(&node.bpffs, 1).join("hw_endpoints"));
    assert!(!rows.contains("\"ingress\": 0,"), "its own policy holds from the first packet on: {rows}");
}

#[test]
fn what_tests_that_were_killed_have_left_is_found() {
    if !allowed() {
        return;
    }
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [dead, own] = [ended.id(), std::process::id()];
    let left =
        [format!("served-{dead}-0"), format!("dataplane-{dead}-7"), format!("dataplane-empty2-{dead}")];
    let kept = [format!("served-{own}-0"), format!("dataplane-home-{own}"), format!("others-{dead}-0")];
    for name in left.iter().chain(&kept) {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let found: BTreeSet<PathBuf> = left_in(folder.path()).into_iter().collect();
    assert_eq!(found, left.iter().map(|name| folder.path().join(name)).collect());
}
