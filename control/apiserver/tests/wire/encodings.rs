//! What clients in protobuf are told beside objects: events, refusals, reviews, subresources, discovery.

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::definitions::{CRONTABS, crontab, spec, with_crontabs};
use crate::objects::{config_map, pod};
use crate::protobuf;
use crate::watches::{Watch, seen};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const PARTIAL: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

#[tokio::test]
async fn events_come_in_frames() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    let uri = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = Watch::open(&admin, &uri, protobuf::MEDIA).await;
    let bookmark = watch.next().await.unwrap();
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let created = admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    assert_eq!(watch.next().await.unwrap(), json!({"type": "ADDED", "object": created}));
    let changed = admin.patch("merge", &format!("{MAPS}/a"), &json!({"data": {"a": "2"}})).await.expect(200);
    assert_eq!(watch.next().await.unwrap(), json!({"type": "MODIFIED", "object": changed}));
    let mut partial =
        Watch::open(&admin, &format!("{MAPS}?watch=1&fieldSelector=metadata.name=a"), PARTIAL).await;
    let first = partial.next().await.unwrap();
    assert_eq!(
        (&first["object"]["kind"], &first["object"]["data"]),
        (&json!("PartialObjectMetadata"), &Value::Null)
    );
    assert_eq!(first["object"]["metadata"], changed["metadata"]);
    admin.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(seen(&watch.next().await.unwrap()), ("DELETED".to_owned(), "a".to_owned()));
}

#[tokio::test]
async fn a_refusal_is_a_status_in_the_form_that_is_accepted() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    let missing = admin.get(&format!("{MAPS}/none")).await;
    assert_eq!(missing.headers["content-type"], protobuf::MEDIA);
    assert_eq!(missing.refused(404, "NotFound")["details"], json!({"name": "none", "kind": "configmaps"}));
    let nobody = cluster.user("bob", &[]).in_protobuf().get(MAPS).await;
    assert_eq!(nobody.headers["content-type"], protobuf::MEDIA);
    nobody.refused(403, "Forbidden");
    let mut wrong = pod("Wrong", json!({}));
    wrong["spec"]["restartPolicy"] = json!("Sometimes");
    let causes = admin.send("POST", PODS, &wrong).await.refused(422, "Invalid")["details"]["causes"].clone();
    assert_eq!(causes[0]["field"], "metadata.name");
    let table = format!("{};as=Table;g=meta.k8s.io;v=v1", protobuf::MEDIA);
    admin.ask("GET", MAPS, &[("accept", &table)], "").await.refused(406, "NotAcceptable");
    let or_json = format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(admin.ask("GET", MAPS, &[("accept", &or_json)], "").await.expect(200)["kind"], "Table");
    admin
        .ask("POST", MAPS, &[("content-type", protobuf::MEDIA)], "k8s\0\x12\x7f")
        .await
        .refused(400, "BadRequest");
}

#[tokio::test]
async fn of_custom_resources_only_the_metadata_has_this_form() {
    let (_cluster, admin) = with_crontabs(spec()).await;
    let made = admin.send("POST", CRONTABS, &crontab("one", json!({"replicas": 2}))).await.expect(201);
    let admin = admin.in_protobuf();
    let one = format!("{CRONTABS}/one");
    let answer = admin.get(&one).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.expect(200), made);
    admin.ask("GET", &one, &[("accept", protobuf::MEDIA)], "").await.refused(406, "NotAcceptable");
    admin.ask("GET", CRONTABS, &[("accept", protobuf::MEDIA)], "").await.refused(406, "NotAcceptable");
    let watch = format!("{CRONTABS}?watch=1");
    admin.ask("GET", &watch, &[("accept", protobuf::MEDIA)], "").await.refused(406, "NotAcceptable");
    let partial = admin.ask("GET", &one, &[("accept", PARTIAL)], "").await;
    assert_eq!(partial.headers["content-type"], protobuf::MEDIA);
    assert_eq!(partial.expect(200)["metadata"], made["metadata"]);
    let mut watch = Watch::open(&admin, &watch, PARTIAL).await;
    assert_eq!(watch.next().await.unwrap()["object"]["metadata"], made["metadata"]);
}

#[tokio::test]
async fn what_lies_below_objects_is_exchanged_in_this_form() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    admin.send("POST", PODS, &pod("p", json!({"app": "a"}))).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let done = admin.send("POST", &format!("{PODS}/p/binding"), &binding).await;
    assert_eq!(done.headers["content-type"], protobuf::MEDIA);
    assert_eq!(done.expect(201)["status"], "Success");
    let mut bound = admin.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    bound["status"]["podIP"] = json!("10.0.0.1");
    let shown = admin.send("PUT", &format!("{PODS}/p/status"), &bound).await.expect(200);
    assert_eq!(shown["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
        "deleteOptions": {"gracePeriodSeconds": 0}});
    admin.send("POST", &format!("{PODS}/p/eviction"), &eviction).await.expect(201);
    admin.get(&format!("{PODS}/p")).await.refused(404, "NotFound");

    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["x"], "expirationSeconds": 600}});
    let token =
        admin.send("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", &request).await;
    let token = token.expect(201);
    assert!(token["status"]["token"].as_str().is_some_and(|text| text.len() > 100), "{token}");
    assert_eq!(token["spec"]["audiences"], json!(["x"]));
}

#[tokio::test]
async fn reviews_are_answered_in_this_form() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "bob", "groups": ["system:masters"], "extra": {"scopes": ["a", "b"]},
            "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = admin.send("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await;
    let answer = answer.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(answer["spec"]["extra"]["scopes"], json!(["a", "b"]));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = admin.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
    assert_eq!(answer.expect(201)["status"]["userInfo"]["username"], "admin");
}

#[tokio::test]
async fn a_scale_is_the_same_in_this_form() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    admin.send("POST", sets, &set).await.expect(201);
    let uri = format!("{sets}/r/scale");
    let mut scale = admin.get(&uri).await.expect(200);
    assert_eq!(scale, admin.in_json().get(&uri).await.expect(200));
    scale["spec"]["replicas"] = json!(4);
    assert_eq!(admin.send("PUT", &uri, &scale).await.expect(200)["spec"]["replicas"], 4);
}

#[tokio::test]
async fn discovery_says_the_same_in_this_form() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for uri in ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"] {
        let packed = admin.in_protobuf().get(uri).await;
        assert_eq!(packed.headers["content-type"], protobuf::MEDIA, "{uri}");
        let (packed, mut plain) = (packed.expect(200), admin.get(uri).await.expect(200));
        let mut fields = plain.as_object_mut().unwrap().clone();
        fields.retain(|_, value| *value != json!([]));
        assert_eq!(packed["kind"], fields["kind"], "{uri}");
        for (name, value) in fields.iter().filter(|(name, _)| *name != "resources") {
            assert_eq!(&packed[name], value, "{uri} {name}");
        }
        let names = |document: &Value| -> Vec<Value> {
            let all = document["resources"].as_array().cloned().unwrap_or_default();
            all.iter().map(|one| json!([one["name"], one["kind"], one["verbs"], one["namespaced"]])).collect()
        };
        assert_eq!(names(&packed), names(&plain), "{uri}");
    }
    let accept = format!("{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", protobuf::MEDIA);
    let all = admin.ask("GET", "/apis", &[("accept", &accept)], "").await;
    assert_eq!(all.headers["content-type"], accept);
    assert!(
        all.body.starts_with(b"k8s\0\x0a\x2f\x0a\x16apidiscovery.k8s.io/v2\x12\x15APIGroupDiscoveryList")
    );
}

#[tokio::test]
async fn a_long_list_is_in_one_message_also_when_it_is_packed() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    for number in 0..20 {
        let map = config_map(&format!("m{number:02}"), &"x".repeat(20_000));
        admin.send("POST", MAPS, &map).await.expect(201);
    }
    let list = admin.get(&format!("{MAPS}?limit=19")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 19);
    assert_eq!(list["items"][18]["data"]["a"].as_str().unwrap().len(), 20_000);
    assert_eq!(list["metadata"]["remainingItemCount"], 1);
    let packed = admin.ask("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut plain).unwrap();
    assert_eq!(protobuf::decode(&plain)["items"].as_array().unwrap().len(), 20);
}

/// Longer than what is made at once, in forms that are made object by object.
#[tokio::test]
async fn a_long_list_says_the_same_in_every_form() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for number in 0..150 {
        let mut map = config_map(&format!("m{number}"), "x");
        map["metadata"]["annotations"] = json!({ "a": "\"}".repeat(1_000) });
        admin.send("POST", MAPS, &map).await.expect(201);
    }
    let list = admin.get(MAPS).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 150);
    let partial = |item: &Value| json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"] });
    let accept = |form: &str| format!("application/json;as={form};v=v1;g=meta.k8s.io");
    let (reduced, table) = (accept("PartialObjectMetadataList"), accept("Table"));
    let answer = admin.ask("GET", MAPS, &[("accept", &reduced)], "").await.expect(200);
    let found = answer["items"].as_array().unwrap();
    assert!(found.iter().eq(&items.iter().map(partial).collect::<Vec<Value>>()), "metadata");
    assert_eq!(answer["metadata"], list["metadata"]);
    for (include, object) in [("Metadata", &partial as &dyn Fn(&Value) -> Value), ("None", &|_| Value::Null)]
    {
        let path = format!("{MAPS}?includeObject={include}");
        let packed = admin.ask("GET", &path, &[("accept", &table), ("accept-encoding", "gzip")], "").await;
        let is_packed = packed.headers.get("content-encoding").is_some();
        assert_eq!(is_packed, include == "Metadata", "what is short is not packed");
        let answer: Value = if is_packed {
            serde_json::from_reader(flate2::read::GzDecoder::new(&packed.body[..])).unwrap()
        } else {
            packed.expect(200)
        };
        let rows = answer["rows"].as_array().unwrap();
        assert!(
            rows.iter().map(|row| &row["cells"][0]).eq(items.iter().map(|item| &item["metadata"]["name"]))
        );
        assert!(rows.iter().map(|row| row["object"].clone()).eq(items.iter().map(object)), "{include}");
    }
}

#[tokio::test]
async fn what_is_said_to_be_zero_or_false_stays_so() {
    let cluster = cluster().await;
    let admin = cluster.admin().in_protobuf();
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "d.io"},
        "spec": {"attachRequired": false, "podInfoOnMount": true}});
    let made = admin.send("POST", "/apis/storage.k8s.io/v1/csidrivers", &driver).await.expect(201);
    assert_eq!(
        (&made["spec"]["attachRequired"], &made["spec"]["podInfoOnMount"]),
        (&json!(false), &json!(true))
    );
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "a"}}}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    assert_eq!(admin.send("POST", budgets, &budget).await.expect(201)["spec"]["maxUnavailable"], 0);
    let node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n"},
        "spec": {"drivers": [{"name": "d.io", "nodeID": "n", "allocatable": {"count": 0}}]}});
    let made = admin.send("POST", "/apis/storage.k8s.io/v1/csinodes", &node).await.expect(201);
    assert_eq!(made["spec"]["drivers"][0]["allocatable"], json!({"count": 0}));
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "fc": {"targetWWNs": ["w"], "lun": 0}}});
    let made = admin.send("POST", "/api/v1/persistentvolumes", &volume).await.expect(201);
    assert_eq!(made["spec"]["fc"]["lun"], 0);
    let mut pod = pod("p", json!({}));
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    pod["spec"]["hostNetwork"] = json!(false);
    let made = admin.send("POST", PODS, &pod).await.expect(201);
    assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 0);
    assert_eq!(made["spec"]["hostNetwork"], Value::Null, "Go cannot tell it from what was not said");
}

#[tokio::test]
async fn json_is_laid_out_for_people_and_what_they_use() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let one = format!("{MAPS}/a");
    for (path, agent, lines) in [
        (one.clone(), "curl/8.1", true),
        (one.clone() + "?pretty=false", "curl/8.1", false),
        (MAPS.to_owned() + "?pretty=true", "kubectl", true),
        (one.clone() + "x?pretty=true", "kubectl", true),
        ("/apis?pretty=true".to_owned(), "kubectl", true),
        (one.clone(), "kubectl", false),
    ] {
        let answer = admin.ask("GET", &path, &[("user-agent", agent)], "").await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(text.contains("\n  \"kind\": \""), lines, "{path} {agent}: {text}");
        let laid_out: Value = serde_json::from_str(&text).unwrap();
        assert!(laid_out["kind"].is_string(), "{path}");
    }
    // A watch keeps its lines: each is an event.
    let uri = format!("{MAPS}?watch=1&pretty=true&fieldSelector=metadata.name=a");
    let mut watch = Watch::open(&admin, &uri, "application/json").await;
    assert_eq!(seen(&watch.next().await.unwrap()), ("ADDED".to_owned(), "a".to_owned()));
}

#[tokio::test]
async fn what_is_an_object_in_json_is_a_line() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let made = admin.send("POST", MAPS, &config_map("a", "1")).await;
    let mut answers = vec![("created".to_owned(), made)];
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (path, accept, is_line) in [
        (format!("{MAPS}/a"), "application/json", true),
        (format!("{MAPS}/none"), "application/json", true),
        (MAPS.to_owned(), "application/json", true),
        (format!("{MAPS}/a"), table, true),
        (MAPS.to_owned(), table, true),
        ("/apis".to_owned(), "application/json", true),
        ("/version".to_owned(), "application/json", false),
        ("/openapi/v3".to_owned(), "application/json", false),
    ] {
        let answer = admin.ask("GET", &path, &[("accept", accept)], "").await;
        if is_line {
            answers.push((format!("{path} {accept}"), answer));
        } else {
            assert!(answer.body.ends_with(b"}"), "{path}");
        }
    }
    // Who asks for a table alone reads no Status, and gets it laid out.
    for accept in [table, "text/xml"] {
        let refused = admin.ask("GET", &format!("{MAPS}/none"), &[("accept", accept)], "").await;
        assert!(
            refused.body.starts_with(b"{\n  \"kind\": \"Status\",") && refused.body.ends_with(b"\n}"),
            "{accept}"
        );
    }
    for (what, answer) in answers {
        assert!(answer.body.ends_with(b"}\n") && !answer.body.ends_with(b"\n\n"), "{what}");
    }
}

#[tokio::test]
async fn tables_and_metadata_come_in_the_older_version_too() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let (older, of) = ("meta.k8s.io/v1beta1", "v=v1beta1;g=meta.k8s.io");
    for uri in [MAPS.to_owned(), format!("{MAPS}/a")] {
        let table = format!("application/json;as=Table;{of},application/json");
        let table = admin.ask("GET", &uri, &[("accept", &*table)], "").await.expect(200);
        assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!(older)), "{uri}");
        let row = &table["rows"][0]["object"];
        assert_eq!(
            (&row["kind"], &row["apiVersion"]),
            (&json!("PartialObjectMetadata"), &json!(older)),
            "{uri}"
        );
    }
    let list = format!("application/json;as=PartialObjectMetadataList;{of}");
    let list = admin.ask("GET", MAPS, &[("accept", &*list)], "").await.expect(200);
    assert_eq!((&list["apiVersion"], &list["items"][0]["apiVersion"]), (&json!(older), &json!(older)));
    let packed = format!("{};as=PartialObjectMetadataList;{of}", protobuf::MEDIA);
    let packed = admin.ask("GET", MAPS, &[("accept", &*packed)], "").await;
    assert_eq!(
        (packed.code, packed.body.windows(older.len()).any(|part| part == older.as_bytes())),
        (200, true)
    );
}

#[tokio::test]
async fn the_first_table_of_a_watch_says_which_columns_there_are() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for name in ["a", "b"] {
        admin.send("POST", MAPS, &config_map(name, "1")).await.expect(201);
    }
    let mut watch =
        Watch::open(&admin, &format!("{MAPS}?watch=1"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let first = watch.next().await.unwrap()["object"]["columnDefinitions"].clone();
    let names: Vec<&Value> = first.as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Data", "Age"]);
    for (column, said) in
        [(0, "Name must be unique within a namespace."), (2, "CreationTimestamp is a timestamp")]
    {
        let description = first[column]["description"].as_str().unwrap();
        assert!(description.starts_with(said), "{description}");
    }
    let second = watch.next().await.unwrap()["object"].clone();
    assert_eq!((&second["columnDefinitions"], &second["rows"][0]["cells"][0]), (&Value::Null, &json!("b")));
}

#[tokio::test]
async fn reviews_have_no_tables() {
    let cluster = cluster().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (accept, code) in [(table.to_owned(), 406), (format!("{table},application/json"), 201)] {
        let headers = [("accept", &*accept), ("content-type", "application/json")];
        let answer = cluster.admin().ask("POST", path, &headers, review.to_string()).await;
        assert_eq!(answer.code, code, "{accept}");
    }
}
