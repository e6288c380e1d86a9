//! ClusterNetworkPolicies: which of their rules are about a pod, in which order, and who has the last word.

use std::sync::Arc;

use super::clauses::matches;
use super::ports::Verdict;
use super::sets::{Direction, Entry, Subject};
use crate::tables::policy::{Action, ClusterPolicy, Labels, Rule, Tier};
use crate::tables::{ObjectName, PolicyRows};

/// Where a rule stands among the others, and what it does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Of a NetworkPolicy: what fits is allowed.
    Namespace,
    /// Of a ClusterNetworkPolicy.
    Cluster(Tier, Action),
}

/// A rule of a ClusterNetworkPolicy that is about a pod.
#[derive(Debug)]
pub struct Ranked<'a> {
    /// The policy, which has no namespace.
    pub policy: Arc<ObjectName>,
    /// Whom and what it is about.
    pub fits: &'a Rule,
    /// Where it stands.
    pub layer: Layer,
}

impl Ranked<'_> {
    /// Whether it is asked before NetworkPolicies.
    pub fn is_admin(&self) -> bool {
        matches!(self.layer, Layer::Cluster(Tier::Admin, _))
    }
}

/// The rules about one direction of a pod, the first to be asked first.
pub fn rules<'a>(subject: &Subject, direction: Direction, rows: &'a PolicyRows) -> Vec<Ranked<'a>> {
    if rows.cluster.is_empty() {
        return Vec::new();
    }
    let labels = rows.namespaces.get(&*subject.namespace).map(|row| Arc::clone(&row.labels));
    let labels = labels.unwrap_or_default();
    let is_about = |policy: &ClusterPolicy| {
        matches(&policy.namespaces, &labels) && matches(&policy.pods, &subject.labels)
    };
    let mut own: Vec<_> = rows.cluster.iter().filter(|(_, policy)| is_about(policy)).collect();
    // Names are in order already.
    own.sort_by_key(|(_, policy)| (policy.tier, policy.priority));
    let mut ranked = Vec::new();
    for (name, policy) in own {
        let name = Arc::new(ObjectName { namespace: String::new(), name: name.clone() });
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        ranked.extend(rules.iter().map(|rule| Ranked {
            policy: Arc::clone(&name),
            fits: &rule.fits,
            layer: Layer::Cluster(policy.tier, rule.action),
        }));
    }
    ranked
}

/// Whether a ClusterNetworkPolicy may be about pods of a namespace whose labels are not known.
pub fn may_select(rows: &PolicyRows, namespace: &str) -> bool {
    let unlabelled = Arc::<Labels>::default();
    let labels = rows.namespaces.get(namespace).map_or(&unlabelled, |row| &row.labels);
    rows.cluster.values().any(|policy| matches(&policy.namespaces, labels))
}

/// What rules that fit, in their order, say together; `None` if no tier has decided.
pub fn decide<'a>(fitting: impl Iterator<Item = &'a Entry>) -> Option<Verdict> {
    let mut passed = None;
    for entry in fitting {
        let verdict = |allow| Some(Verdict { allow, rule: entry.number });
        match entry.layer {
            Layer::Namespace | Layer::Cluster(_, Action::Accept) if !is_passed(passed, entry) => {
                return verdict(true);
            }
            Layer::Cluster(_, Action::Deny) if !is_passed(passed, entry) => return verdict(false),
            Layer::Cluster(tier, Action::Pass) => passed = Some(tier),
            Layer::Namespace | Layer::Cluster(..) => {}
        }
    }
    None
}

/// Whether a rule is in a tier that an earlier one has left.
fn is_passed(passed: Option<Tier>, entry: &Entry) -> bool {
    matches!(entry.layer, Layer::Cluster(tier, _) if passed == Some(tier))
}
