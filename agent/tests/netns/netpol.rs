//! Upstream's cases of `netpol` on packets: the pods are links, the policies go through reconciler and maps, and whether one
//! pod reaches another is what the programs do with the first packet, over both families.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use agent::kernel::trial::Trial;
use agent::oracle::{Ask, Client, Packet};
use agent::probe::{self, Live};
use agent::sources::kube::learn;
use agent::tables::{ObjectName, Protocol, Snapshot};
use serde_json::{Value, json};

use crate::cases::{self, CASES, NAMESPACES, Reach, Stage, all_pods};
use crate::world::{Clients, NodeWorld, World, allowed};

/// Every pod is on the first node, after its own.
struct Node<'a> {
    node: &'a mut NodeWorld,
    /// Places among the node's pods.
    pods: BTreeMap<String, usize>,
    applied: Vec<ObjectName>,
}

fn named(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// An object as its watch would read it.
fn read(kind: &str, object: Value) -> Snapshot {
    let mut rows = Snapshot::default();
    assert!(learn(&mut rows, kind, object).unwrap());
    rows
}

impl Node<'_> {
    fn reset(&mut self) {
        for name in std::mem::take(&mut self.applied) {
            self.node.tables.put_policy(name, None);
        }
        NAMESPACES.iter().for_each(|namespace| self.tell_namespace(namespace, &json!({})));
        all_pods().iter().for_each(|pod| self.tell_pod(pod, &json!({})));
        self.node.round();
    }

    fn tell_namespace(&self, namespace: &str, more: &Value) {
        let mut labels = json!({ "ns": namespace, "kubernetes.io/metadata.name": namespace });
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let rows = read("Namespace", json!({ "metadata": { "name": namespace, "labels": labels } }));
        self.node.tables.put_namespace(namespace.to_owned(), rows.policy.namespaces.get(namespace).cloned());
    }

    fn tell_pod(&self, pod: &str, more: &Value) {
        let name = named(pod);
        let mut labels = json!({ "pod": name.name });
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let port = |(protocol, number): (&str, u16)| {
            let port_name = format!("serve-{number}-{}", protocol.to_lowercase());
            json!({ "name": port_name, "containerPort": number, "protocol": protocol })
        };
        let all = ["TCP", "UDP", "SCTP"].into_iter().flat_map(|protocol| [(protocol, 80), (protocol, 81)]);
        let ports: Vec<Value> = all.map(port).collect();
        let ips = self.addresses(pod).map(|ip| json!({ "ip": ip }));
        let object = json!({
            "metadata": { "namespace": name.namespace, "name": name.name, "labels": labels },
            "spec": { "containers": [{ "ports": ports }] },
            "status": { "phase": "Running", "podIPs": ips },
        });
        let row = Arc::clone(&read("Pod", object).policy.pods[&name]);
        self.node.tables.put_cluster_pod(name, Some(row));
    }

    /// What the programs do with the first packet of a flow.
    fn first_packet(&self, trial: &Trial, from: &str, (src, dst): (IpAddr, IpAddr), ask: Ask) -> Live {
        let packet = Packet { client: Client::Pod, src, dst, ask };
        let link = self.node.link(self.pods[from]);
        self.node.namespace.run(|| {
            let index = nix::net::if_::if_nametoindex(link.as_str()).expect("the device exists");
            probe::ask(trial, &packet, index).expect("the program runs")
        })
    }
}

impl Stage for Node<'_> {
    fn apply(&mut self, namespace: &str, name: &str, spec: Value) {
        let key = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        let object = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec });
        let row = Arc::clone(&read("NetworkPolicy", object).policy.policies[&key]);
        self.node.tables.put_policy(key.clone(), Some(row));
        self.applied.push(key);
        self.node.round();
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        let key = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        self.node.tables.put_policy(key, None);
        self.node.round();
    }

    fn label(&mut self, pod: &str, more: &Value) {
        self.tell_pod(pod, more);
        self.node.round();
    }

    fn label_namespace(&mut self, namespace: &str, more: &Value) {
        self.tell_namespace(namespace, more);
        self.node.round();
    }

    fn addresses(&self, pod: &str) -> [IpAddr; 2] {
        self.node.pods[self.pods[pod]].addresses.clone().try_into().unwrap()
    }

    fn check(&mut self, reach: &Reach, protocol: cases::Protocol, port: u16) {
        let own = match protocol {
            cases::Protocol::Tcp => Protocol::Tcp,
            cases::Protocol::Udp => Protocol::Udp,
            cases::Protocol::Sctp => Protocol::Sctp,
        };
        let trial = Trial::new(&self.node.pins());
        for (from, to, want) in reach.expected().filter(|(from, to, _)| from != to) {
            for ends in self.addresses(&from).into_iter().zip(self.addresses(&to)) {
                let live = self.first_packet(&trial, &from, ends, Ask::Port(own, port));
                let passes = !matches!(live, Live::Dropped(_));
                assert_eq!(passes, want, "{from} to {to} {protocol:?} {port}, {ends:?}: {live:?}");
            }
        }
    }
}

#[test]
fn every_case_of_upstream_holds_on_packets() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    let mut pods = BTreeMap::new();
    for text in all_pods() {
        let place = node.pods.len();
        node.add_pod_of(&named(&text), place);
        pods.insert(text, place);
    }
    let mut stage = Node { node, pods, applied: Vec::new() };
    for case in CASES {
        println!("{}", case.title);
        stage.reset();
        (case.play)(&mut stage);
    }
}
