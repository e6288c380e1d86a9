//! kill -9 at random points: what was acknowledged is there afterwards, whole and at its revision.
//!
//! The test starts itself as a child process that writes and reports every acknowledged write on standard output, kills
//! the child at a random moment, and opens the store again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use store::{Op, Options, Store, Txn};

const CHILD: &str = "STORE_CRASH_CHILD";
const ROUNDS: usize = 12;
const WRITERS: usize = 8;

fn open(path: &Path) -> Store<()> {
    Store::open(path, Options::default(), |_, _| ()).unwrap()
}

#[test]
fn an_acknowledged_write_survives_kill_9() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    for round in 0..ROUNDS {
        let before = acknowledged.len();
        run_and_kill(&path, &mut acknowledged);
        assert!(acknowledged.len() > before, "round {round} wrote nothing");
        let store = open(&path);
        for (key, revision) in &acknowledged {
            let entry =
                store.get(key).unwrap_or_else(|| panic!("round {round}: {key} was acknowledged and is gone"));
            assert_eq!(entry.mod_revision, *revision, "round {round}: {key}");
            assert!(entry.value == value(key), "round {round}: {key}");
        }
        assert!(store.revision() >= acknowledged.values().copied().max().unwrap_or(0));
    }
    println!("{} acknowledged writes, none lost in {ROUNDS} kills", acknowledged.len());
}

/// Large enough that the journals change places some times.
fn value(key: &str) -> Bytes {
    key.repeat(500).into()
}

/// Reads the child's acknowledgements for a random time, kills it, and reads what it still had said.
fn run_and_kill(path: &Path, acknowledged: &mut HashMap<String, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_acknowledged_write_survives_kill_9", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let kill_after = rand::rng().random_range(1..200);
    let mut told = 0;
    for line in lines {
        let Ok(line) = line else { break };
        let Some((key, revision)) = line.strip_prefix("ack ").and_then(|ack| ack.split_once(' ')) else {
            continue;
        };
        // The last line may be cut short by the kill; a cut revision would be a lie.
        let Some(revision) = revision.strip_suffix(';') else { continue };
        acknowledged.insert(key.to_owned(), revision.parse().unwrap());
        told += 1;
        if told == kill_after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
}

fn write_until_killed(path: &Path) -> ! {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let store = open(path);
    let base = store.revision();
    for writer in 0..WRITERS {
        let store = store.clone();
        runtime.spawn(async move {
            for n in 0.. {
                let key = format!("/crash/k/{base}-{writer}-{n}");
                let mut txn = Txn::new();
                txn.ops.push(Op::Put { key: key.clone(), value: value(&key) });
                let revision = store.txn(txn).await.unwrap();
                println!("ack {key} {revision};");
            }
        });
    }
    std::thread::sleep(Duration::from_secs(60));
    panic!("nobody killed this process");
}
