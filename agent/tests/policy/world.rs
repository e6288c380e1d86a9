//! A cluster in words: namespaces `x`, `y`, `z`, in each the pods `a`, `b`, `c`, that serve ports 80 and 81 of every protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent::desired::policy::lookup::Asked;
use agent::desired::policy::{Policed, Policies};
use agent::oracle::policy::{Cluster, Flow, decide};
use agent::sources::kube::learn;
use agent::tables::Protocol::{self, Sctp, Tcp, Udp};
use agent::tables::{Endpoint, EndpointId, ObjectName, PolicyChanges, Snapshot, Source};
use serde_json::{Value, json};

use crate::cases::{self, NAMESPACES, PODS, Reach, Stage, all_pods};

/// The cluster, with the compiler that follows it.
pub struct World {
    pub tables: Snapshot,
    pub policies: Policies,
    labels: BTreeMap<String, Value>,
}

/// Namespace and name.
pub fn pod(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The IPv4 address of a pod.
pub fn address(text: &str) -> IpAddr {
    addresses(text)[0]
}

/// Both addresses of a pod.
pub fn addresses(text: &str) -> [IpAddr; 2] {
    let name = pod(text);
    let place = |list: &[&str], one: &str| list.iter().position(|known| *known == one).unwrap();
    let (third, last) = (place(&NAMESPACES, &name.namespace) + 1, place(&PODS, &name.name) + 1);
    [format!("10.244.{third}.{last}").parse().unwrap(), format!("fd00:244::{third}:{last}").parse().unwrap()]
}

impl World {
    pub fn new() -> Self {
        let mut world =
            Self { tables: Snapshot::default(), policies: Policies::default(), labels: BTreeMap::new() };
        world.tables.synced = BTreeSet::from([
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
            Source::Nodes,
        ]);
        for namespace in NAMESPACES {
            world.label_namespace(namespace, &json!({}));
        }
        for text in all_pods() {
            let name = pod(&text);
            world.label(&text, &json!({}));
            let endpoint = Endpoint {
                container_id: text.clone(),
                ifname: "eth0".into(),
                pod_namespace: name.namespace,
                pod_name: name.name,
                addresses: addresses(&text).to_vec(),
                ..Endpoint::default()
            };
            world.tables.endpoints.insert(endpoint.id(), endpoint);
        }
        world.follow();
        world
    }

    /// More labels for a namespace, beside its name.
    pub fn label_namespace(&mut self, namespace: &str, more: &Value) {
        let mut labels = json!({ "ns": namespace, "kubernetes.io/metadata.name": namespace });
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.learn("Namespace", json!({ "metadata": { "name": namespace, "labels": labels } }));
    }

    /// More labels for a pod, beside its name.
    pub fn label(&mut self, text: &str, more: &Value) {
        let name = pod(text);
        let mut labels = json!({ "pod": name.name });
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.labels.insert(text.to_owned(), labels.clone());
        let port = |(protocol, number): (Protocol, u16)| {
            let upper = format!("{protocol:?}").to_uppercase();
            let port_name = format!("serve-{number}-{}", upper.to_lowercase());
            json!({ "name": port_name, "containerPort": number, "protocol": upper })
        };
        let all = [Tcp, Udp, Sctp].into_iter().flat_map(|protocol| [(protocol, 80), (protocol, 81)]);
        let ports: Vec<Value> = all.map(port).collect();
        let ips: Vec<Value> = addresses(text).iter().map(|ip| json!({ "ip": ip })).collect();
        self.learn(
            "Pod",
            json!({
                "metadata": { "namespace": name.namespace, "name": name.name, "labels": labels },
                "spec": { "containers": [{ "ports": ports }] },
                "status": { "phase": "Running", "podIPs": ips },
            }),
        );
    }

    /// Adds or replaces a node.
    pub fn add_node(&mut self, name: &str, labels: &Value, addresses: &[(&str, &str)]) {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({ "type": kind, "address": address })).collect();
        let metadata = json!({ "name": name, "labels": labels });
        self.learn("Node", json!({ "metadata": metadata, "status": { "addresses": addresses } }));
    }

    /// Takes a node away.
    pub fn remove_node(&mut self, name: &str) {
        self.tables.nodes.remove(name).unwrap();
        self.follow();
    }

    /// Adds or replaces a policy.
    pub fn apply(&mut self, namespace: &str, name: &str, spec: Value) {
        self.learn(
            "NetworkPolicy",
            json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec }),
        );
    }

    /// Adds or replaces a ClusterNetworkPolicy.
    pub fn apply_cluster(&mut self, name: &str, spec: Value) {
        self.learn("ClusterNetworkPolicy", json!({ "metadata": { "name": name }, "spec": spec }));
    }

    pub fn delete(&mut self, namespace: &str, name: &str) {
        let name = ObjectName { namespace: namespace.into(), name: name.into() };
        self.tables.policy.policies.remove(&name).unwrap();
        self.follow();
    }

    fn learn(&mut self, kind: &str, object: Value) {
        assert!(learn(&mut self.tables, kind, object).unwrap());
        self.follow();
    }

    /// Compiles what changed.
    pub fn follow(&mut self) {
        let changes = PolicyChanges {
            policies: true,
            namespaces: true,
            pods: self.tables.policy.pods.keys().cloned().collect(),
        };
        self.policies.update(&self.tables, &changes, false, &BTreeSet::new());
        self.policies.settle(&self.tables);
    }

    fn cluster(&self) -> Cluster<'_> {
        static NOBODY: BTreeSet<IpAddr> = BTreeSet::new();
        Cluster { rows: &self.tables.policy, nodes: &self.tables.nodes, hosts: &NOBODY }
    }

    pub fn policed(&self, text: &str) -> Policed {
        let id = EndpointId { container_id: text.to_owned(), ifname: "eth0".into() };
        self.policies.state.endpoints[&id]
    }

    /// Whether a pod reaches another, by the oracle and by the rows, over both families, which have to agree.
    pub fn reaches(&self, from: &str, to: &str, protocol: Protocol, port: u16) -> bool {
        let answers: BTreeSet<bool> = addresses(from)
            .into_iter()
            .zip(addresses(to))
            .flat_map(|(source, target)| {
                let flow = Flow { from: source, to: target, port: Some((protocol, port)) };
                let oracle = decide(self.cluster(), flow).passes();
                let state = &self.policies.state;
                let (number, ends) =
                    (protocol.number(), ((self.policed(from), source), (self.policed(to), target)));
                [oracle, state.passes(ends.0, ends.1, number, port)]
            })
            .collect();
        assert_eq!(
            answers.len(),
            1,
            "{from} to {to} {protocol:?} {port}: oracle and rows, IPv4 and IPv6 differ"
        );
        answers.contains(&true)
    }

    /// Whether a pod may talk to an address outside, by the oracle and by the rows.
    pub fn reaches_outside(&self, from: &str, to: &str, port: u16) -> bool {
        let to: IpAddr = to.parse().unwrap();
        let from_address = addresses(from)[usize::from(!to.is_ipv4())];
        let flow = Flow { from: from_address, to, port: Some((Tcp, port)) };
        let oracle = decide(self.cluster(), flow).passes();
        let asked = Asked { peer: to, proto: 6, port };
        assert_eq!(
            self.policies.state.verdict(self.policed(from).egress, asked).allow,
            oracle,
            "{from} to {to}"
        );
        oracle
    }
}

impl Stage for World {
    fn apply(&mut self, namespace: &str, name: &str, spec: Value) {
        Self::apply(self, namespace, name, spec);
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        Self::delete(self, namespace, name);
    }

    fn label(&mut self, pod: &str, more: &Value) {
        Self::label(self, pod, more);
    }

    fn label_namespace(&mut self, namespace: &str, more: &Value) {
        Self::label_namespace(self, namespace, more);
    }

    fn addresses(&self, pod: &str) -> [IpAddr; 2] {
        addresses(pod)
    }

    fn check(&mut self, reach: &Reach, protocol: cases::Protocol, port: u16) {
        let own = match protocol {
            cases::Protocol::Tcp => Tcp,
            cases::Protocol::Udp => Udp,
            cases::Protocol::Sctp => Sctp,
        };
        for (from, to, want) in reach.expected() {
            assert_eq!(self.reaches(&from, &to, own, port), want, "{from} to {to} {protocol:?} {port}");
        }
    }
}
