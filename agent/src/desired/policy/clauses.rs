//! Clauses: what rules ask about the other side of a flow. Equal clauses of different rules are one.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::tables::policy::{Holds, Labels, Peer, Selector};

/// Something that is so or not so of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clause {
    /// It belongs to a pod in one of these namespaces, with these labels.
    Pods(Scope, Selector),
    /// It is inside of the first, and of none of the others.
    Block(IpNetwork, BTreeSet<IpNetwork>),
    /// It belongs to a node with these labels.
    Nodes(Selector),
}

/// Namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This one.
    Named(Arc<str>),
    /// Those with these labels.
    Labelled(Selector),
}

impl Clause {
    /// What a policy of `namespace` asks with `peer`.
    pub fn of(namespace: &str, peer: &Peer) -> Self {
        match peer {
            Peer::Pods { namespaces: None, pods } => Self::Pods(Scope::Named(namespace.into()), pods.clone()),
            Peer::Pods { namespaces: Some(labels), pods } => {
                Self::Pods(Scope::Labelled(labels.clone()), pods.clone())
            }
            Peer::Block { cidr, except } => Self::Block(*cidr, except.clone()),
            Peer::Nodes(labels) => Self::Nodes(labels.clone()),
        }
    }
}

/// Whether labels are as a selector asks.
pub fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements.iter().all(|requirement| {
        let value = labels.get(&requirement.key);
        match &requirement.holds {
            Holds::In(values) => value.is_some_and(|value| values.contains(value)),
            Holds::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Holds::Exists => value.is_some(),
            Holds::DoesNotExist => value.is_none(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::policy::Requirement;

    #[test]
    fn a_selector_asks_all_of_its_requirements() {
        let labels = Labels::from([("app".into(), "web".into()), ("tier".into(), "1".into())]);
        let values = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect::<BTreeSet<_>>();
        let all = |list: &[(&str, Holds)]| Selector {
            requirements: list
                .iter()
                .map(|(key, holds)| Requirement { key: (*key).into(), holds: holds.clone() })
                .collect(),
        };
        for (requirements, want) in [
            (vec![], true),
            (vec![("app", Holds::In(values(&["db", "web"])))], true),
            (vec![("app", Holds::In(values(&["db"])))], false),
            (vec![("none", Holds::In(values(&["db"])))], false),
            (vec![("app", Holds::NotIn(values(&["web"])))], false),
            (vec![("app", Holds::NotIn(values(&["db"])))], true),
            (vec![("none", Holds::NotIn(values(&["db"])))], true),
            (vec![("app", Holds::Exists), ("none", Holds::DoesNotExist)], true),
            (vec![("app", Holds::Exists), ("tier", Holds::DoesNotExist)], false),
        ] {
            assert_eq!(matches(&all(&requirements), &labels), want, "{requirements:?}");
        }
    }
}
