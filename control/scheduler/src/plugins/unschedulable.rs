//! `kubectl cordon`: nothing new goes onto the node, except pods that tolerate exactly that.

use super::taints::tolerates;
use super::{Candidate, Plugin};
use crate::cluster::NodeRow;
use crate::verdict::Fit;
use k8s_openapi::api::core::v1::Taint;

pub(crate) struct Unschedulable;

impl Plugin for Unschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeRow) -> Fit {
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if node.unschedulable && !candidate.pod.spec.tolerations.iter().any(|one| tolerates(one, &cordon)) {
            return Fit::No("node(s) were unschedulable".to_owned());
        }
        Fit::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fits, node, pod};
    use super::Unschedulable;
    use serde_json::json;

    #[test]
    fn a_cordoned_node_takes_only_pods_that_tolerate_it() {
        let cordoned = node(json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true}}));
        assert!(!fits(&Unschedulable, &pod(json!({})), &cordoned));
        let tolerant = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}});
        assert!(fits(&Unschedulable, &pod(tolerant), &cordoned));
    }
}
