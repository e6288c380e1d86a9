//! Probes: one task per running container, its verdicts on a board the worker reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::events::Recorder;
use super::memory::Verdicts;
use super::reach::{Target, Unreached};

/// Between the first readiness probes.
const EAGER: Duration = Duration::from_secs(1);

/// Verdicts by container id; the worker is woken when one changes.
#[derive(Debug, Default)]
pub struct Board {
    verdicts: Mutex<BTreeMap<String, Verdicts>>,
    changed: Arc<Notify>,
}

impl Board {
    /// A board that wakes `changed`.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { verdicts: Mutex::default(), changed }
    }

    /// All verdicts now.
    pub fn read(&self) -> BTreeMap<String, Verdicts> {
        self.verdicts.lock().clone()
    }

    fn set(&self, id: &str, change: impl FnOnce(&mut Verdicts)) {
        let mut verdicts = self.verdicts.lock();
        let entry = verdicts.entry(id.to_owned()).or_default();
        let before = entry.clone();
        change(entry);
        if *entry != before {
            self.changed.notify_one();
        }
    }

    fn forget(&self, id: &str) {
        self.verdicts.lock().remove(id);
    }
}

/// Consecutive results, and what they amount to: a pure state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    success_threshold: i32,
    failure_threshold: i32,
    last: bool,
    run: i32,
}

impl Tally {
    /// For one probe.
    pub fn new(probe: &core::Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            last: false,
            run: 0,
        }
    }

    /// Counts a result; a verdict when a threshold is reached.
    pub fn count(&mut self, good: bool) -> Option<bool> {
        self.run = if self.run > 0 && self.last == good { self.run.saturating_add(1) } else { 1 };
        self.last = good;
        let threshold = if good { self.success_threshold } else { self.failure_threshold };
        (self.run >= threshold).then_some(good)
    }
}

/// What one container is probed with.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The pod.
    pub pod: Arc<core::Pod>,
    /// The container.
    pub target: Target,
    /// Since when it runs.
    pub started: Timestamp,
    /// Was it ready when the API server last heard of it? Spares a restart of ours the dip.
    pub was_ready: bool,
}

/// The probing of the containers of one pod.
#[derive(Debug)]
pub struct Probes {
    board: Arc<Board>,
    recorder: Recorder,
    tasks: BTreeMap<String, JoinHandle<()>>,
}

impl Probes {
    /// None yet.
    pub fn new(board: Arc<Board>, recorder: Recorder) -> Self {
        Self { board, recorder, tasks: BTreeMap::new() }
    }

    /// Probes exactly these containers.
    pub fn keep(&mut self, subjects: Vec<Subject>) {
        let gone: Vec<String> = self
            .tasks
            .keys()
            .filter(|id| !subjects.iter().any(|subject| subject.target.id == **id))
            .cloned()
            .collect();
        for id in gone {
            if let Some(task) = self.tasks.remove(&id) {
                task.abort();
            }
            self.board.forget(&id);
        }
        for subject in subjects {
            let id = subject.target.id.clone();
            if !self.tasks.contains_key(&id) {
                let container = &subject.target.container;
                let started = container.startup_probe.is_none() || subject.was_ready;
                let ready = started && (container.readiness_probe.is_none() || subject.was_ready);
                self.board.set(&id, |verdicts| *verdicts = Verdicts { started, ready, unhealthy: None });
                let task = tokio::spawn(watch(Arc::clone(&self.board), self.recorder.clone(), subject));
                self.tasks.insert(id, task);
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

async fn watch(board: Arc<Board>, recorder: Recorder, subject: Subject) {
    let container = Arc::clone(&subject.target.container);
    let id = &subject.target.id;
    if let Some(probe) = &container.startup_probe
        && !subject.was_ready
    {
        let mut pulse = Pulse::new("Startup", probe, &recorder, &subject);
        loop {
            match pulse.next().await {
                Some(Ok(())) => break,
                Some(Err(error)) => {
                    board.set(id, |v| v.unhealthy = Some(format!("failed startup probe: {error}")));
                    return;
                }
                None => {}
            }
        }
        board.set(id, |verdicts| {
            verdicts.started = true;
            verdicts.ready = container.readiness_probe.is_none();
        });
    }
    let liveness = async {
        let Some(probe) = &container.liveness_probe else { return };
        let mut pulse = Pulse::new("Liveness", probe, &recorder, &subject);
        loop {
            if let Some(Err(error)) = pulse.next().await {
                board.set(id, |v| v.unhealthy = Some(format!("failed liveness probe: {error}")));
                return;
            }
        }
    };
    let readiness = async {
        let Some(probe) = &container.readiness_probe else { return };
        let mut pulse = Pulse::new("Readiness", probe, &recorder, &subject);
        pulse.await_first().await;
        loop {
            if let Some(result) = pulse.next().await {
                board.set(id, |verdicts| verdicts.ready = result.is_ok());
            }
        }
    };
    tokio::join!(liveness, readiness);
}

/// One probe over time.
struct Pulse<'a> {
    kind: &'static str,
    probe: &'a core::Probe,
    recorder: &'a Recorder,
    subject: &'a Subject,
    tally: Tally,
    ticks: tokio::time::Interval,
}

impl<'a> Pulse<'a> {
    fn new(kind: &'static str, probe: &'a core::Probe, recorder: &'a Recorder, subject: &'a Subject) -> Self {
        let delay = seconds(probe.initial_delay_seconds, 0);
        let ran = Timestamp::now().duration_since(subject.started);
        let ran = Duration::try_from(ran).unwrap_or_default();
        let first = tokio::time::Instant::now() + delay.saturating_sub(ran);
        let mut ticks =
            tokio::time::interval_at(first, seconds(probe.period_seconds, 10).max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { kind, probe, recorder, subject, tally: Tally::new(probe), ticks }
    }

    /// Most processes need a moment before they listen. Within the first period a failure is not yet worth telling, and
    /// worth trying again after a second; without this a slow start would cost a whole period.
    async fn await_first(&mut self) {
        let period = self.ticks.period();
        self.ticks.tick().await;
        let since = tokio::time::Instant::now();
        while since.elapsed() < period && once(self.probe, &self.subject.target).await.is_err() {
            tokio::time::sleep(EAGER).await;
        }
        self.ticks.reset_immediately();
    }

    /// The next verdict; none while the thresholds are not reached.
    async fn next(&mut self) -> Option<Result<(), Unreached>> {
        self.ticks.tick().await;
        let result = once(self.probe, &self.subject.target).await;
        if let Err(error) = &result {
            let container = &self.subject.target.container.name;
            let message = format!("{} probe failed: {error}", self.kind);
            self.recorder.container(&self.subject.pod, container, true, "Unhealthy", message);
        }
        self.tally.count(result.is_ok()).map(|_| result)
    }
}

async fn once(probe: &core::Probe, target: &Target) -> Result<(), Unreached> {
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let attempt = async {
        if let Some(action) = &probe.exec {
            target.exec(action, limit).await
        } else if let Some(action) = &probe.http_get {
            target.http(action).await
        } else if let Some(action) = &probe.tcp_socket {
            target.tcp(action).await
        } else if let Some(action) = &probe.grpc {
            target.grpc(action).await
        } else {
            Ok(())
        }
    };
    // The runtime keeps the limit of commands itself; it is given a moment to say so.
    let patience = if probe.exec.is_some() { limit + Duration::from_secs(2) } else { limit };
    match tokio::time::timeout(patience, attempt).await {
        Ok(result) => result,
        Err(_) => Err(Unreached(format!("no answer within {}s", limit.as_secs()))),
    }
}

fn seconds(value: Option<i32>, otherwise: u64) -> Duration {
    Duration::from_secs(value.map_or(otherwise, |value| u64::try_from(value).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row() {
        let probe =
            core::Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Default::default() };
        let mut tally = Tally::new(&probe);
        let results = [true, true, false, false, true, false, false, false, true];
        let verdicts: Vec<Option<bool>> = results.into_iter().map(|good| tally.count(good)).collect();
        let want = [None, Some(true), None, None, None, None, None, Some(false), None];
        assert_eq!(verdicts, want);
    }
}
