//! Containers for debugging and new sizes: what may change of a pod that runs, and what stays.

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::objects::pod;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn messages(status: &Value) -> String {
    status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| format!("{}: {}\n", cause["field"], cause["message"]))
        .collect()
}

#[tokio::test]
async fn containers_for_debugging_are_added_and_stay() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    let uri = format!("{PODS}/p/ephemeralcontainers");
    assert_eq!(admin.get(&uri).await.expect(200)["kind"], "Pod");
    // As kubectl debug asks; what else it changes is left out.
    let debugger =
        json!({"name": "d", "image": "busybox", "targetContainerName": "c", "stdin": true, "tty": true});
    let patch = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"nodeName": "n9", "ephemeralContainers": [debugger]}});
    let changed = admin.patch("strategic-merge", &uri, &patch).await.expect(200);
    let added = &changed["spec"]["ephemeralContainers"][0];
    assert_eq!(
        (&added["imagePullPolicy"], &added["terminationMessagePolicy"]),
        (&json!("Always"), &json!("File"))
    );
    assert_eq!((&changed["spec"]["nodeName"], &changed["metadata"]["labels"]), (&Value::Null, &Value::Null));
    assert_eq!(changed["metadata"]["generation"], 2);

    // As client-go's UpdateEphemeralContainers asks, in protobuf.
    let mut whole = admin.in_protobuf().get(&format!("{PODS}/p")).await.expect(200);
    let second = json!({"name": "e", "image": "i:1", "command": ["sh"]});
    whole["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(second);
    let changed = admin.in_protobuf().send("PUT", &uri, &whole).await.expect(200);
    assert_eq!(changed["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    admin.send("PUT", &uri, &whole).await.refused(409, "Conflict");

    let image = json!([{"op": "replace", "path": "/spec/ephemeralContainers/0/image", "value": "other"}]);
    let told = messages(&admin.patch("json", &uri, &image).await.refused(422, "Invalid"));
    assert!(told.contains(r#"existing ephemeral containers \"d\" may not be changed"#), "{told}");
    let gone = json!([{"op": "remove", "path": "/spec/ephemeralContainers/1"}]);
    let told = messages(&admin.patch("json", &uri, &gone).await.refused(422, "Invalid"));
    assert!(told.contains(r#"existing ephemeral containers \"e\" may not be removed"#), "{told}");
    admin
        .patch("merge", &format!("{PODS}/p"), &json!({"spec": {"ephemeralContainers": null}}))
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn what_a_container_for_debugging_may_not_have_is_refused() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut early = pod("early", json!({}));
    early["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]);
    let told = messages(&admin.send("POST", PODS, &early).await.refused(422, "Invalid"));
    assert!(told.contains(r#""spec.ephemeralContainers": "Forbidden: cannot be set on create""#), "{told}");
    admin.send("POST", PODS, &pod("p", json!({}))).await.expect(201);
    let uri = format!("{PODS}/p/ephemeralcontainers");
    let cases = [
        (
            json!({"name": "d", "image": "i", "ports": [{"containerPort": 1}]}),
            "ports\": \"Forbidden: cannot be set",
        ),
        (
            json!({"name": "d", "image": "i", "resources": {"limits": {"cpu": "1"}}}),
            "resources\": \"Forbidden: cannot",
        ),
        (
            json!({"name": "d", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}}),
            "livenessProbe\": \"Forbidden",
        ),
        (json!({"name": "c", "image": "i"}), "ephemeralContainers[0].name\": \"Duplicate value"),
        (
            json!({"name": "d", "image": "i", "targetContainerName": "x"}),
            "targetContainerName\": \"Not found",
        ),
        (json!({"name": "d"}), "image\": \"Required value"),
        (
            json!({"name": "d", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            "name\": \"Not found",
        ),
    ];
    for (container, want) in cases {
        let patch = json!({"spec": {"ephemeralContainers": [container]}});
        let told = messages(&admin.patch("strategic-merge", &uri, &patch).await.refused(422, "Invalid"));
        assert!(told.contains(want), "{want}\n{told}");
    }
}

fn sized(cpu: &str, memory: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "other",
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": "1Gi"}}}]}})
}

#[tokio::test]
async fn a_resize_changes_sizes_and_nothing_else() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut object = pod("p", json!({}));
    object["spec"]["containers"][0]["resources"] =
        sized("100m", "64Mi")["spec"]["containers"][0]["resources"].clone();
    admin.send("POST", PODS, &object).await.expect(201);
    let uri = format!("{PODS}/p/resize");
    let changed = admin.patch("strategic-merge", &uri, &sized("200m", "64Mi")).await.expect(200);
    let container = &changed["spec"]["containers"][0];
    assert_eq!(
        (&container["resources"]["requests"]["cpu"], &container["image"]),
        (&json!("200m"), &json!("i:1"))
    );
    assert_eq!(changed["metadata"]["generation"], 2);
    admin
        .patch("strategic-merge", &format!("{PODS}/p"), &sized("300m", "64Mi"))
        .await
        .refused(422, "Invalid");

    let limit = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": null}}}]}});
    let told = messages(&admin.patch("strategic-merge", &uri, &limit).await.refused(422, "Invalid"));
    assert!(told.contains("resource limits cannot be removed"), "{told}");
    let disk = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "1Gi"}}}]}});
    let told = messages(&admin.patch("strategic-merge", &uri, &disk).await.refused(422, "Invalid"));
    assert!(told.contains("only cpu and memory resources are mutable"), "{told}");
    let guaranteed = json!({"spec": {"containers": [{"name": "c", "resources": {
        "requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}}]}});
    let told = messages(&admin.patch("strategic-merge", &uri, &guaranteed).await.refused(422, "Invalid"));
    assert!(told.contains("Pod QOS Class may not change as a result of resizing"), "{told}");
    admin.patch("strategic-merge", &uri, &sized("200m", "2Gi")).await.refused(422, "Invalid");

    // A node that resizes says what its containers have.
    let running = |resources: Value| {
        json!({"status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {}}, "resources": resources}]}})
    };
    admin.patch("merge", &format!("{PODS}/p/status"), &running(Value::Null)).await.expect(200);
    let told =
        messages(&admin.patch("strategic-merge", &uri, &sized("250m", "64Mi")).await.refused(422, "Invalid"));
    assert!(told.contains("Pod running on node without support for resize"), "{told}");
    admin.patch("merge", &format!("{PODS}/p/status"), &running(json!({}))).await.expect(200);
    admin.patch("strategic-merge", &uri, &sized("250m", "64Mi")).await.expect(200);
}
