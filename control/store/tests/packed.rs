//! Values that lie in memory compressed are told, listed, kept and written out like all others.

use std::path::Path;

use bytes::Bytes;
use store::{Entry, Op, Options, Store, Txn, snapshot};

const KEY: &str = "/r/large/a";

/// What repeats itself, with something of its own.
fn text(of: &str) -> Bytes {
    Bytes::from(format!("{of}: {}", "a word, and again ".repeat(3000)))
}

fn open(folder: &Path) -> Store<usize> {
    let options = Options { packed: Some("/r/large/"), ..Options::default() };
    Store::open(&folder.join("store.redb"), options, |_, value| value.len()).unwrap()
}

async fn put(store: &Store<usize>, key: &str, of: &str) {
    let mut txn = Txn::new();
    txn.ops.push(Op::Put { key: key.to_owned(), value: text(of) });
    store.txn(txn).await.unwrap();
}

fn is_small(entry: &Entry<usize>) -> bool {
    entry.value.weight() * 20 < entry.value.len()
}

#[tokio::test]
async fn large_values_are_the_same_from_memory_from_disk_and_from_history() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for (key, of) in [(KEY, "first"), ("/r/other/a", "first"), (KEY, "second")] {
        put(&store, key, of).await;
    }
    let other = store.get("/r/other/a").unwrap();
    assert_eq!((&other.value, is_small(&other)), (&text("first").into(), false));
    drop(store);
    let again = open(folder.path());
    let now = again.get(KEY).unwrap();
    assert_eq!(
        (&now.value, now.header, is_small(&now)),
        (&text("second").into(), text("second").len(), true)
    );
    let events = again.watch(KEY, 1).unwrap().read(10).unwrap().events;
    let before = events.last().unwrap().previous.as_ref().unwrap();
    assert_eq!((&before.value, is_small(before)), (&text("first").into(), true));
    let whole: Vec<u8> = again.snapshot().into_pieces().flatten().collect();
    assert_eq!(snapshot::verify(&*whole).unwrap().bytes as usize, text("first").len() + text("second").len());
}

#[tokio::test]
async fn what_was_just_written_is_small_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, KEY, "first").await;
    let entry = store.get(KEY).unwrap();
    assert!(is_small(&entry), "{} of {} bytes", entry.value.weight(), entry.value.len());
    assert_eq!(entry.value, text("first"));
}
