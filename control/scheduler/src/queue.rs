//! Pods that wait for a node: by priority and age; rejected ones rest until something changes that may help them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::objects::Pod;
use crate::plugins::by_name;
use crate::verdict::Event;

/// A rejected pod is looked at again at the latest after this time.
const LONGEST_REST: Duration = Duration::from_secs(300);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);

/// Order of the active pods: highest priority, then oldest, then uid.
type Rank = (std::cmp::Reverse<i32>, Timestamp, String);

#[derive(Debug)]
struct Waiting {
    pod: Pod,
    state: State,
    attempts: u32,
}

#[derive(Debug)]
enum State {
    Active,
    /// Rests until something helps, and then at least until `backoff_until`.
    Resting {
        plugins: Vec<&'static str>,
        backoff_until: Duration,
        since: Duration,
    },
    /// Something helped, but the back-off is not over.
    BackingOff {
        until: Duration,
    },
}

/// Time is a parameter: `now` is the time since the scheduler began.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeSet<Rank>,
}

fn rank(pod: &Pod) -> Rank {
    let made = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    (std::cmp::Reverse(pod.spec.priority), made, pod.uid().to_owned())
}

impl Queue {
    /// Takes a pod in, or its new version. A changed pod may fit now, so it does not rest on.
    pub(crate) fn set(&mut self, pod: Pod) {
        let uid = pod.uid().to_owned();
        let attempts = match self.pods.remove(&uid) {
            Some(known) => {
                self.active.remove(&rank(&known.pod));
                if known.pod.spec_equals(&pod) && !matches!(known.state, State::Active) {
                    self.pods.insert(uid, Waiting { pod, ..known });
                    return;
                }
                known.attempts
            }
            None => 0,
        };
        self.active.insert(rank(&pod));
        self.pods.insert(uid, Waiting { pod, state: State::Active, attempts });
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        if let Some(known) = self.pods.remove(uid) {
            self.active.remove(&rank(&known.pod));
        }
    }

    /// The next pod to place. It leaves the queue: give it back with [`Queue::rejected`] or [`Queue::failed`].
    pub(crate) fn take(&mut self, now: Duration) -> Option<(Pod, u32)> {
        self.wake_rested(now);
        let (_, _, uid) = self.active.pop_first()?;
        let known = self.pods.remove(&uid)?;
        Some((known.pod, known.attempts))
    }

    /// No node would have the pod.
    pub(crate) fn rejected(&mut self, pod: Pod, attempts: u32, plugins: Vec<&'static str>, now: Duration) {
        let state = State::Resting { plugins, backoff_until: now + backoff(attempts), since: now };
        self.pods.insert(pod.uid().to_owned(), Waiting { pod, state, attempts: attempts + 1 });
    }

    /// The pod had a node, but binding it failed.
    pub(crate) fn failed(&mut self, pod: Pod, attempts: u32, now: Duration) {
        let state = State::BackingOff { until: now + backoff(attempts) };
        self.pods.insert(pod.uid().to_owned(), Waiting { pod, state, attempts: attempts + 1 });
    }

    /// Wakes the pods whose rejecting plugins listen to `event`.
    pub(crate) fn happened(&mut self, event: Event, now: Duration) {
        for waiting in self.pods.values_mut() {
            let State::Resting { plugins, backoff_until, .. } = &waiting.state else { continue };
            let helps = plugins.is_empty()
                || plugins.iter().any(|name| by_name(name).is_none_or(|one| one.wakes(event)));
            if helps {
                waiting.state = State::BackingOff { until: *backoff_until };
            }
        }
        self.wake_rested(now);
    }

    /// When a pod's rest or back-off ends next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let due = self.pods.values().filter_map(|waiting| match waiting.state {
            State::Active => None,
            State::Resting { since, .. } => Some(since + LONGEST_REST),
            State::BackingOff { until } => Some(until),
        });
        due.min()
    }

    fn wake_rested(&mut self, now: Duration) {
        for waiting in self.pods.values_mut() {
            let over = match waiting.state {
                State::Active => false,
                State::Resting { since, .. } => now >= since + LONGEST_REST,
                State::BackingOff { until } => now >= until,
            };
            if over {
                waiting.state = State::Active;
                self.active.insert(rank(&waiting.pod));
            }
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << attempts.min(8)).min(LAST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const S: Duration = Duration::from_secs(1);

    fn pod(uid: &str, priority: i32, made: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid, "creationTimestamp": made}, "spec": {"priority": priority},
        }))
        .unwrap()
    }

    fn take(queue: &mut Queue, now: Duration) -> Option<String> {
        queue.take(now).map(|(pod, _)| pod.uid().to_owned())
    }

    #[test]
    fn pods_come_by_priority_and_then_by_age() {
        let mut queue = Queue::default();
        queue.set(pod("young", 0, "2026-01-02T00:00:00Z"));
        queue.set(pod("old", 0, "2026-01-01T00:00:00Z"));
        queue.set(pod("urgent", 9, "2026-01-03T00:00:00Z"));
        queue.set(pod("gone", 9, "2026-01-03T00:00:00Z"));
        queue.remove("gone");
        let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, S)).collect();
        assert_eq!(order, ["urgent", "old", "young"]);
    }

    #[test]
    fn a_rejected_pod_rests_until_its_plugin_is_helped_and_its_backoff_is_over() {
        let mut queue = Queue::default();
        queue.rejected(pod("a", 0, "2026-01-01T00:00:00Z"), 0, vec!["NodeAffinity"], S);
        queue.happened(Event::PodGone, 5 * S);
        assert_eq!(take(&mut queue, 5 * S), None, "a pod that left does not help an affinity");
        queue.happened(Event::NodeChanged, 5 * S);
        assert_eq!(take(&mut queue, 5 * S), Some("a".into()));
        queue.rejected(pod("a", 0, "2026-01-01T00:00:00Z"), 2, vec!["NodeResourcesFit"], 6 * S);
        queue.happened(Event::PodGone, 7 * S);
        assert_eq!((take(&mut queue, 7 * S), queue.next_due()), (None, Some(10 * S)));
        assert_eq!(take(&mut queue, 10 * S), Some("a".into()));
    }

    #[test]
    fn nobody_rests_for_ever_and_a_changed_pod_is_looked_at_at_once() {
        let mut queue = Queue::default();
        queue.rejected(pod("a", 0, "2026-01-01T00:00:00Z"), 0, vec!["NodeName"], S);
        assert_eq!(take(&mut queue, 300 * S), None);
        queue.set(pod("a", 0, "2026-01-01T00:00:00Z"));
        assert_eq!(take(&mut queue, 300 * S), None, "an unchanged pod rests on");
        assert_eq!(take(&mut queue, 301 * S), Some("a".into()));
        queue.rejected(pod("a", 0, "2026-01-01T00:00:00Z"), 0, vec!["NodeName"], 301 * S);
        queue.set(pod("a", 7, "2026-01-01T00:00:00Z"));
        assert_eq!(take(&mut queue, 302 * S), Some("a".into()));
    }
}
