//! Metrics, under the names and labels that dashboards for kube-apiserver ask for.

use serde_json::json;

use crate::cluster::{Client, cluster, cluster_serving};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn scrape(admin: &Client) -> String {
    let answer = admin.get("/metrics").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The sum of the samples of a metric that have all these labels; `None` when there is no such sample.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (own, given) = series.split_once('{').unwrap_or((series, "}"));
        let given: Vec<&str> = given.trim_end_matches('}').split(',').collect();
        (own == name && labels.iter().all(|label| given.contains(label))).then(|| value.parse().unwrap())
    });
    samples.fold(None, |sum: Option<f64>, value: f64| Some(sum.unwrap_or_default() + value))
}

const OF_MAPS: &str = "resource=\"configmaps\"";

#[tokio::test]
async fn requests_are_counted_by_what_they_ask_and_how_they_are_answered() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" } });
    admin.send("POST", MAPS, &map).await.expect(201);
    admin.send("POST", &format!("{MAPS}?dryRun=All"), &map).await.refused(409, "AlreadyExists");
    admin.patch("apply", &format!("{MAPS}/m?fieldManager=a"), &map).await.expect(200);
    for value in ["b", "c"] {
        admin.patch("merge", &format!("{MAPS}/m"), &json!({ "data": { "a": value } })).await.expect(200);
    }
    admin.get(MAPS).await.expect(200);
    admin.get("/api/v1/configmaps").await.expect(200);
    admin.get(&format!("{MAPS}/none")).await.refused(404, "NotFound");
    cluster.user("nobody", &[]).get(MAPS).await.refused(403, "Forbidden");
    admin.get("/api/v1/anything-a-client-makes-up").await.refused(404, "NotFound");
    let text = scrape(&admin).await;
    let total = |labels: &[&str]| value(&text, "apiserver_request_total", labels);
    let posted = [
        "verb=\"POST\"",
        OF_MAPS,
        "version=\"v1\"",
        "group=\"\"",
        "scope=\"resource\"",
        "component=\"apiserver\"",
    ];
    assert_eq!(total(&[&posted[..], &["dry_run=\"\"", "code=\"201\""]].concat()), Some(1.0), "{text}");
    assert_eq!(total(&[&posted[..], &["dry_run=\"All\"", "code=\"409\""]].concat()), Some(1.0), "{text}");
    for (verb, scope, code, count) in [
        ("APPLY", "resource", 200, 1.0),
        ("PATCH", "resource", 200, 2.0),
        ("LIST", "namespace", 200, 1.0),
        ("LIST", "cluster", 200, 1.0),
        ("LIST", "namespace", 403, 1.0),
        ("GET", "resource", 404, 1.0),
    ] {
        let labels = [format!("verb=\"{verb}\""), format!("scope=\"{scope}\""), format!("code=\"{code}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).chain([OF_MAPS]).collect();
        assert_eq!(total(&labels), Some(count), "{labels:?} of\n{text}");
    }
    assert!(!text.contains("makes-up"), "{text}");
    let took = "apiserver_request_duration_seconds";
    let lists = ["verb=\"LIST\"", OF_MAPS, "scope=\"cluster\""];
    assert_eq!(value(&text, &format!("{took}_count"), &lists), Some(1.0), "{text}");
    assert_eq!(
        value(&text, &format!("{took}_bucket"), &[&lists[..], &["le=\"60.0\""]].concat()),
        Some(1.0),
        "{text}"
    );
    assert_eq!(
        value(&text, "etcd_request_duration_seconds_count", &["operation=\"update\""]),
        Some(2.0),
        "{text}"
    );
    assert_eq!(value(&text, "authentication_attempts_total", &["result=\"failure\""]), None, "{text}");
    let denied = ["type=\"RBAC\"", "decision=\"denied\""];
    assert_eq!(value(&text, "apiserver_authorization_decisions_total", &denied), Some(1.0), "{text}");
}

#[tokio::test]
async fn a_watch_counts_as_open_as_long_as_somebody_reads_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let watching = ["verb=\"WATCH\"", OF_MAPS, "scope=\"namespace\""];
    let open = |text: &str| value(text, "apiserver_longrunning_requests", &watching);
    let watch = admin.raw("GET", &format!("{MAPS}?watch=true"), &[], "").await;
    assert_eq!(open(&scrape(&admin).await), Some(1.0));
    drop(watch);
    let text = scrape(&admin).await;
    assert_eq!(open(&text), Some(0.0), "{text}");
    // The scrape itself is being worked on.
    let reading = ["request_kind=\"readOnly\""];
    assert_eq!(value(&text, "apiserver_current_inflight_requests", &reading), Some(1.0), "{text}");
}

#[tokio::test]
async fn objects_health_version_and_the_process_are_looked_up() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for name in ["a", "b"] {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "x": "y" } } });
        admin.send("POST", MAPS, &map).await.expect(201);
    }
    let text = scrape(&admin).await;
    // One is the cluster's own.
    assert_eq!(value(&text, "apiserver_resource_objects", &["group=\"\"", OF_MAPS]), Some(3.0), "{text}");
    assert_eq!(value(&text, "apiserver_storage_objects", &[OF_MAPS]), Some(3.0), "{text}");
    let roles = ["resource=\"clusterroles.rbac.authorization.k8s.io\""];
    assert!(value(&text, "apiserver_storage_objects", &roles) > Some(50.0), "{text}");
    let ready = ["name=\"etcd\"", "type=\"readyz\""];
    assert_eq!(value(&text, "kubernetes_healthcheck", &ready), Some(1.0), "{text}");
    assert_eq!(value(&text, "kubernetes_build_info", &["minor=\"36\""]), Some(1.0), "{text}");
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(value(&text, name, &[]) > Some(1.0), "{name} of\n{text}");
    }
    let mut names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "each metric has one type");
    cluster.user("nobody", &[]).get("/metrics").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn who_uses_what_is_deprecated_is_seen() {
    let cluster = cluster_serving("api/beta=true").await;
    let admin = cluster.admin();
    let name = "apiserver_requested_deprecated_apis";
    let before = scrape(&admin).await;
    admin.get("/api/v1/namespaces/default/endpoints").await.expect(200);
    admin.get("/apis/resource.k8s.io/v1beta1/resourceslices").await.expect(200);
    let text = scrape(&admin).await;
    let endpoints = ["group=\"\"", "version=\"v1\"", "resource=\"endpoints\"", "removed_release=\"\""];
    let slices = ["group=\"resource.k8s.io\"", "version=\"v1beta1\"", "removed_release=\"1.38\""];
    for labels in [&endpoints[..], &slices[..]] {
        assert_eq!(value(&before, name, labels), None, "{before}");
        assert_eq!(value(&text, name, labels), Some(1.0), "{text}");
    }
}
