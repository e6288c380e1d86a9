//! What is in the kernel, and the operations that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::policy::Ruling;
use abi::service::{Backend, BackendKey, Frontend, FrontendKey, Segment, Service};
use ipnetwork::IpNetwork;

use crate::desired::overlay::{self, Overlay};
use crate::desired::policy::ports::Match;
use crate::desired::policy::{Pair, Policed};
use crate::desired::{EndpointRow, Hop};
use crate::tables::Limits;

/// What is in the kernel: read once from the pinned maps and links, then kept by applying the same operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Rows of the frontend map.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Live services by index.
    pub services: BTreeMap<u32, Service>,
    /// Backends of the segments that live services refer to, by first index.
    pub segments: BTreeMap<u32, Vec<Backend>>,
    /// Slots of the segments that have some, by first index: indices of backends.
    pub slots: BTreeMap<u32, Vec<u32>>,
    /// Clients that load balancers' addresses admit, by index of the service.
    pub source_ranges: BTreeMap<u32, BTreeSet<IpNetwork>>,
    /// Backends that went not long ago, and the service that knows others.
    pub tombstones: BTreeMap<BackendKey, u32>,
    /// The filter of virtual addresses: words that are not zero.
    pub filter: BTreeMap<u32, u64>,
    /// Links of pods by the name of the host's end.
    pub endpoints: BTreeMap<String, Attached>,
    /// Limits of bandwidth by the link of the pod; there are some that have to be written anew where none are said.
    pub limits: BTreeMap<String, Option<Limits>>,
    /// Identities of addresses.
    pub identities: BTreeMap<IpAddr, u32>,
    /// Identities of networks.
    pub cidrs: BTreeMap<IpNetwork, u32>,
    /// What rule sets say about identities.
    pub rulings: BTreeMap<Pair, BTreeMap<Match, Ruling>>,
    /// Our routes to prefixes of pods.
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// The device for tunnels.
    pub overlay: Option<Overlay>,
    /// Ends of tunnels, with the addresses of their nodes that our pods reach through them.
    pub tunnels: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// Prefixes of our own pods, whose packets to those addresses go that way.
    pub rules: BTreeSet<IpNetwork>,
    /// Networks that pods reach under their own addresses, beside the pods'.
    pub unmasked: BTreeSet<IpNetwork>,
    /// Uplinks with our programs.
    pub uplinks: BTreeSet<String>,
}

/// A pod's link that is in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// The addresses inside.
    pub addresses: BTreeSet<IpAddr>,
    /// `abi::endpoint::link` bits.
    pub flags: u32,
    /// What its addresses may do; `None` if that differs among them.
    pub policed: Option<Policed>,
}

/// One change of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fills a segment that no service refers to yet.
    WriteBackends {
        /// Index of the first.
        base: u32,
        /// The backends.
        backends: Vec<Backend>,
    },
    /// Fills slots that no service refers to yet.
    WriteSlots {
        /// Index of the first.
        base: u32,
        /// Indices of backends.
        cells: Vec<u32>,
    },
    /// Stores a service; its segments are in place.
    WriteService {
        /// Its index.
        index: u32,
        /// Its value; not live means gone.
        service: Service,
    },
    /// Adds or moves a frontend.
    WriteFrontend {
        /// The address.
        key: FrontendKey,
        /// The service.
        frontend: Frontend,
    },
    /// Removes a frontend.
    DeleteFrontend {
        /// The address.
        key: FrontendKey,
    },
    /// Admits clients to a service.
    WriteSourceRange {
        /// Its index.
        service: u32,
        /// The clients.
        range: IpNetwork,
    },
    /// Admits them no longer.
    DeleteSourceRange {
        /// Its index.
        service: u32,
        /// The clients.
        range: IpNetwork,
    },
    /// Sets a word of the filter of virtual addresses.
    WriteFilter {
        /// Which.
        word: u32,
        /// All of its bits.
        bits: u64,
    },
    /// Changes a backend's generation: flows to it end or move on.
    RetireBackend {
        /// Its number.
        id: u32,
    },
    /// Remembers that a backend is gone.
    Bury {
        /// The backend.
        key: BackendKey,
        /// A service it served.
        service: u32,
    },
    /// Forgets that.
    Unbury {
        /// The backend.
        key: BackendKey,
    },
    /// Tells the programs how many of those are remembered.
    CountTombstones {
        /// How many.
        count: u32,
    },
    /// Makes a pod's link, or makes it right.
    AttachEndpoint(Box<EndpointRow>, Policed),
    /// Gives a pod other rule sets, whose rows are in place.
    Police {
        /// Name of the host's end.
        link: String,
        /// The addresses inside.
        addresses: BTreeSet<IpAddr>,
        /// What it may do.
        policed: Policed,
    },
    /// Limits how fast a pod is.
    Limit(Box<EndpointRow>, Limits),
    /// Gives an address an identity.
    WriteIdentity {
        /// The address.
        address: IpAddr,
        /// The identity.
        identity: u32,
    },
    /// The address is nobody's in particular.
    DeleteIdentity {
        /// The address.
        address: IpAddr,
    },
    /// Gives the addresses of a network an identity.
    WriteCidr {
        /// The network.
        network: IpNetwork,
        /// The identity.
        identity: u32,
    },
    /// The network is like those around it.
    DeleteCidr {
        /// The network.
        network: IpNetwork,
    },
    /// Adds a row of a rule set.
    WriteRuling {
        /// The set and the identity.
        pair: Pair,
        /// The ports.
        row: Match,
        /// What becomes of flows.
        ruling: Ruling,
    },
    /// Removes a row of a rule set.
    DeleteRuling {
        /// The set and the identity.
        pair: Pair,
        /// The ports.
        row: Match,
    },
    /// Flows that were let pass are looked at again.
    NextEpoch,
    /// Takes a pod's link away.
    DetachEndpoint {
        /// Name of the host's end.
        link: String,
        /// The addresses it had.
        addresses: BTreeSet<IpAddr>,
    },
    /// Adds or replaces a route to a prefix of pods.
    AddRoute {
        /// The pods.
        to: IpNetwork,
        /// Where they are.
        hop: Hop,
    },
    /// Removes such a route.
    DeleteRoute {
        /// The pods.
        to: IpNetwork,
    },
    /// Makes the device for tunnels, or makes it right.
    EnsureOverlay(Overlay),
    /// Removes it with everything that leads through it.
    RemoveOverlay,
    /// Leads packets into a tunnel.
    OpenTunnel {
        /// The node at its end.
        end: IpAddr,
        /// Addresses of that node that our pods reach through it.
        beside: BTreeSet<IpAddr>,
    },
    /// Leads none there any more.
    CloseTunnel {
        /// The node at its end.
        end: IpAddr,
    },
    /// What pods of a prefix send to nodes goes into tunnels.
    AddRule {
        /// The pods.
        from: IpNetwork,
    },
    /// It does no longer.
    DeleteRule {
        /// The pods.
        from: IpNetwork,
    },
    /// Lets pods reach a network under their own addresses.
    Unmask {
        /// The network.
        network: IpNetwork,
    },
    /// Hides them from it again.
    Mask {
        /// The network.
        network: IpNetwork,
    },
    /// Attaches the programs of an uplink.
    AttachUplink {
        /// Name of the device.
        device: String,
    },
    /// Detaches them.
    DetachUplink {
        /// Name of the device.
        device: String,
    },
}

impl Actual {
    /// Follows one operation that succeeded.
    pub fn follow(&mut self, op: &Op) {
        match op {
            Op::WriteBackends { base, backends } => put(&mut self.segments, *base, backends.clone()),
            Op::WriteSlots { base, cells } => put(&mut self.slots, *base, cells.clone()),
            Op::WriteService { index, service } => self.store(*index, *service),
            Op::WriteFrontend { key, frontend } => {
                self.frontends.insert(*key, *frontend);
            }
            Op::DeleteFrontend { key } => {
                self.frontends.remove(key);
            }
            Op::WriteSourceRange { service, range } => {
                self.source_ranges.entry(*service).or_default().insert(*range);
            }
            Op::DeleteSourceRange { service, range } => {
                if let Some(ranges) = self.source_ranges.get_mut(service) {
                    ranges.remove(range);
                    if ranges.is_empty() {
                        self.source_ranges.remove(service);
                    }
                }
            }
            Op::WriteFilter { word, bits: 0 } => {
                self.filter.remove(word);
            }
            Op::WriteFilter { word, bits } => {
                self.filter.insert(*word, *bits);
            }
            Op::Bury { key, service } => {
                self.tombstones.insert(*key, *service);
            }
            Op::Unbury { key } => {
                self.tombstones.remove(key);
            }
            Op::RetireBackend { .. } | Op::CountTombstones { .. } | Op::NextEpoch => {}
            Op::Police { .. }
            | Op::WriteIdentity { .. }
            | Op::DeleteIdentity { .. }
            | Op::WriteCidr { .. }
            | Op::DeleteCidr { .. }
            | Op::WriteRuling { .. }
            | Op::DeleteRuling { .. } => self.follow_policies(op),
            Op::AttachEndpoint(row, policed) => {
                let addresses = row.endpoint.addresses.iter().copied().collect();
                let attached = Attached { addresses, flags: row.flags, policed: Some(*policed) };
                self.endpoints.insert(row.attachment.host_link.clone(), attached);
            }
            Op::DetachEndpoint { link, .. } => {
                self.endpoints.remove(link);
                self.limits.remove(link);
            }
            Op::Limit(row, limits) if *limits == Limits::default() => {
                self.limits.remove(&row.attachment.host_link);
            }
            Op::Limit(row, limits) => {
                self.limits.insert(row.attachment.host_link.clone(), Some(*limits));
            }
            Op::AddRoute { to, hop } => {
                self.routes.insert(*to, *hop);
            }
            Op::DeleteRoute { to } => {
                self.routes.remove(to);
            }
            Op::EnsureOverlay(overlay) => self.store_overlay(Some(overlay.clone())),
            Op::RemoveOverlay => self.store_overlay(None),
            Op::OpenTunnel { end, beside } => {
                self.tunnels.insert(*end, beside.clone());
            }
            Op::CloseTunnel { end } => {
                self.tunnels.remove(end);
            }
            Op::AddRule { from } => {
                self.rules.insert(*from);
            }
            Op::DeleteRule { from } => {
                self.rules.remove(from);
            }
            Op::Unmask { network } => {
                self.unmasked.insert(*network);
            }
            Op::Mask { network } => {
                self.unmasked.remove(network);
            }
            Op::AttachUplink { device } => {
                self.uplinks.insert(device.clone());
            }
            Op::DetachUplink { device } => {
                self.uplinks.remove(device);
            }
        }
    }

    /// A device that is made anew has nothing of what the former one had.
    fn store_overlay(&mut self, overlay: Option<Overlay>) {
        let stays =
            self.overlay.as_ref().zip(overlay.as_ref()).is_some_and(|(old, new)| old.is_same_device(new));
        if !stays {
            self.tunnels.clear();
            self.routes.retain(|_, hop| !matches!(hop, Hop::Tunnel(_)));
            self.uplinks.remove(overlay::DEVICE);
        }
        self.overlay = overlay;
    }

    fn follow_policies(&mut self, op: &Op) {
        match op {
            Op::Police { link, policed, .. } => {
                if let Some(attached) = self.endpoints.get_mut(link) {
                    attached.policed = Some(*policed);
                }
            }
            Op::WriteIdentity { address, identity } => {
                self.identities.insert(*address, *identity);
            }
            Op::DeleteIdentity { address } => {
                self.identities.remove(address);
            }
            Op::WriteCidr { network, identity } => {
                self.cidrs.insert(*network, *identity);
            }
            Op::DeleteCidr { network } => {
                self.cidrs.remove(network);
            }
            Op::WriteRuling { pair, row, ruling } => {
                self.rulings.entry(*pair).or_default().insert(*row, *ruling);
            }
            Op::DeleteRuling { pair, row } => {
                if let Some(rows) = self.rulings.get_mut(pair) {
                    rows.remove(row);
                    if rows.is_empty() {
                        self.rulings.remove(pair);
                    }
                }
            }
            _ => {}
        }
    }

    fn store(&mut self, index: u32, service: Service) {
        let old = if service.flags == 0 {
            self.services.remove(&index)
        } else {
            self.services.insert(index, service)
        };
        let kept = self.spans(&service);
        for span in old.map(|old| self.spans(&old)).unwrap_or_default() {
            if !kept.contains(&span) {
                match span.place {
                    Place::Backends => drop(self.segments.remove(&span.base)),
                    Place::Slots => drop(self.slots.remove(&span.base)),
                }
            }
        }
    }

    /// What a service occupies, each once.
    pub fn spans(&self, service: &Service) -> Vec<Span> {
        let mut spans = Vec::new();
        for segment in [service.cluster, service.local] {
            let mut add = |place, base, length| {
                let span = Span { place, base, length };
                if length > 0 && !spans.contains(&span) {
                    spans.push(span);
                }
            };
            if segment.has_slots() {
                add(Place::Slots, segment.base, segment.len());
                if let Some((base, length)) = self.run_of(segment) {
                    add(Place::Backends, base, length);
                }
            } else {
                add(Place::Backends, segment.base, segment.len());
            }
        }
        spans
    }

    /// The run of backends that the slots of a segment refer to.
    fn run_of(&self, segment: Segment) -> Option<(u32, u32)> {
        let first = self.slots.get(&segment.base)?.first()?;
        let (base, run) = self.segments.range(..=first).next_back()?;
        Some((*base, run.len() as u32))
    }

    /// The backends of a segment.
    pub fn backends(&self, segment: Segment) -> &[Backend] {
        let base =
            if segment.has_slots() { self.run_of(segment).map(|run| run.0) } else { Some(segment.base) };
        let run = base.and_then(|base| self.segments.get(&base)).map_or(&[][..], Vec::as_slice);
        if segment.is_empty() || !segment.has_slots() && run.len() as u32 != segment.len() {
            &[]
        } else {
            run
        }
    }

    /// The slots of a segment, as indices of backends.
    pub fn cells(&self, segment: Segment) -> &[u32] {
        let cells = self.slots.get(&segment.base).filter(|_| segment.has_slots());
        cells.map_or(&[], Vec::as_slice)
    }
}

/// Which array a span is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The backends.
    Backends,
    /// The slots.
    Slots,
}

/// Neighbouring cells of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which array.
    pub place: Place,
    /// The first.
    pub base: u32,
    /// How many.
    pub length: u32,
}

/// What lay there before is overwritten.
fn put<T>(runs: &mut BTreeMap<u32, Vec<T>>, base: u32, run: Vec<T>) {
    let end = base + run.len() as u32;
    let before = runs.range(..base).next_back().filter(|(start, run)| *start + run.len() as u32 > base);
    let overwritten: Vec<u32> = before
        .map(|(start, _)| *start)
        .into_iter()
        .chain(runs.range(base..end).map(|(start, _)| *start))
        .collect();
    for start in overwritten {
        runs.remove(&start);
    }
    runs.insert(base, run);
}
