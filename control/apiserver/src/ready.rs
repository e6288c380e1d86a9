//! Who of many in one task is ready: a bit for each, so that waking a thousand touches little memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;

/// Seats of a group.
pub const GROUP: usize = u64::BITS as usize;

/// The task that is woken when somebody becomes ready.
#[derive(Debug, Default)]
pub struct Task(AtomicWaker);

impl Task {
    /// Has `waker` woken from now on.
    pub fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }
}

/// Some of those in a task.
#[derive(Debug)]
pub struct Group {
    ready: Arc<Ready>,
    wakers: Vec<Waker>,
}

/// A bit for each seat.
#[derive(Debug)]
struct Ready {
    bits: AtomicU64,
    task: Arc<Task>,
}

/// What makes one ready.
struct Seat {
    ready: Arc<Ready>,
    bit: u64,
}

impl Group {
    /// A group in which nobody sits yet.
    pub fn of(task: &Arc<Task>) -> Self {
        Self {
            ready: Arc::new(Ready { bits: AtomicU64::new(0), task: Arc::clone(task) }),
            wakers: Vec::new(),
        }
    }

    /// Takes the next seat. There are [`GROUP`].
    pub fn sit(&mut self) {
        let seat = Seat { ready: Arc::clone(&self.ready), bit: 1 << self.wakers.len() };
        self.wakers.push(Arc::new(seat).into());
    }

    /// What makes the one in a seat ready.
    pub fn waker(&self, seat: usize) -> &Waker {
        &self.wakers[seat]
    }

    /// The seats of those who have become ready since they were last taken.
    pub fn take(&self) -> impl Iterator<Item = usize> + use<> {
        let mut bits = match self.ready.bits.load(Ordering::Acquire) {
            0 => 0,
            _ => self.ready.bits.swap(0, Ordering::AcqRel),
        };
        std::iter::from_fn(move || {
            let seat = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(seat)
        })
    }

    /// Whether the one in a seat has become ready since it was last taken.
    pub fn take_one(&self, seat: usize) -> bool {
        let bit = 1 << seat;
        self.ready.bits.load(Ordering::Acquire) & bit != 0
            && self.ready.bits.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Where somebody was ready, whoever made it so wakes the task, which then finds both.
        if self.ready.bits.fetch_or(self.bit, Ordering::AcqRel) == 0 {
            self.ready.task.0.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_is_woken_for_the_first_and_each_is_taken_once() {
        let (task, count) = (Arc::new(Task::default()), Arc::new(Count::default()));
        let mut group = Group::of(&task);
        (0..GROUP).for_each(|_| group.sit());
        for round in 1..=2 {
            task.register(&Arc::clone(&count).into());
            for seat in [0, 7, 63, 7] {
                group.waker(seat).wake_by_ref();
            }
            assert_eq!(count.0.load(Ordering::Relaxed), round);
            assert!(group.take_one(7));
            assert!(!group.take_one(7));
            assert!(group.take().eq([0, 63]));
            assert_eq!(group.take().count(), 0);
        }
    }

    #[test]
    fn nobody_who_becomes_ready_on_another_thread_is_missed() {
        const WAKES: usize = 20_000;
        const LONG: std::time::Duration = std::time::Duration::from_secs(10);
        let (task, parked) = (Arc::new(Task::default()), std::thread::current());
        let (mut group, unpark) = (Group::of(&task), Arc::new(Unpark(parked)));
        (0..GROUP).for_each(|_| group.sit());
        let said = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let wakers = [group.waker(0).clone(), group.waker(1).clone()];
        let wakes = wakers.into_iter().enumerate().map(|(at, waker)| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for _ in 0..WAKES {
                    said[at].fetch_add(1, Ordering::Release);
                    waker.wake_by_ref();
                }
            })
        });
        let wakes: Vec<_> = wakes.collect();
        let mut seen = [0; 2];
        while seen != [WAKES; 2] {
            task.register(&Arc::clone(&unpark).into());
            let mut any = false;
            for seat in group.take() {
                seen[seat] = said[seat].load(Ordering::Acquire);
                any = true;
            }
            if !any {
                let began = std::time::Instant::now();
                std::thread::park_timeout(LONG);
                assert!(began.elapsed() < LONG, "somebody was missed: {seen:?}");
            }
        }
        wakes.into_iter().for_each(|thread| thread.join().unwrap());
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
