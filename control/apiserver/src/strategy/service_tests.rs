//! Tests of what Services may say and how they change.

use super::*;
use crate::strategy::service::{default_service, prepare_service};

/// What a write of `new` over `old` leads to, before addresses are given out.
fn written(old: Option<&Value>, mut new: Value) -> (Value, Vec<String>) {
    default_service(&mut new);
    prepare_service(&mut Change { old, new: &mut new });
    let mut errors = Errors::default();
    validate_service(&Change { old, new: &mut new }, &mut errors);
    let causes = errors.into_causes().into_iter();
    (new, causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect())
}

fn service(spec: Value) -> Value {
    let mut whole = json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "port": 80 }] } });
    json_patch::merge(&mut whole["spec"], &spec);
    whole
}

fn refused(spec: Value) -> Vec<String> {
    written(None, service(spec)).1
}

/// A stored Service of this type with an address and, where it has them, ports.
fn stored(kind: &str, spec: Value) -> Value {
    let mut whole = service(json!({ "type": kind, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
                                    "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack" }));
    if is_outward(kind) {
        whole["spec"]["ports"][0]["nodePort"] = json!(30_000);
    }
    json_patch::merge(&mut whole["spec"], &spec);
    default_service(&mut whole);
    whole
}

#[test]
fn services_as_people_write_them_are_taken() {
    for spec in [
        json!({}),
        json!({ "clusterIP": "None", "ports": null }),
        json!({ "clusterIP": "10.0.0.1" }),
        json!({ "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilyPolicy": "PreferDualStack" }),
        json!({ "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack" }),
        json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30_000, "targetPort": "http" }] }),
        json!({ "type": "LoadBalancer", "loadBalancerClass": "x.io/a", "externalTrafficPolicy": "Local",
                "loadBalancerSourceRanges": [" 10.0.0.0/8 "], "healthCheckNodePort": 30_001 }),
        json!({ "type": "ExternalName", "externalName": "a.example.", "ports": null }),
        json!({ "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local" }),
        json!({ "sessionAffinity": "ClientIP", "trafficDistribution": "PreferSameZone", "internalTrafficPolicy": "Local" }),
        json!({ "ports": [{ "name": "a", "port": 53, "appProtocol": "x.io/y" }, { "name": "b", "port": 53, "protocol": "UDP" }] }),
    ] {
        assert_eq!(refused(spec.clone()), [""; 0], "{spec}");
    }
}

#[test]
fn what_goes_with_no_type_of_service_is_refused() {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let policies = "supported values: \"Cluster\", \"Local\"";
    for (spec, want) in [
        (json!({ "ports": null }), "ports: Required value".to_owned()),
        (
            json!({ "type": "Pod" }),
            "type: Unsupported value: \"Pod\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"".to_owned(),
        ),
        (
            json!({ "type": "NodePort", "clusterIP": "None" }),
            "clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services".to_owned(),
        ),
        (json!({ "type": "ExternalName" }), "externalName: Required value".to_owned()),
        (
            json!({ "type": "ExternalName", "externalName": "a", "clusterIP": "10.0.0.1" }),
            "clusterIPs: Forbidden: may not be set for ExternalName services".to_owned(),
        ),
        (
            json!({ "type": "ExternalName", "externalName": "a", "ipFamilyPolicy": "SingleStack" }),
            "ipFamilyPolicy: Forbidden: may not be set for ExternalName services".to_owned(),
        ),
        (
            json!({ "ports": [{ "port": 80, "nodePort": 30_000 }] }),
            "ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".to_owned(),
        ),
        (json!({ "allocateLoadBalancerNodePorts": false }), format!("allocateLoadBalancerNodePorts: Forbidden: {only}")),
        (json!({ "loadBalancerClass": "a" }), format!("loadBalancerClass: Forbidden: {only}")),
        (json!({ "loadBalancerSourceRanges": ["10.0.0.0/8"] }), format!("LoadBalancerSourceRanges: Forbidden: {only}")),
        (
            json!({ "externalTrafficPolicy": "Local" }),
            "externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services".to_owned(),
        ),
        (
            json!({ "type": "NodePort", "externalTrafficPolicy": "Any" }),
            format!("externalTrafficPolicy: Unsupported value: \"Any\": {policies}"),
        ),
        (json!({ "internalTrafficPolicy": "" }), format!("internalTrafficPolicy: Unsupported value: \"\": {policies}")),
        (
            json!({ "healthCheckNodePort": 30_000 }),
            "healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'".to_owned(),
        ),
        (
            json!({ "trafficDistribution": "Near" }),
            "trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"".to_owned(),
        ),
        (
            json!({ "sessionAffinity": "Cookie" }),
            "sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"".to_owned(),
        ),
        (
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 0 } } }),
            "sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400".to_owned(),
        ),
        (json!({ "externalIPs": ["10.0.0.01"] }), "externalIPs[0]: Invalid value: \"10.0.0.01\": must not have leading 0s".to_owned()),
        (
            json!({ "externalIPs": ["127.0.0.1"] }),
            "externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        ),
        (
            json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8"] }),
            "LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length".to_owned(),
        ),
    ] {
        assert_eq!(refused(spec.clone()), [format!("spec.{want}")], "{spec}");
    }
}

#[test]
fn ports_have_names_where_there_are_several_and_differ() {
    let ports = |ports: Value| refused(json!({ "type": "NodePort", "ports": ports }));
    for (given, want) in [
        (json!([{ "port": 1 }, { "port": 2, "name": "b" }]), "ports[0].name: Required value"),
        (
            json!([{ "port": 1, "name": "a" }, { "port": 2, "name": "a" }]),
            "ports[1].name: Duplicate value: \"a\"",
        ),
        (
            json!([{ "port": 0, "targetPort": 1 }]),
            "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!([{ "port": 1, "protocol": "tcp" }]),
            "ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!([{ "port": 1, "targetPort": "a--b" }]),
            "ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
        ),
        (
            json!([{ "port": 1, "name": "a" }, { "port": 1, "name": "b" }]),
            "ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":1,\"TargetPort\":0,\"NodePort\":0}",
        ),
        (
            json!([{ "port": 1, "name": "a", "nodePort": 30_000 }, { "port": 2, "name": "b", "nodePort": 30_000 }]),
            "ports[1].nodePort: Duplicate value: 30000",
        ),
        (
            json!([{ "port": 1, "appProtocol": "" }]),
            "ports[0].appProtocol: Invalid value: \"\": name part must be non-empty",
        ),
    ] {
        assert_eq!(ports(given), [format!("spec.{want}")]);
    }
}

#[test]
fn annotations_agree_with_each_other_and_with_the_type() {
    let with = |kind: &str, annotations: Value| {
        let mut new = service(json!({ "type": kind }));
        new["metadata"]["annotations"] = annotations;
        written(None, new).1
    };
    assert_eq!(with("LoadBalancer", json!({ RANGES: " 10.0.0.0/8 , fd00::/8" })), [""; 0]);
    let want =
        format!("metadata.annotations[{RANGES}]: Forbidden: may only be used when `type` is 'LoadBalancer'");
    assert_eq!(with("ClusterIP", json!({ RANGES: "" })), [want]);
    assert_eq!(with("LoadBalancer", json!({ RANGES: "10.0.0.0/8,a" })).len(), 1);
    let want = format!(
        "metadata.annotations[{MODE}]: Invalid value: \"b\": must match annotations[{HINTS}] when both are specified"
    );
    assert_eq!(with("ClusterIP", json!({ HINTS: "a", MODE: "b" })), [want]);
}

#[test]
fn addresses_and_families_go_together() {
    for (spec, want) in [
        (
            json!({ "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"] }),
            "clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`",
        ),
        (
            json!({ "clusterIPs": ["10.0.0.2"] }),
            "clusterIPs: Invalid value: [\"10.0.0.2\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            json!({ "clusterIP": "a" }),
            "clusterIPs[0]: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({ "clusterIP": "None", "clusterIPs": ["None", "10.0.0.1"] }),
            "clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: 'None' must be the first and only value",
        ),
        (
            json!({ "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"], "ipFamilyPolicy": "RequireDualStack" }),
            "clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
        ),
        (
            json!({ "clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"] }),
            "clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({ "ipFamilies": ["IPv5"] }),
            "ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            json!({ "ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "RequireDualStack" }),
            "ipFamilies[1]: Duplicate value: \"IPv4\"",
        ),
        (
            json!({ "ipFamilyPolicy": "" }),
            "ipFamilyPolicy: Unsupported value: \"\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
        ),
        (
            json!({ "ipFamilies": ["IPv4", "IPv6"] }),
            "ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        (
            json!({ "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack" }),
            "ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
    ] {
        assert_eq!(refused(spec.clone()), [format!("spec.{want}")], "{spec}");
    }
}

#[test]
fn addresses_that_were_given_stay() {
    let old = stored("ClusterIP", json!({}));
    let change = |spec: Value| {
        let mut new = old.clone();
        json_patch::merge(&mut new["spec"], &spec);
        written(Some(&old), new)
    };
    assert_eq!(change(json!({})).1, [""; 0]);
    for left_out in
        [json!({ "clusterIP": null, "clusterIPs": null, "ipFamilies": null }), json!({ "clusterIP": "" })]
    {
        let (new, refused) = change(left_out);
        assert_eq!((refused, &new["spec"]), (vec![], &old["spec"]));
    }
    let moved = "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set";
    assert_eq!(change(json!({ "clusterIP": "10.0.0.2" })).1, [moved]);
    assert_eq!(change(json!({ "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"] })).1, [moved]);
    let second = json!({ "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilyPolicy": "PreferDualStack" });
    assert_eq!(change(second).1, [""; 0]);
    let family = change(json!({ "clusterIP": "", "clusterIPs": [], "ipFamilies": ["IPv6"] })).1;
    assert!(
        family.contains(&"spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set".to_owned()),
        "{family:?}"
    );
    let external = json!({ "type": "ExternalName", "externalName": "a" });
    let (new, refused) = change(external);
    assert_eq!((refused, at(&new, &["spec", "clusterIPs"])), (vec![], &Value::Null));
}

#[test]
fn a_second_stack_is_given_back_by_who_asks_for_one() {
    let both = json!({ "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack" });
    let old = stored("ClusterIP", both);
    let change = |spec: Value| {
        let mut new = old.clone();
        json_patch::merge(&mut new["spec"], &spec);
        written(Some(&old), new).1
    };
    assert_eq!(change(json!({ "ipFamilyPolicy": "SingleStack" })), [""; 0]);
    assert_eq!(
        change(
            json!({ "ipFamilyPolicy": "SingleStack", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"] })
        ),
        [""; 0]
    );
    let place = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\"";
    let want = [format!("{place}: must be 'SingleStack' to release the secondary cluster IP")];
    assert_eq!(change(json!({ "clusterIPs": ["10.0.0.1"] })), want);
    let want = [format!("{place}: must be 'SingleStack' to release the secondary IP family")];
    assert_eq!(change(json!({ "ipFamilies": ["IPv4"] })), want);
}

#[test]
fn a_change_of_type_drops_what_was_given_out_and_nothing_a_client_says() {
    let balanced = json!({ "loadBalancerClass": "x.io/a", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30_001 });
    let old = stored("LoadBalancer", balanced);
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    let (made, refused) = written(Some(&old), new.clone());
    assert_eq!(refused, [""; 0]);
    let gone = [
        "loadBalancerClass",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "allocateLoadBalancerNodePorts",
    ];
    assert!(gone.iter().all(|field| made["spec"].get(*field).is_none()), "{made}");
    assert_eq!(made["spec"]["ports"][0].get("nodePort"), None);
    new["spec"]["loadBalancerClass"] = json!("x.io/b");
    new["spec"]["ports"][0]["nodePort"] = json!(30_005);
    let want = [
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ];
    assert_eq!(written(Some(&old), new).1, want);
}

#[test]
fn a_load_balancer_stays_with_its_class_and_health_port() {
    let old =
        stored("LoadBalancer", json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": 30_001 }));
    let mut new = old.clone();
    new["spec"]["loadBalancerClass"] = json!("x.io/b");
    new["spec"]["healthCheckNodePort"] = json!(30_002);
    let want = [
        "spec.loadBalancerClass: Invalid value: \"x.io/b\": may not change once set",
        "spec.healthCheckNodePort: Forbidden: field is immutable",
    ];
    assert_eq!(written(Some(&old), new.clone()).1, want);
    new["spec"]["loadBalancerClass"] = json!(null);
    new["spec"]["healthCheckNodePort"] = json!(null);
    let (made, refused) = written(Some(&old), new);
    assert_eq!((refused, &made["spec"]["healthCheckNodePort"]), (vec![], &json!(30_001)));
}

#[test]
fn a_port_keeps_the_node_port_of_its_name() {
    let named = |port: i64, name: &str| json!({ "port": port, "name": name });
    let mut old = stored("NodePort", json!({ "ports": [named(1, "a"), named(2, "b")] }));
    old["spec"]["ports"][0]["nodePort"] = json!(30_001);
    old["spec"]["ports"][1]["nodePort"] = json!(30_002);
    let mut new = old.clone();
    new["spec"]["ports"] = json!([named(7, "a"), named(2, "c")]);
    let (made, refused) = written(Some(&old), new);
    assert_eq!(refused, [""; 0]);
    let ports = [0, 1].map(|index| made["spec"]["ports"][index].get("nodePort").cloned());
    assert_eq!(ports, [Some(json!(30_001)), None]);
}

#[test]
fn only_load_balancers_are_reached_from_elsewhere() {
    let told = |kind: &str, point: Value| {
        let old = stored(kind, json!({}));
        let mut new = old.clone();
        new["status"] = json!({ "loadBalancer": { "ingress": [point] } });
        default_service(&mut new);
        let mut errors = Errors::default();
        validate_service_status(Sub::Status, &Change { old: Some(&old), new: &mut new }, &mut errors);
        errors
            .into_causes()
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect::<Vec<_>>()
    };
    assert_eq!(told("LoadBalancer", json!({ "ip": "192.0.2.1" })), [""; 0]);
    assert_eq!(told("LoadBalancer", json!({ "hostname": "a.example" })), [""; 0]);
    let place = "status.loadBalancer.ingress[0]";
    for (kind, point, want) in [
        (
            "ClusterIP",
            json!({ "ip": "192.0.2.1" }),
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
                .to_owned(),
        ),
        (
            "LoadBalancer",
            json!({ "ip": "a" }),
            format!(
                "{place}.ip: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            ),
        ),
        (
            "LoadBalancer",
            json!({ "hostname": "a", "ipMode": "VIP" }),
            format!("{place}.ipMode: Forbidden: may not be specified when `ip` is not set"),
        ),
        (
            "LoadBalancer",
            json!({ "ip": "192.0.2.1", "ipMode": "" }),
            format!("{place}.ipMode: Unsupported value: \"\": supported values: \"Proxy\", \"VIP\""),
        ),
    ] {
        assert_eq!(told(kind, point), [want]);
    }
}
