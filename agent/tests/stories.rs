//! Stories: objects in, rows out. Each is told in both orders, with a restart after every object, and with every operation
//! failing once.
//!
//! A story is a txtar file: `-- name.yaml --` sections are objects in order (a kind of `Endpoint` is a pod on this node,
//! `Delete` takes an earlier one back), `-- want --` is what the kernel holds in the end. `BLESS=1` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::service::Segment;
use agent::desired::NodeFacts;
use agent::kernel::fake::FakeKernel;
use agent::reconcile::actual::{Actual, Op};
use agent::reconcile::apply::Reconciler;
use agent::sources::kube::learn;
use agent::tables::{Endpoint, Links, ObjectName, Snapshot, Source, Tables};
use serde_json::Value;

struct Story {
    path: PathBuf,
    objects: Vec<Value>,
    want: String,
}

fn stories() -> Vec<Story> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txtar"));
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Story {
    let text = std::fs::read_to_string(&path).unwrap();
    let mut story = Story { path, objects: Vec::new(), want: String::new() };
    for section in text.split("\n-- ").skip(1) {
        let (name, body) = section.split_once(" --\n").unwrap();
        if name == "want" {
            story.want = body.to_owned();
        } else {
            story
                .objects
                .push(serde_saphyr::from_str(body).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    }
    story
}

fn facts() -> NodeFacts {
    NodeFacts {
        name: "n1".into(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        mtu: 1500,
        ..NodeFacts::default()
    }
}

/// Tables of a node whose uplink is there, and nothing else known.
fn linked() -> Tables {
    let tables = Tables::default();
    let on_link = ["192.0.2.0/24", "2001:db8::/64"].map(|link| link.parse().unwrap());
    tables.update(|rows| rows.links = Links { on_link: on_link.into(), mtu: 1500, looked: 0 });
    tables
}

fn tell(tables: &Tables, object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    match kind {
        "Endpoint" => {
            let mut object = object.clone();
            object.as_object_mut().unwrap().shift_remove("kind");
            tables.put_endpoint(serde_json::from_value::<Endpoint>(object).unwrap());
        }
        "Delete" => tables.update(|rows| take_back(rows, &object["name"])),
        _ => tables.update(|rows| assert!(learn(rows, kind, object.clone()).unwrap(), "{kind}")),
    }
}

fn take_back(rows: &mut Snapshot, name: &Value) {
    let name = ObjectName { namespace: "default".into(), name: name.as_str().unwrap().to_owned() };
    let service = rows.services.remove(&name).is_some();
    let slice = rows.slices.remove(&name).is_some();
    let node = rows.nodes.remove(&name.name).is_some();
    let pod = rows.pods.remove(&name).is_some();
    assert!(service || slice || node || pod, "{name:?} was told before");
}

fn all_synced(tables: &Tables) {
    for source in [
        Source::Services,
        Source::Slices,
        Source::Nodes,
        Source::Policies,
        Source::ClusterPolicies,
        Source::Namespaces,
        Source::ClusterPods,
        Source::Endpoints,
    ] {
        tables.synced(source);
    }
}

/// Runs rounds until nothing fails any more; time is an argument, so this takes none.
fn settle(reconciler: &mut Reconciler<FakeKernel>, now: &mut Instant) {
    for _ in 0..20 {
        *now += Duration::from_secs(60);
        if reconciler.round(*now).is_none() {
            return;
        }
    }
    panic!("does not settle: {:?}", reconciler.failures);
}

const FRONTEND: &[(u32, &str)] = &[
    (abi::service::frontend::INTERNAL_LOCAL, "internal-local"),
    (abi::service::frontend::EXTERNAL_LOCAL, "external-local"),
    (abi::service::frontend::EXTERNAL, "external"),
    (abi::service::frontend::SOURCE_RANGES, "source-ranges"),
    (abi::service::frontend::HOST_ONLY, "host-only"),
];
const SERVICE: &[(u32, &str)] = &[
    (abi::service::bits::SOMEBODY, "somebody"),
    (abi::service::bits::HASH, "hash"),
    (abi::service::bits::LEAST, "least"),
    (abi::service::bits::DSR, "dsr"),
    (abi::service::bits::NO_SOCKETS, "no-sockets"),
];
const LINK: &[(u32, &str)] = &[(abi::endpoint::link::NO_SOCKETS, "no-sockets")];

fn words(names: &[(u32, &str)], bits: u32) -> String {
    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| format!(" {name}")).collect()
}

/// Rows without the numbers that differ from telling to telling: indices, bases, backend numbers.
fn shown(actual: &Actual) -> String {
    let mut text = String::new();
    for (key, frontend) in &actual.frontends {
        let service = actual.services[&frontend.service];
        let list = |segment: Segment| {
            let mut all: Vec<String> = actual
                .backends(segment)
                .iter()
                .map(|backend| std::net::SocketAddr::new(backend.addr.ip(), backend.port.host()).to_string())
                .collect();
            all.sort();
            if segment.has_slots() {
                all.push(format!("in {} slots", segment.len()));
            }
            if all.is_empty() { "nobody".to_owned() } else { all.join(" ") }
        };
        let at = std::net::SocketAddr::new(key.addr.ip(), key.port.host());
        if key.proto == 0 {
            writeln!(text, "address {}{}", key.addr.ip(), words(FRONTEND, frontend.flags)).unwrap();
            continue;
        }
        let proto = match key.proto {
            6 => "tcp",
            17 => "udp",
            _ => "sctp",
        };
        writeln!(
            text,
            "frontend {at} {proto}{} affinity {}{}\n  cluster {}\n  local   {}",
            words(FRONTEND, frontend.flags),
            service.affinity,
            words(SERVICE, service.flags),
            list(service.cluster),
            list(service.local)
        )
        .unwrap();
        for range in actual.source_ranges.get(&frontend.service).into_iter().flatten() {
            if frontend.flags & abi::service::frontend::SOURCE_RANGES != 0 {
                writeln!(text, "  admits  {range}").unwrap();
            }
        }
    }
    for (link, attached) in &actual.endpoints {
        let addresses: Vec<String> = attached.addresses.iter().map(ToString::to_string).collect();
        writeln!(text, "endpoint {link} {}{}", addresses.join(" "), words(LINK, attached.flags)).unwrap();
    }
    for (to, hop) in &actual.routes {
        writeln!(text, "route {to} {hop}").unwrap();
    }
    text
}

/// Every number in use is used once, and every segment is whole.
fn check_places(actual: &Actual) {
    let mut taken = vec![false; abi::name::BACKENDS_SIZE];
    for (base, backends) in &actual.segments {
        for place in &mut taken[*base as usize..][..backends.len()] {
            assert!(!std::mem::replace(place, true), "segments overlap at {base}");
        }
    }
    for (base, cells) in &actual.slots {
        let run = actual.backends(Segment { base: *base, count: cells.len() as u32 | abi::service::SLOTS });
        assert!(!run.is_empty(), "slots at {base} lead nowhere");
    }
    for key in actual.frontends.keys() {
        let (word, bit) = abi::service::filter_place(&key.addr);
        assert!(
            actual.filter.get(&word).is_some_and(|bits| bits & bit != 0),
            "{:?} is filtered out",
            key.addr
        );
    }
    let bits: u32 = actual.filter.values().map(|bits| bits.count_ones()).sum();
    let addresses: BTreeSet<_> =
        actual.frontends.keys().map(|key| abi::service::filter_place(&key.addr)).collect();
    assert_eq!(bits as usize, addresses.len(), "bits that nobody needs");
    let mut numbers = std::collections::BTreeMap::new();
    for backend in actual.segments.values().flatten() {
        // TCP and UDP on one port are two backends.
        let known = numbers.insert(backend.id, (backend.addr, backend.port));
        assert!(
            known.is_none_or(|known| known == (backend.addr, backend.port)),
            "number {} twice",
            backend.id
        );
    }
}

fn in_one_go(objects: &[Value]) -> Actual {
    let (tables, kernel) = (Arc::new(linked()), FakeKernel::default());
    objects.iter().for_each(|object| tell(&tables, object));
    all_synced(&tables);
    let mut reconciler = Reconciler::new(kernel.clone(), tables, facts()).unwrap();
    settle(&mut reconciler, &mut Instant::now());
    kernel.state.lock().actual.clone()
}

#[test]
fn every_story_ends_as_it_says() {
    for story in stories() {
        let actual = in_one_go(&story.objects);
        check_places(&actual);
        let got = shown(&actual);
        if std::env::var_os("BLESS").is_some() {
            let text = std::fs::read_to_string(&story.path).unwrap();
            let head = text.split("\n-- want --\n").next().unwrap();
            std::fs::write(&story.path, format!("{head}\n-- want --\n{got}")).unwrap();
        } else {
            assert_eq!(got, story.want, "{}", story.path.display());
        }
    }
}

#[test]
fn the_order_of_the_objects_does_not_matter() {
    for story in stories() {
        // A deletion needs what it deletes.
        if story.objects.iter().any(|object| object["kind"] == "Delete") {
            continue;
        }
        let mut backwards = story.objects.clone();
        backwards.reverse();
        assert_eq!(
            shown(&in_one_go(&backwards)),
            shown(&in_one_go(&story.objects)),
            "{}",
            story.path.display()
        );
    }
}

#[test]
fn a_round_after_every_object_and_a_restart_in_the_middle_lead_to_the_same_rows() {
    for story in stories() {
        let want = shown(&in_one_go(&story.objects));
        for restart in 0..story.objects.len() {
            let (tables, kernel) = (Arc::new(linked()), FakeKernel::default());
            all_synced(&tables);
            let mut now = Instant::now();
            let mut reconciler = Reconciler::new(kernel.clone(), Arc::clone(&tables), facts()).unwrap();
            for (number, object) in story.objects.iter().enumerate() {
                tell(&tables, object);
                settle(&mut reconciler, &mut now);
                check_places(&kernel.state.lock().actual);
                if number == restart {
                    let before = kernel.state.lock().log.len();
                    reconciler = Reconciler::new(kernel.clone(), Arc::clone(&tables), facts()).unwrap();
                    settle(&mut reconciler, &mut now);
                    let again = kernel.state.lock().log[before..].to_vec();
                    assert_eq!(
                        again,
                        [Op::NextEpoch],
                        "a restart changes nothing, but flows are looked at again"
                    );
                }
            }
            assert_eq!(shown(&kernel.state.lock().actual), want, "{}", story.path.display());
        }
    }
}

#[test]
fn any_operation_may_fail_once() {
    for story in stories() {
        let want = shown(&in_one_go(&story.objects));
        let operations = {
            let (tables, kernel) = (Arc::new(linked()), FakeKernel::default());
            story.objects.iter().for_each(|object| tell(&tables, object));
            all_synced(&tables);
            settle(&mut Reconciler::new(kernel.clone(), tables, facts()).unwrap(), &mut Instant::now());
            kernel.state.lock().asked
        };
        for fault in 0..operations {
            let (tables, kernel) = (Arc::new(linked()), FakeKernel::default());
            kernel.state.lock().fail_at.insert(fault);
            story.objects.iter().for_each(|object| tell(&tables, object));
            all_synced(&tables);
            let mut reconciler = Reconciler::new(kernel.clone(), tables, facts()).unwrap();
            settle(&mut reconciler, &mut Instant::now());
            assert_eq!(reconciler.errors, 1);
            assert_eq!(shown(&kernel.state.lock().actual), want, "{} fault {fault}", story.path.display());
        }
    }
}

#[test]
fn nothing_is_removed_before_its_source_has_delivered_everything() {
    let story = &stories()[0];
    let (tables, kernel) = (Arc::new(linked()), FakeKernel::default());
    story.objects.iter().for_each(|object| tell(&tables, object));
    all_synced(&tables);
    let mut now = Instant::now();
    settle(&mut Reconciler::new(kernel.clone(), tables, facts()).unwrap(), &mut now);
    let before = kernel.state.lock().actual.clone();
    let empty = Arc::new(linked());
    settle(&mut Reconciler::new(kernel.clone(), empty, facts()).unwrap(), &mut now);
    assert_eq!(kernel.state.lock().actual, before);
}
