//! The nodes and what runs on them: sums are kept with every change, so a cycle reads and never recounts.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Taint;

use crate::objects::{Container, Node, Pod};
use crate::quantity;

/// CPU in thousandths of a core, every other resource in whole units (memory in bytes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources(pub(crate) BTreeMap<String, i64>);

impl Resources {
    /// Quantities that cannot be read count as nothing; the API server admits none.
    pub(crate) fn parse(list: &BTreeMap<String, String>) -> Self {
        let parse = |(name, text): (&String, &String)| {
            let amount = if name == "cpu" { quantity::milli(text) } else { quantity::whole(text) };
            (name.clone(), amount.unwrap_or(0))
        };
        Self(list.iter().map(parse).collect())
    }

    pub(crate) fn amount(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= amount;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }
}

/// A port of the node a pod wants for itself; an empty address means all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) address: String,
    pub(crate) protocol: String,
    pub(crate) port: u16,
}

impl HostPort {
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |address: &str| address.is_empty() || address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

/// What a pod without a request is taken to use, so that such pods spread too (upstream's `DefaultMilliCPURequest` and
/// `DefaultMemoryRequest`).
const ASSUMED: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 << 20)];

/// What a pod takes from a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) requests: Resources,
    /// CPU and memory for comparing nodes: as requested, or as assumed of a pod that requests nothing.
    pub(crate) footprint: Resources,
    pub(crate) host_ports: Vec<HostPort>,
}

impl Demand {
    /// Init containers run one after the other before the others, sidecars beside everything after them.
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut running = Resources::default();
        let mut sidecars = Resources::default();
        let mut peak = Resources::default();
        for init in &pod.spec.init_containers {
            let mut wanted = Resources::parse(&init.resources.requests);
            if init.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&wanted);
                peak.raise_to(&sidecars);
            } else {
                wanted.add(&sidecars);
                peak.raise_to(&wanted);
            }
        }
        for container in &pod.spec.containers {
            running.add(&Resources::parse(&container.resources.requests));
        }
        running.add(&sidecars);
        running.raise_to(&peak);
        running.add(&Resources::parse(&pod.spec.overhead));
        running.0.insert("pods".to_owned(), 1);
        let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let footprint = ASSUMED.map(|(name, assumed)| match running.amount(name) {
            0 => (name.to_owned(), assumed),
            wanted => (name.to_owned(), wanted),
        });
        Self {
            requests: running,
            footprint: Resources(footprint.into()),
            host_ports: all.flat_map(host_ports).collect(),
        }
    }
}

fn host_ports(container: &Container) -> impl Iterator<Item = HostPort> {
    container.ports.iter().filter(|port| port.host_port != 0).map(|port| HostPort {
        address: port.host_ip.clone(),
        protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() },
        port: port.host_port,
    })
}

/// A node as plugins see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeRow {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    /// Sum of [`Demand::footprint`].
    pub(crate) footprint: Resources,
    pub(crate) host_ports: Vec<HostPort>,
}

impl NodeRow {
    fn take(&mut self, demand: &Demand) {
        self.requested.add(&demand.requests);
        self.footprint.add(&demand.footprint);
        self.host_ports.extend(demand.host_ports.iter().cloned());
    }

    fn give_back(&mut self, demand: &Demand) {
        self.requested.subtract(&demand.requests);
        self.footprint.subtract(&demand.footprint);
        for port in &demand.host_ports {
            if let Some(position) = self.host_ports.iter().position(|one| one == port) {
                self.host_ports.swap_remove(position);
            }
        }
    }
}

/// All nodes, and where every placed pod stands.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<String, NodeRow>,
    placed: HashMap<String, Placed>,
}

#[derive(Debug)]
struct Placed {
    node: String,
    demand: Demand,
}

impl Cluster {
    pub(crate) fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeRow> {
        self.nodes.values()
    }

    /// Takes a node in or up to date; says whether anything a plugin reads changed, and whether the node is new.
    pub(crate) fn set_node(&mut self, node: &Node) -> NodeChange {
        let name = node.metadata.name.clone().unwrap_or_default();
        let fresh = NodeRow {
            name: name.clone(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: node.spec.taints.clone(),
            unschedulable: node.spec.unschedulable,
            allocatable: Resources::parse(&node.status.allocatable),
            ..NodeRow::default()
        };
        let Some(row) = self.nodes.get_mut(&name) else {
            let mut row = fresh;
            for placed in self.placed.values().filter(|placed| placed.node == name) {
                row.take(&placed.demand);
            }
            self.nodes.insert(name, row);
            return NodeChange::Added;
        };
        let same = row.labels == fresh.labels
            && row.taints == fresh.taints
            && row.unschedulable == fresh.unschedulable
            && row.allocatable == fresh.allocatable;
        if same {
            return NodeChange::None;
        }
        *row = NodeRow {
            requested: std::mem::take(&mut row.requested),
            footprint: std::mem::take(&mut row.footprint),
            host_ports: std::mem::take(&mut row.host_ports),
            ..fresh
        };
        NodeChange::Changed
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Counts a pod on a node, whether the API server says it is there or this scheduler just decided so.
    pub(crate) fn place(&mut self, uid: &str, node: &str, demand: Demand) {
        if self.placed.get(uid).is_some_and(|placed| placed.node == node && placed.demand == demand) {
            return;
        }
        self.forget(uid);
        if let Some(row) = self.nodes.get_mut(node) {
            row.take(&demand);
        }
        self.placed.insert(uid.to_owned(), Placed { node: node.to_owned(), demand });
    }

    /// Whether the pod counts on some node.
    pub(crate) fn holds(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Gives back what a pod took; says whether it was counted at all.
    pub(crate) fn forget(&mut self, uid: &str) -> bool {
        let Some(Placed { node, demand }) = self.placed.remove(uid) else { return false };
        if let Some(row) = self.nodes.get_mut(&node) {
            row.give_back(&demand);
        }
        true
    }
}

/// What [`Cluster::set_node`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeChange {
    Added,
    Changed,
    None,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_pod_asks_for_its_peak() {
        let requests = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"resources": requests("100m"), "restartPolicy": "Always"},
                {"resources": requests("900m")},
            ],
            "containers": [{"resources": requests("200m")}, {"resources": requests("300m")}],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        assert_eq!(Demand::of(&pod).requests.amount("cpu"), 1010);
    }

    proptest! {
        /// Whatever comes and goes in whatever order, the sums are those of the pods that are there.
        #[test]
        fn sums_never_drift(steps in proptest::collection::vec((0..6u8, 0..3u8, 0..500i64), 0..60)) {
            let mut cluster = Cluster::default();
            let mut model: HashMap<String, (String, i64)> = HashMap::new();
            let node = |n: u8| -> Node { serde_json::from_value(json!({"metadata": {"name": format!("n{n}")}})).unwrap() };
            cluster.set_node(&node(0));
            for (pod, place, amount) in steps {
                let uid = format!("p{pod}");
                let name = format!("n{place}");
                if amount == 0 {
                    cluster.forget(&uid);
                    model.remove(&uid);
                } else {
                    let requests = Resources([("cpu".to_owned(), amount)].into());
                    cluster.place(&uid, &name, Demand { requests, ..Demand::default() });
                    model.insert(uid, (name, amount));
                }
                cluster.set_node(&node(place));
            }
            for row in cluster.nodes() {
                let want: i64 = model.values().filter(|(node, _)| *node == row.name).map(|(_, amount)| amount).sum();
                prop_assert_eq!(row.requested.amount("cpu"), want);
            }
        }
    }
}
