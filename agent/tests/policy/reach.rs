//! From any state, under any failures: the kernel gets to what policies say, and on the way nothing passes that neither the
//! policies of before nor those of after let pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::policy::{action, identity};
use agent::desired::NodeFacts;
use agent::desired::endpoints::attachment;
use agent::desired::policy::Policed;
use agent::desired::policy::lookup::Asked;
use agent::kernel::fake::FakeKernel;
use agent::reconcile::actual::{Actual, Op};
use agent::reconcile::apply::Reconciler;
use agent::tables::policy::{
    Action, ClusterPod, ClusterPolicy, ClusterRule, Holds, Peer, Policy, Ports, Requirement, Rule, Selector,
    Tier,
};
use agent::tables::{PolicyChanges, Protocol, Snapshot, Source, Tables};
use proptest::prelude::*;

use crate::agreement::{Step, anew, apply, both, hosts, name, step};

/// A direction of a local pod, the other side, and the port.
type Way = (String, bool, IpAddr, (u8, u16));

const PORTS: [(u8, u16); 3] = [(6, 1), (6, 5), (17, 3)];

fn peers() -> Vec<IpAddr> {
    (1..17).map(|last| both(last)[0]).chain(["192.0.2.1".parse().unwrap()]).collect()
}

fn facts() -> NodeFacts {
    NodeFacts { name: "n1".into(), addresses: hosts().into_iter().collect(), ..NodeFacts::default() }
}

/// What programs would do with what is in the kernel.
fn passes(actual: &Actual, set: u32, asked: Asked) -> bool {
    let around = actual.cidrs.iter().filter(|(network, _)| network.contains(asked.peer));
    let around =
        around.max_by_key(|(network, _)| network.prefix()).map_or(identity::WORLD, |(_, number)| *number);
    let number = actual.identities.get(&asked.peer).copied().unwrap_or(around);
    if set == 0 || number == identity::HOST {
        return true;
    }
    let longest = |number| {
        let rows = actual.rulings.get(&(set, number))?;
        let fitting = rows.iter().filter(|(row, _)| row.fits(asked.proto, asked.port));
        fitting.max_by_key(|(row, _)| row.bits).map(|(_, ruling)| ruling.action == action::ALLOW)
    };
    longest(number).or_else(|| longest(identity::ANYBODY)).unwrap_or(false)
}

fn ways(policed: Policed, answer: impl Fn(u32, Asked) -> bool) -> BTreeMap<(bool, IpAddr, (u8, u16)), bool> {
    let all = peers().into_iter().flat_map(|peer| PORTS.map(|port| (peer, port)));
    let both = all.flat_map(|(peer, port)| {
        let asked = Asked { peer, proto: port.0, port: port.1 };
        [(false, policed.egress), (true, policed.ingress)]
            .map(|(way, set)| ((way, peer, port), answer(set, asked)))
    });
    both.collect()
}

/// What the kernel does.
fn does(actual: &Actual) -> BTreeMap<Way, bool> {
    let of = |(link, attached): (&String, &agent::reconcile::actual::Attached)| {
        let ways = ways(attached.policed.unwrap(), |set, asked| passes(actual, set, asked));
        ways.into_iter()
            .map(|((way, peer, port), passes)| ((link.clone(), way, peer, port), passes))
            .collect::<Vec<_>>()
    };
    actual.endpoints.iter().flat_map(of).collect()
}

/// What policies want.
fn wants(tables: &Snapshot) -> BTreeMap<Way, bool> {
    let policies = anew(tables);
    let of = |(id, policed): (_, &Policed)| {
        let link = attachment(&tables.endpoints[id], 0).host_link;
        let ways = ways(*policed, |set, asked| policies.state.verdict(set, asked).allow);
        ways.into_iter()
            .map(|((way, peer, port), passes)| ((link.clone(), way, peer, port), passes))
            .collect::<Vec<_>>()
    };
    policies.state.endpoints.iter().flat_map(of).collect()
}

/// The kernel, and what it was told since somebody looked.
struct Watched {
    kernel: FakeKernel,
    shadow: Actual,
    seen: usize,
    /// What was wanted since everything was last in place.
    window: Vec<BTreeMap<Way, bool>>,
}

impl Watched {
    /// Follows what was done since, one operation after the other.
    fn follow(&mut self) {
        let log: Vec<Op> = self.kernel.state.lock().log[self.seen..].to_vec();
        self.seen += log.len();
        for op in log {
            self.shadow.follow(&op);
            if matches!(
                op,
                Op::NextEpoch | Op::AddRoute { .. } | Op::DeleteRoute { .. } | Op::WriteFilter { .. }
            ) {
                continue;
            }
            for (way, passes) in does(&self.shadow) {
                let known: Vec<bool> =
                    self.window.iter().filter_map(|wanted| wanted.get(&way).copied()).collect();
                // Of a pod whose row is gone nobody can say what it may.
                let is_told = known.len() == self.window.len();
                assert!(!passes || !is_told || known.contains(&true), "{way:?} passes after {op:?}");
            }
        }
    }

    /// Flows were looked at again after the last change that concerns them.
    fn epoch_is_last(&self) -> bool {
        let log = &self.kernel.state.lock().log;
        let last = |is: fn(&Op) -> bool| log.iter().rposition(is);
        let change = last(|op| {
            matches!(
                op,
                Op::Police { .. }
                    | Op::WriteIdentity { .. }
                    | Op::DeleteIdentity { .. }
                    | Op::WriteCidr { .. }
                    | Op::DeleteCidr { .. }
            )
        });
        last(|op| matches!(op, Op::NextEpoch)) >= change
    }
}

fn start(watched: &Watched, tables: &Arc<Tables>) -> Reconciler<FakeKernel> {
    Reconciler::new(watched.kernel.clone(), Arc::clone(tables), facts()).unwrap()
}

fn settle(reconciler: &mut Reconciler<FakeKernel>, now: &mut Instant) {
    for _ in 0..100 {
        *now += Duration::from_secs(130);
        let next = reconciler.round(*now);
        // Who finds no room is tried again for ever.
        if next.is_none_or(|next| next > *now) && reconciler.failures.values().all(|failure| failure.is_full)
        {
            return;
        }
    }
    panic!("does not settle: {:?}", reconciler.failures);
}

/// The same step for tables that are shared.
fn tell(tables: &Tables, step: &Step) {
    let mut rows = tables.snapshot();
    let PolicyChanges { .. } = apply(&mut rows, step);
    let policy = rows.policy;
    match step {
        Step::Policy(namespace, policy_name, _) => {
            let name = name(*namespace, *policy_name);
            tables.put_policy(name.clone(), policy.policies.get(&name).cloned());
        }
        Step::Cluster(number, _) => {
            let name = number.to_string();
            tables.put_cluster_policy(name.clone(), policy.cluster.get(&name).cloned());
        }
        Step::Namespace(namespace, _) => {
            let name = format!("n{namespace}");
            tables.put_namespace(name.clone(), policy.namespaces.get(&name).cloned());
        }
        Step::Pod(namespace, pod, _) => {
            let name = name(*namespace, *pod);
            tables.put_cluster_pod(name.clone(), policy.pods.get(&name).cloned());
        }
        Step::Node(number, _) => {
            let name = number.to_string();
            let row = rows.nodes.get(&name).cloned();
            tables.update_node(|tables| {
                drop(tables.nodes.remove(&name));
                drop(row.map(|row| tables.nodes.insert(name, row)));
                true
            });
        }
        Step::Endpoint(..) => {
            let known: BTreeSet<_> = tables.snapshot().endpoints.into_keys().collect();
            let now: BTreeSet<_> = rows.endpoints.keys().cloned().collect();
            known.difference(&now).for_each(|id| drop(tables.remove_endpoint(id)));
            now.difference(&known).for_each(|id| tables.put_endpoint(rows.endpoints[id].clone()));
        }
        Step::Settle => {}
    }
}

fn synced() -> Arc<Tables> {
    let tables = Arc::new(Tables::default());
    for source in [
        Source::Endpoints,
        Source::Nodes,
        Source::Policies,
        Source::ClusterPolicies,
        Source::Namespaces,
        Source::ClusterPods,
    ] {
        tables.synced(source);
    }
    tables
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_gets_there_and_lets_nothing_pass_on_the_way(
        steps in prop::collection::vec((step(), 0..8_u8), 1..30),
        faults in prop::collection::btree_set(0..300_usize, 0..20),
        room in prop::option::of(0..40_usize),
    ) {
        let tables = synced();
        let kernel = FakeKernel::default();
        kernel.state.lock().fail_at = faults;
        kernel.state.lock().room_for_rules = room;
        let mut watched = Watched { kernel, shadow: Actual::default(), seen: 0, window: Vec::new() };
        let mut now = Instant::now();
        let mut reconciler = start(&watched, &tables);
        for (step, then) in &steps {
            tell(&tables, step);
            watched.window.push(wants(&tables.snapshot()));
            match then {
                // Several steps may become one round.
                0..=3 => {}
                4 => reconciler = start(&watched, &tables),
                5 => {
                    settle(&mut reconciler, &mut now);
                    watched.follow();
                    watched.window.drain(..watched.window.len() - 1);
                    prop_assert!(watched.epoch_is_last());
                }
                _ => {
                    reconciler.round(now);
                    watched.follow();
                }
            }
        }
        settle(&mut reconciler, &mut now);
        watched.follow();
        watched.kernel.state.lock().room_for_rules = None;
        settle(&mut reconciler, &mut now);
        prop_assert!(reconciler.failures.is_empty(), "there is room again");
        watched.follow();
        let got = watched.kernel.state.lock().actual.clone();
        let state = &reconciler.policies.state;
        prop_assert_eq!(&got.identities, &state.identities);
        prop_assert_eq!(&got.cidrs, &state.cidrs);
        let rules = state.rules.iter().filter(|(_, rows)| !rows.is_empty());
        let rules: BTreeMap<_, BTreeMap<_, _>> = rules
            .map(|(pair, rows)| (*pair, rows.iter().map(|(row, verdict)| (*row, verdict.ruling())).collect()))
            .collect();
        let used: BTreeSet<u32> = got.endpoints.values().filter_map(|one| one.policed).flat_map(|one| [one.ingress, one.egress]).collect();
        for (pair, rows) in &got.rulings {
            prop_assert!(rules.get(pair) == Some(rows) || used.contains(&pair.0) && !rules.contains_key(pair));
        }
        prop_assert!(rules.keys().all(|pair| got.rulings.contains_key(pair)));
        let (does, wants) = (does(&got), wants(&tables.snapshot()));
        for (way, passes) in &does {
            let wanted = wants.get(way);
            prop_assert!(wanted.is_none_or(|wanted| wanted == passes), "{:?}", way);
        }
        let attached = got.endpoints.len();
        let known = tables.snapshot().endpoints.values().filter(|one| state.endpoints.contains_key(&one.id())).count();
        prop_assert!(attached >= known, "who is known is attached");
        prop_assert!(watched.epoch_is_last());

        // A restart changes nothing but the epoch.
        let before = watched.kernel.state.lock().log.len();
        settle(&mut start(&watched, &tables), &mut now);
        let again = watched.kernel.state.lock().log[before..].to_vec();
        let is_same = again.iter().all(|op| matches!(op, Op::NextEpoch));
        let all_known = tables.snapshot().endpoints.values().all(|one| tables.snapshot().policy.pods.contains_key(&agent::tables::ObjectName { namespace: one.pod_namespace.clone(), name: one.pod_name.clone() }));
        prop_assert!(is_same || !all_known, "{:?}", again);
    }
}

/// Rounds at one moment, until one has nothing to do at once.
fn rounds(reconciler: &mut Reconciler<FakeKernel>, now: Instant) {
    for _ in 0..20 {
        if reconciler.round(now).is_none_or(|next| next > now) {
            return;
        }
    }
    panic!("goes on for ever: {:?}", reconciler.failures);
}

/// A pod in a namespace of its own, and what comes to it: each of these ports from everybody.
fn guarded(tables: &Tables, namespace: u8, ports: &[u16]) {
    tell(
        tables,
        &Step::Pod(
            namespace,
            0,
            Some(ClusterPod { addresses: both(namespace + 1).into(), ..ClusterPod::default() }),
        ),
    );
    let range = |port: &u16| Ports::Range(Protocol::Tcp, *port, *port);
    let rule = Rule { index: 0, peers: None, ports: Some(ports.iter().map(range).collect()) };
    tell(
        tables,
        &Step::Policy(namespace, 0, Some(Policy { ingress: Some(vec![rule]), ..Policy::default() })),
    );
}

/// Whether the kernel lets anybody at all reach a TCP port of the pod of a namespace; `None` if it is not attached.
fn serves(kernel: &FakeKernel, namespace: u8, port: u16) -> Option<bool> {
    let actual = &kernel.state.lock().actual;
    let address = both(namespace + 1)[0];
    let attached = actual.endpoints.values().find(|attached| attached.addresses.contains(&address))?;
    let asked = Asked { peer: "198.18.0.1".parse().unwrap(), proto: 6, port };
    Some(passes(actual, attached.policed?.ingress, asked))
}

#[test]
fn a_policy_without_room_does_not_hold_up_the_others_and_tries_when_there_is_some() {
    let tables = synced();
    let kernel = FakeKernel::default();
    kernel.state.lock().room_for_rules = Some(4);
    let watched = Watched { kernel: kernel.clone(), shadow: Actual::default(), seen: 0, window: Vec::new() };
    let (mut reconciler, now) = (start(&watched, &tables), Instant::now());
    for namespace in 0..3 {
        guarded(&tables, namespace, &[1]);
        tell(&tables, &Step::Endpoint(namespace, 0, true));
    }
    rounds(&mut reconciler, now);
    let want = [Some(true); 3];
    assert_eq!([0, 1, 2].map(|namespace| serves(&kernel, namespace, 1)), want);

    // More ports than there is room for: the pod is cut off, and only its policy is named.
    guarded(&tables, 0, &[1, 3, 5, 7, 9]);
    rounds(&mut reconciler, now);
    let huge = name(0, 0);
    assert_eq!(serves(&kernel, 0, 1), Some(false));
    assert_eq!(tables.policies_without_room(), [huge.clone()].into());
    let full = |reconciler: &Reconciler<FakeKernel>| {
        reconciler.failures.values().filter(|failure| failure.is_full).count()
    };
    assert_eq!((reconciler.failures.len(), full(&reconciler)), (1, 1), "{:?}", reconciler.failures);

    // Others change in the same moment, and a new pod comes.
    guarded(&tables, 1, &[3]);
    guarded(&tables, 3, &[1]);
    tell(&tables, &Step::Endpoint(3, 0, true));
    rounds(&mut reconciler, now);
    assert_eq!([1, 3].map(|port| serves(&kernel, 1, port)), [Some(false), Some(true)]);
    assert_eq!((serves(&kernel, 3, 1), serves(&kernel, 0, 1)), (Some(true), Some(false)));
    assert_eq!(tables.policies_without_room(), [huge].into());

    // Two pods go, and with their rules there is room, at once.
    tell(&tables, &Step::Endpoint(2, 0, false));
    tell(&tables, &Step::Endpoint(3, 0, false));
    kernel.state.lock().room_for_rules = Some(6);
    rounds(&mut reconciler, now);
    assert_eq!([1, 9].map(|port| serves(&kernel, 0, port)), [Some(true); 2]);
    assert!(tables.policies_without_room().is_empty() && reconciler.failures.is_empty());
}

/// A set of two peers, of which the second finds no room: the first is taken back, and that may fail anywhere.
#[test]
fn rows_that_were_taken_back_in_part_come_again() {
    let range = |port: u16| Ports::Range(Protocol::Tcp, port, port);
    let block = Peer::Block { cidr: "198.18.0.0/16".parse().unwrap(), except: BTreeSet::new() };
    let ports = |some: &[u16]| Some(some.iter().map(|port| range(*port)).collect());
    let rules = vec![
        Rule { index: 0, peers: None, ports: ports(&[1, 3, 5]) },
        Rule { index: 1, peers: Some(vec![block]), ports: ports(&[7, 9, 11]) },
    ];
    let pod = ClusterPod { addresses: both(1).into(), ..ClusterPod::default() };
    for fault in 0..60 {
        let (tables, kernel) = (synced(), FakeKernel::default());
        kernel.state.lock().room_for_rules = Some(4);
        kernel.state.lock().fail_at = [fault].into();
        let watched =
            Watched { kernel: kernel.clone(), shadow: Actual::default(), seen: 0, window: Vec::new() };
        let (mut reconciler, mut now) = (start(&watched, &tables), Instant::now());
        tell(&tables, &Step::Pod(0, 0, Some(pod.clone())));
        let policy = Policy { ingress: Some(rules.clone()), ..Policy::default() };
        tell(&tables, &Step::Policy(0, 0, Some(policy)));
        tell(&tables, &Step::Endpoint(0, 0, true));
        settle(&mut reconciler, &mut now);
        assert_eq!(serves(&kernel, 0, 1), None, "fault {fault}: there is no room for its rules");
        kernel.state.lock().room_for_rules = None;
        settle(&mut reconciler, &mut now);
        let served = [1, 3, 5, 7, 9, 11].map(|port| serves(&kernel, 0, port));
        assert_eq!(served, [Some(true); 6], "fault {fault}");
    }
}

#[test]
fn who_finds_no_room_is_not_tried_without_end_while_policies_fail_as_a_whole() {
    let tables = synced();
    let kernel = FakeKernel::default();
    kernel.state.lock().room_for_rules = Some(1);
    let watched = Watched { kernel: kernel.clone(), shadow: Actual::default(), seen: 0, window: Vec::new() };
    let (mut reconciler, mut now) = (start(&watched, &tables), Instant::now());
    guarded(&tables, 0, &[1, 3, 5]);
    tell(&tables, &Step::Endpoint(0, 0, true));
    rounds(&mut reconciler, now);
    assert_eq!(tables.policies_without_room(), [name(0, 0)].into());
    now += Duration::from_secs(60);
    let mut state = kernel.state.lock();
    let asked = state.asked;
    state.fail_at.insert(asked);
    drop(state);
    let next = reconciler.round(now).expect("it is tried again");
    assert!(reconciler.failures.contains_key("policies"), "{:?}", reconciler.failures);
    assert!(next > now, "{:?} ago", now - next);
}

#[test]
fn networks_inside_of_others_come_before_them_and_go_after_them() {
    let tables = synced();
    let kernel = FakeKernel::default();
    let numbers = [("10.0.0.0/8", 20), ("10.0.0.0/30", 21), ("::/0", 22), ("fd00::/16", 23)];
    kernel.state.lock().actual.cidrs = numbers.map(|(text, number)| (text.parse().unwrap(), number)).into();
    let watched = Watched { kernel, shadow: Actual::default(), seen: 0, window: Vec::new() };
    let blocks = ["0.0.0.0/0", "10.0.0.0/16", "fd00::/126"]
        .map(|text| Peer::Block { cidr: text.parse().unwrap(), except: BTreeSet::new() });
    let rule = Rule { index: 0, peers: Some(blocks.into()), ports: None };
    tell(&tables, &Step::Policy(0, 0, Some(Policy { egress: Some(vec![rule]), ..Policy::default() })));
    tell(&tables, &Step::Pod(0, 0, Some(ClusterPod::default())));
    tell(&tables, &Step::Endpoint(0, 0, true));
    settle(&mut start(&watched, &tables), &mut Instant::now());
    let log = watched.kernel.state.lock().log.clone();
    let ops: Vec<String> = log
        .iter()
        .filter_map(|op| match op {
            Op::WriteCidr { network, .. } => Some(format!("+{network}")),
            Op::DeleteCidr { network } => Some(format!("-{network}")),
            _ => None,
        })
        .collect();
    let want =
        ["+fd00::/126", "+10.0.0.0/16", "+0.0.0.0/0", "-::/0", "-fd00::/16", "-10.0.0.0/8", "-10.0.0.0/30"];
    assert_eq!(ops[..want.len()], want);
}

/// A pod and the denial of it change at once: between the two it is nobody's, and nobody's is not what anybody may.
#[test]
fn a_pod_is_denied_while_it_and_the_denial_of_it_change() {
    let tables = synced();
    let selects = |value: &str| Selector {
        requirements: [Requirement { key: "k0".into(), holds: Holds::In([value.into()].into()) }].into(),
    };
    let denial = |value: &str| {
        let peers = vec![Peer::Pods { namespaces: Some(Selector::default()), pods: selects(value) }];
        let rule = ClusterRule {
            fits: Rule { index: 0, peers: Some(peers), ports: None },
            action: Action::Deny,
            name: None,
        };
        ClusterPolicy {
            tier: Tier::Admin,
            priority: 1,
            namespaces: Selector::default(),
            pods: Selector::default(),
            ingress: vec![rule],
            egress: Vec::new(),
        }
    };
    let pod = |last: u8, value: &str| ClusterPod {
        addresses: both(last).into(),
        labels: Arc::new([("k0".into(), value.into())].into()),
        ..ClusterPod::default()
    };
    let mut watched =
        Watched { kernel: FakeKernel::default(), shadow: Actual::default(), seen: 0, window: Vec::new() };
    for step in [
        Step::Pod(0, 0, Some(pod(1, "own"))),
        Step::Endpoint(0, 0, true),
        Step::Pod(0, 1, Some(pod(2, "a"))),
        Step::Cluster(0, Some(denial("a"))),
    ] {
        tell(&tables, &step);
    }
    let (mut reconciler, mut now) = (start(&watched, &tables), Instant::now());
    settle(&mut reconciler, &mut now);
    watched.window.push(wants(&tables.snapshot()));
    watched.follow();
    tell(&tables, &Step::Pod(0, 1, Some(pod(2, "b"))));
    tell(&tables, &Step::Cluster(0, Some(denial("b"))));
    watched.window.push(wants(&tables.snapshot()));
    let before = watched.seen;
    settle(&mut reconciler, &mut now);
    watched.follow();
    let log = watched.kernel.state.lock().log[before..].to_vec();
    assert!(log.iter().any(|op| matches!(op, Op::Police { .. })), "the set is another: {log:?}");
}
