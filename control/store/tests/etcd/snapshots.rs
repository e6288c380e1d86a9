//! Snapshots move a store between engines, whole or not at all.

use bytes::Bytes;
use store::snapshot::{Reader, Snapshot, SnapshotError, UNKNOWN_LIFETIME, verify};
use store::{
    Embedded, EngineError, OpenError, Options, RestoreError, RestoreFileError, Store, Txn, restore_etcd,
};

use super::etcd_server::{self, Etcd};
use super::{ROOT, open};

const NOW: u64 = 1_800_000_000;

fn bytes(snapshot: Snapshot<()>) -> Vec<u8> {
    snapshot.into_pieces().flatten().collect()
}

/// A store with a few hundred entries of all sizes, some deleted, one that expires late and one early.
async fn filled() -> Store<()> {
    let store: Store<()> = Store::in_memory(Options::default(), |_, _| ()).unwrap();
    for n in 0..300_usize {
        let value = Bytes::from(vec![u8::try_from(n % 251).unwrap(); n * 17]);
        store.txn(Txn::create(format!("/registry/a/{n:04}"), value)).await.unwrap();
    }
    for n in 0..20 {
        store.txn(Txn::delete(format!("/registry/a/{n:04}"), n + 1)).await.unwrap();
    }
    let x = || Bytes::from_static(b"x");
    store.txn(Txn::create("/registry/events/late", x()).expiring(u64::MAX >> 20)).await.unwrap();
    store.txn(Txn::create("/registry/events/early", x()).expiring(NOW)).await.unwrap();
    store
}

fn content(store: &Store<()>) -> Vec<(String, Bytes)> {
    let page = store.range(ROOT, None, 0, None).unwrap();
    page.entries.iter().map(|entry| (entry.key.to_string(), entry.value.to_bytes())).collect()
}

#[tokio::test]
async fn a_file_made_from_a_snapshot_holds_the_same_at_later_revisions() {
    let store = filled().await;
    let snapshot = bytes(store.snapshot());
    let summary = verify(&snapshot[..]).unwrap();
    assert_eq!((summary.revision, summary.entries), (store.revision(), 282));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let revision = Embedded::restore(&path, &mut Reader::new(&snapshot[..]).unwrap(), 1000, NOW).unwrap();
    assert_eq!(revision, store.revision() + 1000);
    let restored: Store<()> = Store::open(&path, Options::default(), |_, _| ()).unwrap();
    assert_eq!(content(&restored), content(&store));
    assert_eq!(restored.revision(), revision);
    let early = restored.get("/registry/events/early").unwrap();
    assert_eq!(
        (early.expires, early.mod_revision),
        (NOW, store.get("/registry/events/early").unwrap().mod_revision)
    );
    assert!(restored.watch(ROOT, store.revision()).is_err(), "what happened since is not known");
    let fewer = verify(&bytes(store.snapshot().without("/registry/events/"))[..]).unwrap();
    assert_eq!(fewer.entries, 280);
    let again = Embedded::restore(&path, &mut Reader::new(&snapshot[..]).unwrap(), 0, NOW);
    assert!(matches!(again, Err(RestoreFileError::Exists { .. })), "{again:?}");
}

#[tokio::test]
async fn a_cluster_moves_to_etcd_and_back_by_snapshot() {
    if !etcd_server::available() {
        return;
    }
    let store = filled().await;
    let before = content(&store);
    let etcd = Etcd::start();
    let snapshot = bytes(store.snapshot());
    let mut reader = Reader::new(&snapshot[..]).unwrap();
    let revision = restore_etcd(&etcd.options(ROOT), &mut reader, 500, NOW).await.unwrap();
    assert!(revision > store.revision() + 500, "clients have seen {} already", store.revision());
    let moved = open(&etcd.options(ROOT)).await;
    let there = content(&moved);
    let kept: Vec<_> = before.into_iter().filter(|(key, _)| key != "/registry/events/early").collect();
    assert_eq!(there, kept, "all but what had expired");
    let refused = restore_etcd(&etcd.options(ROOT), &mut Reader::new(&snapshot[..]).unwrap(), 0, NOW).await;
    assert!(matches!(refused, Err(RestoreError::NotEmpty { .. })), "{refused:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let snapshot = bytes(moved.snapshot());
    Embedded::restore(&path, &mut Reader::new(&snapshot[..]).unwrap(), 0, NOW).unwrap();
    let back: Store<()> = Store::open(&path, Options::default(), |_, _| ()).unwrap();
    assert_eq!(content(&back), there);
    let late = back.get("/registry/events/late").unwrap();
    assert_eq!(late.expires, NOW + UNKNOWN_LIFETIME, "etcd knew, its reader did not");
    assert_eq!(back.get("/registry/a/0100").unwrap().expires, 0);
}

#[tokio::test]
async fn a_restore_that_was_cut_keeps_servers_from_starting() {
    if !etcd_server::available() {
        return;
    }
    let snapshot = bytes(filled().await.snapshot());
    let cut = &snapshot[..snapshot.len() / 2];
    let etcd = Etcd::start();
    let outcome = restore_etcd(&etcd.options(ROOT), &mut Reader::new(cut).unwrap(), 0, NOW).await;
    assert!(matches!(outcome, Err(RestoreError::Snapshot(SnapshotError::Cut))), "{outcome:?}");
    let opened: Result<Store<()>, _> =
        Store::open_etcd(&etcd.options(ROOT), Options::default(), |_, _| ()).await;
    assert!(matches!(opened, Err(OpenError::Engine(EngineError::HalfRestored))), "{opened:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    assert!(Embedded::restore(&path, &mut Reader::new(cut).unwrap(), 0, NOW).is_err());
    assert!(!path.exists(), "half a file took the name of a whole one");
    Embedded::restore(&path, &mut Reader::new(&snapshot[..]).unwrap(), 0, NOW).unwrap();
}

#[tokio::test]
async fn no_damage_to_a_snapshot_goes_unnoticed() {
    let store: Store<()> = Store::in_memory(Options::default(), |_, _| ()).unwrap();
    for key in ["/registry/a/1", "/registry/a/2"] {
        store.txn(Txn::create(key, Bytes::from_static(b"value"))).await.unwrap();
    }
    let good = bytes(store.snapshot());
    verify(&good[..]).unwrap();
    for end in 0..good.len() {
        assert!(verify(&good[..end]).is_err(), "cut at {end}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&bad[..]).is_err(), "bit {bit}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(verify(&longer[..]), Err(SnapshotError::Damaged(_))));
    assert!(matches!(verify(&b"PK\x03\x04 this is something else"[..]), Err(SnapshotError::Magic)));
}
