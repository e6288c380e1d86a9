//! Watches: nothing lost, nothing twice, in order, whatever the client does.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use http_body_util::BodyExt;
use rand::Rng;
use serde_json::{Value, json};

use crate::cluster::{Client, cluster};
use crate::objects::{config_map, pod};
use crate::protobuf;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A watch that is being read.
pub struct Watch {
    body: apiserver::Body,
    buffer: Vec<u8>,
    protobuf: bool,
}

impl Watch {
    pub async fn open(client: &Client, uri: &str, accept: &str) -> Self {
        let response = client.raw("GET", uri, &[("accept", accept)], "").await;
        assert_eq!(response.status().as_u16(), 200, "{uri}");
        let protobuf =
            response.headers()["content-type"] == "application/vnd.kubernetes.protobuf;stream=watch";
        Self { body: response.into_body(), buffer: Vec::new(), protobuf }
    }

    async fn of(client: &Client, parameters: &str) -> Self {
        Self::open(client, &format!("{MAPS}?watch=1&{parameters}"), "application/json").await
    }

    /// Whether there is nothing to read now, so that the watch waits.
    async fn waits(&mut self) -> bool {
        let mut next = std::pin::pin!(self.next());
        std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await
    }

    /// The next event; `None` when the stream ends.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if self.protobuf
                && let Some((event, length)) = protobuf::event(&self.buffer)
            {
                self.buffer.drain(..length);
                return Some(event);
            }
            if !self.protobuf
                && let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame())
                .await
                .expect("an event in time")?;
            self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }
}

pub fn seen(event: &Value) -> (String, String) {
    (
        event["type"].as_str().unwrap().to_owned(),
        event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
    )
}

async fn revision(client: &Client) -> String {
    client.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_watch_that_waits_ends_with_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let config = apiserver::Config::loopback(folder.path(), apiserver::Storage::Memory);
    let server = apiserver::start(config).await.unwrap();
    let mut watch = Watch::of(&Client::of(&server), "").await;
    assert!(watch.waits().await);
    let ((), ended) = tokio::join!(server.shutdown(), watch.next());
    assert_eq!(ended, None);
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told_to() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let from = revision(&admin).await;
    admin.send("POST", MAPS, &config_map("b", "1")).await.expect(201);
    let mut later = Watch::of(&admin, &format!("resourceVersion={from}")).await;
    assert_eq!(seen(&later.next().await.unwrap()), ("ADDED".to_owned(), "b".to_owned()));
    let mut all = Watch::of(&admin, "").await;
    assert_eq!(seen(&all.next().await.unwrap()).1, "a");
    assert_eq!(seen(&all.next().await.unwrap()).1, "b");
    admin.delete(&format!("{MAPS}/a")).await.expect(200);
    let deleted = all.next().await.unwrap();
    assert_eq!(seen(&deleted), ("DELETED".to_owned(), "a".to_owned()));
    let revision: u64 = deleted["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(revision > from.parse().unwrap());
}

#[tokio::test]
async fn a_path_of_old_watches_as_a_parameter_does() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for name in ["a", "b"] {
        admin.send("POST", MAPS, &config_map(name, "1")).await.expect(201);
    }
    let old = MAPS.replacen("/v1/", "/v1/watch/", 1);
    for (uri, names) in [(&*old, vec!["a", "b"]), (&*format!("{old}/b"), vec!["b"])] {
        let mut watch = Watch::open(&admin, uri, "application/json").await;
        for name in names {
            assert_eq!(watch.next().await.unwrap()["object"]["metadata"]["name"], name, "{uri}");
        }
        assert!(watch.waits().await, "{uri}");
    }
    admin.send("POST", &old, &config_map("c", "1")).await.refused(405, "MethodNotAllowed");
    let nobody = cluster.user("nobody", &[]);
    let refused = nobody.get(&old).await.refused(403, "Forbidden");
    assert!(refused["message"].as_str().unwrap().contains("cannot watch resource"), "{refused}");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let parameters = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Watch::of(&admin, parameters).await;
    assert_eq!(seen(&watch.next().await.unwrap()).0, "ADDED");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], revision(&admin).await);
}

/// A client that begins with much is told of it as it reads, and of what happened meanwhile behind it.
#[tokio::test]
async fn a_watch_begins_chunk_by_chunk() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let names: Vec<String> = (10..60).map(|n| format!("m-{n}")).collect();
    for name in &names {
        admin.send("POST", MAPS, &config_map(name, &"x".repeat(10_000))).await.expect(201);
    }
    let parameters = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    for accept in ["application/json", "application/vnd.kubernetes.protobuf;stream=watch"] {
        let mut watch = Watch::open(&admin, &format!("{MAPS}?watch=1&{parameters}"), accept).await;
        assert_eq!(watch.next().await.unwrap()["object"]["metadata"]["name"], "m-10");
        assert!(watch.buffer.len() < 100_000, "{accept}: {} bytes come at once", watch.buffer.len());
        let last = format!("{MAPS}/m-59");
        admin.delete(&last).await.expect(200);
        for name in &names[1..] {
            assert_eq!(seen(&watch.next().await.unwrap()), ("ADDED".to_owned(), name.clone()), "{accept}");
        }
        let bookmark = watch.next().await.unwrap();
        assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(seen(&watch.next().await.unwrap()), ("DELETED".to_owned(), "m-59".to_owned()), "{accept}");
        admin.send("POST", MAPS, &config_map("m-59", &"x".repeat(10_000))).await.expect(201);
    }
}

/// Such watches are about a part of the store of their own.
#[tokio::test]
async fn a_watch_of_one_name_or_of_one_node_sees_what_is_its_own() {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let cluster = cluster().await;
    let admin = cluster.admin();
    let open = async |uri: String| Watch::open(&admin, &uri, "application/json").await;
    let mut named = open(format!("{PODS}?watch=1&fieldSelector=metadata.name%3Da")).await;
    let mut path = open(format!("{PODS}/a?watch=1")).await;
    let mut of_node = open("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1".to_owned()).await;
    let mut in_namespace = open(format!("{PODS}?watch=1&fieldSelector=spec.nodeName%3Dn1")).await;
    let mut waiting = open("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3D".to_owned()).await;
    for name in ["a", "aa"] {
        admin.send("POST", PODS, &pod(name, json!({}))).await.expect(201);
        let node = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                          "target": {"kind": "Node", "name": if name == "a" { "n1" } else { "n2" }}});
        admin.send("POST", &format!("{PODS}/{name}/binding"), &node).await.expect(201);
        let label = json!({"metadata": {"labels": {"x": "y"}}});
        admin.patch("merge", &format!("{PODS}/{name}"), &label).await.expect(200);
    }
    let mut late = open("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1".to_owned()).await;
    assert_eq!(seen(&late.next().await.unwrap()), ("ADDED".to_owned(), "a".to_owned()));
    assert!(late.waits().await, "it begins with more than what is on the node");
    for name in ["a", "aa"] {
        admin.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await.expect(200);
    }
    assert_eq!(seen(&late.next().await.unwrap()), ("DELETED".to_owned(), "a".to_owned()));
    let own = |kinds: &[&str]| -> Vec<(String, String)> {
        kinds.iter().map(|kind| ((*kind).to_owned(), "a".to_owned())).collect()
    };
    for watch in [&mut named, &mut path] {
        for want in own(&["ADDED", "MODIFIED", "MODIFIED", "DELETED"]) {
            assert_eq!(seen(&watch.next().await.unwrap()), want);
        }
        assert!(watch.waits().await);
    }
    for watch in [&mut of_node, &mut in_namespace] {
        for want in own(&["ADDED", "MODIFIED", "DELETED"]) {
            assert_eq!(seen(&watch.next().await.unwrap()), want);
        }
        assert!(watch.waits().await);
    }
    for name in ["a", "aa"] {
        for kind in ["ADDED", "DELETED"] {
            assert_eq!(seen(&waiting.next().await.unwrap()), (kind.to_owned(), name.to_owned()));
        }
    }
}

#[tokio::test]
async fn leaving_a_selection_is_a_deletion_and_entering_it_an_addition() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut watch = Watch::of(&admin, "labelSelector=x%3D1").await;
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let label = |value: Value| json!({"metadata": {"labels": {"x": value}}});
    let uri = format!("{MAPS}/a");
    for value in [json!("1"), json!("2"), json!("1")] {
        admin.patch("merge", &uri, &label(value)).await.expect(200);
    }
    admin.patch("merge", &uri, &json!({"data": {"b": "2"}})).await.expect(200);
    let kinds: Vec<String> = [watch.next().await, watch.next().await, watch.next().await, watch.next().await]
        .iter()
        .map(|event| seen(event.as_ref().unwrap()).0)
        .collect();
    assert_eq!(kinds, ["ADDED", "DELETED", "ADDED", "MODIFIED"]);
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let from = revision(&admin).await;
    let mut watch =
        Watch::of(&admin, &format!("resourceVersion={from}&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_whose_history_is_gone_says_so_and_ends() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let from = revision(&admin).await;
    let mut slow = Watch::of(&admin, &format!("resourceVersion={from}")).await;
    // Its time is up, and a bookmark due, before it is read.
    let mut late =
        Watch::of(&admin, &format!("resourceVersion={from}&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    assert!(late.waits().await);
    admin.send("POST", MAPS, &config_map("big", "1")).await.expect(201);
    let much = "x".repeat(1 << 20);
    for step in 0..40 {
        let data = json!({"data": {"a": step.to_string(), "b": &much[100..]}});
        admin.patch("merge", &format!("{MAPS}/big"), &data).await.expect(200);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut past = Watch::of(&admin, &format!("resourceVersion={from}")).await;
    for (what, watch) in [("slow", &mut slow), ("late", &mut late), ("past", &mut past)] {
        let event = watch.next().await.unwrap_or_else(|| panic!("{what}: it ended without a word"));
        let said =
            (event["type"].as_str(), event["object"]["code"].as_u64(), event["object"]["reason"].as_str());
        assert_eq!(said, (Some("ERROR"), Some(410), Some("Expired")), "{what}");
        assert!(watch.next().await.is_none(), "{what}");
    }
}

#[tokio::test]
async fn a_table_can_be_watched() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut watch = Watch::open(&admin, &format!("{MAPS}?watch=1"), accept).await;
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}

/// What is told of an object is what a whole watch tells, less all but the metadata.
#[tokio::test]
async fn metadata_can_be_watched() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let uri = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da");
    let mut whole = Watch::open(&admin, &uri, "application/json").await;
    let mut reduced = Watch::open(&admin, &uri, accept).await;
    let one = format!("{MAPS}/a");
    admin.send("POST", MAPS, &config_map("a", "1")).await.expect(201);
    admin.patch("merge", &one, &json!({ "metadata": { "labels": { "b": "c" } } })).await.expect(200);
    admin.delete(&one).await.expect(200);
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        let (mut wanted, told) = (whole.next().await.unwrap(), reduced.next().await.unwrap());
        let metadata = wanted["object"]["metadata"].take();
        let object =
            json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata });
        assert_eq!(told, json!({ "type": kind, "object": object }));
    }
}

const NAMES: usize = 5;
const STEPS: usize = 150;

/// Changes random objects; conflicts with others are part of it.
async fn write(client: Client) {
    for step in 0..STEPS {
        let (name, choice) = {
            let mut random = rand::rng();
            (format!("r{}", random.random_range(0..NAMES)), random.random_range(0..10))
        };
        let uri = format!("{MAPS}/{name}");
        let code = match choice {
            0..3 => client.delete(&uri).await.code,
            3..6 => client.send("POST", MAPS, &config_map(&name, &step.to_string())).await.code,
            _ => client.patch("merge", &uri, &json!({"data": {"a": step.to_string()}})).await.code,
        };
        assert!(matches!(code, 200 | 201 | 404 | 409), "{code}");
    }
}

/// What a client knows: name to revision and value.
type State = BTreeMap<String, (u64, String)>;

/// Follows one event, checking that it can follow what is known.
fn follow(state: &mut State, last: &mut u64, event: &Value) {
    let object = &event["object"];
    let now: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(now > *last || event["type"] == "BOOKMARK" && now >= *last, "{now} after {last}");
    *last = now;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let value = object["data"]["a"].as_str().unwrap_or_default().to_owned();
    match event["type"].as_str().unwrap() {
        "ADDED" => assert!(state.insert(name, (now, value)).is_none(), "added twice: {event}"),
        "MODIFIED" => {
            assert!(state.insert(name, (now, value)).is_some(), "changed before it was added: {event}");
        }
        "DELETED" => assert!(state.remove(&name).is_some(), "deleted before it was added: {event}"),
        "BOOKMARK" => {}
        other => panic!("{other}: {event}"),
    }
}

/// Watches until the last event, leaving and coming back at random places.
async fn observe(client: Client, from: u64) -> (State, u64) {
    let (mut state, mut last) = (State::new(), from);
    loop {
        let mut watch = Watch::of(&client, &format!("resourceVersion={last}&allowWatchBookmarks=true")).await;
        let patience = rand::rng().random_range(1..60);
        for _ in 0..patience {
            let event = watch.next().await.unwrap();
            if event["object"]["metadata"]["name"] == "zz-end" {
                return (state, last);
            }
            follow(&mut state, &mut last, &event);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_come_and_go_see_exactly_what_happened() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let from: u64 = revision(&admin).await.parse().unwrap();
    let watchers: Vec<_> = (0..6).map(|_| tokio::spawn(observe(admin.clone(), from))).collect();
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(write(admin.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let list = admin.get(MAPS).await.expect(200);
    admin.send("POST", MAPS, &config_map("zz-end", "")).await.expect(201);
    let want: State = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let revision = item["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            let value = item["data"]["a"].as_str().unwrap_or_default().to_owned();
            (item["metadata"]["name"].as_str().unwrap().to_owned(), (revision, value))
        })
        .collect();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap().0, want);
    }
}
