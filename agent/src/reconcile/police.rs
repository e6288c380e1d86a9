//! Policies into the kernel, so that nothing in between allows what both before and after deny, or denies what both allow.
//!
//! Rows come first: a set or an identity that nobody has yet can be written without anybody noticing. Then addresses get their
//! identities, then pods their sets, then the epoch moves on, so that flows are looked at again; what nobody has any more goes
//! last. An address whose pod changed while pods change sets is nobody's for that moment: no mixture of what policies said
//! before and who pods are now can allow more.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use abi::policy::identity;
use ipnetwork::IpNetwork;

use super::actual::Op;
use super::apply::Reconciler;
use crate::desired::policy::{Pair, Policed};
use crate::kernel::{Kernel, KernelError};

/// What policies are called among the failures.
pub(super) const POLICIES: &str = "policies";
/// Why a pod waits that is not attached.
pub(super) const UNREAD: &str = "policies have not been read from the API server yet";
pub(super) const UNKNOWN: &str = "its Pod is not known yet, and policies in its namespace may select it";
pub(super) const UNWRITTEN: &str = "the rules of its policies are not in the kernel yet";

impl<K: Kernel> Reconciler<K> {
    /// Brings rows, identities and the sets of attached pods to what they should be.
    pub(super) fn police(&mut self, now: Instant) {
        if !self.policies.known || self.is_waiting(POLICIES, now) {
            return;
        }
        match self.police_all(now) {
            Ok(()) => _ = self.failures.remove(POLICIES),
            Err(error) => _ = self.fail(POLICIES, &error, error.is_full(), now),
        }
        self.tell_of_room();
    }

    /// Pods went, and their sets may be nobody's now.
    pub(super) fn forget_sets(&mut self, now: Instant) {
        if !self.policies.known || self.policies.todo.pairs.is_empty() || self.is_waiting(POLICIES, now) {
            return;
        }
        if let Err(error) = self.delete_rules(now) {
            self.fail(POLICIES, &error, error.is_full(), now);
        }
    }

    fn police_all(&mut self, now: Instant) -> Result<(), KernelError> {
        let mut isolate = false;
        loop {
            let some_lack_room = self.write_rules(now)?;
            let exposed = self.exposed();
            let mut switches = Vec::new();
            // What nobody needs goes first: there may be room then.
            if exposed.is_empty() || !some_lack_room || isolate {
                self.switch(&exposed)?;
                self.write_cidrs()?;
                switches = self.switches(isolate && some_lack_room);
                self.write_addresses(!switches.is_empty())?;
                self.switch(&switches)?;
                self.write_addresses(false)?;
            }
            if self.epoch_due {
                self.carry_out(&Op::NextEpoch)?;
                self.epoch_due = false;
            }
            self.delete_rules(now)?;
            // What only sets asked that nobody has any more need not be known of addresses.
            let tables = Arc::clone(&self.tables);
            tables.name_rule_sets(self.policies.set_numbers(), |number| {
                self.policies.set(number).map(|set| set.name()).unwrap_or_default()
            });
            let is_settled = !tables.look(|rows| self.policies.settle(rows));
            match some_lack_room {
                _ if !is_settled || self.some_may_try(now) => {}
                // First what nobody needs goes, then pods lose what they have: what they should have is not there.
                true if !isolate => isolate = true,
                true if !switches.is_empty() => {}
                _ => return Ok(()),
            }
        }
    }

    fn switch(&mut self, switches: &[Op]) -> Result<(), KernelError> {
        for op in switches {
            self.carry_out(op)?;
            self.epoch_due = true;
        }
        Ok(())
    }

    /// Isolates attached pods whose sets say nothing of identities that addresses are about to get: of those that lack rows, and
    /// of those an agent before this one made. What such a set is silent about may pass, if it has tiers.
    fn exposed(&self) -> Vec<Op> {
        if !self.some_move() {
            return Vec::new();
        }
        let speaks = |set: u32| {
            let known = self.policies.set(set);
            set == 0
                || set == Policed::ISOLATED.ingress
                || known.is_some_and(|known| self.has_all_rows(set) || !known.is_tiered())
        };
        let kept = |set: u32| if speaks(set) { set } else { Policed::ISOLATED.ingress };
        let op = |(link, attached): (&String, &super::actual::Attached)| {
            let had = attached.policed?;
            let policed = Policed { ingress: kept(had.ingress), egress: kept(had.egress), ..had };
            let addresses = attached.addresses.clone();
            (policed != had).then(|| Op::Police { link: link.clone(), addresses, policed })
        };
        self.actual.endpoints.iter().filter_map(op).collect()
    }

    /// Whether some address or network is about to get another identity.
    fn some_move(&self) -> bool {
        let (actual, wanted) = (&self.actual.identities, &self.policies.state.identities);
        self.policies.todo.cidrs && self.actual.cidrs != self.policies.state.cidrs
            || self.policies.todo.addresses.iter().any(|address| actual.get(address) != wanted.get(address))
    }

    /// Writes what a set says.
    pub(super) fn write_set(&mut self, set: u32, now: Instant) -> Result<(), KernelError> {
        let pairs = self.policies.todo.pairs.range((set, 0)..=(set, u32::MAX));
        for pair in pairs.copied().collect::<Vec<_>>() {
            if self.write_pair(pair, now)? {
                self.policies.todo.pairs.remove(&pair);
            }
        }
        Ok(())
    }

    pub(super) fn delete_pair(&mut self, pair: Pair) -> Result<(), KernelError> {
        let rows = self.actual.rulings.get(&pair).into_iter().flatten();
        for row in rows.map(|(row, _)| *row).collect::<Vec<_>>() {
            self.carry_out(&Op::DeleteRuling { pair, row })?;
        }
        Ok(())
    }

    /// The sets that attached pods have.
    pub(super) fn used_sets(&self) -> BTreeSet<u32> {
        let attached = self.actual.endpoints.values().filter_map(|attached| attached.policed);
        attached.flat_map(|policed| [policed.ingress, policed.egress]).collect()
    }

    /// Whether there was something to write.
    fn write_pair(&mut self, pair: Pair, now: Instant) -> Result<bool, KernelError> {
        let Some(rows) = self.policies.state.rules.get(&pair).cloned() else { return Ok(false) };
        let known = self.actual.rulings.get(&pair).cloned().unwrap_or_default();
        for (row, verdict) in &rows {
            let ruling = verdict.ruling();
            if known.get(row) != Some(&ruling) {
                self.epoch_due |= known.contains_key(row);
                self.carry_out(&Op::WriteRuling { pair, row: *row, ruling })?;
            }
        }
        for row in known.keys().filter(|row| !rows.iter().any(|(wanted, _)| wanted == *row)) {
            self.epoch_due = true;
            self.carry_out(&Op::DeleteRuling { pair, row: *row })?;
            self.try_again(now);
        }
        Ok(true)
    }

    /// Takes away what sets said that nobody has.
    fn delete_rules(&mut self, now: Instant) -> Result<(), KernelError> {
        let used = self.used_sets();
        let mut left_room = false;
        let rules = &self.policies.state.rules;
        let gone = |pair: &&Pair| !rules.contains_key(pair) && !used.contains(&pair.0);
        for pair in self.policies.todo.pairs.iter().filter(gone).copied().collect::<Vec<_>>() {
            left_room |= self.actual.rulings.contains_key(&pair);
            self.delete_pair(pair)?;
            self.policies.todo.pairs.remove(&pair);
        }
        if left_room {
            self.try_again(now);
        }
        Ok(())
    }

    /// Every address is at any moment in the network that it was in, or the one that it will be in: what is inside of others
    /// comes before them, and goes after them.
    fn write_cidrs(&mut self) -> Result<(), KernelError> {
        if !self.policies.todo.cidrs {
            return Ok(());
        }
        let wanted = self.policies.state.cidrs.clone();
        let differs =
            |(network, identity): &(&IpNetwork, &u32)| self.actual.cidrs.get(network) != Some(identity);
        let mut fresh: Vec<(IpNetwork, u32)> =
            wanted.iter().filter(differs).map(|(network, identity)| (*network, *identity)).collect();
        let mut gone: Vec<IpNetwork> =
            self.actual.cidrs.keys().filter(|network| !wanted.contains_key(network)).copied().collect();
        fresh.sort_by_key(|(network, _)| std::cmp::Reverse(bits(network)));
        gone.sort_by_key(bits);
        self.epoch_due |= !fresh.is_empty() || !gone.is_empty();
        for (network, identity) in fresh {
            self.carry_out(&Op::WriteCidr { network, identity })?;
        }
        for network in gone {
            self.carry_out(&Op::DeleteCidr { network })?;
        }
        self.policies.todo.cidrs = false;
        Ok(())
    }

    /// Gives addresses their identities. While sets change, those whose pods changed get none yet.
    fn write_addresses(&mut self, sets_change: bool) -> Result<(), KernelError> {
        for address in self.policies.todo.addresses.iter().copied().collect::<Vec<_>>() {
            let identity = self.policies.state.identities.get(&address).copied();
            let is_right = self.actual.identities.get(&address).copied() == identity;
            if !is_right && sets_change && self.policies.todo.moved.contains(&address) {
                self.write_address(address, Some(identity::NOBODY))?;
            } else {
                self.write_address(address, identity)?;
                self.policies.todo.addresses.remove(&address);
            }
        }
        if !sets_change {
            self.policies.todo.moved.clear();
        }
        Ok(())
    }

    fn write_address(&mut self, address: IpAddr, wanted: Option<u32>) -> Result<(), KernelError> {
        let known = self.actual.identities.get(&address).copied();
        let op = match wanted {
            _ if known == wanted => return Ok(()),
            Some(identity) => Op::WriteIdentity { address, identity },
            None => Op::DeleteIdentity { address },
        };
        self.epoch_due = true;
        self.carry_out(&op)
    }

    /// The pods that are attached, and have other sets than they should. Where sets find no room, pods may be isolated.
    fn switches(&self, isolate: bool) -> Vec<Op> {
        let op = |(link, row): (&String, &crate::desired::EndpointRow)| {
            let attached = self.actual.endpoints.get(link)?;
            let wanted = *self.policies.state.endpoints.get(&row.endpoint.id())?;
            let had = attached.policed.unwrap_or(Policed::ISOLATED);
            let set = |wanted, had| match self.may_have(wanted, had) {
                true => Some(wanted),
                false => isolate.then_some(Policed::ISOLATED.ingress),
            };
            let (ingress, egress) = (set(wanted.ingress, had.ingress)?, set(wanted.egress, had.egress)?);
            let policed = Policed { ingress, egress, ..wanted };
            let addresses = attached.addresses.clone();
            let is_due = attached.policed != Some(policed);
            is_due.then(|| Op::Police { link: link.clone(), addresses, policed })
        };
        self.desired.endpoints.iter().filter_map(op).collect()
    }

    /// Whether a pod that had one set may have another: all of its rows are there, or those that are missing deny.
    fn may_have(&self, set: u32, had: u32) -> bool {
        let denies = || self.policies.set(set).is_some_and(|set| !set.is_tiered());
        self.has_all_rows(set) || set == had && denies()
    }

    /// Whether all rows of a pod's sets are in the kernel.
    fn is_written(&self, policed: Policed) -> bool {
        [policed.ingress, policed.egress].into_iter().all(|set| self.has_all_rows(set))
    }

    pub(super) fn has_all_rows(&self, set: u32) -> bool {
        let mut todo = self.policies.todo.pairs.range((set, 0)..=(set, u32::MAX));
        set == 0 || !todo.any(|pair| self.policies.state.rules.contains_key(pair))
    }

    /// Lets pods be attached whose sets are in place; answers whether some wait.
    pub(super) fn admit(&mut self) -> bool {
        let mut some_wait = false;
        let mut endpoints = std::mem::take(&mut self.desired.endpoints);
        for (link, row) in &mut endpoints {
            let known = self.policies.state.endpoints.get(&row.endpoint.id()).copied();
            row.policed = known.filter(|policed| self.is_written(*policed));
            some_wait |= row.policed.is_none() && !self.actual.endpoints.contains_key(link);
        }
        self.desired.endpoints = endpoints;
        some_wait
    }

    /// Why a pod is not attached, although nothing failed.
    pub(super) fn waits_for(&self, row: &crate::desired::EndpointRow) -> Option<&'static str> {
        match (row.policed, self.policies.known, self.policies.state.endpoints.get(&row.endpoint.id())) {
            (Some(_), _, _) => None,
            (None, false, _) => Some(UNREAD),
            (None, true, None) => Some(UNKNOWN),
            (None, true, Some(_)) => Some(UNWRITTEN),
        }
    }
}

/// How many bits of a network's addresses count, as programs compare them.
fn bits(network: &IpNetwork) -> u8 {
    if network.is_ipv4() { network.prefix() + 96 } else { network.prefix() }
}
