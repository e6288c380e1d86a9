//! Writers of one object take turns, so that none of them loses the race again and again.
//!
//! The store's compare-and-swap keeps writes correct; this keeps them fair. Writers elsewhere (another server on the
//! same store) are still met as conflicts.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Objects share a turn with others of the same number, so that nothing grows with the objects.
const SHARDS: usize = 256;

/// Whose turn it is.
#[derive(Debug)]
pub struct Turns {
    hasher: RandomState,
    shards: Vec<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Semaphore::new(1)).collect() }
    }
}

impl Turns {
    /// Waits until no other writer of the key is at work; first come, first served. Dropping the permit ends the turn.
    pub async fn wait(&self, key: &str) -> SemaphorePermit<'_> {
        let hash = self.hasher.hash_one(key);
        let shard = usize::try_from(hash % SHARDS as u64).expect("a remainder is small");
        self.shards[shard].acquire().await.expect("the semaphores are never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_key_waits_for_its_turn() {
        let turns = Turns::default();
        let first = turns.wait("a").await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(10), turns.wait("a")).await;
        assert!(second.is_err());
        drop(first);
        drop(turns.wait("a").await);
    }
}
