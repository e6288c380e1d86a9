//! A store that opens again knows what happened before: watches and ranges at a revision go on as if it had never closed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use store::{Commit, Embedded, Engine, Event, Memory, Op, Options, Store, Txn};

fn open(engine: impl Engine) -> Store<usize> {
    Store::with_engine(engine, Options::default(), |_, value| value.len()).unwrap()
}

fn redb(folder: &Path) -> Embedded {
    Embedded::open(&folder.join("store.redb")).unwrap()
}

/// Everything an event says, to be compared.
fn told(event: &Event<usize>) -> String {
    let version = |entry: &Option<Arc<store::Entry<usize>>>| {
        entry.as_ref().map(|entry| {
            (entry.value.to_bytes(), entry.create_revision, entry.mod_revision, entry.expires, entry.header)
        })
    };
    format!("{} {} {:?} {:?}", event.revision, event.key, version(&event.entry), version(&event.previous))
}

fn events(store: &Store<usize>, from: u64) -> Vec<String> {
    let batch = store.watch("/", from).unwrap().read(usize::MAX).unwrap();
    assert_eq!(batch.revision, store.revision());
    batch.events.iter().map(|event| told(event)).collect()
}

fn range(store: &Store<usize>, at: u64) -> Vec<(String, Bytes)> {
    let page = store.range("/", None, 0, Some(at)).unwrap();
    page.entries.iter().map(|entry| (entry.key.to_string(), entry.value.to_bytes())).collect()
}

/// A transaction: the keys it puts (with the length of the value) and deletes, each once.
fn step() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    proptest::collection::btree_map(0..6_u8, proptest::option::weighted(0.7, 0..40_u8), 1..4)
        .prop_map(|ops| ops.into_iter().collect())
}

fn transaction(step: &[(u8, Option<u8>)]) -> Txn {
    let mut txn = Txn::new();
    txn.expires = 4_000_000_000;
    txn.ops.extend(step.iter().map(|(key, length)| {
        let key = format!("/r/{key}");
        match length {
            Some(length) => Op::Put { key, value: Bytes::from(vec![b'x'; usize::from(*length)]) },
            None => Op::Delete { key },
        }
    }));
    txn
}

/// Carries the steps out, some at once, so that groups form, some one by one; closing and opening the store in between.
async fn compare<E: Engine>(steps: &[Vec<(u8, Option<u8>)>], engine: impl Fn() -> E) {
    let mut before: Vec<String> = Vec::new();
    for (number, part) in steps.chunks(7).enumerate() {
        let store = open(engine());
        assert_eq!(events(&store, 0), before);
        if number % 2 == 0 {
            futures::future::join_all(part.iter().map(|step| store.txn(transaction(step)))).await;
        } else {
            for step in part {
                store.txn(transaction(step)).await.unwrap();
            }
        }
        before = events(&store, 0);
        let ranges: Vec<_> = (0..=store.revision()).map(|at| range(&store, at)).collect();
        drop(store);
        let again = open(engine());
        for (at, want) in (0..).zip(&ranges) {
            assert_eq!(&range(&again, at), want, "at {at}");
            assert!(before.ends_with(&events(&again, at)), "from {at}");
        }
    }
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_store_that_opens_again_tells_the_same(steps in proptest::collection::vec(step(), 1..30)) {
        let memory = Memory::default();
        current_thread().block_on(compare(&steps, || memory.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]
    #[test]
    fn a_file_that_is_opened_again_tells_the_same(steps in proptest::collection::vec(step(), 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        current_thread().block_on(compare(&steps, || redb(folder.path())));
    }
}

#[tokio::test]
async fn the_file_keeps_the_newest_history_only() {
    const WRITES: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let store = open(redb(folder.path()));
    for _ in 0..WRITES {
        let mut txn = Txn::new();
        txn.ops.push(Op::Put { key: "/r/a".to_owned(), value: Bytes::from(vec![b'x'; 256 << 10]) });
        store.txn(txn).await.unwrap();
    }
    drop(store);
    let store = open(redb(folder.path()));
    let oldest = store.watch("/", 0).unwrap_err().oldest;
    assert!((WRITES - 81..=WRITES - 63).contains(&oldest), "{oldest}");
    assert_eq!(events(&store, oldest).len() as u64, WRITES - oldest);
    drop(store);
    let rows = redb(folder.path()).history().unwrap().len();
    assert!((63..=81).contains(&rows), "{rows} rows of a quarter of a megabyte");
}

#[tokio::test]
async fn a_group_that_replaces_more_than_is_kept_ends_the_history() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(redb(folder.path()));
    let keys: Vec<String> = (0..18).map(|n| format!("/r/{n}")).collect();
    for key in &keys {
        let mut txn = Txn::new();
        txn.ops.push(Op::Put { key: key.clone(), value: Bytes::from(vec![b'x'; 1 << 20]) });
        store.txn(txn).await.unwrap();
    }
    let mut all = Txn::new();
    all.ops.extend(keys.into_iter().map(|key| Op::Delete { key }));
    let last = store.txn(all).await.unwrap();
    drop(store);
    let store = open(redb(folder.path()));
    assert_eq!(store.revision(), last);
    assert_eq!(store.watch("/", last - 1).unwrap_err().oldest, last);
}

#[tokio::test]
async fn history_with_a_gap_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(redb(folder.path()));
    store.txn(transaction(&[(1, Some(1))])).await.unwrap();
    drop(store);
    // A program that keeps no history writes.
    let nothing = Commit { revision: 2, puts: &[], deletes: &["/r/1".to_owned()], history: &[] };
    redb(folder.path()).commit(&nothing).unwrap();
    let store = open(redb(folder.path()));
    assert_eq!(store.watch("/", 1).unwrap_err().oldest, 2);
    store.txn(transaction(&[(2, Some(1))])).await.unwrap();
    drop(store);
    let store = open(redb(folder.path()));
    assert_eq!(store.watch("/", 1).unwrap_err().oldest, 2);
    assert_eq!(events(&store, 2).len(), 1);
}
