//! Taints keep pods off a node unless they are tolerated; a `PreferNoSchedule` taint only makes it worse.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{BEST, Candidate, Plugin};
use crate::cluster::NodeRow;
use crate::verdict::Fit;

pub(crate) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeRow) -> Fit {
        let hard =
            node.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
        match untolerated(candidate, hard).next() {
            None => Fit::Yes,
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Fit::No(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key))
            }
        }
    }

    fn score(&self, candidate: &Candidate<'_>, node: &NodeRow) -> i64 {
        let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let count = i64::try_from(untolerated(candidate, soft).count()).unwrap_or(BEST);
        BEST / (1 + count)
    }
}

fn untolerated<'a>(
    candidate: &'a Candidate<'_>,
    taints: impl Iterator<Item = &'a Taint>,
) -> impl Iterator<Item = &'a Taint> {
    taints.filter(|taint| !candidate.pod.spec.tolerations.iter().any(|one| tolerates(one, taint)))
}

/// Empty parts of a toleration match everything (`core/v1` Toleration).
pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        _ => {
            key == taint.key
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fits, node, pod, score};
    use super::TaintToleration;
    use serde_json::json;

    #[test]
    fn taints_are_tolerated_by_key_value_and_effect() {
        let tainted = node(json!({
            "metadata": {"name": "a"}, "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
        }));
        for (toleration, want) in [
            (json!({}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "other"}), false),
            (json!({"key": "k", "value": "v", "effect": "NoExecute"}), false),
        ] {
            let pod = pod(json!({"spec": {"tolerations": [toleration]}}));
            assert_eq!(fits(&TaintToleration, &pod, &tainted), want, "{toleration}");
        }
    }

    #[test]
    fn a_soft_taint_only_costs_points() {
        let soft = node(
            json!({"metadata": {"name": "a"}, "spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}),
        );
        assert!(fits(&TaintToleration, &pod(json!({})), &soft));
        assert!(score(&TaintToleration, &pod(json!({})), &soft) < super::BEST);
    }
}
