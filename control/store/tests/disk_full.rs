//! A full disk, for real: a tmpfs of two MiB in a mount namespace of the test's own.

use std::path::Path;

use bytes::Bytes;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use store::{Options, Store, Txn, TxnError};

#[test]
fn a_full_disk_refuses_writes_keeps_reading_and_recovers() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the full-disk test needs root, and CI must have it");
        println!("skipped: the full-disk test needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    // A thread of its own: the namespace is the thread's, and the store's writer inherits it.
    std::thread::spawn(move || in_a_small_disk(&path)).join().unwrap();
}

fn in_a_small_disk(folder: &Path) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=2m")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let path = folder.join("store.redb");
    let store = Store::open(&path, Options::default(), |_, _| ()).unwrap();
    let value = Bytes::from(vec![7; 32 << 10]);
    let create = |store: &Store<()>, n: usize| {
        runtime.block_on(store.txn(Txn::create(format!("/full/k/{n}"), value.clone())))
    };

    let mut written = 0;
    let refused = loop {
        match create(&store, written) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "two MiB never filled up");
    };
    assert!(matches!(refused, TxnError::Full), "{refused:?}");
    assert!(written > 0);
    let count = |store: &Store<()>| store.range("/full/k/", None, 0, None).unwrap().entries.len();
    assert_eq!(count(&store), written, "reads go on");
    assert!(matches!(create(&store, written), Err(TxnError::Full)), "it stays full");

    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=16m")).unwrap();
    create(&store, written).expect("there is room again");
    drop(store);
    let store = Store::open(&path, Options::default(), |_, _| ()).unwrap();
    assert_eq!(count(&store), written + 1, "nothing acknowledged was lost");
}
