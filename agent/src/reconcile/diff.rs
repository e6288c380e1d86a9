//! From what is and what should be to operations; pure.

use std::collections::{BTreeMap, BTreeSet};

use abi::service::{Backend, Frontend, Segment, Service, bits};

use super::actual::{Actual, Op};
use super::place::{Full, Places};
use crate::desired::{BackendKey, Desired, PortId, ServiceRow};

/// Operations that depend on each other: when one fails, the rest of its unit waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What the unit is about, for people and for counting retries.
    pub subject: String,
    /// In order.
    pub ops: Vec<Op>,
}

/// The operations that lead from `actual` to `desired`, and the services there is no room for.
pub fn diff(
    actual: &Actual,
    desired: &Desired,
    resting: &BTreeMap<u32, u32>,
) -> (Vec<Unit>, Vec<(PortId, Full)>) {
    let mut units = Vec::new();
    let mut full = Vec::new();
    links(actual, desired, &mut units);
    if desired.services_known {
        services(actual, desired, resting, &mut units, &mut full);
    }
    (units, full)
}

fn links(actual: &Actual, desired: &Desired, units: &mut Vec<Unit>) {
    let mut unit = |subject: String, op: Op| units.push(Unit { subject, ops: vec![op] });
    for device in desired.uplinks.difference(&actual.uplinks) {
        unit(format!("uplink {device}"), Op::AttachUplink { device: device.clone() });
    }
    for device in actual.uplinks.difference(&desired.uplinks) {
        unit(format!("uplink {device}"), Op::DetachUplink { device: device.clone() });
    }
    for (link, row) in &desired.endpoints {
        let addresses: BTreeSet<_> = row.endpoint.addresses.iter().copied().collect();
        if actual.endpoints.get(link) != Some(&addresses) {
            unit(format!("endpoint {link}"), Op::AttachEndpoint(Box::new(row.clone())));
        }
    }
    for (link, addresses) in &actual.endpoints {
        if desired.endpoints_known && !desired.endpoints.contains_key(link) {
            unit(
                format!("endpoint {link}"),
                Op::DetachEndpoint { link: link.clone(), addresses: addresses.clone() },
            );
        }
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
}

fn services(
    actual: &Actual,
    desired: &Desired,
    resting: &BTreeMap<u32, u32>,
    units: &mut Vec<Unit>,
    full: &mut Vec<(PortId, Full)>,
) {
    let mut places = Places::new(actual, resting);
    let indices = claim(actual, desired);
    let mut served = BTreeSet::new();
    for (id, row) in &desired.services {
        served.extend(row.frontends.keys().copied());
        match service(actual, row, indices.get(id).copied(), &mut places) {
            Ok(ops) if ops.is_empty() => {}
            Ok(ops) => units.push(Unit { subject: subject(id), ops }),
            Err(reason) => full.push((id.clone(), reason)),
        }
    }
    let mut ops: Vec<Op> = actual
        .frontends
        .keys()
        .filter(|key| !served.contains(key))
        .map(|key| Op::DeleteFrontend { key: *key })
        .collect();
    let claimed: BTreeSet<u32> = indices.values().copied().collect();
    ops.extend(
        actual
            .services
            .keys()
            .filter(|index| !claimed.contains(index))
            .map(|index| Op::WriteService { index: *index, service: Service::default() }),
    );
    ops.extend(retire(actual, desired));
    if !ops.is_empty() {
        units.push(Unit { subject: "services that went away".to_owned(), ops });
    }
}

fn subject(id: &PortId) -> String {
    let PortId { service, port, protocol, v4 } = id;
    let family = if *v4 { "IPv4" } else { "IPv6" };
    format!("service {}/{} {port} {protocol:?} {family}", service.namespace, service.name)
}

/// Which index each service has already: that of any of its frontends.
fn claim(actual: &Actual, desired: &Desired) -> BTreeMap<PortId, u32> {
    let mut claimed = BTreeSet::new();
    let mut indices = BTreeMap::new();
    for (id, row) in &desired.services {
        let known = row
            .frontends
            .keys()
            .filter_map(|key| actual.frontends.get(key))
            .map(|frontend| frontend.service)
            .find(|index| actual.services.contains_key(index) && !claimed.contains(index));
        if let Some(index) = known {
            claimed.insert(index);
            indices.insert(id.clone(), index);
        }
    }
    indices
}

/// Operations of one service: fresh segments, one store, frontends.
fn service(
    actual: &Actual,
    row: &ServiceRow,
    known: Option<u32>,
    places: &mut Places,
) -> Result<Vec<Op>, Full> {
    let index = match known {
        Some(index) => index,
        None => places.service()?,
    };
    let current = actual.services.get(&index).copied().unwrap_or_default();
    let mut ops = Vec::new();
    let cluster = segment(actual, current.cluster, &row.cluster, places, &mut ops)?;
    let local = if row.local == row.cluster {
        cluster
    } else {
        let current = if current.local == current.cluster { Segment::default() } else { current.local };
        segment(actual, current, &row.local, places, &mut ops)?
    };
    let somebody = if row.cluster.is_empty() { 0 } else { bits::SOMEBODY };
    let wanted = Service { cluster, local, affinity: row.affinity, flags: bits::LIVE | somebody };
    if known.is_none() || wanted != current {
        ops.push(Op::WriteService { index, service: wanted });
    }
    for (key, flags) in &row.frontends {
        let frontend = Frontend { service: index, flags: *flags };
        if actual.frontends.get(key) != Some(&frontend) {
            ops.push(Op::WriteFrontend { key: *key, frontend });
        }
    }
    Ok(ops)
}

/// The segment that holds `wanted`: the current one if it does, or a fresh one.
fn segment(
    actual: &Actual,
    current: Segment,
    wanted: &BTreeSet<BackendKey>,
    places: &mut Places,
    ops: &mut Vec<Op>,
) -> Result<Segment, Full> {
    if wanted.is_empty() {
        return Ok(Segment::default());
    }
    let holds: BTreeSet<BackendKey> =
        actual.backends(current).iter().map(|backend| (backend.addr, backend.port)).collect();
    if holds == *wanted {
        return Ok(current);
    }
    let backends = wanted
        .iter()
        .map(|key| Ok(Backend { addr: key.0, port: key.1, flags: 0, id: places.number(key)? }))
        .collect::<Result<Vec<_>, Full>>()?;
    let base = places.segment(backends.len())?;
    let count = backends.len() as u32;
    ops.push(Op::WriteBackends { base, backends });
    Ok(Segment { base, count })
}

/// Backends that are in no service any more.
fn retire(actual: &Actual, desired: &Desired) -> Vec<Op> {
    let wanted: BTreeSet<&BackendKey> =
        desired.services.values().flat_map(|row| row.cluster.iter().chain(&row.local)).collect();
    let mut gone = actual.leaving.clone();
    for backend in actual.segments.values().flatten() {
        if wanted.contains(&(backend.addr, backend.port)) {
            gone.remove(&backend.id);
        } else {
            gone.insert(backend.id);
        }
    }
    gone.into_iter().map(|id| Op::RetireBackend { id }).collect()
}
