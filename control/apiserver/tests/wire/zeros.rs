//! What nobody has said, what is zero, and what was stored when there were other defaults: all the same to who writes.

use apiserver::{Config, Storage, start};
use serde_json::{Value, json};
use store::{Options, Store, Txn};

use crate::cluster::{Client, cluster};
use crate::objects::pod;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A template as people write it.
fn template() -> Value {
    json!({ "metadata": { "labels": { "app": "a" }, "generateName": "" }, "spec": {
        "hostNetwork": false, "hostPID": false, "nodeName": "",
        "containers": [{ "name": "c", "image": "i:1", "tty": false, "env": [{ "name": "A", "value": "" }],
            "livenessProbe": { "initialDelaySeconds": 0, "periodSeconds": 0, "grpc": { "port": 80 } } }],
    } })
}

fn deployment() -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": {
        "replicas": 0, "paused": false, "minReadySeconds": 0, "template": template(),
        "selector": { "matchLabels": { "app": "a" } } } })
}

#[tokio::test]
async fn zeros_that_go_leaves_out_are_left_out() {
    let cluster = cluster().await;
    let made = cluster.admin().send("POST", DEPLOYMENTS, &deployment()).await.expect(201);
    let spec = &made["spec"]["template"]["spec"];
    assert_eq!((made["spec"].get("paused"), &made["spec"]["replicas"]), (None, &json!(0)));
    assert_eq!((spec.get("hostNetwork"), spec.get("nodeName")), (None, None));
    let container = &spec["containers"][0];
    assert_eq!((&container["env"], container.get("tty")), (&json!([{ "name": "A" }]), None));
    let probe = &container["livenessProbe"];
    assert_eq!((probe.get("initialDelaySeconds"), &probe["periodSeconds"]), (None, &json!(10)));
    // A pointer with a default says it.
    assert_eq!(probe["grpc"], json!({ "port": 80, "service": "" }));
}

#[tokio::test]
async fn what_a_go_program_gives_back_changes_nothing() {
    let cluster = cluster().await;
    let (admin, typed) = (cluster.admin(), cluster.admin().in_protobuf());
    let mut object = pod("p", json!({}));
    let labels = object["metadata"]["labels"].clone();
    object["spec"] = template()["spec"].clone();
    object["metadata"]["labels"] = labels;
    for (collection, object, name) in [(PODS, object, "p"), (DEPLOYMENTS, deployment(), "web")] {
        let made = admin.send("POST", collection, &object).await.expect(201);
        let one = format!("{collection}/{name}");
        let read = typed.get(&one).await.expect(200);
        let again = typed.send("PUT", &one, &read).await.expect(200);
        assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "{one}");
    }
}

#[tokio::test]
async fn a_status_that_leaves_out_what_has_a_default_has_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "x" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let volume = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "x" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/a" } } });
    let plain = |kind: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": "x" } });
    for (collection, object, status, want) in [
        ("/api/v1/namespaces", plain("Namespace"), json!({}), json!({ "phase": "Active" })),
        ("/api/v1/persistentvolumes", volume, json!({ "phase": "" }), json!({ "phase": "Pending" })),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            claim,
            json!({}),
            json!({ "phase": "Pending" }),
        ),
        (
            "/api/v1/nodes",
            plain("Node"),
            json!({ "capacity": { "cpu": "1" } }),
            json!({ "capacity": { "cpu": "1" }, "allocatable": { "cpu": "1" } }),
        ),
    ] {
        let mut made = admin.send("POST", collection, &object).await.expect(201);
        made["status"] = status;
        let written = admin.send("PUT", &format!("{collection}/x/status"), &made).await.expect(200);
        for (field, value) in want.as_object().unwrap() {
            assert_eq!(&written["status"][field], value, "{collection}");
        }
    }
}

#[tokio::test]
async fn a_zero_that_was_applied_is_owned() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let uri = |who: &str| format!("{DEPLOYMENTS}/web?fieldManager={who}");
    let made = admin.patch("apply", &uri("a"), &deployment()).await.expect(201);
    let again = admin.patch("apply", &uri("a"), &deployment()).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let paused = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "paused": true } });
    let said = admin.patch("apply", &uri("b"), &paused).await.refused(409, "Conflict");
    assert_eq!(said["details"]["causes"][0]["field"], ".spec.paused");
}

#[tokio::test]
async fn a_scale_of_nothing_says_nothing() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", DEPLOYMENTS, &deployment()).await.expect(201);
    let uri = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = admin.get(&uri).await.expect(200);
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({}), &json!({ "replicas": 0, "selector": "app=a" }))
    );
    for replicas in [3, 0] {
        scale["spec"] = json!({ "replicas": replicas });
        scale["metadata"]["resourceVersion"] = json!("");
        admin.send("PUT", &uri, &scale).await.expect(200);
        assert_eq!(admin.get(&format!("{DEPLOYMENTS}/web")).await.expect(200)["spec"]["replicas"], replicas);
    }
}

#[tokio::test]
async fn what_was_stored_without_a_default_has_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::loopback(folder.path(), Storage::Embedded);
    let first = start(config()).await.unwrap();
    let made = Client::of(&first).send("POST", DEPLOYMENTS, &deployment()).await.expect(201);
    first.shutdown().await;
    forget(folder.path(), "/registry/deployments/default/web", "terminationGracePeriodSeconds").await;
    let second = start(config()).await.unwrap();
    let admin = Client::of(&second);
    let one = format!("{DEPLOYMENTS}/web");
    let written = admin.send("PUT", &one, &deployment()).await.expect(200);
    assert_eq!(written["metadata"]["generation"], 1);
    assert_eq!(written["spec"], made["spec"]);
    // That was worth a write, for readers; the next is not.
    assert_eq!(admin.get(&one).await.expect(200)["spec"], made["spec"]);
    let again = admin.send("PUT", &one, &deployment()).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    second.shutdown().await;
}

/// Takes a field out of the template of a stored Deployment, as a server had written it that did not know the default.
async fn forget(folder: &std::path::Path, key: &str, field: &str) {
    let path = folder.join("store.redb");
    let store: Store<()> = Store::open(&path, Options::default(), |_, _| ()).unwrap();
    let entry = store.get(key).unwrap();
    let mut object: Value = serde_json::from_slice(&entry.value.bytes()).unwrap();
    object["spec"]["template"]["spec"].as_object_mut().unwrap().shift_remove(field).unwrap();
    store.txn(Txn::update(key, entry.mod_revision, object.to_string().into())).await.unwrap();
}
