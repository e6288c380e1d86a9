//! Many services: what a change costs, counted in operations.

use std::sync::Arc;
use std::time::Instant;

use agent::desired::NodeFacts;
use agent::kernel::fake::FakeKernel;
use agent::reconcile::actual::Op;
use agent::reconcile::apply::Reconciler;
use agent::tables::{ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint, Source, Tables};

const SERVICES: u32 = 50_000;

fn name(number: u32) -> ObjectName {
    ObjectName { namespace: "default".into(), name: format!("s{number}") }
}

fn slice(number: u32, endpoints: u8) -> Arc<Slice> {
    let [_, _, high, low] = number.to_be_bytes();
    let endpoint = |last: u8| SliceEndpoint {
        node: Some("n1".into()),
        ..SliceEndpoint::new(std::net::Ipv4Addr::new(10, high, low, last).into())
    };
    Arc::new(Slice {
        service: format!("s{number}"),
        endpoints: (0..endpoints).map(endpoint).collect(),
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
    })
}

fn service(number: u32) -> Arc<Service> {
    let [_, _, high, low] = number.to_be_bytes();
    Arc::new(Service {
        cluster_ips: vec![std::net::Ipv4Addr::new(11, 96, high, low).into()],
        ports: vec![ServicePort { port: 80, ..ServicePort::default() }],
        ..Service::default()
    })
}

/// Names of the operations since `from`, counted.
fn counted(log: &[Op]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for op in log {
        let name = format!("{op:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
        *counts.entry(name).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn one_change_among_fifty_thousand_services_is_a_handful_of_operations() {
    let tables = Arc::new(Tables::default());
    for number in 0..SERVICES {
        tables.put_service(name(number), Some(service(number)));
        tables.put_slice(name(number), Some(slice(number, 3)));
    }
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
    let facts = NodeFacts { name: "n1".into(), mtu: 1500, ..NodeFacts::default() };
    let kernel = FakeKernel::of_scale(8);
    let mut reconciler = Reconciler::new(kernel.clone(), Arc::clone(&tables), facts).unwrap();
    let start = Instant::now();
    reconciler.round(Instant::now());
    println!("{SERVICES} services at once: {:?}", start.elapsed());
    let all = counted(&std::mem::take(&mut kernel.state.lock().log));
    let of = |name: &str| all.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count);
    assert_eq!(of("WriteBackends"), SERVICES as usize);
    assert_eq!(of("WriteService"), SERVICES as usize);
    assert_eq!(of("WriteFrontend"), 2 * SERVICES as usize, "its port, and the address itself");
    assert_eq!(of("NextEpoch"), 1, "flows of before are looked at again");
    assert_eq!(all.len(), 5, "{all:?}");

    let mut change = |what: &str, want: &[(&str, usize)]| {
        let start = Instant::now();
        reconciler.round(Instant::now());
        println!("{what}: {:?}", start.elapsed());
        let got = counted(&std::mem::take(&mut kernel.state.lock().log));
        let got: Vec<(&str, usize)> = got.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(got, want, "{what}");
    };
    let burial: [(&str, usize); 2] = [("Bury", 1), ("CountTombstones", 1)];
    tables.put_slice(name(7), Some(slice(7, 2)));
    let writes = [("RetireBackend", 1), ("WriteBackends", 1), ("WriteService", 1)];
    change("an endpoint goes", &[&burial[..], &writes].concat());
    tables.put_slice(name(7), Some(slice(7, 3)));
    let back = [("CountTombstones", 1), ("Unbury", 1), ("WriteBackends", 1), ("WriteService", 1)];
    change("it is back", &back);
    tables.put_slice(name(7), Some(slice(7, 3)));
    change("nothing", &[]);
    tables.put_service(name(8), None);
    let gone = [("Bury", 3), ("CountTombstones", 1), ("DeleteFrontend", 2), ("RetireBackend", 3)];
    let mut gone = gone.to_vec();
    gone.extend([("WriteFilter", 1), ("WriteService", 1)]);
    let start = Instant::now();
    reconciler.round(Instant::now());
    println!("a service goes: {:?}", start.elapsed());
    let mut got = counted(&std::mem::take(&mut kernel.state.lock().log));
    // Its bit may stand for another address as well.
    got.retain(|(name, _)| name != "WriteFilter");
    gone.retain(|(name, _)| *name != "WriteFilter");
    assert_eq!(got.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>(), gone);
}
