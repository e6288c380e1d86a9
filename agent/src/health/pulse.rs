//! The reconciler's pulse: what is waiting, since when, and when the last round ended.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long changes may wait for the kernel before the proxy counts as ill: kube-proxy's figure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Written by the reconciler, read by whoever asks for its health.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: Mutex<Beats>,
}

#[derive(Debug, Default)]
struct Beats {
    waiting_since: Option<Instant>,
    /// Since when the changes of the running round wait.
    running_since: Option<Instant>,
    last_round: Option<jiff::Timestamp>,
}

impl Pulse {
    /// Something has changed and waits for a round.
    pub fn queued(&self, now: Instant) {
        self.beats.lock().waiting_since.get_or_insert(now);
    }

    /// A round begins: what changes from here on waits for the next one.
    pub fn taken(&self, now: Instant) {
        let mut beats = self.beats.lock();
        beats.running_since = Some(beats.waiting_since.take().unwrap_or(now));
    }

    /// A round has ended.
    pub fn done(&self) {
        let mut beats = self.beats.lock();
        beats.running_since = None;
        beats.last_round = Some(jiff::Timestamp::now());
    }

    /// Whether changes reach the kernel: none waits for too long.
    pub fn is_well(&self, now: Instant) -> bool {
        let beats = self.beats.lock();
        let mut since = beats.waiting_since.iter().chain(&beats.running_since);
        since.all(|since| now.saturating_duration_since(*since) < PATIENCE)
    }

    /// When the last round ended.
    pub fn last_round(&self) -> Option<jiff::Timestamp> {
        self.beats.lock().last_round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_wait_for_a_minute_are_an_illness() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(pulse.is_well(later(1000)), "nothing waits");
        pulse.queued(start);
        pulse.queued(later(50));
        assert!(pulse.is_well(later(59)));
        assert!(!pulse.is_well(later(60)), "the first change counts");
        pulse.taken(later(60));
        assert!(!pulse.is_well(later(60)), "a round that does not end helps nobody");
        pulse.done();
        assert!(pulse.is_well(later(1000)) && pulse.last_round().is_some());
    }
}
