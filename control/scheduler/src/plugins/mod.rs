//! The table of plugins: what may keep a pod off a node, and what makes one node better than another.

mod host_ports;
mod least_allocated;
mod node_affinity;
mod node_name;
mod resources_fit;
mod taints;
mod unschedulable;

use crate::cluster::{Demand, NodeRow};
use crate::objects::Pod;
use crate::verdict::{Event, Fit};

/// Best score a plugin may give.
pub(crate) const BEST: i64 = 100;

/// The pod a cycle is about, with its demand computed once.
pub(crate) struct Candidate<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) demand: &'a Demand,
}

/// One concern of scheduling. Every method is pure.
pub(crate) trait Plugin: Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    fn filter(&self, _: &Candidate<'_>, _: &NodeRow) -> Fit {
        Fit::Yes
    }

    /// From 0 to [`BEST`].
    fn score(&self, _: &Candidate<'_>, _: &NodeRow) -> i64 {
        0
    }

    /// Whether this change may let a pod fit that this plugin rejected.
    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}

/// Every plugin with the weight of its score, in the order filters are asked.
pub(crate) static PLUGINS: &[(&dyn Plugin, i64)] = &[
    (&unschedulable::Unschedulable, 0),
    (&node_name::NodeName, 0),
    (&taints::TaintToleration, 3),
    (&node_affinity::NodeAffinityMatch, 2),
    (&host_ports::HostPorts, 0),
    (&resources_fit::ResourcesFit, 0),
    (&least_allocated::LeastAllocated, 1),
];

/// The plugin of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static dyn Plugin> {
    PLUGINS.iter().map(|(plugin, _)| *plugin).find(|plugin| plugin.name() == name)
}

/// Rows of plugin tests: a pod, a node, and whether they fit.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::objects::Node;
    use serde_json::Value;

    pub(crate) fn node(json: Value) -> NodeRow {
        let mut cluster = Cluster::default();
        let node: Node = serde_json::from_value(json).unwrap();
        cluster.set_node(&node);
        cluster.nodes().next().unwrap().clone()
    }

    pub(crate) fn pod(json: Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    pub(crate) fn fits(plugin: &dyn Plugin, pod: &Pod, node: &NodeRow) -> bool {
        plugin.filter(&Candidate { pod, demand: &Demand::of(pod) }, node) == Fit::Yes
    }

    pub(crate) fn score(plugin: &dyn Plugin, pod: &Pod, node: &NodeRow) -> i64 {
        plugin.score(&Candidate { pod, demand: &Demand::of(pod) }, node)
    }
}
