//! Rules 1 to 3: which endpoints take new flows.

use std::sync::Arc;

use agent::oracle::Outcome;
use agent::tables::{Protocol, ServicePort, Slice, SliceEndpoint};

use crate::cluster::*;

const ASK: &str = "10.96.0.10:80";

#[test]
fn rule_1_terminating_endpoints_serve_only_when_none_is_ready() {
    let cluster = Cluster::new(vec![ready(FAR), leaving(FAR2, true)]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]));
    let cluster = Cluster::new(vec![leaving(FAR, true), leaving(FAR2, false)]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]), "one that does not serve any more is gone");
    let cluster = Cluster::new(vec![SliceEndpoint { ready: false, terminating: false, ..ready(FAR) }]);
    assert_eq!(cluster.pod_asks(ASK), NOBODY, "serving alone, without terminating, is not enough");
}

#[test]
fn rule_1_each_set_falls_back_by_itself() {
    let cluster = Cluster::new(vec![ready(FAR), leaving(OTHER, true)]).web(|web| web.internal_local = true);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[OTHER]), "the local set has nobody who is ready");
    let cluster = cluster.web(|web| web.internal_local = false);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]), "the cluster has somebody");
}

#[test]
fn rule_2_zones_count_when_every_ready_endpoint_has_a_hint_and_one_is_ours() {
    let near = hinted(FAR, &["a"], &[]);
    let cluster = Cluster::new(vec![near.clone(), hinted(FAR2, &["b"], &[])]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]));
    let cluster = Cluster::new(vec![near.clone(), ready(FAR2)]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR, FAR2]), "one hint is missing");
    let cluster = Cluster::new(vec![hinted(FAR, &["b"], &[]), hinted(FAR2, &["c"], &[])]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR, FAR2]), "none is for this zone");
    let not_ready = SliceEndpoint { ready: false, ..ready(OTHER) };
    let cluster = Cluster::new(vec![near, hinted(FAR2, &["b"], &[]), not_ready]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]), "who is not ready has no say");
}

#[test]
fn rule_2_nodes_come_before_zones_and_without_a_zone_there_is_none() {
    let ours = hinted(OTHER, &["a"], &["n1"]);
    let cluster = Cluster::new(vec![ours.clone(), hinted(FAR, &["a"], &["n2"])]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[OTHER]));
    let cluster = Cluster::new(vec![hinted(FAR, &["a"], &["n2"]), hinted(FAR2, &["b"], &["n2"])]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]), "no node hint is ours, a zone hint is");
    let mut cluster = Cluster::new(vec![hinted(FAR, &["a"], &[]), hinted(FAR2, &["b"], &[])]);
    cluster.tables.nodes.clear();
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR, FAR2]));
}

#[test]
fn rule_2_the_local_set_and_the_terminating_ones_know_no_topology() {
    let cluster = Cluster::new(vec![hinted(OTHER, &["b"], &["n2"]), hinted(FAR, &["a"], &["n2"])])
        .web(|web| web.internal_local = true);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[OTHER]));
    let gone = SliceEndpoint { ready: false, terminating: true, ..hinted(FAR, &["b"], &[]) };
    let also = SliceEndpoint { ready: false, terminating: true, ..hinted(FAR2, &["a"], &[]) };
    let cluster = Cluster::new(vec![gone, also]);
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR, FAR2]));
}

#[test]
fn rule_3_local_services_know_whether_anybody_is_elsewhere() {
    let cluster = Cluster::new(vec![leaving(FAR, true)]).web(|web| web.internal_local = true);
    assert_eq!(cluster.pod_asks(ASK), NOT_HERE);
    let cluster = Cluster::new(vec![leaving(FAR, false)]).web(|web| web.internal_local = true);
    assert_eq!(cluster.pod_asks(ASK), NOBODY);
}

#[test]
fn ports_are_found_by_name_and_protocol_and_may_differ_from_slice_to_slice() {
    let mut cluster = Cluster::new(Vec::new()).web(|web| {
        let port =
            |name: &str, port, protocol| ServicePort { name: name.into(), port, protocol, node_port: None };
        web.ports = vec![port("http", 80, Protocol::Tcp), port("dns", 80, Protocol::Udp)];
    });
    for (number, (address, port)) in [(FAR, 8080), (FAR2, 9090)].into_iter().enumerate() {
        let slice = Slice {
            service: "web".into(),
            endpoints: vec![ready(address)],
            ports: vec![("http".into(), Protocol::Tcp, port), ("dns".into(), Protocol::Tcp, 53)],
        };
        cluster.tables.slices.insert(name(&format!("web-{number}")), Arc::new(slice));
    }
    let Outcome::Forwarded(to) = cluster.pod_asks(ASK) else { panic!("forwarded") };
    let got: Vec<String> = to.backends.keys().map(ToString::to_string).collect();
    assert_eq!(got, ["10.244.2.2:8080", "10.244.2.3:9090"]);
}

#[test]
fn an_endpoint_in_two_slices_is_one_and_a_slice_of_another_namespace_none() {
    let mut cluster = Cluster::new(vec![ready(FAR), ready(FAR)]);
    let slice = cluster.tables.slices[&name("web-1")].clone();
    let mut elsewhere = name("web-1");
    elsewhere.namespace = "other".into();
    let foreign = Slice { endpoints: vec![ready(FAR2)], ..(*slice).clone() };
    cluster.tables.slices.insert(name("web-2"), slice);
    cluster.tables.slices.insert(elsewhere, Arc::new(foreign));
    assert_eq!(backends(&cluster.pod_asks(ASK)), set(&[FAR]));
}

#[test]
fn weight_zero_takes_no_new_flows() {
    let weigh = |weights: &[(&str, u16)]| {
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        Cluster::new(vec![ready(FAR), ready(OTHER)]).web(|web| web.weights = weights)
    };
    assert_eq!(backends(&weigh(&[(FAR, 0)]).pod_asks(ASK)), set(&[OTHER]), "by address");
    assert_eq!(backends(&weigh(&[("n2", 0)]).pod_asks(ASK)), set(&[OTHER]), "by node");
    assert_eq!(backends(&weigh(&[(FAR, 3)]).pod_asks(ASK)), set(&[FAR, OTHER]));
    assert_eq!(weigh(&[("n1", 0), ("n2", 0)]).pod_asks(ASK), NOBODY);
}
