//! Whether NetworkPolicies let a flow pass, found by reading them: as `networking.k8s.io/v1` defines its fields, policy by
//! policy and rule by rule. It shares no code with [`desired::policy`](crate::desired::policy).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tables::policy::{ClusterPod, Holds, Labels, Peer, Policy, Ports, Rule, Selector};
use crate::tables::{ObjectName, PolicyRows, Protocol};

/// The first packet of a flow, as pods send and receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Its source.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// Protocol and destination port; `None` is a protocol without ports.
    pub port: Option<(Protocol, u16)>,
}

/// What the policies of one end say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// It is no pod, or one that no policy isolates in this direction.
    NotIsolated,
    /// The other end is this node, which policies do not concern.
    Node,
    /// A rule allows it.
    Allowed {
        /// The policy.
        policy: ObjectName,
        /// Place of the rule in its list, counted from zero.
        rule: u16,
    },
    /// No rule allows it, of none of these.
    Denied {
        /// The policies that isolate the pod.
        policies: Vec<ObjectName>,
    },
}

/// What becomes of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// By the policies of the sender.
    pub egress: Side,
    /// By those of the receiver.
    pub ingress: Side,
}

impl Side {
    /// Whether it lets the flow pass.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Denied { .. })
    }
}

impl Decision {
    /// Whether both ends let the flow pass.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// One end of a flow.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    address: IpAddr,
    /// Its pod, unless that shares the network of its node.
    pod: Option<(&'a ObjectName, &'a ClusterPod)>,
}

/// What the policies of `cluster` say about a flow; `hosts` are the addresses of the node that asks.
pub fn decide(cluster: &PolicyRows, hosts: &BTreeSet<IpAddr>, flow: Flow) -> Decision {
    let end = |address| End { address, pod: pod_at(cluster, hosts, address) };
    let (from, to) = (end(flow.from), end(flow.to));
    let side = |own: End<'_>, other: End<'_>, rules: fn(&Policy) -> Option<&Vec<Rule>>| {
        let Some((name, pod)) = own.pod else { return Side::NotIsolated };
        let isolating: Vec<(&ObjectName, &Vec<Rule>)> = cluster
            .policies
            .iter()
            .filter(|(policy, row)| policy.namespace == name.namespace && selects(&row.pods, &pod.labels))
            .filter_map(|(policy, row)| Some((policy, rules(row)?)))
            .collect();
        if isolating.is_empty() {
            return Side::NotIsolated;
        }
        if hosts.contains(&other.address) {
            return Side::Node;
        }
        for (policy, rules) in &isolating {
            for rule in *rules {
                let is_peer = rule.peers.as_ref().is_none_or(|peers| {
                    peers.iter().any(|peer| is_one(cluster, &policy.namespace, peer, other))
                });
                let is_port = rule.ports.as_ref().is_none_or(|ports| {
                    ports.iter().any(|ports| has_port(ports, flow.port, to.pod.map(|(_, pod)| pod)))
                });
                if is_peer && is_port {
                    return Side::Allowed { policy: (*policy).clone(), rule: rule.index };
                }
            }
        }
        Side::Denied { policies: isolating.into_iter().map(|(policy, _)| policy.clone()).collect() }
    };
    Decision {
        egress: side(from, to, |policy| policy.egress.as_ref()),
        ingress: side(to, from, |policy| policy.ingress.as_ref()),
    }
}

/// The pod that has an address now: the youngest that has not finished.
fn pod_at<'a>(
    cluster: &'a PolicyRows,
    hosts: &BTreeSet<IpAddr>,
    address: IpAddr,
) -> Option<(&'a ObjectName, &'a ClusterPod)> {
    if hosts.contains(&address) {
        return None;
    }
    let has = |pod: &Arc<ClusterPod>| !pod.finished && !pod.host_network && pod.addresses.contains(&address);
    let all = cluster.pods.iter().filter(|(_, pod)| has(pod));
    all.max_by_key(|(name, pod)| (pod.created, (*name).clone())).map(|(name, pod)| (name, &**pod))
}

/// `from` and `to` of a rule: selectors mean pods, blocks mean addresses, whoever has them.
fn is_one(cluster: &PolicyRows, own_namespace: &str, peer: &Peer, end: End<'_>) -> bool {
    match peer {
        Peer::Block { cidr, except } => {
            cidr.contains(end.address) && !except.iter().any(|hole| hole.contains(end.address))
        }
        Peer::Pods { namespaces, pods } => {
            let Some((name, pod)) = end.pod else { return false };
            let in_namespace = match namespaces {
                None => name.namespace == own_namespace,
                Some(selector) => match cluster.namespaces.get(&name.namespace) {
                    Some(namespace) => selects(selector, &namespace.labels),
                    None => selects(selector, &Labels::new()),
                },
            };
            in_namespace && selects(pods, &pod.labels)
        }
    }
}

/// A name means a port of the pod that is asked, of the same protocol.
fn has_port(ports: &Ports, asked: Option<(Protocol, u16)>, receiver: Option<&ClusterPod>) -> bool {
    let Some((protocol, port)) = asked else { return false };
    match ports {
        Ports::Range(own, first, last) => *own == protocol && *first <= port && port <= *last,
        Ports::Named(own, name) => receiver.is_some_and(|pod| {
            let called = |one: &&crate::tables::policy::NamedPort| one.name == *name && one.protocol == *own;
            pod.ports.iter().filter(called).any(|one| *own == protocol && one.port == port)
        }),
    }
}

/// `meta/v1` LabelSelector: all requirements hold.
fn selects(selector: &Selector, labels: &Labels) -> bool {
    for requirement in &selector.requirements {
        let value = labels.get(&requirement.key);
        let holds = match (&requirement.holds, value) {
            (Holds::In(values), Some(value)) => values.contains(value),
            (Holds::In(_), None) => false,
            (Holds::NotIn(values), Some(value)) => !values.contains(value),
            (Holds::NotIn(_), None) => true,
            (Holds::Exists, value) => value.is_some(),
            (Holds::DoesNotExist, value) => value.is_none(),
        };
        if !holds {
            return false;
        }
    }
    true
}
