//! From what is and what should be to operations; pure.

use std::collections::BTreeSet;

use abi::service::{Backend, BackendKey, Frontend, FrontendKey, SLOTS, Segment, Service, bits};

use super::actual::{Actual, Op, Place, Span};
use super::place::{Full, Places};
use super::slots::slots;
use crate::desired::policy::Policed;
use crate::desired::{Choice, Desired, ServiceRow};
use crate::tables::Limits;

/// Operations that depend on each other: when one fails, the rest of its unit waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What the unit is about, for people and for counting retries.
    pub subject: String,
    /// In order.
    pub ops: Vec<Op>,
}

/// The operation for the device of the tunnels: before all others, which depend on what becomes of it.
pub fn overlay(actual: &Actual, desired: &Desired) -> Option<Unit> {
    let op = match (&actual.overlay, &desired.overlay) {
        (known, Some(wanted)) if known.as_ref() != Some(wanted) => Op::EnsureOverlay(wanted.clone()),
        (Some(_), None) => Op::RemoveOverlay,
        _ => return None,
    };
    Some(Unit { subject: "tunnels".to_owned(), ops: vec![op] })
}

/// The operations for links, routes and uplinks.
pub fn links(actual: &Actual, desired: &Desired) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut unit = |subject: String, op: Op| units.push(Unit { subject, ops: vec![op] });
    for device in desired.uplinks.difference(&actual.uplinks) {
        unit(format!("uplink {device}"), Op::AttachUplink { device: device.clone() });
    }
    for device in actual.uplinks.difference(&desired.uplinks) {
        unit(format!("uplink {device}"), Op::DetachUplink { device: device.clone() });
    }
    links_of_pods(actual, desired, &mut units);
    let mut unit = |subject: String, op: Op| units.push(Unit { subject, ops: vec![op] });
    for (end, beside) in &desired.tunnels {
        if actual.tunnels.get(end) != Some(beside) {
            unit(format!("tunnel {end}"), Op::OpenTunnel { end: *end, beside: beside.clone() });
        }
    }
    for from in desired.rules.difference(&actual.rules) {
        unit(format!("rule {from}"), Op::AddRule { from: *from });
    }
    for (to, hop) in &desired.routes {
        if actual.routes.get(to) != Some(hop) {
            unit(format!("route {to}"), Op::AddRoute { to: *to, hop: *hop });
        }
    }
    for to in actual.routes.keys() {
        if desired.nodes_known && !desired.routes.contains_key(to) {
            unit(format!("route {to}"), Op::DeleteRoute { to: *to });
        }
    }
    for network in desired.unmasked.difference(&actual.unmasked) {
        unit(format!("unmasked {network}"), Op::Unmask { network: *network });
    }
    if desired.nodes_known {
        for network in actual.unmasked.difference(&desired.unmasked) {
            unit(format!("unmasked {network}"), Op::Mask { network: *network });
        }
        for from in actual.rules.difference(&desired.rules) {
            unit(format!("rule {from}"), Op::DeleteRule { from: *from });
        }
        for end in actual.tunnels.keys().filter(|end| !desired.tunnels.contains_key(*end)) {
            unit(format!("tunnel {end}"), Op::CloseTunnel { end: *end });
        }
    }
    units
}

/// Links of pods, and how fast they are.
fn links_of_pods(actual: &Actual, desired: &Desired, units: &mut Vec<Unit>) {
    let mut unit = |subject: String, op: Op| units.push(Unit { subject, ops: vec![op] });
    for (link, row) in &desired.endpoints {
        let addresses: BTreeSet<_> = row.endpoint.addresses.iter().copied().collect();
        let known = actual.endpoints.get(link);
        if known.is_some_and(|known| known.addresses == addresses && known.flags == row.flags) {
            continue;
        }
        // One that is attached keeps what it may do until the rest of policies is in place; another waits for that.
        let policed = match known {
            Some(known) => known.policed.unwrap_or(Policed::ISOLATED),
            None => match row.policed {
                Some(policed) => policed,
                None => continue,
            },
        };
        unit(format!("endpoint {link}"), Op::AttachEndpoint(Box::new(row.clone()), policed));
    }
    for (link, attached) in &actual.endpoints {
        if desired.endpoints_known && !desired.endpoints.contains_key(link) {
            let addresses = attached.addresses.clone();
            unit(format!("endpoint {link}"), Op::DetachEndpoint { link: link.clone(), addresses });
        }
    }
    for (link, row) in &desired.endpoints {
        let is_there = row.policed.is_some() || actual.endpoints.contains_key(link);
        if let Some(limits) = row.limits.filter(|limits| is_there && !is_limited(actual, link, *limits)) {
            unit(format!("bandwidth {link}"), Op::Limit(Box::new(row.clone()), limits));
        }
    }
}

/// Whether a pod is as fast as it should be.
fn is_limited(actual: &Actual, link: &str, limits: Limits) -> bool {
    match actual.limits.get(link) {
        Some(known) => *known == Some(limits),
        None => limits == Limits::default(),
    }
}

/// How one service port gets to what it should be.
#[derive(Debug, Default)]
pub struct Plan {
    /// Fills what nobody refers to yet, and admits clients.
    pub fill: Vec<Op>,
    /// The service, if it changes.
    pub store: Option<Service>,
    /// Frontends that lead elsewhere or nowhere.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Turns away clients, after everything else.
    pub trim: Vec<Op>,
    /// Numbers of all backends whose flows go on.
    pub alive: BTreeSet<u32>,
    /// What was taken for it.
    pub taken: Vec<Span>,
}

/// A service port: its index, what it should be, and its protocol's number.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Index of the service.
    pub index: u32,
    /// What it should be.
    pub row: &'a ServiceRow,
    /// IP protocol number.
    pub proto: u8,
}

/// Plans one service port; `owns` says which of its frontends are its own. Nothing is taken when there is no room.
pub fn port(
    actual: &Actual,
    places: &mut Places,
    port: Port<'_>,
    owns: impl Fn(&FrontendKey) -> bool,
) -> Result<Plan, Full> {
    let mut plan = Plan::default();
    if let Err(full) = plan.segments(actual, places, port) {
        for span in plan.taken {
            places.give(span);
        }
        return Err(full);
    }
    let Port { index, row, .. } = port;
    let admitted = actual.source_ranges.get(&index);
    let fresh = row.ranges.iter().filter(|range| admitted.is_none_or(|known| !known.contains(*range)));
    plan.fill.extend(fresh.map(|range| Op::WriteSourceRange { service: index, range: *range }));
    let former = admitted.into_iter().flatten().filter(|range| !row.ranges.contains(*range));
    plan.trim.extend(former.map(|range| Op::DeleteSourceRange { service: index, range: *range }));
    let own = row.frontends.iter().filter(|(key, _)| owns(key));
    plan.frontends = own
        .map(|(key, flags)| (*key, Frontend { service: index, flags: *flags }))
        .filter(|(key, frontend)| actual.frontends.get(key) != Some(frontend))
        .collect();
    Ok(plan)
}

impl Plan {
    fn segments(&mut self, actual: &Actual, places: &mut Places, port: Port<'_>) -> Result<(), Full> {
        let Port { index, row, proto } = port;
        let current = actual.services.get(&index).copied().unwrap_or_default();
        let cluster = self.segment(actual, places, current.cluster, (&row.cluster, row.flags, proto))?;
        let local = if row.local == row.cluster {
            cluster
        } else {
            let current = if current.local == current.cluster { Segment::default() } else { current.local };
            self.segment(actual, places, current, (&row.local, row.flags, proto))?
        };
        let kept = row.kept.iter().filter_map(|(addr, port)| {
            places.numbers.find(&BackendKey { addr: *addr, port: *port, proto, zero: 0 })
        });
        self.alive.extend(kept);
        let wanted = Service { cluster, local, affinity: row.affinity, flags: row.flags | bits::LIVE };
        self.store = (wanted != current).then_some(wanted);
        Ok(())
    }

    /// The segment that holds `wanted`: the current one if it does, or a fresh one.
    fn segment(
        &mut self,
        actual: &Actual,
        places: &mut Places,
        current: Segment,
        (wanted, flags, proto): (&[Choice], u32, u8),
    ) -> Result<Segment, Full> {
        if wanted.is_empty() {
            return Ok(Segment::default());
        }
        let mut backends = Vec::with_capacity(wanted.len());
        for Choice { backend: (addr, port), .. } in wanted {
            let key = BackendKey { addr: *addr, port: *port, proto, zero: 0 };
            let id = places.numbers.of(key)?;
            self.alive.insert(id);
            if actual.tombstones.contains_key(&key) {
                self.fill.push(Op::Unbury { key });
            }
            backends.push(Backend { addr: *addr, port: *port, flags: 0, id });
        }
        let table = slots(wanted, flags);
        if holds(actual, current, &backends, table.as_deref()) {
            return Ok(current);
        }
        let run = self.take(places, Place::Backends, backends.len())?;
        let length = run.length;
        self.fill.push(Op::WriteBackends { base: run.base, backends });
        let Some(table) = table else {
            return Ok(Segment { base: run.base, count: length });
        };
        let slots = self.take(places, Place::Slots, table.len())?;
        let cells = table.into_iter().map(|at| run.base + at).collect();
        self.fill.push(Op::WriteSlots { base: slots.base, cells });
        Ok(Segment { base: slots.base, count: slots.length | SLOTS })
    }

    fn take(&mut self, places: &mut Places, place: Place, length: usize) -> Result<Span, Full> {
        let span = places.span(place, length)?;
        self.taken.push(span);
        Ok(span)
    }
}

/// Whether a segment is made of these backends and this table.
fn holds(actual: &Actual, current: Segment, backends: &[Backend], table: Option<&[u32]>) -> bool {
    if current.has_slots() != table.is_some() || actual.backends(current) != backends {
        return false;
    }
    let Some(table) = table else { return true };
    let cells = actual.cells(current);
    let base = cells.first().zip(table.first()).map(|(cell, at)| cell.wrapping_sub(*at));
    cells.len() == table.len()
        && cells.iter().zip(table).all(|(cell, at)| Some(cell.wrapping_sub(*at)) == base)
}
