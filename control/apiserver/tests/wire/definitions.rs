//! CustomResourceDefinitions: what makes one, what it says about itself, and what is left when it goes.

use serde_json::{Value, json};

use crate::cluster::{Client, Cluster, cluster};
use crate::watches::{Watch, seen};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// A version whose spec has this schema.
pub fn version(name: &str, storage: bool, spec: Value) -> Value {
    json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": {
        "type": "object", "properties": { "spec": spec,
            "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } } })
}

/// The definition of crontabs with these versions.
pub fn crontabs(versions: Value) -> Value {
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": { "group": "stable.example.com", "scope": "Namespaced",
            "names": { "plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"] }, "versions": versions } })
}

/// The schema most tests use.
pub fn spec() -> Value {
    json!({ "type": "object", "properties": {
        "cronSpec": { "type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$" },
        "image": { "type": "string" }, "replicas": { "type": "integer", "minimum": 1, "maximum": 10 } } })
}

pub fn crontab(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "spec": spec })
}

/// A cluster that serves crontabs with this schema.
pub async fn with_crontabs(spec: Value) -> (Cluster, Client) {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let definition = crontabs(json!([version("v1", true, spec)]));
    admin.send("POST", DEFINITIONS, &definition).await.expect(201);
    (cluster, admin)
}

fn condition<'a>(definition: &'a Value, kind: &str) -> &'a Value {
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_definition_is_completed_and_served_with_the_answer() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let definition = crontabs(json!([version("v1", true, spec())]));
    admin.get(CRONTABS).await.no_page();
    let made = admin.send("POST", DEFINITIONS, &definition).await.expect(201);
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["spec"]["names"]["singular"], "crontab");
    assert_eq!(made["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(made["spec"]["conversion"], json!({ "strategy": "None" }));
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["status"]["acceptedNames"], made["spec"]["names"]);
    for (kind, reason) in [("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted")] {
        let condition = condition(&made, kind);
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!(reason)));
    }
    assert_eq!(admin.get(CRONTABS).await.expect(200)["kind"], "CronTabList");
    assert_eq!(admin.send("POST", DEFINITIONS, &definition).await.code, 409);
}

#[tokio::test]
async fn a_definition_that_breaks_rules_is_refused_by_field() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let cases: [(&str, Value, &str); 14] = [
        ("/metadata/name", json!("x.stable.example.com"), "metadata.name"),
        ("/spec/group", json!("example"), "spec.group"),
        ("/spec/group", json!("x.k8s.io"), "metadata.annotations[api-approved.kubernetes.io]"),
        ("/spec/scope", json!("Everywhere"), "spec.scope"),
        ("/spec/names/kind", json!("Cron_Tab"), "spec.names.kind"),
        ("/spec/names/shortNames", json!(["C"]), "spec.names.shortNames[0]"),
        ("/spec/versions/0/storage", json!(false), "spec.versions"),
        ("/spec/versions/0/name", json!("V1"), "spec.versions[0].name"),
        ("/spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema"),
        (
            "/spec/versions/0/schema/openAPIV3Schema/type",
            json!("string"),
            "spec.versions[0].schema.openAPIV3Schema.type",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns",
            json!([{ "name": "A", "type": "text", "jsonPath": ".spec" }]),
            "spec.versions[0].additionalPrinterColumns[0].type",
        ),
        (
            "/spec/versions/0/selectableFields",
            json!([{ "jsonPath": ".spec.nothing" }]),
            "spec.versions[0].selectableFields[0].jsonPath",
        ),
        (
            "/spec/versions/0/subresources",
            json!({ "scale": { "specReplicasPath": ".status.x", "statusReplicasPath": ".status.x" } }),
            "spec.versions[0].subresources.scale.specReplicasPath",
        ),
        ("/spec/preserveUnknownFields", json!(true), "spec.preserveUnknownFields"),
    ];
    for (place, value, field) in cases {
        let mut definition = crontabs(json!([version("v1", true, spec())]));
        let (parent, name) = place.rsplit_once('/').unwrap();
        definition.pointer_mut(parent).unwrap()[name] = value;
        let status = admin.send("POST", DEFINITIONS, &definition).await.refused(422, "Invalid");
        let causes = status["details"]["causes"].as_array().unwrap();
        assert!(causes.iter().any(|cause| cause["field"] == field), "{place}: {status}");
    }
    let mut webhook = crontabs(json!([version("v1", true, spec())]));
    webhook["spec"]["conversion"] =
        json!({ "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v1"] } });
    let status = admin.send("POST", DEFINITIONS, &webhook).await.refused(422, "Invalid");
    assert!(
        status["message"].as_str().unwrap().contains("conversion by webhook is not served yet"),
        "{status}"
    );
}

#[tokio::test]
async fn rules_that_are_not_evaluated_are_warned_about() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut spec = spec();
    spec["x-kubernetes-validations"] = json!([{ "rule": "self.replicas > 1" }]);
    let made = admin.send("POST", DEFINITIONS, &crontabs(json!([version("v1", true, spec)]))).await;
    assert_eq!(made.code, 201);
    let warning = made.headers["warning"].to_str().unwrap();
    assert!(warning.contains("x-kubernetes-validations are not evaluated yet"), "{warning}");
}

#[tokio::test]
async fn what_objects_depend_on_does_not_change() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    for patch in [
        json!({ "spec": { "scope": "Cluster" } }),
        json!({ "spec": { "names": { "kind": "Other" } } }),
        json!({ "spec": { "group": "other.example.com" } }),
    ] {
        admin.patch("merge", &one, &patch).await.refused(422, "Invalid");
    }
    // A version in which objects may lie stays until it is taken off storedVersions.
    let both = json!({ "spec": { "versions": [version("v1", false, spec()), version("v2", true, spec())] } });
    let changed = admin.patch("merge", &one, &both).await.expect(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(changed["metadata"]["generation"], 2);
    let only = json!({ "spec": { "versions": [version("v2", true, spec())] } });
    let status = admin.patch("merge", &one, &only).await.refused(422, "Invalid");
    assert!(status["message"].as_str().unwrap().contains("v1 was previously a storage version"), "{status}");
    let migrated = json!({ "status": { "storedVersions": ["v2"] } });
    admin.patch("merge", &format!("{one}/status"), &migrated).await.expect(200);
    admin.patch("merge", &one, &only).await.expect(200);
    admin.get(CRONTABS).await.no_page();
}

#[tokio::test]
async fn the_status_can_be_written_by_others_and_keeps_their_conditions() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut definition = admin.get(&format!("{one}/status")).await.expect(200);
    let mine = json!({ "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": null });
    definition["status"]["conditions"].as_array_mut().unwrap().push(mine);
    let updated = admin.send("PUT", &format!("{one}/status"), &definition).await.expect(200);
    assert_eq!(condition(&updated, "StatusUpdate")["reason"], "E2E");
    let labelled = json!({ "metadata": { "labels": { "a": "b" } } });
    let labelled = admin.patch("merge", &one, &labelled).await.expect(200);
    assert_eq!(condition(&labelled, "StatusUpdate")["reason"], "E2E");
    assert_eq!(condition(&labelled, "Established")["status"], "True");
}

#[tokio::test]
async fn a_name_belongs_to_the_first_and_is_passed_on_when_it_goes() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let mut second = crontabs(json!([version("v1", true, spec())]));
    second["metadata"]["name"] = json!("others.stable.example.com");
    second["spec"]["names"] = json!({ "plural": "others", "kind": "Other", "shortNames": ["ct"] });
    let made = admin.send("POST", DEFINITIONS, &second).await.expect(201);
    assert_eq!(condition(&made, "NamesAccepted")["reason"], "ShortNamesConflict");
    assert_eq!(condition(&made, "NamesAccepted")["message"], "\"ct\" is already in use");
    assert_eq!(condition(&made, "Established")["status"], "False");
    let others = "/apis/stable.example.com/v1/namespaces/default/others";
    admin.get(others).await.no_page();

    let uri = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name=others.stable.example.com");
    let mut watch = Watch::open(&admin, &uri, "application/json").await;
    assert_eq!(seen(&watch.next().await.unwrap()).0, "ADDED");
    admin.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.expect(200);
    let changed = watch.next().await.unwrap();
    assert_eq!(condition(&changed["object"], "Established")["status"], "True");
    // The event may be told a moment before the path is served.
    admin.until(others, 200).await;
}

#[tokio::test]
async fn objects_go_before_their_definition_and_finalizers_are_waited_for() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    admin.send("POST", CRONTABS, &crontab("plain", json!({}))).await.expect(201);
    let mut held = crontab("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.send("POST", CRONTABS, &held).await.expect(201);
    let mut objects = Watch::open(&admin, &format!("{CRONTABS}?watch=1"), "application/json").await;
    for _ in 0..2 {
        assert_eq!(seen(&objects.next().await.unwrap()).0, "ADDED");
    }
    let mut watch = Watch::open(&admin, &format!("{DEFINITIONS}?watch=1"), "application/json").await;
    assert_eq!(seen(&watch.next().await.unwrap()).0, "ADDED");

    let marked = admin.delete(&one).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(condition(&marked, "Terminating")["status"], "True");
    let status =
        admin.send("POST", CRONTABS, &crontab("late", json!({}))).await.refused(405, "MethodNotAllowed");
    let why = "create not allowed while custom resource definition is terminating";
    assert_eq!(status["message"], why);

    // The one goes, the other is marked and holds the definition.
    let mut told = vec![seen(&objects.next().await.unwrap()), seen(&objects.next().await.unwrap())];
    told.sort();
    assert_eq!(
        told,
        [("DELETED".to_owned(), "plain".to_owned()), ("MODIFIED".to_owned(), "held".to_owned())]
    );
    while condition(&watch.next().await.unwrap()["object"], "Terminating")["reason"]
        != "InstanceDeletionInProgress"
    {}
    assert_eq!(admin.get(&one).await.code, 200);

    let release = json!({ "metadata": { "finalizers": null } });
    admin.patch("merge", &format!("{CRONTABS}/held"), &release).await.expect(200);
    assert_eq!(seen(&objects.next().await.unwrap()), ("DELETED".to_owned(), "held".to_owned()));
    assert_eq!(seen(&watch.next().await.unwrap()).0, "DELETED");
    assert_eq!(objects.next().await, None, "a watch ends with its kind");
    admin.get(&one).await.refused(404, "NotFound");
    admin.get(CRONTABS).await.no_page();
}
