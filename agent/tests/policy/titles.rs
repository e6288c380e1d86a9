//! Upstream's suite (`test/e2e/network/netpol`), case by case: the objects and the truth tables its titles describe. The world
//! has more pods than upstream makes for most cases, so that the tables say more.

use agent::tables::Protocol::{self, Sctp, Tcp, Udp};
use serde_json::{Value, json};

use crate::world::{Reach, World, address};

fn ingress(pods: &Value, rules: &Value) -> Value {
    json!({ "podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules })
}

fn egress(pods: &Value, rules: &Value) -> Value {
    json!({ "podSelector": pods, "policyTypes": ["Egress"], "egress": rules })
}

/// Pods by the label that is their name.
fn pod(name: &str) -> Value {
    json!({ "matchLabels": { "pod": name } })
}

/// Namespaces by the label that is their name.
fn ns(name: &str) -> Value {
    json!({ "matchLabels": { "ns": name } })
}

fn is_in(key: &str, values: &[&str]) -> Value {
    json!({ "matchExpressions": [{ "key": key, "operator": "In", "values": values }] })
}

fn not_in(key: &str, values: &[&str]) -> Value {
    json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": values }] })
}

fn upper(protocol: Protocol) -> String {
    format!("{protocol:?}").to_uppercase()
}

/// What three cases do for each protocol.
fn default_deny_ingress(protocol: Protocol) {
    let mut world = World::new();
    world.apply("x", "deny-ingress", ingress(&json!({}), &json!([])));
    Reach::everybody().deny("*", "x").check(&world, protocol, 80);
}

fn based_on_ports(protocol: Protocol) {
    let mut world = World::new();
    let rule = json!([{
        "from": [{ "namespaceSelector": ns("y") }],
        "ports": [{ "port": 81, "protocol": upper(protocol) }],
    }]);
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(&world, protocol, 81);
}

fn pod_of_a_different_namespace(protocol: Protocol) {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "namespaceSelector": ns("y"), "podSelector": pod("a") }] }]);
    world.apply("x", "allow-ns-y-pod-a-via-namespace-pod-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("y/a", "x/a").check(&world, protocol, 80);
}

/// should support a 'default-deny-ingress' policy
#[test]
fn should_support_a_default_deny_ingress_policy() {
    default_deny_ingress(Tcp);
}

/// should support a 'default-deny-all' policy
#[test]
fn should_support_a_default_deny_all_policy() {
    let mut world = World::new();
    let spec =
        json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [] });
    world.apply("x", "deny-all", spec);
    Reach::everybody().deny("x", "*").deny("*", "x").check(&world, Tcp, 80);
}

/// should enforce policy to allow traffic from pods within server namespace based on PodSelector
#[test]
fn should_enforce_policy_to_allow_traffic_from_pods_within_server_namespace_based_on_pod_selector() {
    let mut world = World::new();
    world.apply(
        "x",
        "x-a-allows-x-b",
        ingress(&pod("a"), &json!([{ "from": [{ "podSelector": pod("b") }] }])),
    );
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy to allow ingress traffic for a target
#[test]
fn should_enforce_policy_to_allow_ingress_traffic_for_a_target() {
    let mut world = World::new();
    world.apply("x", "deny-all", ingress(&json!({}), &json!([])));
    let rule = json!([{ "from": [{ "podSelector": {}, "namespaceSelector": {} }] }]);
    world.apply("x", "allow-all-to-a", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x").allow("*", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy to allow ingress traffic from pods in all namespaces
#[test]
fn should_enforce_policy_to_allow_ingress_traffic_from_pods_in_all_namespaces() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "namespaceSelector": { "matchLabels": {} } }] }]);
    world.apply("x", "allow-from-another-ns", ingress(&pod("a"), &rule));
    Reach::everybody().check(&world, Tcp, 80);
}

/// should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector
#[test]
fn should_enforce_policy_to_allow_traffic_only_from_a_different_namespace_based_on_namespace_selector() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "namespaceSelector": ns("y") }] }]);
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on PodSelector with MatchExpressions
#[test]
fn should_enforce_policy_based_on_pod_selector_with_match_expressions() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "podSelector": is_in("pod", &["b"]) }] }]);
    world.apply("x", "x-a-allows-x-b", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on NamespaceSelector with MatchExpressions
#[test]
fn should_enforce_policy_based_on_namespace_selector_with_match_expressions() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "namespaceSelector": is_in("ns", &["y"]) }] }]);
    world.apply("x", "allow-ns-y-match-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on PodSelector or NamespaceSelector
#[test]
fn should_enforce_policy_based_on_pod_selector_or_namespace_selector() {
    let mut world = World::new();
    let rule =
        json!([{ "from": [{ "namespaceSelector": not_in("ns", &["x"]) }, { "podSelector": pod("b") }] }]);
    world.apply("x", "allow-ns-y-match-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x/c", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on PodSelector and NamespaceSelector
#[test]
fn should_enforce_policy_based_on_pod_selector_and_namespace_selector() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "namespaceSelector": not_in("ns", &["x"]), "podSelector": pod("b") }] }]);
    world.apply("x", "allow-ns-y-podselector-and-nsselector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("y/b", "x/a").allow("z/b", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on Multiple PodSelectors and NamespaceSelectors
#[test]
fn should_enforce_policy_based_on_multiple_pod_selectors_and_namespace_selectors() {
    let mut world = World::new();
    let peer = json!({ "namespaceSelector": not_in("ns", &["x"]), "podSelector": is_in("pod", &["b", "c"]) });
    world.apply("x", "allow-ns-y-z-pod-b-c", ingress(&pod("a"), &json!([{ "from": [peer] }])));
    Reach::everybody().deny("x", "x/a").deny("y/a", "x/a").deny("z/a", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on any PodSelectors
#[test]
fn should_enforce_policy_based_on_any_pod_selectors() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "podSelector": pod("b") }, { "podSelector": pod("c") }] }]);
    world.apply("x", "allow-ns-x-pod-b-c", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").allow("x/c", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector
#[test]
fn should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace() {
    pod_of_a_different_namespace(Tcp);
}

/// should enforce policy based on Ports
#[test]
fn should_enforce_policy_based_on_ports() {
    based_on_ports(Tcp);
}

/// should enforce multiple, stacked policies with overlapping podSelectors
#[test]
fn should_enforce_multiple_stacked_policies_with_overlapping_pod_selectors() {
    let mut world = World::new();
    let rule = |port: u16| json!([{ "from": [{ "namespaceSelector": ns("y") }], "ports": [{ "port": port, "protocol": "TCP" }] }]);
    let allowed = || Reach::everybody().deny("x", "x/a").deny("z", "x/a");
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule(81)));
    allowed().check(&world, Tcp, 81);
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 80);
    world.apply("x", "allow-client-a-via-ns-selector-80", ingress(&pod("a"), &rule(80)));
    allowed().check(&world, Tcp, 80);
    allowed().check(&world, Tcp, 81);
}

/// should support allow-all policy
#[test]
fn should_support_allow_all_policy() {
    let mut world = World::new();
    world.apply("x", "allow-all", ingress(&json!({}), &json!([{}])));
    Reach::everybody().check(&world, Tcp, 80);
    Reach::everybody().check(&world, Tcp, 81);
}

/// should allow ingress access on one named port
#[test]
fn should_allow_ingress_access_on_one_named_port() {
    let mut world = World::new();
    world.apply("x", "allow-all", ingress(&json!({}), &json!([{ "ports": [{ "port": "serve-81-tcp" }] }])));
    Reach::everybody().check(&world, Tcp, 81);
    Reach::everybody().deny("*", "x").check(&world, Tcp, 80);
}

/// should allow ingress access from namespace on one named port
#[test]
fn should_allow_ingress_access_from_namespace_on_one_named_port() {
    let mut world = World::new();
    let port = json!({ "port": "serve-80-tcp", "protocol": "TCP" });
    let rule = json!([{ "from": [{ "namespaceSelector": ns("y") }], "ports": [port] }]);
    world.apply("x", "allow-client-a-via-ns-selector-80", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(&world, Tcp, 80);
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 81);
}

/// should allow egress access on one named port
#[test]
fn should_allow_egress_access_on_one_named_port() {
    let mut world = World::new();
    world.apply("x", "allow-egress", egress(&json!({}), &json!([{ "ports": [{ "port": "serve-80-tcp" }] }])));
    Reach::everybody().check(&world, Tcp, 80);
    Reach::everybody().deny("x", "*").check(&world, Tcp, 81);
}

/// should enforce updated policy
#[test]
fn should_enforce_updated_policy() {
    let mut world = World::new();
    world.apply("x", "allow-all-mutate-to-deny-all", ingress(&json!({}), &json!([{}])));
    Reach::everybody().check(&world, Tcp, 81);
    world.apply("x", "allow-all-mutate-to-deny-all", ingress(&json!({}), &json!([])));
    Reach::everybody().deny("*", "x").check(&world, Tcp, 81);
}

/// should allow ingress access from updated namespace
#[test]
fn should_allow_ingress_access_from_updated_namespace() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "ns2": "updated" } } }] }]);
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 80);
    world.label_namespace("y", &json!({ "ns2": "updated" }));
    Reach::everybody().deny("*", "x/a").allow("y", "x/a").check(&world, Tcp, 80);
}

/// should allow ingress access from updated pod
#[test]
fn should_allow_ingress_access_from_updated_pod() {
    let mut world = World::new();
    let labels = json!({ "matchLabels": { "pod": "b", "pod2": "updated" } });
    let rule = json!([{ "from": [{ "podSelector": labels }] }]);
    world.apply("x", "allow-client-a-via-pod-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 80);
    world.label("x/b", &json!({ "pod2": "updated" }));
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").check(&world, Tcp, 80);
}

/// should deny ingress from pods on other namespaces
#[test]
fn should_deny_ingress_from_pods_on_other_namespaces() {
    let mut world = World::new();
    let rule = json!([{ "from": [{ "podSelector": { "matchLabels": {} } }] }]);
    world.apply("x", "deny-empty-policy", ingress(&json!({}), &rule));
    Reach::everybody().deny("y", "x").deny("z", "x").check(&world, Tcp, 80);
}

/// should deny ingress access to updated pod
#[test]
fn should_deny_ingress_access_to_updated_pod() {
    let mut world = World::new();
    let isolated = json!({ "matchLabels": { "target": "isolated" } });
    world.apply("x", "deny-ingress-via-label-selector", ingress(&isolated, &json!([])));
    Reach::everybody().check(&world, Tcp, 80);
    world.label("x/a", &json!({ "target": "isolated" }));
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 80);
}

/// should deny egress from pods based on PodSelector
#[test]
fn should_deny_egress_from_pods_based_on_pod_selector() {
    let mut world = World::new();
    world.apply("x", "deny-egress-pod-a", egress(&pod("a"), &json!([])));
    Reach::everybody().deny("x/a", "*").check(&world, Tcp, 80);
}

/// should deny egress from all pods in a namespace
#[test]
fn should_deny_egress_from_all_pods_in_a_namespace() {
    let mut world = World::new();
    world.apply("x", "deny-egress-ns-x", egress(&json!({}), &json!([])));
    Reach::everybody().deny("x", "*").check(&world, Tcp, 80);
}

/// should work with Ingress, Egress specified together
#[test]
fn should_work_with_ingress_egress_specified_together() {
    let mut world = World::new();
    let spec = json!({
        "podSelector": pod("a"),
        "policyTypes": ["Egress", "Ingress"],
        "ingress": [{ "from": [{ "podSelector": pod("b") }] }],
        "egress": [{ "ports": [{ "port": 80 }] }],
    });
    world.apply("x", "allow-client-a-via-pod-selector", spec);
    let incoming = || Reach::everybody().deny("*", "x/a").allow("x/b", "x/a");
    incoming().check(&world, Tcp, 80);
    incoming().deny("x/a", "*").check(&world, Tcp, 81);
}

/// should support denying of egress traffic on the client side (even if the server explicitly allows this traffic)
#[test]
fn should_support_denying_of_egress_traffic_on_the_client_side() {
    let mut world = World::new();
    let to = json!([{ "to": [{ "namespaceSelector": ns("y"), "podSelector": pod("a") }] }]);
    world.apply("x", "allow-to-ns-y-pod-a", egress(&pod("a"), &to));
    let from = json!([{ "from": [{ "namespaceSelector": ns("x"), "podSelector": pod("a") }] }]);
    world.apply("y", "allow-from-xa-on-ya-match-selector", ingress(&pod("a"), &from));
    world.apply("y", "allow-from-xa-on-yb-match-selector", ingress(&pod("b"), &from));
    let want = Reach::everybody().deny("x/a", "*").deny("*", "y/a").deny("*", "y/b").allow("x/a", "y/a");
    want.check(&world, Tcp, 80);
}

/// should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and
/// NamespaceSelector
#[test]
fn should_enforce_egress_policy_allowing_traffic_to_a_server_in_a_different_namespace() {
    let mut world = World::new();
    let to = json!([{ "to": [{ "namespaceSelector": ns("y"), "podSelector": pod("a") }] }]);
    world.apply("x", "allow-to-ns-y-pod-a", egress(&pod("a"), &to));
    Reach::everybody().deny("x/a", "*").allow("x/a", "y/a").check(&world, Tcp, 80);
}

/// should enforce ingress policy allowing any port traffic to a server on a specific protocol
#[test]
fn should_enforce_ingress_policy_allowing_any_port_traffic_to_a_server_on_a_specific_protocol() {
    let mut world = World::new();
    world.apply(
        "x",
        "allow-ingress-by-proto",
        ingress(&pod("a"), &json!([{ "ports": [{ "protocol": "TCP" }] }])),
    );
    Reach::everybody().check(&world, Tcp, 80);
    Reach::everybody().deny("*", "x/a").check(&world, Udp, 80);
}

/// should enforce multiple ingress policies with ingress allow-all policy taking precedence
#[test]
fn should_enforce_multiple_ingress_policies_with_ingress_allow_all_policy_taking_precedence() {
    let mut world = World::new();
    world.apply("x", "allow-ingress-port-80", ingress(&json!({}), &json!([{ "ports": [{ "port": 80 }] }])));
    Reach::everybody().deny("*", "x").check(&world, Tcp, 81);
    world.apply("x", "allow-ingress", ingress(&json!({}), &json!([{}])));
    Reach::everybody().check(&world, Tcp, 81);
}

/// should enforce multiple egress policies with egress allow-all policy taking precedence
#[test]
fn should_enforce_multiple_egress_policies_with_egress_allow_all_policy_taking_precedence() {
    let mut world = World::new();
    world.apply("x", "allow-egress-port-80", egress(&json!({}), &json!([{ "ports": [{ "port": 80 }] }])));
    Reach::everybody().deny("x", "*").check(&world, Tcp, 81);
    world.apply("x", "allow-egress", egress(&json!({}), &json!([{}])));
    Reach::everybody().check(&world, Tcp, 81);
}

/// should stop enforcing policies after they are deleted
#[test]
fn should_stop_enforcing_policies_after_they_are_deleted() {
    let mut world = World::new();
    let spec =
        json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [] });
    world.apply("x", "deny-all", spec);
    Reach::everybody().deny("x", "*").deny("*", "x").check(&world, Tcp, 80);
    world.delete("x", "deny-all");
    Reach::everybody().check(&world, Tcp, 80);
    assert!(world.policies.state.rules.is_empty() && world.policies.state.identities.is_empty());
}

/// Rules for egress to blocks of both families: of one pod, and of all but one.
fn to_block(blocks: &[(String, Vec<String>)]) -> Value {
    let peer =
        |(cidr, except): &(String, Vec<String>)| json!({ "ipBlock": { "cidr": cidr, "except": except } });
    json!([{ "to": blocks.iter().map(peer).collect::<Vec<_>>() }])
}

fn only(text: &str) -> Vec<(String, Vec<String>)> {
    let [v4, v6] = crate::world::addresses(text);
    vec![(format!("{v4}/32"), vec![]), (format!("{v6}/128"), vec![])]
}

fn around_but(text: &str) -> Vec<(String, Vec<String>)> {
    let [v4, v6] = crate::world::addresses(text);
    vec![("10.0.0.0/8".into(), vec![format!("{v4}/32")]), ("fd00::/16".into(), vec![format!("{v6}/128")])]
}

/// should allow egress access to server in CIDR block
#[test]
fn should_allow_egress_access_to_server_in_cidr_block() {
    let mut world = World::new();
    world.apply("x", "allow-client-a-via-cidr-egress-rule", egress(&pod("a"), &to_block(&only("y/b"))));
    Reach::everybody().deny("x/a", "*").allow("x/a", "y/b").check(&world, Tcp, 80);
}

/// should enforce except clause while egress access to server in CIDR block
#[test]
fn should_enforce_except_clause_while_egress_access_to_server_in_cidr_block() {
    let mut world = World::new();
    world.apply("x", "allow-client-a-via-cidr-egress-rule", egress(&pod("a"), &to_block(&around_but("x/b"))));
    Reach::everybody().deny("x/a", "x/b").check(&world, Tcp, 80);
    assert!(world.reaches_outside("x/a", "10.9.9.9", 80) && !world.reaches_outside("x/a", "192.0.2.1", 80));
}

/// should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed
#[test]
fn should_ensure_an_ip_overlapping_both_ip_block_cidr_and_ip_block_except_is_allowed() {
    let mut world = World::new();
    world.apply("x", "allow-client-a-via-cidr-egress-rule", egress(&pod("a"), &to_block(&around_but("x/b"))));
    Reach::everybody().deny("x/a", "x/b").check(&world, Tcp, 80);
    // Beside the first, as its title says, and in its place, as upstream does.
    world.apply("x", "allow-b", egress(&pod("a"), &to_block(&only("x/b"))));
    Reach::everybody().check(&world, Tcp, 80);
    world.delete("x", "allow-b");
    world.apply("x", "allow-client-a-via-cidr-egress-rule", egress(&pod("a"), &to_block(&only("x/b"))));
    Reach::everybody().deny("x/a", "*").allow("x/a", "x/b").check(&world, Tcp, 80);
}

/// should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector
#[test]
fn should_enforce_policies_to_check_ingress_and_egress_policies_can_be_controlled_independently() {
    let mut world = World::new();
    world.apply("x", "allow-egress-for-target", egress(&pod("a"), &json!([{}])));
    Reach::everybody().check(&world, Tcp, 80);
    world.apply("x", "deny-ingress-via-label-selector", ingress(&pod("a"), &json!([])));
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 80);
}

/// should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP
#[test]
fn should_not_mistakenly_treat_protocol_sctp_as_protocol_tcp() {
    let mut world = World::new();
    world.apply("x", "deny-ingress", ingress(&json!({}), &json!([])));
    let rule = json!([{ "ports": [{ "port": 81, "protocol": "SCTP" }] }]);
    world.apply("x", "allow-only-sctp-ingress-on-port-81", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x").check(&world, Tcp, 81);
    Reach::everybody().deny("*", "x").allow("*", "x/a").check(&world, Sctp, 81);
}

/// should properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support SCTP
#[test]
fn should_properly_isolate_pods_that_are_selected_by_a_policy_allowing_sctp() {
    let mut world = World::new();
    let rule = json!([{ "ports": [{ "port": 80, "protocol": "SCTP" }] }]);
    world.apply("x", "allow-only-sctp-ingress-on-port-80", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 81);
}

/// should not allow access by TCP when a policy specifies only UDP
#[test]
fn should_not_allow_access_by_tcp_when_a_policy_specifies_only_udp() {
    let mut world = World::new();
    let rule = json!([{ "ports": [{ "port": 81, "protocol": "UDP" }] }]);
    world.apply("x", "allow-only-udp-ingress-on-port-81", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(&world, Tcp, 81);
    Reach::everybody().check(&world, Udp, 81);
}

/// should enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label
#[test]
fn should_enforce_policy_to_allow_traffic_based_on_namespace_selector_using_default_ns_label() {
    let mut world = World::new();
    let y = json!({ "matchLabels": { "kubernetes.io/metadata.name": "y" } });
    let rule = json!([{ "from": [{ "namespaceSelector": y }] }]);
    world.apply("x", "allow-client-a-via-ns-selector-for-immutable-ns-label", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(&world, Tcp, 80);
}

/// should enforce policy based on NamespaceSelector with MatchExpressions using default ns label
#[test]
fn should_enforce_policy_based_on_namespace_selector_with_match_expressions_using_default_ns_label() {
    let mut world = World::new();
    let rule = json!([{ "to": [{ "namespaceSelector": not_in("kubernetes.io/metadata.name", &["y"]) }] }]);
    world.apply("x", "allow-ns-y-match-selector-for-immutable-ns-label", egress(&pod("a"), &rule));
    Reach::everybody().deny("x/a", "y").check(&world, Tcp, 80);
}

/// Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should support a 'default-deny-ingress' policy
#[test]
fn udp_should_support_a_default_deny_ingress_policy() {
    default_deny_ingress(Udp);
}

/// Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should enforce policy based on Ports
#[test]
fn udp_should_enforce_policy_based_on_ports() {
    based_on_ports(Udp);
}

/// Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should enforce policy to allow traffic only from a pod
/// in a different namespace based on PodSelector and NamespaceSelector
#[test]
fn udp_should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace() {
    pod_of_a_different_namespace(Udp);
}

/// NetworkPolicySCTP between server and client using SCTP should support a 'default-deny-ingress' policy
#[test]
fn sctp_should_support_a_default_deny_ingress_policy() {
    default_deny_ingress(Sctp);
}

/// NetworkPolicySCTP between server and client using SCTP should enforce policy based on Ports
#[test]
fn sctp_should_enforce_policy_based_on_ports() {
    based_on_ports(Sctp);
}

/// NetworkPolicySCTP between server and client using SCTP should enforce policy to allow traffic only from a pod in a different
/// namespace based on PodSelector and NamespaceSelector
#[test]
fn sctp_should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace() {
    pod_of_a_different_namespace(Sctp);
}

#[test]
fn pods_are_where_the_cases_think() {
    assert_eq!(address("y/b").to_string(), "10.244.2.2");
}
