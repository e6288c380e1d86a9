//! Where a pod may go, how it finds others, and the rest of its spec.

use serde_json::{Value, json};

use super::{check, told, with};
use crate::strategy::pod_rules::Whole;

#[test]
fn a_pod_that_says_little_is_good() {
    assert_eq!(told(None, &with("", &json!({})), Whole::Pod), Vec::<String>::new());
}

fn nodes(term: Value) -> Value {
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
}

fn label(operator: &str, values: Value) -> Value {
    json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]})
}

fn affinity(value: Value) -> Value {
    json!({"affinity": value})
}

#[test]
fn nodes_are_selected_by_labels_and_by_name() {
    let field = |key: &str, operator: &str, values: Value| json!({"matchFields": [{"key": key, "operator": operator, "values": values}]});
    const TERM: &str = ".nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let at = |rest: &str| format!("{TERM}{rest}");
    let one = |term: Value, want: Option<&str>| {
        let want: Vec<String> = want.map(at).into_iter().collect();
        check("", "spec.affinity", vec![(affinity(nodes(term)), want.iter().map(String::as_str).collect())]);
    };
    one(label("In", json!(["x"])), None);
    one(label("Gt", json!(["1"])), None);
    one(
        label("In", json!([])),
        Some(
            ".matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
    );
    one(label("Exists", json!(["x"])), Some(".matchExpressions[0].values: Forbidden: may not be specified"));
    one(
        label("Lt", json!(["1", "2"])),
        Some(".matchExpressions[0].values: Required value: must be specified single value"),
    );
    one(
        label("Is", json!([])),
        Some(".matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"),
    );
    one(
        label("In", json!(["a b"])),
        Some(".matchExpressions[0].values[0]: Invalid value: \"a b\": a valid label must"),
    );
    one(field("metadata.name", "In", json!(["n"])), None);
    one(
        field("metadata.name", "In", json!(["n", "m"])),
        Some(".matchFields[0].values: Required value: must be only one value"),
    );
    one(
        field("metadata.name", "Exists", json!([])),
        Some(".matchFields[0].operator: Invalid value: \"Exists\""),
    );
    one(
        field("metadata.uid", "In", json!(["n"])),
        Some(".matchFields[0].key: Invalid value: \"metadata.uid\": not a valid field selector key"),
    );
    one(field("metadata.name", "In", json!(["N"])), Some(".matchFields[0].values[0]: Invalid value: \"N\""));
    let bad = with("", &affinity(nodes(label("In", json!(["a b"])))));
    assert_eq!(told(Some(&bad), &bad, Whole::Pod), Vec::<String>::new());
}

#[test]
fn affinities_name_labels_and_topologies() {
    let pods = |kind: &str, term: Value| {
        affinity(json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}))
    };
    let preferred = |weight: i64| {
        affinity(json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": weight, "preference": label("In", json!(["a b"]))}]}}))
    };
    let selector = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]});
    let term = |more: Value| {
        let mut term = json!({"topologyKey": "zone"});
        json_patch::merge(&mut term, &more);
        term
    };
    check(
        "",
        "spec.affinity",
        vec![
            (preferred(1), vec![]),
            (
                preferred(101),
                vec![
                    ".nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                ],
            ),
            (
                affinity(json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}})),
                vec![
                    ".nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one",
                ],
            ),
            (
                pods(
                    "podAffinity",
                    term(json!({"labelSelector": {"matchLabels": {"a": "b"}}, "namespaces": ["n"]})),
                ),
                vec![],
            ),
            (
                pods("podAffinity", json!({})),
                vec![
                    ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                    ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\"",
                ],
            ),
            (
                pods("podAntiAffinity", term(json!({"namespaces": ["N"]}))),
                vec![
                    ".podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespace: Invalid value: \"N\"",
                ],
            ),
            (
                pods("podAffinity", term(json!({"labelSelector": selector}))),
                vec![
                    ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values[0]: Invalid value: \"b c\"",
                ],
            ),
            (
                pods("podAffinity", term(json!({"matchLabelKeys": ["a"]}))),
                vec![
                    ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
                ],
            ),
            (
                pods(
                    "podAffinity",
                    term(
                        json!({"labelSelector": {}, "matchLabelKeys": ["a", "-"], "mismatchLabelKeys": ["a"]}),
                    ),
                ),
                vec![
                    ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[1]: Invalid value: \"-\"",
                    ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys",
                ],
            ),
            (
                affinity(
                    json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "-"}}]}}),
                ),
                vec![
                    ".podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0",
                    ".podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"-\"",
                ],
            ),
        ],
    );
    let bad = with("", &pods("podAffinity", term(json!({"labelSelector": selector}))));
    assert_eq!(told(Some(&bad), &bad, Whole::Pod), Vec::<String>::new());
}

#[test]
fn tolerations_and_gates_have_a_form() {
    let one = |toleration: Value| json!({"tolerations": [toleration]});
    check(
        "",
        "spec",
        vec![
            (one(json!({"operator": "Exists"})), vec![]),
            (one(json!({"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 1})), vec![]),
            (
                one(json!({"value": "b"})),
                vec![
                    ".tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty",
                ],
            ),
            (
                one(json!({"key": "-", "operator": "Exists"})),
                vec![".tolerations[0].key: Invalid value: \"-\""],
            ),
            (
                one(json!({"key": "a", "tolerationSeconds": 1})),
                vec![".tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute'"],
            ),
            (
                one(json!({"key": "a", "value": "b c"})),
                vec![".tolerations[0].operator: Invalid value: \"b c\""],
            ),
            (
                one(json!({"key": "a", "operator": "Exists", "value": "b"})),
                vec![".tolerations[0].operator: Invalid value: \"b\": value must be empty"],
            ),
            (
                one(json!({"key": "a", "operator": "Is"})),
                vec![
                    ".tolerations[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\"",
                ],
            ),
            (
                one(json!({"key": "a", "operator": "Gt", "value": "1"})),
                vec![
                    ".tolerations[0].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\"",
                ],
            ),
            (
                one(json!({"key": "a", "effect": "Go"})),
                vec![
                    ".tolerations[0].effect: Unsupported value: \"Go\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                json!({"readinessGates": [{"conditionType": "a b"}]}),
                vec![".readinessGates[0].conditionType: Invalid value: \"a b\""],
            ),
            (
                json!({"schedulingGates": [{"name": "a"}, {"name": "a"}, {"name": "-"}]}),
                vec![
                    ".schedulingGates[1]: Duplicate value: \"a\"",
                    ".schedulingGates[2]: Invalid value: \"-\"",
                ],
            ),
        ],
    );
}

#[test]
fn spreads_are_of_a_kind_once() {
    let spread = |more: Value| {
        let mut one = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}});
        json_patch::merge(&mut one, &more);
        one
    };
    let one = |more: Value| json!({"topologySpreadConstraints": [spread(more)]});
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]});
    check(
        "",
        "spec.topologySpreadConstraints[0]",
        vec![
            (one(json!({"minDomains": 2, "nodeTaintsPolicy": "Honor", "matchLabelKeys": ["a"]})), vec![]),
            (one(json!({"maxSkew": 0})), vec![".maxSkew: Invalid value: 0: must be greater than 0"]),
            (one(json!({"topologyKey": ""})), vec![".topologyKey: Required value: can not be empty"]),
            (
                one(json!({"whenUnsatisfiable": null})),
                vec![
                    ".whenUnsatisfiable: Unsupported value: \"\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
            (
                one(json!({"minDomains": 0, "whenUnsatisfiable": "ScheduleAnyway"})),
                vec![
                    ".minDomains: Invalid value: 0: must be greater than 0",
                    ".minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                ],
            ),
            (
                one(json!({"nodeAffinityPolicy": "x", "nodeTaintsPolicy": "y"})),
                vec![
                    ".nodeAffinityPolicy: Unsupported value: \"x\": supported values: \"Honor\", \"Ignore\"",
                    ".nodeTaintsPolicy: Unsupported",
                ],
            ),
            (
                json!({"topologySpreadConstraints": [spread(json!({})), spread(json!({}))]}),
                vec![".{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, DoNotSchedule}\""],
            ),
            (
                one(json!({"labelSelector": null, "matchLabelKeys": ["a"]})),
                vec![".matchLabelKeys: Forbidden: must not be specified"],
            ),
            (
                one(
                    json!({"matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
                ),
                vec!["[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector"],
            ),
            (
                one(json!({"labelSelector": bad})),
                vec![".labelSelector.matchExpressions[0].values[0]: Invalid value: \"b c\""],
            ),
        ],
    );
    let old = with("", &one(json!({"labelSelector": bad})));
    assert_eq!(told(Some(&old), &old, Whole::Pod), Vec::<String>::new());
}

#[test]
fn names_and_addresses_can_be_resolved() {
    let dns = |config: Value| json!({"dnsConfig": config});
    check(
        "",
        "spec",
        vec![
            (
                dns(
                    json!({"nameservers": ["10.0.0.1"], "searches": [".", "a.b.", "_x.y_z.c"], "options": [{"name": "ndots"}]}),
                ),
                vec![],
            ),
            (
                json!({"dnsPolicy": "X"}),
                vec![
                    ".dnsPolicy: Unsupported value: \"X\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                json!({"dnsPolicy": "None"}),
                vec![".dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {}}),
                vec![
                    ".dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
                ],
            ),
            (
                dns(json!({"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]})),
                vec![".dnsConfig.nameservers: Invalid value: [\"1.1.1.1\","],
            ),
            (
                dns(json!({"nameservers": ["a"]})),
                vec![".dnsConfig.nameservers[0]: Invalid value: \"a\": must be a valid IP"],
            ),
            (dns(json!({"searches": vec!["a"; 33]})), vec![".dnsConfig.searches: Invalid value"]),
            (dns(json!({"searches": vec!["a".repeat(60); 32]})), vec![]),
            (
                dns(json!({"searches": vec![["a".repeat(40), "b".repeat(40)].join("."); 32]})),
                vec![".dnsConfig.searches: Invalid value"],
            ),
            (
                dns(json!({"searches": ["A"]})),
                vec![".dnsConfig.searches[0]: Invalid value: \"A\": a lowercase RFC 1123 subdomain"],
            ),
            (dns(json!({"options": [{}]})), vec![".dnsConfig.options[0]: Required value: must not be empty"]),
            (json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b"]}]}), vec![]),
            (
                json!({"hostAliases": [{"ip": "10.0.0", "hostnames": ["A"]}]}),
                vec![
                    ".hostAliases[0].ip: Invalid value: \"10.0.0\"",
                    ".hostAliases[0].hostnames[0]: Invalid value: \"A\"",
                ],
            ),
            (json!({"hostnameOverride": "a.b"}), vec![]),
            (
                json!({"hostnameOverride": "a".repeat(65), "hostNetwork": true, "setHostnameAsFQDN": true}),
                vec![
                    ".hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
                    ".hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
                    ".hostnameOverride: Too long: may not be more than 64 bytes",
                ],
            ),
            (json!({"hostnameOverride": ""}), vec![".hostnameOverride: Invalid value: \"\""]),
            (
                json!({"hostname": "A", "subdomain": "B", "nodeName": "N", "priorityClassName": "P", "runtimeClassName": "R", "serviceAccountName": "S"}),
                vec![
                    ".serviceAccountName: Invalid value: \"S\"",
                    ".nodeName: Invalid value: \"N\"",
                    ".hostname: Invalid value: \"A\"",
                    ".subdomain: Invalid value: \"B\"",
                    ".priorityClassName: Invalid value: \"P\"",
                    ".runtimeClassName: Invalid value: \"R\"",
                ],
            ),
        ],
    );
}

#[test]
fn the_rest_of_a_spec_is_looked_at_too() {
    check(
        "",
        "spec",
        vec![
            (
                json!({"restartPolicy": "Soon"}),
                vec![
                    ".restartPolicy: Unsupported value: \"Soon\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                json!({"activeDeadlineSeconds": 0}),
                vec![".activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
            ),
            (json!({"preemptionPolicy": "Never"}), vec![]),
            (
                json!({"preemptionPolicy": "x"}),
                vec![
                    ".preemptionPolicy: Unsupported value: \"x\": supported values: \"PreemptLowerPriority\", \"Never\"",
                ],
            ),
            (json!({"schedulingGroup": {"podGroupName": "g"}}), vec![]),
            (
                json!({"schedulingGroup": {"podGroupName": "G"}}),
                vec![".schedulingGroup.podGroupName: Invalid value: \"G\""],
            ),
            (
                json!({"schedulingGroup": {}}),
                vec![".schedulingGroup.podGroupName: Invalid value: null: must specify one of"],
            ),
            (
                json!({"nodeSelector": {"-a": "b", "c": "d e"}}),
                vec![".nodeSelector: Invalid value: \"-a\"", ".nodeSelector: Invalid value: \"d e\""],
            ),
            (json!({"terminationGracePeriodSeconds": -1}), vec![]),
        ],
    );
}
