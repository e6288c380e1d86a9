//! What fields of NetworkPolicies, Namespaces and pods become, and what is said of those that cannot be used.

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use serde_json::{Value, json};

use super::*;
use crate::tables::Complaint;
use crate::tables::Protocol::{Sctp, Tcp, Udp};

fn read(spec: Value) -> (Policy, Vec<Complaint>) {
    let object = json!({ "metadata": { "name": "p", "namespace": "x" }, "spec": spec });
    let mut context = Context::default();
    let row = policy(serde_json::from_value(object).unwrap(), &mut context);
    (row, context.complaints)
}

/// The ingress rules of a policy with these, and what is said about it.
fn ingress(rules: Value) -> (Vec<Rule>, Vec<Complaint>) {
    let (row, complaints) = read(json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules }));
    (row.ingress.unwrap(), complaints)
}

fn requires(key: &str, holds: Holds) -> Selector {
    Selector { requirements: [Requirement { key: key.into(), holds }].into() }
}

#[test]
fn directions_follow_the_types_or_else_the_rules() {
    for (spec, want) in [
        (json!({ "podSelector": {} }), (true, false)),
        (json!({ "policyTypes": [], "ingress": [] }), (true, false)),
        (json!({ "egress": [] }), (true, false)),
        (json!({ "egress": [{}] }), (true, true)),
        (json!({ "policyTypes": ["Ingress"], "egress": [{}] }), (true, false)),
        (json!({ "policyTypes": ["Egress"] }), (false, true)),
        (json!({ "policyTypes": ["Ingress", "Egress"] }), (true, true)),
    ] {
        let (row, complaints) = read(spec.clone());
        assert_eq!((row.ingress.is_some(), row.egress.is_some()), want, "{spec}");
        assert!(complaints.is_empty(), "{spec}: {complaints:?}");
    }
}

#[test]
fn a_namespace_is_audited_when_its_annotation_says_so() {
    for (annotations, audited, complaints) in [
        (json!({}), false, 0),
        (json!({ "hawser.dev/policy-audit": "enabled" }), true, 0),
        (json!({ "hawser.dev/policy-audit": "disabled" }), false, 0),
        (json!({ "hawser.dev/policy-audit": "yes" }), false, 1),
    ] {
        let mut context = Context::default();
        let object = json!({ "metadata": { "name": "x", "annotations": annotations } });
        let row = namespace(serde_json::from_value(object).unwrap(), &mut context);
        assert_eq!((row.audit, context.complaints.len()), (audited, complaints), "{annotations}");
    }
}

#[test]
fn absent_and_empty_lists_are_everybody_and_every_port() {
    for rule in [json!({}), json!({ "from": [], "ports": [] }), json!({ "from": null, "ports": null })] {
        assert_eq!(ingress(json!([rule])).0, [Rule { index: 0, peers: None, ports: None }]);
    }
    assert_eq!(ingress(json!([])).0, []);
}

#[test]
fn absent_and_empty_selectors_differ() {
    let pods = |rule: Value| match ingress(json!([rule])).0[0].peers.clone().unwrap().remove(0) {
        Peer::Pods { namespaces, pods } => (namespaces, pods),
        other => panic!("{other:?}"),
    };
    let everything = Selector::default;
    assert_eq!(pods(json!({ "from": [{ "podSelector": {} }] })), (None, everything()));
    assert_eq!(pods(json!({ "from": [{ "namespaceSelector": {} }] })), (Some(everything()), everything()));
    let both = pods(json!({ "from": [{
        "namespaceSelector": { "matchLabels": { "ns": "y" } },
        "podSelector": { "matchExpressions": [{ "key": "pod", "operator": "NotIn", "values": ["a"] }] },
    }] }));
    assert_eq!(both.0, Some(requires("ns", Holds::In(["y".into()].into()))));
    assert_eq!(both.1, requires("pod", Holds::NotIn(["a".into()].into())));
}

#[test]
fn ports_are_numbers_ranges_names_or_all_of_a_protocol() {
    let (rules, complaints) = ingress(json!([{ "ports": [
        { "port": 80 }, { "protocol": "UDP", "port": 1000, "endPort": 2000 }, { "protocol": "SCTP" },
        { "protocol": "TCP", "port": "serve-80-tcp" },
    ] }]));
    let want = [
        Ports::Range(Tcp, 80, 80),
        Ports::Range(Udp, 1000, 2000),
        Ports::Range(Sctp, 0, 65535),
        Ports::Named(Tcp, "serve-80-tcp".into()),
    ];
    assert_eq!(rules[0].ports.as_deref(), Some(&want[..]));
    assert!(complaints.is_empty());
}

#[test]
fn a_rule_that_cannot_be_understood_allows_nothing_and_is_named() {
    let block =
        |cidr: &str, except: &[&str]| json!({ "from": [{ "ipBlock": { "cidr": cidr, "except": except } }] });
    let port = |port: Value| json!({ "ports": [port] });
    for (rule, named) in [
        (block("10.0.0.0/33", &[]), "spec.ingress[1].from[0].ipBlock.cidr"),
        (block("10.0.0.0", &[]), "ipBlock.cidr"),
        (block("10.0.0.0/255.0.0.0", &[]), "ipBlock.cidr"),
        (block("010.0.0.0/8", &[]), "ipBlock.cidr"),
        (block("10.0.0.0/8", &["192.168.0.0/16"]), "ipBlock.except"),
        (block("10.0.0.0/8", &["10.0.0.0/8"]), "ipBlock.except"),
        (block("10.0.0.0/8", &["::/16"]), "ipBlock.except"),
        (block("10.0.0.0/8", &["ten"]), "ipBlock.except"),
        (port(json!({ "port": 0 })), "spec.ingress[1].ports[0].port"),
        (port(json!({ "port": 70_000 })), "port"),
        (port(json!({ "port": -1 })), "port"),
        (port(json!({ "port": "" })), "port"),
        (port(json!({ "port": 80, "endPort": 79 })), "endPort"),
        (port(json!({ "port": 80, "endPort": 65_536 })), "endPort"),
        (port(json!({ "port": "http", "endPort": 80 })), "endPort"),
        (port(json!({ "endPort": 80 })), "endPort"),
        (port(json!({ "port": 80, "protocol": "ICMP" })), "protocol"),
        (json!({ "from": [{}] }), "from[0]"),
        (json!({ "from": [{ "ipBlock": { "cidr": "::/0" }, "podSelector": {} }] }), "ipBlock"),
        (
            json!({ "from": [{ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }] }),
            "\"Like\"",
        ),
        (
            json!({ "from": [{ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } }] }),
            "a In",
        ),
        (
            json!({ "from": [{ "namespaceSelector": { "matchExpressions": [{ "key": "a", "operator": "Exists", "values": ["b"] }] } }] }),
            "namespaceSelector",
        ),
    ] {
        let (rules, complaints) =
            ingress(json!([{ "ports": [{ "port": 1 }] }, rule, { "ports": [{ "port": 2 }] }]));
        let left: Vec<u16> = rules.iter().map(|rule| rule.index).collect();
        assert_eq!(left, [0, 2], "{rule}: the others work");
        assert_eq!(complaints.len(), 1, "{rule}");
        assert_eq!((complaints[0].kind, complaints[0].reason), ("NetworkPolicy", "InvalidPolicy"));
        assert!(complaints[0].message.contains(named), "{rule}: {}", complaints[0].message);
    }
}

#[test]
fn a_policy_of_unknown_pods_or_directions_isolates_and_allows_nothing() {
    let unknown = json!({ "matchExpressions": [{ "key": "a", "operator": "Gt", "values": ["1"] }] });
    let (row, complaints) = read(json!({ "podSelector": unknown, "ingress": [{}] }));
    assert_eq!(row, Policy { pods: Selector::default(), ingress: Some(Vec::new()), egress: None });
    assert_eq!(complaints.len(), 1);
    let (row, complaints) = read(json!({ "podSelector": {}, "policyTypes": ["Sideways"] }));
    assert_eq!(row, Policy { ingress: Some(Vec::new()), egress: Some(Vec::new()), ..Policy::default() });
    assert_eq!(complaints.len(), 1);
}

#[test]
fn bits_of_hosts_do_not_count_and_mapped_addresses_are_ipv4() {
    let cidr = |text: &str| prefix(text).map(|network| network.to_string());
    assert_eq!(cidr("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
    assert_eq!(cidr("::ffff:10.1.2.3/104").as_deref(), Some("10.0.0.0/8"));
    assert_eq!(cidr("2001:db8::1/32").as_deref(), Some("2001:db8::/32"));
    assert_eq!(cidr("::/0").as_deref(), Some("::/0"));
    assert_eq!(cidr("10.0.0.0/+8"), None);
}

#[test]
fn a_pod_has_the_number_that_runtimes_call_it_by() {
    let uid = |metadata: Value| {
        let object = json!({ "metadata": metadata });
        cluster_pod(serde_json::from_value(object).unwrap(), &mut Context::default()).uid
    };
    let own = "00000000-0000-0000-0000-0000000000aa";
    assert_eq!(uid(json!({ "name": "a", "uid": own })), 0xaa);
    let hash = json!({ "kubernetes.io/config.hash": "000000000000000000000000000000bb" });
    assert_eq!(
        uid(json!({ "name": "a", "uid": own, "annotations": hash })),
        0xbb,
        "one of a node's own files"
    );
    assert_eq!(uid(json!({ "name": "a" })), 0);
}

#[test]
fn a_pod_has_its_addresses_labels_and_named_ports() {
    let object = json!({
        "metadata": { "name": "a", "namespace": "x", "labels": { "pod": "a" } },
        "spec": {
            "hostNetwork": null,
            "containers": [{ "ports": [
                { "name": "http", "containerPort": 80 }, { "containerPort": 81 },
                { "name": "dns", "containerPort": 53, "protocol": "UDP" },
            ] }],
            "initContainers": [
                { "ports": [{ "name": "early", "containerPort": 1 }] },
                { "restartPolicy": "Always", "ports": [{ "name": "side", "containerPort": 15_000 }] },
            ],
        },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] },
    });
    let mut context = Context::default();
    let row = cluster_pod(serde_json::from_value(object.clone()).unwrap(), &mut context);
    assert_eq!(row.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    let ports: Vec<_> = row.ports.iter().map(|row| (&*row.name, row.protocol, row.port)).collect();
    assert_eq!(ports, [("dns", Udp, 53), ("http", Tcp, 80), ("side", Tcp, 15_000)]);
    assert!(!row.host_network && !row.finished);
    let twin = cluster_pod(serde_json::from_value(object).unwrap(), &mut context);
    assert!(Arc::ptr_eq(&row.labels, &twin.labels) && Arc::ptr_eq(&row.ports, &twin.ports));
    for (status, finished) in [("Succeeded", true), ("Failed", true), ("Pending", false)] {
        let object = json!({ "metadata": { "name": "a" }, "status": { "phase": status } });
        assert_eq!(cluster_pod(serde_json::from_value(object).unwrap(), &mut context).finished, finished);
    }
}

#[test]
fn a_policy_without_a_spec_is_about_all_pods_of_its_namespace() {
    assert_eq!(NetworkPolicySpec::default().pod_selector, None);
    let (row, _) = read(json!({}));
    assert_eq!(row, Policy { ingress: Some(Vec::new()), ..Policy::default() });
}
