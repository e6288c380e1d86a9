//! Keys that wait to be looked at: each at most once, some of them later, failures further and further apart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::controller::Key;

/// First pause after a failure; doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Time is a parameter: `now` is the time since the queue was made.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// When each waiting key is due; a key may be due once.
    due: HashMap<Key, Duration>,
    /// The same, in order of time; the number tells keys of one instant apart.
    order: BTreeMap<(Duration, u64), Key>,
    slots: HashMap<Key, (Duration, u64)>,
    /// Keys somebody works on now, which must not be handed out a second time.
    busy: HashSet<Key>,
    failures: HashMap<Key, u32>,
    /// Until when keys are not handed out.
    resting: HashMap<Key, Duration>,
    counter: u64,
}

impl Queue {
    /// Has `key` wait until `until` from now on, whenever it was due or is wished for.
    pub(crate) fn rest(&mut self, key: &Key, until: Duration) {
        self.resting.insert(key.clone(), until);
        if let Some(slot) = self.slots.remove(key) {
            self.order.remove(&slot);
            self.due.remove(key);
            self.add(key.clone(), slot.0);
        }
    }

    /// Asks for a look at `key` at `at`, or when it has rested; an earlier wish stands, a later one is moved forward.
    pub(crate) fn add(&mut self, key: Key, at: Duration) {
        let at = self.resting.get(&key).map_or(at, |until| at.max(*until));
        if self.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        if let Some(slot) = self.slots.remove(&key) {
            self.order.remove(&slot);
        }
        self.counter += 1;
        let slot = (at, self.counter);
        self.order.insert(slot, key.clone());
        self.slots.insert(key.clone(), slot);
        self.due.insert(key, at);
    }

    /// Hands out the key that is due longest and that nobody works on.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Key> {
        let slot = *self
            .order
            .iter()
            .take_while(|((at, _), _)| *at <= now)
            .find(|(_, key)| !self.busy.contains(*key))?
            .0;
        let key = self.order.remove(&slot)?;
        self.slots.remove(&key);
        self.due.remove(&key);
        self.resting.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    /// The work on `key` ended; `failed` asks for another look after a pause that doubles with every failure in a row.
    pub(crate) fn done(&mut self, key: &Key, failed: bool, now: Duration) {
        self.busy.remove(key);
        if !failed {
            self.failures.remove(key);
            return;
        }
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(LAST_PAUSE);
        *failures += 1;
        self.add(key.clone(), now + pause);
    }

    /// When the next key that nobody works on is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.order.iter().find(|(_, key)| !self.busy.contains(*key)).map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[test]
    fn a_key_waits_once_and_at_its_earliest_time() {
        let mut queue = Queue::default();
        queue.add(key("a"), 50 * MS);
        queue.add(key("a"), 10 * MS);
        queue.add(key("a"), 90 * MS);
        assert_eq!(queue.next_due(), Some(10 * MS));
        assert_eq!(queue.take(9 * MS), None);
        assert_eq!(queue.take(10 * MS), Some(key("a")));
        queue.done(&key("a"), false, 10 * MS);
        assert_eq!(queue.take(100 * MS), None);
    }

    #[test]
    fn a_key_in_work_is_not_handed_out_again_but_not_forgotten() {
        let mut queue = Queue::default();
        queue.add(key("a"), Duration::ZERO);
        assert_eq!(queue.take(MS), Some(key("a")));
        queue.add(key("a"), MS);
        queue.add(key("b"), MS);
        assert_eq!(queue.take(MS), Some(key("b")));
        assert_eq!(queue.take(MS), None);
        queue.done(&key("a"), false, MS);
        assert_eq!(queue.take(MS), Some(key("a")));
    }

    #[test]
    fn a_key_that_rests_is_due_when_it_has_rested_and_not_forgotten() {
        let mut queue = Queue::default();
        queue.add(key("a"), Duration::ZERO);
        assert_eq!(queue.take(MS), Some(key("a")));
        queue.add(key("a"), 2 * MS);
        queue.rest(&key("a"), 50 * MS);
        queue.done(&key("a"), false, 3 * MS);
        assert_eq!(queue.next_due(), Some(50 * MS));
        queue.add(key("a"), 4 * MS);
        assert_eq!(queue.take(49 * MS), None);
        assert_eq!(queue.take(50 * MS), Some(key("a")));
        queue.done(&key("a"), false, 51 * MS);
        queue.add(key("a"), 52 * MS);
        assert_eq!(queue.next_due(), Some(52 * MS), "a rest is over when it is over");
    }

    #[test]
    fn failures_are_looked_at_further_and_further_apart() {
        let mut queue = Queue::default();
        queue.add(key("a"), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..3 {
            assert!(queue.take(now).is_some());
            queue.done(&key("a"), true, now);
            let due = queue.next_due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [20, 40, 80]);
        assert!(queue.take(now).is_some());
        queue.done(&key("a"), false, now);
        assert_eq!(queue.next_due(), None);
    }
}
