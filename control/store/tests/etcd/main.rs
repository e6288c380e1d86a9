//! What only a store over etcd can meet: other processes, members that die, connections that break, a full etcd.

#[path = "../etcd_server/mod.rs"]
mod etcd_server;
mod faults;
mod snapshots;
mod tls;

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::Client;
use store::{EtcdOptions, Op, Options, Store, Txn, TxnError};

use etcd_server::Etcd;

const ROOT: &str = "/registry/";

async fn open(options: &EtcdOptions) -> Store<()> {
    Store::open_etcd(options, Options::default(), |_, _| ()).await.unwrap()
}

fn put(key: &str, text: &str) -> Txn {
    let mut txn = Txn::new();
    txn.ops.push(Op::Put { key: key.to_owned(), value: Bytes::copy_from_slice(text.as_bytes()) });
    txn
}

fn text(store: &Store<()>, key: &str) -> Option<String> {
    store.get(key).map(|entry| String::from_utf8(entry.value.to_bytes().to_vec()).unwrap())
}

/// Adds one to the number under `key`, as often as others are faster.
async fn count_up(store: &Store<()>, key: &str) {
    loop {
        let entry = store.get(key);
        let (revision, number) = entry.map_or((0, 0), |entry| {
            (entry.mod_revision, String::from_utf8_lossy(&entry.value.bytes()).parse::<u32>().unwrap())
        });
        let next = Bytes::from((number + 1).to_string());
        match store.txn(Txn::update(key, revision, next)).await {
            Ok(_) => return,
            Err(TxnError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_stores_on_one_etcd_behave_as_one() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let options = etcd.options(ROOT);
    let stores = Arc::new([open(&options).await, open(&options).await, open(&options).await]);
    let from = stores[0].revision();
    let mut cursors: Vec<_> = stores.iter().map(|store| store.watch(ROOT, from).unwrap()).collect();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..9 {
        let stores = Arc::clone(&stores);
        writers.spawn(async move {
            for _ in 0..20 {
                count_up(&stores[writer % 3], "/registry/counters/one").await;
            }
        });
    }
    writers.join_all().await;
    for store in &*stores {
        store.sync().await.unwrap();
        assert_eq!(text(store, "/registry/counters/one").unwrap(), "180");
    }
    let mut seen = Vec::new();
    for cursor in &mut cursors {
        let events = cursor.read(usize::MAX).unwrap().events;
        let revisions: Vec<u64> = events.iter().map(|event| event.revision).collect();
        assert!(revisions.is_sorted_by(|a, b| a < b));
        seen.push(
            events.iter().map(|event| event.entry.as_ref().unwrap().value.to_bytes()).collect::<Vec<_>>(),
        );
    }
    assert_eq!(seen[0].len(), 180);
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
}

#[tokio::test]
async fn what_one_store_confirmed_every_other_shows_after_a_sync() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let options = etcd.options(ROOT);
    let (writer, reader) = (open(&options).await, open(&options).await);
    for n in 0..200 {
        writer.txn(put("/registry/a/x", &n.to_string())).await.unwrap();
        reader.sync().await.unwrap();
        assert_eq!(text(&reader, "/registry/a/x").unwrap(), n.to_string());
    }
}

#[tokio::test]
async fn a_store_that_opens_later_knows_what_happened_before() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let options = etcd.options(ROOT);
    let first = open(&options).await;
    let from = first.revision();
    for n in 0..20 {
        first.txn(put(&format!("/registry/a/{}", n % 3), &n.to_string())).await.unwrap();
    }
    let told = |store: &Store<()>, from| {
        let events = store.watch(ROOT, from).unwrap().read(usize::MAX).unwrap().events;
        events.iter().map(|event| (event.revision, event.previous.is_some())).collect::<Vec<_>>()
    };
    let second = open(&options).await;
    assert_eq!(told(&second, from), told(&first, from));
    assert_eq!(told(&second, from).len(), 20);
    // What etcd has forgotten is not known to whoever comes later; the key is kube-apiserver's.
    let mut client = Client::connect(options.endpoints.clone(), None).await.unwrap();
    client.put("compact_rev_key", (from + 10).to_string(), None).await.unwrap();
    client.compact((from + 10).cast_signed(), None).await.unwrap();
    let third = open(&options).await;
    assert_eq!(third.watch(ROOT, from).unwrap_err().oldest, from + 10);
    assert_eq!(told(&third, from + 10), told(&first, from + 10));
    // Nor to one that has not heard how much.
    client.put("compact_rev_key", "1", None).await.unwrap();
    let fourth = open(&options).await;
    assert_eq!(text(&fourth, "/registry/a/1").unwrap(), "19");
    assert!(fourth.watch(ROOT, from + 10).is_err());
}

#[tokio::test]
async fn keys_of_others_are_not_shown_and_hold_nothing_up() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let store = open(&etcd.options(ROOT)).await;
    let mut others = Client::connect(etcd.options(ROOT).endpoints, None).await.unwrap();
    for n in 0..10 {
        others.put(format!("/other/{n}"), "x", None).await.unwrap();
    }
    tokio::time::timeout(std::time::Duration::from_secs(2), store.sync()).await.unwrap().unwrap();
    assert_eq!(store.count("/"), 0);
    others.put("/registry/a/x", "y", None).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(text(&store, "/registry/a/x").unwrap(), "y");
    assert_eq!(store.count("/"), 1);
}

#[tokio::test]
async fn entries_that_expire_share_leases_of_etcd() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let store = open(&etcd.options(ROOT)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for key in ["/registry/events/a", "/registry/events/b"] {
        store.txn(put(key, "x").expiring(now + 3600)).await.unwrap();
    }
    store.txn(put("/registry/events/a", "for ever")).await.unwrap();
    let mut client = Client::connect(etcd.options(ROOT).endpoints, None).await.unwrap();
    let mut lease_of = async |key: &str| client.get(key, None).await.unwrap().kvs()[0].lease();
    assert_eq!(lease_of("/registry/events/a").await, 0);
    let lease = lease_of("/registry/events/b").await;
    let granted = client.lease_time_to_live(lease, None).await.unwrap().granted_ttl();
    assert!((3600..=3660).contains(&granted), "{granted}");
    assert_eq!(client.leases().await.unwrap().leases().len(), 1);
    store.txn(put("/registry/masterleases/10.0.0.1", "x").expiring(now + 15)).await.unwrap();
    let short = client.get("/registry/masterleases/10.0.0.1", None).await.unwrap().kvs()[0].lease();
    let granted = client.lease_time_to_live(short, None).await.unwrap().granted_ttl();
    assert!((10..=15).contains(&granted), "{granted}: what lives shortly is not kept much longer");
    client.lease_revoke(lease).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(text(&store, "/registry/events/b"), None, "its lease ended");
    assert_eq!(text(&store, "/registry/events/a").unwrap(), "for ever");
}
