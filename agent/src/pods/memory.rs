//! What a pod's worker knows that the runtime does not: back-off, failed attempts, results of probes. Lost on a restart.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// The first wait after a crash, and after a failed pull.
pub const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest.
pub const BACKOFF_LONGEST: SignedDuration = SignedDuration::from_mins(5);
/// A container that ran so long starts over.
const BACKOFF_FORGET: SignedDuration = SignedDuration::from_mins(10);

/// How long a container waits after its next crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait.
    pub delay: SignedDuration,
    /// When it was set: with a restart.
    pub set: Timestamp,
}

impl Backoff {
    /// The wait after a restart at `now`.
    pub fn next(previous: Option<Self>, now: Timestamp) -> Self {
        let delay = match previous {
            Some(previous) if now.duration_since(previous.set) < BACKOFF_FORGET => {
                (previous.delay * 2).min(BACKOFF_LONGEST)
            }
            _ => BACKOFF_FIRST,
        };
        Self { delay, set: now }
    }

    /// The wait of a container that restarted so often before we looked.
    pub fn after_restarts(restarts: u32, now: Timestamp) -> Option<Self> {
        let doublings = restarts.checked_sub(1)?.min(5);
        Some(Self { delay: (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_LONGEST), set: now })
    }
}

/// Why a container that should run was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// A word such as `ImagePullBackOff`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When to try again.
    pub retry: Timestamp,
    /// The wait before that try.
    pub delay: SignedDuration,
}

impl Hindrance {
    /// A failed attempt at `now`.
    pub fn new(previous: Option<&Self>, waits: Waits, reason: &str, message: String, now: Timestamp) -> Self {
        let delay = previous.map_or(waits.first, |previous| (previous.delay * 2).min(waits.longest));
        Self { reason: reason.to_owned(), message, retry: now + delay, delay }
    }
}

/// How long to wait between tries: twice as long each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// After the first failure.
    pub first: SignedDuration,
    /// At most.
    pub longest: SignedDuration,
}

impl Waits {
    /// For images: registries are spared.
    pub const IMAGE: Self = Self { first: BACKOFF_FIRST, longest: BACKOFF_LONGEST };
    /// For sandboxes and volumes: what is missing may come any moment.
    pub const SANDBOX: Self =
        Self { first: SignedDuration::from_secs(1), longest: SignedDuration::from_secs(20) };
    /// For containers that cannot be made.
    pub const CONTAINER: Self =
        Self { first: SignedDuration::from_secs(5), longest: SignedDuration::from_secs(20) };
}

/// What the probes say of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe succeeds, or there is none.
    pub ready: bool,
    /// The liveness or startup probe has failed for good: why.
    pub unhealthy: Option<String>,
}

/// Everything of one pod that is not in the runtime.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// By container name.
    pub backoff: BTreeMap<String, Backoff>,
    /// By container name.
    pub hindrances: BTreeMap<String, Hindrance>,
    /// By container id.
    pub verdicts: BTreeMap<String, Verdicts>,
    /// Are all volumes in place?
    pub volumes: bool,
    /// Why there is no sandbox, or why the volumes are not in place.
    pub sandbox: Option<Hindrance>,
    /// When the end was begun, once it was.
    pub ending: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_are_forgotten_after_ten() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut backoff = Backoff::next(None, at(0));
        let mut waits = vec![backoff.delay.as_secs()];
        for step in 1..7 {
            backoff = Backoff::next(Some(backoff), at(step));
            waits.push(backoff.delay.as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(Backoff::next(Some(backoff), at(700)).delay, BACKOFF_FIRST);
        assert_eq!(Backoff::after_restarts(3, at(0)).unwrap().delay.as_secs(), 40);
        assert_eq!(Backoff::after_restarts(0, at(0)), None);
    }
}
