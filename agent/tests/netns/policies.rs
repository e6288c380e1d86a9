//! Policies on packets: who is let in and out, at once and while connections live, also over what happens to the agent.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use agent::admin::what_if::{Foresight, Proposal};
use agent::sources::kube::learn;
use agent::tables::ObjectName;
use agent::tables::policy::{ClusterPod, Labels, Policy};
use serde_json::{Value, json};

use crate::asking::{explain, hub, next, wanted};
use crate::paths::{answer, tcp, udp};
use crate::world::{BACKEND_PORT, Clients, World, allowed, comes_to};

/// How long an answer is waited for that is not to come.
const SILENCE: Duration = Duration::from_millis(600);

/// Every node knows every pod; each has its node and number as labels.
pub fn knowing() -> World {
    let mut world = World::new(Clients::Wire);
    world.serve(&[(0, 0)]);
    let pods: Vec<(ObjectName, ClusterPod)> = (0..world.nodes.len())
        .flat_map(|node| (0..world.nodes[node].pods.len()).map(move |pod| (node, pod)))
        .map(|(node, pod)| {
            let labels: Labels = [("pod".into(), format!("n{node}-{pod}").into())].into();
            let addresses = world.nodes[node].pods[pod].addresses.clone().into();
            // Pods of different nodes have the same names here; nobody but their own node minds.
            let name = ObjectName { namespace: "default".into(), name: format!("pod{pod}") };
            let far = ObjectName { namespace: "default".into(), name: format!("far{node}-{pod}") };
            let name = if node == 0 { name } else { far };
            (name, ClusterPod { addresses, labels: Arc::new(labels), ..ClusterPod::default() })
        })
        .collect();
    for (name, row) in pods {
        world.nodes[0].tables.put_cluster_pod(name, Some(Arc::new(row)));
    }
    for node in &world.nodes {
        for (number, pod) in node.pods.iter().enumerate() {
            let name: &'static str = ["first", "second"][number.min(1)];
            answer(&pod.namespace, BACKEND_PORT, name);
        }
    }
    world
}

/// Applies a policy to the first node.
fn apply(world: &mut World, name: &str, spec: Option<Value>) {
    put(world, name, spec);
    world.nodes[0].round();
}

/// Tells the first node of a policy.
pub fn put(world: &World, name: &str, spec: Option<Value>) {
    let key = ObjectName { namespace: "default".into(), name: name.into() };
    let row = spec.map(|spec| learned(name, spec).1);
    world.nodes[0].tables.put_policy(key, row);
}

/// The row of a policy as the API server has it.
pub fn learned(name: &str, spec: Value) -> (ObjectName, Arc<Policy>) {
    let key = ObjectName { namespace: "default".into(), name: name.into() };
    let object = json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec });
    let mut rows = agent::tables::Snapshot::default();
    assert!(learn(&mut rows, "NetworkPolicy", object).unwrap());
    let row = Arc::clone(&rows.policy.policies[&key]);
    (key, row)
}

pub fn labelled(text: &str) -> Value {
    json!({ "matchLabels": { "pod": text } })
}

/// The second pod of the first node takes TCP from the pod of the other node, and nothing else.
fn only_from_far() -> Value {
    json!({
        "podSelector": labelled("n0-1"),
        "ingress": [{ "from": [{ "podSelector": labelled("n1-0") }], "ports": [{ "port": BACKEND_PORT }] }],
    })
}

pub fn address(world: &World, node: usize, pod: usize, family: usize) -> SocketAddr {
    SocketAddr::new(world.nodes[node].pods[pod].addresses[family], BACKEND_PORT)
}

/// Whether an answer comes over TCP, and over UDP.
pub fn reaches(world: &World, from: (usize, usize), to: SocketAddr) -> (bool, bool) {
    let client = &world.nodes[from.0].pods[from.1].namespace;
    (tcp(client, to).is_ok(), udp(client, to, false).is_ok())
}

#[test]
fn pods_take_and_send_what_policies_allow_over_both_families() {
    if !allowed() {
        return;
    }
    let mut world = knowing();
    apply(&mut world, "only-far", Some(only_from_far()));
    for family in 0..2 {
        let to = address(&world, 0, 1, family);
        assert_eq!(reaches(&world, (1, 0), to), (true, false), "{to} takes TCP from the other node's pod");
        assert_eq!(reaches(&world, (0, 0), to), (false, false), "{to} takes nothing from its neighbour");
        assert!(tcp(&world.nodes[0].namespace, to).is_ok(), "the node itself may");
        let back = address(&world, 0, 0, family);
        assert_eq!(reaches(&world, (0, 1), back), (true, true), "its own questions are answered");
    }
    let block = |world: &World| {
        let own: Vec<IpAddr> = world.nodes[1].pods[0].addresses.clone();
        let peers = own.iter().map(
            |ip| json!({ "ipBlock": { "cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }) } }),
        );
        json!({ "podSelector": labelled("n0-1"), "policyTypes": ["Egress"], "egress": [{ "to": peers.collect::<Vec<_>>() }] })
    };
    let spec = block(&world);
    apply(&mut world, "egress", Some(spec));
    for family in 0..2 {
        assert_eq!(
            reaches(&world, (0, 1), address(&world, 1, 0, family)),
            (true, true),
            "a block means pods as well"
        );
        assert_eq!(reaches(&world, (0, 1), address(&world, 0, 0, family)), (false, false));
    }
    apply(&mut world, "only-far", None);
    apply(&mut world, "egress", None);
    for family in 0..2 {
        assert_eq!(reaches(&world, (0, 0), address(&world, 0, 1, family)), (true, true), "nothing is left");
    }
}

#[test]
fn a_connection_that_policies_come_to_deny_stops_and_goes_on_when_they_allow_it_again() {
    if !allowed() {
        return;
    }
    let mut world = knowing();
    for family in 0..2 {
        let to = address(&world, 0, 1, family);
        let client = Arc::new(&world.nodes[0].pods[0].namespace);
        let mut stream = client.run(|| TcpStream::connect(to).expect("connect"));
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        apply(&mut world, "only-far", Some(only_from_far()));
        stream.write_all(b"who?").unwrap();
        let mut text = String::new();
        assert!(stream.read_to_string(&mut text).is_err() && text.is_empty(), "no answer comes: {text}");
        apply(&mut world, "only-far", None);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.read_to_string(&mut text).expect("the question is asked again, and answered");
        assert!(text.starts_with("second"), "{text}");
    }
}

#[test]
fn a_restart_finds_the_rows_and_changes_none() {
    if !allowed() {
        return;
    }
    let mut world = knowing();
    apply(&mut world, "only-far", Some(only_from_far()));
    let rows = |world: &World| {
        ["hw_rules", "hw_identities", "hw_cidrs"]
            .map(|name| crate::world::dump(&world.nodes[0].pins().join(name)))
    };
    let before = rows(&world);
    assert!(before[0].contains("set"), "there are rows: {}", before[0]);
    world.nodes[0].reconciler = None;
    let to = address(&world, 0, 1, 0);
    assert_eq!(reaches(&world, (0, 0), to), (false, false), "nobody has to be there for that");
    world.nodes[0].start();
    assert_eq!(rows(&world), before);
    assert_eq!(reaches(&world, (0, 0), to), (false, false));
    assert_eq!(reaches(&world, (1, 0), to), (true, false));
}

#[test]
fn what_an_audited_namespace_is_denied_passes() {
    if !allowed() {
        return;
    }
    let mut world = knowing();
    let audited = agent::tables::policy::Namespace { audit: true, ..Default::default() };
    world.nodes[0].tables.put_namespace("default".into(), Some(Arc::new(audited)));
    apply(&mut world, "only-far", Some(only_from_far()));
    let to = address(&world, 0, 1, 0);
    let mut audits = hub(&world.nodes[0]).audits().unwrap();
    comes_to(|| wanted(&world.nodes[0]) != 0, true, "the programs know that somebody listens");
    assert_eq!(reaches(&world, (0, 0), to), (true, true));
    let event = next(&mut audits);
    assert_eq!((event.kind.as_str(), &event.policies[..]), ("audit", &["default/only-far".to_owned()][..]));
    assert!(event.reason.unwrap().starts_with("PolicyIngress"));
    let explained = explain(&world.nodes[0], "default/pod0", &to.to_string());
    assert!(
        explained.policy.contains("no rule of default/only-far allows it; audited"),
        "{}",
        explained.policy
    );
    assert!(explained.disagreements.is_empty(), "{:?}", explained.disagreements);
    world.nodes[0].tables.put_namespace("default".into(), None);
    world.nodes[0].round();
    let explained = explain(&world.nodes[0], "default/pod0", &to.to_string());
    assert!(explained.live.contains("PolicyIngress"), "{}", explained.live);
    assert!(explained.disagreements.is_empty(), "{:?}", explained.disagreements);
    assert_eq!(reaches(&world, (0, 0), to), (false, false));
}

/// Applies a ClusterNetworkPolicy to the first node.
fn apply_cluster(world: &mut World, name: &str, spec: &Value) {
    let object = json!({ "metadata": { "name": name }, "spec": spec });
    let mut rows = agent::tables::Snapshot::default();
    assert!(learn(&mut rows, "ClusterNetworkPolicy", object).unwrap());
    world.nodes[0].tables.put_cluster_policy(name.into(), rows.policy.cluster.get(name).cloned());
    world.nodes[0].round();
}

#[test]
fn the_cluster_has_the_first_word_and_the_last_and_audits_name_its_rule() {
    if !allowed() {
        return;
    }
    let mut world = knowing();
    let policy = |tier: &str, action: &str| {
        let pods = json!({ "namespaceSelector": {}, "podSelector": labelled("n0-0") });
        let protocols = json!([{ "tcp": { "destinationPort": { "number": BACKEND_PORT } } }]);
        let rule = json!({ "action": action, "from": [{ "pods": pods }], "protocols": protocols });
        json!({ "tier": tier, "priority": 1, "subject": { "namespaces": {} }, "ingress": [rule] })
    };
    for family in 0..2 {
        let to = address(&world, 0, 1, family);
        apply_cluster(&mut world, "guard", &policy("Baseline", "Deny"));
        assert_eq!(reaches(&world, (0, 0), to), (false, true), "{to} is closed to TCP of its neighbour");
        assert_eq!(reaches(&world, (1, 0), to), (true, true));
        apply(&mut world, "all", Some(json!({ "podSelector": {}, "ingress": [{}] })));
        assert_eq!(reaches(&world, (0, 0), to), (true, true), "the namespace overrides the baseline");
        apply_cluster(&mut world, "guard", &policy("Admin", "Deny"));
        assert_eq!(reaches(&world, (0, 0), to), (false, true), "but not the administrators");
        apply_cluster(&mut world, "guard", &policy("Admin", "Accept"));
        apply(&mut world, "all", Some(json!({ "podSelector": {} })));
        assert_eq!(reaches(&world, (0, 0), to), (true, false), "who let pass what it denies");
        apply(&mut world, "all", None);
    }
    apply_cluster(&mut world, "guard", &policy("Admin", "Deny"));
    let audited = agent::tables::policy::Namespace { audit: true, ..Default::default() };
    world.nodes[0].tables.put_namespace("default".into(), Some(Arc::new(audited)));
    world.nodes[0].round();
    let mut audits = hub(&world.nodes[0]).audits().unwrap();
    comes_to(|| wanted(&world.nodes[0]) != 0, true, "the programs know that somebody listens");
    let to = address(&world, 0, 1, 0);
    assert_eq!(reaches(&world, (0, 0), to), (true, true));
    let event = next(&mut audits);
    assert_eq!((event.rule.as_deref(), &event.policies[..]), (Some("guard rule 0"), &[][..]));
}

/// Tells the first node which labels a node has.
fn label_node(world: &mut World, name: &str, role: &str) {
    let labels: Labels = [("role".into(), role.into())].into();
    world.nodes[0].tables.update_node(|rows| {
        let row = Arc::make_mut(rows.nodes.get_mut(name).expect("the node is known"));
        row.labels = Arc::new(labels);
        true
    });
    world.nodes[0].round();
}

#[test]
fn rules_about_nodes_hold_of_packets_to_the_addresses_of_those_that_have_the_labels_now() {
    if !allowed() {
        return;
    }
    const PORT: u16 = 9443;
    let mut world = knowing();
    for node in &world.nodes[..2] {
        answer(&node.namespace, PORT, "host");
    }
    label_node(&mut world, "n2", "control");
    let rule = json!({ "action": "Deny", "to": [{ "nodes": { "matchLabels": { "role": "control" } } }] });
    let spec = json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": [rule] });
    let hosts = world.nodes[1].addresses.clone();
    let host = |family: usize| SocketAddr::new(hosts[family], PORT);
    for family in 0..2 {
        assert_eq!(reaches(&world, (0, 0), host(family)), (true, true), "before there is a rule");
    }
    apply_cluster(&mut world, "guard", &spec);
    for family in 0..2 {
        let to = host(family);
        assert_eq!(reaches(&world, (0, 0), to), (false, false), "{to} is denied");
        assert_eq!(reaches(&world, (0, 0), address(&world, 1, 0, family)), (true, true), "its pods are not");
        let explained = explain(&world.nodes[0], "default/pod0", &to.to_string());
        assert!(explained.policy.contains("guard"), "{}", explained.policy);
        assert!(explained.live.contains("PolicyEgress"), "{}", explained.live);
        assert!(explained.disagreements.is_empty(), "{:?}", explained.disagreements);
        let own = SocketAddr::new(world.nodes[0].addresses[family], PORT);
        assert_eq!(reaches(&world, (0, 0), own), (true, true), "{own} is the pod's own node");
    }
    label_node(&mut world, "n2", "work");
    for family in 0..2 {
        assert_eq!(reaches(&world, (0, 0), host(family)), (true, true), "another label");
    }
    label_node(&mut world, "n2", "control");
    assert_eq!(reaches(&world, (0, 0), host(0)), (false, false), "the label again");
}

#[test]
fn the_flows_that_live_are_those_that_a_policy_would_cut() {
    if !allowed() {
        return;
    }
    let world = knowing();
    let (node, to) = (&world.nodes[0], address(&world, 0, 1, 0));
    let stream = node.pods[0].namespace.run(|| TcpStream::connect(to).expect("connect"));
    let from = node.pods[0].namespace.run(|| stream.local_addr().expect("it has an address"));
    let foresight = Foresight {
        tables: Arc::clone(&node.tables),
        facts: node.reconciler.as_ref().unwrap().facts().clone(),
        pins: Some(node.pins()),
    };
    let ask = |spec: Value| {
        let policy = json!({ "kind": "NetworkPolicy", "metadata": { "namespace": "default", "name": "few" }, "spec": spec });
        foresight.answer(&Proposal { policies: vec![policy], delete: false }).unwrap()
    };
    let cut = |spec: Value| ask(spec).cut.iter().any(|cut| (cut.from, cut.to) == (from, to));
    assert!(cut(only_from_far()), "{:?}", ask(only_from_far()));
    assert!(!cut(
        json!({ "podSelector": labelled("n0-1"), "ingress": [{ "ports": [{ "port": BACKEND_PORT }] }] })
    ));
}
