//! What etcd's errors mean: whether the request was carried out, may have been, or was not.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Error;
use tokio::time::Instant;
use tonic::{Code, ConnectError};

use crate::engine::EngineError;
use crate::txn::TxnError;

/// How long a write that surely did not arrive is tried again: a cluster that lost its leader has another one by then.
const WRITE_PATIENCE: Duration = Duration::from_secs(8);
/// How long a read is tried again; somebody waits for it who can be told.
const READ_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// An error of etcd, with what was tried.
pub(super) fn remote(action: &'static str, error: Error) -> EngineError {
    EngineError::Remote { action, source: Box::new(error) }
}

/// Whether etcd surely did nothing: it was not reached, or has no leader to propose to.
fn nothing_happened(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    let mut source = status.source();
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    status.code() == Code::Unavailable && status.message() == "etcdserver: no leader"
}

/// Whether a request that changes nothing is worth another try.
fn passing(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    nothing_happened(error)
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        )
}

/// Asks again, perhaps another member, as long as that cannot carry out a write twice.
pub(super) async fn retry_write<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    again(&mut attempt, nothing_happened, WRITE_PATIENCE).await
}

/// Asks again while members come and go; for requests that change nothing.
pub(super) async fn retry<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    again(&mut attempt, passing, READ_PATIENCE).await
}

async fn again<T, F>(
    attempt: &mut impl FnMut() -> F,
    worth: fn(&Error) -> bool,
    patience: Duration,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + patience;
    loop {
        match attempt().await {
            Err(error) if worth(&error) && Instant::now() < until => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// What a failed transaction is to its caller.
pub(super) fn of_txn<H>(error: Error) -> TxnError<H> {
    let unreached = nothing_happened(&error);
    let Error::GRpcStatus(status) = &error else {
        return TxnError::Engine(Arc::new(remote("write to etcd", error)));
    };
    match status.code() {
        _ if unreached => TxnError::Engine(Arc::new(remote("write to etcd", error))),
        Code::ResourceExhausted if status.message().contains("space exceeded") => TxnError::Full,
        // etcd's own limit, and that of its gRPC server.
        Code::InvalidArgument | Code::ResourceExhausted
            if status.message().contains("too large") || status.message().contains("larger than max") =>
        {
            TxnError::TooLarge { detail: status.message().to_owned() }
        }
        // Refused before anything was proposed.
        Code::InvalidArgument
        | Code::ResourceExhausted
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition => TxnError::Engine(Arc::new(remote("write to etcd", error))),
        _ => {
            tracing::warn!(%error, "etcd did not confirm a write");
            TxnError::Unknown
        }
    }
}
