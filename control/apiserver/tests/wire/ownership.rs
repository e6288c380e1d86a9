//! Who owned what before a write: what clients may say of it, and what is assumed where nothing is known.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};

const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data })
}

/// Names and operations of the owners.
fn owners(object: &Value) -> Vec<(String, String)> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let mut owners: Vec<_> =
        entries.map(|entry| (word(entry, "manager"), word(entry, "operation"))).collect();
    owners.sort();
    owners
}

async fn make(admin: &Client, data: Value) -> Value {
    let maps = MAP.strip_suffix("/a").unwrap();
    admin.send("POST", &format!("{maps}?fieldManager=maker"), &map(data)).await.expect(201)
}

fn named(names: &[(&str, &str)]) -> Vec<(String, String)> {
    names.iter().map(|(name, operation)| ((*name).to_owned(), (*operation).to_owned())).collect()
}

#[tokio::test]
async fn owners_can_be_forgotten_and_then_nobody_is_known_until_something_is_applied() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    make(&admin, json!({ "a": "1" })).await;
    let forget = json!({ "metadata": { "managedFields": [{}] }, "data": { "b": "1" } });
    let forgotten = admin.patch("merge", &format!("{MAP}?fieldManager=editor"), &forget).await.expect(200);
    assert_eq!(forgotten["metadata"]["managedFields"], Value::Null);
    let edited = json!({ "data": { "a": "2" } });
    let edited = admin.patch("strategic-merge", &format!("{MAP}?fieldManager=editor"), &edited).await;
    assert_eq!(edited.expect(200)["metadata"]["managedFields"], Value::Null);
    let apply = format!("{MAP}?fieldManager=applier");
    let status = admin.patch("apply", &apply, &map(json!({ "a": "3" }))).await.refused(409, "Conflict");
    let said = "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a";
    assert_eq!(status["message"], said);
    let applied = admin.patch("apply", &format!("{apply}&force=true"), &map(json!({ "a": "3" }))).await;
    let applied = applied.expect(200);
    assert_eq!(owners(&applied), named(&[("applier", "Apply"), ("before-first-apply", "Update")]));
    assert_eq!(applied["data"], json!({ "a": "3", "b": "1" }));
    let none = json!({ "metadata": { "managedFields": [] } });
    let forgotten = admin.patch("merge", MAP, &none).await.expect(200);
    assert_eq!(forgotten["metadata"]["managedFields"], Value::Null);
}

#[tokio::test]
async fn owners_can_be_renamed_by_who_writes_the_object_and_not_by_what_cannot_be_read() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let made = make(&admin, json!({ "a": "1" })).await;
    let mut entry = made["metadata"]["managedFields"][0].clone();
    entry["manager"] = json!("heir");
    entry["operation"] = json!("Apply");
    let inherit = json!([{ "op": "replace", "path": "/metadata/managedFields", "value": [entry] },
        { "op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"] }]);
    let inherited =
        admin.ask("PATCH", MAP, &[("content-type", "application/json-patch+json")], inherit.to_string());
    assert_eq!(owners(&inherited.await.expect(200)), named(&[("heir", "Apply")]));
    // What the heir applied, and does not any more, goes.
    let taken = admin.patch("apply", &format!("{MAP}?fieldManager=heir"), &map(json!({ "b": "1" }))).await;
    assert_eq!(taken.expect(200)["data"], json!({ "b": "1" }));
    for bad in
        [json!({ "operation": "Own" }), json!({ "fieldsType": "FieldsV9" }), json!({ "apiVersion": "" })]
    {
        let mut entry = entry.clone();
        bad.as_object().unwrap().iter().for_each(|(field, value)| entry[field] = value.clone());
        let ignored = json!({ "metadata": { "managedFields": [entry] } });
        let ignored = admin.patch("merge", MAP, &ignored).await.expect(200);
        assert_eq!(owners(&ignored), named(&[("heir", "Apply")]), "{bad}");
    }
}

/// `kubectl apply`, and then `kubectl apply --server-side`.
#[tokio::test]
async fn kubectl_goes_on_with_what_it_applied_by_its_annotation() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let first = map(json!({ "a": "1", "b": "1" }));
    let mut annotated = first.clone();
    annotated["metadata"]["annotations"] = json!({ ANNOTATION: first.to_string() });
    let maps = MAP.strip_suffix("/a").unwrap();
    let by = format!("{maps}?fieldManager=kubectl-client-side-apply");
    admin.send("POST", &by, &annotated).await.expect(201);
    let second = map(json!({ "a": "2", "b": "1" }));
    let apply = |manager: &str| format!("{MAP}?fieldManager={manager}");
    admin.patch("apply", &apply("somebody"), &second).await.refused(409, "Conflict");
    let edit = json!({ "data": { "b": "edited" } });
    admin.patch("merge", &apply("editor"), &edit).await.expect(200);
    let status = admin.patch("apply", &apply("kubectl"), &second).await.refused(409, "Conflict");
    let said = "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.b";
    assert_eq!(status["message"], said, "what it applied is its own, and only that");
    let second = map(json!({ "a": "2" }));
    let applied = admin.patch("apply", &apply("kubectl"), &second).await.expect(200);
    assert_eq!(applied["data"], json!({ "a": "2", "b": "edited" }));
    let now = applied["metadata"]["annotations"][ANNOTATION].as_str().unwrap();
    assert!(now.ends_with("}\n"), "{now:?}");
    assert_eq!(serde_json::from_str::<Value>(now).unwrap(), second);
    assert_eq!(
        owners(&applied),
        named(&[("editor", "Update"), ("kubectl", "Apply"), ("kubectl-client-side-apply", "Update")])
    );
}
