//! Whether policies let a flow pass, found by reading them: as `networking.k8s.io/v1` and `policy.networking.k8s.io/v1alpha2`
//! define their fields, policy by policy and rule by rule. It shares no code with [`desired::policy`](crate::desired::policy).

mod tiers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tables::policy::{
    ClusterPod, ClusterPolicy, ClusterRule, Holds, Labels, Peer, Policy, Ports, Rule, Selector, Tier,
};
use crate::tables::{Node, ObjectName, PolicyRows, Protocol};

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
    /// A rule of a ClusterNetworkPolicy decides.
    Decided(ByTier),
}

/// The rule of a ClusterNetworkPolicy that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByTier {
    /// Whether the flow passes.
    pub accepts: bool,
    /// Where the policy stands.
    pub tier: Tier,
    /// Its name.
    pub policy: String,
    /// Place of the rule in its list, counted from zero.
    pub rule: u16,
    /// What the rule is called.
    pub name: Option<String>,
}

impl fmt::Display for ByTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tier, policy, rule, name, .. } = self;
        write!(f, "rule {rule} of ClusterNetworkPolicy {policy} ({tier:?}")?;
        match name {
            Some(name) => write!(f, ", \"{name}\")"),
            None => write!(f, ")"),
        }
    }
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
        match self {
            Self::NotIsolated | Self::Node | Self::Allowed { .. } => true,
            Self::Denied { .. } => false,
            Self::Decided(by) => by.accepts,
        }
    }
}

impl Decision {
    /// Whether both ends let the flow pass.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// What policies are read with.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// Policies, namespaces and pods.
    pub rows: &'a PolicyRows,
    /// All nodes by name.
    pub nodes: &'a BTreeMap<String, Arc<Node>>,
    /// The addresses of the node that asks.
    pub hosts: &'a BTreeSet<IpAddr>,
}

/// One end of a flow.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    address: IpAddr,
    /// Its pod, unless that shares the network of its node.
    pod: Option<(&'a ObjectName, &'a ClusterPod)>,
    /// Its node, unless it is a pod's.
    node: Option<&'a Node>,
}

/// A flow as one of its ends sees it.
#[derive(Debug, Clone, Copy)]
struct Seen<'a> {
    cluster: &'a PolicyRows,
    other: End<'a>,
    /// Protocol and destination port.
    port: Option<(Protocol, u16)>,
    /// The pod that is asked.
    receiver: Option<&'a ClusterPod>,
}

impl Seen<'_> {
    /// Whether a rule of a policy of `namespace` is about it.
    fn fits(&self, namespace: &str, rule: &Rule) -> bool {
        let is_peer = rule
            .peers
            .as_ref()
            .is_none_or(|peers| peers.iter().any(|peer| is_one(self.cluster, namespace, peer, self.other)));
        let mut ports = rule.ports.iter().flatten();
        is_peer && (rule.ports.is_none() || ports.any(|ports| has_port(ports, self.port, self.receiver)))
    }
}

/// Where a policy of each kind keeps the rules of a direction.
struct Lists {
    namespaced: fn(&Policy) -> Option<&Vec<Rule>>,
    cluster: fn(&ClusterPolicy) -> &Vec<ClusterRule>,
}

/// What the policies of a cluster say about a flow.
pub fn decide(cluster: Cluster<'_>, flow: Flow) -> Decision {
    let Cluster { rows, nodes, hosts } = cluster;
    let end = |address| {
        let pod = pod_at(rows, hosts, address);
        let node = if pod.is_none() { node_at(nodes, address) } else { None };
        End { address, pod, node }
    };
    let (from, to) = (end(flow.from), end(flow.to));
    let side = |own: End<'_>, other: End<'_>, lists: Lists| {
        let Some(own) = own.pod else { return Side::NotIsolated };
        if hosts.contains(&other.address) {
            return Side::Node;
        }
        let seen = Seen { cluster: rows, other, port: flow.port, receiver: to.pod.map(|(_, pod)| pod) };
        let by_tier = |tier| tiers::decide(&seen, own, tier, lists.cluster).map(Side::Decided);
        by_tier(Tier::Admin)
            .or_else(|| by_namespace(&seen, own, lists.namespaced))
            .or_else(|| by_tier(Tier::Baseline))
            .unwrap_or(Side::NotIsolated)
    };
    Decision {
        egress: side(
            from,
            to,
            Lists { namespaced: |policy| policy.egress.as_ref(), cluster: |policy| &policy.egress },
        ),
        ingress: side(
            to,
            from,
            Lists { namespaced: |policy| policy.ingress.as_ref(), cluster: |policy| &policy.ingress },
        ),
    }
}

/// What NetworkPolicies say; `None` if none isolates the pod.
fn by_namespace(
    seen: &Seen<'_>,
    (name, pod): (&ObjectName, &ClusterPod),
    rules: fn(&Policy) -> Option<&Vec<Rule>>,
) -> Option<Side> {
    let own = seen
        .cluster
        .policies
        .iter()
        .filter(|(policy, row)| policy.namespace == name.namespace && selects(&row.pods, &pod.labels));
    let isolating: Vec<(&ObjectName, &Vec<Rule>)> =
        own.filter_map(|(policy, row)| Some((policy, rules(row)?))).collect();
    for (policy, rules) in &isolating {
        if let Some(rule) = rules.iter().find(|rule| seen.fits(&policy.namespace, rule)) {
            return Some(Side::Allowed { policy: (*policy).clone(), rule: rule.index });
        }
    }
    let policies: Vec<ObjectName> = isolating.into_iter().map(|(policy, _)| policy.clone()).collect();
    (!policies.is_empty()).then_some(Side::Denied { policies })
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

/// The node that has an address: the last by name, should there be several.
fn node_at(nodes: &BTreeMap<String, Arc<Node>>, address: IpAddr) -> Option<&Node> {
    let has = |node: &&Arc<Node>| node.all_addresses().any(|own| own == address);
    nodes.values().rfind(has).map(|node| &**node)
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
                Some(selector) => has_labels(cluster, &name.namespace, selector),
            };
            in_namespace && selects(pods, &pod.labels)
        }
        Peer::Nodes(labels) => end.node.is_some_and(|node| selects(labels, &node.labels)),
    }
}

/// A namespace that is not known has no labels.
fn has_labels(cluster: &PolicyRows, namespace: &str, selector: &Selector) -> bool {
    match cluster.namespaces.get(namespace) {
        Some(namespace) => selects(selector, &namespace.labels),
        None => selects(selector, &Labels::new()),
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
