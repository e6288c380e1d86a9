//! One pod's worker: look, decide, do, report; until the pod is gone.

mod act;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::cri::CriError;
use super::decide::{self, Action, Situation};
use super::execute::Executor;
use super::memory::{Backoff, Memory};
use super::names::PodKey;
use super::observed::{Observed, Observer};
use super::probes::{Board, Probes, Subject};
use super::reach::Target;
use super::report::Reporter;
use super::status;

/// After something failed that has no back-off of its own.
const PAUSE: Duration = Duration::from_secs(1);
/// How often volumes are brought up to date, and everything is looked at again.
const REFRESH: Duration = Duration::from_secs(30);

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The pod's object.
    pub pod: Arc<core::Pod>,
    /// The object is gone.
    pub removed: bool,
}

/// The worker.
#[derive(Debug)]
pub struct Worker {
    key: PodKey,
    assignment: Assignment,
    inbox: watch::Receiver<Assignment>,
    nudge: Arc<Notify>,
    executor: Executor,
    observer: Observer,
    reporter: Reporter,
    memory: Memory,
    board: Arc<Board>,
    probes: Probes,
    places: HashMap<String, PathBuf>,
    refreshed: tokio::time::Instant,
    /// What volumes are made from has changed.
    stale: bool,
    /// Containers whose preStop hook has begun.
    hooked: BTreeSet<String>,
    /// Containers whose back-off people were told of.
    told: BTreeSet<String>,
}

/// What interrupted a wait.
enum Woken {
    Look,
    Stop,
}

impl Worker {
    /// A worker for the pod in `inbox`, woken through `nudge`.
    pub fn new(inbox: watch::Receiver<Assignment>, nudge: Arc<Notify>, executor: Executor) -> Self {
        let assignment = inbox.borrow().clone();
        let key = PodKey::of(&assignment.pod);
        let board = Arc::new(Board::new(Arc::clone(&nudge)));
        Self {
            reporter: Reporter::new(executor.objects.client().clone(), key.clone()),
            probes: Probes::new(Arc::clone(&board), executor.recorder.clone()),
            key,
            assignment,
            inbox,
            nudge,
            executor,
            observer: Observer::default(),
            memory: Memory::default(),
            board,
            places: HashMap::new(),
            refreshed: tokio::time::Instant::now(),
            stale: false,
            hooked: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    /// Works until the pod is gone or `stop`; containers go on when this returns because of `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut troubled = false;
        loop {
            // What is dropped half-way is taken up by the next agent, as after a crash.
            let turn = tokio::select! {
                turn = self.turn(&stop) => turn,
                () = stop.cancelled() => return,
            };
            match turn {
                Ok(true) => return,
                Ok(false) => troubled = false,
                Err(error) => {
                    if !troubled {
                        tracing::warn!(pod = %self.key, %error, "the pod is looked at again and again");
                    }
                    troubled = true;
                    if matches!(self.wait(Some(PAUSE), &stop).await, Woken::Stop) {
                        return;
                    }
                }
            }
        }
    }

    /// One look and what follows from it; true when there is nothing left to do, ever.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<bool, CriError> {
        self.take_assignment();
        let observed = self.observer.observe(&self.executor.cri, &self.key).await?;
        let now = Timestamp::now();
        self.recall(&observed, now);
        let plan = decide::decide(&self.situation(&observed, now));
        if plan.actions == [Action::Finish] {
            return self.finish(&observed, stop).await;
        }
        let told = self.report(&observed, now).await;
        if plan.actions.is_empty() {
            self.tell_of_backoff(&observed, now);
            self.refresh().await;
            let until_refresh = REFRESH.saturating_sub(self.refreshed.elapsed());
            let due = plan.wake.map(|wake| Duration::try_from(wake.duration_since(now)).unwrap_or_default());
            let retell = if told { REFRESH } else { PAUSE };
            let patience = due.map_or(until_refresh, |due| due.min(until_refresh)).min(retell);
            let patience = patience.max(Duration::from_millis(10));
            if matches!(self.wait(Some(patience), stop).await, Woken::Stop) {
                return Ok(true);
            }
            return Ok(false);
        }
        self.carry_out(plan, &observed, stop).await
    }

    fn take_assignment(&mut self) {
        let news = self.inbox.borrow_and_update().clone();
        let (before, after) = (&self.assignment.pod.metadata, &news.pod.metadata);
        if before.labels != after.labels || before.annotations != after.annotations {
            // Volumes may show them.
            self.stale = true;
        }
        self.assignment = news;
    }

    fn situation<'a>(&'a self, observed: &'a Observed, now: Timestamp) -> Situation<'a> {
        Situation {
            pod: &self.assignment.pod,
            removed: self.assignment.removed,
            observed,
            memory: &self.memory,
            now,
        }
    }

    /// Brings the memory up to date with what was observed.
    fn recall(&mut self, observed: &Observed, now: Timestamp) {
        if self.assignment.removed || self.assignment.pod.metadata.deletion_timestamp.is_some() {
            self.memory.ending.get_or_insert(now);
        }
        // Crash loops of before a restart of ours go on where they were.
        for container in &observed.containers {
            if container.attempt > 0
                && !self.memory.backoff.contains_key(&container.name)
                && let Some(backoff) = Backoff::after_restarts(container.attempt, container.created)
            {
                self.memory.backoff.insert(container.name.clone(), backoff);
            }
        }
        // Also while the pod ends: what still answers may still be asked.
        self.probes.keep(self.subjects(observed));
        self.memory.verdicts = self.board.read();
    }

    fn subjects(&self, observed: &Observed) -> Vec<Subject> {
        let pod = &self.assignment.pod;
        let Some(spec) = &pod.spec else { return Vec::new() };
        let Some(address) = self.addresses(observed).first().copied() else { return Vec::new() };
        let known = pod.status.iter().flat_map(|status| {
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
        });
        let ready: Vec<String> = known
            .filter(|status| status.ready)
            .filter_map(|status| Some(status.container_id.as_ref()?.split_once("://")?.1.to_owned()))
            .collect();
        let subject = |running: &super::observed::Container| {
            let (container, _) =
                decide::containers(spec).find(|(container, _)| container.name == running.name)?;
            let super::observed::State::Running { started } = running.state else { return None };
            Some(Subject {
                pod: Arc::clone(pod),
                target: Target {
                    cri: self.executor.cri.clone(),
                    id: running.id.clone(),
                    container: Arc::new(container.clone()),
                    address,
                },
                started,
                was_ready: ready.contains(&running.id),
            })
        };
        observed.running().filter_map(subject).collect()
    }

    fn addresses(&self, observed: &Observed) -> Vec<IpAddr> {
        let on_host = self.assignment.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        match observed.sandbox() {
            Some(_) if on_host => self.executor.addresses.to_vec(),
            Some(sandbox) => sandbox.addresses.clone(),
            None => Vec::new(),
        }
    }

    async fn report(&mut self, observed: &Observed, now: Timestamp) -> bool {
        if self.assignment.removed {
            return true;
        }
        let status =
            status::status(&self.situation(observed, now), &self.executor.runtime, &self.executor.addresses);
        self.reporter.report(&self.assignment.pod, status).await
    }

    fn tell_of_backoff(&mut self, observed: &Observed, now: Timestamp) {
        for (name, backoff) in &self.memory.backoff {
            let Some(latest) = observed.latest(name) else { continue };
            let super::observed::State::Exited { finished, .. } = latest.state else { continue };
            if finished + backoff.delay > now && self.told.insert(latest.id.clone()) {
                let message = format!("Back-off restarting failed container {name} in pod {}", self.key);
                self.executor.recorder.container(&self.assignment.pod, name, true, "BackOff", message);
            }
        }
    }

    async fn wait(&mut self, patience: Option<Duration>, stop: &CancellationToken) -> Woken {
        let patience = patience.unwrap_or(REFRESH);
        tokio::select! {
            changed = self.inbox.changed() => {
                // Without a supervisor there are no more assignments: the agent ends.
                if changed.is_ok() { Woken::Look } else { Woken::Stop }
            }
            () = self.nudge.notified() => Woken::Look,
            () = tokio::time::sleep(patience) => Woken::Look,
            () = stop.cancelled() => Woken::Stop,
        }
    }

    async fn refresh(&mut self) {
        let due = self.stale || self.refreshed.elapsed() >= REFRESH;
        if !due || !self.memory.volumes || self.memory.ending.is_some() {
            return;
        }
        self.stale = false;
        self.refreshed = tokio::time::Instant::now();
        if let Err(error) = self.executor.volumes.prepare(&self.assignment.pod).await {
            tracing::warn!(pod = %self.key, error = chain(&error), "volumes are not up to date");
        }
    }

    /// The last report, then nothing of the pod remains: neither here nor at the API server.
    async fn finish(&mut self, observed: &Observed, stop: &CancellationToken) -> Result<bool, CriError> {
        if !self.report(observed, Timestamp::now()).await {
            return Ok(matches!(self.wait(Some(PAUSE), stop).await, Woken::Stop));
        }
        let sandboxes: Vec<String> = observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        if let Err(error) = self.executor.clean_up(&self.assignment.pod, &sandboxes).await {
            tracing::error!(pod = %self.key, error = chain(&error), "something of the pod stays");
            return Ok(matches!(self.wait(Some(PAUSE), stop).await, Woken::Stop));
        }
        if self.assignment.removed || self.reporter.release().await {
            tracing::info!(pod = %self.key, "gone");
            return Ok(true);
        }
        Ok(matches!(self.wait(Some(PAUSE), stop).await, Woken::Stop))
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
