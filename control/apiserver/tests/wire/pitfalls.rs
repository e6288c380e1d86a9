//! What kube-apiserver had to learn, and what another rewrite got wrong: the faults that no other test here is about.
//!
//! Watches after a restart are in `control/bin/tests/kills`, bombs in the corpus, resets in `slow.rs`, redirects and upgrades in
//! `streams.rs`, nodes' rights in `access.rs`, defaults on read in `custom.rs`, pages in `lists.rs`, the order of bookmarks in
//! `watches.rs`.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::etcd_server::{self, Etcd};
use crate::objects::{config_map, pod};
use crate::replicas::replicas;
use crate::watches::Watch;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Writes until no log remembers what was before: of values that are as large as they may be it holds few.
async fn forget_history(admin: &Client) {
    let one = format!("{MAPS}/large");
    admin.send("POST", MAPS, &config_map("large", "")).await.expect(201);
    for n in 0..30 {
        let text = char::from(b'a' + n).to_string().repeat(900 << 10);
        assert_eq!(admin.send("PUT", &one, &config_map("large", &text)).await.code, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_does_not_go_back_in_time() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let first = replicas(&etcd, 1).await;
    let admin = Client::of(&first[0].0);
    let mut last = 0;
    for n in 0..50 {
        last = revision(&admin.send("POST", MAPS, &config_map(&format!("m{n}"), "1")).await.expect(201));
    }
    let second = replicas(&etcd, 1).await;
    let list = Client::of(&second[0].0).get(&format!("{MAPS}?resourceVersion=0")).await.expect(200);
    assert!(revision(&list) >= last, "{} after {last}", revision(&list));
    assert_eq!(list["items"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn a_watch_of_a_quiet_kind_hears_how_far_the_others_are() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let uri = "/api/v1/namespaces/default/secrets?watch=1&allowWatchBookmarks=true&timeoutSeconds=2";
    let mut watch = Watch::open(&admin, uri, "application/json").await;
    let mut last = 0;
    for n in 0..20 {
        last = revision(&admin.send("POST", MAPS, &config_map(&format!("m{n}"), "1")).await.expect(201));
    }
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(revision(&bookmark["object"]) >= last, "{bookmark}");
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_told_so_and_never_skips() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut watch =
        Watch::open(&admin, &format!("{MAPS}?watch=1&resourceVersion=0"), "application/json").await;
    forget_history(&admin).await;
    let mut last = 0;
    let told = loop {
        let event = watch.next().await.expect("the reason before the end");
        if event["type"] == "ERROR" {
            break event;
        }
        let now = revision(&event["object"]);
        assert!(last == 0 || now == last + 1, "{now} after {last}");
        last = now;
    };
    assert_eq!((&told["object"]["code"], &told["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none(), "it goes on after it said that it cannot");
}

#[tokio::test]
async fn a_list_whose_history_is_gone_can_be_gone_on_with() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for name in ["a", "b", "c"] {
        admin.send("POST", MAPS, &config_map(name, "1")).await.expect(201);
    }
    let first = admin.get(&format!("{MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    forget_history(&admin).await;
    let expired = admin.get(&format!("{MAPS}?limit=1&continue={token}")).await.refused(410, "Expired");
    let token = expired["metadata"]["continue"].as_str().expect("a token to go on with");
    let rest = admin.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    let names: Vec<_> =
        rest["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["b", "c"]);
}

#[tokio::test]
async fn a_long_list_leaves_in_pieces() {
    const LARGEST: usize = 256 << 10;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let text = "x".repeat(8 << 10);
    for n in 0..200 {
        admin.send("POST", MAPS, &config_map(&format!("m{n}"), &text)).await.expect(201);
    }
    let mut body = admin.raw("GET", MAPS, &[], "").await.into_body();
    let (mut pieces, mut all) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() <= LARGEST, "{} bytes at once", piece.len());
        pieces += 1;
        all.extend_from_slice(&piece);
    }
    assert!(pieces > 4, "{pieces}");
    let list: Value = serde_json::from_slice(&all).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 200);
}

#[tokio::test]
async fn writes_that_change_nothing_leave_no_trace() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let one = format!("{MAPS}/a");
    let applied = format!("{one}?fieldManager=m");
    admin.patch("apply", &applied, &config_map("a", "1")).await.expect(201);
    let before = admin.get(&one).await.expect(200);
    let mut same = before.clone();
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    for (how, answer) in [
        ("PUT", admin.send("PUT", &one, &same).await),
        ("merge", admin.patch("merge", &one, &json!({ "data": { "a": "1" } })).await),
        ("strategic", admin.patch("strategic-merge", &one, &json!({})).await),
        ("json", admin.patch("json", &one, &json!([])).await),
        ("apply", admin.patch("apply", &applied, &config_map("a", "1")).await),
    ] {
        assert_eq!(answer.expect(200), before, "{how}");
        assert_eq!(admin.get(&one).await.expect(200), before, "{how}");
    }
}

#[tokio::test]
async fn a_put_keeps_what_the_server_owns_and_a_patch_what_its_client_does_not_know() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let before = admin.send("POST", pods, &pod("a", json!({}))).await.expect(201);
    let one = format!("{pods}/a");
    // As an old client has it: the spec whole, of the metadata the name alone, of the status nothing.
    let bare =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "spec": before["spec"] });
    let after = admin.send("PUT", &one, &bare).await.expect(200);
    for field in ["uid", "creationTimestamp", "generation", "namespace"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
        assert!(!after["metadata"][field].is_null(), "{field}");
    }
    assert_eq!(after["status"], before["status"]);
    let labelled = json!({ "metadata": { "labels": { "a": "b" } } });
    let patched = admin.patch("strategic-merge", &one, &labelled).await.expect(200);
    assert_eq!(patched["spec"], before["spec"]);
}

#[tokio::test]
async fn sizes_are_limited_where_upstream_limits_them() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut annotated = config_map("annotated", "1");
    annotated["metadata"]["annotations"] = json!({ "a": "x".repeat(256 << 10) });
    let told = admin.send("POST", MAPS, &annotated).await.refused(422, "Invalid");
    assert_eq!(told["details"]["causes"][0]["field"], "metadata.annotations", "{told}");
    annotated["metadata"]["annotations"] = json!({ "a": "x".repeat((256 << 10) - 1) });
    admin.send("POST", MAPS, &annotated).await.expect(201);
    let large = |bytes: usize| config_map("large", &"x".repeat(bytes));
    admin.send("POST", MAPS, &large((1 << 20) + 1)).await.refused(422, "Invalid");
    assert_eq!(admin.send("POST", MAPS, &large((1 << 20) - 1)).await.code, 201);
}
