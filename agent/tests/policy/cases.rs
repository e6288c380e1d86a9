//! Upstream's suite (`test/e2e/network/netpol`), case by case: the objects and the truth tables its titles describe, for whoever
//! plays them: oracle and rows, programs, and pods of a cluster. There are more pods than upstream makes for most cases, so that
//! the tables say more: in namespaces `x`, `y`, `z` the pods `a`, `b`, `c`, which serve ports 80 and 81 of every protocol.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use Protocol::{Sctp, Tcp, Udp};

pub const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub const PODS: [&str; 3] = ["a", "b", "c"];

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Where cases are played: the pods are there, without policies.
pub trait Stage {
    /// Adds or replaces a policy.
    fn apply(&mut self, namespace: &str, name: &str, spec: Value);
    fn delete(&mut self, namespace: &str, name: &str);
    /// More labels for a pod, beside `pod`, which is its name.
    fn label(&mut self, pod: &str, more: &Value);
    /// More labels for a namespace, beside `ns`, which is its name.
    fn label_namespace(&mut self, namespace: &str, more: &Value);
    /// IPv4 and IPv6.
    fn addresses(&self, pod: &str) -> [IpAddr; 2];
    /// Fails unless pods reach each other as they should.
    fn check(&mut self, reach: &Reach, protocol: Protocol, port: u16);
}

/// One case.
pub struct Case {
    pub title: &'static str,
    pub play: fn(&mut dyn Stage),
}

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        title: "should support a 'default-deny-ingress' policy",
        play: should_support_a_default_deny_ingress_policy,
    },
    Case {
        title: "should support a 'default-deny-all' policy",
        play: should_support_a_default_deny_all_policy,
    },
    Case {
        title: "should enforce policy to allow traffic from pods within server namespace based on PodSelector",
        play: should_enforce_policy_to_allow_traffic_from_pods_within_server_namespace_based_on_pod_selector,
    },
    Case {
        title: "should enforce policy to allow ingress traffic for a target",
        play: should_enforce_policy_to_allow_ingress_traffic_for_a_target,
    },
    Case {
        title: "should enforce policy to allow ingress traffic from pods in all namespaces",
        play: should_enforce_policy_to_allow_ingress_traffic_from_pods_in_all_namespaces,
    },
    Case {
        title: "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
        play:
            should_enforce_policy_to_allow_traffic_only_from_a_different_namespace_based_on_namespace_selector,
    },
    Case {
        title: "should enforce policy based on PodSelector with MatchExpressions",
        play: should_enforce_policy_based_on_pod_selector_with_match_expressions,
    },
    Case {
        title: "should enforce policy based on NamespaceSelector with MatchExpressions",
        play: should_enforce_policy_based_on_namespace_selector_with_match_expressions,
    },
    Case {
        title: "should enforce policy based on PodSelector or NamespaceSelector",
        play: should_enforce_policy_based_on_pod_selector_or_namespace_selector,
    },
    Case {
        title: "should enforce policy based on PodSelector and NamespaceSelector",
        play: should_enforce_policy_based_on_pod_selector_and_namespace_selector,
    },
    Case {
        title: "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
        play: should_enforce_policy_based_on_multiple_pod_selectors_and_namespace_selectors,
    },
    Case {
        title: "should enforce policy based on any PodSelectors",
        play: should_enforce_policy_based_on_any_pod_selectors,
    },
    Case {
        title: "should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
        play: should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace,
    },
    Case { title: "should enforce policy based on Ports", play: should_enforce_policy_based_on_ports },
    Case {
        title: "should enforce multiple, stacked policies with overlapping podSelectors",
        play: should_enforce_multiple_stacked_policies_with_overlapping_pod_selectors,
    },
    Case { title: "should support allow-all policy", play: should_support_allow_all_policy },
    Case {
        title: "should allow ingress access on one named port",
        play: should_allow_ingress_access_on_one_named_port,
    },
    Case {
        title: "should allow ingress access from namespace on one named port",
        play: should_allow_ingress_access_from_namespace_on_one_named_port,
    },
    Case {
        title: "should allow egress access on one named port",
        play: should_allow_egress_access_on_one_named_port,
    },
    Case { title: "should enforce updated policy", play: should_enforce_updated_policy },
    Case {
        title: "should allow ingress access from updated namespace",
        play: should_allow_ingress_access_from_updated_namespace,
    },
    Case {
        title: "should allow ingress access from updated pod",
        play: should_allow_ingress_access_from_updated_pod,
    },
    Case {
        title: "should deny ingress from pods on other namespaces",
        play: should_deny_ingress_from_pods_on_other_namespaces,
    },
    Case {
        title: "should deny ingress access to updated pod",
        play: should_deny_ingress_access_to_updated_pod,
    },
    Case {
        title: "should deny egress from pods based on PodSelector",
        play: should_deny_egress_from_pods_based_on_pod_selector,
    },
    Case {
        title: "should deny egress from all pods in a namespace",
        play: should_deny_egress_from_all_pods_in_a_namespace,
    },
    Case {
        title: "should work with Ingress, Egress specified together",
        play: should_work_with_ingress_egress_specified_together,
    },
    Case {
        title: "should support denying of egress traffic on the client side (even if the server explicitly allows this traffic)",
        play: should_support_denying_of_egress_traffic_on_the_client_side,
    },
    Case {
        title: "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector",
        play: should_enforce_egress_policy_allowing_traffic_to_a_server_in_a_different_namespace,
    },
    Case {
        title: "should enforce ingress policy allowing any port traffic to a server on a specific protocol",
        play: should_enforce_ingress_policy_allowing_any_port_traffic_to_a_server_on_a_specific_protocol,
    },
    Case {
        title: "should enforce multiple ingress policies with ingress allow-all policy taking precedence",
        play: should_enforce_multiple_ingress_policies_with_ingress_allow_all_policy_taking_precedence,
    },
    Case {
        title: "should enforce multiple egress policies with egress allow-all policy taking precedence",
        play: should_enforce_multiple_egress_policies_with_egress_allow_all_policy_taking_precedence,
    },
    Case {
        title: "should stop enforcing policies after they are deleted",
        play: should_stop_enforcing_policies_after_they_are_deleted,
    },
    Case {
        title: "should allow egress access to server in CIDR block",
        play: should_allow_egress_access_to_server_in_cidr_block,
    },
    Case {
        title: "should enforce except clause while egress access to server in CIDR block",
        play: should_enforce_except_clause_while_egress_access_to_server_in_cidr_block,
    },
    Case {
        title: "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
        play: should_ensure_an_ip_overlapping_both_ip_block_cidr_and_ip_block_except_is_allowed,
    },
    Case {
        title: "should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector",
        play: should_enforce_policies_to_check_ingress_and_egress_policies_can_be_controlled_independently,
    },
    Case {
        title: "should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP",
        play: should_not_mistakenly_treat_protocol_sctp_as_protocol_tcp,
    },
    Case {
        title: "should properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support SCTP",
        play: should_properly_isolate_pods_that_are_selected_by_a_policy_allowing_sctp,
    },
    Case {
        title: "should not allow access by TCP when a policy specifies only UDP",
        play: should_not_allow_access_by_tcp_when_a_policy_specifies_only_udp,
    },
    Case {
        title: "should enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label",
        play: should_enforce_policy_to_allow_traffic_based_on_namespace_selector_using_default_ns_label,
    },
    Case {
        title: "should enforce policy based on NamespaceSelector with MatchExpressions using default ns label",
        play: should_enforce_policy_based_on_namespace_selector_with_match_expressions_using_default_ns_label,
    },
    Case {
        title: "Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should support a 'default-deny-ingress' policy",
        play: udp_should_support_a_default_deny_ingress_policy,
    },
    Case {
        title: "Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should enforce policy based on Ports",
        play: udp_should_enforce_policy_based_on_ports,
    },
    Case {
        title: "Netpol [LinuxOnly] NetworkPolicy between server and client using UDP should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
        play: udp_should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace,
    },
    Case {
        title: "NetworkPolicySCTP between server and client using SCTP should support a 'default-deny-ingress' policy",
        play: sctp_should_support_a_default_deny_ingress_policy,
    },
    Case {
        title: "NetworkPolicySCTP between server and client using SCTP should enforce policy based on Ports",
        play: sctp_should_enforce_policy_based_on_ports,
    },
    Case {
        title: "NetworkPolicySCTP between server and client using SCTP should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
        play: sctp_should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace,
    },
];

/// Who reaches whom, as a case expects it; everybody until something is said.
pub struct Reach {
    denied: BTreeSet<(String, String)>,
}

/// Which pods a word means: `x/a` one, `x` all of a namespace, `*` all.
fn means(word: &str, text: &str) -> bool {
    word == "*" || word == text || text.split('/').next() == Some(word)
}

impl Reach {
    pub fn everybody() -> Self {
        Self { denied: BTreeSet::new() }
    }

    /// From these to those there is no way.
    pub fn deny(mut self, from: &str, to: &str) -> Self {
        self.denied.extend(pairs(from, to));
        self
    }

    /// But from these to those there is.
    pub fn allow(mut self, from: &str, to: &str) -> Self {
        for pair in pairs(from, to) {
            self.denied.remove(&pair);
        }
        self
    }

    /// Holds a world against it.
    pub fn check(&self, world: &mut dyn Stage, protocol: Protocol, port: u16) {
        world.check(self, protocol, port);
    }

    /// Every pair of pods, and whether the one reaches the other. A pod's way to itself leads through nothing of ours.
    pub fn expected(&self) -> impl Iterator<Item = (String, String, bool)> {
        let all = pairs("*", "*").into_iter();
        all.map(|(from, to)| {
            let reaches = !self.denied.contains(&(from.clone(), to.clone()));
            (from, to, reaches)
        })
    }
}

fn pairs(from: &str, to: &str) -> Vec<(String, String)> {
    let all = all_pods();
    let of = |word: &str| all.iter().filter(|text| means(word, text)).cloned().collect::<Vec<_>>();
    let to = of(to);
    let all = of(from).into_iter().flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
    all.filter(|(from, to)| from != to).collect()
}

pub fn all_pods() -> Vec<String> {
    NAMESPACES
        .iter()
        .flat_map(|namespace| PODS.iter().map(move |name| format!("{namespace}/{name}")))
        .collect()
}

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
fn default_deny_ingress(world: &mut dyn Stage, protocol: Protocol) {
    world.apply("x", "deny-ingress", ingress(&json!({}), &json!([])));
    Reach::everybody().deny("*", "x").check(world, protocol, 80);
}

fn based_on_ports(world: &mut dyn Stage, protocol: Protocol) {
    let rule = json!([{
        "from": [{ "namespaceSelector": ns("y") }],
        "ports": [{ "port": 81, "protocol": upper(protocol) }],
    }]);
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(world, protocol, 81);
}

fn pod_of_a_different_namespace(world: &mut dyn Stage, protocol: Protocol) {
    let rule = json!([{ "from": [{ "namespaceSelector": ns("y"), "podSelector": pod("a") }] }]);
    world.apply("x", "allow-ns-y-pod-a-via-namespace-pod-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("y/a", "x/a").check(world, protocol, 80);
}

fn should_support_a_default_deny_ingress_policy(world: &mut dyn Stage) {
    default_deny_ingress(world, Tcp);
}

fn should_support_a_default_deny_all_policy(world: &mut dyn Stage) {
    let spec =
        json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [] });
    world.apply("x", "deny-all", spec);
    Reach::everybody().deny("x", "*").deny("*", "x").check(world, Tcp, 80);
}

fn should_enforce_policy_to_allow_traffic_from_pods_within_server_namespace_based_on_pod_selector(
    world: &mut dyn Stage,
) {
    world.apply(
        "x",
        "x-a-allows-x-b",
        ingress(&pod("a"), &json!([{ "from": [{ "podSelector": pod("b") }] }])),
    );
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_to_allow_ingress_traffic_for_a_target(world: &mut dyn Stage) {
    world.apply("x", "deny-all", ingress(&json!({}), &json!([])));
    let rule = json!([{ "from": [{ "podSelector": {}, "namespaceSelector": {} }] }]);
    world.apply("x", "allow-all-to-a", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x").allow("*", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_to_allow_ingress_traffic_from_pods_in_all_namespaces(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "namespaceSelector": { "matchLabels": {} } }] }]);
    world.apply("x", "allow-from-another-ns", ingress(&pod("a"), &rule));
    Reach::everybody().check(world, Tcp, 80);
}

fn should_enforce_policy_to_allow_traffic_only_from_a_different_namespace_based_on_namespace_selector(
    world: &mut dyn Stage,
) {
    let rule = json!([{ "from": [{ "namespaceSelector": ns("y") }] }]);
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_pod_selector_with_match_expressions(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "podSelector": is_in("pod", &["b"]) }] }]);
    world.apply("x", "x-a-allows-x-b", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_namespace_selector_with_match_expressions(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "namespaceSelector": is_in("ns", &["y"]) }] }]);
    world.apply("x", "allow-ns-y-match-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_pod_selector_or_namespace_selector(world: &mut dyn Stage) {
    let rule =
        json!([{ "from": [{ "namespaceSelector": not_in("ns", &["x"]) }, { "podSelector": pod("b") }] }]);
    world.apply("x", "allow-ns-y-match-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x/c", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_pod_selector_and_namespace_selector(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "namespaceSelector": not_in("ns", &["x"]), "podSelector": pod("b") }] }]);
    world.apply("x", "allow-ns-y-podselector-and-nsselector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("y/b", "x/a").allow("z/b", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_multiple_pod_selectors_and_namespace_selectors(world: &mut dyn Stage) {
    let peer = json!({ "namespaceSelector": not_in("ns", &["x"]), "podSelector": is_in("pod", &["b", "c"]) });
    world.apply("x", "allow-ns-y-z-pod-b-c", ingress(&pod("a"), &json!([{ "from": [peer] }])));
    Reach::everybody().deny("x", "x/a").deny("y/a", "x/a").deny("z/a", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_any_pod_selectors(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "podSelector": pod("b") }, { "podSelector": pod("c") }] }]);
    world.apply("x", "allow-ns-x-pod-b-c", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").allow("x/c", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace(world: &mut dyn Stage) {
    pod_of_a_different_namespace(world, Tcp);
}

fn should_enforce_policy_based_on_ports(world: &mut dyn Stage) {
    based_on_ports(world, Tcp);
}

fn should_enforce_multiple_stacked_policies_with_overlapping_pod_selectors(world: &mut dyn Stage) {
    let rule = |port: u16| json!([{ "from": [{ "namespaceSelector": ns("y") }], "ports": [{ "port": port, "protocol": "TCP" }] }]);
    let allowed = || Reach::everybody().deny("x", "x/a").deny("z", "x/a");
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule(81)));
    allowed().check(world, Tcp, 81);
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 80);
    world.apply("x", "allow-client-a-via-ns-selector-80", ingress(&pod("a"), &rule(80)));
    allowed().check(world, Tcp, 80);
    allowed().check(world, Tcp, 81);
}

fn should_support_allow_all_policy(world: &mut dyn Stage) {
    world.apply("x", "allow-all", ingress(&json!({}), &json!([{}])));
    Reach::everybody().check(world, Tcp, 80);
    Reach::everybody().check(world, Tcp, 81);
}

fn should_allow_ingress_access_on_one_named_port(world: &mut dyn Stage) {
    world.apply("x", "allow-all", ingress(&json!({}), &json!([{ "ports": [{ "port": "serve-81-tcp" }] }])));
    Reach::everybody().check(world, Tcp, 81);
    Reach::everybody().deny("*", "x").check(world, Tcp, 80);
}

fn should_allow_ingress_access_from_namespace_on_one_named_port(world: &mut dyn Stage) {
    let port = json!({ "port": "serve-80-tcp", "protocol": "TCP" });
    let rule = json!([{ "from": [{ "namespaceSelector": ns("y") }], "ports": [port] }]);
    world.apply("x", "allow-client-a-via-ns-selector-80", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(world, Tcp, 80);
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 81);
}

fn should_allow_egress_access_on_one_named_port(world: &mut dyn Stage) {
    world.apply("x", "allow-egress", egress(&json!({}), &json!([{ "ports": [{ "port": "serve-80-tcp" }] }])));
    Reach::everybody().check(world, Tcp, 80);
    Reach::everybody().deny("x", "*").check(world, Tcp, 81);
}

fn should_enforce_updated_policy(world: &mut dyn Stage) {
    world.apply("x", "allow-all-mutate-to-deny-all", ingress(&json!({}), &json!([{}])));
    Reach::everybody().check(world, Tcp, 81);
    world.apply("x", "allow-all-mutate-to-deny-all", ingress(&json!({}), &json!([])));
    Reach::everybody().deny("*", "x").check(world, Tcp, 81);
}

fn should_allow_ingress_access_from_updated_namespace(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "ns2": "updated" } } }] }]);
    world.apply("x", "allow-client-a-via-ns-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 80);
    world.label_namespace("y", &json!({ "ns2": "updated" }));
    Reach::everybody().deny("*", "x/a").allow("y", "x/a").check(world, Tcp, 80);
}

fn should_allow_ingress_access_from_updated_pod(world: &mut dyn Stage) {
    let labels = json!({ "matchLabels": { "pod": "b", "pod2": "updated" } });
    let rule = json!([{ "from": [{ "podSelector": labels }] }]);
    world.apply("x", "allow-client-a-via-pod-selector", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 80);
    world.label("x/b", &json!({ "pod2": "updated" }));
    Reach::everybody().deny("*", "x/a").allow("x/b", "x/a").check(world, Tcp, 80);
}

fn should_deny_ingress_from_pods_on_other_namespaces(world: &mut dyn Stage) {
    let rule = json!([{ "from": [{ "podSelector": { "matchLabels": {} } }] }]);
    world.apply("x", "deny-empty-policy", ingress(&json!({}), &rule));
    Reach::everybody().deny("y", "x").deny("z", "x").check(world, Tcp, 80);
}

fn should_deny_ingress_access_to_updated_pod(world: &mut dyn Stage) {
    let isolated = json!({ "matchLabels": { "target": "isolated" } });
    world.apply("x", "deny-ingress-via-label-selector", ingress(&isolated, &json!([])));
    Reach::everybody().check(world, Tcp, 80);
    world.label("x/a", &json!({ "target": "isolated" }));
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 80);
}

fn should_deny_egress_from_pods_based_on_pod_selector(world: &mut dyn Stage) {
    world.apply("x", "deny-egress-pod-a", egress(&pod("a"), &json!([])));
    Reach::everybody().deny("x/a", "*").check(world, Tcp, 80);
}

fn should_deny_egress_from_all_pods_in_a_namespace(world: &mut dyn Stage) {
    world.apply("x", "deny-egress-ns-x", egress(&json!({}), &json!([])));
    Reach::everybody().deny("x", "*").check(world, Tcp, 80);
}

fn should_work_with_ingress_egress_specified_together(world: &mut dyn Stage) {
    let spec = json!({
        "podSelector": pod("a"),
        "policyTypes": ["Egress", "Ingress"],
        "ingress": [{ "from": [{ "podSelector": pod("b") }] }],
        "egress": [{ "ports": [{ "port": 80 }] }],
    });
    world.apply("x", "allow-client-a-via-pod-selector", spec);
    let incoming = || Reach::everybody().deny("*", "x/a").allow("x/b", "x/a");
    incoming().check(world, Tcp, 80);
    incoming().deny("x/a", "*").check(world, Tcp, 81);
}

fn should_support_denying_of_egress_traffic_on_the_client_side(world: &mut dyn Stage) {
    let to = json!([{ "to": [{ "namespaceSelector": ns("y"), "podSelector": pod("a") }] }]);
    world.apply("x", "allow-to-ns-y-pod-a", egress(&pod("a"), &to));
    let from = json!([{ "from": [{ "namespaceSelector": ns("x"), "podSelector": pod("a") }] }]);
    world.apply("y", "allow-from-xa-on-ya-match-selector", ingress(&pod("a"), &from));
    world.apply("y", "allow-from-xa-on-yb-match-selector", ingress(&pod("b"), &from));
    let want = Reach::everybody().deny("x/a", "*").deny("*", "y/a").deny("*", "y/b").allow("x/a", "y/a");
    want.check(world, Tcp, 80);
}

fn should_enforce_egress_policy_allowing_traffic_to_a_server_in_a_different_namespace(world: &mut dyn Stage) {
    let to = json!([{ "to": [{ "namespaceSelector": ns("y"), "podSelector": pod("a") }] }]);
    world.apply("x", "allow-to-ns-y-pod-a", egress(&pod("a"), &to));
    Reach::everybody().deny("x/a", "*").allow("x/a", "y/a").check(world, Tcp, 80);
}

fn should_enforce_ingress_policy_allowing_any_port_traffic_to_a_server_on_a_specific_protocol(
    world: &mut dyn Stage,
) {
    world.apply(
        "x",
        "allow-ingress-by-proto",
        ingress(&pod("a"), &json!([{ "ports": [{ "protocol": "TCP" }] }])),
    );
    Reach::everybody().check(world, Tcp, 80);
    Reach::everybody().deny("*", "x/a").check(world, Udp, 80);
}

fn should_enforce_multiple_ingress_policies_with_ingress_allow_all_policy_taking_precedence(
    world: &mut dyn Stage,
) {
    world.apply("x", "allow-ingress-port-80", ingress(&json!({}), &json!([{ "ports": [{ "port": 80 }] }])));
    Reach::everybody().deny("*", "x").check(world, Tcp, 81);
    world.apply("x", "allow-ingress", ingress(&json!({}), &json!([{}])));
    Reach::everybody().check(world, Tcp, 81);
}

fn should_enforce_multiple_egress_policies_with_egress_allow_all_policy_taking_precedence(
    world: &mut dyn Stage,
) {
    world.apply("x", "allow-egress-port-80", egress(&json!({}), &json!([{ "ports": [{ "port": 80 }] }])));
    Reach::everybody().deny("x", "*").check(world, Tcp, 81);
    world.apply("x", "allow-egress", egress(&json!({}), &json!([{}])));
    Reach::everybody().check(world, Tcp, 81);
}

fn should_stop_enforcing_policies_after_they_are_deleted(world: &mut dyn Stage) {
    let spec =
        json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [] });
    world.apply("x", "deny-all", spec);
    Reach::everybody().deny("x", "*").deny("*", "x").check(world, Tcp, 80);
    world.delete("x", "deny-all");
    Reach::everybody().check(world, Tcp, 80);
}

/// Rules for egress to blocks of both families: of one pod, and of all but one.
fn to_block(blocks: &[(String, Vec<String>)]) -> Value {
    let peer =
        |(cidr, except): &(String, Vec<String>)| json!({ "ipBlock": { "cidr": cidr, "except": except } });
    json!([{ "to": blocks.iter().map(peer).collect::<Vec<_>>() }])
}

fn only([v4, v6]: [IpAddr; 2]) -> Vec<(String, Vec<String>)> {
    vec![(format!("{v4}/32"), vec![]), (format!("{v6}/128"), vec![])]
}

/// Everything around, but not this pod.
fn around_but([v4, v6]: [IpAddr; 2]) -> Vec<(String, Vec<String>)> {
    vec![("0.0.0.0/0".into(), vec![format!("{v4}/32")]), ("::/0".into(), vec![format!("{v6}/128")])]
}

fn should_allow_egress_access_to_server_in_cidr_block(world: &mut dyn Stage) {
    world.apply(
        "x",
        "allow-client-a-via-cidr-egress-rule",
        egress(&pod("a"), &to_block(&only(world.addresses("y/b")))),
    );
    Reach::everybody().deny("x/a", "*").allow("x/a", "y/b").check(world, Tcp, 80);
}

fn should_enforce_except_clause_while_egress_access_to_server_in_cidr_block(world: &mut dyn Stage) {
    world.apply(
        "x",
        "allow-client-a-via-cidr-egress-rule",
        egress(&pod("a"), &to_block(&around_but(world.addresses("x/b")))),
    );
    Reach::everybody().deny("x/a", "x/b").check(world, Tcp, 80);
}

fn should_ensure_an_ip_overlapping_both_ip_block_cidr_and_ip_block_except_is_allowed(world: &mut dyn Stage) {
    world.apply(
        "x",
        "allow-client-a-via-cidr-egress-rule",
        egress(&pod("a"), &to_block(&around_but(world.addresses("x/b")))),
    );
    Reach::everybody().deny("x/a", "x/b").check(world, Tcp, 80);
    // Beside the first, as its title says, and in its place, as upstream does.
    world.apply("x", "allow-b", egress(&pod("a"), &to_block(&only(world.addresses("x/b")))));
    Reach::everybody().check(world, Tcp, 80);
    world.delete("x", "allow-b");
    world.apply(
        "x",
        "allow-client-a-via-cidr-egress-rule",
        egress(&pod("a"), &to_block(&only(world.addresses("x/b")))),
    );
    Reach::everybody().deny("x/a", "*").allow("x/a", "x/b").check(world, Tcp, 80);
}

fn should_enforce_policies_to_check_ingress_and_egress_policies_can_be_controlled_independently(
    world: &mut dyn Stage,
) {
    world.apply("x", "allow-egress-for-target", egress(&pod("a"), &json!([{}])));
    Reach::everybody().check(world, Tcp, 80);
    world.apply("x", "deny-ingress-via-label-selector", ingress(&pod("a"), &json!([])));
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 80);
}

fn should_not_mistakenly_treat_protocol_sctp_as_protocol_tcp(world: &mut dyn Stage) {
    world.apply("x", "deny-ingress", ingress(&json!({}), &json!([])));
    let rule = json!([{ "ports": [{ "port": 81, "protocol": "SCTP" }] }]);
    world.apply("x", "allow-only-sctp-ingress-on-port-81", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x").check(world, Tcp, 81);
    Reach::everybody().deny("*", "x").allow("*", "x/a").check(world, Sctp, 81);
}

fn should_properly_isolate_pods_that_are_selected_by_a_policy_allowing_sctp(world: &mut dyn Stage) {
    let rule = json!([{ "ports": [{ "port": 80, "protocol": "SCTP" }] }]);
    world.apply("x", "allow-only-sctp-ingress-on-port-80", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 81);
}

fn should_not_allow_access_by_tcp_when_a_policy_specifies_only_udp(world: &mut dyn Stage) {
    let rule = json!([{ "ports": [{ "port": 81, "protocol": "UDP" }] }]);
    world.apply("x", "allow-only-udp-ingress-on-port-81", ingress(&pod("a"), &rule));
    Reach::everybody().deny("*", "x/a").check(world, Tcp, 81);
    Reach::everybody().check(world, Udp, 81);
}

fn should_enforce_policy_to_allow_traffic_based_on_namespace_selector_using_default_ns_label(
    world: &mut dyn Stage,
) {
    let y = json!({ "matchLabels": { "kubernetes.io/metadata.name": "y" } });
    let rule = json!([{ "from": [{ "namespaceSelector": y }] }]);
    world.apply("x", "allow-client-a-via-ns-selector-for-immutable-ns-label", ingress(&pod("a"), &rule));
    Reach::everybody().deny("x", "x/a").deny("z", "x/a").check(world, Tcp, 80);
}

fn should_enforce_policy_based_on_namespace_selector_with_match_expressions_using_default_ns_label(
    world: &mut dyn Stage,
) {
    let rule = json!([{ "to": [{ "namespaceSelector": not_in("kubernetes.io/metadata.name", &["y"]) }] }]);
    world.apply("x", "allow-ns-y-match-selector-for-immutable-ns-label", egress(&pod("a"), &rule));
    Reach::everybody().deny("x/a", "y").check(world, Tcp, 80);
}

fn udp_should_support_a_default_deny_ingress_policy(world: &mut dyn Stage) {
    default_deny_ingress(world, Udp);
}

fn udp_should_enforce_policy_based_on_ports(world: &mut dyn Stage) {
    based_on_ports(world, Udp);
}

fn udp_should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace(
    world: &mut dyn Stage,
) {
    pod_of_a_different_namespace(world, Udp);
}

fn sctp_should_support_a_default_deny_ingress_policy(world: &mut dyn Stage) {
    default_deny_ingress(world, Sctp);
}

fn sctp_should_enforce_policy_based_on_ports(world: &mut dyn Stage) {
    based_on_ports(world, Sctp);
}

fn sctp_should_enforce_policy_to_allow_traffic_only_from_a_pod_in_a_different_namespace(
    world: &mut dyn Stage,
) {
    pod_of_a_different_namespace(world, Sctp);
}
