//! The streams of one HTTP/2 connection, which run in the connection's own task.
//!
//! An event that a hundred watches of one client deliver wakes one task instead of a hundred, and what a list writes is
//! sent while it is still in the processor's cache. An answer that may take longer, or has to wait, is a task of its own.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::CatchUnwind;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream};
use parking_lot::Mutex;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams that a connection has begun and that do not run yet.
#[derive(Clone, Default)]
pub struct Begun(Arc<Mutex<Vec<Boxed>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().push(Box::pin(stream));
    }
}

/// The streams of a connection.
#[derive(Default)]
pub struct Streams {
    begun: Begun,
    running: FuturesUnordered<CatchUnwind<AssertUnwindSafe<Boxed>>>,
}

impl Streams {
    /// What the connection is to give its streams to.
    pub fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// Goes on with the streams that can. The others wake the task when they can.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        let begun = std::mem::take(&mut *self.begun.0.lock());
        self.running.extend(begun.into_iter().map(|stream| AssertUnwindSafe(stream).catch_unwind()));
        while let Poll::Ready(Some(ended)) = Pin::new(&mut self.running).poll_next(context) {
            if let Err(panic) = ended {
                // Its stream is reset as it is dropped; the others go on.
                tracing::error!(said = said(&*panic), "a body panicked");
            }
        }
    }

    /// Whether the connection has begun some since they were last polled.
    pub fn has_new(&self) -> bool {
        !self.begun.0.lock().is_empty()
    }
}

impl Drop for Streams {
    /// Streams hold what takes new streams, so those that never ran would keep themselves.
    fn drop(&mut self) {
        let begun = std::mem::take(&mut *self.begun.0.lock());
        drop(begun);
    }
}

/// The words of a panic.
pub fn said(panic: &(dyn Any + Send)) -> &str {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper::rt::Executor;

    use super::*;

    async fn turn(streams: &mut Streams) {
        std::future::poll_fn(|context| {
            streams.poll(context);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn streams_run_when_they_are_polled_and_a_panic_is_of_one_alone() {
        let (mut streams, ran) = (Streams::default(), Arc::new(AtomicUsize::new(0)));
        let begun = streams.begun();
        for n in 0..10 {
            let ran = Arc::clone(&ran);
            begun.execute(async move {
                assert!(n != 3, "as the test wants");
                tokio::task::yield_now().await;
                ran.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(streams.has_new());
        for _ in 0..10 {
            turn(&mut streams).await;
            assert!(!streams.has_new());
            tokio::task::yield_now().await;
        }
        assert_eq!(ran.load(Ordering::Relaxed), 9);
        assert!(streams.running.is_empty());
    }

    #[tokio::test]
    async fn streams_end_with_their_connection_also_those_that_never_ran() {
        let (mut streams, held) = (Streams::default(), Arc::new(()));
        for _ in 0..2 {
            // As streams do, each holds what takes new ones.
            let (begun, held) = (streams.begun(), Arc::clone(&held));
            streams.begun().execute(async move {
                std::future::pending::<()>().await;
                drop((begun, held));
            });
            turn(&mut streams).await;
        }
        let (begun, last) = (streams.begun(), Arc::clone(&held));
        streams.begun().execute(async move { drop((begun, last)) });
        drop(streams);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
