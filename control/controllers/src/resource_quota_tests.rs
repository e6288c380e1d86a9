//! What is counted for which quota.

use super::*;
use crate::view::tests::world;
use serde_json::Value;

const NOW: &str = "2026-01-01T00:01:00Z";

fn quota(spec: Value, status: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ResourceQuota", "spec": spec, "status": status,
            "metadata": { "name": "q", "namespace": "d", "uid": "q", "resourceVersion": "7" } })
}

fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "spec": spec,
            "metadata": { "name": name, "namespace": "d", "uid": format!("{kind}/{name}") } })
}

/// A pod of one container with these requests and limits.
fn pod(name: &str, requests: Value, limits: Value) -> Value {
    let container = json!({ "name": "c", "resources": { "requests": requests, "limits": limits } });
    object("v1", "Pod", name, json!({ "containers": [container] }))
}

fn look(objects: &[Value]) -> Outcome {
    ResourceQuotaController.reconcile(&Key::new("d", "q"), &world(objects), NOW.parse().unwrap())
}

fn status(objects: &[Value]) -> Value {
    let outcome = look(objects);
    let [Write::Patch { body, subresource: Some("status"), .. }] = &outcome.writes[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    body["status"].clone()
}

/// What is used of each of `names`, of which a quota allows ten.
fn used(names: &[&str], scopes: Value, objects: &[Value]) -> Value {
    let hard: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!("10"))).collect();
    let mut spec = scopes;
    spec["hard"] = json!(hard);
    status(&[vec![quota(spec, json!({}))], objects.to_vec()].concat())["used"].clone()
}

#[test]
fn objects_are_counted_by_kind() {
    let mut elsewhere = object("v1", "ConfigMap", "c", json!({}));
    elsewhere["metadata"]["namespace"] = json!("e");
    elsewhere["metadata"]["uid"] = json!("elsewhere");
    let objects = [
        object("v1", "ConfigMap", "a", json!({})),
        object("v1", "ConfigMap", "b", json!({})),
        elsewhere,
        object("v1", "Secret", "a", json!({})),
        object("apps/v1", "ReplicaSet", "a", json!({})),
        object("example.com/v1", "Widget", "a", json!({})),
    ];
    let names = [
        "configmaps",
        "secrets",
        "resourcequotas",
        "replicationcontrollers",
        "count/configmaps",
        "count/replicasets.apps",
        "count/widgets.example.com",
        "count/widgets",
        "count/events",
    ];
    let want = json!({
        "configmaps": "2", "secrets": "1", "resourcequotas": "1", "replicationcontrollers": "0",
        "count/configmaps": "2", "count/replicasets.apps": "1", "count/widgets.example.com": "1",
    });
    assert_eq!(used(&names, json!({}), &objects), want);
}

#[test]
fn pods_take_what_their_containers_ask_for_as_long_as_they_count() {
    let small = || {
        pod(
            "a",
            json!({ "cpu": "250m", "memory": "128Mi", "example.com/dongle": "2" }),
            json!({ "cpu": "1" }),
        )
    };
    let mut ended = small();
    (ended["metadata"]["name"], ended["metadata"]["uid"]) = (json!("ended"), json!("ended"));
    ended["status"] = json!({ "phase": "Failed" });
    let objects = [small(), pod("b", json!({ "cpu": "250m", "memory": "128Mi" }), json!({})), ended];
    let names = [
        "pods",
        "count/pods",
        "cpu",
        "requests.memory",
        "limits.cpu",
        "requests.example.com/dongle",
        "limits.memory",
    ];
    let want = json!({
        "pods": "2", "count/pods": "3", "cpu": "500m", "requests.memory": "256Mi", "limits.cpu": "1",
        "requests.example.com/dongle": "2", "limits.memory": "0",
    });
    assert_eq!(used(&names, json!({}), &objects), want);
}

#[test]
fn init_containers_sidecars_overhead_and_the_pod_itself_are_reckoned_in() {
    let cpu =
        |amount: &str| json!({ "resources": { "requests": { "cpu": amount }, "limits": { "cpu": amount } } });
    let sidecar = |amount: &str| {
        let mut container = cpu(amount);
        container["restartPolicy"] = json!("Always");
        container
    };
    for (spec, want) in [
        (json!({ "containers": [cpu("1"), cpu("2")] }), "3"),
        (json!({ "containers": [cpu("1")], "initContainers": [cpu("5"), cpu("4")] }), "5"),
        (json!({ "containers": [cpu("1")], "initContainers": [sidecar("2"), cpu("1")] }), "3"),
        (json!({ "containers": [cpu("1")], "initContainers": [sidecar("2"), cpu("4"), sidecar("1")] }), "6"),
        (json!({ "containers": [cpu("1")], "initContainers": [cpu("4"), sidecar("1")] }), "4"),
        (json!({ "containers": [cpu("1")], "overhead": { "cpu": "250m" } }), "1250m"),
        (json!({ "containers": [cpu("1")], "resources": cpu("7")["resources"] }), "7"),
    ] {
        let told = used(&["cpu", "limits.cpu"], json!({}), &[object("v1", "Pod", "a", spec.clone())]);
        assert_eq!(told, json!({ "cpu": want, "limits.cpu": want }), "{spec}");
    }
    let open = object("v1", "Pod", "a", json!({ "containers": [{}], "overhead": { "cpu": "250m" } }));
    assert_eq!(used(&["cpu", "limits.cpu"], json!({}), &[open]), json!({ "cpu": "250m", "limits.cpu": "0" }));
}

#[test]
fn services_take_addresses_and_ports_and_claims_storage() {
    let ports = json!([{ "port": 1 }, { "port": 2, "nodePort": 30001 }]);
    let service = |name: &str, kind: &str, allocate: Value| {
        let spec = json!({ "type": kind, "ports": ports, "allocateLoadBalancerNodePorts": allocate });
        object("v1", "Service", name, spec)
    };
    let claim = |name: &str, class: &str, storage: &str| {
        let spec = json!({ "storageClassName": class, "resources": { "requests": { "storage": storage } } });
        object("v1", "PersistentVolumeClaim", name, spec)
    };
    let objects = [
        service("a", "ClusterIP", json!(null)),
        service("b", "NodePort", json!(null)),
        service("c", "LoadBalancer", json!(null)),
        service("d", "LoadBalancer", json!(false)),
        claim("a", "gold", "1Gi"),
        claim("b", "iron", "2Gi"),
    ];
    let gold = [
        "gold.storageclass.storage.k8s.io/requests.storage",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims",
    ];
    let names = [
        "services",
        "services.loadbalancers",
        "services.nodeports",
        "persistentvolumeclaims",
        "requests.storage",
        gold[0],
        gold[1],
    ];
    let want = json!({
        "services": "4", "services.loadbalancers": "2", "services.nodeports": "5", "persistentvolumeclaims": "2",
        "requests.storage": "3Gi", gold[0]: "1Gi", gold[1]: "1",
    });
    assert_eq!(used(&names, json!({}), &objects), want);
}

#[test]
fn scopes_say_which_pods_count() {
    let spec = |field: &str, value: Value| {
        let mut pod = pod(field, json!({ "cpu": "1" }), json!({}));
        pod["spec"][field] = value;
        pod
    };
    let term = json!([{ "topologyKey": "k", "namespaces": ["other"] }]);
    let objects = [
        pod("best", json!({ "ephemeral-storage": "1Gi" }), json!({})),
        spec("activeDeadlineSeconds", json!(60)),
        spec("priorityClassName", json!("high")),
        spec(
            "affinity",
            json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } }),
        ),
        object("v1", "Secret", "a", json!({})),
    ];
    let priority = |operator: &str, values: Value| {
        let one = json!({ "scopeName": "PriorityClass", "operator": operator, "values": values });
        json!({ "scopeSelector": { "matchExpressions": [one] } })
    };
    for (scopes, want) in [
        (json!({}), "4"),
        (json!({ "scopes": ["Terminating"] }), "1"),
        (json!({ "scopes": ["NotTerminating"] }), "3"),
        (json!({ "scopes": ["BestEffort"] }), "1"),
        (json!({ "scopes": ["NotBestEffort"] }), "3"),
        (json!({ "scopes": ["NotBestEffort", "Terminating"] }), "1"),
        (json!({ "scopes": ["CrossNamespacePodAffinity"] }), "1"),
        (json!({ "scopes": ["VolumeAttributesClass"] }), "0"),
        (priority("In", json!(["high", "low"])), "1"),
        (priority("NotIn", json!(["high"])), "3"),
        (priority("Exists", json!([])), "1"),
        (priority("DoesNotExist", json!([])), "3"),
    ] {
        let told = used(&["pods", "secrets"], scopes.clone(), &objects);
        let secrets = if scopes == json!({}) { "1" } else { "0" };
        assert_eq!(told, json!({ "pods": want, "secrets": secrets }), "{scopes}");
    }
}

#[test]
fn a_pod_that_should_be_gone_does_not_count_even_if_its_node_is_silent() {
    let leaving = |deleted: &str| {
        let mut pod = pod("a", json!({}), json!({}));
        pod["metadata"]["deletionTimestamp"] = json!(deleted);
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        pod
    };
    let hard = || quota(json!({ "hard": { "pods": "1" } }), json!({}));
    let outcome = look(&[hard(), leaving("2026-01-01T00:00:50Z")]);
    assert_eq!(outcome.again, Some(Duration::from_secs(21)));
    assert_eq!(used(&["pods"], json!({}), &[leaving("2026-01-01T00:00:50Z")]), json!({ "pods": "1" }));
    assert_eq!(used(&["pods"], json!({}), &[leaving("2026-01-01T00:00:20Z")]), json!({ "pods": "0" }));
}

#[test]
fn a_status_that_is_right_is_left_alone_whatever_form_it_has() {
    let spec = json!({ "hard": { "cpu": "1", "memory": "1Gi", "unheard.of": "3" } });
    let right = json!({ "hard": { "cpu": "1000m", "memory": "1024Mi", "unheard.of": "3" },
                        "used": { "cpu": "0.5", "memory": "0" } });
    let pod = pod("a", json!({ "cpu": "500m" }), json!({}));
    assert_eq!(look(&[quota(spec.clone(), right.clone()), pod.clone()]), Outcome::nothing());
    let mut wrong = right;
    wrong["hard"]["pods"] = json!("5");
    wrong["used"]["pods"] = json!("1");
    let told = status(&[quota(spec, wrong), pod]);
    assert_eq!(told["hard"], json!({ "cpu": "1", "memory": "1Gi", "unheard.of": "3", "pods": null }));
    assert_eq!(told["used"], json!({ "cpu": "500m", "memory": "0", "pods": null }));
}

#[test]
fn a_kind_that_may_come_is_looked_for_again() {
    let again = |name: &str| {
        let mut hard = json!({});
        hard[name] = json!("1");
        look(&[quota(json!({ "hard": hard }), json!({})), object("v1", "Secret", "a", json!({}))]).again
    };
    assert_eq!(again("count/widgets.example.com"), Some(UNKNOWN));
    assert_eq!((again("count/secrets"), again("unheard.of")), (None, None));
}

#[test]
fn only_what_a_quota_counts_wakes_it() {
    let hard = json!({ "hard": { "requests.cpu": "1", "requests.storage": "1", "count/widgets.example.com": "1",
                                 "services.nodeports": "1", "secrets": "1" } });
    let view = world(&[quota(hard, json!({}))]);
    let meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta::default();
    for (resource, namespace, name, want) in [
        ("pods", "d", "a", true),
        ("pods", "e", "a", false),
        ("persistentvolumeclaims", "d", "a", true),
        ("widgets.example.com", "d", "a", true),
        ("services", "d", "a", true),
        ("secrets", "d", "a", true),
        ("configmaps", "d", "a", false),
        ("resourcequotas", "d", "q", true),
        ("resourcequotas", "d", "other", false),
    ] {
        let key = Key::new(namespace, name);
        let change = Change { resource, key: &key, old: None, new: Some(&meta) };
        assert_eq!(
            ResourceQuotaController.wakes(&change, &view).len(),
            usize::from(want),
            "{resource} {key}"
        );
    }
}
