//! What policies say of a packet, by the oracle, to each who may answer it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::drops::Drop;

use crate::desired::NodeFacts;
use crate::oracle::policy::{Cluster, Decision, Flow, Side, decide};
use crate::oracle::{Ask, Outcome, Packet, Way};
use crate::probe::Live;
use crate::tables::{ObjectName, Snapshot};

/// What policies say, by who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdicts {
    decisions: BTreeMap<IpAddr, Decision>,
    /// Those to whom this node lets the packet pass, and those to whom it does not.
    passes: BTreeSet<IpAddr>,
    denied: BTreeSet<IpAddr>,
    /// Where denied packets pass, and are told.
    audited: bool,
}

/// What policies say of a packet, wherever services send it.
pub fn verdicts(rows: &Snapshot, facts: &NodeFacts, packet: &Packet, outcome: &Outcome) -> Verdicts {
    let mut hosts = rows.host_addresses.clone();
    hosts.extend(&facts.addresses);
    let own = facts.addresses.iter().find(|own| own.is_ipv4() == packet.src.is_ipv4());
    let asked = match packet.ask {
        Ask::Port(protocol, port) => Some((protocol, port)),
        Ask::Echo => None,
    };
    let flows: Vec<Flow> = match outcome {
        Outcome::NotAService => vec![Flow { from: packet.src, to: packet.dst, port: asked }],
        Outcome::Forwarded(to) => {
            let flow = |(backend, way): (&std::net::SocketAddr, &Way)| Flow {
                from: if *way == Way::Hidden { own.copied().unwrap_or(packet.src) } else { packet.src },
                to: backend.ip(),
                port: asked.map(|(protocol, _)| (protocol, backend.port())),
            };
            to.backends.iter().map(flow).collect()
        }
        Outcome::Echo | Outcome::Refused(_) | Outcome::Dropped(_) => Vec::new(),
    };
    let mut verdicts = Verdicts {
        decisions: BTreeMap::new(),
        passes: BTreeSet::new(),
        denied: BTreeSet::new(),
        audited: false,
    };
    for flow in flows {
        let cluster = Cluster { rows: &rows.policy, nodes: &rows.nodes, hosts: &hosts };
        let decision = decide(cluster, flow);
        let ends = [(flow.from, &decision.egress), (flow.to, &decision.ingress)];
        let denying: Vec<bool> = ends
            .iter()
            .filter(|(_, side)| !side.passes())
            .filter_map(|(end, _)| is_audited(rows, *end))
            .collect();
        verdicts.audited |= denying.contains(&true);
        let by_this_node = denying.contains(&false);
        if by_this_node { &mut verdicts.denied } else { &mut verdicts.passes }.insert(flow.to);
        verdicts.decisions.insert(flow.to, decision);
    }
    verdicts
}

/// Whether the pod of this node that has an address is audited; `None` if no pod here has it.
fn is_audited(rows: &Snapshot, address: IpAddr) -> Option<bool> {
    let own = rows.endpoints.values().find(|endpoint| endpoint.addresses.contains(&address))?;
    Some(rows.policy.namespaces.get(&own.pod_namespace).is_some_and(|namespace| namespace.audit))
}

impl Verdicts {
    /// In words, each different answer once.
    pub fn text(&self) -> String {
        let mut by_words = BTreeMap::<String, Vec<String>>::new();
        for (to, decision) in &self.decisions {
            by_words.entry(words(decision)).or_default().push(to.to_string());
        }
        let audit = if self.audited { "; audited: what this node denies passes" } else { "" };
        let several = by_words.len() > 1;
        let lines = by_words
            .into_iter()
            .map(|(words, to)| if several { format!("to {}: {words}", to.join(", ")) } else { words });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() { "none applies".to_owned() } else { format!("{}{audit}", lines.join("; ")) }
    }

    /// Whether the programs dropped the packet because of policies.
    pub fn is_drop(live: &Live) -> bool {
        let names = [Drop::PolicyEgress, Drop::PolicyIngress].map(|reason| format!("{reason:?}"));
        matches!(live, Live::Dropped(reasons) if reasons.iter().any(|reason| names.iter().any(|name| name == reason)))
    }

    /// What is wrong, if the programs let pass what policies deny, or the other way round.
    pub fn disagreement(&self, live: &Live) -> Option<String> {
        let dropped = Self::is_drop(live);
        let agrees =
            if dropped { !self.denied.is_empty() } else { self.denied.is_empty() || !self.passes.is_empty() };
        // Something else may have kept the packet from getting there.
        let is_silent = !dropped && matches!(live, Live::Dropped(_) | Live::Refused(_) | Live::Odd(_));
        (!agrees && !is_silent).then(|| format!("policies say {}, the programs did {live:?}", self.text()))
    }
}

fn words(decision: &Decision) -> String {
    format!("egress {}, ingress {}", side(&decision.egress), side(&decision.ingress))
}

fn side(side: &Side) -> String {
    let name = |policy: &ObjectName| format!("{}/{}", policy.namespace, policy.name);
    match side {
        Side::NotIsolated => "allowed: no policy isolates it".to_owned(),
        Side::Node => "allowed: the other side is this node".to_owned(),
        Side::Allowed { policy, rule } => format!("allowed by {} rule {rule}", name(policy)),
        Side::Denied { policies } => {
            format!(
                "denied: no rule of {} allows it",
                policies.iter().map(name).collect::<Vec<_>>().join(", ")
            )
        }
        Side::Decided(by) if by.accepts => format!("allowed by {by}"),
        Side::Decided(by) => format!("denied by {by}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::oracle::Client;
    use crate::tables::policy::{ClusterPod, Namespace, Policy, Rule};
    use crate::tables::{Endpoint, Protocol};

    const POD: &str = "10.244.1.2";
    const FAR: &str = "10.244.2.2";

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    /// A pod of this node that may only send what `egress` says, and one elsewhere.
    fn rows(egress: Vec<Rule>) -> Snapshot {
        let mut rows = Snapshot::default();
        for (pod, address) in [("own", POD), ("far", FAR)] {
            let row = ClusterPod { addresses: [address.parse().unwrap()].into(), ..ClusterPod::default() };
            rows.policy.pods.insert(name(pod), Arc::new(row));
        }
        let endpoint = Endpoint {
            container_id: "own".into(),
            pod_namespace: "default".into(),
            pod_name: "own".into(),
            addresses: vec![POD.parse().unwrap()],
            ..Endpoint::default()
        };
        rows.endpoints.insert(endpoint.id(), endpoint);
        let policy = Policy { egress: Some(egress), ..Policy::default() };
        rows.policy.policies.insert(name("few"), Arc::new(policy));
        rows
    }

    fn ask(rows: &Snapshot) -> Verdicts {
        let packet = Packet {
            client: Client::Pod,
            src: POD.parse().unwrap(),
            dst: FAR.parse().unwrap(),
            ask: Ask::Port(Protocol::Tcp, 80),
        };
        verdicts(rows, &NodeFacts::default(), &packet, &Outcome::NotAService)
    }

    #[test]
    fn the_policy_and_the_rule_that_decide_are_named() {
        let denied = ask(&rows(Vec::new()));
        assert_eq!(
            denied.text(),
            "egress denied: no rule of default/few allows it, ingress allowed: no policy isolates it"
        );
        let everybody = Rule { index: 3, peers: None, ports: None };
        let allowed = ask(&rows(vec![everybody]));
        assert!(allowed.text().starts_with("egress allowed by default/few rule 3"), "{}", allowed.text());
    }

    #[test]
    fn rules_of_the_cluster_are_named_with_their_tier() {
        let mut rows = rows(Vec::new());
        let object = serde_json::json!({ "metadata": { "name": "guard" }, "spec": {
            "tier": "Admin", "priority": 1, "subject": { "namespaces": {} },
            "egress": [{ "name": "all", "action": "Accept", "to": [{ "namespaces": {} }] }],
            "ingress": [{ "action": "Deny", "from": [{ "namespaces": {} }] }],
        } });
        assert!(crate::sources::kube::learn(&mut rows, "ClusterNetworkPolicy", object).unwrap());
        let want = "egress allowed by rule 0 of ClusterNetworkPolicy guard (Admin, \"all\"), \
                    ingress denied by rule 0 of ClusterNetworkPolicy guard (Admin)";
        assert_eq!(ask(&rows).text(), want);
    }

    #[test]
    fn programs_that_do_otherwise_are_told() {
        let dropped = Live::Dropped(vec!["PolicyEgress"]);
        let denied = ask(&rows(Vec::new()));
        assert_eq!(denied.disagreement(&dropped), None);
        assert!(denied.disagreement(&Live::Untouched).is_some());
        let allowed = ask(&rows(vec![Rule { index: 0, peers: None, ports: None }]));
        assert_eq!(allowed.disagreement(&Live::Untouched), None);
        assert!(allowed.disagreement(&dropped).is_some());

        let mut audited = rows(Vec::new());
        let namespace = Namespace { audit: true, ..Namespace::default() };
        audited.policy.namespaces.insert("default".into(), Arc::new(namespace));
        let audited = ask(&audited);
        assert_eq!(audited.disagreement(&Live::Untouched), None);
        assert!(audited.text().ends_with("audited: what this node denies passes"), "{}", audited.text());
    }
}
