//! The reconciler's thread: wakes on changes, retries, and answers questions about the node.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::apply::Reconciler;
use crate::admin::report::{Report, report};
use crate::desired::NodeFacts;
use crate::health::pulse::{Pulse, Summary};
use crate::kernel::{Kernel, KernelError};
use crate::tables::Tables;

/// How often silent flows are forgotten.
const EXPIRY: Duration = Duration::from_secs(5);

enum Wake {
    Changed,
    Report(oneshot::Sender<Result<Report, KernelError>>),
    Stop,
}

/// The way to a running reconciler.
#[derive(Clone)]
pub struct Reconciling {
    wake: Sender<Wake>,
    /// Folder where maps and programs are pinned, if the kernel is a real one.
    pub pins: Option<PathBuf>,
}

impl Reconciling {
    /// Starts the thread. `start` makes the kernel on that thread; its failure is returned from here.
    pub async fn start<K: Kernel + 'static>(
        start: impl FnOnce() -> Result<K, KernelError> + Send + 'static,
        tables: Arc<Tables>,
        facts: NodeFacts,
        pulse: Arc<Pulse>,
    ) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let (wake, wakes) = channel();
        let pending = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&pending);
        // Before the tables are read for the first time: nothing that changes is missed.
        tables.ring_with(bell(wake.clone(), Arc::clone(&pending), Arc::clone(&pulse)));
        let (ready, started) = oneshot::channel();
        let rows = Arc::clone(&tables);
        let beats = Arc::clone(&pulse);
        let thread = std::thread::Builder::new().name("reconcile".to_owned()).spawn(move || {
            match start().and_then(|kernel| Reconciler::new(kernel, Arc::clone(&rows), facts)) {
                Ok(mut reconciler) => {
                    // Nobody waiting means that the agent is stopping already.
                    if ready.send(Ok(reconciler.kernel.pins())).is_ok() {
                        serve(&mut reconciler, &wakes, &seen, &beats, &rows);
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let pins = started.await??;
        Ok((Self { wake, pins }, thread))
    }

    /// Everything a person may want to know.
    pub async fn report(&self) -> anyhow::Result<Report> {
        let (answer, answered) = oneshot::channel();
        self.wake.send(Wake::Report(answer))?;
        Ok(answered.await??)
    }

    /// Ends the thread; what is in the kernel stays.
    pub fn stop(&self) {
        // The thread may have ended by itself.
        drop(self.wake.send(Wake::Stop));
    }
}

/// Turns changes of the tables into wakes; `pending` is whether one is on its way already: a thousand changes are one round.
fn bell(wake: Sender<Wake>, pending: Arc<AtomicBool>, pulse: Arc<Pulse>) -> impl Fn() + Send + Sync {
    move || {
        if !pending.swap(true, Ordering::AcqRel) {
            pulse.queued(Instant::now());
            // A reconciler that has ended wants to know nothing any more.
            drop(wake.send(Wake::Changed));
        }
    }
}

fn serve<K: Kernel>(
    reconciler: &mut Reconciler<K>,
    wakes: &Receiver<Wake>,
    pending: &AtomicBool,
    pulse: &Pulse,
    tables: &Tables,
) {
    let mut expiry = Instant::now() + EXPIRY;
    let round = |reconciler: &mut Reconciler<K>| {
        pulse.taken(tables, Instant::now());
        let retry = reconciler.round(Instant::now());
        pulse.done(Instant::now(), summary(reconciler));
        retry
    };
    let mut retry = round(reconciler);
    loop {
        let now = Instant::now();
        let until = retry.map_or(expiry, |retry| retry.min(expiry)).saturating_duration_since(now);
        match wakes.recv_timeout(until) {
            Ok(Wake::Changed) => {
                // Before the tables are read: what changes from here on wakes again.
                pending.store(false, Ordering::Release);
                retry = round(reconciler);
            }
            // Nobody waits for the answer any more: its connection is gone.
            Ok(Wake::Report(answer)) => drop(answer.send(report(reconciler))),
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if retry.is_some_and(|retry| retry <= now) {
            retry = round(reconciler);
        }
        if now >= expiry {
            if let Err(error) = reconciler.kernel.expire_flows() {
                tracing::warn!(%error, "silent flows could not be forgotten");
            }
            expiry = now + EXPIRY;
        }
    }
}

fn summary<K>(reconciler: &Reconciler<K>) -> Summary {
    let actual = &reconciler.actual;
    Summary {
        operations: reconciler.operations,
        errors: reconciler.errors,
        failing: reconciler.failures.len() as u64,
        without_room: reconciler.failures.values().filter(|failure| failure.is_full).count() as u64,
        frontends: actual.frontends.len() as u64,
        services: actual.services.len() as u64,
        segments: actual.segments.len() as u64,
        endpoints: actual.endpoints.len() as u64,
        routes: actual.routes.len() as u64,
    }
}
