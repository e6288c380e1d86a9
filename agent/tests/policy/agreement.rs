//! On any cluster, through any changes: the rows decide as the oracle does, and are those of a compiler that begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent::desired::policy::Policies;
use agent::desired::policy::lookup::Asked;
use agent::oracle::policy::{Cluster, Flow, decide};
use agent::tables::Protocol::{self, Sctp, Tcp, Udp};
use agent::tables::policy::{
    Action, ClusterPod, ClusterPolicy, ClusterRule, Holds, Labels, NamedPort, Namespace, Peer, Policy, Ports,
    Requirement, Rule, Selector, Tier,
};
use agent::tables::{Endpoint, Node, ObjectName, PolicyChanges, Snapshot, Source};
use proptest::prelude::*;

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Step {
    Policy(u8, u8, Option<Policy>),
    Cluster(u8, Option<ClusterPolicy>),
    Namespace(u8, Option<Labels>),
    Pod(u8, u8, Option<ClusterPod>),
    Node(u8, Option<Node>),
    /// A pod is attached to this node, or leaves it.
    Endpoint(u8, u8, bool),
    Settle,
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(0..2_u8, 0..2_u8, 0..3).prop_map(|map| {
        map.into_iter().map(|(key, value)| (format!("k{key}").into(), value.to_string().into())).collect()
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = || {
        prop::collection::btree_set(0..2_u8, 1..3)
            .prop_map(|values| values.into_iter().map(|value| Arc::from(value.to_string())).collect())
    };
    let holds = prop_oneof![
        3 => values().prop_map(Holds::In),
        2 => values().prop_map(Holds::NotIn),
        1 => Just(Holds::Exists),
        1 => Just(Holds::DoesNotExist),
    ];
    prop::collection::btree_set((0..2_u8, holds), 0..3).prop_map(|set| Selector {
        requirements: set
            .into_iter()
            .map(|(key, holds)| Requirement { key: format!("k{key}").into(), holds })
            .collect(),
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Tcp), Just(Udp), Just(Sctp)]
}

/// Blocks that overlap, nest, and cut through pods of both families.
const BLOCKS: [&str; 10] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/30",
    "10.0.0.4/30",
    "10.0.0.1/32",
    "::/0",
    "fd00::/16",
    "fd00::/126",
    "fd00::1/128",
    "::/90",
];

fn block() -> impl Strategy<Value = Peer> {
    (0..BLOCKS.len(), prop::collection::btree_set(0..BLOCKS.len(), 0..3)).prop_map(|(cidr, except)| {
        let network = |at: usize| BLOCKS[at].parse::<ipnetwork::IpNetwork>().unwrap();
        let cidr = network(cidr);
        let inside = |one: &ipnetwork::IpNetwork| {
            one.is_ipv4() == cidr.is_ipv4() && one.prefix() > cidr.prefix() && cidr.contains(one.network())
        };
        Peer::Block { cidr, except: except.into_iter().map(network).filter(inside).collect() }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let peer = prop_oneof![
        2 => (prop::option::of(selector()), selector()).prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        1 => block(),
        1 => selector().prop_map(Peer::Nodes),
    ];
    let ports = prop_oneof![
        2 => (protocol(), 1..6_u16, 0..4_u16).prop_map(|(protocol, first, more)| Ports::Range(protocol, first, first + more)),
        1 => protocol().prop_map(|protocol| Ports::Range(protocol, 0, u16::MAX)),
        2 => (protocol(), 0..2_u8).prop_map(|(protocol, name)| Ports::Named(protocol, format!("p{name}").into())),
    ];
    (
        prop::option::weighted(0.8, prop::collection::vec(peer, 1..3)),
        prop::option::weighted(0.7, prop::collection::vec(ports, 1..3)),
    )
        .prop_map(|(peers, ports)| Rule { index: 0, peers, ports })
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = || {
        prop::option::weighted(0.6, prop::collection::vec(rule(), 0..3)).prop_map(|rules| {
            let numbered =
                |rules: Vec<Rule>| (0..).zip(rules).map(|(index, rule)| Rule { index, ..rule }).collect();
            rules.map(numbered)
        })
    };
    (selector(), rules(), rules()).prop_map(|(pods, ingress, egress)| Policy { pods, ingress, egress })
}

/// No namespace is a ClusterNetworkPolicy's own: its peers say which.
fn of_cluster(mut rule: Rule) -> Rule {
    for peer in rule.peers.iter_mut().flatten() {
        if let Peer::Pods { namespaces, .. } = peer {
            namespaces.get_or_insert_default();
        }
    }
    rule
}

fn cluster_policy() -> impl Strategy<Value = ClusterPolicy> {
    let action = || prop_oneof![Just(Action::Accept), Just(Action::Deny), Just(Action::Pass)];
    let rules = || {
        prop::collection::vec((rule(), action()), 0..4).prop_map(|rules| {
            let numbered = (0..).zip(rules).map(|(index, (rule, action))| ClusterRule {
                fits: of_cluster(Rule { index, ..rule }),
                action,
                name: None,
            });
            numbered.collect()
        })
    };
    let tier = prop_oneof![Just(Tier::Admin), Just(Tier::Baseline)];
    (tier, 0..3_u16, selector(), selector(), rules(), rules()).prop_map(
        |(tier, priority, namespaces, pods, ingress, egress)| ClusterPolicy {
            tier,
            priority,
            namespaces,
            pods,
            ingress,
            egress,
        },
    )
}

fn pod() -> impl Strategy<Value = ClusterPod> {
    let port = (0..2_u8, protocol(), 1..6_u16).prop_map(|(name, protocol, port)| NamedPort {
        name: format!("p{name}").into(),
        protocol,
        port,
    });
    let state = (prop::bool::weighted(0.05), prop::bool::weighted(0.05), 0..3_i64);
    (labels(), prop::collection::vec(port, 0..3), prop::option::weighted(0.9, 1..16_u8), state).prop_map(
        |(labels, ports, last, (host_network, finished, created))| ClusterPod {
            addresses: last.map(both).into_iter().flatten().collect(),
            labels: Arc::new(labels),
            ports: ports.into(),
            host_network,
            finished,
            uid: 0,
            created,
        },
    )
}

/// Its addresses may be pods', another node's, or this node's.
fn node() -> impl Strategy<Value = Node> {
    let last = || prop::option::weighted(0.8, 1..20_u8);
    (labels(), last(), last()).prop_map(|(labels, inner, outer)| Node {
        addresses: inner.map(both).into_iter().flatten().collect(),
        outer_addresses: outer.map(both).into_iter().flatten().collect(),
        labels: Arc::new(labels),
        ..Node::default()
    })
}

pub fn both(last: u8) -> [IpAddr; 2] {
    [format!("10.0.0.{last}").parse().unwrap(), format!("fd00::{last}").parse().unwrap()]
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u8, 0..3_u8, prop::option::weighted(0.8, policy())).prop_map(|(ns, name, row)| Step::Policy(ns, name, row)),
        2 => (0..3_u8, prop::option::weighted(0.7, cluster_policy())).prop_map(|(name, row)| Step::Cluster(name, row)),
        1 => (0..2_u8, prop::option::weighted(0.8, labels())).prop_map(|(ns, row)| Step::Namespace(ns, row)),
        4 => (0..2_u8, 0..4_u8, prop::option::weighted(0.8, pod())).prop_map(|(ns, name, row)| Step::Pod(ns, name, row)),
        2 => (0..3_u8, prop::option::weighted(0.8, node())).prop_map(|(name, row)| Step::Node(name, row)),
        2 => (0..2_u8, 0..4_u8, prop::bool::weighted(0.8)).prop_map(|(ns, name, here)| Step::Endpoint(ns, name, here)),
        2 => Just(Step::Settle),
    ]
}

pub fn name(namespace: u8, name: u8) -> ObjectName {
    ObjectName { namespace: format!("n{namespace}"), name: name.to_string() }
}

/// Changes the rows; answers with what changed.
pub fn apply(tables: &mut Snapshot, step: &Step) -> PolicyChanges {
    let mut changes = PolicyChanges::default();
    match step {
        Step::Policy(namespace, policy, row) => {
            set(&mut tables.policy.policies, name(*namespace, *policy), row.clone());
            changes.policies = true;
        }
        Step::Cluster(policy, row) => {
            set(&mut tables.policy.cluster, policy.to_string(), row.clone());
            changes.policies = true;
        }
        Step::Namespace(namespace, labels) => {
            let row = labels.clone().map(|labels| Namespace { labels: Arc::new(labels), audit: false });
            set(&mut tables.policy.namespaces, format!("n{namespace}"), row);
            changes.namespaces = true;
        }
        Step::Pod(namespace, pod, row) => {
            let name = name(*namespace, *pod);
            set(&mut tables.policy.pods, name.clone(), row.clone());
            changes.pods.insert(name);
        }
        Step::Node(node, row) => set(&mut tables.nodes, node.to_string(), row.clone()),
        Step::Endpoint(namespace, pod, here) => {
            let name = name(*namespace, *pod);
            let row = Endpoint {
                container_id: format!("{}/{}", name.namespace, name.name),
                pod_namespace: name.namespace.clone(),
                pod_name: name.name.clone(),
                addresses: tables
                    .policy
                    .pods
                    .get(&name)
                    .map(|row| row.addresses.to_vec())
                    .unwrap_or_default(),
                ..Endpoint::default()
            };
            if *here {
                tables.endpoints.insert(row.id(), row);
            } else {
                tables.endpoints.remove(&row.id());
            }
        }
        Step::Settle => {}
    }
    changes
}

fn set<K: Ord, T>(table: &mut BTreeMap<K, Arc<T>>, key: K, row: Option<T>) {
    match row {
        Some(row) => drop(table.insert(key, Arc::new(row))),
        None => drop(table.remove(&key)),
    }
}

pub fn hosts() -> BTreeSet<IpAddr> {
    both(6).into()
}

pub fn anew(tables: &Snapshot) -> Policies {
    let mut policies = Policies::default();
    policies.update(tables, &PolicyChanges::default(), true, &hosts());
    policies.settle(tables);
    policies
}

/// Every local pod whose row tells of its addresses, against every address.
fn hold(tables: &Snapshot, policies: &Policies) {
    let outside = ["10.0.0.200", "192.0.2.1", "2001:db8::1", "fd00:1::1"].map(|text| text.parse().unwrap());
    let hosts = hosts();
    let peers: Vec<IpAddr> = (1..20).flat_map(both).chain(outside).collect();
    for (id, endpoint) in &tables.endpoints {
        let pod = ObjectName { namespace: endpoint.pod_namespace.clone(), name: endpoint.pod_name.clone() };
        let Some(row) = tables.policy.pods.get(&pod) else { continue };
        let Some(policed) = policies.state.endpoints.get(id) else { panic!("{pod:?} is known") };
        for own in &row.addresses {
            if !is_settled(tables, *own, &pod, row) {
                continue;
            }
            let family = peers.iter().filter(|peer| peer.is_ipv4() == own.is_ipv4() && *peer != own);
            for peer in family {
                for port in
                    [None, Some((Tcp, 1)), Some((Tcp, 5)), Some((Udp, 3)), Some((Sctp, 2)), Some((Tcp, 4000))]
                {
                    let (proto, number) = port.map_or((1, 0), |(protocol, port)| (protocol.number(), port));
                    let asked = Asked { peer: *peer, proto, port: number };
                    let cluster = Cluster { rows: &tables.policy, nodes: &tables.nodes, hosts: &hosts };
                    let out = decide(cluster, Flow { from: *own, to: *peer, port }).egress;
                    let into = decide(cluster, Flow { from: *peer, to: *own, port }).ingress;
                    assert_eq!(
                        policies.state.verdict(policed.egress, asked).allow,
                        out.passes(),
                        "{own} to {peer} {port:?}: {out:?}"
                    );
                    assert_eq!(
                        policies.state.verdict(policed.ingress, asked).allow,
                        into.passes(),
                        "{peer} to {own} {port:?}: {into:?}"
                    );
                }
            }
        }
    }
}

/// Whether an address is this pod's, by everything that claims it.
fn is_settled(tables: &Snapshot, address: IpAddr, pod: &ObjectName, row: &ClusterPod) -> bool {
    let others = tables.policy.pods.iter().filter(|(name, _)| *name != pod);
    !hosts().contains(&address)
        && !row.host_network
        && !row.finished
        && others.into_iter().all(|(_, other)| !other.addresses.contains(&address))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 150, max_shrink_iters: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn rows_and_oracle_agree_after_every_change(steps in prop::collection::vec(step(), 1..50)) {
        let synced = [Source::Policies, Source::ClusterPolicies, Source::Namespaces, Source::ClusterPods, Source::Nodes].into();
        let mut tables = Snapshot { synced, ..Snapshot::default() };
        let mut policies = Policies::default();
        for step in &steps {
            let changes = apply(&mut tables, step);
            policies.update(&tables, &changes, false, &hosts());
            if matches!(step, Step::Settle) {
                policies.settle(&tables);
            }
            if unclaimed(&tables) {
                hold(&tables, &policies);
            }
        }
        policies.settle(&tables);
        let fresh = anew(&tables);
        if policies.state.endpoints == fresh.state.endpoints {
            prop_assert_eq!(&policies.state, &fresh.state);
        } else {
            // A pod that was deleted, but is still there, stays what it was; nobody who begins anew can know.
            let known = |id| { let one: &Endpoint = &tables.endpoints[id]; tables.policy.pods.contains_key(&ObjectName { namespace: one.pod_namespace.clone(), name: one.pod_name.clone() }) };
            for (id, policed) in &policies.state.endpoints {
                prop_assert!(!known(id) || fresh.state.endpoints.get(id) == Some(policed));
            }
        }
    }
}

/// Whether no address of this node's pods is said to be another pod's as well: then the oracle cannot know whose it is.
fn unclaimed(tables: &Snapshot) -> bool {
    tables.endpoints.values().all(|endpoint| {
        let own = ObjectName { namespace: endpoint.pod_namespace.clone(), name: endpoint.pod_name.clone() };
        let row = tables.policy.pods.get(&own);
        let is_own = row.is_some_and(|row| {
            row.addresses[..] == endpoint.addresses[..] && !row.finished && !row.host_network
        });
        let others = tables
            .policy
            .pods
            .iter()
            .filter(|(name, row)| **name != own && !row.finished && !row.host_network);
        endpoint.addresses.is_empty()
            || is_own
                && others
                    .into_iter()
                    .all(|(_, row)| !row.addresses.iter().any(|one| endpoint.addresses.contains(one)))
    })
}
