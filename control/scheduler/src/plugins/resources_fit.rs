//! What a pod requests has to be free on the node.

use super::{Candidate, Plugin};
use crate::cluster::NodeRow;
use crate::verdict::Event;
use crate::verdict::Fit;

pub(crate) struct ResourcesFit;

impl Plugin for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeRow) -> Fit {
        let short = candidate.demand.requests.0.iter().find(|(name, wanted)| {
            **wanted > 0
                && node.requested.amount(name).saturating_add(**wanted) > node.allocatable.amount(name)
        });
        match short {
            None => Fit::Yes,
            Some((name, _)) if name == "pods" => Fit::No("Too many pods".to_owned()),
            Some((name, _)) => Fit::No(format!("Insufficient {name}")),
        }
    }

    fn wakes(&self, _: Event) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fits, node, pod};
    use super::ResourcesFit;
    use serde_json::json;

    #[test]
    fn requests_fit_into_what_is_free() {
        let mut node = node(json!({
            "metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110"}},
        }));
        node.requested.0.insert("cpu".into(), 1500);
        for (requests, want) in [
            (json!({"cpu": "500m"}), true),
            (json!({"cpu": "501m"}), false),
            (json!({"memory": "1Gi"}), true),
            (json!({"memory": "1025Mi"}), false),
            (json!({"example.com/device": "1"}), false),
            (json!({"example.com/device": "0"}), true),
        ] {
            let pod = pod(json!({"spec": {"containers": [{"resources": {"requests": requests}}]}}));
            assert_eq!(fits(&ResourcesFit, &pod, &node), want, "{requests}");
        }
        node.requested.0.insert("pods".into(), 110);
        assert!(!fits(&ResourcesFit, &pod(json!({})), &node));
    }
}
