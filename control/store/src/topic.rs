//! Who is woken by the events of a shelf.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// What all cursors of one shelf share, and may look at without the log's lock.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    /// One past the number of the newest event. Changed only under the log's lock, before it is asked who waits.
    appended: AtomicU64,
    /// Who wakes them holds on to the seats as they were, and not to the lock.
    seats: Mutex<Arc<Seats>>,
}

/// The wakers of the cursors; each has a seat for as long as it lives.
#[derive(Debug, Default, Clone)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// Those who waited, to be woken when no lock is held.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Vec<Arc<Seats>>);

impl Waiting {
    pub(crate) fn wake(&self) {
        self.0.iter().flat_map(|seats| seats.wakers.iter().flatten()).for_each(Waker::wake_by_ref);
    }
}

impl Topic {
    /// Whether an event may have come at `next` or later. A cursor that waits in its seat can trust a no: either it
    /// sees the event here, or whoever appends the event sees the cursor.
    pub(crate) fn has_come(&self, next: u64) -> bool {
        self.appended.load(Ordering::Acquire) > next
    }

    pub(crate) fn append_before(&self, next: u64) {
        self.appended.store(next, Ordering::Release);
    }

    /// A seat for a new cursor.
    pub(crate) fn sit(&self) -> usize {
        let mut seats = self.seats.lock();
        let seats = Arc::make_mut(&mut seats);
        seats.free.pop().unwrap_or_else(|| {
            seats.wakers.push(None);
            seats.wakers.len() - 1
        })
    }

    /// From now on `waker` is woken by every event, until another takes its place or the seat is left.
    pub(crate) fn wait(&self, seat: usize, waker: &Waker) {
        Arc::make_mut(&mut *self.seats.lock()).wakers[seat] = Some(waker.clone());
    }

    pub(crate) fn leave(&self, seat: usize) {
        let mut seats = self.seats.lock();
        let seats = Arc::make_mut(&mut seats);
        seats.wakers[seat] = None;
        seats.free.push(seat);
    }

    /// Adds those who wait.
    pub(crate) fn waiting(&self, into: &mut Waiting) {
        into.0.push(Arc::clone(&self.seats.lock()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_that_was_left_is_taken_again_and_wakes_nobody() {
        let topic = Topic::default();
        let seats = [topic.sit(), topic.sit()];
        seats.iter().for_each(|seat| topic.wait(*seat, Waker::noop()));
        topic.leave(seats[0]);
        let mut waiting = Waiting::default();
        topic.waiting(&mut waiting);
        assert_eq!(waiting.0[0].wakers.iter().flatten().count(), 1);
        assert_eq!(topic.sit(), seats[0]);
    }

    #[test]
    fn seats_change_while_others_are_being_woken() {
        let topic = Topic::default();
        let seats = [topic.sit(), topic.sit()];
        seats.iter().for_each(|seat| topic.wait(*seat, Waker::noop()));
        let (mut before, mut after) = (Waiting::default(), Waiting::default());
        topic.waiting(&mut before);
        topic.leave(seats[0]);
        topic.waiting(&mut after);
        let count = |waiting: &Waiting| waiting.0[0].wakers.iter().flatten().count();
        assert_eq!((count(&before), count(&after)), (2, 1));
        before.wake();
    }
}
