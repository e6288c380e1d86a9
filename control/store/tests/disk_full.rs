//! A full disk, for real: a small tmpfs in a mount namespace of the test's own.

use std::path::Path;

use bytes::Bytes;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use store::{Options, Store, Txn, TxnError};

const NONE: Option<&str> = None;

/// Runs `test` with a folder for disks, where it may mount.
fn with_disks(test: fn(&Path)) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the full-disk tests need root, and CI must have it");
        println!("skipped: the full-disk tests need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    // A thread of its own: the namespace is the thread's, and the store's threads inherit it.
    let in_its_namespace = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        test(&path);
    };
    std::thread::spawn(in_its_namespace).join().unwrap();
}

/// A disk of some KiB at `path`; one that is there gets another size.
fn disk(path: &Path, kib: u64, flags: MsFlags) {
    std::fs::create_dir_all(path).unwrap();
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(&*format!("size={kib}k"))).unwrap();
}

fn open(folder: &Path) -> Store<()> {
    Store::open(&folder.join("store.redb"), Options::default(), |_, _| ()).unwrap()
}

fn create(store: &Store<()>, n: usize) -> Result<u64, TxnError<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.txn(Txn::create(format!("/full/k/{n:04}"), vec![7; 32 << 10].into())))
}

/// Writes until the disk is full; how often that went well.
fn fill(store: &Store<()>, from: usize) -> usize {
    for n in from..from + 2000 {
        match create(store, n) {
            Ok(_) => {}
            Err(TxnError::Full) => return n,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the disk never filled up");
}

fn content(store: &Store<()>) -> Vec<(String, Bytes, u64)> {
    let page = store.range("/full/k/", None, 0, None).unwrap();
    page.entries
        .iter()
        .map(|entry| (entry.key.to_string(), entry.value.to_bytes(), entry.mod_revision))
        .collect()
}

#[test]
fn a_full_disk_refuses_writes_keeps_reading_and_recovers() {
    with_disks(|folder| {
        // Without room for journals, and with it.
        for kib in [2 << 10, 6 << 10, 16 << 10] {
            let folder = folder.join(kib.to_string());
            disk(&folder, kib, MsFlags::empty());
            let store = open(&folder);
            assert_eq!(folder.join("store.journal-0").exists(), kib > 8 << 10);
            let written = fill(&store, 0);
            assert!(written > 0);
            assert_eq!(content(&store).len(), written, "reads go on");
            assert!(matches!(create(&store, written), Err(TxnError::Full)), "it stays full");

            disk(&folder, 64 << 10, MsFlags::MS_REMOUNT);
            create(&store, written).expect("there is room again");
            let want = content(&store);
            drop(store);
            let store = open(&folder);
            assert_eq!(want.len(), written + 1);
            assert!(content(&store) == want, "nothing acknowledged was lost");
        }
    });
}

#[test]
fn a_store_opens_on_a_full_disk_with_what_its_journals_hold() {
    with_disks(|folder| {
        let (first, crashed) = (folder.join("first"), folder.join("crashed"));
        disk(&first, 16 << 10, MsFlags::empty());
        let store = open(&first);
        let written = fill(&store, 0);
        let want = content(&store);
        // The files as a crash leaves them, and hardly a byte beside them.
        let files = || std::fs::read_dir(&first).unwrap().map(|file| file.unwrap());
        let kib: u64 = files().map(|file| file.metadata().unwrap().len().div_ceil(4096) * 4).sum();
        disk(&crashed, kib + 8, MsFlags::empty());
        for file in files() {
            std::fs::copy(file.path(), crashed.join(file.file_name())).unwrap();
        }

        let again = open(&crashed);
        assert!(content(&again) == want, "what was acknowledged is there");
        assert_eq!(again.revision(), store.revision());
        let oldest = |store: &Store<()>| store.watch("/", 0).map_or_else(|gone| gone.oldest, |_| 0);
        assert_eq!(oldest(&again), oldest(&store), "and its history");
        let written = fill(&again, written);
        disk(&crashed, 64 << 10, MsFlags::MS_REMOUNT);
        create(&again, written).expect("there is room again");
        let want = content(&again);
        drop(again);
        assert!(content(&open(&crashed)) == want);
    });
}
