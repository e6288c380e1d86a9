//! A transaction, as etcd speaks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, TxnOp, TxnOpResponse, TxnResponse};

use super::feed::{header_revision, to_entry};
use super::{Etcd, failure};
use crate::entry::{Entry, Revision};
use crate::txn::{Op, Txn, TxnError};

impl<H: Send + Sync + 'static> Etcd<H> {
    /// Carries out `txn`; returns when it is visible here too, or is known not to have happened.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<Revision, TxnError<H>> {
        let lease = self.lease(&txn).await?;
        let request = self.request(&txn, lease);
        let answer = failure::retry_write(|| {
            let (mut kv, request) = (self.client.kv_client(), request.clone());
            async move { kv.txn(request).await }
        });
        let answer = answer.await.map_err(failure::of_txn)?;
        let revision = header_revision(answer.header());
        // Late news only make the next read of this server wait; the outcome is known either way.
        self.arrived.reach(revision).await;
        if answer.succeeded() { Ok(revision) } else { Err(self.conflict(&txn, &answer)) }
    }

    async fn lease(&self, txn: &Txn) -> Result<i64, TxnError<H>> {
        if txn.expires == 0 {
            return Ok(0);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let seconds = txn.expires.saturating_sub(now).max(1).cast_signed();
        let lease = self.leases.get(&self.client, seconds).await;
        lease.map_err(|error| TxnError::Engine(Arc::new(failure::remote("get a lease from etcd", error))))
    }

    fn request(&self, txn: &Txn, lease: i64) -> etcd_client::Txn {
        let compares: Vec<Compare> = txn
            .compares
            .iter()
            .map(|compare| {
                let revision = compare.mod_revision.cast_signed();
                Compare::mod_revision(compare.key.as_str(), CompareOp::Equal, revision)
            })
            .collect();
        let ops: Vec<TxnOp> = txn.ops.iter().map(|op| self.op(op, lease)).collect();
        let instead: Vec<TxnOp> =
            txn.compares.iter().map(|compare| TxnOp::get(compare.key.as_str(), None)).collect();
        etcd_client::Txn::new().when(compares).and_then(ops).or_else(instead)
    }

    fn op(&self, op: &Op, lease: i64) -> TxnOp {
        match op {
            Op::Put { key, value } => {
                let value = (self.codec.encode)(key, value);
                TxnOp::put(key.as_str(), value, (lease != 0).then(|| PutOptions::new().with_lease(lease)))
            }
            Op::Delete { key } => TxnOp::delete(key.as_str(), None),
        }
    }

    /// The first compare that did not hold, and what is there instead.
    fn conflict(&self, txn: &Txn, answer: &TxnResponse) -> TxnError<H> {
        let found: Vec<Option<KeyValue>> = answer
            .op_responses()
            .into_iter()
            .map(|response| match response {
                TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
                _ => None,
            })
            .collect();
        let differs = txn.compares.iter().zip(found).find(|(compare, found)| {
            found.as_ref().map_or(0, KeyValue::mod_revision) != compare.mod_revision.cast_signed()
        });
        let (key, found) =
            differs.map_or_else(|| (String::new(), None), |(compare, found)| (compare.key.clone(), found));
        let current: Option<Arc<Entry<H>>> =
            found.map(|found| to_entry(found, self.codec, self.shared.intake)).map(Arc::new);
        TxnError::Conflict { key, current }
    }
}
