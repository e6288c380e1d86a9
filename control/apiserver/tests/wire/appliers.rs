//! Server-side apply of what has the wrong type, and of nulls; as Kubernetes' own field manager takes them.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};

const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/a";

/// A ConfigMap with these fields.
fn map(fields: Value) -> Value {
    let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    fields.as_object().unwrap().iter().for_each(|(name, value)| map[name] = value.clone());
    map
}

/// A Deployment with this spec.
fn deployment(spec: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" }, "spec": spec })
}

async fn apply(admin: &Client, uri: &str, manager: &str, object: &Value) -> (u16, Value) {
    let answer = admin.patch("apply", &format!("{uri}?fieldManager={manager}"), object).await;
    (answer.code, serde_json::from_slice(&answer.body).unwrap())
}

/// What a manager has applied.
fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut of = entries.filter(|entry| entry["manager"] == manager);
    of.next().map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[tokio::test]
async fn what_has_the_wrong_type_is_named_and_changes_nothing() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let before = apply(&admin, MAP, "m", &map(json!({ "data": { "a": "1" } }))).await.1;
    let mut placed = map(json!({ "data": { "a": 1 } }));
    placed["metadata"]["namespace"] = json!("default");
    let string = ".data.a: expected string, got &value.valueUnstructured{Value:1}";
    for (object, said) in [
        (placed, format!("(default/a; /v1, Kind=ConfigMap): {string}")),
        (map(json!({ "data": { "a": 1 }, "immutable": 1 })), {
            format!(
                "(/a; /v1, Kind=ConfigMap): errors:\n  {string}\n  .immutable: expected boolean, got &{{1}}"
            )
        }),
        (
            map(json!({ "metadata": "a" })),
            "(/; /v1, Kind=ConfigMap): .metadata: expected map, got &{a}".to_owned(),
        ),
    ] {
        let (code, status) = apply(&admin, MAP, "m", &object).await;
        assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")), "{object}");
        assert_eq!(status["message"], format!("failed to create typed patch object {said}"));
    }
    assert_eq!(admin.get(MAP).await.expect(200), before);
    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "spec": { "replicas": "3" } });
    let (code, status) = apply(&admin, &format!("{DEPLOYMENT}/scale"), "m", &scale).await;
    let said = "failed to create typed patch object (/; autoscaling/v1, Kind=Scale): .spec.replicas: expected numeric \
                (int or float), got string";
    assert_eq!((code, &status["message"]), (400, &json!(said)));
    let other = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } });
    let status = apply(&admin, MAP, "m", &other).await.1;
    assert_eq!(status["message"], "invalid object type: /v1, Kind=Secret");
}

#[tokio::test]
async fn a_null_is_owned_and_what_it_stands_for_is_the_zero_of_its_type() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for (fields, data, own) in [
        (json!({ "data": { "a": null, "b": "x" } }), json!({ "a": "", "b": "x" }), {
            json!({ "f:data": { "f:a": {}, "f:b": {} } })
        }),
        (json!({ "data": null }), json!(null), json!({ "f:data": {} })),
        (json!({ "data": null, "immutable": null }), json!(null), json!({ "f:data": {}, "f:immutable": {} })),
        (json!({}), json!(null), json!(null)),
    ] {
        let (code, object) = apply(&admin, MAP, "m", &map(fields.clone())).await;
        assert!(code < 300, "{object}");
        assert_eq!((&object["data"], owned(&object, "m")), (&data, own), "{fields}");
        assert_eq!(object.get("immutable"), None);
    }
}

#[tokio::test]
async fn a_null_takes_what_others_own_as_a_whole_and_leaves_what_they_own_in_parts() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let container =
        json!({ "name": "c", "image": "i:1", "command": ["a"], "resources": { "limits": { "cpu": "1" } } });
    let whole = deployment(json!({ "replicas": 3, "selector": { "matchLabels": { "a": "b" } }, "template": {
        "metadata": { "labels": { "a": "b" } }, "spec": { "nodeSelector": { "a": "b" }, "containers": [container] } } }));
    let before = apply(&admin, DEPLOYMENT, "n", &whole).await.1;
    let pod = |spec: Value| json!({ "template": { "spec": spec } });
    let path = ".spec.template.spec";
    for (spec, said) in [
        (json!({ "replicas": null }), "1 conflict: conflict with \"n\": .spec.replicas".to_owned()),
        (json!({ "selector": null }), "1 conflict: conflict with \"n\": .spec.selector".to_owned()),
        (pod(json!({ "containers": null, "nodeSelector": null })), {
            format!("1 conflict: conflict with \"n\": {path}.nodeSelector")
        }),
        (
            pod(
                json!({ "containers": [{ "name": "c", "image": null, "command": null, "resources": null }] }),
            ),
            {
                format!(
                    "2 conflicts: conflicts with \"n\":\n- {path}.containers[name=\"c\"].command\n- \
                     {path}.containers[name=\"c\"].image"
                )
            },
        ),
        (pod(json!({ "containers": [{ "name": "c", "resources": { "limits": { "cpu": null } } }] })), {
            format!("1 conflict: conflict with \"n\": {path}.containers[name=\"c\"].resources.limits.cpu")
        }),
    ] {
        let (code, status) = apply(&admin, DEPLOYMENT, "m", &deployment(spec.clone())).await;
        assert_eq!((code, &status["message"]), (409, &json!(format!("Apply failed with {said}"))), "{spec}");
    }
    for (spec, own) in [
        (json!({ "template": null }), json!({ "f:spec": { "f:template": {} } })),
        (pod(json!({ "containers": null })), {
            json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": {} } } } })
        }),
        (json!(null), json!({ "f:spec": {} })),
    ] {
        let (code, object) = apply(&admin, DEPLOYMENT, "m", &deployment(spec.clone())).await;
        assert_eq!((code, &object["spec"]), (200, &before["spec"]), "{spec}");
        assert_eq!(owned(&object, "m"), own, "{spec}");
        assert_eq!(owned(&object, "n"), owned(&before, "n"), "{spec}");
    }
}

#[tokio::test]
async fn an_empty_map_stays_its_owners_when_others_take_back_what_was_in_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    apply(&admin, MAP, "one", &map(json!({ "data": { "a": "1" } }))).await;
    let both = apply(&admin, MAP, "two", &map(json!({ "data": {} }))).await.1;
    assert_eq!(owned(&both, "two"), json!({ "f:data": {} }));
    let (code, left) = apply(&admin, MAP, "one", &map(json!({}))).await;
    assert_eq!((code, left.get("data"), owned(&left, "one")), (200, None, Value::Null));
    assert_eq!(owned(&left, "two"), json!({ "f:data": {} }));
    let (code, status) = apply(&admin, MAP, "one", &map(json!({ "data": { "a": "1" } }))).await;
    let said = "Apply failed with 1 conflict: conflict with \"two\": .data";
    assert_eq!((code, &status["message"]), (409, &json!(said)));
    // Whoever edits takes it away.
    let edited = admin.patch("merge", MAP, &json!({ "data": { "a": "1" } })).await.expect(200);
    assert_eq!(owned(&edited, "two"), Value::Null);
    apply(&admin, MAP, "two", &map(json!({ "data": {} }))).await;
    let uri = format!("{MAP}?fieldManager=editor");
    let edited = admin.patch("merge", &uri, &json!({ "data": null })).await.expect(200);
    assert_eq!(owned(&edited, "two"), Value::Null);

    let limits = |limits: Value| {
        let container = json!({ "name": "c", "image": "i:1", "resources": { "limits": limits } });
        deployment(json!({ "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [container] } } }))
    };
    apply(&admin, DEPLOYMENT, "one", &limits(json!({ "cpu": "1" }))).await;
    let both = apply(&admin, DEPLOYMENT, "two", &limits(json!({}))).await.1;
    let left = apply(&admin, DEPLOYMENT, "one", &deployment(json!({}))).await.1;
    assert_eq!(owned(&left, "two"), owned(&both, "two"));
    let of_limits = owned(&left, "two").to_string();
    assert!(of_limits.contains("\"f:resources\":{\"f:limits\":{}}"), "{of_limits}");
}
