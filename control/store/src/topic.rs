//! A topic of the log: what it has lost, and who is woken by its events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// What all cursors of one topic share.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    /// One past the sequence number of the newest event that was dropped. Changed only under the log's lock.
    dropped: AtomicU64,
    seats: Mutex<Seats>,
}

/// The wakers of the cursors; each has a seat for as long as it lives.
#[derive(Debug, Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Topic {
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn drop_before(&self, next: u64) {
        self.dropped.store(next, Ordering::Relaxed);
    }

    /// A seat for a new cursor.
    pub(crate) fn sit(&self) -> usize {
        let mut seats = self.seats.lock();
        seats.free.pop().unwrap_or_else(|| {
            seats.wakers.push(None);
            seats.wakers.len() - 1
        })
    }

    /// From now on `waker` is woken by every event, until another takes its place or the seat is left.
    pub(crate) fn wait(&self, seat: usize, waker: &Waker) {
        match &mut self.seats.lock().wakers[seat] {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn leave(&self, seat: usize) {
        let mut seats = self.seats.lock();
        seats.wakers[seat] = None;
        seats.free.push(seat);
    }

    /// Adds those who wait, to be woken when no lock is held.
    pub(crate) fn waiting(&self, into: &mut Vec<Waker>) {
        into.extend(self.seats.lock().wakers.iter().flatten().cloned());
    }
}

/// The topic of a key: its first two segments, with the slash behind them.
pub(crate) fn name(key: &str) -> &str {
    let mut slashes = key.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    match slashes.nth(1) {
        Some(end) => &key[..=end],
        None => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_the_first_two_segments() {
        for (key, want) in [
            ("/registry/pods/default/a", "/registry/pods/"),
            ("/registry/pods/", "/registry/pods/"),
            ("/registry/services/specs/default/a", "/registry/services/"),
            ("/registry", "/registry"),
            ("/registry/pods", "/registry/pods"),
        ] {
            assert_eq!(name(key), want, "{key}");
        }
    }

    #[test]
    fn a_seat_that_was_left_is_taken_again_and_wakes_nobody() {
        let topic = Topic::default();
        let seats = [topic.sit(), topic.sit()];
        seats.iter().for_each(|seat| topic.wait(*seat, Waker::noop()));
        topic.leave(seats[0]);
        let mut waiting = Vec::new();
        topic.waiting(&mut waiting);
        assert_eq!(waiting.len(), 1);
        assert_eq!(topic.sit(), seats[0]);
    }
}
