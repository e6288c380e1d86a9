//! Objects that live for a time only, such as events, are deleted when it is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::Api;

const EVERY: Duration = Duration::from_secs(60);

/// The second of a time, as the store counts.
pub fn unix_seconds(now: Timestamp) -> u64 {
    u64::try_from(now.as_second()).unwrap_or_default()
}

/// Deletes what is due until the server stops.
pub async fn run(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = api.stopping.cancelled() => return,
        }
        match api.objects.expire(unix_seconds(Timestamp::now())).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "deleted objects whose time was over"),
            Err(error) => tracing::warn!(%error, "objects whose time is over could not be deleted"),
        }
    }
}
