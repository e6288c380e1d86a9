//! One decision: which node a pod goes to, or why none will have it.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Demand};
use crate::objects::Pod;
use crate::plugins::{Candidate, PLUGINS};
use crate::verdict::Fit;

/// Why no node will have a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// In upstream's words: `0/3 nodes are available: 2 Insufficient cpu, 1 node(s) were unschedulable.`
    pub(crate) message: String,
    /// The plugins that rejected it somewhere.
    pub(crate) plugins: Vec<&'static str>,
}

/// The best node for `pod`. Among equals `turn` decides, so that a series of alike pods goes around.
pub(crate) fn decide(
    pod: &Pod,
    demand: &Demand,
    cluster: &Cluster,
    turn: usize,
) -> Result<String, Rejection> {
    let candidate = Candidate { pod, demand };
    let mut best: Vec<&str> = Vec::new();
    let mut best_score = i64::MIN;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut plugins = Vec::new();
    for node in cluster.nodes() {
        let rejected = PLUGINS.iter().find_map(|(plugin, _)| match plugin.filter(&candidate, node) {
            Fit::Yes => None,
            Fit::No(reason) => Some((plugin.name(), reason)),
        });
        if let Some((plugin, reason)) = rejected {
            *reasons.entry(reason).or_default() += 1;
            plugins.push(plugin);
            continue;
        }
        let score = PLUGINS.iter().map(|(plugin, weight)| weight * plugin.score(&candidate, node)).sum();
        if score > best_score {
            best.clear();
            best_score = score;
        }
        if score == best_score {
            best.push(&node.name);
        }
    }
    if best.is_empty() {
        plugins.sort_unstable();
        plugins.dedup();
        return Err(Rejection { message: message(cluster.nodes().len(), &reasons), plugins });
    }
    Ok(best[turn % best.len()].to_owned())
}

fn message(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut listed: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    listed.sort();
    format!("0/{nodes} nodes are available: {}.", listed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cluster(nodes: &[Value]) -> Cluster {
        let mut cluster = Cluster::default();
        for node in nodes {
            cluster.set_node(&serde_json::from_value(node.clone()).unwrap());
        }
        cluster
    }

    fn node(name: &str, cpu: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}})
    }

    fn place(cluster: &Cluster, pod: &Value, turn: usize) -> Result<String, Rejection> {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        decide(&pod, &Demand::of(&pod), cluster, turn)
    }

    #[test]
    fn alike_nodes_take_turns_and_a_fuller_one_waits() {
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let mut cluster = cluster(&[node("a", "4"), node("b", "4")]);
        assert_eq!(place(&cluster, &pod, 0).unwrap(), "a");
        assert_eq!(place(&cluster, &pod, 1).unwrap(), "b");
        let parsed: Pod = serde_json::from_value(pod.clone()).unwrap();
        cluster.place("x", "a", Demand::of(&parsed));
        assert_eq!(place(&cluster, &pod, 0).unwrap(), "b");
    }

    #[test]
    fn a_rejection_counts_its_reasons() {
        let mut cordoned = node("c", "8");
        cordoned["spec"]["unschedulable"] = json!(true);
        let cluster = cluster(&[node("a", "1"), node("b", "1"), cordoned]);
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "2"}}}]}});
        let rejection = place(&cluster, &pod, 0).unwrap_err();
        let want = "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.";
        assert_eq!(rejection.message, want);
        assert_eq!(rejection.plugins, ["NodeResourcesFit", "NodeUnschedulable"]);
        assert_eq!(
            place(&Cluster::default(), &pod, 0).unwrap_err().message,
            "no nodes available to schedule pods"
        );
    }
}
