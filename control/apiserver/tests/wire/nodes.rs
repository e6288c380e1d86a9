//! What a node may read and write: what its pods need, and what it says of itself.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::objects::{all, named, pod};

const CORE: &str = "/api/v1/namespaces/default";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A pod on the node `n1` with these volumes.
async fn runs(admin: &Client, name: &str, volumes: Value) -> Value {
    let mut pod = pod(name, json!({}));
    pod["spec"]["nodeName"] = json!("n1");
    pod["spec"]["volumes"] = volumes;
    admin.send("POST", &format!("{CORE}/pods"), &pod).await.expect(201)
}

/// A volume that is bound to the claim `claim` of the default namespace.
fn volume(name: &str, source: Value) -> Value {
    let mut volume =
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": source});
    volume["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
    volume["spec"]["capacity"] = json!({"storage": "1Gi"});
    volume["spec"]["claimRef"] = json!({"namespace": "default", "name": "claim"});
    volume
}

async fn secret(admin: &Client, namespace: &str, name: &str) -> String {
    let uri = format!("/api/v1/namespaces/{namespace}/secrets");
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    admin.send("POST", &uri, &object).await.expect(201);
    format!("{uri}/{name}")
}

#[tokio::test]
async fn a_node_reads_what_the_volumes_of_its_pods_need() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let other = cluster.user("system:node:n2", &["system:nodes"]);
    let far = secret(&admin, "kube-system", "publish").await;
    let near = secret(&admin, "default", "publish").await;
    let csi = json!({"csi": {"driver": "d.example.com", "volumeHandle": "h",
        "nodePublishSecretRef": {"name": "publish", "namespace": "kube-system"}}});
    admin.send("POST", "/api/v1/persistentvolumes", &volume("v", csi)).await.expect(201);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v"}});
    admin.send("POST", &format!("{CORE}/persistentvolumeclaims"), &claim).await.expect(201);
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "a"},
        "spec": {"attacher": "d.example.com", "nodeName": "n1", "source": {"persistentVolumeName": "v"}}});
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    admin.send("POST", attachments, &attachment).await.expect(201);

    let claim = format!("{CORE}/persistentvolumeclaims/claim");
    let reached = [far.as_str(), &claim, "/api/v1/persistentvolumes/v"];
    for uri in reached {
        node.get(uri).await.refused(403, "Forbidden");
    }
    runs(&admin, "p", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}])).await;
    for uri in reached {
        node.get(uri).await.expect(200);
        other.get(uri).await.refused(403, "Forbidden");
    }
    node.get(&near).await.refused(403, "Forbidden");
    node.get(&format!("{attachments}/a")).await.expect(200);
    other.get(&format!("{attachments}/a")).await.refused(403, "Forbidden");
    for uri in ["/api/v1/persistentvolumes", attachments, &format!("{CORE}/persistentvolumeclaims")] {
        node.get(uri).await.refused(403, "Forbidden");
    }
    let grown = json!({"status": {"capacity": {"storage": "2Gi"}}});
    node.patch("merge", &format!("{claim}/status"), &grown).await.expect(200);
    let lost = json!({"status": {"phase": "Lost"}});
    node.patch("merge", &format!("{claim}/status"), &lost).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_mirror_gives_its_node_nothing_to_read() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let uri = secret(&admin, "default", "s").await;
    let mut mirror = pod("m", json!({}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = json!("n1");
    mirror["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "s"}}]);
    admin.send("POST", &format!("{CORE}/pods"), &mirror).await.expect(201);
    node.get(&uri).await.refused(403, "Forbidden");
    runs(&admin, "p", json!([{"name": "s", "secret": {"secretName": "s"}}])).await;
    node.get(&uri).await.expect(200);
}

#[tokio::test]
async fn a_node_keeps_the_slices_of_its_own_devices() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let slice = |name: &str, node: &str| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
            "spec": {"driver": "d.example.com", "nodeName": node, "devices": [],
                     "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}})
    };
    node.send("POST", SLICES, &slice("own", "n1")).await.expect(201);
    let refused = node.send("POST", SLICES, &slice("other", "n2")).await.refused(403, "Forbidden");
    let want = "resourceslices.resource.k8s.io \"other\" is forbidden: can only create ResourceSlice with the same NodeName \
                as the requesting node";
    assert_eq!(refused["message"], want);
    admin.send("POST", SLICES, &slice("other", "n2")).await.expect(201);
    node.get(&format!("{SLICES}/own")).await.expect(200);
    node.get(&format!("{SLICES}/other")).await.refused(403, "Forbidden");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    node.patch("merge", &format!("{SLICES}/own"), &label).await.expect(200);
    node.patch("merge", &format!("{SLICES}/other"), &label).await.refused(403, "Forbidden");
    node.delete(&format!("{SLICES}/other")).await.refused(403, "Forbidden");
    node.get(SLICES).await.refused(403, "Forbidden");
    node.get(&format!("{SLICES}?fieldSelector=spec.nodeName%3Dn2")).await.refused(403, "Forbidden");
    node.get(&format!("{SLICES}?fieldSelector=spec.nodeName!%3Dn1")).await.refused(403, "Forbidden");
    let own = format!("{SLICES}?fieldSelector=spec.nodeName%3Dn1,spec.driver%3Dd.example.com");
    assert_eq!(node.get(&own).await.expect(200)["items"].as_array().unwrap().len(), 1);
    node.delete(SLICES).await.refused(403, "Forbidden");
    node.delete(&own).await.expect(200);
    admin.get(&format!("{SLICES}/own")).await.refused(404, "NotFound");
    admin.get(&format!("{SLICES}/other")).await.expect(200);
}

#[tokio::test]
async fn whoever_asks_for_somebody_else_says_which_node_is_selected() {
    let cluster = cluster().await;
    let ask = async |operator: &str| {
        let terms =
            json!({"requirements": [{"key": "spec.nodeName", "operator": operator, "values": ["n1"]}]});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": {"verb": "list",
                "group": "resource.k8s.io", "resource": "resourceslices", "fieldSelector": terms}}});
        let uri = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        cluster.admin().send("POST", uri, &review).await.expect(201)["status"]["allowed"].clone()
    };
    assert_eq!((ask("In").await, ask("NotIn").await), (json!(true), json!(false)));
}

#[tokio::test]
async fn a_node_does_not_steer_pods_to_itself() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let mut object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1",
        "labels": {"node-restriction.kubernetes.io/a": "b", "kubernetes.io/os": "linux"}}});
    let refused = node.send("POST", "/api/v1/nodes", &object).await.refused(403, "Forbidden");
    let want = "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: \
                node-restriction.kubernetes.io/a";
    assert_eq!(refused["message"], want);
    object["metadata"]["labels"] = json!({"kubernetes.io/os": "linux"});
    object["spec"] = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    node.send("POST", "/api/v1/nodes", &object).await.expect(201);
    let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}});
    for uri in ["/api/v1/nodes/n1", "/api/v1/nodes/n1/status"] {
        let refused = node.patch("merge", uri, &label).await.refused(403, "Forbidden");
        let want =
            "nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/a";
        assert_eq!(refused["message"], want, "{uri}");
    }
    admin.patch("merge", "/api/v1/nodes/n1", &label).await.expect(200);
    let untainted = json!({"spec": {"taints": []}});
    let refused = node.patch("merge", "/api/v1/nodes/n1", &untainted).await.refused(403, "Forbidden");
    assert_eq!(refused["message"], "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints");
    let own = json!({"metadata": {"labels": {"color": "red"}, "annotations": {"a": "b"}}});
    node.patch("merge", "/api/v1/nodes/n1", &own).await.expect(200);
}

#[tokio::test]
async fn a_node_asks_for_certificates_and_tokens_in_its_own_name() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let (version, .., object) =
        all().into_iter().find(|(_, plural, ..)| *plural == "certificatesigningrequests").unwrap();
    let request = |name: &str, node: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let mut request = named(version, object.clone(), name);
        request["spec"]["request"] =
            json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem));
        request["spec"]["signerName"] = json!(signer);
        request
    };
    for signer in ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"] {
        let refused =
            node.send("POST", REQUESTS, &request("a", "n2", signer)).await.refused(403, "Forbidden");
        let want = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: can only create a node CSR with \
                    CN=system:node:n1";
        assert_eq!(refused["message"], want);
        let name = signer.rsplit('/').next().unwrap();
        node.send("POST", REQUESTS, &request(name, "n1", signer)).await.expect(201);
    }
    node.send("POST", REQUESTS, &request("b", "n2", "example.com/signer")).await.expect(201);

    let token = |bound: Value, audiences: Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"boundObjectRef": bound, "audiences": audiences}})
    };
    let uri = &format!("{CORE}/serviceaccounts/default/token");
    let bound = |uid: &Value| json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid});
    let sources = json!([{"serviceAccountToken": {"path": "v", "audience": "vault"}}]);
    let uid = runs(&admin, "p", json!([{"name": "v", "projected": {"sources": sources}}])).await["metadata"]
        ["uid"]
        .clone();
    let told = async |request: &Value| {
        let refused = node.send("POST", uri, request).await.refused(403, "Forbidden");
        refused["message"].as_str().unwrap().to_owned()
    };
    let unbound = told(&token(Value::Null, json!([]))).await;
    assert_eq!(unbound, "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod");
    let nameless = told(&token(bound(&json!("")), json!([]))).await;
    assert!(nameless.ends_with("node requested token with a pod binding without a uid"), "{nameless}");
    let stale = told(&token(bound(&json!("x")), json!([]))).await;
    assert!(stale.contains("(x) does not match the UID in record. The object"), "{stale}");
    let foreign = told(&token(bound(&uid), json!(["other"]))).await;
    assert!(
        foreign.ends_with(
            "audience \"other\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"
        ),
        "{foreign}"
    );
    let many = told(&token(bound(&uid), json!(["vault", "other"]))).await;
    assert!(many.ends_with("node may only request 0 or 1 audiences"), "{many}");
    node.send("POST", uri, &token(bound(&uid), json!([]))).await.expect(201);
    node.send("POST", uri, &token(bound(&uid), json!(["vault"]))).await.expect(201);
    let other = cluster.user("system:node:n2", &["system:nodes"]);
    other.send("POST", uri, &token(bound(&uid), json!([]))).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_node_without_a_name_is_none() {
    let cluster = cluster().await;
    let nobody = cluster.user("system:node:", &["system:nodes"]);
    nobody.get("/api/v1/nodes").await.refused(403, "Forbidden");
    nobody.get("/api/v1/pods").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_node_holds_its_own_lease_and_those_a_role_gives_it() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let leases = |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    node.send("POST", &leases("kube-node-lease"), &lease("n1")).await.expect(201);
    let refused = node.send("POST", &leases("kube-node-lease"), &lease("n2")).await.refused(403, "Forbidden");
    let want = "can only access node lease with the same name as the requesting node";
    assert!(refused["message"].as_str().unwrap().ends_with(want), "{refused}");
    node.send("POST", &leases("default"), &lease("announce")).await.refused(403, "Forbidden");
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "announce"},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}]});
    admin.send("POST", &format!("{rbac}/roles"), &role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "announce"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "announce"},
        "subjects": [{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.send("POST", &format!("{rbac}/rolebindings"), &binding).await.expect(201);
    node.send("POST", &leases("default"), &lease("announce")).await.expect(201);
}
