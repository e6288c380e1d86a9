//! Rule sets: everything that policies say about one direction of a pod. Pods of which the same is said share a set.

use std::sync::Arc;

use super::clauses::{Clause, matches};
use super::ports::{Match, Span, Verdict, rows};
use super::tiers::{self, Layer};
use crate::tables::policy::{Action, Labels, NamedPort, Ports, Rule, RuleSetName};
use crate::tables::{ObjectName, PolicyRows, Protocol};

/// A direction, as the pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What comes to it.
    Ingress,
    /// What it sends.
    Egress,
}

/// A rule of a policy, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// The policy; one without a namespace is a ClusterNetworkPolicy.
    pub policy: Arc<ObjectName>,
    /// In which of its lists.
    pub direction: Direction,
    /// Its place there, counted from zero.
    pub index: u16,
}

/// What policies say about one direction of a pod that any of them selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSet {
    /// Which direction.
    pub direction: Direction,
    /// The NetworkPolicies that isolate it.
    pub policies: Vec<Arc<ObjectName>>,
    /// Rules in the order in which they are asked.
    pub entries: Vec<Entry>,
}

/// One rule of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Its name.
    pub rule: Arc<RuleName>,
    /// Its number.
    pub number: u32,
    /// Where it stands, and what it does there.
    pub layer: Layer,
    /// The other side; `None` is everybody.
    pub peers: Option<Vec<Arc<Clause>>>,
    /// Ports; `None` is every port of every protocol.
    pub ports: Option<Vec<Asked>>,
}

/// Ports that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// These.
    Span(Span),
    /// What the other side calls so.
    Named(Protocol, Arc<str>),
}

/// A pod, as policies select it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its named ports, which rules for what comes to it may mean.
    pub ports: Arc<[NamedPort]>,
}

/// The set of one direction of a pod; `None` if no policy selects it. `number` gives rules their numbers.
pub fn set(
    subject: &Subject,
    direction: Direction,
    rows: &PolicyRows,
    mut number: impl FnMut(&Arc<RuleName>) -> u32,
) -> Option<RuleSet> {
    let mut set = RuleSet { direction, policies: Vec::new(), entries: Vec::new() };
    let mut add = |entries: &mut Vec<Entry>, policy: &Arc<ObjectName>, rule: &Rule, layer: Layer| {
        let rule_name = RuleName { policy: Arc::clone(policy), direction, index: rule.index };
        let rule_name = Arc::new(rule_name);
        entries.push(Entry {
            number: number(&rule_name),
            rule: rule_name,
            layer,
            peers: peers(subject, rule),
            ports: ports(subject, direction, rule),
        });
    };
    let cluster = tiers::rules(subject, direction, rows);
    for one in cluster.iter().filter(|one| one.is_admin()) {
        add(&mut set.entries, &one.policy, one.fits, one.layer);
    }
    for (name, rules) in isolating(subject, direction, rows) {
        let name = Arc::new(name.clone());
        for rule in rules {
            add(&mut set.entries, &name, rule, Layer::Namespace);
        }
        set.policies.push(name);
    }
    // Where a NetworkPolicy isolates, it has the last word.
    for one in cluster.iter().filter(|one| !one.is_admin() && set.policies.is_empty()) {
        add(&mut set.entries, &one.policy, one.fits, one.layer);
    }
    (!set.policies.is_empty() || !set.entries.is_empty()).then_some(set)
}

/// The NetworkPolicies that isolate one direction of a pod, with what they allow.
fn isolating<'a>(
    subject: &'a Subject,
    direction: Direction,
    rows: &'a PolicyRows,
) -> impl Iterator<Item = (&'a ObjectName, &'a Vec<Rule>)> {
    let from = ObjectName { namespace: subject.namespace.as_ref().to_owned(), name: String::new() };
    let own = rows.policies.range(from..).take_while(|(name, _)| *name.namespace == *subject.namespace);
    own.filter_map(move |(name, policy)| {
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        Some((name, rules.as_ref().filter(|_| matches(&policy.pods, &subject.labels))?))
    })
}

fn peers(subject: &Subject, rule: &Rule) -> Option<Vec<Arc<Clause>>> {
    let peers = rule.peers.as_ref()?;
    Some(peers.iter().map(|peer| Arc::new(Clause::of(&subject.namespace, peer))).collect())
}

/// Names are those of the pod that is asked: for what comes in, the subject itself.
fn ports(subject: &Subject, direction: Direction, rule: &Rule) -> Option<Vec<Asked>> {
    let mut asked = Vec::new();
    for ports in rule.ports.as_ref()? {
        match ports {
            Ports::Range(protocol, first, last) => {
                asked.push(Asked::Span(Span { protocol: *protocol, first: *first, last: *last }));
            }
            Ports::Named(protocol, name) if direction == Direction::Egress => {
                asked.push(Asked::Named(*protocol, Arc::clone(name)));
            }
            Ports::Named(protocol, name) => {
                asked.extend(called(&subject.ports, *protocol, name).map(Asked::Span));
            }
        }
    }
    Some(asked)
}

/// The ports of a pod with a name.
fn called<'a>(ports: &'a [NamedPort], protocol: Protocol, name: &'a str) -> impl Iterator<Item = Span> + 'a {
    let own = ports.iter().filter(move |port| port.protocol == protocol && *port.name == *name);
    own.map(move |port| Span { protocol, first: port.port, last: port.port })
}

impl RuleSet {
    /// The policies that it is made of.
    pub fn everybody(&self) -> impl Iterator<Item = &Arc<ObjectName>> {
        self.policies.iter().chain(self.entries.iter().map(|entry| &entry.rule.policy))
    }

    /// What people call it.
    pub fn name(&self) -> RuleSetName {
        let denies = |entry: &&Entry| matches!(entry.layer, Layer::Cluster(_, Action::Deny));
        let said = |entry: &Entry| format!("{} rule {}", entry.rule.policy.name, entry.rule.index);
        RuleSetName {
            policies: self.policies.iter().map(|name| (**name).clone()).collect(),
            denials: self.entries.iter().filter(denies).map(|entry| (entry.number, said(entry))).collect(),
        }
    }

    /// Whether rules of ClusterNetworkPolicies are among its own: then an identity's rows say everything of it, where those of
    /// NetworkPolicies leave to those for everybody what they do not allow.
    pub fn is_tiered(&self) -> bool {
        self.entries.iter().any(|entry| entry.layer != Layer::Namespace)
    }

    /// The rows that `entries` of it make for an identity with these named ports.
    pub fn rows<'a>(
        &self,
        entries: impl Iterator<Item = &'a Entry>,
        named: &[NamedPort],
    ) -> Vec<(Match, Verdict)> {
        let resolved: Vec<(&Entry, Option<Vec<Span>>)> = entries
            .map(|entry| {
                let ports = entry
                    .ports
                    .as_ref()
                    .map(|asked| asked.iter().flat_map(|one| spans(one, named)).collect());
                (entry, ports)
            })
            .collect();
        let all: Vec<Span> =
            resolved.iter().filter_map(|(_, ports)| ports.as_ref()).flatten().copied().collect();
        let otherwise = self.is_tiered().then_some(Verdict { allow: self.policies.is_empty(), rule: 0 });
        rows(&all, |asked| {
            let fitting = resolved.iter().filter(|(_, ports)| fits(ports.as_deref(), asked));
            tiers::decide(fitting.map(|(entry, _)| *entry)).or(otherwise)
        })
    }
}

/// Whether ports, of which `None` is every one, are what is asked.
fn fits(ports: Option<&[Span]>, asked: Option<(Protocol, u16)>) -> bool {
    match (ports, asked) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(spans), Some((protocol, port))) => {
            spans.iter().any(|span| span.protocol == protocol && (span.first..=span.last).contains(&port))
        }
    }
}

fn spans(asked: &Asked, named: &[NamedPort]) -> Vec<Span> {
    match asked {
        Asked::Span(span) => vec![*span],
        Asked::Named(protocol, name) => called(named, *protocol, name).collect(),
    }
}

impl Entry {
    /// The names of ports that it leaves to the other side.
    pub fn names(&self) -> impl Iterator<Item = (Protocol, &Arc<str>)> {
        self.ports.iter().flatten().filter_map(|asked| match asked {
            Asked::Span(_) => None,
            Asked::Named(protocol, name) => Some((*protocol, name)),
        })
    }
}
