//! Leases for entries that expire. One lease serves what is written within a minute, as etcd is slow with many; within a
//! twentieth of their time for entries that live for less than twenty minutes.

use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failure::retry;

/// Seconds for which a lease is given to new entries at most; those given first live that much longer than asked.
const SHARED_FOR: i64 = 60;
/// Entries of one lease at most: its end deletes them all in one transaction.
const SHARED_BY: usize = 1000;
/// The longest that etcd grants, in seconds.
const LONGEST: i64 = 9_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Leases {
    newest: Mutex<Option<Lease>>,
}

#[derive(Debug)]
struct Lease {
    id: i64,
    /// Seconds for which it was asked.
    seconds: i64,
    granted: Instant,
    entries: usize,
}

impl Leases {
    /// A lease that ends after at least `seconds`, for one more entry.
    pub(super) async fn get(&self, client: &Client, seconds: i64) -> Result<i64, Error> {
        let mut newest = self.newest.lock().await;
        if let Some(lease) = newest.as_mut()
            && lease.entries < SHARED_BY
            && lease.granted.elapsed() < Duration::from_secs(shared_for(seconds).cast_unsigned())
            && (0..=1).contains(&(lease.seconds - seconds))
        {
            lease.entries += 1;
            return Ok(lease.id);
        }
        let ttl = seconds.saturating_add(shared_for(seconds)).min(LONGEST);
        let granted = retry(|| {
            let mut leases = client.lease_client();
            async move { leases.grant(ttl, None).await }
        });
        let id = granted.await?.id();
        *newest = Some(Lease { id, seconds, granted: Instant::now(), entries: 1 });
        Ok(id)
    }
}

/// Seconds for which the lease of an entry that lives for `seconds` is given to others.
fn shared_for(seconds: i64) -> i64 {
    (seconds / 20).min(SHARED_FOR)
}
