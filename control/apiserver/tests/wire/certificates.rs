//! Requests for certificates: who asked is written down, and who may approve and sign is asked.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::objects::{all, named};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn request(name: &str) -> Value {
    let (version, .., object) =
        all().into_iter().find(|(_, plural, ..)| *plural == "certificatesigningrequests").unwrap();
    named(version, object, name)
}

/// Lets a user do everything with requests, and only `verb` with one signer.
async fn may(admin: &Client, user: &str, verb: &str, signer: &str) {
    let group = json!(["certificates.k8s.io"]);
    let rules = json!([
        {"apiGroups": group, "verbs": ["*"], "resources": ["certificatesigningrequests",
            "certificatesigningrequests/approval", "certificatesigningrequests/status"]},
        {"apiGroups": group, "verbs": [verb], "resources": ["signers"], "resourceNames": [signer]},
    ]);
    let meta = json!({"name": user});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules});
    admin.send("POST", &format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin.send("POST", &format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
}

fn condition(kind: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": "True"}]}})
}

#[tokio::test]
async fn a_request_says_who_asked_and_never_changes() {
    let cluster = cluster().await;
    may(&cluster.admin(), "jane", "approve", "example.com/other").await;
    let jane = cluster.user("jane", &["dev"]);
    let mut wanted = request("jane");
    wanted["spec"]["username"] = json!("admin");
    wanted["spec"]["groups"] = json!(["system:masters"]);
    wanted["spec"]["uid"] = json!("1");
    wanted["status"] = condition("Approved")["status"].clone();
    let made = jane.send("POST", REQUESTS, &wanted).await;
    assert!(made.headers["warning"].to_str().unwrap().contains("nothing signs certificates yet"));
    let made = made.expect(201);
    assert_eq!(made["spec"]["username"], "jane");
    assert_eq!(made["spec"]["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!((made["spec"].get("uid"), &made["status"]), (None, &json!({})));
    let change = json!({"spec": {"username": "admin", "signerName": "example.com/other"}});
    let after = jane.patch("merge", &format!("{REQUESTS}/jane"), &change).await.expect(200);
    assert_eq!(after["spec"], made["spec"]);
    let found =
        jane.get(&format!("{REQUESTS}?fieldSelector=spec.signerName=example.com/signer")).await.expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn only_those_approve_who_may_for_the_signer() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", REQUESTS, &request("one")).await.expect(201);
    may(&admin, "other", "approve", "example.org/signer").await;
    may(&admin, "signer", "sign", "example.com/signer").await;
    may(&admin, "approver", "approve", "example.com/*").await;
    let approval = format!("{REQUESTS}/one/approval");
    for name in ["other", "signer"] {
        let refused = cluster.user(name, &[]).patch("merge", &approval, &condition("Approved")).await;
        let message = refused.refused(403, "Forbidden")["message"].clone();
        let want = "certificatesigningrequests.certificates.k8s.io \"one\" is forbidden: user not permitted to approve \
                    requests with signerName \"example.com/signer\"";
        assert_eq!(message, want, "{name}");
    }
    let approver = cluster.user("approver", &[]);
    let mut both = condition("Approved");
    both["spec"] = json!({"signerName": "example.org/signer"});
    both["status"]["certificate"] = json!("QUJD");
    let approved = approver.patch("merge", &approval, &both).await.expect(200);
    let decided = &approved["status"]["conditions"][0];
    assert!(decided["lastUpdateTime"].is_string() && decided["lastTransitionTime"].is_string(), "{decided}");
    assert_eq!(approved["spec"]["signerName"], "example.com/signer");
    assert_eq!(approved["status"].get("certificate"), None);
    approver.patch("merge", &approval, &json!({"status": {"conditions": []}})).await.refused(422, "Invalid");
    approver.patch("merge", &approval, &condition("Denied")).await.refused(422, "Invalid");
}

#[tokio::test]
async fn only_those_sign_who_may_and_they_decide_nothing() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", REQUESTS, &request("one")).await.expect(201);
    may(&admin, "approver", "approve", "example.com/signer").await;
    may(&admin, "signer", "sign", "example.com/signer").await;
    let status = format!("{REQUESTS}/one/status");
    let approver = cluster.user("approver", &[]);
    approver.patch("merge", &status, &condition("Failed")).await.refused(403, "Forbidden");
    let signer = cluster.user("signer", &[]);
    signer.patch("merge", &status, &condition("Approved")).await.refused(422, "Invalid");
    signer.patch("merge", &status, &json!({"status": {"certificate": "QUJD"}})).await.refused(422, "Invalid");
    let failed = signer.patch("merge", &status, &condition("Failed")).await.expect(200);
    assert_eq!(failed["status"]["conditions"][0]["type"], "Failed");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", REQUESTS, &accept, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"][5], "Pending,Failed");
}

#[tokio::test]
async fn nobody_asks_to_be_an_administrator() {
    let cluster = cluster().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let mut wanted = request("root");
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    wanted["spec"]["request"] = json!(encoded);
    wanted["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
    cluster.admin().send("POST", REQUESTS, &wanted).await.refused(403, "Forbidden");
    wanted["spec"]["signerName"] = json!("example.com/signer");
    cluster.admin().send("POST", REQUESTS, &wanted).await.expect(201);
}
