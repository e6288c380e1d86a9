//! HorizontalPodAutoscalers: one kind, two versions, and everything a client can do in either.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::protobuf;
use crate::watches::Watch;

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const TABLE: [(&str, &str); 1] = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];

fn target() -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" })
}

fn older(name: &str, percent: i64) -> Value {
    json!({ "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": { "name": name },
            "spec": { "scaleTargetRef": target(), "maxReplicas": 3, "targetCPUUtilizationPercentage": percent } })
}

fn cpu(percent: i64) -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": percent });
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
}

fn memory() -> Value {
    let target = json!({ "type": "AverageValue", "averageValue": "1Gi" });
    json!({ "type": "Resource", "resource": { "name": "memory", "target": target } })
}

fn newer(name: &str, metrics: &[Value]) -> Value {
    json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": name },
            "spec": { "scaleTargetRef": target(), "maxReplicas": 3, "metrics": metrics } })
}

#[tokio::test]
async fn each_version_shows_what_the_other_wrote_in_every_encoding() {
    let cluster = cluster().await;
    let (json, packed) = (cluster.admin(), cluster.admin().in_protobuf());
    for (name, admin) in [("one", &json), ("two", &packed)] {
        let created = admin.send("POST", V1, &older(name, 50)).await;
        assert!(created.headers["warning"].to_str().unwrap().contains("no controller"));
        let created = created.expect(201);
        assert_eq!(created["spec"]["minReplicas"], 1);
        assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(created["apiVersion"], "autoscaling/v1");
    }
    for admin in [&json, &packed] {
        for name in ["one", "two"] {
            let shown = admin.get(&format!("{V2}/{name}")).await.expect(200);
            assert_eq!(
                (&shown["apiVersion"], &shown["spec"]["metrics"]),
                (&json!("autoscaling/v2"), &json!([cpu(50)]))
            );
        }
        for (path, field, want) in
            [(V1, "targetCPUUtilizationPercentage", json!(50)), (V2, "metrics", json!([cpu(50)]))]
        {
            let list = admin.get(path).await.expect(200);
            let fields: Vec<&Value> =
                list["items"].as_array().unwrap().iter().map(|one| &one["spec"][field]).collect();
            assert_eq!(fields, [&want, &want], "{path}");
        }
    }
    let made = json.send("POST", V2, &newer("three", &[memory(), cpu(70)])).await.expect(201);
    assert_eq!(made["spec"]["metrics"], json!([memory(), cpu(70)]));
    let shown = json.get(&format!("{V1}/three")).await.expect(200);
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 70);
    let metrics = shown["metadata"]["annotations"][METRICS].as_str().unwrap();
    assert_eq!(metrics, r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}}]"#);
    // What was read in one version and is written back changes nothing.
    let same = json.send("PUT", &format!("{V1}/three"), &shown).await.expect(200);
    assert_eq!(same, shown);
    let gone = json.delete(&format!("{V1}?dryRun=All")).await.expect(200);
    assert_eq!(gone["items"][0]["apiVersion"], json!(null));
    assert!(gone["items"][0]["spec"]["targetCPUUtilizationPercentage"].is_number());
}

#[tokio::test]
async fn a_watch_is_told_the_version_it_asked_for_also_when_another_watches() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", V2, &newer("web", &[cpu(50)])).await.expect(201);
    let json_media = "application/json";
    let media = format!("{};stream=watch", protobuf::MEDIA);
    let mut watches = Vec::new();
    for (path, version) in [(V1, "autoscaling/v1"), (V2, "autoscaling/v2")] {
        for media in [json_media, &media] {
            watches.push((version, Watch::open(&admin, &format!("{path}?watch=1"), media).await));
        }
    }
    let percent = json!({ "spec": { "metrics": [memory(), cpu(60)] } });
    for (version, watch) in &mut watches {
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["apiVersion"]), (&json!("ADDED"), &json!(version)));
    }
    admin.patch("merge", &format!("{V2}/web"), &percent).await.expect(200);
    admin.delete(&format!("{V2}/web")).await.expect(200);
    for kind in ["MODIFIED", "DELETED"] {
        for (version, watch) in &mut watches {
            let event = watch.next().await.unwrap();
            let object = &event["object"];
            assert_eq!((&event["type"], &object["apiVersion"]), (&json!(kind), &json!(version)));
            if *version == "autoscaling/v1" {
                assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 60);
                assert!(object["metadata"]["annotations"][METRICS].is_string());
            } else {
                assert_eq!(object["spec"]["metrics"], json!([memory(), cpu(60)]));
                assert!(object["metadata"].get("annotations").is_none());
            }
        }
    }
}

#[tokio::test]
async fn every_patch_is_read_in_the_version_of_its_path() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", V2, &newer("web", &[memory(), cpu(50)])).await.expect(201);
    let (one, two) = (format!("{V1}/web"), format!("{V2}/web"));
    let percent = |n: i64| json!({ "spec": { "targetCPUUtilizationPercentage": n } });
    admin.patch("merge", &one, &percent(51)).await.expect(200);
    assert_eq!(admin.get(&two).await.expect(200)["spec"]["metrics"], json!([memory(), cpu(51)]));
    admin.patch("strategic-merge", &one, &percent(52)).await.expect(200);
    assert_eq!(admin.get(&two).await.expect(200)["spec"]["metrics"], json!([memory(), cpu(52)]));
    let replace = json!([{ "op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 53 }]);
    admin.patch("json", &one, &replace).await.expect(200);
    assert_eq!(admin.get(&two).await.expect(200)["spec"]["metrics"], json!([memory(), cpu(53)]));
    let bare = json!([{ "op": "remove", "path": "/metadata/annotations" }]);
    let left = admin.patch("json", &one, &bare).await.expect(200);
    assert_eq!(left["metadata"].get("annotations"), None);
    assert_eq!(admin.get(&two).await.expect(200)["spec"]["metrics"], json!([cpu(53)]));
    let strict = format!("{one}?fieldValidation=Strict");
    let said =
        admin.patch("merge", &strict, &json!({ "spec": { "metrics": [] } })).await.refused(422, "Invalid");
    assert!(said["message"].as_str().unwrap().contains("unknown field \"spec.metrics\""), "{said}");
    let status = json!({ "status": { "currentReplicas": 2, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 9 } });
    admin.patch("merge", &format!("{one}/status"), &status).await.expect(200);
    let shown = admin.get(&two).await.expect(200);
    assert_eq!(shown["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"], 9);
    let negative = json!({ "status": { "desiredReplicas": -1 } });
    admin.patch("merge", &format!("{two}/status"), &negative).await.refused(422, "Invalid");
    let planned = admin.patch("merge", &format!("{one}?dryRun=All"), &percent(99)).await.expect(200);
    assert_eq!(planned["spec"]["targetCPUUtilizationPercentage"], 99);
    assert_eq!(admin.get(&one).await.expect(200)["spec"]["targetCPUUtilizationPercentage"], 53);
    let many = json!({ "spec": { "minReplicas": 4 } });
    let said = admin.patch("merge", &one, &many).await.refused(422, "Invalid");
    assert_eq!(said["details"]["causes"][0]["field"], "spec.maxReplicas");
}

/// Who owns which fields: manager, operation, version.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    entries
        .iter()
        .map(|entry| {
            let who = format!(
                "{} {} {}",
                word(entry, "manager"),
                word(entry, "operation"),
                word(entry, "apiVersion")
            );
            (who, entry["fieldsV1"]["f:spec"].clone())
        })
        .collect()
}

async fn apply(admin: &Client, path: &str, manager: &str, object: &Value) -> Value {
    let uri = format!("{path}/web?fieldManager={manager}");
    admin.patch("apply", &uri, object).await.expect(200)
}

#[tokio::test]
async fn fields_are_owned_in_the_version_their_owner_wrote() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let created =
        admin.patch("apply", &format!("{V1}/web?fieldManager=a"), &older("web", 50)).await.expect(201);
    let whole =
        json!({ "f:maxReplicas": {}, "f:scaleTargetRef": {}, "f:targetCPUUtilizationPercentage": {} });
    assert_eq!(owners(&created), [("a Apply autoscaling/v1".to_owned(), whole.clone())]);
    // In the other version another owner meets the same fields.
    let mine = json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web" },
                       "spec": { "metrics": [cpu(60)] } });
    let uri = format!("{V2}/web?fieldManager=b");
    let said = admin.patch("apply", &uri, &mine).await.refused(409, "Conflict");
    let cause = &said["details"]["causes"][0];
    assert_eq!(cause["field"], ".spec.targetCPUUtilizationPercentage");
    assert_eq!(cause["message"], "conflict with \"a\"");
    let forced = admin.patch("apply", &format!("{uri}&force=true"), &mine).await.expect(200);
    let left = json!({ "f:maxReplicas": {}, "f:scaleTargetRef": {} });
    let theirs = json!({ "f:metrics": {} });
    let a = ("a Apply autoscaling/v1".to_owned(), left);
    assert_eq!(owners(&forced), [a.clone(), ("b Apply autoscaling/v2".to_owned(), theirs)]);
    // Whoever applies has one entry, in the version they applied last; what they no longer name goes.
    let min = json!({ "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web" },
                      "spec": { "minReplicas": 2 } });
    let moved = apply(&admin, V1, "b", &min).await;
    assert_eq!(owners(&moved), [a, ("b Apply autoscaling/v1".to_owned(), json!({ "f:minReplicas": {} }))]);
    assert_eq!(admin.get(&format!("{V2}/web")).await.expect(200)["spec"]["metrics"], json!([cpu(80)]));
    // An update of one version takes what it changes from owners in the other.
    let patch = json!({ "spec": { "maxReplicas": 9 } });
    let updated = admin.patch("merge", &format!("{V2}/web?fieldManager=c"), &patch).await.expect(200);
    let who: Vec<(String, Value)> = owners(&updated);
    assert_eq!(who[0].1, json!({ "f:scaleTargetRef": {} }));
    assert_eq!(who[2], ("c Update autoscaling/v2".to_owned(), json!({ "f:maxReplicas": {} })));
}

#[tokio::test]
async fn tables_and_documents_know_both_versions() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", V2, &newer("web", &[cpu(50)])).await.expect(201);
    for path in [V1, V2] {
        for uri in [format!("{path}?includeObject=Object"), format!("{path}/web?includeObject=Object")] {
            let table = admin.ask("GET", &uri, &TABLE, "").await.expect(200);
            let row = &table["rows"][0];
            let cells: Vec<&Value> = row["cells"].as_array().unwrap()[..6].iter().collect();
            assert_eq!(
                cells,
                [
                    &json!("web"),
                    &json!("Deployment/web"),
                    &json!("cpu: <unknown>/50%"),
                    &json!("1"),
                    &json!(3),
                    &json!(0)
                ]
            );
            assert!(path.contains(row["object"]["apiVersion"].as_str().unwrap()), "{uri}: {row}");
        }
    }
    let group = admin.get("/apis/autoscaling").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let versions: Vec<&Value> =
        group["versions"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
    assert_eq!(versions, ["v2", "v1"]);
    for (version, field) in [("v1", "targetCPUUtilizationPercentage"), ("v2", "metrics")] {
        let list = admin.get(&format!("/apis/autoscaling/{version}")).await.expect(200);
        assert_eq!(list["resources"][0]["name"], "horizontalpodautoscalers");
        let document = admin.get(&format!("/openapi/v3/apis/autoscaling/{version}")).await.expect(200);
        let spec = &document["components"]["schemas"]
            [format!("io.k8s.api.autoscaling.{version}.HorizontalPodAutoscalerSpec")];
        assert!(spec["properties"][field].is_object(), "{version}");
    }
}
