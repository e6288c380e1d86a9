//! What is in the kernel, and the operations that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::service::{Backend, Frontend, FrontendKey, Segment, Service};
use ipnetwork::IpNetwork;

use crate::desired::{EndpointRow, Hop};

/// What is in the kernel: read once from the pinned maps and links, then kept by applying the same operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Rows of the frontend map.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Live services by index.
    pub services: BTreeMap<u32, Service>,
    /// Backends of the segments that live services refer to, by first index.
    pub segments: BTreeMap<u32, Vec<Backend>>,
    /// Numbers of backends that left a segment and may have no service any more.
    pub leaving: BTreeSet<u32>,
    /// Links of pods: name of the host's end, and the addresses inside.
    pub endpoints: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Our routes to prefixes of pods.
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// Uplinks with our programs.
    pub uplinks: BTreeSet<String>,
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
    /// Changes a backend's generation: flows to it end or move on.
    RetireBackend {
        /// Its number.
        id: u32,
    },
    /// Makes a pod's link, or makes it right.
    AttachEndpoint(Box<EndpointRow>),
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
            Op::WriteBackends { base, backends } => {
                self.segments.insert(*base, backends.clone());
            }
            Op::WriteService { index, service } => self.store(*index, *service),
            Op::WriteFrontend { key, frontend } => {
                self.frontends.insert(*key, *frontend);
            }
            Op::DeleteFrontend { key } => {
                self.frontends.remove(key);
            }
            Op::RetireBackend { id } => {
                self.leaving.remove(id);
            }
            Op::AttachEndpoint(row) => {
                let addresses = row.endpoint.addresses.iter().copied().collect();
                self.endpoints.insert(row.attachment.host_link.clone(), addresses);
            }
            Op::DetachEndpoint { link, .. } => {
                self.endpoints.remove(link);
            }
            Op::AddRoute { to, hop } => {
                self.routes.insert(*to, *hop);
            }
            Op::DeleteRoute { to } => {
                self.routes.remove(to);
            }
            Op::AttachUplink { device } => {
                self.uplinks.insert(device.clone());
            }
            Op::DetachUplink { device } => {
                self.uplinks.remove(device);
            }
        }
    }

    fn store(&mut self, index: u32, service: Service) {
        let old = if service.flags == 0 {
            self.services.remove(&index)
        } else {
            self.services.insert(index, service)
        };
        let Some(old) = old else {
            return;
        };
        for segment in [old.cluster, old.local] {
            let kept = service.flags != 0 && (service.cluster == segment || service.local == segment);
            if segment.count > 0
                && !kept
                && let Some(backends) = self.segments.remove(&segment.base)
            {
                self.leaving.extend(backends.iter().map(|backend| backend.id));
            }
        }
    }

    /// The backends of a segment.
    pub fn backends(&self, segment: Segment) -> &[Backend] {
        if segment.count == 0 {
            return &[];
        }
        self.segments.get(&segment.base).map_or(&[], Vec::as_slice)
    }
}
