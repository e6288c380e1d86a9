//! From any state, under any failures, in any order: the kernel gets to what should be, and only to that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::service::{Backend, Frontend, FrontendKey, SLOTS, Segment, Service as Row};
use abi::{Addr16, Be16};
use agent::desired::{NodeFacts, PortId};
use agent::kernel::fake::FakeKernel;
use agent::reconcile::actual::Actual;
use agent::reconcile::apply::Reconciler;
use agent::reconcile::serve::subject;
use agent::tables::{
    Balancing, Complaint, ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint, Source, Tables,
};
use proptest::prelude::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Service(u8, Option<Box<Service>>),
    Slice(u8, Option<Vec<(u8, u8)>>),
    Restart,
    Wait,
}

fn name(number: u8) -> ObjectName {
    ObjectName { namespace: "default".into(), name: format!("s{number}") }
}

fn ip(third: u8, last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, third, last).into()
}

fn service() -> impl Strategy<Value = Service> {
    let policy = (any::<bool>(), any::<bool>(), 0..2_u32, 0..3_u8, 0..4_u16, 0..3_i64);
    let addresses =
        (0..4_u8, prop::option::of(0..3_u8), prop::option::of(0..3_u8), prop::option::of(0..2_u16));
    (policy, addresses, prop::collection::btree_set(0..3_u8, 0..3)).prop_map(
        |(
            (internal, external, affinity, kind, weight, created),
            (vip, balancer, extra, node_port),
            ranges,
        )| Service {
            cluster_ips: vec![ip(96, vip)],
            load_balancer_ips: balancer.map(|last| ip(97, last)).into_iter().collect(),
            external_ips: extra.map(|last| ip(97, last)).into_iter().collect(),
            source_ranges: ranges.iter().map(|last| format!("10.1.{last}.0/24").parse().unwrap()).collect(),
            ports: vec![ServicePort {
                port: 80,
                node_port: node_port.map(|port| 30_000 + port),
                ..ServicePort::default()
            }],
            internal_local: internal,
            external_local: external,
            affinity,
            balancing: [Balancing::Random, Balancing::Maglev, Balancing::LeastConnections][usize::from(kind)],
            weights: BTreeMap::from([(ip(1, 0).to_string(), weight)]),
            created,
            ..Service::default()
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let endpoints = prop::collection::vec((0..6_u8, 0..4_u8), 0..5);
    prop_oneof![
        3 => (0..5_u8, prop::option::weighted(0.8, service()))
            .prop_map(|(number, row)| Step::Service(number, row.map(Box::new))),
        4 => (0..5_u8, prop::option::weighted(0.8, endpoints)).prop_map(|(number, row)| Step::Slice(number, row)),
        1 => Just(Step::Restart),
        1 => Just(Step::Wait),
    ]
}

fn slice(number: u8, endpoints: &[(u8, u8)]) -> Slice {
    let endpoint = |(last, state): &(u8, u8)| SliceEndpoint {
        ready: *state < 2,
        serving: *state < 3,
        terminating: *state >= 2,
        node: Some(if last % 2 == 0 { "n1" } else { "n2" }.into()),
        ..SliceEndpoint::new(ip(1, *last))
    };
    Slice {
        service: format!("s{number}"),
        endpoints: endpoints.iter().map(endpoint).collect(),
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
    }
}

/// What nobody in their right mind would have left in the maps.
fn rubbish() -> impl Strategy<Value = Actual> {
    let segment = (0..12_u32, 0..4_u32, any::<bool>())
        .prop_map(|(base, count, slots)| Segment { base, count: if slots { count | SLOTS } else { count } });
    let row = (0..6_u32, segment.clone(), segment, 0..64_u32);
    let frontend = (96..98_u8, 0..4_u8, 0..2_u16, 0..6_u32, 0..64_u32);
    let runs = prop::collection::btree_map(0..12_u32, prop::collection::vec((0..6_u8, 0..5_u32), 1..4), 0..5);
    let slots = prop::collection::btree_map(0..12_u32, prop::collection::vec(0..14_u32, 1..4), 0..3);
    (
        prop::collection::vec(row, 0..5),
        prop::collection::vec(frontend, 0..8),
        runs,
        slots,
        prop::collection::btree_map(0..1024_u32, 1..u64::MAX, 0..3),
        prop::collection::btree_map(0..6_u32, prop::collection::btree_set(0..3_u8, 1..3), 0..3),
    )
        .prop_map(|(rows, frontends, runs, slots, filter, ranges)| {
            let backend = |(last, id): (u8, u32)| Backend {
                addr: Addr16::from(ip(1, last)),
                port: Be16::new(8080),
                flags: 0,
                id,
            };
            let key = |third, last, port| FrontendKey {
                addr: Addr16::from(ip(third, last)),
                port: Be16::new(port * 80),
                proto: if port == 0 { 0 } else { 6 },
                zero: 0,
            };
            Actual {
                services: rows
                    .into_iter()
                    .map(|(index, cluster, local, flags)| {
                        (index, Row { cluster, local, affinity: 0, flags: flags | 1 })
                    })
                    .collect(),
                frontends: frontends
                    .into_iter()
                    .map(|(third, last, port, service, flags)| {
                        (key(third, last, port), Frontend { service, flags })
                    })
                    .collect(),
                segments: runs
                    .into_iter()
                    .map(|(base, run)| (base, run.into_iter().map(backend).collect()))
                    .collect(),
                slots,
                filter,
                source_ranges: ranges
                    .into_iter()
                    .map(|(index, ranges)| {
                        let range = |last: u8| format!("10.1.{last}.0/24").parse().unwrap();
                        (index, ranges.into_iter().map(range).collect())
                    })
                    .collect(),
                ..Actual::default()
            }
        })
}

fn apply(tables: &Tables, step: &Step) {
    match step {
        Step::Service(number, row) => {
            tables.put_service(name(*number), row.as_ref().map(|row| Arc::new((**row).clone())));
        }
        Step::Slice(number, row) => {
            tables.put_slice(name(*number), row.as_ref().map(|row| Arc::new(slice(*number, row))));
        }
        Step::Restart | Step::Wait => {}
    }
}

fn facts() -> NodeFacts {
    NodeFacts { name: "n1".into(), addresses: vec!["192.0.2.1".parse().unwrap()], ..NodeFacts::default() }
}

fn start(kernel: &FakeKernel, tables: &Arc<Tables>) -> Reconciler<FakeKernel> {
    Reconciler::new(kernel.clone(), Arc::clone(tables), facts()).unwrap()
}

fn synced(tables: &Tables) {
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

fn settle(reconciler: &mut Reconciler<FakeKernel>, now: &mut Instant) {
    for _ in 0..200 {
        *now += Duration::from_secs(130);
        if reconciler.round(*now).is_none() {
            return;
        }
    }
    panic!("does not settle: {:?}", reconciler.failures);
}

/// What packets see: rows without the numbers that differ from telling to telling.
fn seen(actual: &Actual) -> BTreeMap<FrontendKey, String> {
    let list = |segment: Segment| {
        let run = actual.backends(segment);
        let first = actual.cells(segment).first().copied().unwrap_or(segment.base);
        let base = actual.segments.range(..=first).next_back().map_or(0, |(base, _)| *base);
        let address = |backend: &Backend| (backend.addr.ip(), backend.port.host());
        if segment.has_slots() {
            let cells = actual.cells(segment).iter().map(|cell| address(&run[(cell - base) as usize]));
            format!("slots {:?}", cells.collect::<Vec<_>>())
        } else {
            assert_eq!(run.len(), segment.len() as usize, "a segment is whole");
            format!("{:?}", run.iter().map(address).collect::<Vec<_>>())
        }
    };
    let row = |(key, frontend): (&FrontendKey, &Frontend)| {
        if key.proto == 0 {
            return (*key, format!("address {}", frontend.flags));
        }
        let Row { cluster, local, affinity, flags } = actual.services[&frontend.service];
        let ranges = actual.source_ranges.get(&frontend.service);
        let (bits, cluster, local) = (frontend.flags, list(cluster), list(local));
        (*key, format!("{bits} {flags} {affinity} {ranges:?}\n {cluster}\n {local}"))
    };
    actual.frontends.iter().map(row).collect()
}

/// Nothing is used twice, and nothing is left over.
fn tidy(actual: &Actual) {
    let mut cells = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    for service in actual.services.values() {
        for span in actual.spans(service) {
            for at in span.base..span.base + span.length {
                assert!(cells.insert((format!("{:?}", span.place), at)), "cell {at} twice");
            }
        }
        for backend in [service.cluster, service.local].iter().flat_map(|segment| actual.backends(*segment)) {
            let known = numbers.insert(backend.id, backend.addr);
            assert!(backend.id != 0 && known.is_none_or(|known| known == backend.addr), "{}", backend.id);
        }
    }
    let used: BTreeSet<u32> = actual.frontends.values().map(|frontend| frontend.service).collect();
    assert!(actual.services.keys().all(|index| used.contains(index)), "a service without frontends");
    assert!(actual.source_ranges.keys().all(|index| used.contains(index)), "ranges without a service");
    let mut words = BTreeMap::<u32, u64>::new();
    for key in actual.frontends.keys() {
        let (word, bit) = abi::service::filter_place(&key.addr);
        *words.entry(word).or_default() |= bit;
    }
    assert_eq!(actual.filter, words, "the filter");
}

#[test]
fn an_index_with_ranges_that_nobody_has_is_not_given_twice() {
    let (tables, kernel) = (Arc::new(Tables::default()), FakeKernel::default());
    synced(&tables);
    kernel.state.lock().actual.source_ranges = BTreeMap::from([(0, ["10.1.0.0/24".parse().unwrap()].into())]);
    kernel.state.lock().keeps_cells = true;
    let mut now = Instant::now();
    let mut reconciler = start(&kernel, &tables);
    settle(&mut reconciler, &mut now);
    for number in 0..2 {
        let port = ServicePort { port: 80, ..ServicePort::default() };
        let row = Service { cluster_ips: vec![ip(96, number)], ports: vec![port], ..Service::default() };
        apply(&tables, &Step::Service(number, Some(Box::new(row))));
        settle(&mut reconciler, &mut now);
    }
    let indices: BTreeSet<u32> =
        kernel.state.lock().actual.frontends.values().map(|frontend| frontend.service).collect();
    assert_eq!(indices.len(), 2, "two services, two indices");
}

/// Frontends that somebody wants who has not got all he wants.
fn waiting(reconciler: &Reconciler<FakeKernel>) -> BTreeSet<FrontendKey> {
    let fails = |id: &PortId| reconciler.failures.get(&subject(id)).is_some_and(|failure| failure.is_full);
    let rows = reconciler.desired.services.iter().filter(|(id, _)| fails(id));
    rows.flat_map(|(_, row)| row.frontends.keys().copied()).collect()
}

/// Names of those who were told that there is no room.
fn told(complaints: &mut tokio::sync::mpsc::Receiver<Complaint>) -> BTreeSet<String> {
    std::iter::from_fn(|| complaints.try_recv().ok())
        .filter(|complaint| complaint.reason == "DataplaneFull")
        .map(|complaint| complaint.object.name)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_there_and_whatever_fails_the_end_is_right(
        rubbish in rubbish(),
        steps in prop::collection::vec(step(), 1..24),
        faults in prop::collection::btree_set(0..200_usize, 0..30),
    ) {
        let (tables, kernel) = (Arc::new(Tables::default()), FakeKernel::default());
        synced(&tables);
        kernel.state.lock().actual = rubbish;
        kernel.state.lock().fail_at = faults;
        kernel.state.lock().keeps_cells = true;
        let mut now = Instant::now();
        let mut reconciler = start(&kernel, &tables);
        for step in &steps {
            apply(&tables, step);
            match step {
                Step::Restart => reconciler = start(&kernel, &tables),
                Step::Wait => settle(&mut reconciler, &mut now),
                _ => drop(reconciler.round(now)),
            }
        }
        settle(&mut reconciler, &mut now);
        let got = kernel.state.lock().actual.clone();
        prop_assert_eq!(&got.frontends, &reconciler.actual.frontends);
        tidy(&got);

        let (fresh, clean) = (Arc::new(Tables::default()), FakeKernel::default());
        synced(&fresh);
        steps.iter().for_each(|step| apply(&fresh, step));
        settle(&mut start(&clean, &fresh), &mut now);
        prop_assert_eq!(seen(&got), seen(&clean.state.lock().actual));
        settle(&mut start(&kernel, &tables), &mut now);
        let again = kernel.state.lock().actual.clone();
        tidy(&again);
        prop_assert_eq!(seen(&again), seen(&got), "a restart changes nothing");
    }
    #[test]
    fn what_does_not_fit_is_named_and_everything_else_is_right(
        steps in prop::collection::vec(step(), 1..24),
        room in (0..12_usize, 0..4_usize),
    ) {
        let (tables, kernel) = (Arc::new(Tables::default()), FakeKernel::default());
        let mut complaints = tables.complaints().unwrap();
        synced(&tables);
        kernel.state.lock().room = Some(room);
        let mut now = Instant::now();
        let mut reconciler = start(&kernel, &tables);
        for step in &steps {
            apply(&tables, step);
            if matches!(step, Step::Restart) {
                reconciler = start(&kernel, &tables);
            }
            reconciler.round(now);
        }
        for _ in 0..8 {
            now += Duration::from_secs(130);
            reconciler.round(now);
        }
        let (fresh, clean) = (Arc::new(Tables::default()), FakeKernel::default());
        synced(&fresh);
        steps.iter().for_each(|step| apply(&fresh, step));
        settle(&mut start(&clean, &fresh), &mut now);
        let want = seen(&clean.state.lock().actual);

        let (waiting, told) = (waiting(&reconciler), told(&mut complaints));
        for id in reconciler.desired.services.keys().filter(|id| reconciler.failures.contains_key(&subject(id))) {
            prop_assert!(told.contains(&id.service.name), "nobody told {id:?}");
        }
        let others = |rows: BTreeMap<FrontendKey, String>| -> BTreeMap<_, _> {
            rows.into_iter().filter(|(key, _)| !waiting.contains(key)).collect()
        };
        let got = kernel.state.lock().actual.clone();
        prop_assert_eq!(others(seen(&got)), others(want.clone()));
        prop_assert_eq!(reconciler.failures.is_empty(), seen(&got) == want);

        kernel.state.lock().room = None;
        settle(&mut reconciler, &mut now);
        let got = kernel.state.lock().actual.clone();
        tidy(&got);
        prop_assert_eq!(seen(&got), want, "there is room again");
    }
}
