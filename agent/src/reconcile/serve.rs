//! Services into the kernel: fresh segments, one store, frontends in batches, and what went away last.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use abi::service::{Frontend, FrontendKey, Service, filter_place};

use super::actual::{Op, Span};
use super::apply::Reconciler;
use super::diff::{self, Plan, Port};
use super::place::Full;
use crate::desired::PortId;
use crate::kernel::{Kernel, KernelError};

/// Frontends of one port that wait for their batch, and what follows them.
struct Deferred {
    id: Arc<PortId>,
    subject: String,
    frontends: Vec<(FrontendKey, Frontend)>,
    trim: Vec<Op>,
}

/// What everything that went away is called among the failures.
const GONE: &str = "services that went away";
const BURIALS: &str = "backends that went away";

impl<K: Kernel> Reconciler<K> {
    /// Brings services to what they should be.
    pub(super) fn serve(&mut self, now: Instant) {
        let mut deferred = Vec::new();
        for id in self.services.todo.iter().cloned().collect::<Vec<_>>() {
            let subject = subject(&id);
            if !self.is_waiting(&subject, now) {
                deferred.extend(self.prepare(id, subject, now));
            }
        }
        self.write_frontends(deferred, now);
        if !self.is_waiting(GONE, now) && std::mem::take(&mut self.services.sweep) {
            self.sweep();
        }
        self.remove(now);
        self.bury(now);
    }

    /// Everything of a port but its frontends; `None` when that failed.
    fn prepare(&mut self, id: Arc<PortId>, subject: String, now: Instant) -> Option<Deferred> {
        let plan = match self.plan(&id) {
            Ok(Some((index, plan))) => self.store(index, plan, now),
            Ok(None) => {
                self.services.todo.remove(&id);
                return None;
            }
            Err(full) => {
                self.fail_port(&id, &subject, &full, true, now);
                return None;
            }
        };
        match plan {
            Ok(Plan { frontends, trim, .. }) => Some(Deferred { id, subject, frontends, trim }),
            Err(error) => {
                self.fail_port(&id, &subject, &error, error.is_full(), now);
                None
            }
        }
    }

    fn plan(&mut self, id: &Arc<PortId>) -> Result<Option<(u32, Plan)>, Full> {
        let Some(row) = self.desired.services.get(id) else { return Ok(None) };
        if !row.frontends.keys().any(|key| self.services.claims.owner(key) == Some(id)) {
            // Older ones have all of its addresses: it is as if it were not there, until one goes.
            self.services.gone.insert(Arc::clone(id), row.frontends.keys().copied().collect());
            return Ok(None);
        }
        self.services.gone.remove(id);
        let known = self.services.indices.get(id).copied();
        let index = match known.or_else(|| self.index_in_kernel(id, row.frontends.keys())) {
            Some(index) => index,
            None => self.services.places.service()?,
        };
        self.services.indices.insert(Arc::clone(id), index);
        self.services.taken.insert(index);
        let port = Port { index, row, proto: id.protocol.number() };
        let claims = &self.services.claims;
        let owns = |key: &FrontendKey| claims.owner(key) == Some(id);
        diff::port(&self.actual, &mut self.services.places, port, owns).map(|plan| Some((index, plan)))
    }

    /// Which index the port has already, if the kernel knows it from before: that of any of its frontends.
    fn index_in_kernel<'a>(
        &self,
        id: &Arc<PortId>,
        keys: impl Iterator<Item = &'a FrontendKey>,
    ) -> Option<u32> {
        let own = keys.filter(|key| key.proto != 0 && self.services.claims.owner(key) == Some(id));
        own.filter_map(|key| self.actual.frontends.get(key))
            .map(|frontend| frontend.service)
            .find(|index| self.actual.services.contains_key(index) && !self.services.taken.contains(index))
    }

    /// Fills and stores; what was taken in vain is given back.
    fn store(&mut self, index: u32, mut plan: Plan, now: Instant) -> Result<Plan, KernelError> {
        let before = self.spans(index);
        let store = plan.store.map(|service| Op::WriteService { index, service });
        for op in std::mem::take(&mut plan.fill).iter().chain(&store) {
            if let Err(error) = self.carry_out(op) {
                // A program cannot have seen them, and the numbers go when somebody else fails to use them.
                plan.taken.drain(..).for_each(|span| self.services.places.give(span));
                self.forget_idle(&plan.alive);
                return Err(error);
            }
        }
        self.services.use_numbers(index, std::mem::take(&mut plan.alive));
        self.rest(index, before, now);
        Ok(plan)
    }

    fn forget_idle(&mut self, numbers: &BTreeSet<u32>) {
        let services = &mut self.services;
        for id in numbers {
            if services.places.numbers.is_idle(*id) && !services.leaving.contains_key(id) {
                services.places.numbers.forget(*id);
            }
        }
    }

    fn spans(&self, index: u32) -> Vec<Span> {
        self.actual.services.get(&index).map(|service| self.actual.spans(service)).unwrap_or_default()
    }

    /// Lets rest what an index had before and has no more.
    fn rest(&mut self, index: u32, before: Vec<Span>, now: Instant) {
        let after = self.spans(index);
        for span in before.into_iter().filter(|span| !after.contains(span)) {
            self.services.places.rest(span, now);
        }
    }

    /// Writes the frontends of all prepared ports in one go, then finishes each.
    fn write_frontends(&mut self, deferred: Vec<Deferred>, now: Instant) {
        let batch: Vec<(FrontendKey, Frontend)> =
            deferred.iter().flat_map(|port| port.frontends.iter().copied()).collect();
        let (mut written, mut error) = (0, self.filter_in(&batch).err());
        if error.is_none() {
            (written, error) = self.kernel.write_frontends(&batch);
        }
        for (key, frontend) in &batch[..written] {
            self.wrote(key, *frontend);
        }
        for port in deferred {
            let mine = port.frontends.len();
            let done = mine.min(written);
            written -= done;
            // The batch ends where one was refused: from there on each is tried by itself.
            let refused = if done < mine { error.take() } else { None };
            let outcome = match refused {
                Some(error) => Err(error),
                None => self.write_singly(&port.frontends[done..]),
            };
            match outcome {
                Ok(()) => self.finish(port, now),
                Err(error) => {
                    // The bit of an address that got no frontend may stand for nobody.
                    self.services.sweep = true;
                    self.fail_port(&port.id, &port.subject, &error, error.is_full(), now);
                }
            }
        }
    }

    fn write_singly(&mut self, rows: &[(FrontendKey, Frontend)]) -> Result<(), KernelError> {
        for row in rows {
            self.filter_in(std::slice::from_ref(row))?;
            if let (_, Some(error)) = self.kernel.write_frontends(std::slice::from_ref(row)) {
                return Err(error);
            }
            self.wrote(&row.0, row.1);
        }
        Ok(())
    }

    fn wrote(&mut self, key: &FrontendKey, frontend: Frontend) {
        self.operations += 1;
        if self.actual.frontends.insert(*key, frontend).is_none() {
            self.services.filter.add(&key.addr);
        }
    }

    /// Sets the bits of addresses before anybody can ask for them.
    fn filter_in(&mut self, batch: &[(FrontendKey, Frontend)]) -> Result<(), KernelError> {
        for (key, _) in batch {
            let (word, bit) = filter_place(&key.addr);
            let bits = self.actual.filter.get(&word).copied().unwrap_or(0);
            if bits & bit == 0 {
                self.carry_out(&Op::WriteFilter { word, bits: bits | bit })?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, port: Deferred, now: Instant) {
        if self.attempt(&port.subject, &port.trim, now) {
            self.services.todo.remove(&port.id);
        }
    }

    fn fail_port(
        &mut self,
        id: &PortId,
        subject: &str,
        error: &dyn std::error::Error,
        full: bool,
        now: Instant,
    ) {
        let was_full = self.failures.get(subject).is_some_and(|failure| failure.is_full);
        self.fail(subject, error, full, now);
        if full && !was_full {
            self.complain(id, "DataplaneFull", format!("port {:?} is not served: {error}", id.port));
        }
    }

    /// Finds what is in the kernel for services nobody knows, and bits that nobody needs or lacks.
    fn sweep(&mut self) {
        let services = &mut self.services;
        let is_stale = |key: &&FrontendKey| services.claims.owner(key).is_none();
        services.stale = self.actual.frontends.keys().filter(is_stale).copied().collect();
        let strayed = self.actual.frontends.iter().filter(|(key, frontend)| {
            let owner = services.claims.owner(key);
            owner.is_some_and(|owner| services.indices.get(owner) != Some(&frontend.service))
        });
        services.handed.extend(strayed.map(|(key, _)| *key));
        let is_orphan = |index: &&u32| !services.taken.contains(*index);
        services.orphans = self.actual.services.keys().filter(is_orphan).copied().collect();
        let ranged = self.actual.source_ranges.keys().filter(is_orphan);
        services.orphans.extend(ranged);
        let needed = services.filter.words();
        let words = needed.keys().chain(self.actual.filter.keys());
        let right = |word: &u32| needed.get(word).copied().unwrap_or(0);
        services.wrong_filter = words
            .map(|word| (*word, right(word)))
            .filter(|(word, bits)| self.actual.filter.get(word).copied().unwrap_or(0) != *bits)
            .collect();
    }

    /// Takes away frontends, then services.
    fn remove(&mut self, now: Instant) {
        if self.is_waiting(GONE, now) {
            return;
        }
        if let Err(error) = self.remove_all(now) {
            self.fail(GONE, &error, error.is_full(), now);
            self.services.sweep = true;
        } else {
            self.failures.remove(GONE);
        }
    }

    fn remove_all(&mut self, now: Instant) -> Result<(), KernelError> {
        for (word, bits) in std::mem::take(&mut self.services.wrong_filter) {
            self.carry_out(&Op::WriteFilter { word, bits })?;
        }
        for key in self.services.stale.iter().copied().collect::<Vec<_>>() {
            if self.services.claims.owner(&key).is_none() {
                self.delete_frontend(key)?;
            }
            self.services.stale.remove(&key);
        }
        self.take_back()?;
        for (id, keys) in self.services.gone.clone() {
            self.failures.remove(&subject(&id));
            if let Some(index) = self.services.indices.get(&id).copied() {
                // Whoever has them now writes them again.
                for key in keys {
                    if self.actual.frontends.get(&key).is_some_and(|frontend| frontend.service == index) {
                        self.delete_frontend(key)?;
                    }
                }
                self.clear(index, now)?;
                self.services.indices.remove(&id);
                self.services.taken.remove(&index);
            }
            self.services.gone.remove(&id);
        }
        if self.services.orphans.is_empty() {
            return Ok(());
        }
        let in_use: BTreeSet<u32> = self.actual.frontends.values().map(|frontend| frontend.service).collect();
        for index in
            self.services.orphans.iter().copied().filter(|index| !in_use.contains(index)).collect::<Vec<_>>()
        {
            self.clear(index, now)?;
            self.services.orphans.remove(&index);
        }
        Ok(())
    }

    /// Frontends whose new owner could not write them lead nowhere until it can, rather than to the one that gave them up.
    fn take_back(&mut self) -> Result<(), KernelError> {
        for key in self.services.handed.iter().copied().collect::<Vec<_>>() {
            let owner = self.services.claims.owner(&key);
            let index = owner.and_then(|owner| self.services.indices.get(owner)).copied();
            if self.actual.frontends.get(&key).is_some_and(|frontend| Some(frontend.service) != index) {
                self.delete_frontend(key)?;
            }
            self.services.handed.remove(&key);
        }
        Ok(())
    }

    fn delete_frontend(&mut self, key: FrontendKey) -> Result<(), KernelError> {
        if !self.actual.frontends.contains_key(&key) {
            return Ok(());
        }
        self.carry_out(&Op::DeleteFrontend { key })?;
        if self.services.filter.remove(&key.addr) {
            let (word, bit) = filter_place(&key.addr);
            let bits = self.actual.filter.get(&word).copied().unwrap_or(0);
            self.carry_out(&Op::WriteFilter { word, bits: bits & !bit })?;
        }
        Ok(())
    }

    /// Takes a service away that no frontend leads to.
    fn clear(&mut self, index: u32, now: Instant) -> Result<(), KernelError> {
        let before = self.spans(index);
        if self.actual.services.contains_key(&index) {
            self.carry_out(&Op::WriteService { index, service: Service::default() })?;
        }
        self.services.use_numbers(index, BTreeSet::new());
        self.rest(index, before, now);
        for range in self.actual.source_ranges.get(&index).cloned().unwrap_or_default() {
            self.carry_out(&Op::DeleteSourceRange { service: index, range })?;
        }
        self.services.places.rest_service(index, now);
        Ok(())
    }

    /// Ends the flows of backends that no service has any more.
    fn bury(&mut self, now: Instant) {
        if self.is_waiting(BURIALS, now) {
            return;
        }
        if let Err(error) = self.bury_all(now) {
            self.fail(BURIALS, &error, error.is_full(), now);
        } else {
            self.failures.remove(BURIALS);
        }
    }

    fn bury_all(&mut self, now: Instant) -> Result<(), KernelError> {
        let before = self.services.counted;
        while let Some(key) = self.services.forgotten(now) {
            if self.actual.tombstones.contains_key(&key) {
                self.carry_out(&Op::Unbury { key })?;
            }
        }
        for (id, service) in self.services.leaving.clone() {
            if let Some(key) = self.services.places.numbers.key(id) {
                self.carry_out(&Op::RetireBackend { id })?;
                self.carry_out(&Op::Bury { key, service })?;
                self.services.mourn(key, now);
                self.services.places.numbers.forget(id);
            }
            self.services.leaving.remove(&id);
        }
        let count = self.actual.tombstones.len() as u32;
        if before != Some(count) {
            self.carry_out(&Op::CountTombstones { count })?;
            self.services.counted = Some(count);
        }
        Ok(())
    }
}

/// What a port is called among the failures.
pub fn subject(id: &PortId) -> String {
    let PortId { service, port, protocol, v4 } = id;
    let family = if *v4 { "IPv4" } else { "IPv6" };
    format!("service {}/{} {port} {protocol:?} {family}", service.namespace, service.name)
}
