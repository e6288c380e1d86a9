//! Rule sets that find no room in the map of rules: each is left aside until room appears or its time comes, and the others go on.

use std::collections::BTreeSet;
use std::time::Instant;

use super::apply::Reconciler;
use super::police::POLICIES;
use crate::desired::policy::Pair;
use crate::kernel::{Kernel, KernelError};
use crate::tables::{Complaint, ObjectName};

impl<K: Kernel> Reconciler<K> {
    /// Writes what sets say. One that finds no room is left aside, and taken back if nobody has it, so that the others find some;
    /// answers whether there are any.
    pub(super) fn write_rules(&mut self, now: Instant) -> Result<bool, KernelError> {
        let sets: BTreeSet<u32> = self.policies.todo.pairs.iter().map(|(set, _)| *set).collect();
        for set in sets {
            if self.aside.get(&set).is_some_and(|subject| self.is_waiting(subject, now)) {
                continue;
            }
            match self.write_set(set, now) {
                Err(error) if error.is_full() => self.leave_aside(set, &error, now)?,
                done => done?,
            }
        }
        self.take_in();
        Ok(!self.aside.is_empty())
    }

    fn leave_aside(&mut self, set: u32, error: &KernelError, now: Instant) -> Result<(), KernelError> {
        let names: Vec<String> = self.owners(set).iter().map(ToString::to_string).collect();
        let subject = format!("rules of {} (set {set})", names.join(", "));
        self.fail(&subject, error, true, now);
        self.aside.insert(set, subject);
        if self.used_sets().contains(&set) {
            return Ok(());
        }
        self.withdraw(set)
    }

    /// Sets that lack nothing any more are not aside.
    fn take_in(&mut self) {
        let whole = |set: &&u32| self.has_all_rows(**set);
        for set in self.aside.keys().filter(whole).copied().collect::<Vec<_>>() {
            if let Some(subject) = self.aside.remove(&set) {
                self.failures.remove(&subject);
            }
        }
    }

    /// Deletes the rows of a set, to be written again.
    fn withdraw(&mut self, set: u32) -> Result<(), KernelError> {
        let pairs = self.actual.rulings.range((set, 0)..=(set, u32::MAX));
        for pair in pairs.map(|(pair, _)| *pair).collect::<Vec<Pair>>() {
            // First, as some of its rows may be gone when the last cannot be deleted.
            self.policies.todo.pairs.insert(pair);
            self.delete_pair(pair)?;
        }
        Ok(())
    }

    /// There is room that was not there before: everybody who waits for some may try.
    pub(super) fn try_again(&mut self, now: Instant) {
        for subject in self.aside.values() {
            if let Some(failure) = self.failures.get_mut(subject) {
                failure.retry_at = now;
            }
        }
    }

    /// Whether one that is aside may try.
    pub(super) fn some_may_try(&self, now: Instant) -> bool {
        self.aside.values().any(|subject| !self.is_waiting(subject, now))
    }

    /// While policies wait as a whole, so does what is aside.
    pub(super) fn wait_together(&mut self) {
        let Some(until) = self.failures.get(POLICIES).map(|failure| failure.retry_at) else { return };
        for subject in self.aside.values() {
            if let Some(failure) = self.failures.get_mut(subject) {
                failure.retry_at = failure.retry_at.max(until);
            }
        }
    }

    /// The policies whose rules find no room; one that is new among them is told to its owner.
    pub(super) fn tell_of_room(&mut self) {
        let now: BTreeSet<ObjectName> = self.aside.keys().flat_map(|set| self.owners(*set)).collect();
        for object in now.difference(&self.tables.policies_without_room()) {
            let kind = if object.namespace.is_empty() { "ClusterNetworkPolicy" } else { "NetworkPolicy" };
            let message = "the map of rules is full: pods that this policy selects take and send nothing, or are not attached";
            let (reason, message) = ("DataplaneFull", message.to_owned());
            self.tables.complain(Complaint { kind, object: object.clone(), uid: 0, reason, message });
        }
        self.tables.set_policies_without_room(now);
    }

    /// The policies that a set is made of.
    fn owners(&self, set: u32) -> BTreeSet<ObjectName> {
        let set = self.policies.set(set).into_iter();
        set.flat_map(|set| set.everybody()).map(|name| (**name).clone()).collect()
    }
}
