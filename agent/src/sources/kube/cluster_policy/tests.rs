//! What fields of ClusterNetworkPolicies become, and how rules that cannot be understood fail.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::tables::Protocol::{Sctp, Tcp, Udp};
use crate::tables::policy::{Holds, Requirement};

fn read(spec: Value) -> (ClusterPolicy, Vec<String>) {
    let object = json!({ "metadata": { "name": "p" }, "spec": spec });
    let mut context = Context::default();
    let row = cluster_policy(serde_json::from_value(object).unwrap(), &mut context);
    assert!(
        context.complaints.iter().all(|one| one.kind == "ClusterNetworkPolicy" && one.object.name == "p")
    );
    (row, context.complaints.into_iter().map(|one| one.message).collect())
}

fn spec(ingress: Value, egress: Value) -> Value {
    let subject = json!({ "namespaces": {} });
    json!({ "tier": "Admin", "priority": 7, "subject": subject, "ingress": ingress, "egress": egress })
}

fn requires(key: &str, value: &str) -> Selector {
    let holds = Holds::In(BTreeSet::from([value.into()]));
    Selector { requirements: [Requirement { key: key.into(), holds }].into() }
}

#[test]
fn a_whole_policy_is_read() {
    let labels = |key: &str, value: &str| json!({ "matchLabels": { key: value } });
    let pods = json!({ "namespaceSelector": labels("ns", "x"), "podSelector": labels("pod", "a") });
    let (row, said) = read(json!({
        "tier": "Baseline", "priority": 1000, "subject": { "pods": pods },
        "ingress": [{ "name": "first", "action": "Pass", "from": [{ "pods": pods }, { "namespaces": labels("ns", "y") }] }],
        "egress": [
            { "action": "Accept", "to": [
                { "networks": ["10.0.0.0/8", "fd00::/8"] },
                { "pods": { "podSelector": labels("pod", "b") } },
                { "nodes": labels("role", "control") },
                { "nodes": {} },
            ] },
            { "action": "Deny", "to": [{ "namespaces": {} }], "protocols": [
                { "tcp": { "destinationPort": { "number": 80 } } },
                { "udp": { "destinationPort": { "range": { "start": 5, "end": 9 } } } },
                { "sctp": {} },
                { "destinationNamedPort": "web" },
            ] },
        ],
    }));
    assert_eq!(said, Vec::<String>::new());
    assert_eq!((row.tier, row.priority), (Tier::Baseline, 1000));
    assert_eq!((row.namespaces, row.pods), (requires("ns", "x"), requires("pod", "a")));
    let first = &row.ingress[0];
    assert_eq!((first.action, first.name.as_deref()), (Action::Pass, Some("first")));
    let peers = [
        Peer::Pods { namespaces: Some(requires("ns", "x")), pods: requires("pod", "a") },
        Peer::Pods { namespaces: Some(requires("ns", "y")), pods: Selector::default() },
    ];
    assert_eq!(first.fits, Rule { index: 0, peers: Some(peers.into()), ports: None });
    let block = |text: &str| Peer::Block { cidr: text.parse().unwrap(), except: [].into() };
    let anywhere = Peer::Pods { namespaces: Some(Selector::default()), pods: requires("pod", "b") };
    let nodes = [Peer::Nodes(requires("role", "control")), Peer::Nodes(Selector::default())];
    let peers = [block("10.0.0.0/8"), block("fd00::/8"), anywhere].into_iter().chain(nodes);
    assert_eq!(row.egress[0].fits.peers, Some(peers.collect()));
    let name = |protocol| Ports::Named(protocol, "web".into());
    let ports = [
        Ports::Range(Tcp, 80, 80),
        Ports::Range(Udp, 5, 9),
        Ports::Range(Sctp, 0, u16::MAX),
        name(Tcp),
        name(Udp),
        name(Sctp),
    ];
    assert_eq!((row.egress[1].fits.index, row.egress[1].action), (1, Action::Deny));
    assert_eq!(row.egress[1].fits.ports, Some(ports.into()));
}

#[test]
fn a_rule_that_cannot_be_understood_accepts_nothing_or_denies_everything() {
    let all = json!([{ "namespaces": {} }]);
    let port = |port: Value| json!({ "to": all, "protocols": [{ "tcp": { "destinationPort": port } }] });
    for (rule, named) in [
        (json!({ "to": [] }), "to: there has to be one"),
        (json!({}), "to:"),
        (json!({ "from": all }), "to:"),
        (json!({ "to": all, "from": all }), "to:"),
        (json!({ "to": all, "ports": [] }), "`ports`"),
        (json!({ "to": "all" }), "\"all\""),
        (json!({ "to": [{}] }), "to[0]: there is no kind"),
        (json!({ "to": [{ "domainNames": ["a.b"] }] }), "`domainNames`"),
        (
            json!({ "to": [{ "namespaces": {}, "networks": ["10.0.0.0/8"] }] }),
            "to[0]: there is more than one",
        ),
        (json!({ "to": [{ "nodes": {}, "networks": ["10.0.0.0/8"] }] }), "to[0]: there is more than one"),
        (
            json!({ "to": [{ "nodes": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }] }),
            "to[0]: nodes: ",
        ),
        (json!({ "to": [{ "networks": ["10.0.0.0/33"] }] }), "\"10.0.0.0/33\""),
        (json!({ "to": [{ "networks": [] }] }), "networks: there is none"),
        (json!({ "to": [{ "pods": { "namespaceSelector": {} } }] }), "podSelector"),
        (
            json!({ "to": [{ "namespaces": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }] }),
            "\"Like\"",
        ),
        (port(json!({ "number": 0 })), "protocols[0]: destinationPort: 0"),
        (port(json!({ "number": 65_536 })), "65536"),
        (port(json!({ "range": { "start": 9, "end": 8 } })), "8 is less than 9"),
        (port(json!({ "number": 1, "range": { "start": 8, "end": 9 } })), "either a number or a range"),
        (port(json!({})), "either a number or a range"),
        (json!({ "to": all, "protocols": [{}] }), "protocols[0]"),
        (json!({ "to": all, "protocols": [{ "icmp": {} }] }), "`icmp`"),
    ] {
        for (action, want) in [("Accept", 1), ("Deny", 2), ("Pass", 2)] {
            let mut rule = rule.clone();
            rule["action"] = action.into();
            let good = json!({ "action": "Accept", "to": all });
            let (row, said) = read(spec(json!([]), json!([rule, good])));
            assert_eq!(said.len(), 1, "{rule}: {said:?}");
            assert!(
                said[0].starts_with("spec.egress[0]: ") && said[0].contains(named),
                "{rule}: {}",
                said[0]
            );
            assert_eq!(row.egress.len(), want, "{rule}: the rest stays in force");
            if want == 2 {
                let everything = Rule { index: 0, peers: None, ports: None };
                assert_eq!(
                    (&row.egress[0].fits, row.egress[0].action),
                    (&everything, Action::Deny),
                    "{rule}"
                );
            }
        }
    }
    let (row, said) = read(spec(json!([{ "action": "Drop", "from": all }]), json!(null)));
    assert_eq!((row.ingress[0].action, row.ingress[0].fits.peers.is_none()), (Action::Deny, true));
    assert!(said[0].contains("\"Drop\" is unknown"), "{said:?}");
    for peer in [json!({ "networks": ["::/0"] }), json!({ "nodes": {} })] {
        let (row, said) = read(spec(json!([{ "action": "Deny", "from": [peer] }]), json!([])));
        assert!(row.ingress[0].fits.peers.is_none() && said[0].contains("for egress only"), "{said:?}");
    }
}

#[test]
fn of_a_policy_that_cannot_be_placed_only_denials_count_for_all_pods() {
    let all = json!([{ "namespaces": { "matchLabels": { "ns": "y" } } }]);
    let rule = |action: &str| json!({ "action": action, "from": all });
    let pods = json!({ "namespaceSelector": {}, "podSelector": {} });
    for (field, value) in [
        ("tier", json!("Middle")),
        ("tier", json!(null)),
        ("priority", json!(1001)),
        ("priority", json!(-1)),
        ("priority", json!("1")),
        ("subject", json!({})),
        ("subject", json!({ "nodes": {} })),
        ("subject", json!({ "namespaces": {}, "pods": pods })),
    ] {
        let mut spec = spec(json!([rule("Accept"), rule("Deny"), rule("Pass")]), json!([]));
        spec[field] = value.clone();
        let (row, said) = read(spec);
        assert_eq!(said.len(), 1, "{field} {value}: {said:?}");
        assert!(said[0].starts_with(&format!("spec.{field}")), "{field} {value}: {}", said[0]);
        assert_eq!((row.tier, row.priority), (Tier::Admin, 0));
        assert_eq!((row.namespaces, row.pods), (Selector::default(), Selector::default()));
        let kept: Vec<(u16, Action)> =
            row.ingress.iter().map(|rule| (rule.fits.index, rule.action)).collect();
        assert_eq!(kept, [(1, Action::Deny)]);
    }
}

/// `deploy/clusternetworkpolicies.yaml` offers what is understood, and nothing else.
#[test]
fn the_definition_of_the_kind_is_what_is_read() {
    use kube::Resource;
    type Kind = objects::ClusterNetworkPolicy;
    let served = objects::PolicyVersion::default();
    let text = include_str!("../../../../../deploy/clusternetworkpolicies.yaml");
    let definition: Value = serde_saphyr::from_str(text).unwrap();
    let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]);
    assert_eq!(
        (&spec["group"], &spec["names"]["plural"], &spec["names"]["kind"], &version["name"]),
        (
            &json!(Kind::group(&served)),
            &json!(Kind::plural(&served)),
            &json!(Kind::kind(&served)),
            &json!(Kind::version(&served))
        )
    );
    let fields = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let names = |of: &Value| of["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let rule = |gress: &str| fields[gress]["items"].clone();
    assert_eq!(names(&fields["subject"]), set(&["namespaces", "pods"]));
    assert_eq!(names(&rule("ingress")["properties"]["from"]["items"]), set(&["namespaces", "pods"]));
    assert_eq!(
        names(&rule("egress")["properties"]["to"]["items"]),
        set(&["namespaces", "networks", "nodes", "pods"])
    );
    for gress in ["ingress", "egress"] {
        let protocols = &rule(gress)["properties"]["protocols"]["items"];
        assert_eq!(names(protocols), set(&["destinationNamedPort", "sctp", "tcp", "udp"]));
        for name in names(&rule(gress)) {
            let given = json!({ "action": "Deny", &*name: null });
            let error = GivenRule::deserialize(&given).err().map(|error| error.to_string());
            assert!(
                error.is_none_or(|error| !error.contains("unknown field")),
                "{name} of {gress} is not read"
            );
        }
    }
}
