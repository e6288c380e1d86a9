//! Events are kept for an hour after they last happened.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use store::{Txn, TxnError};

use crate::api::Api;
use crate::object::{Objects, decode, prefix};
use crate::resources::known;
use crate::tree::text;

const KEEP: SignedDuration = SignedDuration::from_hours(1);
const EVERY: Duration = Duration::from_secs(60);

/// Removes old events until the server stops.
pub async fn run(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = api.stopping.cancelled() => return,
        }
        sweep(&api.objects, Timestamp::now()).await;
    }
}

async fn sweep(objects: &Objects, now: Timestamp) {
    let page = objects.range(&prefix(known("", "events"), ""), None, 0, None);
    for entry in page.into_iter().flat_map(|page| page.entries) {
        if !is_old(&decode(&entry), now) {
            continue;
        }
        match objects.txn(Txn::delete(&*entry.key, entry.mod_revision)).await {
            // Somebody counted it up meanwhile: then it is not old.
            Ok(_) | Err(TxnError::Conflict { .. }) => {}
            Err(error) => return tracing::warn!(%error, "old events could not be removed"),
        }
    }
}

fn is_old(event: &serde_json::Value, now: Timestamp) -> bool {
    let times = [
        text(event, &["series", "lastObservedTime"]),
        text(event, &["lastTimestamp"]),
        text(event, &["eventTime"]),
        text(event, &["metadata", "creationTimestamp"]),
    ];
    let last = times.into_iter().filter_map(|time| time.parse::<Timestamp>().ok()).max();
    last.is_some_and(|last| now.duration_since(last) > KEEP)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_as_old_as_its_last_occurrence() {
        let now: Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
        let made = json!({"creationTimestamp": "2024-01-01T10:00:00Z"});
        assert!(is_old(&json!({"metadata": made}), now));
        assert!(!is_old(&json!({"metadata": made, "lastTimestamp": "2024-01-01T11:30:00Z"}), now));
        assert!(!is_old(&json!({}), now));
    }
}
