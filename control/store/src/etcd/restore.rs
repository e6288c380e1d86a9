//! Fills an empty etcd from a snapshot: how a cluster moves from the embedded engine, or back in time.
//!
//! etcd numbers writes itself, so entries get new revisions. Clients compare revisions as numbers; etcd is therefore
//! brought beyond every revision they may have seen, one empty write at a time, before anything is put in.

use std::io::Read;

use etcd_client::{Client, GetOptions, PutOptions, TxnOp};
use tokio::task::JoinSet;

use super::failure::{remote, retry, retry_write};
use super::feed::{end_of, header_revision};
use super::lease::Leases;
use super::{EtcdOptions, connect};
use crate::engine::{EngineError, Record};
use crate::entry::{Revision, UnixSeconds};
use crate::snapshot::{Reader, SnapshotError, restored_expiry};

/// There while a restore is under way.
const MARKER: &str = "hawser-restore";
/// Entries written by one transaction; etcd takes 128.
const BATCH: usize = 64;
/// Bytes written by one transaction; etcd takes 1.5 MiB.
const BATCH_BYTES: usize = 1 << 20;
/// Empty writes under way at once.
const AT_ONCE: usize = 64;

/// Why an etcd was not filled.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("etcd has keys below {root} already: only an empty one is restored into")]
    NotEmpty { root: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Writes every entry of `snapshot` whose time has not come at `now`; revisions continue beyond the snapshot's own and
/// `beyond` more. Interrupted, it leaves a mark that keeps servers from starting on the half.
pub async fn restore(
    etcd: &EtcdOptions,
    snapshot: &mut Reader<impl Read>,
    beyond: u64,
    now: UnixSeconds,
) -> Result<Revision, RestoreError> {
    let client = connect(etcd).await?;
    let inside = GetOptions::new().with_range(end_of(etcd.root.as_bytes())).with_count_only();
    let found = retry(|| {
        let mut kv = client.kv_client();
        let (root, inside) = (etcd.root.clone(), inside.clone());
        async move { kv.get(root, Some(inside)).await }
    });
    let found = found.await.map_err(|error| remote("read from etcd", error))?;
    if found.count() > 0 {
        return Err(RestoreError::NotEmpty { root: etcd.root.clone() });
    }
    put(&client, MARKER).await?;
    advance(&client, header_revision(found.header()), snapshot.revision() + beyond).await?;
    let leases = Leases::default();
    let (mut batch, mut size) = (Vec::new(), 0);
    while let Some(mut record) = snapshot.record()? {
        record.expires = restored_expiry(record.expires, now);
        if record.expires > 0 && record.expires <= now {
            continue;
        }
        if batch.len() == BATCH || size + record.value.len() > BATCH_BYTES {
            write(&client, std::mem::take(&mut batch)).await?;
            size = 0;
        }
        size += record.value.len();
        batch.push(to_op(etcd, &client, &leases, &record, now).await?);
    }
    write(&client, batch).await?;
    let deleted = retry(|| {
        let mut kv = client.kv_client();
        async move { kv.delete(MARKER, None).await }
    });
    let deleted = deleted.await.map_err(|error| remote("end the restore", error))?;
    Ok(header_revision(deleted.header()))
}

/// Fails when a restore was begun and not ended.
pub(super) async fn refuse_half_restored(client: &Client) -> Result<(), EngineError> {
    let found = retry(|| {
        let mut kv = client.kv_client();
        async move { kv.get(MARKER, None).await }
    });
    let found = found.await.map_err(|error| remote("read from etcd", error))?;
    if found.count() > 0 { Err(EngineError::HalfRestored) } else { Ok(()) }
}

async fn to_op(
    etcd: &EtcdOptions,
    client: &Client,
    leases: &Leases,
    record: &Record,
    now: UnixSeconds,
) -> Result<TxnOp, EngineError> {
    let value = (etcd.codec.encode)(&record.key, &record.value);
    let options = match record.expires.checked_sub(now) {
        Some(seconds) if record.expires > 0 => {
            let lease = leases.get(client, seconds.cast_signed()).await;
            let lease = lease.map_err(|error| remote("get a lease from etcd", error))?;
            Some(PutOptions::new().with_lease(lease))
        }
        _ => None,
    };
    Ok(TxnOp::put(record.key.as_str(), value, options))
}

async fn write(client: &Client, ops: Vec<TxnOp>) -> Result<(), EngineError> {
    if ops.is_empty() {
        return Ok(());
    }
    let txn = etcd_client::Txn::new().and_then(ops);
    // The same puts twice are harmless here: nobody else writes, and nobody reads yet.
    let written = retry(|| {
        let (mut kv, txn) = (client.kv_client(), txn.clone());
        async move { kv.txn(txn).await }
    });
    written.await.map(|_| ()).map_err(|error| remote("write to etcd", error))
}

async fn put(client: &Client, key: &'static str) -> Result<(), EngineError> {
    let written = retry_write(|| {
        let mut kv = client.kv_client();
        async move { kv.put(key, "", None).await }
    });
    written.await.map(|_| ()).map_err(|error| remote("write to etcd", error))
}

/// Brings etcd from revision `from` to at least `to`.
async fn advance(client: &Client, from: Revision, to: Revision) -> Result<(), EngineError> {
    let mut writers = JoinSet::new();
    let missing = to.saturating_sub(from);
    if missing > 0 {
        tracing::info!(from, to, "bringing etcd's revision beyond those that clients have seen");
    }
    for writer in 0..AT_ONCE as u64 {
        let share = missing / AT_ONCE as u64 + u64::from(writer < missing % AT_ONCE as u64);
        let client = client.clone();
        writers.spawn(async move {
            for _ in 0..share {
                put(&client, MARKER).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        match ended {
            Ok(outcome) => outcome?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(())
}
