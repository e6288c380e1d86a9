//! The only writer: learns what changed, carries out operations, retries what failed, and tells who waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actual::{Actual, Op};
use super::diff::{self, Unit};
use super::services::Services;
use crate::desired::policy::{Policies, Todo};
use crate::desired::{self, Desired, NodeFacts, View, host_ports};
use crate::kernel::{Kernel, KernelError};
use crate::tables::{EndpointState, Rows, Tables};

/// First and longest pause before a failed unit is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What fails when routes cannot be read.
const LOOK: &str = "look at routes";

/// A unit that failed and waits.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The last error.
    pub error: Arc<str>,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Instant,
    /// Whether a map has no room for it.
    pub is_full: bool,
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
    pub(crate) tables: Arc<Tables>,
    pub(super) services: Services,
    facts: Arc<NodeFacts>,
    /// Zone and addresses that the rows of all services were computed with.
    seen: (Option<String>, BTreeSet<IpAddr>),
    /// Subjects of links, routes and uplinks that failed.
    broken_links: BTreeSet<String>,
    /// The look at the links that `actual` follows.
    looked: u64,
    /// Policies, compiled.
    pub policies: Policies,
    /// Whether something changed since flows were looked at; whoever starts cannot know.
    pub(super) epoch_due: bool,
    /// Whether local pods wait for their policies.
    some_wait: bool,
    /// Rule sets that find no room, by what they are called among the failures.
    pub(super) aside: BTreeMap<u32, String>,
}

impl<K: Kernel> Reconciler<K> {
    /// Reads what is in `kernel` and is ready for the first round.
    pub fn new(mut kernel: K, tables: Arc<Tables>, facts: NodeFacts) -> Result<Self, KernelError> {
        let looked = tables.look(|rows| rows.links.looked);
        let mut actual = kernel.read()?;
        tables.forget_taken();
        let mut policies = Policies::default();
        policies.todo = Todo {
            pairs: actual.rulings.keys().copied().collect(),
            addresses: actual.identities.keys().copied().collect(),
            cidrs: true,
            ..Todo::default()
        };
        let services = Services::of(&mut actual, kernel.scale(), Instant::now());
        Ok(Self {
            kernel,
            actual,
            desired: Desired::default(),
            failures: BTreeMap::new(),
            errors: 0,
            operations: 0,
            tables,
            services,
            facts: Arc::new(facts),
            seen: (None, BTreeSet::new()),
            broken_links: BTreeSet::new(),
            looked,
            policies,
            epoch_due: true,
            some_wait: false,
            aside: BTreeMap::new(),
        })
    }

    /// Does what can be done now; answers with when to come back for what failed.
    pub fn round(&mut self, now: Instant) -> Option<Instant> {
        self.services.places.wake(now);
        let node_changed = self.learn();
        self.police(now);
        let waited = self.some_wait;
        self.some_wait = self.admit();
        if node_changed || waited || !self.broken_links.is_empty() {
            self.links(now);
            self.forget_sets(now);
        }
        if self.desired.services_known {
            self.serve(now);
        }
        self.wait_together();
        let failed = self.failures.values().map(|failure| failure.retry_at).min();
        [failed, self.services.next_burial()].into_iter().flatten().min()
    }

    /// Follows the tables; answers whether more than services changed.
    fn learn(&mut self) -> bool {
        let (tables, facts) = (Arc::clone(&self.tables), Arc::clone(&self.facts));
        tables.take_changes(|rows, changes| {
            let node = changes.node || changes.everything;
            let mut everything = changes.everything;
            if node {
                desired::node(rows.snapshot(), &facts, &mut self.desired);
                everything |= self.sees_other();
            }
            let mut hosts = self.desired.host_addresses.clone();
            hosts.extend(&facts.addresses);
            if node || !changes.policy.is_empty() {
                self.policies.update(rows.snapshot(), &changes.policy, changes.everything, &hosts);
            }
            let view = View::of(rows.snapshot(), &facts);
            if everything {
                self.learn_everything(rows, view);
            } else {
                for name in &changes.services {
                    self.learn_service(name, rows, view);
                }
            }
            if node {
                self.learn_host_ports(host_ports::host_ports(rows.snapshot(), view));
            }
            node
        })
    }

    /// Whether what every service depends on is not what it was.
    fn sees_other(&mut self) -> bool {
        let now = (self.desired.zone.clone(), self.desired.host_addresses.clone());
        let differs = self.seen != now;
        self.seen = now;
        differs
    }

    fn learn_everything(&mut self, rows: &Rows, view: View<'_>) {
        let known = self.desired.services.keys().map(|id| &id.service).cloned();
        let names: BTreeSet<_> = known.chain(rows.snapshot().services.keys().cloned()).collect();
        for name in names {
            self.learn_service(&name, rows, view);
        }
        self.services.sweep = true;
    }

    fn links(&mut self, now: Instant) {
        let broken = std::mem::take(&mut self.broken_links);
        self.look(now);
        let overlay = diff::overlay(&self.actual, &self.desired);
        self.attempt_all(overlay.as_slice(), now);
        let units = diff::links(&self.actual, &self.desired);
        self.attempt_all(&units, now);
        for subject in broken.difference(&self.broken_links) {
            self.failures.remove(subject);
        }
        self.report();
    }

    /// Reads again what the kernel takes along with devices and addresses, if some of those have changed.
    fn look(&mut self, now: Instant) {
        let told = self.tables.look(|rows| rows.links.looked);
        if self.looked == told {
            return;
        }
        if !self.is_waiting(LOOK, now) {
            match self.kernel.look(&mut self.actual) {
                Ok(()) => {
                    self.failures.remove(LOOK);
                    self.looked = told;
                    return;
                }
                Err(error) => _ = self.fail(LOOK, &error, false, now),
            }
        }
        self.broken_links.insert(LOOK.to_owned());
    }

    fn attempt_all(&mut self, units: &[Unit], now: Instant) {
        for unit in units {
            if self.is_waiting(&unit.subject, now) || !self.attempt(&unit.subject, &unit.ops, now) {
                self.broken_links.insert(unit.subject.clone());
            } else if let [Op::AttachEndpoint(row, _)] = &unit.ops[..] {
                // Whoever asked for it need not wait for the others.
                let state = EndpointState::Applied(row.attachment.clone());
                self.tables.report_endpoint(&row.endpoint.id(), state);
            }
        }
    }

    /// Whether a subject has failed and is not to be tried yet.
    pub(super) fn is_waiting(&self, subject: &str, now: Instant) -> bool {
        self.failures.get(subject).is_some_and(|failure| failure.retry_at > now)
    }

    /// Carries out one unit; `false` when it failed and will be retried.
    pub(super) fn attempt(&mut self, subject: &str, ops: &[Op], now: Instant) -> bool {
        for op in ops {
            if let Err(error) = self.carry_out(op) {
                self.fail(subject, &error, error.is_full(), now);
                return false;
            }
        }
        self.failures.remove(subject);
        true
    }

    /// Carries out one operation and updates the picture of the kernel.
    pub(super) fn carry_out(&mut self, op: &Op) -> Result<(), KernelError> {
        self.kernel.apply(op)?;
        self.operations += 1;
        self.actual.follow(op);
        Ok(())
    }

    /// Remembers a failure; answers whether it is the first of its subject.
    pub(super) fn fail(
        &mut self,
        subject: &str,
        error: &dyn std::error::Error,
        is_full: bool,
        now: Instant,
    ) -> bool {
        tracing::warn!(subject, %error, "not applied, will be retried");
        self.errors += 1;
        let attempts = self.failures.get(subject).map_or(0, |failure| failure.attempts) + 1;
        let pause = BACKOFF.0.saturating_mul(1 << attempts.min(10)).min(BACKOFF.1);
        let failure =
            Failure { error: Arc::from(error.to_string()), attempts, retry_at: now + pause, is_full };
        self.failures.insert(subject.to_owned(), failure);
        attempts == 1
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
                None => match self.waits_for(row) {
                    Some(reason) => EndpointState::Failed(Arc::from(reason)),
                    None => EndpointState::Pending,
                },
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
