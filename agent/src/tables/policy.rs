//! Rows of network policy: policies, namespaces, and the pods of the whole cluster as far as policies can ask about them.
//!
//! Source: `networking.k8s.io/v1` NetworkPolicy, `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy. What cannot be
//! understood was left out when the rows were made, on the side of denying.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Protocol};

/// Labels of an object; each text is in memory once.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// A pod of the cluster, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterPod {
    /// Its addresses; empty until it has some.
    pub addresses: Box<[IpAddr]>,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Ports of its containers that have names.
    pub ports: Arc<[NamedPort]>,
    /// It has no network of its own: its addresses are the node's, and selectors of pods do not mean it.
    pub host_network: bool,
    /// It has succeeded or failed: its addresses may be somebody else's.
    pub finished: bool,
    /// Its unique number as runtimes are told it; zero where it is not known.
    pub uid: u128,
    /// Second it was made: of two that claim an address, the younger has it.
    pub created: i64,
}

/// A port of a container that rules can ask for by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Name.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// A Namespace, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// Its labels.
    pub labels: Arc<Labels>,
    /// What policies deny its pods passes, and is told (`hawser.dev/policy-audit: enabled`).
    pub audit: bool,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The pods of its namespace that it is about.
    pub pods: Selector,
    /// Who may talk to them; `None` if it says nothing about that.
    pub ingress: Option<Vec<Rule>>,
    /// Whom they may talk to; `None` if it says nothing about that.
    pub egress: Option<Vec<Rule>>,
}

/// One rule of a policy: it allows what fits both its peers and its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Its place in the policy, counted from zero.
    pub index: u16,
    /// The other side; `None` is everybody.
    pub peers: Option<Vec<Peer>>,
    /// Ports; `None` is every port of every protocol.
    pub ports: Option<Vec<Ports>>,
}

/// A ClusterNetworkPolicy: rules in order, of which the first that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// Before or after NetworkPolicies.
    pub tier: Tier,
    /// Place in its tier: less comes first. Of equal ones the order of names decides.
    pub priority: u16,
    /// The namespaces whose pods it is about.
    pub namespaces: Selector,
    /// Which of their pods; none on the node's network.
    pub pods: Selector,
    /// What comes to them.
    pub ingress: Vec<ClusterRule>,
    /// What they send.
    pub egress: Vec<ClusterRule>,
}

/// Where ClusterNetworkPolicies stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After them: where none isolates the pod.
    Baseline,
}

/// What a rule of a ClusterNetworkPolicy does with what fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It passes, whatever comes after.
    Accept,
    /// It does not pass.
    Deny,
    /// No further rule of the tier is asked.
    Pass,
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRule {
    /// Whom and what it is about.
    pub fits: Rule,
    /// What it does.
    pub action: Action,
    /// What its author calls it.
    pub name: Option<Arc<str>>,
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods.
    Pods {
        /// In namespaces with these labels; `None` is the policy's own.
        namespaces: Option<Selector>,
        /// With these labels.
        pods: Selector,
    },
    /// Addresses, also of pods.
    Block {
        /// All of these.
        cidr: IpNetwork,
        /// But these.
        except: BTreeSet<IpNetwork>,
    },
    /// All addresses of the nodes with these labels, and of nothing else that has one of them.
    Nodes(Selector),
}

/// Ports that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// From the first to the last, of one protocol.
    Range(Protocol, u16, u16),
    /// What the pod that is asked calls so.
    Named(Protocol, Arc<str>),
}

/// A label selector; one that asks nothing matches everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector {
    /// Everything that has to hold.
    pub requirements: BTreeSet<Requirement>,
}

/// What a selector asks of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label.
    pub key: Arc<str>,
    /// What holds of it.
    pub holds: Holds,
}

/// What holds of a label (`meta/v1` LabelSelectorRequirement).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holds {
    /// It is there and one of these.
    In(BTreeSet<Arc<str>>),
    /// It is none of these, or not there.
    NotIn(BTreeSet<Arc<str>>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// What a rule set in the kernel stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSetName {
    /// The NetworkPolicies that isolate pods with it.
    pub policies: Vec<ObjectName>,
    /// Rules that deny, by their numbers, in words: those of ClusterNetworkPolicies.
    pub denials: BTreeMap<u32, String>,
}

/// What the policies of a cluster are about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRows {
    /// Policies by name.
    pub policies: BTreeMap<ObjectName, Arc<Policy>>,
    /// ClusterNetworkPolicies by name.
    pub cluster: BTreeMap<String, Arc<ClusterPolicy>>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// All pods by name.
    pub pods: BTreeMap<ObjectName, Arc<ClusterPod>>,
}
