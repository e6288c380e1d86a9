//! The store's contract, held by every engine: one suite, run over memory, files and etcd.

#[path = "../etcd_server/mod.rs"]
mod etcd_server;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use store::{Compacted, Cursor, Embedded, Engine, Memory, Op, Options, RangeError, Store, Txn, TxnError};

/// The header in these tests: the length of the value.
fn length(_: &str, value: &[u8]) -> usize {
    value.len()
}

fn open(engine: impl Engine) -> Store<usize> {
    Store::with_engine(engine, Options::default(), length).unwrap()
}

/// A store over one engine, and what has to live as long.
struct Subject {
    engine: &'static str,
    store: Store<usize>,
    /// The revision before the first write.
    base: u64,
    _folder: Option<tempfile::TempDir>,
    _etcd: Option<etcd_server::Etcd>,
}

/// An empty store over each engine.
async fn subjects() -> Vec<Subject> {
    let folder = tempfile::tempdir().unwrap();
    let file = Embedded::open(&folder.path().join("store.redb")).unwrap();
    let subject = |engine, store, folder| Subject { engine, store, base: 0, _folder: folder, _etcd: None };
    let mut subjects =
        vec![subject("memory", open(Memory::default()), None), subject("embedded", open(file), Some(folder))];
    if etcd_server::available() {
        let etcd = etcd_server::Etcd::start();
        let store = Store::open_etcd(&etcd.options("/"), Options::default(), length).await.unwrap();
        let base = store.revision();
        subjects.push(Subject { engine: "etcd", store, base, _folder: None, _etcd: Some(etcd) });
    }
    subjects
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn keys(entries: &[Arc<store::Entry<usize>>]) -> Vec<String> {
    entries.iter().map(|entry| entry.key.to_string()).collect()
}

async fn put(store: &Store<usize>, key: &str, text: &str) -> u64 {
    let mut txn = Txn::new();
    txn.ops.push(Op::Put { key: key.to_owned(), value: value(text) });
    store.txn(txn).await.unwrap()
}

async fn delete(store: &Store<usize>, key: &str) -> u64 {
    let mut txn = Txn::new();
    txn.ops.push(Op::Delete { key: key.to_owned() });
    store.txn(txn).await.unwrap()
}

#[tokio::test]
async fn revisions_count_writes_and_stay_with_their_keys() {
    for Subject { engine, store, base, .. } in &subjects().await {
        assert_eq!(put(store, "/r/a/1", "x").await, base + 1, "{engine}");
        assert_eq!(put(store, "/r/a/2", "y").await, base + 2, "{engine}");
        assert_eq!(put(store, "/r/a/1", "long").await, base + 3, "{engine}");
        let entry = store.get("/r/a/1").unwrap();
        let found = (entry.create_revision, entry.mod_revision, entry.header);
        assert_eq!(found, (base + 1, base + 3, 4), "{engine}");
        assert_eq!(delete(store, "/r/a/absent").await, base + 3, "deleting nothing is no write ({engine})");
        assert_eq!(delete(store, "/r/a/1").await, base + 4, "{engine}");
        assert!(store.get("/r/a/1").is_none(), "{engine}");
    }
}

#[tokio::test]
async fn a_failed_compare_changes_nothing_and_shows_the_current_version() {
    for Subject { engine, store, base, .. } in &subjects().await {
        store.txn(Txn::create("/r/a/1", value("first"))).await.unwrap();
        let refused = store.txn(Txn::create("/r/a/1", value("second"))).await;
        let Err(TxnError::Conflict { current: Some(current), .. }) = refused else {
            panic!("{engine}: {refused:?}")
        };
        assert_eq!(current.value, "first", "{engine}");
        let both = Txn::new()
            .expect_revision("/r/a/2", 0, |key| Op::Put { key, value: value("new") })
            .expect_revision("/r/a/1", 9, |key| Op::Delete { key });
        assert!(matches!(store.txn(both).await, Err(TxnError::Conflict { .. })), "{engine}");
        assert!(store.get("/r/a/2").is_none(), "{engine}: half a transaction happened");
        assert_eq!(store.revision(), base + 1, "{engine}");
        store.txn(Txn::update("/r/a/1", base + 1, value("third"))).await.unwrap();
        store.txn(Txn::delete("/r/a/1", base + 2)).await.unwrap();
        assert_eq!(store.revision(), base + 3, "{engine}");
    }
}

#[tokio::test]
async fn events_of_one_transaction_come_together_under_one_revision() {
    for Subject { engine, store, base, .. } in &subjects().await {
        let mut cursor = store.watch("/r/a/", *base).unwrap();
        let mut txn = Txn::new();
        let keys: Vec<String> = (0..store::MAX_OPS).map(|n| format!("/r/a/{n:03}")).collect();
        txn.ops.extend(keys.iter().map(|key| Op::Put { key: key.clone(), value: value("x") }));
        assert_eq!(store.txn(txn).await.unwrap(), base + 1, "{engine}");
        let batch = cursor.next(usize::MAX).await.unwrap();
        let found: Vec<String> = batch.events.iter().map(|event| event.key.to_string()).collect();
        assert_eq!(found, keys, "{engine}");
        assert!(batch.events.iter().all(|event| event.revision == base + 1), "{engine}");
        let mut more = Txn::new();
        more.ops.extend((0..=store::MAX_OPS).map(|n| Op::Delete { key: format!("/r/a/{n:03}") }));
        assert!(matches!(store.txn(more).await, Err(TxnError::TooLarge { .. })), "{engine}");
    }
}

#[tokio::test]
async fn an_observer_sees_what_there_is_and_then_every_event_before_the_writer_goes_on() {
    for Subject { engine, store, .. } in &subjects().await {
        put(store, "/r/a/1", "there").await;
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        store.observe(move |event| {
            let now = event.entry.as_ref().map(|entry| entry.value.to_bytes());
            sink.lock().push((event.key.to_string(), now));
        });
        put(store, "/r/a/2", "new").await;
        delete(store, "/r/a/1").await;
        let want = [("/r/a/1", Some("there")), ("/r/a/2", Some("new")), ("/r/a/1", None)];
        let want: Vec<_> = want.map(|(key, text)| (key.to_owned(), text.map(value))).into();
        assert_eq!(*seen.lock(), want, "{engine}");
    }
}

#[tokio::test]
async fn entries_expire_unless_they_are_written_again() {
    for Subject { engine, store, .. } in &subjects().await {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for key in ["/r/e/1", "/r/e/2", "/r/e/3"] {
            store.txn(Txn::create(key, value("x")).expiring(now + 3600)).await.unwrap();
        }
        put(store, "/r/e/2", "for ever").await;
        store
            .txn(
                Txn::new()
                    .expect_revision("/r/e/3", store.revision() - 1, |key| Op::Put { key, value: value("y") })
                    .expiring(now + 7200),
            )
            .await
            .unwrap();
        if *engine == "etcd" {
            // etcd's clock cannot be turned; what counts is that the entries hang on leases, and on which.
            continue;
        }
        assert_eq!(store.expire(now + 3599).await.unwrap(), 0, "{engine}");
        assert_eq!(store.expire(now + 3600).await.unwrap(), 1, "{engine}");
        assert_eq!(
            keys(&store.range("/r/e/", None, 0, None).unwrap().entries),
            ["/r/e/2", "/r/e/3"],
            "{engine}"
        );
        assert_eq!(store.expire(now + 7200).await.unwrap(), 1, "{engine}");
        assert_eq!(store.expire(u64::MAX).await.unwrap(), 0, "{engine}");
        for n in 0..1000 {
            store.txn(Txn::create(format!("/r/e/many-{n}"), value("x")).expiring(now)).await.unwrap();
        }
        assert_eq!(store.expire(now).await.unwrap(), 1000, "{engine}");
        assert_eq!(keys(&store.range("/r/e/", None, 0, None).unwrap().entries), ["/r/e/2"], "{engine}");
    }
}

#[tokio::test]
async fn a_key_is_written_once_in_a_transaction() {
    for Subject { engine, store, base, .. } in &subjects().await {
        let mut txn = Txn::create("/r/a/1", value("x"));
        txn.ops.push(Op::Delete { key: "/r/a/1".to_owned() });
        assert!(matches!(store.txn(txn).await, Err(TxnError::Duplicate { .. })), "{engine}");
        assert_eq!(store.revision(), *base, "{engine}");
    }
}

#[tokio::test]
async fn pages_of_one_revision_show_one_moment() {
    for Subject { engine, store, base, .. } in &subjects().await {
        for name in ["a", "b", "c", "d"] {
            put(store, &format!("/r/x/{name}"), name).await;
        }
        put(store, "/r/y/other", "").await;
        let first = store.range("/r/x/", None, 2, None).unwrap();
        assert_eq!(
            (keys(&first.entries), first.more),
            (vec!["/r/x/a".into(), "/r/x/b".into()], true),
            "{engine}"
        );
        assert_eq!(store.count_after("/r/x/", "/r/x/b", None).unwrap(), 2, "{engine}");
        put(store, "/r/x/c", "changed").await;
        delete(store, "/r/x/d").await;
        put(store, "/r/x/e", "new").await;
        let second = store.range("/r/x/", Some("/r/x/b"), 2, Some(first.revision)).unwrap();
        assert_eq!((keys(&second.entries), second.more), (vec!["/r/x/c".into(), "/r/x/d".into()], false));
        assert_eq!(store.count_after("/r/x/", "/r/x/c", Some(first.revision)).unwrap(), 1, "{engine}");
        let changed = store.select("/r/x/", None, 1, None, |entry| entry.value == "changed").unwrap();
        assert_eq!((keys(&changed.entries), changed.more), (vec!["/r/x/c".into()], true), "{engine}");
        assert_eq!(second.entries[0].value, "c", "{engine}: the page shows a later write");
        assert_eq!(
            store.range("/r/x/", None, 0, Some(base + 99)).unwrap_err(),
            RangeError::Future { current: store.revision() },
            "{engine}"
        );
        store.compact(first.revision + 1);
        assert!(matches!(
            store.range("/r/x/", Some("/r/x/b"), 2, Some(first.revision)),
            Err(RangeError::Compacted(Compacted { oldest })) if oldest == first.revision + 1
        ));
    }
}

#[tokio::test]
async fn a_cursor_delivers_its_prefix_in_order_and_wakes_when_something_comes() {
    for Subject { engine, store, base, .. } in &subjects().await {
        let from = put(store, "/r/x/before", "").await;
        let mut cursor = store.watch("/r/x/", from).unwrap();
        assert!(cursor.read(10).unwrap().events.is_empty(), "{engine}");
        let writer = store.clone();
        let task = tokio::spawn(async move {
            put(&writer, "/r/y/other", "").await;
            put(&writer, "/r/x/1", "one").await;
            put(&writer, "/r/x/1", "two").await;
            delete(&writer, "/r/x/1").await
        });
        let mut seen = Vec::new();
        while seen.len() < 3 {
            for event in cursor.next(10).await.unwrap().events {
                let text =
                    |entry: &Option<Arc<store::Entry<usize>>>| entry.as_ref().map(|e| e.value.to_bytes());
                seen.push((event.revision, text(&event.previous), text(&event.entry)));
            }
        }
        let (one, two) = (Some(value("one")), Some(value("two")));
        let want = [(base + 3, None, one.clone()), (base + 4, one, two.clone()), (base + 5, two, None)];
        assert_eq!(seen, want, "{engine}");
        let last = task.await.unwrap();
        assert_eq!(cursor.read(10).unwrap().revision, last, "{engine}: idle cursors know how far they are");
    }
}

#[tokio::test]
async fn a_cursor_that_falls_off_the_log_says_so_but_foreign_events_do_not_push_it_off() {
    let options = Options { log_events: 4, log_bytes: 1 << 20, ..Options::default() };
    let store = Store::with_engine(Memory::default(), options, length).unwrap();
    let from = put(&store, "/r/x/0", "").await;
    let mut cursor: Cursor<usize> = store.watch("/r/x/", from).unwrap();
    for n in 0..10 {
        put(&store, &format!("/r/y/{n}"), "").await;
    }
    assert!(cursor.read(10).unwrap().events.is_empty());
    put(&store, "/r/x/1", "").await;
    assert_eq!(cursor.read(10).unwrap().events.len(), 1);
    for n in 0..10 {
        put(&store, &format!("/r/x/{n}"), "").await;
    }
    assert!(cursor.read(10).is_err(), "events of the prefix were dropped unread");
    assert!(store.watch("/r/x/", from).is_err());
    assert!(store.watch("/r/x/", store.revision()).is_ok());
}

#[tokio::test]
async fn a_failed_commit_changes_nothing_and_the_next_one_works() {
    let engine = Memory::default();
    let store = open(engine.clone());
    put(&store, "/r/a/1", "kept").await;
    let mut cursor = store.watch("/r/a/", 1).unwrap();
    engine.fail_after(0);
    let failed = store.txn(Txn::create("/r/a/2", value("lost"))).await;
    assert!(matches!(failed, Err(TxnError::Engine(_))), "{failed:?}");
    assert!(store.get("/r/a/2").is_none());
    assert!(cursor.read(10).unwrap().events.is_empty());
    assert_eq!(store.txn(Txn::create("/r/a/2", value("there"))).await.unwrap(), 2);
    drop(store);
    let reopened = open(engine);
    assert_eq!(reopened.get("/r/a/2").unwrap().value, "there");
}

#[tokio::test]
async fn a_reopened_store_is_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(Embedded::open(&path).unwrap());
    put(&store, "/r/a/1", "x").await;
    put(&store, "/r/a/2", "y").await;
    delete(&store, "/r/a/2").await;
    let held = Embedded::open(&path).err().map(|error| error.to_string()).unwrap();
    assert!(held.contains("in use"), "{held}");
    drop(store);
    let store = open(Embedded::open(&path).unwrap());
    assert_eq!(store.revision(), 3, "a deletion's revision is kept too");
    assert_eq!(keys(&store.range("/", None, 0, None).unwrap().entries), ["/r/a/1"]);
    let entry = store.get("/r/a/1").unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision), (1, 1));
    let missed = store.watch("/r/a/", 2).unwrap().read(9).unwrap().events;
    assert_eq!((missed.len(), missed[0].revision), (1, 3), "a client that missed something resumes");
}

#[test]
fn a_damaged_file_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, vec![7; 64 << 10]).unwrap();
    let error = Embedded::open(&path).err().unwrap().to_string();
    assert!(error.contains("store.redb") && error.contains("damaged"), "{error}");
}

/// What a step of the model test does to a key.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Update { key: u8, stale: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..6u8, any::<u8>()).prop_map(|(key, text)| Step::Put(key, text)),
        (0..6u8).prop_map(Step::Delete),
        (0..6u8, any::<bool>()).prop_map(|(key, stale)| Step::Update { key, stale }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A model map per revision: ranges at every revision and the replayed log agree with it.
async fn agrees_with_a_map(store: &Store<usize>, folder: &str, steps: Vec<Step>) {
    let base = store.revision();
    let key_of = |key: u8| format!("{folder}{key}");
    let mut cursor = store.watch(folder, base).unwrap();
    let mut model: BTreeMap<String, (Bytes, u64)> = BTreeMap::new();
    let mut history = vec![model.clone()];
    for step in steps {
        let before = store.revision();
        match step {
            Step::Put(key, text) => {
                let revision = put(store, &key_of(key), &text.to_string()).await;
                model.insert(key_of(key), (value(&text.to_string()), revision));
            }
            Step::Delete(key) => {
                delete(store, &key_of(key)).await;
                model.remove(&key_of(key));
            }
            Step::Update { key, stale } => {
                let current = model.get(&key_of(key)).map_or(0, |(_, revision)| *revision);
                let expected = if stale { current + 1 } else { current };
                let outcome = store.txn(Txn::update(key_of(key), expected, value("updated"))).await;
                assert_eq!(outcome.is_err(), stale);
                if let Ok(revision) = outcome {
                    model.insert(key_of(key), (value("updated"), revision));
                }
            }
        }
        if store.revision() > before {
            history.push(model.clone());
        }
    }
    for (after, model) in history.iter().enumerate() {
        let revision = base + after as u64;
        let page = store.range(folder, None, 0, Some(revision)).unwrap();
        let found: BTreeMap<_, _> = page
            .entries
            .iter()
            .map(|entry| (entry.key.to_string(), (entry.value.to_bytes(), entry.mod_revision)))
            .collect();
        assert_eq!(&found, model, "at revision {revision}");
    }
    let mut replayed: BTreeMap<String, (Bytes, u64)> = BTreeMap::new();
    for event in cursor.read(usize::MAX).unwrap().events {
        match &event.entry {
            Some(entry) => replayed.insert(event.key.to_string(), (entry.value.to_bytes(), event.revision)),
            None => replayed.remove(&*event.key),
        };
    }
    assert_eq!(replayed, model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_embedded_store_agrees_with_a_map(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { agrees_with_a_map(&open(Memory::default()), "/m/k/", steps).await });
    }
}

#[test]
fn the_store_over_etcd_agrees_with_a_map() {
    if !etcd_server::available() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let etcd = etcd_server::Etcd::start();
    let options = etcd.options("/");
    let store = runtime.block_on(Store::open_etcd(&options, Options::default(), length)).unwrap();
    let case = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    runner
        .run(&steps(), |steps| {
            case.set(case.get() + 1);
            runtime.block_on(agrees_with_a_map(&store, &format!("/m/{}/", case.get()), steps));
            Ok(())
        })
        .unwrap();
}
