//! What is remembered about services from round to round, so that a change costs as much as it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::service::{BackendKey, FrontendKey, Segment, Service};

use super::actual::Actual;
use super::apply::Reconciler;
use super::claims::{Claim, Claims};
use super::filter::Filter;
use super::place::Places;
use crate::desired::{PortId, ServiceRow, View, host_ports, services};
use crate::tables::{Complaint, ObjectName, Protocol, Rows};

/// How long a backend that went is remembered.
const MOURNING: Duration = Duration::from_secs(120);

/// Everything about services that is neither desired nor actual.
#[derive(Debug)]
pub struct Services {
    /// Free places of the maps, and numbers of backends.
    pub places: Places,
    /// Who answers where.
    pub(super) claims: Claims,
    /// The index of every port that has one.
    pub(super) indices: HashMap<Arc<PortId>, u32>,
    /// Indices that ports have.
    pub(super) taken: HashSet<u32>,
    /// Numbers of the backends whose flows each index keeps.
    pub(super) users: HashMap<u32, BTreeSet<u32>>,
    /// Ports that may not be in the kernel as they should.
    pub(super) todo: BTreeSet<Arc<PortId>>,
    /// Ports that are no more, and where they answered.
    pub(super) gone: BTreeMap<Arc<PortId>, Vec<FrontendKey>>,
    /// Frontends that nobody wants.
    pub(super) stale: BTreeSet<FrontendKey>,
    /// Frontends that somebody gave up who is not the only one to want them.
    pub(super) handed: BTreeSet<FrontendKey>,
    /// Indices in the kernel that no port has.
    pub(super) orphans: BTreeSet<u32>,
    /// Backends without services, by number, and a service each had.
    pub(super) leaving: BTreeMap<u32, u32>,
    /// Whether the kernel may hold rows of services nobody knows.
    pub(super) sweep: bool,
    /// Bits of the filter.
    pub(super) filter: Filter,
    /// Words of the filter that are not what the frontends need.
    pub(super) wrong_filter: BTreeMap<u32, u64>,
    /// How many tombstones the programs were told of.
    pub(super) counted: Option<u32>,
    buried: VecDeque<(Instant, BackendKey)>,
    host_ports: BTreeSet<Arc<PortId>>,
}

impl Services {
    /// Takes over what is in the kernel. Services that share cells with others are left without segments: they get their own.
    pub fn of(actual: &mut Actual, scale: u32, now: Instant) -> Self {
        let mut own = Self {
            places: Places::new(scale),
            claims: Claims::default(),
            indices: HashMap::new(),
            taken: HashSet::new(),
            users: HashMap::new(),
            todo: BTreeSet::new(),
            gone: BTreeMap::new(),
            stale: BTreeSet::new(),
            handed: BTreeSet::new(),
            orphans: BTreeSet::new(),
            leaving: BTreeMap::new(),
            sweep: true,
            filter: Filter::of(actual.frontends.keys()),
            wrong_filter: BTreeMap::new(),
            // The first round sees to the rest.
            counted: (!actual.tombstones.is_empty()).then_some(u32::MAX).or(Some(0)),
            buried: actual.tombstones.keys().map(|key| (now + MOURNING, *key)).collect(),
            host_ports: BTreeSet::new(),
        };
        let protocols: HashMap<u32, u8> = actual
            .frontends
            .iter()
            .filter(|(key, _)| key.proto != 0)
            .map(|(key, frontend)| (frontend.service, key.proto))
            .collect();
        for index in actual.services.keys().copied().collect::<Vec<_>>() {
            own.adopt(actual, index, protocols.get(&index).copied());
        }
        own.places.numbers.adopted();
        // An index with leftovers is nobody's until they are taken away; claiming one that a service has changes nothing.
        for index in actual.source_ranges.keys() {
            own.places.claim_service(*index);
        }
        own
    }

    fn adopt(&mut self, actual: &mut Actual, index: u32, proto: Option<u8>) {
        let service = actual.services[&index];
        self.places.claim_service(index);
        let mut claimed = Vec::new();
        let whole = actual.spans(&service).into_iter().all(|span| {
            let free = self.places.claim(span);
            claimed.extend(free.then_some(span));
            free
        });
        let backends: Vec<_> = [service.cluster, service.local]
            .iter()
            .flat_map(|segment| actual.backends(*segment).to_vec())
            .collect();
        let is_whole = |segment: Segment| segment.is_empty() || !actual.backends(segment).is_empty();
        if !whole || !is_whole(service.cluster) || !is_whole(service.local) {
            claimed.into_iter().for_each(|span| self.places.give(span));
            // Unlike any that is wanted, so that it is written anew, also where nothing is in its segments.
            actual.services.insert(index, Service::default());
            return;
        }
        let mut users = BTreeSet::new();
        for backend in backends {
            let key =
                BackendKey { addr: backend.addr, port: backend.port, proto: proto.unwrap_or(0), zero: 0 };
            if proto.is_some() && self.places.numbers.adopt(key, backend.id) && users.insert(backend.id) {
                self.places.numbers.hold(backend.id);
            }
        }
        self.users.insert(index, users);
    }

    /// The index has these backends from now on.
    pub(super) fn use_numbers(&mut self, index: u32, alive: BTreeSet<u32>) {
        let former = self.users.remove(&index).unwrap_or_default();
        for id in alive.difference(&former) {
            self.places.numbers.hold(*id);
            self.leaving.remove(id);
        }
        for id in former.difference(&alive) {
            if self.places.numbers.release(*id) {
                self.leaving.insert(*id, index);
            }
        }
        if !alive.is_empty() {
            self.users.insert(index, alive);
        }
    }

    /// Remembers a burial.
    pub(super) fn mourn(&mut self, key: BackendKey, now: Instant) {
        self.buried.push_back((now + MOURNING, key));
    }

    /// A burial that is long enough ago.
    pub(super) fn forgotten(&mut self, now: Instant) -> Option<BackendKey> {
        let (until, key) = self.buried.front().copied()?;
        if until > now {
            return None;
        }
        self.buried.pop_front();
        Some(key)
    }

    /// When the next burial is long enough ago.
    pub fn next_burial(&self) -> Option<Instant> {
        self.buried.front().map(|(until, _)| *until)
    }
}

impl<K> Reconciler<K> {
    /// Computes one Service anew.
    pub(super) fn learn_service(&mut self, name: &ObjectName, rows: &Rows, view: View<'_>) {
        let first = PortId { service: name.clone(), port: String::new(), protocol: Protocol::Tcp, v4: false };
        let mut wanted = match rows.snapshot().services.get(name) {
            Some(service) => services::service(name, service, rows.slices_of(name), view),
            None => BTreeMap::new(),
        };
        let known: Vec<Arc<PortId>> = self
            .desired
            .services
            .range(first..)
            .map(|(id, _)| id)
            .take_while(|id| id.service == *name)
            .filter(|id| !id.port.starts_with(host_ports::PREFIX))
            .cloned()
            .collect();
        for id in known {
            let row = wanted.remove(&*id);
            self.want(id, row);
        }
        for (id, row) in wanted {
            self.want(Arc::new(id), Some(row));
        }
    }

    /// Takes over the ports of pods.
    pub(super) fn learn_host_ports(&mut self, wanted: Vec<(PortId, ServiceRow)>) {
        let wanted: BTreeMap<Arc<PortId>, ServiceRow> =
            wanted.into_iter().map(|(id, row)| (Arc::new(id), row)).collect();
        let known = std::mem::replace(&mut self.services.host_ports, wanted.keys().cloned().collect());
        for id in known.iter().filter(|id| !wanted.contains_key(*id)) {
            self.want(Arc::clone(id), None);
        }
        for (id, row) in wanted {
            self.want(id, Some(row));
        }
    }

    /// One port should be like this, or not be.
    fn want(&mut self, id: Arc<PortId>, row: Option<ServiceRow>) {
        let known = self.desired.services.get_mut(&id);
        if known.as_deref() == row.as_ref() {
            return;
        }
        let created = row.as_ref().map(|row| row.created);
        // In order, as maps have their keys.
        let wanted: Vec<FrontendKey> = row.iter().flat_map(|row| row.frontends.keys().copied()).collect();
        let old = match (known, row) {
            (Some(known), Some(row)) => Some(std::mem::replace(known, row)),
            (None, Some(row)) => self.desired.services.insert(Arc::clone(&id), row),
            (_, None) => self.desired.services.remove(&id),
        };
        let is_other = old.as_ref().map(|old| old.created) != created;
        let former: Vec<FrontendKey> = old.into_iter().flat_map(|old| old.frontends.into_keys()).collect();
        for key in former.iter().filter(|key| is_other || wanted.binary_search(key).is_err()) {
            match self.services.claims.release(key, &id) {
                Some(owner) => {
                    self.services.todo.insert(owner);
                    self.services.handed.insert(*key);
                }
                None => drop(self.services.stale.insert(*key)),
            }
        }
        let Some(created) = created else {
            self.services.todo.remove(&id);
            self.services.gone.insert(id, former);
            return;
        };
        for key in wanted.iter().filter(|key| is_other || former.binary_search(key).is_err()) {
            self.claim(*key, &id, created);
        }
        self.services.gone.remove(&id);
        self.services.todo.insert(id);
    }

    fn claim(&mut self, key: FrontendKey, id: &Arc<PortId>, created: i64) {
        let rows = &self.desired.services;
        let age = |id: &PortId| rows.get(id).map_or(i64::MAX, |row| row.created);
        let (winner, loser) = match self.services.claims.claim(key, id, created, age) {
            Claim::Alone => return,
            Claim::Took(former) => (Arc::clone(id), former),
            Claim::Lost(owner) => (owner, Arc::clone(id)),
        };
        self.services.todo.insert(Arc::clone(&loser));
        // An address alone may well be shared.
        if key.proto != 0 && winner.service != loser.service {
            let address = std::net::SocketAddr::new(key.addr.ip(), key.port.host());
            let message = format!(
                "{address} is served for {}/{}, which is older",
                winner.service.namespace, winner.service.name
            );
            self.complain(&loser, "AddressConflict", message);
        }
    }

    /// Tells the owner of a port something.
    pub(super) fn complain(&self, id: &PortId, reason: &'static str, message: String) {
        let is_pod = id.port.starts_with(host_ports::PREFIX);
        let kind = if is_pod { "Pod" } else { "Service" };
        // Complaints are made while the tables are read, where no more can be asked of them.
        self.tables.complain(Complaint { kind, object: id.service.clone(), uid: 0, reason, message });
    }
}
