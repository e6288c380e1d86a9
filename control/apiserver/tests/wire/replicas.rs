//! Several API servers on one etcd behave as one.

use std::time::Duration;

use apiserver::{Running, start};
use serde_json::{Value, json};

use crate::cluster::{Client, etcd_storage};
use crate::etcd_server::{self, Etcd};

/// Servers on one etcd, with one authority: the folder of the first is copied.
pub async fn replicas(etcd: &Etcd, count: usize) -> Vec<(Running, tempfile::TempDir)> {
    let mut servers: Vec<(Running, tempfile::TempDir)> = Vec::new();
    for _ in 0..count {
        let folder = tempfile::tempdir().unwrap();
        if let Some((_, first)) = servers.first() {
            let pki = folder.path().join("pki");
            std::fs::create_dir(&pki).unwrap();
            for file in std::fs::read_dir(first.path().join("pki")).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), pki.join(file.file_name())).unwrap();
            }
        }
        let mut config = apiserver::Config::loopback(folder.path(), etcd_storage(etcd));
        // Few addresses, so that servers want the same.
        config.service_ranges = vec!["10.96.0.0/26".to_owned()];
        servers.push((start(config).await.unwrap(), folder));
    }
    servers
}

fn config_map(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": text}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_confirmed_every_other_serves_at_once() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let servers = replicas(&etcd, 3).await;
    let clients: Vec<Client> = servers.iter().map(|(running, _)| Client::of(running)).collect();
    for n in 0..30 {
        let [writer, reader, third] = [0, 1, 2].map(|offset| &clients[(n + offset) % 3]);
        let name = format!("m{n}");
        let made = writer.send("POST", MAPS, &config_map(&name, "a")).await.expect(201);
        let path = format!("{MAPS}/{name}");
        assert_eq!(reader.get(&path).await.expect(200), made);
        let mut changed = made.clone();
        changed["data"]["k"] = json!("b");
        let changed = third.send("PUT", &path, &changed).await.expect(200);
        writer.send("PUT", &path, &made).await.refused(409, "Conflict");
        let list = writer.get(MAPS).await.expect(200);
        assert!(list["items"].as_array().unwrap().iter().any(|item| item["data"] == changed["data"]));
        reader.delete(&path).await.expect(200);
        writer.get(&path).await.refused(404, "NotFound");
        third.get(&format!("{path}?resourceVersion=0")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_ports_are_given_out_once() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let servers = replicas(&etcd, 3).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let client = Client::of(&servers[n % 3].0);
        tasks.spawn(async move {
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{n}")},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            let made = client.send("POST", "/api/v1/namespaces/default/services", &service).await.expect(201);
            let port = made["spec"]["ports"][0]["nodePort"].to_string();
            (made["spec"]["clusterIP"].to_string(), port)
        });
    }
    let given = tasks.join_all().await;
    for of in [0, 1] {
        let unique: std::collections::BTreeSet<&String> =
            given.iter().map(|pair| if of == 0 { &pair.0 } else { &pair.1 }).collect();
        assert_eq!(unique.len(), given.len(), "{given:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_and_kinds_made_at_one_server_hold_at_every_other() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let servers = replicas(&etcd, 2).await;
    let (one, other) = (Client::of(&servers[0].0), Client::of(&servers[1].0));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]});
    let eve = Client::named(&servers[1].0, "eve");
    eve.get(MAPS).await.refused(403, "Forbidden");
    one.send("POST", &format!("{rbac}/roles"), &role).await.expect(201);
    one.send("POST", &format!("{rbac}/rolebindings"), &binding).await.expect(201);
    // Any consistent read brings the other server up to date.
    other.get(MAPS).await.expect(200);
    eve.get(MAPS).await.expect(200);

    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"size": {"type": "integer"}}}}}]}});
    let things = "/apis/example.com/v1/namespaces/default/things";
    one.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition)
        .await
        .expect(201);
    other.get(MAPS).await.expect(200);
    let thing =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "size": 3});
    other.send("POST", things, &thing).await.expect(201);
    assert_eq!(one.get(&format!("{things}/t")).await.expect(200)["size"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_etcd_is_away_says_so_and_serves_what_may_be_old() {
    if !etcd_server::available() {
        return;
    }
    let mut etcd = Etcd::start();
    let servers = replicas(&etcd, 1).await;
    let client = Client::of(&servers[0].0);
    client.send("POST", MAPS, &config_map("m", "a")).await.expect(201);
    let path = format!("{MAPS}/m");
    etcd.kill(0);
    client.get(&path).await.refused(504, "Timeout");
    client.get(&format!("{path}?resourceVersion=0")).await.expect(200);
    let ready = client.get("/readyz?verbose").await;
    assert_eq!(ready.code, 500);
    assert!(String::from_utf8_lossy(&ready.body).contains("[-]etcd failed"), "{:?}", ready.body);
    let refused = client.send("PUT", &path, &config_map("m", "b")).await;
    assert!(refused.code >= 500, "{}", refused.code);
    etcd.start_member(0);
    for _ in 0..100 {
        if client.get(&path).await.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.send("PUT", &path, &config_map("m", "b")).await.expect(200);
    assert_eq!(client.get(&path).await.expect(200)["data"]["k"], "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_is_no_endpoint_any_more() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let mut servers = Vec::new();
    for address in ["127.0.0.1", "127.0.0.2"] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = apiserver::Config::loopback(folder.path(), etcd_storage(&etcd));
        config.advertise = vec![address.parse().unwrap()];
        servers.push((start(config).await.unwrap(), folder));
    }
    let client = Client::of(&servers[1].0);
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let found = client.get(slice).await.expect(200);
    assert_eq!(found["endpoints"][0]["addresses"], json!(["127.0.0.1", "127.0.0.2"]));
    let endpoints = client.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "127.0.0.1"}, {"ip": "127.0.0.2"}]));
    servers.remove(0).0.shutdown().await;
    for _ in 0..150 {
        let found = client.get(slice).await.expect(200);
        if found["endpoints"][0]["addresses"] == json!(["127.0.0.2"]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server that ended is still an endpoint");
}
