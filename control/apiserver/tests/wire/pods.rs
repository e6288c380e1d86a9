//! Pods: what is added to them, how they are bound, evicted and deleted; and namespaces that go.

use serde_json::json;

use crate::cluster::cluster;
use crate::objects;
use crate::objects::{config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_pod_gets_what_upstream_gives_it() {
    let cluster = cluster().await;
    let created = cluster.admin().send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    let spec = &created["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(spec["volumes"][0]["name"], mount["name"]);
    assert_eq!(
        spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3607
    );
    assert_eq!(
        (&created["status"]["phase"], &created["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    let mut nobody = pod("q", json!({}));
    nobody["spec"]["serviceAccountName"] = json!("nobody");
    cluster.admin().send("POST", PODS, &nobody).await.refused(403, "Forbidden");
    let mut critical = pod("c", json!({}));
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let created = cluster.admin().send("POST", PODS, &critical).await.expect(201);
    assert_eq!(created["spec"]["priority"], 2_000_001_000);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    let bind = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let uri = format!("{PODS}/p/binding");
    let nominated = json!({"status": {"nominatedNodeName": "n0"}});
    let before = admin.patch("merge", &format!("{PODS}/p/status"), &nominated).await.expect(200);
    assert_eq!(before["status"]["nominatedNodeName"], "n0");
    admin.send("POST", &uri, &bind("n1")).await.expect(201);
    admin.send("POST", &uri, &bind("n2")).await.refused(409, "Conflict");
    let bound = admin.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["status"].get("nominatedNodeName"), None);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(bound["metadata"]["generation"], 1, "its node sees the first generation of it");
    let image = json!({"spec": {"containers": [{"name": "c", "image": "i:2"}]}});
    let changed = admin.patch("strategic-merge", &format!("{PODS}/p"), &image).await.expect(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    let command = json!({"spec": {"containers": [{"name": "c", "command": ["x"]}]}});
    admin.patch("strategic-merge", &format!("{PODS}/p"), &command).await.refused(422, "Invalid");
    admin
        .patch("merge", &format!("{PODS}/p"), &json!({"spec": {"nodeName": "n2"}}))
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn a_pod_learns_where_its_node_is() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let place =
        json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": place}});
    admin.send("POST", "/api/v1/nodes", &node).await.expect(201);
    let mut bound = pod("bound", json!({}));
    bound["metadata"]["labels"] = json!({"own": "1", "topology.kubernetes.io/zone": "mine"});
    admin.send("POST", PODS, &bound).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n1"},
        "metadata": {"name": "bound", "annotations": {"by": "me"}, "labels": {"own": "2"}}});
    admin.send("POST", &format!("{PODS}/bound/binding"), &binding).await.expect(201);
    let read = admin.get(&format!("{PODS}/bound")).await.expect(200);
    let want = json!({"own": "2", "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!((&read["metadata"]["labels"], &read["metadata"]["annotations"]["by"]), (&want, &json!("me")));
    for (name, node, zone) in [("placed", "n1", json!("z")), ("lost", "n2", json!(null))] {
        let mut object = pod(name, json!({}));
        object["spec"]["nodeName"] = json!(node);
        let made = admin.send("POST", PODS, &object).await.expect(201);
        assert_eq!(made["metadata"]["labels"]["topology.kubernetes.io/zone"], zone, "{name}");
    }
}

#[tokio::test]
async fn a_binding_of_its_own_binds_the_pod_of_its_name() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    let bind = |pod: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": "n1"}});
    let bindings = "/api/v1/namespaces/default/bindings";
    assert_eq!(admin.send("POST", bindings, &bind("p")).await.expect(201)["kind"], "Status");
    assert_eq!(admin.get(&format!("{PODS}/p")).await.expect(200)["spec"]["nodeName"], "n1");
    admin.send("POST", bindings, &bind("q")).await.refused(404, "NotFound");
    admin.send("POST", bindings, &bind("")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn a_bound_pod_is_given_time_and_then_goes() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut object = pod("p", json!({}));
    object["spec"]["nodeName"] = json!("n1");
    admin.send("POST", PODS, &object).await.expect(201);
    let uri = format!("{PODS}/p");
    let going = admin.delete(&uri).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    admin.get(&uri).await.expect(200);
    let wrong = json!({"preconditions": {"uid": "other"}});
    admin.send("DELETE", &uri, &wrong).await.refused(409, "Conflict");
    admin.send("DELETE", &uri, &json!({"gracePeriodSeconds": 0})).await.expect(200);
    admin.get(&uri).await.refused(404, "NotFound");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_removed() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let mut object = config_map("f", "1");
    object["metadata"]["finalizers"] = json!(["x.io/a", "x.io/b"]);
    admin.send("POST", path, &object).await.expect(201);
    let uri = format!("{path}/f");
    let held = admin.delete(&uri).await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["x.io/a", "x.io/b", "x.io/c"]}});
    admin.patch("merge", &uri, &more).await.refused(422, "Invalid");
    admin.patch("merge", &uri, &json!({"metadata": {"finalizers": ["x.io/b"]}})).await.expect(200);
    admin.get(&uri).await.expect(200);
    admin.patch("merge", &uri, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    admin.get(&uri).await.refused(404, "NotFound");

    admin.send("POST", path, &config_map("o", "1")).await.expect(201);
    let orphaning = admin.delete(&format!("{path}/o?propagationPolicy=Orphan")).await.expect(200);
    assert_eq!(orphaning["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn nothing_new_enters_a_namespace_that_goes() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let maps = "/api/v1/namespaces/gone/configmaps";
    admin.send("POST", maps, &config_map("a", "1")).await.refused(404, "NotFound");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}});
    let created = admin.send("POST", "/api/v1/namespaces", &namespace).await.expect(201);
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "gone");
    admin.send("POST", maps, &config_map("a", "1")).await.expect(201);
    let going = admin.delete("/api/v1/namespaces/gone").await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = admin.send("POST", maps, &config_map("b", "1")).await.refused(403, "Forbidden");
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    admin.delete(&format!("{maps}/a")).await.expect(200);
    let mut finalized = admin.get("/api/v1/namespaces/gone").await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    admin.send("PUT", "/api/v1/namespaces/gone/finalize", &finalized).await.expect(200);
    admin.get("/api/v1/namespaces/gone").await.refused(404, "NotFound");
    admin.delete("/api/v1/namespaces/kube-system").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_limit_range_completes_and_bounds_pods() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "200m"}, "max": {"cpu": "1"}}]}});
    admin.send("POST", "/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    let created = admin.send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    let want = json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "200m"}});
    assert_eq!(created["spec"]["containers"][0]["resources"], want);
    let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
    assert_eq!(created["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);
    let resized = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "3"}}}]}});
    let refused = admin.patch("strategic-merge", &format!("{PODS}/p/resize"), &resized).await;
    let message = refused.refused(403, "Forbidden")["message"].to_string();
    assert!(message.contains("maximum cpu usage per Container is 1, but limit is 3"), "{message}");
    let mut large = pod("q", json!({}));
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let message = admin.send("POST", PODS, &large).await.refused(403, "Forbidden")["message"].to_string();
    assert!(message.contains("maximum cpu usage per Container is 1, but limit is 2"), "{message}");
}

#[tokio::test]
async fn kinds_that_nobody_acts_on_say_so_when_they_are_created() {
    let cluster = cluster().await;
    let mut told: Vec<&str> = Vec::new();
    for (version, plural, namespaced, object) in objects::all() {
        let path = objects::collection(version, plural, namespaced);
        let answer = cluster.admin().send("POST", &path, &objects::named(version, object, "w")).await;
        let warnings = answer.headers.get_all("warning").iter().map(|text| text.to_str().unwrap());
        if warnings.into_iter().any(|text| text.contains(" yet: ")) {
            told.push(plural);
        }
    }
    told.sort_unstable();
    let want = "certificatesigningrequests daemonsets deviceclasses flowschemas horizontalpodautoscalers jobs \
                mutatingadmissionpolicies mutatingadmissionpolicybindings mutatingwebhookconfigurations \
                persistentvolumeclaims persistentvolumes prioritylevelconfigurations resourceclaims \
                resourceclaimtemplates resourcequotas resourceslices runtimeclasses statefulsets \
                validatingadmissionpolicies validatingadmissionpolicybindings validatingwebhookconfigurations";
    assert_eq!(told.join(" "), want, "README says the same of what is served and what is not");
}

#[tokio::test]
async fn streams_of_a_pod_without_a_node_say_so() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    admin.get(&format!("{PODS}/p/log")).await.refused(400, "BadRequest");
    admin.get(&format!("{PODS}/p/exec")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_pod_gets_what_the_class_of_its_runtime_needs() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut sandboxed = pod("sandboxed", json!({}));
    sandboxed["spec"]["runtimeClassName"] = json!("gvisor");
    let refused = admin.send("POST", PODS, &sandboxed).await.refused(403, "Forbidden");
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("pod rejected: RuntimeClass \"gvisor\" not found"), "{message}");
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"},
        "handler": "runsc", "overhead": {"podFixed": {"memory": "64Mi"}}});
    admin.send("POST", "/apis/node.k8s.io/v1/runtimeclasses", &class).await.expect(201);
    let made = admin.send("POST", PODS, &sandboxed).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({"memory": "64Mi"}));
    let handler = json!({"handler": "other"});
    admin
        .patch("merge", "/apis/node.k8s.io/v1/runtimeclasses/gvisor", &handler)
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn what_the_cluster_adds_to_a_pod_is_nobodys() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let made = admin.send("POST", &format!("{PODS}?fieldManager=m"), &pod("p", json!({}))).await.expect(201);
    assert!(made["spec"]["tolerations"].is_array() && made["spec"]["volumes"].is_array(), "{made}");
    let owned = &made["metadata"]["managedFields"][0];
    assert_eq!(owned["manager"], "m");
    let spec = owned["fieldsV1"]["f:spec"].as_object().unwrap();
    assert!(
        spec.contains_key("f:containers") && spec.contains_key("f:restartPolicy"),
        "defaults are the client's: {owned}"
    );
    for added in ["f:tolerations", "f:volumes", "f:serviceAccountName", "f:priority"] {
        assert!(!spec.contains_key(added), "{added}: {owned}");
    }
    assert!(!owned.to_string().contains("f:volumeMounts"), "{owned}");
}

#[tokio::test]
async fn a_node_says_what_it_is_when_it_comes() {
    let cluster = cluster().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let made = cluster.admin().send("POST", "/api/v1/nodes", &node).await.expect(201);
    assert_eq!(made["status"]["conditions"][0]["type"], "Ready");
}
