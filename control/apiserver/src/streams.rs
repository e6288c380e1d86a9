//! The streams of one HTTP/2 connection, which run in the connection's own task.
//!
//! An event that a hundred watches of one client deliver wakes one task instead of a hundred, and what a list writes is
//! sent while it is still in the processor's cache. An answer that may take longer, or has to wait, is a task of its own.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use crate::ready::{GROUP, Group, Task};

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
///
/// All that are ready have their turn at once. `FuturesUnordered` gives way behind two that woke themselves, as if they
/// wanted others to run; h2 wakes whoever asks it for the room to send something.
#[derive(Default)]
pub struct Streams {
    begun: Begun,
    task: Arc<Task>,
    groups: Vec<Group>,
    /// A place for each of the groups' wakers.
    running: Vec<Option<Boxed>>,
    free: Vec<usize>,
}

impl Streams {
    /// What the connection is to give its streams to.
    pub fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// Goes on with the streams that can. The others wake the task when they can.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        // Before it is looked who is ready: who is later wakes the task.
        self.task.register(context.waker());
        let begun = std::mem::take(&mut *self.begun.0.lock());
        begun.into_iter().for_each(|stream| self.adopt(stream));
        for group in 0..self.groups.len() {
            for seat in self.groups[group].take() {
                self.go_on(group, seat);
            }
        }
        if self.free.len() == self.running.len() && self.groups.len() > 1 {
            self.groups.clear();
            self.running.clear();
            self.free.clear();
        }
    }

    /// Gives a stream a place, where it is ready to begin.
    fn adopt(&mut self, stream: Boxed) {
        let place = self.free.pop().unwrap_or_else(|| self.grow());
        self.running[place] = Some(stream);
        self.groups[place / GROUP].waker(place % GROUP).wake_by_ref();
    }

    /// Makes a place.
    fn grow(&mut self) -> usize {
        let place = self.running.len();
        if place.is_multiple_of(GROUP) {
            self.groups.push(Group::of(&self.task));
        }
        self.groups[place / GROUP].sit();
        self.running.push(None);
        place
    }

    /// A stream's turn, and a second while it is in the processor's cache if it woke itself. With a third it waits for the
    /// next turn of the connection.
    fn go_on(&mut self, group: usize, seat: usize) {
        for _ in 0..2 {
            if self.turn(group, seat).is_ready() {
                let place = group * GROUP + seat;
                // Dropping may wake it, which the next stream here takes for its own.
                self.running[place] = None;
                self.free.push(place);
                return;
            }
            if !self.groups[group].take_one(seat) {
                return;
            }
        }
        self.groups[group].waker(seat).wake_by_ref();
    }

    /// Polls a stream, if there still is one. It ends with a panic as well.
    fn turn(&mut self, group: usize, seat: usize) -> Poll<()> {
        let Some(stream) = &mut self.running[group * GROUP + seat] else { return Poll::Pending };
        let mut context = Context::from_waker(self.groups[group].waker(seat));
        let turn = AssertUnwindSafe(|| stream.as_mut().poll(&mut context));
        catch_unwind(turn).unwrap_or_else(|panic| {
            // Its stream is reset as it is dropped; the others go on.
            tracing::error!(said = said(&*panic), "a body panicked");
            Poll::Ready(())
        })
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
        assert!(streams.running.iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn whoever_wakes_itself_keeps_nobody_from_a_turn() {
        const STREAMS: usize = 3 * GROUP + 1;
        let (mut streams, polls) = (Streams::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..STREAMS {
            let polls = Arc::clone(&polls);
            streams.begun().execute(std::future::poll_fn(move |context| {
                polls.fetch_add(1, Ordering::Relaxed);
                context.waker().wake_by_ref();
                Poll::Pending
            }));
        }
        for turns in 1..=3 {
            turn(&mut streams).await;
            assert_eq!(polls.load(Ordering::Relaxed), turns * 2 * STREAMS);
        }
    }

    #[tokio::test]
    async fn a_place_is_taken_again_and_an_old_waker_harms_nobody() {
        let (mut streams, kept) = (Streams::default(), Arc::new(Mutex::new(None)));
        let keeps = Arc::clone(&kept);
        streams.begun().execute(std::future::poll_fn(move |context| {
            *keeps.lock() = Some(context.waker().clone());
            Poll::Ready(())
        }));
        turn(&mut streams).await;
        let old = kept.lock().take().unwrap();
        old.wake_by_ref();
        turn(&mut streams).await;
        let (ends, ended) = tokio::sync::oneshot::channel::<()>();
        streams.begun().execute(async move { drop(ended.await) });
        turn(&mut streams).await;
        old.wake();
        turn(&mut streams).await;
        assert_eq!(streams.running.len(), 1);
        assert!(streams.running[0].is_some());
        ends.send(()).unwrap();
        turn(&mut streams).await;
        assert!(streams.running[0].is_none());
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
