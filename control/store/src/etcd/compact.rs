//! Compaction: etcd keeps every version for ever unless somebody tells it what to forget.
//!
//! All API servers on one etcd try every five minutes, kube-apiserver's among them; the one that moves the shared key
//! first does it, and forgets what is older than the round before. The key, its meaning and the interval are
//! kube-apiserver's.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, Txn, TxnOp, TxnOpResponse};

use super::failure::retry;
use super::feed::header_revision;
use crate::entry::Revision;

const EVERY: Duration = Duration::from_secs(300);
const KEY: &str = "compact_rev_key";

/// How often the shared key was moved, and etcd's revision then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Round {
    number: i64,
    revision: Revision,
}

/// The revision before which etcd has forgotten, as far as API servers made it, and its newest one.
pub(super) async fn bounds(client: &Client) -> Result<(Revision, Revision), Error> {
    let found = retry(|| {
        let mut kv = client.kv_client();
        async move { kv.get(KEY, None).await }
    });
    let found = found.await?;
    let told = found.kvs().first().and_then(|found| found.value_str().ok()?.parse().ok());
    Ok((told.unwrap_or_default(), header_revision(found.header())))
}

pub(super) async fn run(client: Client) {
    let mut last = Round::default();
    loop {
        tokio::time::sleep(EVERY).await;
        match round(&client, last).await {
            Ok(round) => last = round,
            Err(error) => tracing::warn!(%error, "etcd was not compacted; the next try is in five minutes"),
        }
    }
}

/// Moves the key on if nobody else did since `last`, and then forgets what was before `last`.
async fn round(client: &Client, last: Round) -> Result<Round, Error> {
    let put = TxnOp::put(KEY, last.revision.to_string(), None);
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, last.number)])
        .and_then([put])
        .or_else([TxnOp::get(KEY, None)]);
    let mut kv = client.kv_client();
    let answer = kv.txn(txn).await?;
    let revision = header_revision(answer.header());
    if !answer.succeeded() {
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok(Round { number: found.unwrap_or_default(), revision });
    }
    if last.revision > 0 {
        match kv.compact(last.revision.cast_signed(), None).await {
            Ok(_) => tracing::debug!(revision = last.revision, "etcd has forgotten what is older"),
            // Somebody was faster, or went further.
            Err(Error::GRpcStatus(status)) if status.message().contains("has been compacted") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Round { number: last.number + 1, revision })
}
