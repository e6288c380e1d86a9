//! Discovery and OpenAPI: what is served is told at once, and no longer than it is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::definitions::{DEFINITIONS, crontabs, spec, version};

const V3: &str = "/openapi/v3/apis/stable.example.com";

fn described() -> Value {
    let mut spec = spec();
    spec["properties"]["image"]["description"] = json!("what is run");
    spec["properties"]["maybe"] = json!({ "type": "string", "nullable": true });
    spec["properties"]["any"] = json!({ "x-kubernetes-preserve-unknown-fields": true });
    spec
}

async fn paths(admin: &Client) -> Value {
    admin.get("/openapi/v3").await.expect(200)["paths"].clone()
}

#[tokio::test]
async fn a_new_kind_is_in_every_discovery_document_until_it_goes() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut one = version("v1", true, spec());
    one["subresources"] = json!({ "status": {}, "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" } });
    let mut definition = crontabs(json!([one, version("v1beta1", false, spec())]));
    definition["spec"]["names"]["categories"] = json!(["all"]);
    admin.send("POST", DEFINITIONS, &definition).await.expect(201);

    let group = admin.get("/apis/stable.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    let list = admin.get("/apis/stable.example.com/v1").await.expect(200);
    let names: Vec<&Value> = list["resources"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["ct"]));
    assert_eq!(list["resources"][2]["group"], "autoscaling");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = admin.ask("GET", "/apis", &accept, "").await.expect(200);
    let found = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["metadata"]["name"] == "stable.example.com")
        .unwrap();
    assert_eq!(found["versions"][1]["version"], "v1beta1");
    let own = &found["versions"][0]["resources"][0];
    assert_eq!(own["categories"], json!(["all"]));
    let kind = json!({ "group": "stable.example.com", "version": "v1", "kind": "CronTab" });
    assert_eq!(own["responseKind"], kind);

    let uri = format!("{DEFINITIONS}/crontabs.stable.example.com");
    admin
        .patch("json", &uri, &json!([{ "op": "replace", "path": "/spec/versions/1/served", "value": false }]))
        .await
        .expect(200);
    admin.get("/apis/stable.example.com/v1beta1").await.no_page();
    admin.delete(&uri).await.expect(200);
    admin.until("/apis/stable.example.com", 404).await;
}

#[tokio::test]
async fn a_schema_is_published_for_each_version_under_a_hash_that_follows_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let before = paths(&admin).await;
    assert_eq!(before.get("apis/stable.example.com/v1"), None);
    let versions = json!([version("v1", true, described()), version("v2", false, spec())]);
    admin.send("POST", DEFINITIONS, &crontabs(versions)).await.expect(201);
    let after = paths(&admin).await;
    assert_eq!(after["apis/apps/v1"], before["apis/apps/v1"], "other documents keep their hash");

    let document = admin.get(&format!("{V3}/v1")).await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["properties"]["spec"]["properties"]["image"]["description"], "what is run");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    let reference = &schema["properties"]["metadata"]["allOf"][0]["$ref"];
    let target = reference.as_str().unwrap().trim_start_matches("#/components/schemas/");
    assert!(document["components"]["schemas"][target]["properties"]["name"].is_object(), "{reference}");
    let list = &document["components"]["schemas"]["com.example.stable.v1.CronTabList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "CronTabList");
    let path = "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}";
    assert_eq!(document["paths"][path]["patch"]["x-kubernetes-group-version-kind"]["kind"], "CronTab");
    let other = admin.get(&format!("{V3}/v2")).await.expect(200);
    assert_eq!(other["components"]["schemas"]["com.example.stable.v2.CronTab"]["properties"]["spec"], spec());

    let patch = json!([{ "op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/any" }]);
    admin.patch("json", &format!("{DEFINITIONS}/crontabs.stable.example.com"), &patch).await.expect(200);
    let changed = paths(&admin).await;
    assert_ne!(changed["apis/stable.example.com/v1"], after["apis/stable.example.com/v1"]);
    assert_eq!(changed["apis/stable.example.com/v2"], after["apis/stable.example.com/v2"]);
}

#[tokio::test]
async fn documents_are_not_sent_to_those_who_have_them() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for uri in ["/openapi/v2", "/openapi/v3/apis/apps/v1"] {
        let first = admin.get(uri).await;
        let tag = first.headers["etag"].to_str().unwrap().to_owned();
        first.expect(200);
        let again = admin.ask("GET", uri, &[("if-none-match", &tag)], "").await;
        assert_eq!((again.code, again.body.len()), (304, 0), "{uri}");
    }
}

#[tokio::test]
async fn the_old_document_has_every_kind_in_words_it_knows() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", DEFINITIONS, &crontabs(json!([version("v1", true, described())]))).await.expect(201);
    let document = admin.get("/openapi/v2").await.expect(200);
    let schema = &document["definitions"]["com.example.stable.v1.CronTab"];
    let spec = &schema["properties"]["spec"]["properties"];
    assert_eq!(spec["image"], json!({ "type": "string", "description": "what is run" }));
    assert_eq!(spec["any"], json!({ "x-kubernetes-preserve-unknown-fields": true }));
    assert_eq!(spec["maybe"], json!({}), "there is no null in version 2, so the type is not told");
    let reference = schema["properties"]["metadata"]["$ref"].as_str().unwrap();
    assert!(
        document["definitions"][reference.trim_start_matches("#/definitions/")].is_object(),
        "{reference}"
    );
    let path = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs"]["post"];
    assert_eq!(path["responses"]["200"]["schema"]["$ref"], "#/definitions/com.example.stable.v1.CronTab");
    assert!(document["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object());
}

#[tokio::test]
async fn kinds_of_this_build_are_described_in_both_documents() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let new = admin.get("/openapi/v3/api/v1").await.expect(200)["components"]["schemas"].clone();
    let old = admin.get("/openapi/v2").await.expect(200)["definitions"].clone();
    for schemas in [new, old] {
        let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["description"], "PodSpec is a description of a pod.");
        let name = spec["properties"]["nodeName"]["description"].as_str().unwrap();
        assert!(name.starts_with("NodeName indicates in which node this pod is scheduled."), "{name}");
        // Beside a reference to the type of the field.
        let affinity = &spec["properties"]["affinity"];
        assert_eq!(affinity["description"], "If specified, the pod's scheduling constraints");
        assert!(affinity.as_object().unwrap().len() > 1, "{affinity}");
        let hostname = spec["properties"]["hostnameOverride"]["description"].as_str().unwrap();
        assert!(hostname.contains("\n\n"), "paragraphs are kept: {hostname}");
    }
}

#[tokio::test]
async fn the_old_document_comes_in_protobuf_too() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let packed = admin.ask("GET", "/openapi/v2", &[("accept", asked)], "").await;
    assert_eq!(packed.code, 200);
    assert_eq!(packed.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(
        packed.body.starts_with(b"\x0a\x032.0\x12"),
        "the version of the document, then what it is called"
    );
    let has = |text: &str| packed.body.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("io.k8s.api.core.v1.PodSpec") && has("PodSpec is a description of a pod."));
    assert!(has("/apis/apps/v1/namespaces/{namespace}/deployments/{name}"));
    let plain = admin.get("/openapi/v2").await;
    assert_ne!(packed.headers["etag"], plain.headers["etag"]);
    let tag = packed.headers["etag"].to_str().unwrap();
    let again = admin.ask("GET", "/openapi/v2", &[("accept", asked), ("if-none-match", tag)], "").await;
    assert_eq!((again.code, again.body.len()), (304, 0));
    admin
        .ask("GET", "/openapi/v2", &[("accept", "application/cbor")], "")
        .await
        .refused(406, "NotAcceptable");
}

/// What a document refers to, of schemas.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn documents_hold_what_they_refer_to_and_operations_what_they_take() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", DEFINITIONS, &crontabs(json!([version("v1", true, described())]))).await.expect(201);
    let paths = admin.get("/openapi/v3").await.expect(200)["paths"].clone();
    let mut uris: Vec<String> =
        paths.as_object().unwrap().keys().map(|path| format!("/openapi/v3/{path}")).collect();
    uris.push("/openapi/v2".to_owned());
    for uri in uris {
        let document = admin.get(&uri).await.expect(200);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let there = document.pointer(reference.trim_start_matches('#'));
            assert!(there.is_some(), "{uri}: {reference}");
        }
    }
    let core = admin.get("/openapi/v3/api/v1").await.expect(200);
    let pods = &core["paths"]["/api/v1/namespaces/{namespace}/pods"];
    let media = |content: &Value| content["content"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(media(&pods["post"]["requestBody"]), ["*/*"]);
    let watched = "application/vnd.kubernetes.protobuf;stream=watch";
    assert!(media(&pods["get"]["responses"]["200"]).iter().any(|media| media == watched));
    let log = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/log"]["get"];
    assert!(log["parameters"].as_array().unwrap().iter().any(|one| one["name"] == "tailLines"), "{log}");
    let places: Vec<&Value> = core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(places, ["name", "namespace"]);
}

#[tokio::test]
async fn documents_say_where_to_learn_what_there_is() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let index = admin.get("/openapi/v3").await.expect(200)["paths"].clone();
    for (name, path) in [
        ("api", "/api/"),
        ("apis", "/apis/"),
        ("apis/apps", "/apis/apps/"),
        ("apis/apps/v1", "/apis/apps/v1/"),
        ("version", "/version/"),
        ("openid/v1/jwks", "/openid/v1/jwks/"),
    ] {
        let uri = index[name]["serverRelativeURL"].as_str().unwrap_or_else(|| panic!("{name} is listed"));
        let document = admin.get(uri).await.expect(200);
        assert_eq!(document["paths"][path]["get"]["responses"]["200"]["description"], "OK", "{name}");
        admin.get(path).await.expect(200);
    }
    let version = admin.get("/openapi/v3/version").await.expect(200);
    let said = &version["components"]["schemas"]["io.k8s.apimachinery.pkg.version.Info"]["properties"];
    let told = admin.get("/version").await.expect(200);
    assert!(told.as_object().unwrap().keys().all(|field| said.get(field).is_some()), "{told}");
    let old = admin.get("/openapi/v2").await.expect(200);
    assert_eq!(old["paths"]["/apis/apps/"]["get"]["operationId"], "getAppsAPIGroup");
}

#[tokio::test]
async fn headers_alone_are_answered_where_upstream_does() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for uri in ["/healthz", "/metrics", "/openapi/v3"] {
        let answer = admin.ask("HEAD", uri, &[], "").await;
        assert_eq!((answer.code, answer.body.len()), (200, 0), "{uri}");
        assert_ne!(answer.headers["content-length"], "0", "{uri}");
    }
    for uri in ["/version", "/apis/apps/v1", "/api/v1/namespaces", "/api/v1/namespaces/default"] {
        let answer = admin.ask("HEAD", uri, &[], "").await;
        assert_eq!((answer.code, answer.body.len()), (405, 0), "{uri}");
    }
}
