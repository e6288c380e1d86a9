//! The end of the server, which many wait for and ask about.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A cancellation that is asked about without the lock that all who wait for it share.
#[derive(Debug, Default)]
pub struct Stopping {
    token: CancellationToken,
    /// Set before anybody is woken.
    begun: AtomicBool,
}

impl Stopping {
    /// Wakes all who wait.
    pub fn cancel(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it has begun. Whoever was woken by it is told so.
    pub fn is_cancelled(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Returns when it has begun.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The same without a borrow.
    pub fn cancelled_owned(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_and_told() {
        let stopping = Stopping::default();
        let (mut borrowed, mut owned) =
            (Box::pin(stopping.cancelled()), Box::pin(stopping.cancelled_owned()));
        assert!(!stopping.is_cancelled());
        assert!((&mut borrowed).now_or_never().is_none() && (&mut owned).now_or_never().is_none());
        stopping.cancel();
        assert!(stopping.is_cancelled());
        borrowed.await;
        owned.await;
    }
}
