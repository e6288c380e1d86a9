//! Carrying out a plan: what fails is remembered with the time of the next try.

use std::pin::pin;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Worker, chain};
use crate::pods::cri::CriError;
use crate::pods::decide::{self, Action, Plan, Role};
use crate::pods::execute::{Start, StartError};
use crate::pods::memory::{Backoff, Hindrance, Waits};
use crate::pods::observed::Observed;

impl Worker {
    pub(super) async fn carry_out(
        &mut self,
        plan: Plan,
        observed: &Observed,
        stop: &CancellationToken,
    ) -> Result<bool, CriError> {
        let (kills, others): (Vec<Action>, Vec<Action>) =
            plan.actions.into_iter().partition(|action| matches!(action, Action::Kill { .. }));
        if !kills.is_empty() {
            return self.kill(kills, observed, stop).await;
        }
        for action in others {
            match action {
                Action::PrepareVolumes => {
                    if !self.prepare_volumes().await {
                        return Ok(false);
                    }
                }
                Action::RunSandbox { attempt } => {
                    self.run_sandbox(attempt).await;
                    return Ok(false);
                }
                Action::Start { name, sandbox, attempt, role } => {
                    self.start(&name, &sandbox, (attempt, role), observed).await;
                }
                Action::Remove { id } => self.executor.cri.remove(&id).await?,
                Action::StopSandbox { id } => self.executor.cri.stop_sandbox(&id).await?,
                Action::RemoveSandbox { id } => self.executor.cri.remove_sandbox(&id).await?,
                Action::Kill { .. } | Action::Finish => {}
            }
        }
        Ok(false)
    }

    /// Stops containers side by side; news about the pod interrupt, for the grace period may have become shorter.
    async fn kill(
        &mut self,
        kills: Vec<Action>,
        observed: &Observed,
        stop: &CancellationToken,
    ) -> Result<bool, CriError> {
        let addresses = self.addresses(observed);
        let pod = Arc::clone(&self.assignment.pod);
        let executor = self.executor.clone();
        let before = self.hooked.clone();
        let stops = kills.iter().filter_map(|action| {
            let Action::Kill { id, name, grace, why } = action else { return None };
            let hooked = before.contains(id);
            Some(executor.kill(&pod, id, name, *grace, (why, &addresses, hooked)))
        });
        let stops = join_all(stops);
        self.hooked.extend(kills.iter().filter_map(|action| match action {
            Action::Kill { id, .. } => Some(id.clone()),
            _ => None,
        }));
        let grace = (pod.metadata.deletion_grace_period_seconds, self.assignment.removed);
        let mut inbox = self.inbox.clone();
        let shortened = async {
            loop {
                if inbox.changed().await.is_err() {
                    return;
                }
                let now = inbox.borrow_and_update();
                if (now.pod.metadata.deletion_grace_period_seconds, now.removed) != grace {
                    return;
                }
            }
        };
        let mut waits = (pin!(stops), pin!(shortened));
        let nudge = Arc::clone(&self.nudge);
        loop {
            tokio::select! {
                results = &mut waits.0 => {
                    return results.into_iter().collect::<Result<Vec<()>, CriError>>().map(|_| false);
                }
                () = &mut waits.1 => return Ok(false),
                () = stop.cancelled() => return Ok(true),
                // One that ends before the others, or no longer answers its probe, is told at once.
                () = nudge.notified() => self.look_and_tell().await?,
            }
        }
    }

    async fn look_and_tell(&mut self) -> Result<(), CriError> {
        let observed = self.observer.observe(&self.executor.cri, &self.key).await?;
        let now = Timestamp::now();
        self.recall(&observed, now);
        self.report(&observed, now).await;
        Ok(())
    }

    async fn prepare_volumes(&mut self) -> bool {
        match self.executor.volumes.prepare(&self.assignment.pod).await {
            Ok(places) => {
                self.places = places;
                self.memory.volumes = true;
                self.refreshed = tokio::time::Instant::now();
                true
            }
            Err(error) => {
                let message = format!("MountVolume.SetUp failed: {}", chain(&error));
                self.executor.recorder.warning(&self.assignment.pod, "FailedMount", message.clone());
                self.hinder_sandbox("FailedMount", message);
                false
            }
        }
    }

    async fn run_sandbox(&mut self, attempt: u32) {
        match self.executor.run_sandbox(&self.assignment.pod, attempt).await {
            Ok(_) => self.memory.sandbox = None,
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", chain(&error));
                self.executor.recorder.warning(
                    &self.assignment.pod,
                    "FailedCreatePodSandBox",
                    message.clone(),
                );
                self.hinder_sandbox("FailedCreatePodSandBox", message);
            }
        }
    }

    fn hinder_sandbox(&mut self, reason: &str, message: String) {
        let now = Timestamp::now();
        tracing::warn!(pod = %self.key, reason, why = message, "the pod has no sandbox");
        let previous = self.memory.sandbox.take();
        self.memory.sandbox = Some(Hindrance::new(previous.as_ref(), Waits::SANDBOX, reason, message, now));
    }

    async fn start(&mut self, name: &str, sandbox: &str, (attempt, role): (u32, Role), observed: &Observed) {
        let pod = Arc::clone(&self.assignment.pod);
        let Some(spec) = &pod.spec else { return };
        let Some((container, _)) = decide::containers(spec).find(|(container, _)| container.name == name)
        else {
            return;
        };
        let addresses = self.addresses(observed);
        let start = Start {
            pod: &pod,
            container,
            sandbox,
            sandbox_attempt: observed.sandbox().map_or(0, |sandbox| sandbox.attempt),
            addresses: &addresses,
            attempt,
            places: &self.places,
        };
        let mut inbox = self.inbox.clone();
        let ended = inbox.wait_for(|now| now.removed || now.pod.metadata.deletion_timestamp.is_some());
        let result = tokio::select! {
            result = self.executor.start(start) => result,
            // A pull may take long; what it was for has ended.
            _ = ended => return,
        };
        let now = Timestamp::now();
        if attempt > 0 {
            let previous = self.memory.backoff.get(name).copied();
            self.memory.backoff.insert(name.to_owned(), Backoff::next(previous, now));
        }
        match result {
            Ok(()) => {
                self.memory.hindrances.remove(name);
            }
            Err(error) => self.hinder(name, role, &error, now),
        }
    }

    fn hinder(&mut self, name: &str, role: Role, error: &StartError, now: Timestamp) {
        let message = chain(error);
        tracing::warn!(pod = %self.key, container = name, ?role, error = message, "the container is not started");
        let previous = self.memory.hindrances.remove(name);
        let again = previous.is_some();
        let (waits, reason) = match error {
            // The second failure in a row is called a back-off, as users know it.
            StartError::Image(image) if again && image.reason() == "ErrImagePull" => {
                (Waits::IMAGE, "ImagePullBackOff")
            }
            StartError::Image(image) => (Waits::IMAGE, image.reason()),
            other => (Waits::CONTAINER, other.reason()),
        };
        let shown =
            if reason == "ImagePullBackOff" { format!("Back-off pulling image: {message}") } else { message };
        let event = match error {
            StartError::Image(_) if again => "BackOff",
            _ => "Failed",
        };
        self.executor.recorder.container(&self.assignment.pod, name, true, event, shown.clone());
        let hindrance = Hindrance::new(previous.as_ref(), waits, reason, shown, now);
        self.memory.hindrances.insert(name.to_owned(), hindrance);
    }
}
