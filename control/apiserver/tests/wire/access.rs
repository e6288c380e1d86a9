//! Who may do what, and how that is told.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::objects::{config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
           "roleRef": {"kind": "Role", "name": role}, "subjects": [subject]})
}

async fn allow(admin: &Client, name: &str, rules: Value, subject: Value) {
    admin
        .send("POST", &format!("{RBAC}/namespaces/default/roles"), &role("Role", name, rules))
        .await
        .expect(201);
    admin
        .send("POST", &format!("{RBAC}/namespaces/default/rolebindings"), &binding(name, name, subject))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_binding_counts_from_the_moment_it_is_written_until_it_is_gone() {
    let cluster = cluster().await;
    let (admin, bob) = (cluster.admin(), cluster.user("bob", &[]));
    let message = bob.get(MAPS).await.refused(403, "Forbidden")["message"].clone();
    let want = "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!(message, want);
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]);
    allow(&admin, "r", rules, json!({"kind": "User", "name": "bob"})).await;
    bob.get(MAPS).await.expect(200);
    bob.get("/api/v1/configmaps").await.refused(403, "Forbidden");
    bob.get("/api/v1/namespaces/kube-system/configmaps").await.refused(403, "Forbidden");
    bob.send("POST", MAPS, &config_map("a", "1")).await.refused(403, "Forbidden");
    admin.delete(&format!("{RBAC}/namespaces/default/rolebindings/r")).await.expect(200);
    bob.get(MAPS).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_list_of_one_name_needs_the_right_to_that_name_only() {
    let cluster = cluster().await;
    let (admin, bob) = (cluster.admin(), cluster.user("bob", &[]));
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"], "resourceNames": ["a"]}]);
    allow(&admin, "r", rules, json!({"kind": "User", "name": "bob"})).await;
    bob.get(&format!("{MAPS}?fieldSelector=metadata.name%3Da")).await.expect(200);
    bob.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.refused(403, "Forbidden");
    bob.get(&format!("{MAPS}?fieldSelector=metadata.name!%3Da")).await.refused(403, "Forbidden");
    bob.get(MAPS).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let cluster = cluster().await;
    let (admin, bob) = (cluster.admin(), cluster.user("bob", &[]));
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]);
    allow(&admin, "r", rules, json!({"kind": "User", "name": "bob"})).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let own = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    bob.send("POST", &roles, &role("Role", "own", own)).await.expect(201);
    let more = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    bob.send("POST", &roles, &role("Role", "more", more)).await.refused(403, "Forbidden");
    let mut admin_binding = binding("b", "admin", json!({"kind": "User", "name": "bob"}));
    admin_binding["roleRef"] = json!({"kind": "ClusterRole", "name": "cluster-admin"});
    bob.send("POST", &format!("{RBAC}/namespaces/default/rolebindings"), &admin_binding)
        .await
        .refused(403, "Forbidden");
}

#[tokio::test]
async fn only_who_may_do_everything_makes_roles_that_select_others() {
    let cluster = cluster().await;
    let (admin, bob, alice) = (cluster.admin(), cluster.user("bob", &[]), cluster.user("alice", &[]));
    let rules =
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]}]);
    let mut narrow = role("ClusterRole", "narrow", rules);
    narrow["rules"][0]["verbs"] = json!(["get", "create", "update", "patch"]);
    let roles = format!("{RBAC}/clusterroles");
    admin.send("POST", &roles, &narrow).await.expect(201);
    let mut all = binding("b", "cluster-admin", json!({"kind": "User", "name": "alice"}));
    all["kind"] = json!("ClusterRoleBinding");
    all["roleRef"] = json!({"kind": "ClusterRole", "name": "cluster-admin"});
    admin.send("POST", &format!("{RBAC}/clusterrolebindings"), &all).await.expect(201);
    all["metadata"]["name"] = json!("n");
    all["roleRef"]["name"] = json!("narrow");
    all["subjects"][0]["name"] = json!("bob");
    admin.send("POST", &format!("{RBAC}/clusterrolebindings"), &all).await.expect(201);

    let mut selecting = role("ClusterRole", "selecting", json!([]));
    selecting["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "own"}}]});
    let refused = bob.send("POST", &roles, &selecting).await.refused(403, "Forbidden");
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{message}");
    let change = json!({"aggregationRule": {"clusterRoleSelectors": [{}]}});
    bob.patch("merge", &format!("{roles}/narrow"), &change).await.refused(403, "Forbidden");
    alice.send("POST", &roles, &selecting).await.expect(201);
    // Not to be had by giving up what is selected either.
    let change = json!({"aggregationRule": null});
    bob.patch("merge", &format!("{roles}/selecting"), &change).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_token_is_its_account_for_as_long_as_pod_and_account_live() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", "/api/v1/namespaces/default/pods", &pod("p", json!({}))).await.expect(201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}, "expirationSeconds": 600}});
    let uri = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token =
        admin.send("POST", uri, &request).await.expect(201)["status"]["token"].as_str().unwrap().to_owned();

    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = admin.send("POST", tokens, &review).await.expect(201)["status"].clone();
    assert_eq!(
        (&status["authenticated"], &status["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:default"))
    );
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));

    let forged = format!("{}x", &token[..token.len() - 1]);
    let review_forged =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": forged}});
    let status = admin.send("POST", tokens, &review_forged).await.expect(201)["status"].clone();
    assert_eq!((status.get("authenticated"), status["error"].is_string()), (None, true));
    let mut short = request.clone();
    short["spec"]["expirationSeconds"] = json!(1);
    admin.send("POST", uri, &short).await.refused(422, "Invalid");
    let mut missing = request;
    missing["spec"]["boundObjectRef"]["name"] = json!("none");
    admin.send("POST", uri, &missing).await.refused(404, "NotFound");

    admin.delete("/api/v1/namespaces/default/pods/p").await.expect(200);
    assert_eq!(admin.send("POST", tokens, &review).await.expect(201)["status"].get("authenticated"), None);
}

#[tokio::test]
async fn reviews_answer_what_the_authoriser_would() {
    let cluster = cluster().await;
    let (admin, bob) = (cluster.admin(), cluster.user("bob", &["dev"]));
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]);
    allow(&admin, "r", rules, json!({"kind": "Group", "name": "dev"})).await;
    let ask = |verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
               "spec": {"resourceAttributes": {"verb": verb, "resource": "configmaps", "namespace": "default"}}})
    };
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(bob.send("POST", uri, &ask("list")).await.expect(201)["status"]["allowed"], true);
    assert_eq!(bob.send("POST", uri, &ask("delete")).await.expect(201)["status"]["allowed"], false);
    let other = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "eve", "groups": ["dev"], "resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}});
    let uri = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(admin.send("POST", uri, &other).await.expect(201)["status"]["allowed"], true);
    bob.send("POST", uri, &other).await.refused(403, "Forbidden");
    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let status =
        bob.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &rules).await.expect(201);
    assert!(status["status"]["resourceRules"].to_string().contains("configmaps"));
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = bob.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &who).await.expect(201);
    assert_eq!(who["status"]["userInfo"]["username"], "bob");
}

#[tokio::test]
async fn a_node_sees_and_writes_only_what_is_its_own() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    node.send("POST", "/api/v1/nodes", &object("n1")).await.expect(201);
    node.send("POST", "/api/v1/nodes", &object("n2")).await.refused(403, "Forbidden");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    node.patch("merge", "/api/v1/nodes/n1/status", &ready).await.expect(200);
    admin.send("POST", "/api/v1/nodes", &object("n2")).await.expect(201);
    node.patch("merge", "/api/v1/nodes/n2/status", &ready).await.refused(403, "Forbidden");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    node.send("POST", leases, &lease).await.expect(201);
    node.get("/api/v1/pods").await.expect(200);
    node.get("/api/v1/secrets").await.refused(403, "Forbidden");

    admin.send("POST", MAPS, &config_map("used", "1")).await.expect(201);
    node.get(&format!("{MAPS}/used")).await.refused(403, "Forbidden");
    let mut using = pod("p", json!({}));
    using["spec"]["nodeName"] = json!("n1");
    using["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "used"}}]);
    admin.send("POST", "/api/v1/namespaces/default/pods", &using).await.expect(201);
    node.get(&format!("{MAPS}/used")).await.expect(200);
    let status = json!({"status": {"phase": "Running"}});
    node.patch("merge", "/api/v1/namespaces/default/pods/p/status", &status).await.expect(200);
}

#[tokio::test]
async fn a_node_makes_mirrors_and_evicts_only_what_runs_on_it() {
    let cluster = cluster().await;
    let (admin, node) = (cluster.admin(), cluster.user("system:node:n1", &["system:nodes"]));
    let pods = "/api/v1/namespaces/default/pods";
    let mut own = pod("own", json!({}));
    own["spec"]["nodeName"] = json!("n1");
    let told = async |pod: &Value| {
        let refused = node.send("POST", pods, pod).await.refused(403, "Forbidden");
        refused["message"].as_str().unwrap().to_owned()
    };
    assert!(told(&own).await.ends_with("node \"n1\" can only create mirror pods"));
    own["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let uid = node.send("POST", "/api/v1/nodes", &object).await.expect(201)["metadata"]["uid"].clone();
    let owner = |uid: &Value| json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]);
    own["metadata"]["ownerReferences"] = owner(&json!("another"));
    assert!(told(&own).await.contains("node n1 UID mismatch: expected another got "));
    own["metadata"]["ownerReferences"] = owner(&uid);
    own["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    assert!(told(&own).await.ends_with("node \"n1\" can not create pods that reference secrets"));
    own["spec"]["volumes"] = json!([]);
    node.send("POST", pods, &own).await.expect(201);

    let mut other = pod("other", json!({}));
    other["spec"]["nodeName"] = json!("n2");
    admin.send("POST", pods, &other).await.expect(201);
    let eviction =
        |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    node.send("POST", &format!("{pods}/other/eviction"), &eviction("other")).await.refused(403, "Forbidden");
    node.send("POST", &format!("{pods}/own/eviction"), &eviction("own")).await.expect(201);

    // A kubelet asks for certificates and reads runtime classes.
    node.get("/apis/node.k8s.io/v1/runtimeclasses").await.expect(200);
    node.get("/apis/certificates.k8s.io/v1/certificatesigningrequests").await.expect(200);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n2"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    node.send("POST", leases, &lease).await.refused(403, "Forbidden");
}

/// A Secret as it stands in `kube-system` for the bootstrap token `abcdef.0123456789abcdef`.
fn bootstrap_secret(groups: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": "bootstrap-token-abcdef" },
        "stringData": { "token-id": "abcdef", "token-secret": "0123456789abcdef", "auth-extra-groups": groups,
                        "usage-bootstrap-authentication": "true" } })
}

#[tokio::test]
async fn a_bootstrap_token_counts_as_long_as_its_secret_is_there() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let review = |audiences: Value| {
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "spec": { "token": "abcdef.0123456789abcdef", "audiences": audiences } })
    };
    let ask = async |audiences: Value| {
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        admin.send("POST", reviews, &review(audiences)).await.expect(201)["status"].clone()
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    assert_eq!(ask(json!([])).await.get("authenticated"), None);
    let secret = bootstrap_secret("system:bootstrappers:workers");
    admin.send("POST", secrets, &secret).await.expect(201);
    let status = ask(json!([])).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:bootstrap:abcdef");
    let groups = json!(["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]);
    assert_eq!(status["user"]["groups"], groups);
    assert_eq!(ask(json!(["somebody-else"])).await.get("authenticated"), None);
    admin.delete(&format!("{secrets}/bootstrap-token-abcdef")).await.expect(200);
    assert_eq!(ask(json!([])).await.get("authenticated"), None);
}

#[tokio::test]
async fn a_token_for_a_node_ends_with_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    admin.send("POST", "/api/v1/nodes", &node).await.expect(201);
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "boundObjectRef": { "kind": "Node", "apiVersion": "v1", "name": "n1" } } });
    let uri = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = admin.send("POST", uri, &request).await.expect(201)["status"]["token"].clone();
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token } });
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_eq!(admin.send("POST", reviews, &review).await.expect(201)["status"]["authenticated"], true);
    admin.delete("/api/v1/nodes/n1").await.expect(200);
    assert_eq!(admin.send("POST", reviews, &review).await.expect(201)["status"].get("authenticated"), None);
}

#[tokio::test]
async fn somebody_else_is_who_the_headers_say() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let who = async |headers: &[(&str, &str)]| {
        let review =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }).to_string();
        let uri = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let headers: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
        admin.ask("POST", uri, &headers, review).await
    };
    let eve = [
        ("impersonate-user", "eve"),
        ("impersonate-group", "system:masters"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-acme.com%2fproject", "some"),
    ];
    let info = who(&eve).await.expect(201)["status"]["userInfo"].clone();
    let wanted = json!({ "username": "eve", "uid": "7", "groups": ["system:masters", "dev", "system:authenticated"],
                         "extra": { "acme.com/project": ["some"] } });
    assert_eq!(info, wanted);
    let account = [
        ("impersonate-user", "system:serviceaccount:default:robot"),
        ("impersonate-group", "system:masters"),
    ];
    let groups = who(&account).await.expect(201)["status"]["userInfo"]["groups"].clone();
    assert_eq!(groups, json!(["system:masters", "system:authenticated"]), "groups replace an account's own");
    let nobody = [("impersonate-user", "system:anonymous"), ("impersonate-group", "system:masters")];
    let groups = who(&nobody).await.expect(201)["status"]["userInfo"]["groups"].clone();
    assert_eq!(groups, json!(["system:masters", "system:unauthenticated"]));
    who(&[("impersonate-user", "system:anonymous")]).await.refused(403, "Forbidden");
    for lonely in ["impersonate-group", "impersonate-uid", "impersonate-extra-x"] {
        who(&[(lonely, "system:masters")]).await.refused(400, "BadRequest");
    }
}

#[tokio::test]
async fn only_those_who_may_impersonate() {
    let cluster = cluster().await;
    let (admin, bob) = (cluster.admin(), cluster.user("bob", &[]));
    let as_eve = [("impersonate-user", "eve"), ("impersonate-group", "system:masters")];
    bob.ask("GET", MAPS, &as_eve, "").await.refused(403, "Forbidden");
    admin.ask("GET", MAPS, &as_eve, "").await.expect(200);
    admin.ask("GET", MAPS, &[("impersonate-user", "eve")], "").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn servers_beside_this_one_learn_whose_certificates_count() {
    let cluster = cluster().await;
    let (admin, beside) = (cluster.admin(), cluster.user("metrics", &[]));
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    beside.get(map).await.refused(403, "Forbidden");
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "metrics"});
    let reader = binding("metrics", "extension-apiserver-authentication-reader", subject);
    let bindings = format!("{RBAC}/namespaces/kube-system/rolebindings");
    admin.send("POST", &bindings, &reader).await.expect(201);
    let told = beside.get(map).await.expect(200);
    assert_eq!(told["data"], json!({"client-ca-file": cluster.pki().ca_pem}));
}
