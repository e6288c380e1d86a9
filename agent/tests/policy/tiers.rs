//! The cases of the conformance suite of `policy.networking.k8s.io`, by their titles: ClusterNetworkPolicies of both tiers, by
//! the oracle and by the rows. What upstream's four houses are, are the namespaces here.

use serde_json::{Value, json};

use crate::cases::Protocol::{self, Sctp, Tcp, Udp};
use crate::cases::Reach;
use crate::world::World;

const TIERS: [&str; 2] = ["Admin", "Baseline"];
const ALL: [Protocol; 3] = [Tcp, Udp, Sctp];

fn ns(name: &str) -> Value {
    json!({ "namespaces": { "matchLabels": { "ns": name } } })
}

fn pods(namespace: &str, pod: &str) -> Value {
    json!({ "pods": {
        "namespaceSelector": { "matchLabels": { "ns": namespace } },
        "podSelector": { "matchLabels": { "pod": pod } },
    } })
}

/// A rule about peers, for every protocol.
fn rule(action: &str, field: &str, peer: &Value) -> Value {
    json!({ "action": action, field: [peer] })
}

/// The same at one port of every protocol.
fn at(action: &str, field: &str, peer: &Value, port: &Value) -> Value {
    let all = [json!({ "tcp": { "destinationPort": port } }), json!({ "udp": { "destinationPort": port } })];
    let [tcp, udp] = all;
    let sctp = json!({ "sctp": { "destinationPort": port } });
    json!({ "action": action, field: [peer], "protocols": [tcp, udp, sctp] })
}

fn policy(tier: &str, priority: u16, subject: &Value, field: &str, rules: &Value) -> Value {
    json!({ "tier": tier, "priority": priority, "subject": subject, field: rules })
}

fn to_x(tier: &str, rules: &Value) -> Value {
    policy(tier, 5, &ns("x"), "ingress", rules)
}

fn from_x(tier: &str, rules: &Value) -> Value {
    policy(tier, 5, &ns("x"), "egress", rules)
}

fn world(policies: &[(&str, Value)]) -> World {
    let mut world = World::new();
    for (name, spec) in policies {
        world.apply_cluster(name, spec.clone());
    }
    world
}

fn check(reach: impl Fn() -> Reach, world: &mut World, port: u16) {
    for protocol in ALL {
        reach().check(world, protocol, port);
    }
}

/// Should support an 'allow-ingress' policy; ensure rule ordering is respected
/// Should support an 'deny-ingress' policy; ensure rule ordering is respected
/// Should support an 'pass-ingress' policy; ensure rule ordering is respected
#[test]
fn should_support_ingress_policies_ensure_rule_ordering_is_respected() {
    for tier in TIERS {
        let [accept, deny, pass] = ["Accept", "Deny", "Pass"].map(|action| rule(action, "from", &ns("y")));
        let mut all = world(&[("ingress", to_x(tier, &json!([accept, deny, pass])))]);
        check(Reach::everybody, &mut all, 80);
        let mut all = world(&[("ingress", to_x(tier, &json!([deny, accept, pass])))]);
        check(|| Reach::everybody().deny("y", "x"), &mut all, 80);
        let mut all = world(&[("ingress", to_x(tier, &json!([pass, deny, accept])))]);
        check(Reach::everybody, &mut all, 80);
    }
}

/// Should support an 'allow-egress' policy; ensure rule ordering is respected
/// Should support an 'deny-egress' policy; ensure rule ordering is respected
/// Should support an 'pass-egress' policy; ensure rule ordering is respected
#[test]
fn should_support_egress_policies_ensure_rule_ordering_is_respected() {
    for tier in TIERS {
        let [accept, deny, pass] = ["Accept", "Deny", "Pass"].map(|action| rule(action, "to", &ns("y")));
        let mut all = world(&[("egress", from_x(tier, &json!([accept, deny, pass])))]);
        check(Reach::everybody, &mut all, 80);
        let mut all = world(&[("egress", from_x(tier, &json!([deny, accept, pass])))]);
        check(|| Reach::everybody().deny("x", "y"), &mut all, 80);
        let mut all = world(&[("egress", from_x(tier, &json!([pass, deny, accept])))]);
        check(Reach::everybody, &mut all, 80);
    }
}

/// Should support an 'allow-gress' policy across different protocols at the specified ports
/// Should support a 'deny-gress' policy across different protocols at the specified ports
/// Should support an 'pass-gress' policy across different protocols at the specified ports
#[test]
fn should_support_gress_policies_across_different_protocols_at_the_specified_ports() {
    let port = json!({ "number": 80 });
    for tier in TIERS {
        for (field, gress) in [("from", "ingress"), ("to", "egress")] {
            let deny = |reach: Reach, with| {
                if gress == "ingress" { reach.deny(with, "x") } else { reach.deny("x", with) }
            };
            let rules = json!([
                at("Pass", field, &pods("y", "b"), &port),
                at("Deny", field, &ns("y"), &port),
                at("Accept", field, &ns("z"), &port),
                rule("Deny", field, &ns("z")),
            ]);
            let mut world = world(&[("gress", policy(tier, 9, &ns("x"), gress, &rules))]);
            check(|| deny(deny(Reach::everybody(), "y/a"), "y/c"), &mut world, 80);
            check(|| deny(Reach::everybody(), "z"), &mut world, 81);
        }
    }
}

/// Should support a port range, for each protocol
#[test]
fn should_support_port_ranges() {
    for tier in TIERS {
        let range = json!({ "range": { "start": 81, "end": 8080 } });
        let rules =
            json!([at("Accept", "to", &ns("y"), &range), rule("Deny", "to", &json!({ "namespaces": {} }))]);
        let mut world = world(&[("ranges", from_x(tier, &rules))]);
        for (port, reaches) in [(80, false), (81, true), (5000, true), (8080, true), (8081, false)] {
            let reach = || {
                let none = Reach::everybody().deny("x", "*");
                if reaches { none.allow("x", "y") } else { none }
            };
            check(reach, &mut world, port);
        }
    }
}

/// Should support named ports, which are those of the pod that is asked
#[test]
fn should_support_named_ports() {
    let protocols = json!([{ "destinationNamedPort": "serve-81-udp" }]);
    for (field, gress) in [("from", "ingress"), ("to", "egress")] {
        let denial = json!({ "action": "Deny", field: [{ "namespaces": {} }], "protocols": protocols });
        let mut world = world(&[("named", policy("Admin", 1, &ns("x"), gress, &json!([denial])))]);
        let denied = if gress == "ingress" { ("*", "x") } else { ("x", "*") };
        Reach::everybody().deny(denied.0, denied.1).check(&mut world, Udp, 81);
        Reach::everybody().check(&mut world, Udp, 80);
        Reach::everybody().check(&mut world, Tcp, 81);
    }
}

/// Should support pod selectors in subject and peers
#[test]
fn should_support_pod_selectors() {
    for tier in TIERS {
        let rules = json!([rule("Accept", "from", &pods("y", "a")), rule("Deny", "from", &ns("y"))]);
        let mut world = world(&[("pods", policy(tier, 3, &pods("x", "b"), "ingress", &rules))]);
        check(|| Reach::everybody().deny("y", "x/b").allow("y/a", "x/b"), &mut world, 80);
    }
}

/// Should Deny traffic to a CIDR, and Accept what comes before it
#[test]
fn should_support_inline_networks_at_egress() {
    for tier in TIERS {
        let networks = |networks: &[&str]| json!({ "networks": networks });
        let rules = json!([
            at("Accept", "to", &networks(&["192.0.2.0/28", "2001:db8::/124"]), &json!({ "number": 80 })),
            rule("Deny", "to", &networks(&["192.0.2.0/24", "2001:db8::/64"])),
        ]);
        let mut all = world(&[("networks", from_x(tier, &rules))]);
        for (to, port, reaches) in [
            ("192.0.2.3", 80, true),
            ("192.0.2.3", 81, false),
            ("192.0.2.99", 80, false),
            ("198.51.100.1", 80, true),
            ("2001:db8::3", 80, true),
            ("2001:db8::3", 81, false),
            ("2001:db8::99", 80, false),
            ("2001:db8:1::1", 81, true),
        ] {
            assert_eq!(all.reaches_outside("x/a", to, port), reaches, "{tier} {to} {port}");
            assert!(all.reaches_outside("y/a", to, port), "it is not about y");
        }
        // Networks mean pods as well, and a rule about pods before them spares these.
        let everything = networks(&["0.0.0.0/0", "::/0"]);
        all.apply_cluster("networks", from_x(tier, &json!([rule("Deny", "to", &everything)])));
        check(|| Reach::everybody().deny("x", "*"), &mut all, 80);
        let spared =
            json!([rule("Pass", "to", &json!({ "namespaces": {} })), rule("Deny", "to", &everything)]);
        all.apply_cluster("networks", from_x(tier, &spared));
        check(Reach::everybody, &mut all, 80);
        assert!(!all.reaches_outside("x/a", "192.0.2.3", 80));
    }
}

/// Should Deny traffic from slytherin to gryffindor respecting the lower priority number
#[test]
fn should_respect_priorities() {
    for tier in TIERS {
        let policy = |priority, action: &str| {
            policy(tier, priority, &ns("x"), "ingress", &json!([rule(action, "from", &ns("y"))]))
        };
        let mut world = world(&[("a", policy(50, "Accept")), ("b", policy(40, "Deny"))]);
        check(|| Reach::everybody().deny("y", "x"), &mut world, 80);
        world.apply_cluster("b", policy(60, "Deny"));
        check(Reach::everybody, &mut world, 80);
        // Of equal ones any may decide; here it is the first by name, and always the same.
        world.apply_cluster("b", policy(50, "Deny"));
        check(Reach::everybody, &mut world, 80);
    }
}

/// Should support ingress and egress of one policy that do not concern each other
#[test]
fn should_isolate_directions_from_each_other() {
    for tier in TIERS {
        let mut world =
            world(&[("in", to_x(tier, &json!([rule("Deny", "from", &json!({ "namespaces": {} }))])))]);
        check(|| Reach::everybody().deny("*", "x"), &mut world, 80);
        let mut world = crate::tiers::world(&[(
            "out",
            from_x(tier, &json!([rule("Deny", "to", &json!({ "namespaces": {} }))])),
        )]);
        check(|| Reach::everybody().deny("x", "*"), &mut world, 80);
    }
}

/// Should Deny traffic from slytherin to gryffindor respecting admin CNP
/// Should support a 'pass-ingress' policy for admin CNP and respect the match for network policy
/// Should support a 'pass-ingress' policy for admin CNP and respect the match for baseline cluster network policy
#[test]
fn should_support_integration_of_admin_network_policy_and_baseline() {
    let from_y = |action: &str| json!([rule(action, "from", &ns("y"))]);
    let mut world =
        world(&[("admin", to_x("Admin", &from_y("Deny"))), ("default", to_x("Baseline", &from_y("Deny")))]);
    let allowed = json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "ns": "y" } } }] }]);
    world.apply("x", "allow", json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": allowed }));
    check(|| Reach::everybody().deny("*", "x"), &mut world, 80);
    world.apply_cluster("admin", to_x("Admin", &from_y("Pass")));
    check(|| Reach::everybody().deny("*", "x").allow("y", "x"), &mut world, 80);
    world.delete("x", "allow");
    check(|| Reach::everybody().deny("y", "x"), &mut world, 80);
    world.apply_cluster("admin", to_x("Admin", &from_y("Accept")));
    check(Reach::everybody, &mut world, 80);
    world.apply("x", "none", json!({ "podSelector": {}, "policyTypes": ["Ingress"] }));
    check(|| Reach::everybody().deny("*", "x").allow("y", "x"), &mut world, 80);
}

/// Should support a 'pass-egress' policy for admin CNP and respect the match for network policy
/// Should support a 'pass-egress' policy for admin CNP and respect the match for baseline cluster network policy
#[test]
fn should_support_integration_at_egress() {
    let to_y = |action: &str| json!([rule(action, "to", &ns("y"))]);
    let mut world =
        world(&[("admin", from_x("Admin", &to_y("Deny"))), ("default", from_x("Baseline", &to_y("Deny")))]);
    let allowed = json!([{ "to": [{ "namespaceSelector": { "matchLabels": { "ns": "y" } } }] }]);
    world.apply("x", "allow", json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": allowed }));
    check(|| Reach::everybody().deny("x", "*"), &mut world, 80);
    world.apply_cluster("admin", from_x("Admin", &to_y("Pass")));
    check(|| Reach::everybody().deny("x", "*").allow("x", "y"), &mut world, 80);
    world.delete("x", "allow");
    check(|| Reach::everybody().deny("x", "y"), &mut world, 80);
}

/// Policies follow the labels of namespaces and pods that they select.
#[test]
fn should_follow_labels_of_subjects() {
    let subject = json!({ "namespaces": { "matchLabels": { "closed": "yes" } } });
    let everybody = json!([rule("Deny", "from", &json!({ "namespaces": {} }))]);
    let mut world = world(&[("closed", policy("Admin", 1, &subject, "ingress", &everybody))]);
    check(Reach::everybody, &mut world, 80);
    world.label_namespace("z", &json!({ "closed": "yes" }));
    check(|| Reach::everybody().deny("*", "z"), &mut world, 80);
    world.label_namespace("z", &json!({}));
    check(Reach::everybody, &mut world, 80);
}

/// A denial that cannot be understood denies everything to its subjects, and nothing to others.
#[test]
fn should_fail_closed() {
    let bad = json!([{ "action": "Deny", "from": [{ "galaxies": {} }] }]);
    let mut world = world(&[("bad", to_x("Admin", &bad))]);
    check(|| Reach::everybody().deny("*", "x"), &mut world, 80);
}
