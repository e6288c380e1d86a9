//! What extends the server: APIServices, webhooks and policies of admission.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::definitions::{DEFINITIONS, crontabs, spec, version};

pub const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Names of APIServices, once `enough` says so.
pub async fn services(admin: &Client, enough: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
    for _ in 0..200 {
        let list = admin.get(SERVICES).await.expect(200);
        let names = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned());
        let names: BTreeSet<String> = names.collect();
        if enough(&names) {
            return names;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not the APIServices that were waited for");
}

#[tokio::test]
async fn every_group_and_version_that_is_served_has_an_api_service() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let found = services(&admin, |names| names.len() > 10).await;
    let groups = admin.get("/apis").await.expect(200);
    let served = groups["groups"].as_array().unwrap().iter();
    let served = served.flat_map(|group| group["versions"].as_array().unwrap());
    let mut served: BTreeSet<String> = served
        .map(|version| {
            let (group, version) = version["groupVersion"].as_str().unwrap().split_once('/').unwrap();
            format!("{version}.{group}")
        })
        .collect();
    assert!(served.remove("v1.apiregistration.k8s.io"), "it is served by whoever aggregates");
    served.insert("v1.".to_owned());
    assert_eq!(found, served);

    let apps = admin.get(&format!("{SERVICES}/v1.apps")).await.expect(200);
    let condition = &apps["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Available"), &json!("True"), &json!("Local"))
    );
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    admin.delete(&format!("{SERVICES}/v1.apps")).await.expect(200);
    let again = services(&admin, |names| names.contains("v1.apps")).await;
    assert_eq!(again, found);
}

#[tokio::test]
async fn the_api_service_of_custom_kinds_comes_and_goes_with_them() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let definition = crontabs(json!([version("v1", true, spec())]));
    admin.send("POST", DEFINITIONS, &definition).await.expect(201);
    let name = "v1.stable.example.com";
    services(&admin, |names| names.contains(name)).await;
    let made = admin.get(&format!("{SERVICES}/{name}")).await.expect(200);
    assert_eq!(
        made["spec"],
        json!({"group": "stable.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100})
    );
    // What somebody changes of it is put right.
    let patch = json!({"spec": {"versionPriority": 7}});
    admin.patch("merge", &format!("{SERVICES}/{name}"), &patch).await.expect(200);
    for _ in 0..200 {
        let now = admin.get(&format!("{SERVICES}/{name}")).await.expect(200);
        if now["spec"] == made["spec"] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(admin.get(&format!("{SERVICES}/{name}")).await.expect(200)["spec"], made["spec"]);
    admin.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.expect(200);
    services(&admin, |names| !names.contains(name)).await;
}

#[tokio::test]
async fn the_api_service_of_another_build_is_not_fought_over() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    services(&admin, |names| names.contains("v1.apps")).await;
    for (label, version) in [("onstart", "v7"), ("true", "v8")] {
        let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.apps"), "labels": {"kube-aggregator.kubernetes.io/automanaged": label}},
            "spec": {"group": "apps", "version": version, "groupPriorityMinimum": 17800, "versionPriority": 15}});
        admin.send("POST", SERVICES, &service).await.expect(201);
    }
    // The later one is gone, so the earlier one has been looked at.
    let left = services(&admin, |names| !names.contains("v8.apps")).await;
    assert!(left.contains("v7.apps"));
}

#[tokio::test]
async fn the_api_service_of_another_server_is_kept_and_not_available() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                 "insecureSkipTLSVerify": true, "service": {"namespace": "kube-system", "name": "metrics-server"}}});
    let answer = admin.send("POST", SERVICES, &service).await;
    let made = answer.expect(201);
    assert!(answer.headers["warning"].to_str().unwrap().contains("not forwarded"));
    assert_eq!(made["spec"]["service"]["port"], 443);
    assert_eq!(made["status"]["conditions"][0]["status"], "False");
    services(&admin, |names| names.contains("v1.apps") && names.contains("v1beta1.metrics.k8s.io")).await;
    let mut wrong = service;
    wrong["metadata"]["name"] = json!("metrics");
    let refused = admin.send("POST", SERVICES, &wrong).await.refused(422, "Invalid");
    assert!(refused["message"].as_str().unwrap().contains("must be"), "{refused}");
}

#[tokio::test]
async fn webhooks_and_policies_are_completed_checked_and_kept_with_a_warning() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let rule = json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "hooks"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://example.com/x"}, "rules": [rule]}]});
    let path = format!("{ADMISSION}/mutatingwebhookconfigurations");
    let answer = admin.send("POST", &path, &configuration).await;
    let made = answer.expect(201);
    assert!(answer.headers["warning"].to_str().unwrap().contains("no request is held to it"));
    let webhook = &made["webhooks"][0];
    assert_eq!((&webhook["failurePolicy"], &webhook["timeoutSeconds"]), (&json!("Fail"), &json!(10)));
    assert_eq!(
        (&webhook["reinvocationPolicy"], &webhook["rules"][0]["scope"]),
        (&json!("Never"), &json!("*"))
    );
    let patch = json!({"webhooks": [{"name": "a.example.com", "timeoutSeconds": 5}]});
    let patched = admin.patch("strategic-merge", &format!("{path}/hooks"), &patch).await.expect(200);
    assert_eq!(
        (&patched["metadata"]["generation"], &patched["webhooks"][0]["timeoutSeconds"]),
        (&json!(2), &json!(5))
    );
    let mut bad = configuration;
    bad["metadata"]["name"] = json!("bad");
    bad["webhooks"][0]["timeoutSeconds"] = json!(31);
    bad["webhooks"][0]["name"] = json!("short");
    let refused = admin.send("POST", &path, &bad).await.refused(422, "Invalid");
    let fields: Vec<&Value> =
        refused["details"]["causes"].as_array().unwrap().iter().map(|cause| &cause["field"]).collect();
    assert_eq!(fields, ["webhooks[0].name", "webhooks[0].timeoutSeconds"]);

    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]}});
    let path = format!("{ADMISSION}/validatingadmissionpolicies");
    admin.send("POST", &path, &policy).await.expect(201);
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"conditions": [condition]}});
    let patched = admin.patch("merge", &format!("{path}/p/status"), &status).await.expect(200);
    assert_eq!(patched["status"]["conditions"][0]["reason"], "E2E");
    assert_eq!(patched["spec"]["failurePolicy"], "Fail");
}
