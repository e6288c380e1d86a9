//! A transaction: conditions on keys, and the writes that happen when all of them hold.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::EngineError;
use crate::entry::{Entry, Revision, UnixSeconds};
use crate::store::MAX_OPS;

/// Compares and writes, all or nothing. A key may be written once.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
    /// When the entries it writes are due to be deleted; 0: never. See [`Store::expire`](crate::Store::expire).
    pub expires: UnixSeconds,
}

/// Holds when the key's last write was at `mod_revision`; 0 means the key is absent.
#[derive(Debug, Clone)]
pub struct Compare {
    pub key: String,
    pub mod_revision: Revision,
}

/// One write. Deleting an absent key is no write.
#[derive(Debug, Clone)]
pub enum Op {
    Put { key: String, value: Bytes },
    Delete { key: String },
}

impl Op {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

impl Txn {
    /// Creates `key`, which must be absent.
    pub fn create(key: impl Into<String>, value: Bytes) -> Self {
        Self::new().expect_revision(key, 0, |key| Op::Put { key, value })
    }

    /// Replaces the version of `key` written at `mod_revision`.
    pub fn update(key: impl Into<String>, mod_revision: Revision, value: Bytes) -> Self {
        Self::new().expect_revision(key, mod_revision, |key| Op::Put { key, value })
    }

    /// Deletes the version of `key` written at `mod_revision`.
    pub fn delete(key: impl Into<String>, mod_revision: Revision) -> Self {
        Self::new().expect_revision(key, mod_revision, |key| Op::Delete { key })
    }

    pub fn new() -> Self {
        Self::default()
    }

    /// Both transactions as one.
    pub fn and(mut self, other: Self) -> Self {
        self.compares.extend(other.compares);
        self.ops.extend(other.ops);
        self
    }

    /// The same writes in as few transactions as the store takes; none of those given is torn apart.
    pub fn grouped(all: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for txn in all {
            match groups.pop() {
                Some(group)
                    if group.compares.len().max(group.ops.len()) + txn.ops.len().max(txn.compares.len())
                        <= MAX_OPS =>
                {
                    groups.push(group.and(txn));
                }
                last => groups.extend(last.into_iter().chain([txn])),
            }
        }
        groups
    }

    /// Its entries are deleted some time after `at`.
    pub fn expiring(mut self, at: UnixSeconds) -> Self {
        self.expires = at;
        self
    }

    /// The first key that is written twice.
    pub(crate) fn duplicate(&self) -> Option<&str> {
        let mut keys = HashSet::with_capacity(self.ops.len());
        self.ops.iter().map(Op::key).find(|key| !keys.insert(*key))
    }

    /// Adds a condition on `key` and the write that goes with it.
    pub fn expect_revision(
        mut self,
        key: impl Into<String>,
        mod_revision: Revision,
        op: impl FnOnce(String) -> Op,
    ) -> Self {
        let key = key.into();
        self.compares.push(Compare { key: key.clone(), mod_revision });
        self.ops.push(op(key));
        self
    }
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TxnError<H> {
    /// A compare did not hold; `current` is the version that is there instead.
    #[error("{key} was changed by somebody else")]
    Conflict { key: String, current: Option<Arc<Entry<H>>> },
    /// The same key is written twice, so the outcome would depend on order.
    #[error("the transaction writes {key} twice")]
    Duplicate { key: String },
    /// The disk is full: nothing was written, reads go on, writes work again once there is room. (etcd carries out the
    /// one write with which it notices, and reports it like this too.)
    #[error("no space left on the store's disk")]
    Full,
    /// The engine failed and nothing was written.
    #[error("the store could not commit")]
    Engine(#[source] Arc<EngineError>),
    /// One of the values is larger than the engine takes: nothing was written.
    #[error("a value is too large for the store: {detail}")]
    TooLarge { detail: String },
    /// The store closed, or could no longer be reached, before it answered; the write may or may not have happened.
    #[error("the store went away before the write was confirmed")]
    Unknown,
}
