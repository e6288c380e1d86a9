//! Consistent reads: one quorum read of etcd's revision answers everybody who waited for it to begin.

use std::sync::Arc;

use etcd_client::{Client, GetOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::failure::{remote, retry};
use crate::engine::EngineError;
use crate::entry::Revision;

/// Callers that may wait before a further one is held back.
const QUEUE: usize = 4096;
/// A key that need not exist: only the header of the answer counts.
const ANY_KEY: &str = "compact_rev_key";

type Reply = oneshot::Sender<Result<Revision, Arc<EngineError>>>;

/// The way to the task that asks.
#[derive(Debug)]
pub(super) struct Barrier {
    queue: mpsc::Sender<Reply>,
}

impl Barrier {
    pub(super) fn spawn(client: &Client, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tasks.spawn(run(client.clone(), waiting));
        Self { queue }
    }

    /// A revision that covers every write confirmed before the call.
    pub(super) async fn revision(&self) -> Result<Revision, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(reply).await.map_err(|_closed| EngineError::Closing)?;
        let answer = answer.await.map_err(|_closed| EngineError::Closing)?;
        answer.map_err(EngineError::Unreachable)
    }
}

async fn run(client: Client, mut queue: mpsc::Receiver<Reply>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let answer = quorum_revision(&client).await.map_err(Arc::new);
        for reply in waiting.drain(..) {
            // A caller that no longer waits has nobody left to tell.
            drop(reply.send(answer.clone()));
        }
    }
}

/// etcd's revision, confirmed by a majority of its members.
async fn quorum_revision(client: &Client) -> Result<Revision, EngineError> {
    let answer = retry(|| {
        let mut kv = client.kv_client();
        async move { kv.get(ANY_KEY, Some(GetOptions::new().with_count_only())).await }
    });
    let answer = answer.await.map_err(|error| remote("ask etcd for its revision", error))?;
    Ok(super::feed::header_revision(answer.header()))
}
