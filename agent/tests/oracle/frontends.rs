//! Rules 10, 11 and 15: which addresses and ports are services.

use abi::drops::Drop;
use agent::desired::NodePortAddresses;
use agent::oracle::{Ask, Client, Kind, Outcome, Set, Way};
use agent::tables::{HostPort, Protocol, ServicePort};

use crate::cluster::*;

#[test]
fn every_kind_of_frontend_is_found() {
    let cluster = Cluster::new(vec![ready(FAR)]);
    for (to, want) in [
        ("10.96.0.10:80", Kind::ClusterIp),
        ("203.0.113.10:80", Kind::LoadBalancer),
        ("198.51.100.7:80", Kind::ExternalIp),
        ("192.0.2.1:30080", Kind::NodePort),
    ] {
        assert_eq!(kind(&cluster.pod_asks(to)), (want, Set::Cluster), "{to}");
        assert_eq!(kind(&cluster.outsider_asks(to)), (want, Set::Cluster), "{to}");
    }
}

#[test]
fn protocols_are_ports_of_their_own() {
    let cluster = Cluster::new(vec![ready(FAR)]);
    let asked = |protocol| cluster.packet(Client::Pod, POD, ip(VIP), Ask::Port(protocol, 80));
    assert_eq!(backends(&asked(Protocol::Tcp)), set(&[FAR]));
    assert_eq!(asked(Protocol::Udp), Outcome::Refused(Drop::UnknownPort));
    assert_eq!(asked(Protocol::Sctp), Outcome::Refused(Drop::UnknownPort));
}

#[test]
fn rule_10_node_ports_answer_on_the_nodes_own_addresses_unless_told_otherwise() {
    let mut cluster = Cluster::new(vec![ready(FAR)]);
    cluster.tables.host_addresses = [NODE, "172.16.0.1", "127.0.0.1"].map(ip).into();
    assert_eq!(backends(&cluster.outsider_asks("192.0.2.1:30080")), set(&[FAR]));
    assert_eq!(cluster.outsider_asks("172.16.0.1:30080"), Outcome::NotAService);
    assert_eq!(cluster.outsider_asks("192.0.2.2:30080"), Outcome::NotAService, "another node's");
    cluster.facts.nodeport = NodePortAddresses::Within(vec!["172.16.0.0/12".parse().unwrap()]);
    assert_eq!(cluster.outsider_asks("192.0.2.1:30080"), Outcome::NotAService);
    assert_eq!(backends(&cluster.outsider_asks("172.16.0.1:30080")), set(&[FAR]));
    assert_eq!(cluster.outsider_asks("172.16.0.2:30080"), Outcome::NotAService, "no address of this host");
}

#[test]
fn rule_10_the_loopback_answers_the_hosts_own_sockets() {
    let cluster = Cluster::new(vec![ready(FAR)]);
    assert_eq!(backends(&cluster.ask(Client::Host, "127.0.0.1", "127.0.0.1:30080")), set(&[FAR]));
    assert_eq!(cluster.pod_asks("127.0.0.1:30080"), Outcome::NotAService);
    assert_eq!(cluster.outsider_asks("127.0.0.1:30080"), Outcome::NotAService);
    assert_eq!(cluster.ask(Client::Host, "127.0.0.1", "127.0.0.1:80"), Outcome::NotAService);
}

#[test]
fn rule_11_unknown_ports_are_refused_unknown_addresses_dropped() {
    let cluster = Cluster::new(vec![ready(FAR)]);
    assert_eq!(cluster.pod_asks("10.96.0.10:81"), Outcome::Refused(Drop::UnknownPort));
    for to in ["203.0.113.10:81", "198.51.100.7:81"] {
        assert_eq!(cluster.pod_asks(to), Outcome::NotAService, "{to} may be somebody else's as well");
    }
    assert_eq!(cluster.pod_asks("10.96.77.1:80"), Outcome::Dropped(Drop::Unallocated));
    assert_eq!(cluster.host_asks("[fd00:96::77]:80"), Outcome::Dropped(Drop::Unallocated));
    assert_eq!(cluster.pod_asks("10.97.0.1:80"), Outcome::NotAService);
    assert_eq!(
        cluster.outsider_asks("192.0.2.1:22"),
        Outcome::NotAService,
        "the host's own ports are its own"
    );
}

#[test]
fn rule_11_an_external_address_that_is_the_hosts_keeps_the_hosts_ports() {
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.external_ips = vec![ip(NODE)]);
    assert_eq!(backends(&cluster.outsider_asks("192.0.2.1:80")), set(&[FAR]));
    assert_eq!(cluster.outsider_asks("192.0.2.1:22"), Outcome::NotAService);
}

#[test]
fn virtual_addresses_answer_pings_and_unallocated_ones_do_not() {
    let cluster = Cluster::new(Vec::new());
    let ping = |to| cluster.packet(Client::Pod, POD, ip(to), Ask::Echo);
    assert_eq!(ping(VIP), Outcome::Echo);
    assert_eq!(ping(BALANCER), Outcome::Echo);
    assert_eq!(ping("10.96.77.1"), Outcome::Dropped(Drop::Unallocated));
    assert_eq!(ping(NODE), Outcome::NotAService);
    assert_eq!(ping(FAR), Outcome::NotAService);
}

#[test]
fn rule_15_headless_services_and_missing_families_are_nothing() {
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.cluster_ips.clear());
    assert_eq!(cluster.outsider_asks("192.0.2.1:30080"), Outcome::NotAService);
    assert_eq!(cluster.pod_asks("203.0.113.10:80"), Outcome::NotAService);
    let cluster = Cluster::new(vec![ready(FAR)]).web(|web| web.cluster_ips = vec![ip(VIP)]);
    assert_eq!(cluster.outsider_asks("[2001:db8::1]:30080"), Outcome::NotAService);
}

#[test]
fn a_pods_host_port_leads_to_it_alone() {
    let port = |host_ip: Option<&str>, number| HostPort {
        host_ip: host_ip.map(ip),
        host_port: number,
        container_port: 8080,
        protocol: Protocol::Tcp,
    };
    let mut cluster = Cluster::new(vec![ready(FAR)]);
    let pod = cluster.tables.endpoints.values_mut().find(|pod| pod.pod_name == POD).unwrap();
    pod.host_ports = vec![
        port(None, 9000),
        port(Some("127.0.0.1"), 9001),
        port(Some("172.16.0.1"), 9002),
        port(None, 30080),
    ];
    let outcome = cluster.outsider_asks("192.0.2.1:9000");
    assert_eq!((kind(&outcome), way(&outcome)), ((Kind::HostPort, Set::Cluster), Way::Kept));
    assert_eq!(backends(&outcome), set(&[POD]));
    assert_eq!(way(&cluster.pod_asks("192.0.2.1:9000")), Way::Hidden, "of itself");
    assert_eq!(backends(&cluster.ask(Client::Host, "127.0.0.1", "127.0.0.1:9001")), set(&[POD]));
    assert_eq!(cluster.pod_asks("127.0.0.1:9001"), Outcome::NotAService);
    assert_eq!(backends(&cluster.outsider_asks("172.16.0.1:9002")), set(&[POD]), "of the address it names");
    assert_eq!(cluster.outsider_asks("192.0.2.1:9002"), Outcome::NotAService);
    assert_eq!(
        cluster.outsider_asks("[2001:db8::1]:9000"),
        Outcome::NotAService,
        "the pod has no such family"
    );
    assert_eq!(kind(&cluster.outsider_asks("192.0.2.1:30080")).0, Kind::NodePort, "a service was here first");
}

#[test]
fn both_families_have_their_own_backends() {
    let six = agent::tables::SliceEndpoint::new(ip("fd00:244:0:2::2"));
    let cluster = Cluster::new(vec![ready(FAR), six]);
    assert_eq!(backends(&cluster.pod_asks("10.96.0.10:80")), set(&[FAR]));
    assert_eq!(
        backends(&cluster.ask(Client::Pod, "fd00:244:0:1::2", "[fd00:96::a]:80")),
        set(&["fd00:244:0:2::2"])
    );
}

#[test]
fn a_virtual_address_wins_over_a_node_port() {
    let mut cluster = Cluster::new(vec![ready(FAR)]);
    let other = agent::tables::Service {
        cluster_ips: vec![ip("10.96.0.11")],
        external_ips: vec![ip(NODE)],
        ports: vec![ServicePort { port: 30080, ..ServicePort::default() }],
        ..agent::tables::Service::default()
    };
    cluster.tables.services.insert(name("zz"), std::sync::Arc::new(other));
    assert_eq!(cluster.outsider_asks("192.0.2.1:30080"), NOBODY, "`zz` has nobody, and is asked");
}
