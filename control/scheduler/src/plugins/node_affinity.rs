//! `nodeSelector` and node affinity: required terms filter, preferred ones score.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::{BEST, Candidate, Plugin};
use crate::cluster::NodeRow;
use crate::verdict::Fit;

pub(crate) struct NodeAffinityMatch;

impl Plugin for NodeAffinityMatch {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeRow) -> Fit {
        let spec = &candidate.pod.spec;
        let selected = spec.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
        let affinity = spec.affinity.node_affinity.as_ref();
        let required =
            affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
        let matched =
            required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node)));
        if selected && matched {
            return Fit::Yes;
        }
        Fit::No("node(s) didn't match Pod's node affinity/selector".to_owned())
    }

    fn score(&self, candidate: &Candidate<'_>, node: &NodeRow) -> i64 {
        let affinity = candidate.pod.spec.affinity.node_affinity.as_ref();
        let preferred =
            affinity.and_then(|one| one.preferred_during_scheduling_ignored_during_execution.as_ref());
        let terms = || preferred.into_iter().flatten();
        let total: i64 = terms().map(|term| i64::from(term.weight)).sum();
        let won: i64 =
            terms().filter(|term| holds(&term.preference, node)).map(|term| i64::from(term.weight)).sum();
        if total == 0 { 0 } else { won * BEST / total }
    }
}

/// A term without any requirement matches nothing (`core/v1` NodeSelectorTerm).
fn holds(term: &NodeSelectorTerm, node: &NodeRow) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    if expressions.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    let name: BTreeMap<String, String> = [("metadata.name".to_owned(), node.name.clone())].into();
    expressions.clone().all(|one| meets(one, &node.labels)) && fields.clone().all(|one| meets(one, &name))
}

fn meets(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = || requirement.values.iter().flatten();
    let listed = || value.is_some_and(|value| values().any(|one| one == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values().next()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, want)| have > want),
        "Lt" => numbers().is_some_and(|(have, want)| have < want),
        // The API server admits no other operator; an unknown one must not match by accident.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fits, node, pod, score};
    use super::NodeAffinityMatch;
    use serde_json::json;

    #[test]
    fn selectors_and_required_terms_filter() {
        let node = node(json!({"metadata": {"name": "a", "labels": {"zone": "z1", "cores": "8"}}}));
        let term = |key: &str, operator: &str, values: &[&str]| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}}})
        };
        let empty = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}});
        let by_field = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]}}}});
        for (spec, want) in [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "z1"}}), true),
            (json!({"nodeSelector": {"zone": "z2"}}), false),
            (term("zone", "In", &["z1", "z2"]), true),
            (term("zone", "NotIn", &["z1"]), false),
            (term("gpu", "Exists", &[]), false),
            (term("gpu", "DoesNotExist", &[]), true),
            (term("cores", "Gt", &["4"]), true),
            (term("cores", "Lt", &["4"]), false),
            (term("zone", "Gt", &["4"]), false),
            (empty, false),
            (by_field, true),
        ] {
            assert_eq!(fits(&NodeAffinityMatch, &pod(json!({"spec": spec})), &node), want, "{spec}");
        }
    }

    #[test]
    fn preferred_terms_score_by_weight() {
        let node = node(json!({"metadata": {"name": "a", "labels": {"zone": "z1"}}}));
        let prefer = |zone: &str, weight: i32| json!({"weight": weight, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}});
        let pod = pod(json!({"spec": {"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [prefer("z1", 30), prefer("z2", 10)]}}}}));
        assert_eq!(score(&NodeAffinityMatch, &pod, &node), 75);
    }
}
