//! Where a pod's node is, as labels of the pod, which can then read its zone: upstream's PodTopologyLabels.

use serde_json::Value;

use crate::object::{Objects, key};
use crate::resources::known;
use crate::tree::{set, text};

const LABELS: &[&str] = &["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Gives a pod that has a node the labels of the node's place. Of a node that is not there nothing is known.
pub fn label(objects: &Objects, pod: &mut Value) {
    let name = text(pod, &["spec", "nodeName"]);
    if name.is_empty() {
        return;
    }
    let Some(node) = objects.get(&key(known("", "nodes"), "", name)) else { return };
    for (label, value) in node.header.labels.iter().filter(|(label, _)| LABELS.contains(&&**label)) {
        set(pod, &["metadata", "labels", label], &**value);
    }
}
