//! What every kind can do, kind by kind.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::objects::{all, collection, named};
use crate::protobuf;
use crate::watches::Watch;

#[tokio::test]
async fn every_kind_can_be_created_read_changed_and_deleted() {
    every_kind_lives(&cluster().await.admin()).await;
}

#[tokio::test]
async fn every_kind_can_be_created_read_changed_and_deleted_in_protobuf() {
    every_kind_lives(&cluster().await.admin().in_protobuf()).await;
}

async fn every_kind_lives(admin: &Client) {
    lives(admin, all()).await;
}

/// Every object comes, is read and changed in every way, and goes.
pub async fn lives(admin: &Client, objects: Vec<(&str, &str, bool, Value)>) {
    for (version, plural, namespaced, object) in objects {
        let path = collection(version, plural, namespaced);
        let name = match plural {
            "apiservices" => "v1.example.com",
            "ipaddresses" => "10.96.7.7",
            "storageversions" => "example.com.ones",
            _ => "one",
        };
        let object = named(version, object, name);
        life(admin, &path, name, &object).await;
    }
}

async fn life(admin: &Client, path: &str, name: &str, object: &Value) {
    let one = format!("{path}/{name}");
    let created = admin.send("POST", path, object).await.expect(201);
    assert_eq!(created["kind"], object["kind"], "{path}");
    assert_eq!(created["apiVersion"], object["apiVersion"], "{path}");
    assert!(
        created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string(),
        "{path}"
    );
    admin.send("POST", path, object).await.refused(409, "AlreadyExists");

    let read = admin.get(&one).await.expect(200);
    assert_eq!(read, created, "{path}: what is read is what creation answered");
    let shown = admin.in_json().get(&one).await.expect(200);
    assert_eq!(without_nothing(&read), without_nothing(&shown), "{path}: it is the same in every encoding");
    watched(admin, path, name, &read).await;
    let list = admin.get(path).await.expect(200);
    let found =
        list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).unwrap();
    // The list says of what kind its items are.
    assert!(found.get("kind").is_none() && found.get("apiVersion").is_none(), "{path}: {found}");
    let typed = json!({"kind": object["kind"], "apiVersion": object["apiVersion"]});
    assert_eq!(merged(found, &typed), read, "{path}");
    assert_eq!(list["kind"], json!(format!("{}List", object["kind"].as_str().unwrap())));
    let narrowed = admin.get(&format!("{path}?fieldSelector=metadata.name={name}")).await.expect(200);
    assert_eq!(narrowed["items"].as_array().unwrap().len(), 1, "{path}");

    tables(admin, path, &one).await;

    let same = admin.send("PUT", &one, &read).await.expect(200);
    assert_eq!(same, read, "{path}: a write that changes nothing is none");
    let label = json!({"metadata": {"labels": {"x": "1"}}});
    let labelled = admin.patch("merge", &one, &label).await.expect(200);
    assert_eq!(labelled["metadata"]["labels"]["x"], "1", "{path}");
    assert_ne!(labelled["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"], "{path}");
    assert_eq!(admin.patch("strategic-merge", &one, &label).await.expect(200), labelled, "{path}");
    let replace = json!([{"op": "replace", "path": "/metadata/labels/x", "value": "2"}]);
    assert_eq!(
        admin.patch("json", &one, &replace).await.expect(200)["metadata"]["labels"]["x"],
        "2",
        "{path}"
    );
    admin.send("PUT", &one, &read).await.refused(409, "Conflict");

    let apply = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": name, "labels": {"y": "1"}}});
    let uri = format!("{one}?fieldManager=test");
    let applied = admin.patch("apply", &uri, &apply).await.expect(200);
    assert_eq!(applied["metadata"]["labels"]["y"], "1", "{path}");
    assert_eq!(admin.patch("apply", &uri, &apply).await.expect(200), applied, "{path}");

    let all = format!("{path}?fieldSelector=metadata.name={name}&dryRun=All");
    let deleted = admin.delete(&all).await;
    if object["kind"] == "Namespace" {
        // There is no deleting all of them at once.
        deleted.refused(405, "MethodNotAllowed");
    } else {
        assert_eq!(deleted.expect(200)["items"].as_array().unwrap().len(), 1, "{path}");
    }

    let strict = format!("{path}?fieldValidation=Strict");
    let mut strange = object.clone();
    strange["bogus"] = json!(1);
    strange["metadata"]["name"] = json!("10.96.7.8");
    // There is no strange field in protobuf.
    admin.in_json().send("POST", &strict, &strange).await.refused(400, "BadRequest");
    let warned = admin.in_json().send("POST", &format!("{path}?dryRun=All"), &strange).await;
    if warned.code == 201 {
        assert!(warned.headers.contains_key("warning"), "{path}");
        admin.get(&format!("{path}/10.96.7.8")).await.refused(404, "NotFound");
    }

    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "propagationPolicy": "Background"});
    let gone = admin.send("DELETE", &one, &options).await;
    assert_eq!(gone.headers["content-type"], admin.media(), "{path}");
    let gone = gone.expect(200);
    assert!(gone["kind"] == "Status" || gone["kind"] == object["kind"], "{path}");
    if object["kind"] != "Namespace" {
        admin.get(&one).await.refused(404, "NotFound");
        admin.delete(&one).await.refused(404, "NotFound");
    }
}

/// The object as it is the first event of a watch.
async fn watched(admin: &Client, path: &str, name: &str, read: &Value) {
    let uri = format!("{path}?watch=1&fieldSelector=metadata.name={name}");
    let mut watch = Watch::open(admin, &uri, admin.media()).await;
    assert_eq!(watch.next().await.unwrap(), json!({"type": "ADDED", "object": read}), "{path}");
}

/// What is left of an object when nulls and empty lists and maps are taken out, which protobuf cannot say.
fn without_nothing(value: &Value) -> Value {
    let empty = |value: &Value| *value == Value::Null || *value == json!([]) || *value == json!({});
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), without_nothing(value)));
            Value::Object(fields.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(items) => items.iter().map(without_nothing).collect(),
        other => other.clone(),
    }
}

fn merged(object: &Value, more: &Value) -> Value {
    let mut out = object.clone();
    out.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    out
}

async fn tables(admin: &Client, path: &str, one: &str) {
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    for uri in [path, one] {
        let table = admin.ask("GET", uri, &accept, "").await.expect(200);
        assert_eq!(table["kind"], "Table", "{uri}");
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        for row in table["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), columns, "{uri}");
            assert_eq!(row["object"]["kind"], "PartialObjectMetadata", "{uri}");
        }
    }
    let accept = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let partial = admin.ask("GET", path, &accept, "").await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList", "{path}");
    let accept =
        [("accept", &*format!("{};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", protobuf::MEDIA))];
    let packed = admin.ask("GET", path, &accept, "").await;
    assert_eq!(packed.headers["content-type"], protobuf::MEDIA, "{path}");
    let names = |list: &Value| -> Vec<Value> {
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["uid"].clone()).collect()
    };
    assert_eq!(names(&packed.expect(200)), names(&partial), "{path}");
    let yaml = admin.ask("GET", one, &[("accept", "application/yaml")], "").await;
    assert_eq!((yaml.code, yaml.headers["content-type"].to_str().unwrap()), (200, "application/yaml"));
}

#[tokio::test]
async fn the_two_generations_of_events_are_one_thing() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let (version, plural, namespaced, object) =
        all().into_iter().find(|(v, ..)| *v == "events.k8s.io/v1").unwrap();
    let new = collection(version, plural, namespaced);
    admin.send("POST", &new, &named(version, object, "e")).await.expect(201);
    let old = admin.get("/api/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((&old["message"], &old["involvedObject"]["name"]), (&json!("n"), &json!("p")));
    let both = admin.get(&format!("{new}?fieldSelector=regarding.name=p")).await.expect(200);
    assert_eq!(both["items"][0]["note"], "n");
    assert_eq!(both["apiVersion"], "events.k8s.io/v1");
    let (.., mut silent) =
        all().into_iter().find(|(v, plural, ..)| (*v, *plural) == ("v1", "events")).unwrap();
    silent
        .as_object_mut()
        .unwrap()
        .retain(|field, _| !matches!(field.as_str(), "reportingComponent" | "type"));
    silent["source"] = json!({"component": "old", "host": "n1"});
    let silent = named("v1", silent, "s");
    let silent = admin.send("POST", "/api/v1/namespaces/default/events", &silent).await.expect(201);
    assert_eq!(silent.get("type"), None, "nothing is made up for the old generation");
    assert_eq!((&silent["reportingComponent"], &silent["reportingInstance"]), (&json!(""), &json!("")));
}

#[tokio::test]
async fn a_status_nobody_wrote_has_its_zeros() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let statuses = [
        ("cronjobs", json!({})),
        (
            "daemonsets",
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
        ),
        ("deployments", json!({})),
        ("ingresses", json!({"loadBalancer": {}})),
        ("jobs", json!({})),
        (
            "nodes",
            json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {
            "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}}),
        ),
        (
            "poddisruptionbudgets",
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
        ),
        ("replicasets", json!({"replicas": 0})),
        ("resourcequotas", json!({})),
        ("statefulsets", json!({"availableReplicas": 0, "replicas": 0})),
    ];
    for (plural, want) in statuses {
        let (version, _, namespaced, object) =
            all().into_iter().find(|(_, other, ..)| *other == plural).unwrap();
        let path = collection(version, plural, namespaced);
        let made = admin.send("POST", &path, &named(version, object, "zero")).await.expect(201);
        assert_eq!(made["status"], want, "{plural}");
        let patch = json!([{"op": "add", "path": "/status/conditions", "value": []}]);
        let status = format!("{path}/zero/status");
        admin.patch("json", &status, &patch).await.expect(200);
        let managed = made["metadata"]["managedFields"].to_string();
        assert!(!managed.contains("f:status"), "{plural}: nobody wrote it: {managed}");
    }
}

#[tokio::test]
async fn the_status_is_written_apart_from_the_rest() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (version, _, _, object) = all().into_iter().find(|(_, plural, ..)| *plural == "deployments").unwrap();
    let created = admin.send("POST", path, &named(version, object, "d")).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 3}});
    let main = admin.patch("merge", &format!("{path}/d"), &both).await.expect(200);
    assert_eq!((&main["spec"]["replicas"], &main["metadata"]["generation"]), (&json!(7), &json!(2)));
    assert_eq!(main["status"], json!({}));
    let status = admin
        .patch(
            "merge",
            &format!("{path}/d/status"),
            &json!({"spec": {"replicas": 1}, "status": {"replicas": 3}}),
        )
        .await;
    let status = status.expect(200);
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(7), &json!(3)));
    assert_eq!(status["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_scale_is_a_view_of_the_replicas() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for (version, plural, namespaced, object) in all() {
        if !["deployments", "replicasets", "statefulsets", "replicationcontrollers"].contains(&plural) {
            continue;
        }
        let path = collection(version, plural, namespaced);
        admin.send("POST", &path, &named(version, object, "s")).await.expect(201);
        let uri = format!("{path}/s/scale");
        let mut scale = admin.get(&uri).await.expect(200);
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)), "{plural}");
        assert_eq!(scale["status"]["selector"], "app=a", "{plural}");
        scale["spec"]["replicas"] = json!(4);
        assert_eq!(admin.send("PUT", &uri, &scale).await.expect(200)["spec"]["replicas"], 4);
        admin.send("PUT", &uri, &scale).await.refused(409, "Conflict");
        let patched = admin.patch("merge", &uri, &json!({"spec": {"replicas": 2}})).await.expect(200);
        assert_eq!(patched["spec"]["replicas"], 2);
        admin.patch("merge", &uri, &json!({"spec": {"replicas": -1}})).await.refused(422, "Invalid");
    }
}

#[tokio::test]
async fn a_body_in_protobuf_is_read() {
    let cluster = cluster().await;
    let field =
        |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let meta = field(1, b"fromgo");
    let entry = field(2, &[field(1, b"k"), field(2, b"v")].concat());
    let raw = [field(1, &meta), entry].concat();
    let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let body = [b"k8s\0".to_vec(), field(1, &kind), field(2, &raw)].concat();
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    let answer = cluster
        .admin()
        .ask("POST", "/api/v1/namespaces/default/configmaps", &headers, body)
        .await
        .expect(201);
    assert_eq!((&answer["metadata"]["name"], &answer["data"]["k"]), (&json!("fromgo"), &json!("v")));
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = apiserver::start(apiserver::Config::loopback(folder.path(), apiserver::Storage::Embedded))
        .await
        .unwrap();
    let path = "/api/v1/namespaces/default/configmaps";
    let created =
        Client::of(&first).send("POST", path, &crate::objects::config_map("a", "1")).await.expect(201);
    first.shutdown().await;
    let second = apiserver::start(apiserver::Config::loopback(folder.path(), apiserver::Storage::Embedded))
        .await
        .unwrap();
    let admin = Client::of(&second);
    assert_eq!(admin.get(&format!("{path}/a")).await.expect(200), created);
    let revision: u64 = created["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let list = admin.get(path).await.expect(200);
    let now: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(now >= revision);
    second.shutdown().await;
}
