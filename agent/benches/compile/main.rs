//! What compiling policies costs: a large cluster at once, and what changes in it.
//!
//! `cargo bench --bench compile`. The compiler alone, without a kernel: 50,000 pods in 500 namespaces, 10,000 policies, 110 pods of
//! this node, of which each is selected by the policies of its namespace. Medians of five runs.

#![allow(clippy::expect_used, reason = "a benchmark prints figures or stops")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::desired::policy::Policies;
use agent::sources::kube::learn;
use agent::tables::policy::{ClusterPod, Labels, Namespace};
use agent::tables::{Endpoint, ObjectName, PolicyChanges, Snapshot, Source};
use serde_json::json;

const PODS: u32 = 50_000;
const NAMESPACES: u32 = 500;
const POLICIES: u32 = 10_000;
const LOCAL: u32 = 110;
const RUNS: usize = 5;

fn name(namespace: u32, name: String) -> ObjectName {
    ObjectName { namespace: format!("n{namespace}"), name }
}

/// Ten kinds of pods in each namespace.
fn pod(number: u32, app: u32) -> Arc<ClusterPod> {
    let labels: Labels = [("app".into(), app.to_string().into())].into();
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
    Arc::new(ClusterPod {
        addresses: [address.into()].into(),
        labels: Arc::new(labels),
        ..ClusterPod::default()
    })
}

/// Pods of one kind take what those of another, in two namespaces, send to one port.
fn put_policy(tables: &mut Snapshot, number: u32, port: u32) {
    let namespace = number % NAMESPACES;
    let app = |app: u32| json!({ "matchLabels": { "app": app.to_string() } });
    let peers = json!([
        { "podSelector": app(number % 7) },
        { "namespaceSelector": { "matchLabels": { "team": (number % 25).to_string() } }, "podSelector": app(number % 3) },
    ]);
    let spec = json!({ "podSelector": app(number / NAMESPACES % 10), "ingress": [{ "from": peers, "ports": [{ "port": port }] }] });
    let metadata = json!({ "namespace": format!("n{namespace}"), "name": format!("p{number}") });
    let known = learn(tables, "NetworkPolicy", json!({ "metadata": metadata, "spec": spec }));
    assert!(known.expect("a policy is read"), "the kind is known");
}

fn cluster() -> Snapshot {
    let synced =
        [Source::Policies, Source::ClusterPolicies, Source::Namespaces, Source::ClusterPods, Source::Nodes]
            .into();
    let mut tables = Snapshot { synced, ..Snapshot::default() };
    for number in 0..NAMESPACES {
        let labels: Labels = [("team".into(), (number % 25).to_string().into())].into();
        let row = Namespace { labels: Arc::new(labels), audit: false };
        tables.policy.namespaces.insert(format!("n{number}"), Arc::new(row));
    }
    for number in 0..PODS {
        let key = name(number % NAMESPACES, format!("pod{number}"));
        tables.policy.pods.insert(key, pod(number, number / NAMESPACES % 10));
    }
    for number in 0..POLICIES {
        put_policy(&mut tables, number, 1000 + number % 50);
    }
    for number in 0..LOCAL {
        let endpoint = Endpoint {
            container_id: number.to_string(),
            pod_namespace: format!("n{}", number % NAMESPACES),
            pod_name: format!("pod{number}"),
            addresses: pod(number, 0).addresses.to_vec(),
            ..Endpoint::default()
        };
        tables.endpoints.insert(endpoint.id(), endpoint);
    }
    tables
}

/// Compiles what changed, and forgets what nobody needs.
fn follow(policies: &mut Policies, tables: &Snapshot, changes: &PolicyChanges) -> Duration {
    let hosts: BTreeSet<IpAddr> = [IpAddr::from([192, 0, 2, 1])].into();
    let start = Instant::now();
    policies.update(tables, changes, false, &hosts);
    policies.settle(tables);
    start.elapsed()
}

fn main() {
    let mut tables = cluster();
    let mut times = vec![Vec::new(); 4];
    let mut last = Policies::default();
    for run in 0..RUNS {
        last = Policies::default();
        times[0].push(follow(&mut last, &tables, &PolicyChanges::default()));
        let fresh = name(1, format!("fresh{run}"));
        tables.policy.pods.insert(fresh.clone(), pod(PODS + run as u32, 3));
        let changes = PolicyChanges { pods: [fresh].into(), ..PolicyChanges::default() };
        times[1].push(follow(&mut last, &tables, &changes));
        let changes = PolicyChanges { policies: true, ..PolicyChanges::default() };
        put_policy(&mut tables, 400, 2000 + run as u32);
        times[2].push(follow(&mut last, &tables, &changes));
        put_policy(&mut tables, 1, 2000 + run as u32);
        times[3].push(follow(&mut last, &tables, &changes));
    }
    let rows: usize = last.state.rules.values().map(Vec::len).sum();
    println!(
        "{PODS} pods, {POLICIES} policies, {LOCAL} pods of this node: {} addresses that rules tell apart, {rows} rows",
        last.state.identities.len()
    );
    for (what, mut times) in [
        "everything",
        "a pod is added elsewhere",
        "a policy changes that selects no pod here",
        "a policy changes that selects one",
    ]
    .into_iter()
    .zip(times)
    {
        times.sort();
        println!("{what}: {:.3} ms", times[RUNS / 2].as_secs_f64() * 1000.0);
    }
}
