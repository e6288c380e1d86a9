//! Members that die, connections that break, an etcd that is full, forgetful or older than it was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, CompactionOptions};
use store::{Compacted, Options, Store, Txn, TxnError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::etcd_server::{self, Etcd};
use super::{ROOT, open, put, text};

/// Forwards TCP connections to etcd until it is cut; then refuses them until it is mended.
struct Wire {
    address: SocketAddr,
    broken: tokio::sync::watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Wire {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let broken = tokio::sync::watch::Sender::new(false);
        let mut state = broken.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections: JoinSet<()> = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (mut near, _) = accepted.unwrap();
                        if *state.borrow() {
                            continue;
                        }
                        let target = target.clone();
                        connections.spawn(async move {
                            let mut far = TcpStream::connect(target).await.unwrap();
                            // Either end may close as it likes.
                            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                        });
                    }
                    _ = state.changed() => if *state.borrow() { connections.abort_all() }
                }
            }
        });
        Self { address, broken, _task: task }
    }

    /// Breaks it, and returns when the store has noticed: nothing that happens now arrives there.
    async fn cut(&self, store: &Store<()>) {
        self.broken.send_replace(true);
        for _ in 0..1000 {
            if !store.is_connected() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the store does not notice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_etcd_is_away_and_watches_resume_without_a_gap() {
    if !etcd_server::available() {
        return;
    }
    let mut etcd = Etcd::start();
    let store = open(&etcd.options(ROOT)).await;
    let from = store.txn(put("/registry/a/x", "before")).await.unwrap();
    let mut cursor = store.watch("/registry/a/", from).unwrap();
    etcd.kill(0);
    assert_eq!(text(&store, "/registry/a/x").unwrap(), "before");
    let refused = store.sync().await.unwrap_err().to_string();
    assert!(!store.is_connected());
    assert!(refused.contains("does not answer"), "{refused}");
    let refused = store.txn(put("/registry/a/x", "lost")).await.unwrap_err();
    assert!(matches!(refused, TxnError::Engine(_)), "nothing was sent, so nothing is unknown: {refused:?}");
    etcd.start_member(0);
    store.sync().await.unwrap();
    store.txn(put("/registry/a/x", "after")).await.unwrap();
    assert!(store.is_connected());
    let events = cursor.read(10).unwrap().events;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].previous.as_ref().unwrap().value, "before");
    assert_eq!(events[0].entry.as_ref().unwrap().value, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_behind_a_broken_connection_arrives_when_it_is_mended() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let direct = etcd.options(ROOT);
    let wire = Wire::to(direct.endpoints[0].trim_start_matches("http://").to_owned()).await;
    let mut indirect = direct.clone();
    indirect.endpoints = vec![format!("http://{}", wire.address)];
    let (store, other) = (open(&indirect).await, open(&direct).await);
    let from = store.revision();
    let mut cursor = store.watch("/registry/a/", from).unwrap();
    wire.cut(&store).await;
    for n in 0..50 {
        other.txn(put(&format!("/registry/a/{n}"), "x")).await.unwrap();
    }
    wire.broken.send_replace(false);
    store.sync().await.unwrap();
    let revisions: Vec<u64> = cursor.read(100).unwrap().events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (from + 1..=from + 50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_etcd_forgot_before_they_were_read_push_every_cursor_off() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let direct = etcd.options(ROOT);
    let wire = Wire::to(direct.endpoints[0].trim_start_matches("http://").to_owned()).await;
    let mut indirect = direct.clone();
    indirect.endpoints = vec![format!("http://{}", wire.address)];
    let (store, other) = (open(&indirect).await, open(&direct).await);
    other.txn(put("/registry/a/gone", "x")).await.unwrap();
    other.txn(put("/registry/a/kept", "x")).await.unwrap();
    store.sync().await.unwrap();
    let mut cursor = store.watch("/registry/a/", store.revision()).unwrap();
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    store.observe(move |event| sink.lock().push((event.key.to_string(), event.entry.is_some())));
    told.lock().clear();
    wire.cut(&store).await;
    other.txn(Txn::delete("/registry/a/gone", other.revision() - 1)).await.unwrap();
    other.txn(put("/registry/a/new", "x")).await.unwrap();
    let mut client = Client::connect(&direct.endpoints, None).await.unwrap();
    let latest = other.revision().cast_signed();
    client.compact(latest, Some(CompactionOptions::new().with_physical())).await.unwrap();
    wire.broken.send_replace(false);
    store.sync().await.unwrap();
    let found: Vec<String> = store
        .range("/registry/a/", None, 0, None)
        .unwrap()
        .entries
        .iter()
        .map(|e| e.key.to_string())
        .collect();
    assert_eq!(found, ["/registry/a/kept", "/registry/a/new"]);
    assert!(matches!(cursor.read(10), Err(Compacted { .. })), "a cursor went on over a gap");
    assert!(store.watch("/registry/a/", store.revision()).unwrap().read(10).unwrap().events.is_empty());
    assert_eq!(*told.lock(), [("/registry/a/gone".to_owned(), false), ("/registry/a/new".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_members_loses_no_confirmed_write() {
    if !etcd_server::available() {
        return;
    }
    let mut etcd = Etcd::with(3, None, &[]);
    let store = open(&etcd.options(ROOT)).await;
    // A write that is on its way to a leader when that dies is waited for by etcd for six seconds, and then unknown.
    let (mut confirmed, mut unknown) = (Vec::new(), 0);
    for n in 0..60 {
        if n % 20 == 10 {
            etcd.kill(n / 20);
        } else if n % 20 == 0 && n > 0 {
            etcd.start_member(n / 20 - 1);
        }
        let key = format!("/registry/a/{n}");
        match store.txn(Txn::create(&key, Bytes::from_static(b"x"))).await {
            Ok(revision) => confirmed.push((key, revision)),
            Err(TxnError::Unknown) => unknown += 1,
            Err(error) => panic!("write {n}: {error:?}"),
        }
    }
    assert!(confirmed.len() > 50, "{} confirmed, {unknown} unknown", confirmed.len());
    let fresh = open(&etcd.options(ROOT)).await;
    store.sync().await.unwrap();
    for (key, revision) in &confirmed {
        for store in [&store, &fresh] {
            assert_eq!(store.get(key).map(|entry| entry.mod_revision), Some(*revision), "{key}");
        }
    }
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_and_goes_on_reading() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::with(1, None, &["--quota-backend-bytes=1048576"]);
    let store = open(&etcd.options(ROOT)).await;
    let value = Bytes::from(vec![7; 256 << 10]);
    let mut written = 0;
    let refused = loop {
        match store.txn(Txn::create(format!("/registry/a/{written}"), value.clone())).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, TxnError::Full), "{refused:?}");
    store.sync().await.unwrap();
    // etcd carries out the one write that it finds itself full with, and says that it did not.
    assert!((written..=written + 1).contains(&store.count("/registry/a/")));
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_as_such() {
    if !etcd_server::available() {
        return;
    }
    let etcd = Etcd::start();
    let store = open(&etcd.options(ROOT)).await;
    let value = Bytes::from(vec![7; 2 << 20]);
    let refused = store.txn(Txn::create("/registry/a/large", value)).await.unwrap_err();
    assert!(matches!(refused, TxnError::TooLarge { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_went_back_in_time_is_noticed() {
    if !etcd_server::available() {
        return;
    }
    let first = Etcd::start();
    let second = Etcd::start();
    let store = {
        let wire = Wire::to(first.options(ROOT).endpoints[0].trim_start_matches("http://").to_owned()).await;
        let mut both = first.options(ROOT);
        both.endpoints = vec![format!("http://{}", wire.address)];
        let store = open(&both).await;
        for _ in 0..20 {
            store.txn(put("/registry/a/x", "x")).await.unwrap();
        }
        let address = wire.address;
        drop(wire);
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The same address leads to another, younger etcd now.
        let listener = TcpListener::bind(address).await.unwrap();
        let target = second.options(ROOT).endpoints[0].trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                });
            }
        });
        store
    };
    let error = store.sync().await.unwrap_err().to_string();
    assert!(error.contains("went back"), "{error}");
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named_at_open() {
    let options = store::EtcdOptions {
        endpoints: vec!["http://127.0.0.1:1".to_owned()],
        tls: None,
        root: ROOT.to_owned(),
        codec: store::Codec::PLAIN,
    };
    let opened: Result<Store<()>, _> = Store::open_etcd(&options, Options::default(), |_, _| ()).await;
    let error = anyhow::Error::new(opened.unwrap_err());
    assert!(format!("{error:#}").contains("read from etcd"), "{error:#}");
}
