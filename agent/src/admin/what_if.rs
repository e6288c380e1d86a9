//! `hawser-agent policy what-if`: the live flows of this node that other policies would cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use abi::flow::{Flow as Entry, FlowKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::desired::NodeFacts;
use crate::kernel::{KernelError, flow_table};
use crate::oracle::policy::{Cluster, Decision, Flow, Side, decide};
use crate::sources::kube::asked::{Read, Unreadable, read_policy};
use crate::tables::{PolicyRows, Protocol, Snapshot, Tables};

/// What somebody wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// NetworkPolicies and ClusterNetworkPolicies, as the API has them.
    pub policies: Vec<serde_json::Value>,
    /// Whether they would be deleted, not applied.
    pub delete: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Consequences {
    /// Flows that were looked at.
    pub flows: usize,
    /// Those that pass now, and would not.
    pub cut: Vec<Cut>,
    /// What could not be used of the policies.
    pub notes: Vec<String>,
}

/// A flow that would be cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// Who began it.
    pub from: SocketAddr,
    /// The pod that has the address, as `namespace/name`.
    pub from_pod: Option<String>,
    /// Who is asked, behind any Service.
    pub to: SocketAddr,
    /// The pod that has the address.
    pub to_pod: Option<String>,
    /// `TCP`, `UDP`, `SCTP`, or the number of another protocol.
    pub protocol: String,
    /// At which end, and by which policies.
    pub because: String,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// A document is no policy.
    #[error(transparent)]
    Policy(#[from] Unreadable),
    /// The kernel is none that has flows.
    #[error("this kernel has no flows")]
    NoFlows,
    /// The kernel did not answer.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What answering needs to know.
#[derive(Debug, Clone)]
pub struct Foresight {
    /// The tables.
    pub tables: Arc<Tables>,
    /// Facts of the node.
    pub facts: NodeFacts,
    /// Folder of programs and maps.
    pub pins: Option<PathBuf>,
}

impl Foresight {
    /// Answers. Must not run inside an async runtime.
    pub fn answer(&self, proposal: &Proposal) -> Result<Consequences, Unanswered> {
        let flows = flow_table::begun(self.pins.as_deref().ok_or(Unanswered::NoFlows)?)?;
        let flows: Vec<Live> = flows.iter().map(|(key, flow)| Live::of(key, flow)).collect();
        self.tables.look(|rows| consequences(rows, &self.facts, proposal, &flows))
    }
}

/// A flow of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Who began it.
    pub from: SocketAddr,
    /// Who is asked.
    pub to: SocketAddr,
    /// IP protocol number.
    pub proto: u8,
}

impl Live {
    fn of(key: &FlowKey, flow: &Entry) -> Self {
        Self {
            from: SocketAddr::new(key.tuple.src.ip(), key.tuple.sport.host()),
            to: SocketAddr::new(flow.to.dst.ip(), flow.to.dport.host()),
            proto: key.proto,
        }
    }

    fn protocol(self) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|known| known.number() == self.proto)
    }

    fn asked(self) -> Flow {
        let port = self.protocol().map(|protocol| (protocol, self.to.port()));
        Flow { from: self.from.ip(), to: self.to.ip(), port }
    }
}

/// Which of `flows` pass by the policies of `rows`, and would not by those with `proposal`.
pub fn consequences(
    rows: &Snapshot,
    facts: &NodeFacts,
    proposal: &Proposal,
    flows: &[Live],
) -> Result<Consequences, Unanswered> {
    let mut hosts = rows.host_addresses.clone();
    hosts.extend(&facts.addresses);
    let mut notes = Vec::new();
    let after = propose(&rows.policy, proposal, &mut notes)?;
    let mut cut = BTreeSet::new();
    for live in flows {
        let denied = |policies: &PolicyRows| {
            let cluster = Cluster { rows: policies, nodes: &rows.nodes, hosts: &hosts };
            because(rows, &decide(cluster, live.asked()), *live)
        };
        if let (None, Some(because)) = (denied(&rows.policy), denied(&after)) {
            cut.insert(Cut {
                from: live.from,
                from_pod: pod(&rows.policy, live.from.ip()),
                to: live.to,
                to_pod: pod(&rows.policy, live.to.ip()),
                protocol: live
                    .protocol()
                    .map_or_else(|| live.proto.to_string(), |known| format!("{known:?}").to_uppercase()),
                because,
            });
        }
    }
    Ok(Consequences { flows: flows.len(), cut: cut.into_iter().collect(), notes })
}

fn propose(
    rows: &PolicyRows,
    proposal: &Proposal,
    notes: &mut Vec<String>,
) -> Result<PolicyRows, Unanswered> {
    let mut after = rows.clone();
    for document in &proposal.policies {
        let (read, complaints) = read_policy(document.clone())?;
        let name = read.to_string();
        if !proposal.delete {
            notes.extend(complaints.into_iter().map(|complaint| format!("{name}: {}", complaint.message)));
        }
        let was_there = match read {
            Read::Namespaced(key, row) => replace(&mut after.policies, key, row, proposal.delete),
            Read::Cluster(key, row) => replace(&mut after.cluster, key, row, proposal.delete),
        };
        if proposal.delete && !was_there {
            notes.push(format!("{name} does not exist"));
        }
    }
    Ok(after)
}

/// Puts a row in its place, or only takes away what is there; answers whether there was any.
fn replace<K: Ord, V>(rows: &mut BTreeMap<K, Arc<V>>, key: K, row: V, delete: bool) -> bool {
    if delete { rows.remove(&key).is_some() } else { rows.insert(key, Arc::new(row)).is_some() }
}

/// Which end that is on this node denies a flow, and by which policies.
fn because(rows: &Snapshot, decision: &Decision, live: Live) -> Option<String> {
    let ends = [("egress", &decision.egress, live.from), ("ingress", &decision.ingress, live.to)];
    ends.into_iter().find_map(|(direction, side, end)| {
        let because = match side {
            Side::NotIsolated | Side::Node | Side::Allowed { .. } => return None,
            Side::Decided(by) if by.accepts => return None,
            Side::Decided(by) => format!("{direction}: {by} denies it"),
            Side::Denied { policies } => {
                let names: Vec<String> =
                    policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
                format!("{direction}: no rule of {} allows it", names.join(", "))
            }
        };
        is_enforced(rows, end.ip()).then_some(because)
    })
}

/// Whether an address is that of a pod of this node, in a namespace that is not only audited.
fn is_enforced(rows: &Snapshot, address: IpAddr) -> bool {
    rows.endpoints.values().any(|endpoint| {
        let namespace = rows.policy.namespaces.get(&endpoint.pod_namespace);
        endpoint.addresses.contains(&address) && !namespace.is_some_and(|namespace| namespace.audit)
    })
}

fn pod(rows: &PolicyRows, address: IpAddr) -> Option<String> {
    let has = rows.pods.iter().find(|(_, pod)| !pod.finished && pod.addresses.contains(&address));
    has.map(|(name, _)| format!("{}/{}", name.namespace, name.name))
}

impl fmt::Display for Consequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let end = |address: SocketAddr, pod: &Option<String>| match pod {
            Some(pod) => format!("{address} ({pod})"),
            None => address.to_string(),
        };
        for cut in &self.cut {
            let (from, to) = (end(cut.from, &cut.from_pod), end(cut.to, &cut.to_pod));
            writeln!(f, "{} {from} to {to}: {}", cut.protocol, cut.because)?;
        }
        writeln!(f, "{} of {} flows of this node would be cut", self.cut.len(), self.flows)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tables::policy::{ClusterPod, Namespace};
    use crate::tables::{Endpoint, Node, ObjectName};

    /// `web`, which is on this node, and `far`, which is not.
    fn rows() -> Snapshot {
        let mut rows = Snapshot::default();
        for (name, address) in [("web", "10.0.0.1"), ("far", "10.0.1.1")] {
            let key = ObjectName { namespace: "x".into(), name: name.into() };
            let row = ClusterPod { addresses: [address.parse().unwrap()].into(), ..ClusterPod::default() };
            rows.policy.pods.insert(key, Arc::new(row));
        }
        let endpoint = Endpoint {
            container_id: "web".into(),
            pod_namespace: "x".into(),
            pod_name: "web".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..Endpoint::default()
        };
        rows.endpoints.insert(endpoint.id(), endpoint);
        rows
    }

    fn live(from: &str, to: &str, proto: u8) -> Live {
        Live { from: from.parse().unwrap(), to: to.parse().unwrap(), proto }
    }

    fn only_tcp_80(delete: bool) -> Proposal {
        let spec = json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 80 }] }] });
        let policy =
            json!({ "kind": "NetworkPolicy", "metadata": { "namespace": "x", "name": "few" }, "spec": spec });
        Proposal { policies: vec![policy], delete }
    }

    fn ask(rows: &Snapshot, proposal: &Proposal) -> Consequences {
        let flows = [
            live("10.0.1.1:4000", "10.0.0.1:80", 6),
            live("10.0.1.1:4001", "10.0.0.1:81", 6),
            live("10.0.1.1:0", "10.0.0.1:0", 1),
            live("10.0.0.1:4002", "10.0.1.1:81", 17),
        ];
        consequences(rows, &NodeFacts::default(), proposal, &flows).unwrap()
    }

    #[test]
    fn a_rule_about_nodes_cuts_what_goes_to_their_addresses() {
        let mut rows = rows();
        let labels = Arc::new([("role".into(), "control".into())].into());
        let node = Node { addresses: vec!["192.0.2.9".parse().unwrap()], labels, ..Node::default() };
        rows.nodes.insert("n9".into(), Arc::new(node));
        let cut_by = |role: &str| {
            let deny = json!({ "action": "Deny", "to": [{ "nodes": { "matchLabels": { "role": role } } }] });
            let policy = json!({
                "kind": "ClusterNetworkPolicy", "metadata": { "name": "guard" },
                "spec": { "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": [deny] },
            });
            let flows = [
                live("10.0.0.1:4000", "192.0.2.9:6443", 6),
                live("10.0.0.1:4001", "192.0.2.8:6443", 6),
                live("192.0.2.9:4002", "10.0.0.1:80", 6),
            ];
            let proposal = Proposal { policies: vec![policy], delete: false };
            consequences(&rows, &NodeFacts::default(), &proposal, &flows).unwrap().cut
        };
        let cut = cut_by("control");
        let cut: Vec<(String, &str)> = cut.iter().map(|cut| (cut.to.to_string(), &*cut.because)).collect();
        let because = "egress: rule 0 of ClusterNetworkPolicy guard (Admin) denies it";
        assert_eq!(cut, [("192.0.2.9:6443".to_owned(), because)]);
        assert!(cut_by("worker").is_empty());
    }

    #[test]
    fn flows_that_pass_now_and_would_not_are_named() {
        let mut rows = rows();
        let answer = ask(&rows, &only_tcp_80(false));
        let cut: Vec<(String, &str)> =
            answer.cut.iter().map(|cut| (cut.to.to_string(), &*cut.protocol)).collect();
        assert_eq!(cut, [("10.0.0.1:0".to_owned(), "1"), ("10.0.0.1:81".to_owned(), "TCP")], "{answer}");
        assert_eq!(answer.cut[0].because, "ingress: no rule of x/few allows it");
        assert_eq!(answer.cut[0].from_pod.as_deref(), Some("x/far"));
        assert_eq!(rows.policy.policies.len(), 0, "nothing is applied");

        let audited = Namespace { audit: true, ..Namespace::default() };
        rows.policy.namespaces.insert("x".into(), Arc::new(audited));
        assert!(ask(&rows, &only_tcp_80(false)).cut.is_empty(), "an audited namespace loses nothing");
    }

    #[test]
    fn policies_of_the_cluster_cut_as_well() {
        let rows = rows();
        let policy = json!({ "kind": "ClusterNetworkPolicy", "metadata": { "name": "guard" }, "spec": {
            "tier": "Baseline", "priority": 1, "subject": { "namespaces": {} },
            "egress": [{ "action": "Deny", "to": [{ "namespaces": {} }], "protocols": [{ "udp": {} }] }],
        } });
        let answer = ask(&rows, &Proposal { policies: vec![policy.clone()], delete: false });
        assert_eq!(answer.cut.len(), 1, "{answer}");
        assert_eq!(
            answer.cut[0].because,
            "egress: rule 0 of ClusterNetworkPolicy guard (Baseline) denies it"
        );
        let answer = ask(&rows, &Proposal { policies: vec![policy], delete: true });
        assert_eq!(answer.notes, ["guard does not exist"]);
    }

    #[test]
    fn a_policy_that_allows_is_missed_when_it_is_deleted() {
        let mut rows = rows();
        for (name, spec) in [
            ("few", json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 80 }] }] })),
            ("none", json!({ "podSelector": {} })),
        ] {
            let object = json!({ "metadata": { "namespace": "x", "name": name }, "spec": spec });
            let (Read::Namespaced(name, policy), _) = read_policy(object).unwrap() else {
                panic!("it has a namespace")
            };
            rows.policy.policies.insert(name, Arc::new(policy));
        }
        let answer = ask(&rows, &only_tcp_80(true));
        assert_eq!(answer.cut.len(), 1, "{answer}");
        assert_eq!(answer.cut[0].to.to_string(), "10.0.0.1:80");
        assert_eq!(answer.cut[0].because, "ingress: no rule of x/none allows it");
    }

    #[test]
    fn what_is_no_policy_or_cannot_be_used_is_said() {
        let wrong =
            Proposal { policies: vec![json!({ "kind": "Pod", "metadata": { "name": "a" } })], delete: false };
        let error = consequences(&rows(), &NodeFacts::default(), &wrong, &[]).unwrap_err();
        assert_eq!(error.to_string(), "a document is a Pod, not a NetworkPolicy or a ClusterNetworkPolicy");
        let mut proposal = only_tcp_80(false);
        proposal.policies[0]["spec"]["ingress"][0]["ports"][0]["port"] = json!(0);
        let answer = ask(&rows(), &proposal);
        assert!(answer.notes[0].starts_with("x/few: spec.ingress[0].ports[0].port"), "{:?}", answer.notes);
        assert_eq!(ask(&rows(), &only_tcp_80(true)).notes, ["x/few does not exist"]);
    }
}
