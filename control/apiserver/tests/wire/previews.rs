//! Kinds and versions of beta and alpha: not there unless somebody asks for them.

use serde_json::{Value, json};

use crate::cluster::{cluster, cluster_serving};
use crate::extensions::{SERVICES, services};
use crate::objects::{collection, named, previews};
use crate::rows::lives;

const DEVICES: &str = "/apis/resource.k8s.io";

#[tokio::test]
async fn what_nobody_asked_for_is_not_there() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for (version, plural, namespaced, _) in previews() {
        let answer = admin.get(&collection(version, plural, namespaced)).await;
        assert_eq!(answer.code, 404, "{version} {plural}");
    }
    let found = admin.get("/apis").await.expect(200).to_string();
    let openapi = admin.get("/openapi/v2").await.expect(200).to_string();
    for name in ["v1beta1", "v1alpha", "storagemigration"] {
        assert!(!found.contains(name), "{name} in discovery");
        assert!(!openapi.contains(&format!(".{name}.")), "{name} in OpenAPI");
    }
}

#[tokio::test]
async fn what_is_asked_for_can_be_created_read_changed_and_deleted() {
    let cluster = cluster_serving("api/all=true").await;
    lives(&cluster.admin(), previews()).await;
    lives(&cluster.admin().in_protobuf(), previews()).await;
}

#[tokio::test]
async fn a_claim_is_the_same_in_all_versions() {
    let cluster = cluster_serving("api/beta=true,resource.k8s.io/v1beta2=false").await;
    let admin = cluster.admin();
    let (version, _, _, claim) = previews()
        .into_iter()
        .find(|(v, p, ..)| (*v, *p) == ("resource.k8s.io/v1beta1", "resourceclaims"))
        .unwrap();
    let path = |version: &str| format!("{DEVICES}/{version}/namespaces/default/resourceclaims");
    let made = admin.send("POST", &path("v1beta1"), &named(version, claim, "c")).await;
    assert_eq!(
        made.headers["warning"].to_str().unwrap(),
        "299 - \"resource.k8s.io/v1beta1 ResourceClaim is deprecated in v1.35+, unavailable in v1.38+\""
    );
    let request = |claim: &Value| claim["spec"]["devices"]["requests"][0].clone();
    let flat = json!({"name": "gpu", "deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
    assert_eq!(request(&made.expect(201)), flat);
    let stored = admin.get(&format!("{}/c", path("v1"))).await.expect(200);
    let exactly = json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
    assert_eq!(request(&stored), json!({"name": "gpu", "exactly": exactly}));
    admin.get(&path("v1beta2")).await.refused(404, "NotFound");
    let group = admin.get(DEVICES).await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let name = "v1beta1.storagemigration.k8s.io";
    services(&admin, |names| names.contains(name)).await;
    let service = admin.get(&format!("{SERVICES}/{name}")).await.expect(200);
    assert_eq!(service["spec"]["groupPriorityMinimum"], 15800);
}

#[tokio::test]
async fn what_is_switched_off_is_gone() {
    let cluster = cluster_serving("batch/v1/cronjobs=false,autoscaling/v2=false").await;
    let admin = cluster.admin();
    admin.get("/apis/batch/v1/cronjobs").await.refused(404, "NotFound");
    admin.get("/apis/batch/v1/jobs").await.expect(200);
    admin.get("/apis/autoscaling/v2/horizontalpodautoscalers").await.refused(404, "NotFound");
    admin.get("/apis/autoscaling/v1/horizontalpodautoscalers").await.expect(200);
}

#[tokio::test]
async fn endpoints_are_deprecated() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let list = admin.get("/api/v1/namespaces/default/endpoints").await;
    assert_eq!(
        list.headers["warning"].to_str().unwrap(),
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""
    );
    let slices = admin.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices").await;
    assert!(!slices.headers.contains_key("warning"));
}

#[tokio::test]
async fn whom_to_trust_is_said_by_who_may() {
    let cluster = cluster_serving("certificates.k8s.io/v1beta1=true").await;
    let admin = cluster.admin();
    let (version, plural, namespaced, bundle) = previews()
        .into_iter()
        .find(|(v, p, ..)| (*v, *p) == ("certificates.k8s.io/v1beta1", "clustertrustbundles"))
        .unwrap();
    let path = collection(version, plural, namespaced);
    let mut bundle = named(version, bundle, "example.com:s:mine");
    bundle["spec"]["signerName"] = json!("example.com/s");
    let allowed = |name: &str, rules: Value| {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
        (role, binding)
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let ann = cluster.user("ann", &[]);
    let write = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["clustertrustbundles"], "verbs": ["create"]}]);
    let attest = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["attest"]}]);
    for (name, rules, code) in [("write", write, 403), ("attest", attest, 201)] {
        let (role, binding) = allowed(name, rules);
        admin.send("POST", &format!("{rbac}/clusterroles"), &role).await.expect(201);
        admin.send("POST", &format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
        let answer = ann.send("POST", &path, &bundle).await.expect(code);
        assert!(
            code == 201 || answer["message"].as_str().unwrap().contains("not permitted to attest"),
            "{answer}"
        );
    }
}
