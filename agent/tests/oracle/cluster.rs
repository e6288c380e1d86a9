//! A cluster in words: node `n1` asks, pods are 10.244.N.x on node N, `web` is at [`VIP`].

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use abi::drops::Drop;
use agent::desired::NodeFacts;
use agent::oracle::{Ask, Client, Here, Kind, Outcome, Packet, Set, Way, decide};
use agent::tables::{
    Endpoint, Hints, Node, ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint, Snapshot,
};
use ipnetwork::IpNetwork;

pub const VIP: &str = "10.96.0.10";
pub const VIP6: &str = "fd00:96::a";
pub const NODE: &str = "192.0.2.1";
pub const BALANCER: &str = "203.0.113.10";
pub const EXTERNAL: &str = "198.51.100.7";
/// A client outside, a pod of this node, one of the other node.
pub const STRANGER: &str = "192.0.2.100";
pub const POD: &str = "10.244.1.2";
pub const OTHER: &str = "10.244.1.3";
pub const FAR: &str = "10.244.2.2";
pub const FAR2: &str = "10.244.2.3";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

pub struct Cluster {
    pub tables: Snapshot,
    pub facts: NodeFacts,
}

impl Cluster {
    /// `web` with these endpoints, reachable in every way.
    pub fn new(endpoints: Vec<SliceEndpoint>) -> Self {
        let mut tables = Snapshot::default();
        let web = Service {
            cluster_ips: vec![ip(VIP), ip(VIP6)],
            external_ips: vec![ip(EXTERNAL)],
            load_balancer_ips: vec![ip(BALANCER)],
            ports: vec![ServicePort { port: 80, node_port: Some(30080), ..ServicePort::default() }],
            ..Service::default()
        };
        let slice =
            Slice { service: "web".into(), endpoints, ports: vec![(String::new(), Protocol::Tcp, 8080)] };
        tables.services.insert(name("web"), Arc::new(web));
        tables.slices.insert(name("web-1"), Arc::new(slice));
        let zone = |zone: &str| Arc::new(Node { zone: Some(zone.into()), ..Node::default() });
        tables.nodes.insert("n1".into(), zone("a"));
        tables.nodes.insert("n2".into(), zone("b"));
        for address in [POD, OTHER] {
            let pod = Endpoint {
                container_id: address.into(),
                ifname: "eth0".into(),
                netns_path: "/proc/1/ns/net".into(),
                pod_namespace: "default".into(),
                pod_name: address.into(),
                addresses: vec![ip(address)],
                ..Endpoint::default()
            };
            tables.endpoints.insert(pod.id(), pod);
        }
        let facts = NodeFacts {
            name: "n1".into(),
            addresses: vec![ip(NODE), ip("2001:db8::1")],
            ..NodeFacts::default()
        };
        Self { tables, facts }
    }

    /// Changes `web`.
    pub fn web(mut self, change: impl FnOnce(&mut Service)) -> Self {
        change(Arc::make_mut(self.tables.services.get_mut(&name("web")).unwrap()));
        self
    }

    pub fn ask(&self, client: Client, src: &str, to: &str) -> Outcome {
        let to: SocketAddr = to.parse().unwrap();
        self.packet(client, src, to.ip(), Ask::Port(Protocol::Tcp, to.port()))
    }

    pub fn packet(&self, client: Client, src: &str, dst: IpAddr, ask: Ask) -> Outcome {
        let services: [IpNetwork; 2] = ["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()];
        let here = Here { facts: &self.facts, services: &services };
        decide(&self.tables, here, &Packet { client, src: ip(src), dst, ask })
    }

    pub fn pod_asks(&self, to: &str) -> Outcome {
        self.ask(Client::Pod, POD, to)
    }

    pub fn host_asks(&self, to: &str) -> Outcome {
        self.ask(Client::Host, NODE, to)
    }

    pub fn outsider_asks(&self, to: &str) -> Outcome {
        self.ask(Client::Outside, STRANGER, to)
    }
}

/// A ready endpoint; its node follows from its address.
pub fn ready(address: &str) -> SliceEndpoint {
    let node = if address.starts_with("10.244.1.") || address == NODE { "n1" } else { "n2" };
    SliceEndpoint { node: Some(node.into()), ..SliceEndpoint::new(ip(address)) }
}

/// One that terminates, and still serves or not.
pub fn leaving(address: &str, serving: bool) -> SliceEndpoint {
    SliceEndpoint { ready: false, serving, terminating: true, ..ready(address) }
}

pub fn hinted(address: &str, zones: &[&str], nodes: &[&str]) -> SliceEndpoint {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    SliceEndpoint { hints: Hints::new(words(zones), words(nodes)), ..ready(address) }
}

/// The backends' addresses, without what else is known.
pub fn backends(outcome: &Outcome) -> BTreeSet<String> {
    match outcome {
        Outcome::Forwarded(to) => to.backends.keys().map(|to| to.ip().to_string()).collect(),
        other => panic!("forwarded, not {other:?}"),
    }
}

pub fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|&address| address.to_owned()).collect()
}

pub fn way(outcome: &Outcome) -> Way {
    match outcome {
        Outcome::Forwarded(to) => *to.backends.values().next().unwrap(),
        other => panic!("forwarded, not {other:?}"),
    }
}

pub fn kind(outcome: &Outcome) -> (Kind, Set) {
    match outcome {
        Outcome::Forwarded(to) => (to.kind, to.set),
        other => panic!("forwarded, not {other:?}"),
    }
}

pub const NOBODY: Outcome = Outcome::Refused(Drop::NoBackend);
pub const NOT_HERE: Outcome = Outcome::Dropped(Drop::NoLocalBackend);
