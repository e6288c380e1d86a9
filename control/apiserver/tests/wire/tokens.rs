//! Tokens that Secrets hold.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::cluster::{Client, cluster};

const CORE: &str = "/api/v1/namespaces/default";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// A Secret for a token of the account `default`, and the account's uid.
async fn asked(admin: &Client) -> (String, Value) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "s", "annotations": {ACCOUNT: "default"}}});
    let made = admin.send("POST", &format!("{CORE}/secrets"), &secret).await.expect(201);
    assert_eq!(made.get("data"), None);
    let account = admin.get(&format!("{CORE}/serviceaccounts/default")).await.expect(200);
    (format!("{CORE}/secrets/s"), account["metadata"]["uid"].clone())
}

/// The token the Secret gets when its account's uid is said.
async fn token(admin: &Client, uri: &str, uid: &Value) -> String {
    let filled = json!({"metadata": {"annotations": {UID: uid}}, "stringData": {"namespace": "default"}});
    let secret = admin.patch("merge", uri, &filled).await.expect(200);
    String::from_utf8(STANDARD.decode(secret["data"]["token"].as_str().unwrap()).unwrap()).unwrap()
}

async fn review(admin: &Client, token: &str, audiences: Value) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    let uri = "/apis/authentication.k8s.io/v1/tokenreviews";
    admin.send("POST", uri, &review).await.expect(201)["status"].clone()
}

#[tokio::test]
async fn a_token_without_end_is_valid_while_its_secret_holds_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let (uri, uid) = asked(&admin).await;
    let other = json!({"metadata": {"annotations": {UID: "other"}}});
    assert_eq!(admin.patch("merge", &uri, &other).await.expect(200).get("data"), None);
    let token = token(&admin, &uri, &uid).await;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let want = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:default",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "s",
        "kubernetes.io/serviceaccount/service-account.name": "default",
        "kubernetes.io/serviceaccount/service-account.uid": uid});
    assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap(), want);

    let status = review(&admin, &token, json!([])).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!((&status["user"]["uid"], status["user"].get("extra")), (&uid, None));
    let own = json!(["https://kubernetes.default.svc.cluster.local"]);
    assert_eq!(review(&admin, &token, own.clone()).await["audiences"], own);
    assert_eq!(review(&admin, &token, json!(["vault"])).await.get("authenticated"), None);
    let forged = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(review(&admin, &forged, json!([])).await.get("authenticated"), None);

    let held = admin.get(&uri).await.expect(200)["data"]["token"].clone();
    for (data, want) in [(json!("eA=="), None), (held, Some(&json!(true)))] {
        admin.patch("merge", &uri, &json!({"data": {"token": data}})).await.expect(200);
        assert_eq!(review(&admin, &token, json!([])).await.get("authenticated"), want);
    }
    let since =
        |day: Value| json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": day}}});
    for (day, want) in [(json!("2026-01-31"), None), (json!(null), Some(&json!(true)))] {
        admin.patch("merge", &uri, &since(day)).await.expect(200);
        assert_eq!(review(&admin, &token, json!([])).await.get("authenticated"), want);
    }
    admin.delete(&uri).await.expect(200);
    assert_eq!(review(&admin, &token, json!([])).await.get("authenticated"), None);
}

#[tokio::test]
async fn a_token_without_end_ends_with_its_account() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let (uri, uid) = asked(&admin).await;
    let token = token(&admin, &uri, &uid).await;
    assert_eq!(review(&admin, &token, json!([])).await["authenticated"], true);
    admin.delete(&format!("{CORE}/serviceaccounts/default")).await.expect(200);
    assert_eq!(review(&admin, &token, json!([])).await.get("authenticated"), None);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin.send("POST", &format!("{CORE}/serviceaccounts"), &account).await.expect(201);
    assert_eq!(review(&admin, &token, json!([])).await.get("authenticated"), None);
}

#[tokio::test]
async fn a_secret_is_told_the_day_its_token_was_last_used() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let (uri, uid) = asked(&admin).await;
    let token = token(&admin, &uri, &uid).await;
    let used = "kubernetes.io/legacy-token-last-used";
    assert_eq!(admin.get(&uri).await.expect(200)["metadata"].get("labels"), None);
    review(&admin, &token, json!([])).await;
    let told = async {
        loop {
            let secret = admin.get(&uri).await.expect(200);
            if let Some(day) = secret["metadata"]["labels"][used].as_str() {
                return (day.to_owned(), secret["metadata"]["resourceVersion"].clone());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let (day, revision) =
        tokio::time::timeout(std::time::Duration::from_secs(10), told).await.expect("a label");
    assert_eq!((day.len(), day.matches('-').count()), (10, 2), "{day}");
    review(&admin, &token, json!([])).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let after = admin.get(&uri).await.expect(200);
    assert_eq!(after["metadata"]["resourceVersion"], revision, "once a day");
}
