//! Whatever comes in, a Status goes out that says what is wrong; nothing is lost, nothing answers 500.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::objects::{config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let json = "application/json";
    let deep = "[".repeat(100_000);
    let bomb = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(1000), "*a,".repeat(100_000));
    let cases: &[(&str, &str, u16, &str)] = &[
        (json, "", 400, "BadRequest"),
        (json, "{", 400, "BadRequest"),
        (json, "nonsense", 400, "BadRequest"),
        (json, "[]", 400, "BadRequest"),
        (json, "null", 400, "BadRequest"),
        (json, "\u{0}", 400, "BadRequest"),
        (json, &deep, 400, "BadRequest"),
        (
            json,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}} trailing"#,
            400,
            "BadRequest",
        ),
        (json, r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":1}}"#, 400, "BadRequest"),
        (json, r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":[]}"#, 400, "BadRequest"),
        (json, r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"a":1}}"#, 400, "BadRequest"),
        (json, r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, 400, "BadRequest"),
        (json, r#"{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}"#, 400, "BadRequest"),
        (
            json,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"other"}}"#,
            400,
            "BadRequest",
        ),
        (
            json,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"1"}}"#,
            400,
            "BadRequest",
        ),
        (
            json,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","creationTimestamp":"now"}}"#,
            400,
            "BadRequest",
        ),
        ("application/yaml", "a: [", 400, "BadRequest"),
        ("application/yaml", "\t- x", 400, "BadRequest"),
        ("application/yaml", "null: x", 400, "BadRequest"),
        ("application/yaml", "a: .inf", 400, "BadRequest"),
        ("application/yaml", "[a]: x", 400, "BadRequest"),
        ("application/yaml", &bomb, 400, "BadRequest"),
        ("application/vnd.kubernetes.protobuf", "k8s\0\u{12}\u{7f}", 400, "BadRequest"),
        ("application/vnd.kubernetes.protobuf", "{}", 400, "BadRequest"),
        ("application/cbor", "x", 415, "UnsupportedMediaType"),
        ("text/plain", "x", 415, "UnsupportedMediaType"),
    ];
    for (media, body, code, reason) in cases {
        let answer = admin.ask("POST", MAPS, &[("content-type", media)], (*body).to_owned()).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.code, *code, "{media} {shown:?}: {}", String::from_utf8_lossy(&answer.body));
        answer.refused(*code, reason);
    }
}

#[tokio::test]
async fn text_that_is_not_json_is_told_in_gos_words() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &crate::objects::config_map("a", "1")).await.expect(201);
    let (json, one) = ("application/json", format!("{MAPS}/a"));
    let (merge, strategic) = ("application/merge-patch+json", "application/strategic-merge-patch+json");
    let wrong = "invalid character '}' looking for beginning of object key string";
    let list = "json: cannot unmarshal array into Go value of type map[string]interface {}";
    for (method, path, media, body, said) in [
        ("POST", MAPS, json, r#"{"a":1,}"#, format!("couldn't get version/kind; json parse error: {wrong}")),
        ("POST", MAPS, json, r#"{"a":"#, "json parse error: unexpected end of JSON input".to_owned()),
        ("PATCH", &*one, merge, r#"{"a":1,}"#, format!("error decoding patch: {wrong}")),
        (
            "PATCH",
            &*one,
            "application/json-patch+json",
            r#"[{"op":1,}]"#,
            format!("error decoding patch: {wrong}"),
        ),
        ("PATCH", &*one, merge, "[]", format!("error decoding patch: {list}")),
        ("PATCH", &*one, strategic, "[]", list.to_owned()),
    ] {
        let answer = admin.ask(method, path, &[("content-type", media)], body.to_owned()).await;
        let message = answer.refused(400, "BadRequest")["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&said), "{media} {body}: {message}");
    }
}

#[tokio::test]
async fn objects_that_break_rules_name_the_field() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let pod_with = |path: &str, value: Value| {
        let mut pod = pod("a", json!({}));
        crate::bad_input::put(&mut pod, path, value);
        pod
    };
    let cases = [
        (PODS, pod_with("/metadata/name", json!("UPPER")), "metadata.name"),
        (PODS, pod_with("/metadata/name", json!("")), "metadata.name"),
        (PODS, pod_with("/metadata/name", json!("a".repeat(300))), "metadata.name"),
        (PODS, pod_with("/metadata/labels", json!({"-a": "b"})), "metadata.labels"),
        (PODS, pod_with("/metadata/labels", json!({"a": "b c"})), "metadata.labels"),
        (
            PODS,
            pod_with("/metadata/ownerReferences", json!([{"kind": "X"}])),
            "metadata.ownerReferences.apiVersion",
        ),
        (PODS, pod_with("/spec", json!({})), "spec.containers"),
        (PODS, pod_with("/spec/containers/0/image", json!("")), "spec.containers[0].image"),
        (PODS, pod_with("/spec/containers/0/name", json!("A_B")), "spec.containers[0].name"),
        (
            PODS,
            pod_with("/spec/containers/0/ports", json!([{"containerPort": 70000}])),
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            PODS,
            pod_with("/spec/containers/0/volumeMounts", json!([{"name": "x", "mountPath": "/x"}])),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (PODS, pod_with("/spec/volumes", json!([{"name": "v"}, {"name": "v"}])), "spec.volumes[1].name"),
        (PODS, pod_with("/spec/restartPolicy", json!("Sometimes")), "spec.restartPolicy"),
        (
            PODS,
            pod_with(
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            ),
            "spec.containers[0].resources.requests",
        ),
        (
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a/b": "1"}}),
            "data[a/b]",
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 0}]}}),
            "spec.ports[0].port",
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}),
            "spec.ports",
        ),
        (
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a.b"}}),
            "metadata.name",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "1"}}, "template": {"metadata": {"labels": {"a": "2"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            "spec.template.metadata.labels",
        ),
    ];
    for (path, object, field) in cases {
        let status = admin.send("POST", path, &object).await.refused(422, "Invalid");
        let fields: Vec<&str> = status["details"]["causes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cause| cause["field"].as_str().unwrap())
            .collect();
        assert!(fields.contains(&field), "{field}: {status}");
    }
}

/// Writes a value at a JSON pointer whose parent exists.
pub fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[name] = value;
}

#[tokio::test]
async fn paths_and_parameters_that_mean_nothing_are_refused() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let one = format!("{MAPS}/a");
    let cases = [
        ("GET", "/api/v2/pods".to_owned(), 404, "NotFound"),
        ("GET", "/api/v2".to_owned(), 404, "NotFound"),
        ("POST", "/api/v2".to_owned(), 404, "NotFound"),
        ("GET", "/api/v1/nothing".to_owned(), 404, "NotFound"),
        ("POST", "/apis/apps/v1/nothing".to_owned(), 404, "NotFound"),
        ("GET", "/apis/apps/v7".to_owned(), 404, "NotFound"),
        ("GET", "/version/more".to_owned(), 404, "NotFound"),
        ("GET", "/apis/apps/v1beta1/deployments".to_owned(), 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/nodes".to_owned(), 404, "NotFound"),
        ("GET", format!("{MAPS}/none"), 404, "NotFound"),
        ("GET", format!("{one}/status"), 404, "NotFound"),
        ("GET", format!("{one}/scale"), 404, "NotFound"),
        ("POST", one.clone(), 405, "MethodNotAllowed"),
        ("PUT", MAPS.to_owned(), 405, "MethodNotAllowed"),
        // What lives in namespaces has no place outside of them.
        ("GET", "/api/v1/configmaps/one".to_owned(), 404, "NotFound"),
        ("GET", "/api/v1/pods/one/status".to_owned(), 404, "NotFound"),
        ("PUT", "/api/v1/configmaps/one".to_owned(), 404, "NotFound"),
        ("DELETE", "/api/v1/configmaps".to_owned(), 405, "MethodNotAllowed"),
        ("POST", "/version".to_owned(), 405, "MethodNotAllowed"),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(), 405, "MethodNotAllowed"),
        ("GET", format!("{MAPS}?labelSelector=a%20b"), 400, "BadRequest"),
        ("GET", format!("{MAPS}?fieldSelector=spec.x=1"), 400, "BadRequest"),
        ("GET", format!("{MAPS}?limit=many"), 400, "BadRequest"),
        ("GET", format!("{MAPS}?continue=xyz"), 400, "BadRequest"),
        ("GET", format!("{MAPS}?resourceVersion=abc"), 400, "BadRequest"),
        ("GET", format!("{MAPS}?resourceVersionMatch=Exact"), 422, "Invalid"),
        ("GET", format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Perhaps"), 422, "Invalid"),
        ("GET", format!("{MAPS}?resourceVersion=99999999"), 504, "Timeout"),
        ("GET", format!("{MAPS}?watch=1&sendInitialEvents=true"), 422, "Invalid"),
        ("DELETE", format!("{one}?gracePeriodSeconds=x"), 400, "BadRequest"),
        ("DELETE", format!("{one}?propagationPolicy=Maybe"), 422, "Invalid"),
        ("DELETE", format!("{one}?dryRun=Some"), 422, "Invalid"),
    ];
    for (method, uri, code, reason) in cases {
        let answer = admin.ask(method, &uri, &[], "").await;
        assert_eq!(answer.code, code, "{method} {uri}: {}", String::from_utf8_lossy(&answer.body));
        answer.refused(code, reason);
    }
    for (method, uri) in [
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("HEAD", "/nothing"),
        ("GET", "/apis/none"),
        ("GET", "/apis/none/v1"),
        ("GET", "/apis/none/v1/things"),
        ("POST", "/apis/none/v1/namespaces/default/things"),
        ("GET", "/versions"),
        ("GET", "/healthz/nothing"),
    ] {
        let answer = admin.ask(method, uri, &[], "").await;
        if method == "HEAD" {
            assert_eq!(
                (answer.code, answer.headers["content-length"].to_str().unwrap()),
                (404, "19"),
                "{uri}"
            );
        } else {
            answer.no_page();
        }
    }
    let cbor = [("accept", "application/cbor"), ("content-type", "application/cbor")];
    admin.ask("GET", MAPS, &cbor, "").await.refused(406, "NotAcceptable");
    admin.ask("POST", MAPS, &cbor[1..], "\u{d9}\u{d9}").await.refused(415, "UnsupportedMediaType");
    admin.get(&one).await.expect(200);
}

/// The object with another value in one field.
fn with(object: &Value, field: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[field] = value;
    object
}

#[tokio::test]
async fn patches_that_cannot_be_applied_change_nothing() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let before = admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let one = format!("{MAPS}/a");
    let huge = Value::Array(vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); 10_001]);
    let cases = [
        ("json", json!({"op": "add"}), 400),
        ("json", json!([{"op": "remove", "path": "/data/none"}]), 422),
        ("json", json!([{"op": "test", "path": "/data/a", "value": "2"}]), 422),
        ("json", huge, 413),
        ("merge", json!([1]), 400),
        ("merge", json!({"data": {"a": 1}}), 422),
        ("merge", json!({"metadata": {"name": "b"}}), 400),
        ("merge", json!({"metadata": {"uid": "other"}}), 409),
        ("merge", json!({"metadata": {"resourceVersion": "1"}}), 409),
        ("merge", json!({"metadata": {"labels": {"-": "x"}}}), 422),
        ("strategic-merge", json!({"metadata": {"ownerReferences": [{"kind": "x"}]}}), 400),
        ("strategic-merge", json!({"data": {"$patch": "shuffle"}}), 400),
        ("apply", config_map("a", "2"), 422),
        ("merge?force=true", json!({"data": {}}), 422),
        ("apply?fieldManager=m", json!({"data": {}}), 400),
        ("apply?fieldManager=m", with(&config_map("a", "2"), "odd", json!(1)), 400),
        ("apply?fieldManager=m", with(&config_map("a", "2"), "metadata", json!({"managedFields": []})), 400),
        ("colour", json!({}), 415),
    ];
    for (kind, body, code) in cases {
        let (kind, query) = kind.split_once('?').unwrap_or((kind, ""));
        let answer = admin.patch(kind, &format!("{one}?{query}"), &body).await;
        assert_eq!(answer.code, code, "{kind}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json()["kind"], "Status");
    }
    assert_eq!(admin.get(&one).await.expect(200), before);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let cluster = cluster().await;
    let body = config_map("a", &"x".repeat(4 << 20)).to_string();
    let answer = cluster.admin().ask("POST", MAPS, &[("content-type", "application/json")], body).await;
    answer.refused(413, "RequestEntityTooLarge");
    let body = config_map("a", &"x".repeat(2 << 20)).to_string();
    let answer = cluster.admin().ask("POST", MAPS, &[("content-type", "application/json")], body).await;
    answer.refused(422, "Invalid");
}

/// A body that cannot even be looked at.
struct Panics;

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("as the test wants");
    }

    fn is_end_stream(&self) -> bool {
        panic!("as the test wants");
    }
}

#[tokio::test]
async fn a_panic_while_a_request_is_read_is_a_status_and_of_that_request_alone() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for uri in [MAPS, "/healthz"] {
        let reply = admin.call(Request::post(uri).body(Panics).unwrap()).await;
        assert_eq!(reply.status(), 500);
        let said = reply.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("InternalError")));
        admin.get(MAPS).await.expect(200);
    }
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_warned_about_or_refused() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let body = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"x":"1"},"data":{"x":"2"},"spec":{}}"#;
    let json = [("content-type", "application/json")];
    let answer = admin.ask("POST", &format!("{MAPS}?fieldValidation=Strict"), &json, body).await;
    let message = answer.refused(400, "BadRequest")["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("strict decoding error: duplicate field \"data\", unknown field \"spec\""),
        "{message}"
    );
    let answer = admin.ask("POST", &format!("{MAPS}?dryRun=All"), &json, body).await;
    let warnings: Vec<&str> = answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(warnings, [r#"299 - "duplicate field \"data\"""#, r#"299 - "unknown field \"spec\"""#]);
    let answer = admin.ask("POST", &format!("{MAPS}?fieldValidation=Ignore"), &json, body).await;
    assert!(!answer.headers.contains_key("warning"));
    assert_eq!(answer.expect(201)["data"]["x"], "2");
    admin.ask("POST", &format!("{MAPS}?fieldValidation=Perhaps"), &json, body).await.refused(422, "Invalid");
}

#[tokio::test]
async fn a_patch_that_makes_something_strange_is_invalid_itself() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let strict = format!("{MAPS}/a?fieldValidation=Strict");
    let json = r#"Invalid value: "{\"apiVersion\":\"v1\",\"data\":"#;
    let twice = r#"{"data":{"b":"1","b":"2"}}"#;
    for (kind, patch, shown, why) in [
        ("merge", r#"{"odd":{"b":1}}"#, json, r#"strict decoding error: unknown field "odd""#),
        (
            "json",
            r#"[{"op":"add","path":"/odd","value":1}]"#,
            json,
            r#"strict decoding error: unknown field "odd""#,
        ),
        (
            "strategic-merge",
            r#"{"odd":{"b":1},"data":{"c":"x"}}"#,
            r#"Invalid value: "map[data:map[c:x] odd:map[b:1]]""#,
            r#"strict decoding error: unknown field "odd""#,
        ),
        ("merge", twice, json, r#"strict decoding error: duplicate field "data.b""#),
        ("merge", r#"{"data":5}"#, json, "cannot unmarshal number 5 into field data"),
    ] {
        let media = [("content-type", &*format!("application/{kind}-patch+json"))];
        let said = admin.ask("PATCH", &strict, &media, patch).await.refused(422, "Invalid");
        let cause = &said["details"]["causes"][0];
        assert_eq!(
            (&cause["field"], &cause["reason"]),
            (&json!("patch"), &json!("FieldValueInvalid")),
            "{patch}"
        );
        let message = cause["message"].as_str().unwrap();
        assert!(message.starts_with(shown) && message.contains(why), "{kind}: {message}");
    }
    let media = [("content-type", "application/merge-patch+json")];
    let answer = admin.ask("PATCH", &format!("{MAPS}/a"), &media, twice).await;
    assert_eq!(answer.headers["warning"], r#"299 - "duplicate field \"data.b\"""#);
    assert_eq!(answer.expect(200)["data"]["b"], "2");
}

#[tokio::test]
async fn keys_that_are_in_yaml_more_than_once_are_refused_with_their_lines_or_the_last_counts() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    // What is behind the document is nobody's.
    let body = "\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: '1'\n  x: '2'\n  x: '3'\n---\n[";
    let said = "line 8: key \"x\" already set in map\n  line 9: key \"x\" already set in map";
    let one = format!("{MAPS}/a?fieldManager=m");
    for (method, path, media, words) in [
        (
            "POST",
            MAPS.to_owned() + "?",
            "application/yaml",
            "strict decoding error: yaml: unmarshal errors:\n  ",
        ),
        (
            "PATCH",
            one + "&",
            "application/apply-patch+yaml",
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  ",
        ),
    ] {
        let media = [("content-type", media)];
        let strict = admin.ask(method, &format!("{path}fieldValidation=Strict"), &media, body).await;
        let refused = strict.refused(400, "BadRequest");
        let message = refused["message"].as_str().unwrap();
        assert!(message.ends_with(&format!("{words}{said}")), "{message}");
        let answer = admin.ask(method, &path, &media, body).await;
        assert!(answer.code < 300 && !answer.headers.contains_key("warning"), "{method}: {}", answer.code);
    }
    assert_eq!(admin.get(&format!("{MAPS}/a")).await.expect(200)["data"]["x"], "3");
}
