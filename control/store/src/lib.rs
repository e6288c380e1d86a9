//! Revisioned key-value store with etcd's contract: one global revision, compare-and-swap transactions, ranges at a
//! revision, watches from a revision, compaction. It knows no kinds of objects.
//!
//! ```text
//!  txn --> queue --> writer thread: compare, stamp, Engine::commit (one fsync a group) --> publish --> reply
//!                                                                                           |
//!  get, range <---- current entries (persistent map: a snapshot is one clone) <-------------+
//!  Cursor::next <-- bounded log of recent events <------------------------------------------+
//! ```
//!
//! That is the embedded engine. Over etcd (`etcd/mod.rs`) the transaction goes to etcd, and publishing follows its watch;
//! everything to the left of "publish" is the same.
//!
//! Guarantees:
//! - A transaction that returned a revision is on disk, and every read that starts afterwards sees it; in another process
//!   on the same etcd, every read behind a [`Store::sync`] that starts afterwards.
//! - A transaction that returned an error other than [`TxnError::Unknown`] changed nothing.
//! - A cursor delivers every event after its start in revision order, or says [`Compacted`]; it never skips.
//! - The embedded engine keeps the newest history on disk: a store that opens again serves watches from before it closed.
//! - The store *is* the watch cache: entries live in memory once and are shared by all readers.
//!
//! Read [`Store`] first, then `writer.rs` (the only writer), then `log.rs` and `cursor.rs` (what a watcher reads).

mod content;
mod cursor;
mod engine;
mod entry;
mod etcd;
mod history;
mod log;
mod marks;
mod shared;
mod shelf;
pub mod snapshot;
mod store;
mod topic;
mod txn;
mod writer;

pub use content::Content;
pub use cursor::{Batch, Cursor};
pub use engine::{Commit, Embedded, Engine, EngineError, Memory, Record, RestoreFileError};
pub use entry::{Entry, Event, Extract, Mark, Revision, SOME_TIME, UnixSeconds};
pub use etcd::{Codec, CodecError, EtcdOptions, EtcdTls, RestoreError, restore as restore_etcd};
pub use log::Compacted;
pub use snapshot::Snapshot;
pub use store::{MAX_OPS, OpenError, Options, Page, RangeError, Store};
pub use txn::{Compare, Op, Txn, TxnError};
