//! Rules 4 to 9: who may go where, and under which address.

use abi::drops::Drop;
use agent::oracle::{Client, Kind, Outcome, Set, Way};
use agent::tables::ServicePort;

use crate::cluster::*;

const EXTERNALS: [&str; 3] = ["192.0.2.1:30080", "203.0.113.10:80", "198.51.100.7:80"];

#[test]
fn rule_4_nobody_anywhere_is_refused_on_every_frontend() {
    let cluster = Cluster::new(Vec::new());
    for to in ["10.96.0.10:80", EXTERNALS[0], EXTERNALS[1], EXTERNALS[2]] {
        assert_eq!(cluster.pod_asks(to), NOBODY, "{to}");
        assert_eq!(cluster.host_asks(to), NOBODY, "{to}");
        assert_eq!(cluster.outsider_asks(to), NOBODY, "{to}");
    }
}

#[test]
fn rule_4_internal_local_without_a_local_one_drops() {
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.internal_local = true);
    assert_eq!(cluster.pod_asks("10.96.0.10:80"), NOT_HERE);
    assert_eq!(cluster.host_asks("10.96.0.10:80"), NOT_HERE);
    assert_eq!(cluster.outsider_asks("10.96.0.10:80"), NOT_HERE);
    assert_eq!(backends(&cluster.outsider_asks(EXTERNALS[0])), set(&[FAR]), "external addresses do not care");
}

#[test]
fn rule_4_external_local_without_a_local_one_drops_outsiders() {
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.external_local = true);
    for to in EXTERNALS {
        assert_eq!(cluster.outsider_asks(to), NOT_HERE, "{to}");
    }
    assert_eq!(
        backends(&cluster.pod_asks("10.96.0.10:80")),
        set(&[FAR]),
        "the virtual address does not care"
    );
}

#[test]
fn rule_5_inside_takes_a_short_cut_to_the_whole_cluster() {
    let cluster = Cluster::new(vec![ready(FAR), ready(OTHER)]).web(|web| web.external_local = true);
    for to in EXTERNALS {
        assert_eq!(backends(&cluster.pod_asks(to)), set(&[FAR, OTHER]), "{to}");
        assert_eq!(backends(&cluster.host_asks(to)), set(&[FAR, OTHER]), "{to}");
        assert_eq!(backends(&cluster.outsider_asks(to)), set(&[OTHER]), "{to}");
    }
    assert_eq!(way(&cluster.outsider_asks(EXTERNALS[0])), Way::Kept, "local backends see the client");
    assert_eq!(way(&cluster.pod_asks(EXTERNALS[0])), Way::Kept);
}

#[test]
fn rule_5_outsiders_of_the_whole_cluster_are_hidden_from_backends_elsewhere() {
    let cluster = Cluster::new(vec![ready(FAR), ready(OTHER)]);
    let Outcome::Forwarded(to) = cluster.outsider_asks(EXTERNALS[0]) else { panic!("forwarded") };
    let ways: Vec<(String, Way)> = to.backends.iter().map(|(to, way)| (to.ip().to_string(), *way)).collect();
    // kube-proxy hides in both cases; a backend on this node answers through this node anyway.
    assert_eq!(ways, [(OTHER.to_owned(), Way::Kept), (FAR.to_owned(), Way::Hidden)]);
}

#[test]
fn rule_6_outsiders_reach_the_virtual_address_hidden() {
    let cluster = Cluster::new(vec![ready(FAR)]);
    let outcome = cluster.outsider_asks("10.96.0.10:80");
    assert_eq!((kind(&outcome), way(&outcome)), ((Kind::ClusterIp, Set::Cluster), Way::Hidden));
    assert_eq!(way(&cluster.pod_asks("10.96.0.10:80")), Way::Kept);
}

#[test]
fn rule_7_a_pod_that_asks_itself_is_hidden_from_itself() {
    let cluster = Cluster::new(vec![ready(POD)]);
    assert_eq!(way(&cluster.pod_asks("10.96.0.10:80")), Way::Hidden);
    assert_eq!(way(&cluster.ask(Client::Pod, OTHER, "10.96.0.10:80")), Way::Kept);
}

#[test]
fn a_backend_in_the_hosts_network_is_on_this_node() {
    let cluster = Cluster::new(vec![ready(NODE)]);
    assert_eq!(way(&cluster.outsider_asks(EXTERNALS[0])), Way::Kept);
}

#[test]
fn rule_8_source_ranges_guard_load_balancers_addresses_and_nothing_else() {
    let cluster =
        Cluster::new(vec![ready(FAR)]).web(|web| web.source_ranges = vec!["192.0.2.64/26".parse().unwrap()]);
    let miss = Outcome::Dropped(Drop::SourceRange);
    assert_eq!(backends(&cluster.outsider_asks(EXTERNALS[1])), set(&[FAR]), "inside the range");
    assert_eq!(cluster.ask(Client::Outside, "192.0.2.7", EXTERNALS[1]), miss);
    assert_eq!(cluster.pod_asks(EXTERNALS[1]), miss, "pods are no exception");
    assert_eq!(cluster.host_asks(EXTERNALS[1]), miss, "nor is the node");
    for to in ["10.96.0.10:80", EXTERNALS[0], EXTERNALS[2]] {
        assert_eq!(backends(&cluster.ask(Client::Outside, "192.0.2.7", to)), set(&[FAR]), "{to}");
    }
    let cluster = cluster
        .web(|web| web.ports.push(ServicePort { port: 81, name: "x".into(), ..ServicePort::default() }));
    assert_eq!(cluster.pod_asks("203.0.113.10:81"), miss, "before anybody asks for backends");
}

#[test]
fn rule_8_families_are_apart_and_zero_opens_one() {
    let balancer6 = |web: &mut agent::tables::Service| web.load_balancer_ips.push(ip("2001:db8:ff::1"));
    let far6 = agent::tables::SliceEndpoint {
        node: Some("n2".into()),
        ..agent::tables::SliceEndpoint::new(ip("fd00:244:0:2::2"))
    };
    let cluster = Cluster::new(vec![ready(FAR), far6])
        .web(balancer6)
        .web(|web| web.source_ranges = vec!["10.0.0.0/8".parse().unwrap()]);
    let to = "[2001:db8:ff::1]:80";
    assert_eq!(backends(&cluster.ask(Client::Outside, "2001:db8::100", to)), set(&["fd00:244:0:2::2"]));
    let cluster = cluster.web(|web| web.source_ranges.push("0.0.0.0/0".parse().unwrap()));
    assert_eq!(backends(&cluster.outsider_asks(EXTERNALS[1])), set(&[FAR]));
}

#[test]
fn rule_8_a_node_inside_may_ask_with_the_address_itself() {
    let cluster =
        Cluster::new(vec![ready(FAR)]).web(|web| web.source_ranges = vec!["192.0.2.1/32".parse().unwrap()]);
    assert_eq!(backends(&cluster.ask(Client::Host, BALANCER, EXTERNALS[1])), set(&[FAR]));
    let cluster = cluster.web(|web| web.source_ranges = vec!["192.0.2.9/32".parse().unwrap()]);
    let miss = Outcome::Dropped(Drop::SourceRange);
    assert_eq!(cluster.ask(Client::Host, BALANCER, EXTERNALS[1]), miss);
}

#[test]
fn rule_9_affinity_is_the_services_on_every_address() {
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.affinity = 60);
    for to in ["10.96.0.10:80", EXTERNALS[0], EXTERNALS[1], EXTERNALS[2]] {
        let Outcome::Forwarded(to) = cluster.pod_asks(to) else { panic!("forwarded") };
        assert_eq!(to.affinity, 60);
    }
}

#[test]
fn dsr_replaces_hiding_and_nothing_else() {
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.dsr = true);
    assert_eq!(way(&cluster.outsider_asks(EXTERNALS[1])), Way::Tunnelled);
    assert_eq!(way(&cluster.pod_asks(EXTERNALS[1])), Way::Kept);
    let cluster = Cluster::new(vec![ready(OTHER)]).web(|web| web.dsr = true);
    assert_eq!(way(&cluster.outsider_asks(EXTERNALS[1])), Way::Kept);
}
