//! Rule sets: everything that policies say about one direction of a pod. Pods of which the same is said share a set.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::clauses::{Clause, matches};
use super::ports::{Match, Span, Verdict, rows};
use crate::tables::policy::{Labels, NamedPort, Policy, Ports, Rule};
use crate::tables::{ObjectName, Protocol};

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
    /// The policy.
    pub policy: Arc<ObjectName>,
    /// In which of its lists.
    pub direction: Direction,
    /// Its place there, counted from zero.
    pub index: u16,
}

/// What policies say about one direction of a pod that they isolate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSet {
    /// Which direction.
    pub direction: Direction,
    /// The policies that isolate it.
    pub policies: Vec<Arc<ObjectName>>,
    /// What they allow; the first that fits counts.
    pub entries: Vec<Entry>,
}

/// One rule of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Its name.
    pub rule: Arc<RuleName>,
    /// Its number.
    pub number: u32,
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

/// All policies of the subject's namespace.
pub type Policies<'a> = &'a BTreeMap<ObjectName, Arc<Policy>>;

/// The set of one direction of a pod; `None` if no policy isolates it. `number` gives rules their numbers.
pub fn set(
    subject: &Subject,
    direction: Direction,
    policies: Policies<'_>,
    mut number: impl FnMut(&Arc<RuleName>) -> u32,
) -> Option<RuleSet> {
    let mut set = RuleSet { direction, policies: Vec::new(), entries: Vec::new() };
    let from = ObjectName { namespace: subject.namespace.as_ref().to_owned(), name: String::new() };
    let own = policies.range(from..).take_while(|(name, _)| *name.namespace == *subject.namespace);
    for (name, policy) in own {
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        let Some(rules) = rules.as_ref().filter(|_| matches(&policy.pods, &subject.labels)) else { continue };
        let name = Arc::new(name.clone());
        for rule in rules {
            let named = Arc::new(RuleName { policy: Arc::clone(&name), direction, index: rule.index });
            let number = number(&named);
            set.entries.push(Entry {
                rule: named,
                number,
                peers: peers(subject, rule),
                ports: ports(subject, direction, rule),
            });
        }
        set.policies.push(name);
    }
    (!set.policies.is_empty()).then_some(set)
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

/// The rows that `entries` make for an identity with these named ports.
pub fn rows_of<'a>(entries: impl Iterator<Item = &'a Entry>, named: &[NamedPort]) -> Vec<(Match, Verdict)> {
    let resolved: Vec<(Verdict, Option<Vec<Span>>)> = entries
        .map(|entry| {
            let ports =
                entry.ports.as_ref().map(|asked| asked.iter().flat_map(|one| spans(one, named)).collect());
            (Verdict { allow: true, rule: entry.number }, ports)
        })
        .collect();
    let all: Vec<Span> = resolved.iter().filter_map(|(_, ports)| ports.as_ref()).flatten().copied().collect();
    rows(&all, |asked| {
        let fits = |ports: &Option<Vec<Span>>| match (ports, asked) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(spans), Some((protocol, port))) => {
                spans.iter().any(|span| span.protocol == protocol && (span.first..=span.last).contains(&port))
            }
        };
        resolved.iter().find(|(_, ports)| fits(ports)).map(|(verdict, _)| *verdict)
    })
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
