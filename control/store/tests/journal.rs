//! The embedded engine's journals: what a crash leaves in them is read, and what is wrong with them is said.
//!
//! A crash is a copy of the files of a store that is open.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use store::{Embedded, Engine, Op, OpenError, Options, Store, Txn};

const FILES: [&str; 3] = ["store.redb", "store.journal-0", "store.journal-1"];
/// Where records begin.
const START: u64 = 4096;

fn open(folder: &Path) -> Result<Store<()>, OpenError> {
    Store::open(&folder.join(FILES[0]), Options::default(), |_, _| ())
}

/// Why a folder's store is refused.
fn refusal(folder: &Path) -> String {
    open(folder).expect_err("it should be refused").to_string()
}

async fn put(store: &Store<()>, key: &str, value: Vec<u8>) -> u64 {
    let mut txn = Txn::new();
    txn.ops.push(Op::Put { key: key.to_owned(), value: Bytes::from(value) });
    store.txn(txn).await.unwrap()
}

/// What a crash now would leave.
fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in FILES {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    copy
}

fn content(store: &Store<()>) -> Vec<(String, Bytes, u64)> {
    let page = store.range("/", None, 0, None).unwrap();
    page.entries
        .iter()
        .map(|entry| (entry.key.to_string(), entry.value.to_bytes(), entry.mod_revision))
        .collect()
}

/// A store with three writes in its journal, and the journal's file.
async fn journalled() -> (tempfile::TempDir, Store<()>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for n in 0..3 {
        put(&store, &format!("/r/{n}"), vec![b'v'; 1000]).await;
    }
    let used = FILES[1..].iter().find(|file| !is_empty(&folder.path().join(file))).unwrap();
    (folder, store, PathBuf::from(used))
}

fn is_empty(journal: &Path) -> bool {
    fs::read(journal).unwrap()[START as usize..].iter().all(|byte| *byte == 0)
}

#[tokio::test]
async fn a_crash_at_any_write_loses_nothing_while_journals_change_places() {
    const WRITES: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    // Each a sixteenth of a journal, so that they fill up several times; some keys are written again, one is deleted.
    for n in 0..WRITES {
        let last = put(&store, &format!("/r/{}", n % 7), vec![b'a' + (n % 26) as u8; 256 << 10]).await;
        if n % 10 == 9 {
            store.txn(Txn::delete(format!("/r/{}", n % 7), last)).await.unwrap();
        }
        if n % 6 == 0 {
            // While a journal is being emptied a copy is no moment's: wait until it is.
            while FILES[1..].iter().all(|file| !is_empty(&folder.path().join(file))) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let image = crashed(folder.path());
            let again = open(image.path()).unwrap();
            assert!(content(&again) == content(&store), "after write {n}");
            assert_eq!(again.revision(), store.revision());
            let last = put(&again, "/r/new", vec![1]).await;
            assert_eq!(last, store.revision() + 1);
        }
    }
    let told = |store: &Store<()>, from| {
        let batch = store.watch("/", from).unwrap().read(usize::MAX).unwrap();
        batch.events.iter().map(|event| (event.revision, event.key.to_string())).collect::<Vec<_>>()
    };
    let again_folder = crashed(folder.path());
    let again = open(again_folder.path()).unwrap();
    let from = again.watch("/", 0).map_or_else(|compacted| compacted.oldest, |_| 0);
    assert_eq!(told(&again, from), told(&store, from), "history goes on");
}

#[tokio::test]
async fn a_store_that_was_closed_is_complete_without_its_journals() {
    let (folder, store, _) = journalled().await;
    let want = content(&store);
    drop(store);
    for journal in &FILES[1..] {
        assert!(is_empty(&folder.path().join(journal)), "{journal}");
        fs::remove_file(folder.path().join(journal)).unwrap();
    }
    assert_eq!(content(&open(folder.path()).unwrap()), want);
}

#[tokio::test]
async fn a_commit_larger_than_a_journal_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    put(&store, "/r/small", vec![1]).await;
    let mut txn = Txn::new();
    txn.ops.extend((0..5).map(|n| Op::Put { key: format!("/r/{n}"), value: Bytes::from(vec![n; 1 << 20]) }));
    store.txn(txn).await.unwrap();
    put(&store, "/r/after", vec![2]).await;
    let image = crashed(folder.path());
    assert_eq!(content(&open(image.path()).unwrap()), content(&store));
}

#[tokio::test]
async fn half_a_last_write_is_left_out() {
    let (folder, store, journal) = journalled().await;
    let whole = fs::read(folder.path().join(&journal)).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let want = content(&store);
    for cut in [end, end - 600] {
        let image = crashed(folder.path());
        let file = fs::OpenOptions::new().write(true).open(image.path().join(&journal)).unwrap();
        file.write_all_at(&vec![0; whole.len() - cut], cut as u64).unwrap();
        let again = open(image.path()).unwrap();
        assert_eq!(content(&again), want[..2], "cut at {cut} of {end}");
        // Its revision was nobody's, and what comes now stands in its place.
        assert_eq!(put(&again, "/r/9", vec![9]).await, 3);
        let image = crashed(image.path());
        assert_eq!(content(&open(image.path()).unwrap()), content(&again));
    }
}

#[tokio::test]
async fn damaged_journals_are_refused_with_their_name() {
    let (folder, _store, journal) = journalled().await;
    let name = journal.to_str().unwrap();
    for at in [0, START + 5, START + 500, START + 1500] {
        let image = crashed(folder.path());
        let path = image.path().join(&journal);
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let error = refusal(image.path());
        assert!(error.contains(name) && error.contains("damaged"), "at {at}: {error}");
    }
    for size in [0, 5000] {
        let image = crashed(folder.path());
        let path = image.path().join(&journal);
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
        let error = refusal(image.path());
        assert!(error.contains(name) && error.contains("bytes, not"), "{error}");
    }
    for gone in &FILES[1..] {
        let image = crashed(folder.path());
        fs::remove_file(image.path().join(gone)).unwrap();
        let error = refusal(image.path());
        assert!(error.contains(gone) && error.contains("missing"), "{error}");
    }
}

#[tokio::test]
async fn journals_of_another_file_are_not_touched() {
    let (folder, store, journal) = journalled().await;
    let (other, _other_store, other_journal) = journalled().await;
    let image = crashed(folder.path());
    // The file was moved away, and its journals were not.
    fs::remove_file(image.path().join(FILES[0])).unwrap();
    let before = fs::read(image.path().join(&journal)).unwrap();
    let error = refusal(image.path());
    assert!(error.contains(journal.to_str().unwrap()) && error.contains("another store file"), "{error}");
    assert!(fs::read(image.path().join(&journal)).unwrap() == before);
    // The file was put back.
    fs::copy(crashed(folder.path()).path().join(FILES[0]), image.path().join(FILES[0])).unwrap();
    assert_eq!(content(&open(image.path()).unwrap()), content(&store));
    // It has somebody else's journal.
    let image = crashed(folder.path());
    fs::copy(other.path().join(&other_journal), image.path().join(&journal)).unwrap();
    let error = refusal(image.path());
    assert!(error.contains("belongs to another"), "{error}");
}

#[tokio::test]
async fn an_older_file_under_newer_journals_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    put(&store, "/r/a", vec![1]).await;
    let early = crashed(folder.path());
    for n in 0..20 {
        put(&store, &format!("/r/{n}"), vec![b'v'; 512 << 10]).await;
    }
    while FILES[1..].iter().all(|file| !is_empty(&folder.path().join(file))) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let image = crashed(folder.path());
    fs::copy(early.path().join(FILES[0]), image.path().join(FILES[0])).unwrap();
    let error = refusal(image.path());
    assert!(error.contains("damaged"), "{error}");
}

#[tokio::test]
async fn the_engine_is_read_again_where_it_was_left() {
    let (folder, store, _) = journalled().await;
    let image = crashed(folder.path());
    let mut engine = Embedded::open(&image.path().join(FILES[0])).unwrap();
    let mut keys = Vec::new();
    assert_eq!(engine.load(&mut |record| keys.push(record.key)).unwrap(), store.revision());
    assert_eq!(keys, ["/r/0", "/r/1", "/r/2"]);
    assert_eq!(engine.history().unwrap().len(), 1, "the three rows are one now");
}
