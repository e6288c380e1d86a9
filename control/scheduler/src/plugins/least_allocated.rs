//! The emptier node is the better one: the free share of CPU and memory after the pod, on average.

use super::{BEST, Candidate, Plugin};
use crate::cluster::NodeRow;

pub(crate) struct LeastAllocated;

impl Plugin for LeastAllocated {
    fn name(&self) -> &'static str {
        "NodeResourcesLeastAllocated"
    }

    fn score(&self, candidate: &Candidate<'_>, node: &NodeRow) -> i64 {
        let share = |name: &str| {
            let total = node.allocatable.amount(name);
            let used = node.footprint.amount(name).saturating_add(candidate.demand.footprint.amount(name));
            let free = i128::from(total.saturating_sub(used).max(0));
            if total > 0 { free * i128::from(BEST) / i128::from(total) } else { 0 }
        };
        i64::try_from((share("cpu") + share("memory")) / 2).unwrap_or(BEST)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{node, pod, score};
    use super::LeastAllocated;
    use serde_json::json;

    #[test]
    fn the_emptier_node_scores_higher() {
        let empty = node(
            json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}}),
        );
        let mut half = empty.clone();
        half.footprint.0.insert("cpu".into(), 2000);
        let small = pod(json!({"spec": {"containers": [{}]}}));
        let large = pod(json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "2"}}}]}}));
        assert!(score(&LeastAllocated, &small, &empty) > score(&LeastAllocated, &small, &half));
        assert!(score(&LeastAllocated, &small, &empty) > score(&LeastAllocated, &large, &empty));
        assert_eq!(score(&LeastAllocated, &small, &node(json!({"metadata": {"name": "none"}}))), 0);
    }
}
