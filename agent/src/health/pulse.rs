//! The reconciler's pulse: what is waiting, since when, and how the last rounds went.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::tables::{Source, Tables};

/// How long changes may wait for the kernel before the proxy counts as ill: kube-proxy's figure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Written by the reconciler, read by whoever asks for its health.
#[derive(Debug)]
pub struct Pulse {
    beats: Mutex<Beats>,
    durations: Histogram,
    programming: Histogram,
    last: SecondsGauge,
    queued: SecondsGauge,
}

type SecondsGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

#[derive(Debug, Default)]
struct Beats {
    waiting_since: Option<Instant>,
    /// Since when the changes of the running round wait.
    running_since: Option<Instant>,
    /// When the running round began.
    began: Option<Instant>,
    last_round: Option<Timestamp>,
    /// Whether the running round knows all services and their endpoints.
    knows_all: bool,
    /// Whether a round that did has ended.
    has_served: bool,
    /// Changes of services and slices that the last round has seen.
    seen: [u64; 2],
    /// When the changes of the running round happened in the cluster.
    triggers: Vec<Timestamp>,
    summary: Summary,
}

/// The reconciler after its last round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Operations since the start.
    pub operations: u64,
    /// Errors since the start.
    pub errors: u64,
    /// What waits for another attempt.
    pub failing: u64,
    /// What of that finds no room in a map.
    pub without_room: u64,
    /// Rows of frontends.
    pub frontends: u64,
    /// Service ports.
    pub services: u64,
    /// Segments of backends.
    pub segments: u64,
    /// Local pods.
    pub endpoints: u64,
    /// Routes to pods.
    pub routes: u64,
}

impl Default for Pulse {
    fn default() -> Self {
        // Half a second apart up to one, a second up to a minute, then coarser: as upstream's.
        let programming = [0.01, 0.05, 0.25, 0.5]
            .into_iter()
            .chain((1..60).map(f64::from))
            .chain((0..12).map(|step| f64::from(60 + 5 * step)))
            .chain((0..7).map(|step| f64::from(120 + 30 * step)));
        Self {
            beats: Mutex::default(),
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            programming: Histogram::new(programming),
            last: SecondsGauge::default(),
            queued: SecondsGauge::default(),
        }
    }
}

impl Pulse {
    /// Something has changed and waits for a round.
    pub fn queued(&self, now: Instant) {
        self.beats.lock().waiting_since.get_or_insert(now);
        self.queued.set(seconds(Timestamp::now()));
    }

    /// A round begins: what changes from here on waits for the next one.
    pub fn taken(&self, tables: &Tables, now: Instant) {
        let mut beats = self.beats.lock();
        beats.running_since = Some(beats.waiting_since.take().unwrap_or(now));
        beats.began = Some(now);
        let sources = [Source::Services, Source::Slices];
        beats.seen = sources.map(|source| tables.changes_of(source));
        beats.knows_all = tables.look(|rows| sources.iter().all(|source| rows.synced.contains(source)));
        beats.triggers.extend(tables.take_triggers());
    }

    /// A round has ended.
    pub fn done(&self, now: Instant, summary: Summary) {
        let at = Timestamp::now();
        let mut beats = self.beats.lock();
        beats.running_since = None;
        beats.last_round = Some(at);
        beats.has_served |= beats.knows_all;
        beats.summary = summary;
        if let Some(began) = beats.began.take() {
            self.durations.observe(now.saturating_duration_since(began).as_secs_f64());
        }
        for trigger in beats.triggers.drain(..) {
            self.programming.observe((seconds(at) - seconds(trigger)).max(0.0));
        }
        self.last.set(seconds(at));
    }

    /// Whether changes reach the kernel: none waits for too long.
    pub fn is_well(&self, now: Instant) -> bool {
        let beats = self.beats.lock();
        let mut since = beats.waiting_since.iter().chain(&beats.running_since);
        since.all(|since| now.saturating_duration_since(*since) < PATIENCE)
    }

    /// Whether all services were in the kernel once, as far as they fit, since this agent runs.
    pub fn has_served(&self) -> bool {
        self.beats.lock().has_served
    }

    /// When the last round ended.
    pub fn last_round(&self) -> Option<Timestamp> {
        self.beats.lock().last_round
    }

    /// The reconciler after its last round.
    pub fn summary(&self) -> Summary {
        self.beats.lock().summary
    }

    /// Changes of services or slices: all, and those no round has seen.
    pub fn changes(&self, tables: &Tables, source: Source) -> (u64, u64) {
        let seen = self.beats.lock().seen[usize::from(source == Source::Slices)];
        let all = tables.changes_of(source);
        (all, all.saturating_sub(seen))
    }

    /// Shows what it measures under kube-proxy's names.
    pub fn register(&self, registry: &mut Registry) {
        let names = registry.sub_registry_with_prefix("kubeproxy");
        names.register("sync_proxy_rules_duration_seconds", "How long a round took", self.durations.clone());
        names.register("sync_proxy_rules_last_timestamp_seconds", "End of the last round", self.last.clone());
        names.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When something last changed",
            self.queued.clone(),
        );
        names.register(
            "network_programming_duration_seconds",
            "From the change of a pod or service to the kernel",
            self.programming.clone(),
        );
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_wait_for_a_minute_are_an_illness() {
        let (pulse, tables, start) = (Pulse::default(), Tables::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(pulse.is_well(later(1000)), "nothing waits");
        pulse.queued(start);
        pulse.queued(later(50));
        assert!(pulse.is_well(later(59)));
        assert!(!pulse.is_well(later(60)), "the first change counts");
        pulse.taken(&tables, later(60));
        assert!(!pulse.is_well(later(60)), "a round that does not end helps nobody");
        pulse.done(later(61), Summary::default());
        assert!(pulse.is_well(later(1000)) && pulse.last_round().is_some());
    }

    #[test]
    fn a_round_serves_when_it_began_with_everything_known() {
        let (pulse, tables) = (Pulse::default(), Tables::default());
        let round = |meanwhile: &dyn Fn()| {
            pulse.taken(&tables, Instant::now());
            meanwhile();
            pulse.done(Instant::now(), Summary::default());
            pulse.has_served()
        };
        assert!(!round(&|| tables.synced(Source::Services)));
        assert!(!round(&|| tables.synced(Source::Slices)), "it could not know the slices");
        assert!(round(&|| ()));
    }

    #[test]
    fn changes_are_pending_until_a_round_begins() {
        let (pulse, tables) = (Pulse::default(), Tables::default());
        tables.changed(Source::Slices, None);
        tables.changed(Source::Slices, None);
        assert_eq!(pulse.changes(&tables, Source::Slices), (2, 2));
        assert_eq!(pulse.changes(&tables, Source::Services), (0, 0));
        pulse.taken(&tables, Instant::now());
        assert_eq!(pulse.changes(&tables, Source::Slices), (2, 0));
    }

    #[test]
    fn programming_is_measured_from_the_trigger_to_the_end_of_the_round() {
        let (pulse, tables) = (Pulse::default(), Tables::default());
        let ago = Timestamp::now() - jiff::SignedDuration::from_millis(700);
        tables.changed(Source::Slices, Some(ago));
        pulse.taken(&tables, Instant::now());
        pulse.done(Instant::now(), Summary::default());
        let mut registry = Registry::default();
        pulse.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("kubeproxy_network_programming_duration_seconds_bucket{le=\"1.0\"} 1"),
            "{text}"
        );
        assert!(text.contains("kubeproxy_sync_proxy_rules_duration_seconds_count 1"), "{text}");
    }
}
