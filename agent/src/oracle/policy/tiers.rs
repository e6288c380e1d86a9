//! ClusterNetworkPolicies, read one by one: by priority, then by name, rule after rule, until one decides or leaves the tier.

use super::{ByTier, Seen, has_labels, selects};
use crate::tables::ObjectName;
use crate::tables::policy::{Action, ClusterPod, ClusterPolicy, ClusterRule, Tier};

/// What one tier says; `None` if no rule of it fits, or one that passes.
pub(super) fn decide(
    seen: &Seen<'_>,
    (name, pod): (&ObjectName, &ClusterPod),
    tier: Tier,
    rules: fn(&ClusterPolicy) -> &Vec<ClusterRule>,
) -> Option<ByTier> {
    let mut policies: Vec<(&String, &ClusterPolicy)> = Vec::new();
    for (policy, row) in &seen.cluster.cluster {
        let is_subject =
            has_labels(seen.cluster, &name.namespace, &row.namespaces) && selects(&row.pods, &pod.labels);
        if row.tier == tier && is_subject {
            policies.push((policy, row));
        }
    }
    policies.sort_by(|(one, a), (other, b)| a.priority.cmp(&b.priority).then(one.cmp(other)));
    for (policy, row) in policies {
        for rule in rules(row) {
            if !seen.fits("", &rule.fits) {
                continue;
            }
            let decided = |accepts| ByTier {
                accepts,
                tier,
                policy: policy.clone(),
                rule: rule.fits.index,
                name: rule.name.as_deref().map(str::to_owned),
            };
            return match rule.action {
                Action::Accept => Some(decided(true)),
                Action::Deny => Some(decided(false)),
                Action::Pass => None,
            };
        }
    }
    None
}
