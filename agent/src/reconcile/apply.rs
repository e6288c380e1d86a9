//! The only writer: carries out operations, retries what failed, and tells who waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actual::{Actual, Op};
use super::diff::{Unit, diff};
use crate::desired::{Desired, NodeFacts, PortId, desired};
use crate::kernel::{Kernel, KernelError};
use crate::tables::{EndpointState, Tables};

/// How long a freed segment rests before it is written again: far longer than any program runs.
const REST: Duration = Duration::from_secs(1);
/// First and longest pause before a failed unit is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A unit that failed and waits.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The last error.
    pub error: Arc<str>,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Instant,
}

/// Everything that lasts from one round to the next.
pub struct Reconciler<K> {
    /// The kernel.
    pub kernel: K,
    /// What is in it.
    pub actual: Actual,
    /// What should be in it, as of the last round.
    pub desired: Desired,
    /// Units that wait for another attempt, by subject.
    pub failures: BTreeMap<String, Failure>,
    /// Errors since the start.
    pub errors: u64,
    /// Operations carried out since the start.
    pub operations: u64,
    facts: NodeFacts,
    tables: Arc<Tables>,
    resting: BTreeMap<u32, (u32, Instant)>,
}

impl<K: Kernel> Reconciler<K> {
    /// Reads what is in `kernel` and is ready for the first round.
    pub fn new(mut kernel: K, tables: Arc<Tables>, facts: NodeFacts) -> Result<Self, KernelError> {
        let actual = kernel.read()?;
        Ok(Self {
            kernel,
            actual,
            desired: Desired::default(),
            failures: BTreeMap::new(),
            errors: 0,
            operations: 0,
            facts,
            tables,
            resting: BTreeMap::new(),
        })
    }

    /// Does what can be done now; answers with when to come back for what failed.
    pub fn round(&mut self, now: Instant) -> Option<Instant> {
        self.desired = desired(&self.tables.snapshot(), &self.facts);
        self.resting.retain(|_, (_, until)| *until > now);
        let resting = self.resting.iter().map(|(base, (length, _))| (*base, *length)).collect();
        let (units, full) = diff(&self.actual, &self.desired, &resting);
        let wanted: std::collections::BTreeSet<&str> =
            units.iter().map(|unit| unit.subject.as_str()).collect();
        self.failures.retain(|subject, _| wanted.contains(subject.as_str()));
        for unit in &units {
            self.attempt(unit, now);
        }
        for (id, reason) in full {
            self.fail(&no_room(&id), Arc::from(reason.to_string()), now);
        }
        self.report();
        self.failures.values().map(|failure| failure.retry_at).min()
    }

    fn attempt(&mut self, unit: &Unit, now: Instant) {
        if self.failures.get(&unit.subject).is_some_and(|failure| failure.retry_at > now) {
            return;
        }
        for op in &unit.ops {
            if let Err(error) = self.kernel.apply(op) {
                tracing::warn!(subject = unit.subject, %error, "not applied, will be retried");
                self.fail(&unit.subject, Arc::from(error.to_string()), now);
                return;
            }
            self.operations += 1;
            self.follow(op, now);
        }
        self.failures.remove(&unit.subject);
    }

    /// Updates the picture of the kernel, and lets segments rest that nothing refers to any more.
    fn follow(&mut self, op: &Op, now: Instant) {
        let before: Vec<(u32, u32)> = match op {
            Op::WriteService { index, .. } => self
                .actual
                .services
                .get(index)
                .map(|service| vec![service.cluster, service.local])
                .unwrap_or_default()
                .into_iter()
                .filter(|segment| segment.count > 0)
                .map(|segment| (segment.base, segment.count))
                .collect(),
            _ => Vec::new(),
        };
        self.actual.follow(op);
        for (base, count) in before {
            if !self.actual.segments.contains_key(&base) {
                self.resting.insert(base, (count, now + REST));
            }
        }
    }

    fn fail(&mut self, subject: &str, error: Arc<str>, now: Instant) {
        self.errors += 1;
        let attempts = self.failures.get(subject).map_or(0, |failure| failure.attempts) + 1;
        let pause = BACKOFF.0.saturating_mul(1 << attempts.min(10)).min(BACKOFF.1);
        self.failures.insert(subject.to_owned(), Failure { error, attempts, retry_at: now + pause });
    }

    /// Tells the tables where each endpoint is.
    fn report(&self) {
        for (link, row) in &self.desired.endpoints {
            let failure = self.failures.get(&format!("endpoint {link}"));
            let state = match failure {
                Some(failure) => EndpointState::Failed(Arc::clone(&failure.error)),
                None if self.actual.endpoints.contains_key(link) => {
                    EndpointState::Applied(row.attachment.clone())
                }
                None => EndpointState::Pending,
            };
            self.tables.report_endpoint(&row.endpoint.id(), state);
        }
    }
}

impl<K> Reconciler<K> {
    /// The facts of this node.
    pub fn facts(&self) -> &NodeFacts {
        &self.facts
    }
}

fn no_room(id: &PortId) -> String {
    format!("service {}/{} {}", id.service.namespace, id.service.name, id.port)
}
