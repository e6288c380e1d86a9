//! Many services: what a change costs, counted in operations.

use std::sync::Arc;
use std::time::Instant;

use agent::desired::NodeFacts;
use agent::kernel::fake::FakeKernel;
use agent::reconcile::apply::Reconciler;
use agent::tables::{ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint, Source, Tables};

const SERVICES: u32 = 5_000;

fn slice(number: u32, endpoints: u8) -> Slice {
    let [_, _, high, low] = number.to_be_bytes();
    let endpoint = |last: u8| SliceEndpoint {
        node: Some("n1".into()),
        ..SliceEndpoint::new(std::net::Ipv4Addr::new(10, 128 + high, low, last).into())
    };
    Slice {
        service: format!("s{number}"),
        endpoints: (0..endpoints).map(endpoint).collect(),
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
    }
}

#[test]
fn one_change_among_five_thousand_services_is_a_handful_of_operations() {
    let tables = Arc::new(Tables::default());
    let name = |number: u32| ObjectName { namespace: "default".into(), name: format!("s{number}") };
    tables.update(|rows| {
        for number in 0..SERVICES {
            let [_, _, high, low] = number.to_be_bytes();
            let service = Service {
                cluster_ips: vec![std::net::Ipv4Addr::new(10, 96, high, low).into()],
                ports: vec![ServicePort {
                    name: String::new(),
                    port: 80,
                    protocol: Protocol::Tcp,
                    node_port: None,
                }],
                ..Service::default()
            };
            rows.services.insert(name(number), Arc::new(service));
            rows.slices.insert(name(number), Arc::new(slice(number, 3)));
        }
    });
    for source in [Source::Services, Source::Slices, Source::Nodes, Source::Endpoints] {
        tables.synced(source);
    }
    let facts = NodeFacts {
        name: "n1".into(),
        addresses: Vec::new(),
        on_link: Vec::new(),
        mtu: 1500,
        ..NodeFacts::default()
    };
    let kernel = FakeKernel::default();
    let mut reconciler = Reconciler::new(kernel.clone(), Arc::clone(&tables), facts).unwrap();
    let start = Instant::now();
    reconciler.round(Instant::now());
    println!("{SERVICES} services at once: {:?}", start.elapsed());
    assert_eq!(reconciler.operations, u64::from(SERVICES) * 3, "backends, service and frontend of each");

    tables.update(|rows| drop(rows.slices.insert(name(7), Arc::new(slice(7, 2)))));
    let (before, start) = (reconciler.operations, Instant::now());
    reconciler.round(Instant::now());
    println!("one change: {:?}", start.elapsed());
    assert_eq!(reconciler.operations - before, 3, "fresh backends, one store, one retired address");
}
