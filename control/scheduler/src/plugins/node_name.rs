//! A pod that names its node fits on no other.

use super::{Candidate, Plugin};
use crate::cluster::NodeRow;
use crate::verdict::Fit;

pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeRow) -> Fit {
        match &candidate.pod.spec.node_name {
            Some(wanted) if *wanted != node.name => {
                Fit::No("node(s) didn't match the requested node name".to_owned())
            }
            _ => Fit::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fits, node, pod};
    use super::NodeName;
    use serde_json::json;

    #[test]
    fn a_named_node_is_the_only_one() {
        let here = node(json!({"metadata": {"name": "a"}}));
        for (spec, want) in
            [(json!({}), true), (json!({"nodeName": "a"}), true), (json!({"nodeName": "b"}), false)]
        {
            assert_eq!(fits(&NodeName, &pod(json!({"spec": spec})), &here), want, "{spec}");
        }
    }
}
