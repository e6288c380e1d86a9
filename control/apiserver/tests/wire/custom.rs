//! Custom resources: the verbs of every kind, under schemas that change.

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::definitions::{CRONTABS, DEFINITIONS, crontab, crontabs, spec, version, with_crontabs};
use crate::watches::{Watch, seen};

const ONE: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs/one";

#[tokio::test]
async fn a_custom_object_is_created_read_changed_listed_and_deleted() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let made = admin
        .send("POST", CRONTABS, &crontab("one", json!({ "image": "a", "replicas": 2 })))
        .await
        .expect(201);
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(admin.get(ONE).await.expect(200), made);
    assert_eq!(admin.get(CRONTABS).await.expect(200)["items"], json!([made]));
    assert_eq!(admin.send("PUT", ONE, &made).await.expect(200), made, "a write that changes nothing is none");

    let merged = admin.patch("merge", ONE, &json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!((&merged["spec"]["replicas"], &merged["metadata"]["generation"]), (&json!(3), &json!(2)));
    admin.send("PUT", ONE, &made).await.refused(409, "Conflict");
    let mut unversioned = made.clone();
    unversioned["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    admin.send("PUT", ONE, &unversioned).await.refused(422, "Invalid");
    admin.patch("strategic-merge", ONE, &json!({ "spec": {} })).await.refused(415, "UnsupportedMediaType");
    let labelled =
        admin.patch("merge", ONE, &json!({ "metadata": { "labels": { "a": "b" } } })).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2, "labels are no change of what is wanted");
    let selected = admin.get(&format!("{CRONTABS}?labelSelector=a=b")).await.expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let gone = admin.delete(ONE).await.expect(200);
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    admin.get(ONE).await.refused(404, "NotFound");
}

#[tokio::test]
async fn an_object_that_breaks_its_schema_is_refused_in_upstreams_words() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let bad = crontab("one", json!({ "cronSpec": "* *", "image": 5, "replicas": 15 }));
    let status = admin.send("POST", CRONTABS, &bad).await.refused(422, "Invalid");
    let message = status["message"].as_str().unwrap();
    for part in [
        r#"CronTab.stable.example.com "one" is invalid: ["#,
        r##"spec.cronSpec: Invalid value: "* *": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"##,
        r#"spec.image: Invalid value: "integer": spec.image in body must be of type string: "integer""#,
        "spec.replicas: Invalid value: 15: spec.replicas in body should be less than or equal to 10",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
    admin.send("POST", CRONTABS, &crontab("one", json!({ "replicas": 2 }))).await.expect(201);
    admin.patch("merge", ONE, &json!({ "spec": { "replicas": 11 } })).await.refused(422, "Invalid");
}

#[tokio::test]
async fn numbers_that_are_not_whole_or_too_large_are_refused_in_upstreams_words() {
    let number = |format: &str| json!({ "type": "integer", "format": format });
    let fields = json!({ "plain": { "type": "integer", "maximum": 10 }, "small": number("int32"), "large": number("int64"),
        "when": { "type": "string", "format": "date-time" } });
    let (_cluster, admin) = with_crontabs(json!({ "type": "object", "properties": fields })).await;
    let checked = |format: &str, field: &str| {
        format!(r#"<nil>: Invalid value: "": Checked value must be of type integer {format} in spec.{field}"#)
    };
    let misfit = |field: &str, wanted: &str, given: &str| {
        format!(
            "spec.{field}: Invalid value: {given:?}: spec.{field} in body must be of type {wanted}: {given:?}"
        )
    };
    let (int32, int64) = ("with format int32", "with format int64");
    for (spec, want) in [
        (
            json!({ "plain": 11.5 }),
            vec![
                misfit("plain", "integer", "number"),
                checked("(default format)", "plain"),
                "spec.plain: Invalid value: 11.5: spec.plain in body should be less than or equal to 10"
                    .to_owned(),
            ],
        ),
        (json!({ "small": 1_u64 << 40 }), vec![checked(int32, "small")]),
        (json!({ "small": 1.5 }), vec![misfit("small", "int32", "float64"), checked(int32, "small")]),
        (json!({ "large": u64::MAX }), vec![misfit("large", "int64", "float64"), checked(int64, "large")]),
        (json!({ "large": 1e16 }), vec![misfit("large", "int64", "float64")]),
        (json!({ "when": 5 }), vec![misfit("when", "date-time", "int64")]),
    ] {
        let status = admin.send("POST", CRONTABS, &crontab("one", spec)).await.refused(422, "Invalid");
        let told = match want.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        assert_eq!(status["message"], format!(r#"CronTab.stable.example.com "one" is invalid: {told}"#));
    }
    let whole = json!({ "plain": 10.0, "small": -1, "large": i64::MAX });
    admin.send("POST", CRONTABS, &crontab("one", whole)).await.expect(201);
}

#[tokio::test]
async fn unknown_fields_are_pruned_and_told_as_the_client_asks() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let odd = crontab("one", json!({ "image": "a", "odd": 1, "more": { "x": 1 } }));
    let status = admin
        .send("POST", &format!("{CRONTABS}?fieldValidation=Strict"), &odd)
        .await
        .refused(400, "BadRequest");
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains(r#"strict decoding error: unknown field "spec.odd", unknown field "spec.more""#),
        "{message}"
    );
    let made = admin.send("POST", &format!("{CRONTABS}?fieldValidation=Warn"), &odd).await;
    let warnings: Vec<_> = made.headers.get_all("warning").iter().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(made.expect(201)["spec"], json!({ "image": "a" }));
    let twice = r#"{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"two"},"spec":{"image":"a","image":"b"}}"#;
    let json = [("content-type", "application/json")];
    let status = admin.ask("POST", &format!("{CRONTABS}?fieldValidation=Strict"), &json, twice).await;
    let message = status.refused(400, "BadRequest")["message"].to_string();
    assert!(message.contains(r#"duplicate field \"spec.image\""#), "{message}");
    let apply = json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "spec": { "odd": 1 } });
    let uri = format!("{ONE}?fieldManager=x&fieldValidation=Strict");
    admin.patch("apply", &uri, &apply).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn status_and_scale_are_apart_from_the_rest() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut one = version("v1", true, spec());
    one["subresources"] = json!({ "status": {}, "scale": { "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" } });
    admin.send("POST", DEFINITIONS, &crontabs(json!([one]))).await.expect(201);
    let mut object = crontab("one", json!({ "replicas": 2 }));
    object["status"] = json!({ "replicas": 9 });
    let made = admin.send("POST", CRONTABS, &object).await.expect(201);
    assert_eq!(made.get("status"), None, "a new object has no status");
    let status = json!({ "status": { "replicas": 2, "selector": "a=b" }, "spec": { "replicas": 7 },
                         "metadata": { "labels": { "x": "y" } } });
    let written = admin.patch("merge", &format!("{ONE}/status"), &status).await.expect(200);
    assert_eq!((&written["spec"]["replicas"], &written["status"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(written["metadata"]["generation"], 1);
    assert_eq!(written["metadata"].get("labels"), None);
    let other = admin.patch("merge", ONE, &json!({ "status": { "replicas": 5 } })).await.expect(200);
    assert_eq!(other["status"]["replicas"], 2);

    let scale = admin.get(&format!("{ONE}/scale")).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]), (&json!("Scale"), &json!({ "replicas": 2 })));
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "a=b" }));
    let scaled = admin
        .patch("merge", &format!("{ONE}/scale"), &json!({ "spec": { "replicas": 4 } }))
        .await
        .expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    let read = admin.get(ONE).await.expect(200);
    assert_eq!((&read["spec"]["replicas"], &read["metadata"]["generation"]), (&json!(4), &json!(2)));
    let refused = admin.patch("merge", &format!("{ONE}/scale"), &json!({ "spec": { "replicas": 40 } })).await;
    refused.refused(422, "Invalid");

    let uri = format!("{ONE}/scale");
    let said = admin.patch("strategic-merge", &uri, &json!({ "spec": { "replicas": 5 } })).await;
    let said = said.refused(415, "UnsupportedMediaType");
    assert!(!said["message"].as_str().unwrap().contains("strategic"), "{said}");
    let kindless = json!({ "metadata": { "name": "one" }, "spec": { "replicas": 5 } });
    assert_eq!(admin.send("PUT", &uri, &kindless).await.expect(200)["spec"]["replicas"], 5);
    admin.send("PUT", &uri, &crontab("one", json!({ "replicas": 6 }))).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn defaults_are_set_in_requests_and_on_what_was_stored_before_them() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    admin.send("POST", CRONTABS, &crontab("one", json!({ "image": "a", "replicas": 2 }))).await.expect(201);
    let mut changed = spec();
    changed["properties"]["image"] = json!({ "type": "string", "default": "b" });
    changed["properties"]["size"] = json!({ "type": "string", "default": "large" });
    changed["properties"].as_object_mut().unwrap().remove("replicas");
    let mut version = version("v1", true, changed);
    version["selectableFields"] = json!([{ "jsonPath": ".spec.size" }]);
    let patch = json!({ "spec": { "versions": [version] } });
    admin.patch("merge", &format!("{DEFINITIONS}/crontabs.stable.example.com"), &patch).await.expect(200);
    let want = json!({ "image": "a", "size": "large" });
    let read = admin.get(ONE).await.expect(200);
    assert_eq!(read["spec"], want, "what is stored gets new defaults, and loses what is no longer known");
    assert_eq!(admin.get(CRONTABS).await.expect(200)["items"], json!([read]));
    let large = format!("{CRONTABS}?fieldSelector=spec.size=large");
    assert_eq!(admin.get(&large).await.expect(200)["items"], json!([read]), "selectors see defaults");
    let mut watch = Watch::open(&admin, &format!("{CRONTABS}?watch=1"), "application/json").await;
    assert_eq!(watch.next().await.unwrap()["object"], read);
    let made = admin.send("POST", CRONTABS, &crontab("two", json!({ "image": null }))).await.expect(201);
    assert_eq!(made["spec"], json!({ "image": "b", "size": "large" }));
}

#[tokio::test]
async fn versions_show_the_same_objects_under_their_own_name() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut second = spec();
    second["properties"]["since"] = json!({ "type": "string", "default": "v2" });
    let mut old = version("v1", false, spec());
    old["deprecated"] = json!(true);
    let versions = json!([old, version("v2", true, second)]);
    admin.send("POST", DEFINITIONS, &crontabs(versions)).await.expect(201);
    let made = admin.send("POST", CRONTABS, &crontab("one", json!({ "image": "a" }))).await;
    let warning = made.headers["warning"].to_str().unwrap();
    assert!(warning.contains("stable.example.com/v1 CronTab is deprecated"), "{warning}");
    assert_eq!(made.expect(201)["apiVersion"], "stable.example.com/v1");
    let twos = CRONTABS.replace("/v1/", "/v2/");
    let two = admin.get(&format!("{twos}/one")).await.expect(200);
    assert_eq!(two["apiVersion"], "stable.example.com/v2");
    assert_eq!(two["spec"], json!({ "image": "a", "since": "v2" }));
    let list = admin.get(CRONTABS).await.expect(200);
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1");
    let mut changed = two;
    changed["spec"]["image"] = json!("b");
    admin.send("PUT", &format!("{twos}/one"), &changed).await.expect(200);
    let one = admin.get(ONE).await.expect(200);
    assert_eq!(
        (&one["apiVersion"], &one["spec"]),
        (&json!("stable.example.com/v1"), &json!({ "image": "b" }))
    );
    let wrong = crontab("three", json!({}));
    admin.send("POST", &twos, &wrong).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn tables_show_the_columns_of_the_definition() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut one = version("v1", true, spec());
    one["additionalPrinterColumns"] = json!([
        { "name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "when it runs" },
        { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1 },
        { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }]);
    admin.send("POST", DEFINITIONS, &crontabs(json!([one]))).await.expect(201);
    admin.send("POST", CRONTABS, &crontab("one", json!({ "replicas": 2 }))).await.expect(201);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", CRONTABS, &accept, "").await.expect(200);
    let names: Vec<&Value> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["Name", "Spec", "Replicas", "Age"]);
    assert_eq!(table["columnDefinitions"][1]["description"], "when it runs");
    let path = "Custom resource definition column (in JSONPath format): .spec.replicas";
    assert_eq!(table["columnDefinitions"][2]["description"], path);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("one"), Value::Null, json!(2)]);
    assert!(cells[3].as_str().unwrap().ends_with('s'), "{cells:?}");
}

#[tokio::test]
async fn objects_are_listed_and_watched_by_selectable_fields() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut fields = spec();
    fields["properties"]["hostNetwork"] = json!({ "type": "boolean" });
    let mut one = version("v1", true, fields);
    one["selectableFields"] =
        json!([".spec.image", ".spec.replicas", ".spec.hostNetwork"].map(|path| json!({ "jsonPath": path })));
    admin.send("POST", DEFINITIONS, &crontabs(json!([one]))).await.expect(201);
    for (name, image, replicas) in [("a", "x", 1), ("b", "x", 2), ("c", "y", 2)] {
        let object = crontab(name, json!({ "image": image, "replicas": replicas }));
        admin.send("POST", CRONTABS, &object).await.expect(201);
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    for (selector, want) in [
        ("spec.image=x", vec!["a", "b"]),
        ("spec.image=x,spec.replicas=2", vec!["b"]),
        ("spec.image!=x", vec!["c"]),
        ("spec.hostNetwork=", vec!["a", "b", "c"]),
    ] {
        let list = admin.get(&format!("{CRONTABS}?fieldSelector={selector}")).await.expect(200);
        assert_eq!(names(&list), want, "{selector}");
    }
    admin.get(&format!("{CRONTABS}?fieldSelector=spec.cronSpec=x")).await.refused(400, "BadRequest");
    let mut watch =
        Watch::open(&admin, &format!("{CRONTABS}?watch=1&fieldSelector=spec.image=y"), "application/json")
            .await;
    assert_eq!(seen(&watch.next().await.unwrap()), ("ADDED".to_owned(), "c".to_owned()));
    admin.patch("merge", &format!("{CRONTABS}/a"), &json!({ "spec": { "image": "y" } })).await.expect(200);
    assert_eq!(seen(&watch.next().await.unwrap()), ("ADDED".to_owned(), "a".to_owned()));
    admin.patch("merge", &format!("{CRONTABS}/c"), &json!({ "spec": { "image": "z" } })).await.expect(200);
    assert_eq!(seen(&watch.next().await.unwrap()), ("DELETED".to_owned(), "c".to_owned()));
}

#[tokio::test]
async fn a_watch_goes_on_across_a_change_of_the_schema_and_ends_with_its_version() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut watch = Watch::open(&admin, &format!("{CRONTABS}?watch=1"), "application/json").await;
    let mut changed = spec();
    changed["properties"]["size"] = json!({ "type": "string", "default": "large" });
    let both = json!({ "spec": { "versions": [version("v1", true, changed.clone()), version("v2", false, spec())] } });
    admin.patch("merge", &one, &both).await.expect(200);
    let twos = CRONTABS.replace("/v1/", "/v2/");
    let mut second = crontab("one", json!({}));
    second["apiVersion"] = json!("stable.example.com/v2");
    admin.send("POST", &twos, &second).await.expect(201);
    let event = watch.next().await.unwrap();
    assert_eq!(
        event["object"]["spec"],
        json!({ "size": "large" }),
        "events are told under the schema there is"
    );
    assert_eq!(event["object"]["apiVersion"], "stable.example.com/v1");

    let mut hidden = version("v1", true, changed);
    hidden["served"] = json!(false);
    let patch = json!({ "spec": { "versions": [hidden, version("v2", false, spec())] } });
    admin.patch("merge", &one, &patch).await.expect(200);
    assert_eq!(watch.next().await, None, "a watch ends with its version");
    admin.get(CRONTABS).await.no_page();
    assert_eq!(admin.get(&twos).await.code, 200);
}

#[tokio::test]
async fn appliers_share_custom_objects_by_the_schema() {
    let ports = json!({ "type": "object", "properties": { "ports": { "type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "port": { "type": "integer" } } } } } });
    let (_cluster, admin) = with_crontabs(ports).await;
    let apply = |ports: Value| crontab("one", json!({ "ports": ports }));
    let as_one = format!("{ONE}?fieldManager=one");
    admin.patch("apply", &as_one, &apply(json!([{ "name": "a", "port": 1 }]))).await.expect(201);
    let both = admin
        .patch("apply", &format!("{ONE}?fieldManager=two"), &apply(json!([{ "name": "b", "port": 2 }])))
        .await
        .expect(200);
    assert_eq!(both["spec"]["ports"], json!([{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }]));
    let clash = admin
        .patch("apply", &format!("{ONE}?fieldManager=two"), &apply(json!([{ "name": "a", "port": 9 }])))
        .await;
    let status = clash.refused(409, "Conflict");
    assert!(status["message"].as_str().unwrap().contains(r#".spec.ports[name="a"].port"#), "{status}");
    let left = admin.patch("apply", &as_one, &apply(json!([]))).await.expect(200);
    assert_eq!(left["spec"]["ports"], json!([{ "name": "b", "port": 2 }]));
}

#[tokio::test]
async fn a_namespace_is_not_let_go_while_it_holds_custom_objects() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a" } });
    admin.send("POST", "/api/v1/namespaces", &namespace).await.expect(201);
    let crontabs = CRONTABS.replace("/default/", "/a/");
    admin.send("POST", &crontabs, &crontab("one", json!({}))).await.expect(201);
    let mut leaving = admin.delete("/api/v1/namespaces/a").await.expect(200);
    leaving["spec"]["finalizers"] = json!([]);
    let finalize = "/api/v1/namespaces/a/finalize";
    let status = admin.send("PUT", finalize, &leaving).await.refused(409, "Conflict");
    assert!(
        status["message"].as_str().unwrap().contains("still holds 1 of crontabs.stable.example.com"),
        "{status}"
    );
    admin.send("POST", &crontabs, &crontab("two", json!({}))).await.refused(403, "Forbidden");
    admin.delete(&format!("{crontabs}/one")).await.expect(200);
    admin.send("PUT", finalize, &leaving).await.expect(200);
    admin.get("/api/v1/namespaces/a").await.refused(404, "NotFound");
}

#[tokio::test]
async fn definitions_and_their_objects_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = apiserver::start(apiserver::Config::loopback(folder.path(), apiserver::Storage::Embedded))
        .await
        .unwrap();
    let admin = Client::of(&first);
    let definition = crontabs(json!([version("v1", true, spec())]));
    admin.send("POST", DEFINITIONS, &definition).await.expect(201);
    let made = admin.send("POST", CRONTABS, &crontab("one", json!({ "image": "a" }))).await.expect(201);
    drop(admin);
    first.shutdown().await;
    let second = apiserver::start(apiserver::Config::loopback(folder.path(), apiserver::Storage::Embedded))
        .await
        .unwrap();
    let admin = Client::of(&second);
    assert_eq!(admin.get(ONE).await.expect(200), made);
    admin.send("POST", CRONTABS, &crontab("two", json!({ "replicas": 11 }))).await.refused(422, "Invalid");
    second.shutdown().await;
}

#[tokio::test]
async fn writers_follow_a_definition_that_changes_under_them() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let change = async {
        for number in 0..50 {
            let label = json!({ "metadata": { "labels": { "number": number.to_string() } } });
            admin.patch("merge", &one, &label).await.expect(200);
        }
    };
    let writer = |name: &'static str| {
        let admin = admin.clone();
        async move {
            for number in 0..50 {
                let object = crontab(&format!("{name}-{number}"), json!({}));
                admin.send("POST", CRONTABS, &object).await.expect(201);
            }
        }
    };
    tokio::join!(change, writer("a"), writer("b"));
    let list = admin.get(CRONTABS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn the_definition_of_cluster_network_policies_serves_them() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let yaml = [("content-type", "application/yaml")];
    let definition = include_str!("../../../../deploy/clusternetworkpolicies.yaml");
    admin.ask("POST", DEFINITIONS, &yaml, definition).await.expect(201);
    let path = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
    let policy = |priority: u32, from: Value| {
        json!({ "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": { "name": "one" },
            "spec": { "tier": "Admin", "priority": priority, "subject": { "namespaces": {} },
                "ingress": [{ "action": "Deny", "from": [from] }] } })
    };
    let both = json!({ "namespaces": {}, "pods": { "namespaceSelector": {}, "podSelector": {} } });
    let status = admin.send("POST", path, &policy(5000, both)).await.refused(422, "Invalid");
    let causes = status["details"]["causes"].as_array().unwrap();
    let mut fields: Vec<&str> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["spec.ingress[0].from[0]", "spec.priority"]);
    admin.send("POST", path, &policy(10, json!({ "namespaces": {} }))).await.expect(201);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", path, &accept, "").await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("one"), json!("Admin"), json!("10")]
    );
}

#[tokio::test]
async fn custom_kinds_that_are_called_like_built_in_ones_have_none_of_their_rules() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    for (plural, kind) in [
        ("services", "Service"),
        ("pods", "Pod"),
        ("roles", "Role"),
        ("namespaces", "Namespace"),
        ("bindings", "Binding"),
        ("persistentvolumeclaims", "PersistentVolumeClaim"),
    ] {
        let mut definition = crontabs(json!([version("v1", true, open.clone())]));
        definition["metadata"]["name"] = json!(format!("{plural}.serving.example.com"));
        definition["spec"]["group"] = json!("serving.example.com");
        definition["spec"]["names"] = json!({ "plural": plural, "kind": kind });
        admin.send("POST", DEFINITIONS, &definition).await.expect(201);
        let path = format!("/apis/serving.example.com/v1/namespaces/default/{plural}");
        let spec = json!({ "ports": [{ "port": 80 }], "finalizers": ["x"], "nodeName": "n" });
        let object = json!({ "apiVersion": "serving.example.com/v1", "kind": kind,
            "metadata": { "name": "default", "finalizers": ["example.com/hold"] }, "spec": spec });
        let made = admin.send("POST", &path, &object).await.expect(201);
        assert_eq!(made["spec"], spec, "{plural}");
        let one = format!("{path}/default");
        let marked = admin.delete(&one).await.expect(200);
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0, "{plural}");
        assert_eq!(marked.get("status"), None, "{plural}");
        admin.patch("merge", &one, &json!({ "metadata": { "finalizers": null } })).await.expect(200);
        admin.get(&one).await.refused(404, "NotFound");
    }
}

#[tokio::test]
async fn lists_say_that_there_is_no_more_and_updates_need_a_version() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let mut made = admin.send("POST", CRONTABS, &crontab("one", json!({ "replicas": 2 }))).await.expect(201);
    assert_eq!(admin.get(CRONTABS).await.expect(200)["metadata"]["continue"], "");
    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let refused = admin.send("PUT", ONE, &made).await.refused(422, "Invalid");
    assert_eq!(refused["details"]["kind"], "crontabs");
}

#[tokio::test]
async fn what_no_definition_says_is_not_there() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    admin.send("POST", CRONTABS, &crontab("one", json!({}))).await.expect(201);
    for uri in [
        "/apis/stable.example.com/v9",
        "/apis/stable.example.com/v9/crontabs",
        "/apis/stable.example.com/v1/nothing",
    ] {
        admin.get(uri).await.no_page();
    }
    // Only lists and watches are of all namespaces.
    let everywhere = "/apis/stable.example.com/v1/crontabs";
    admin.get(everywhere).await.expect(200);
    admin.send("POST", everywhere, &crontab("two", json!({}))).await.no_page();
    admin.delete(everywhere).await.no_page();
    let refused = admin.get(&format!("{CRONTABS}/one/nothing")).await.refused(404, "NotFound");
    assert_eq!(refused["message"], "crontabs.stable.example.com \"one\" not found");
}
