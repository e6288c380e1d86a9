//! The real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use abi::count::{Count, PATHS, ServiceCount};
use abi::drops::DROPS;
use abi::endpoint::{Endpoint, Link, bits, link};
use abi::flow::{most_begun, most_direct};
use abi::node::Node;
use abi::service::{Frontend, FrontendKey};
use abi::{Addr16, Be16, Prefix, name};
use aya::maps::xdp::DevMapHash;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun};
use aya::{Ebpf, TestRunOptions};
use ipnetwork::IpNetwork;

use super::bpf::{ensure_bpffs, monotonic_second};
use super::convert::crossing::Stand;
use super::convert::generation;
use super::convert::{self, Conversion, Step};
use super::evictions::Evictions;
use super::features::{Features, Optional, cgroup2_mount};
use super::netlink::{Device, Netlink};
use super::objects::{Objects, folder, typed};
use super::pace::Paces;
use super::policy_maps::PolicyMaps;
use super::service_maps::ServiceMaps;
use super::unmasked::Unmasked;
use super::xdp::{Mode, Uplinks};
use super::{
    Counters, Feature, Kernel, KernelError, Tally, flow_walk, overlay, pod_link, router, source_ports,
};
use crate::desired::endpoints::LINK_PREFIX;
use crate::desired::overlay::DEVICE;
use crate::desired::policy::Policed;
use crate::desired::{EndpointRow, Hop};
use crate::reconcile::actual::{Actual, Attached, Op};

mod uplinks;

/// What the real kernel has to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder on a bpffs.
    pub bpffs: PathBuf,
    /// Whose sockets are translated; the cgroup2 mount if not given.
    pub cgroup: Option<PathBuf>,
    /// Addresses of the node.
    pub node: Vec<IpAddr>,
    /// Prefixes of services.
    pub services: Vec<IpNetwork>,
    /// Prefixes of pods.
    pub pods: Vec<IpNetwork>,
    /// Features to do without.
    pub disabled: Vec<Optional>,
    /// UDP port of the tunnels between nodes; zero where there are none.
    pub tunnel_port: u16,
    /// Where packets from outside are met.
    pub xdp: Mode,
    /// By how much the maps are larger than at scale one: a power of two.
    pub scale: u32,
}

/// The real kernel: aya for programs and maps, netlink for the rest.
pub struct LinuxKernel {
    settings: Settings,
    features: Features,
    objects: Objects,
    netlink: Netlink,
    maps: Maps,
    uplinks: Uplinks,
    /// Indices of the uplinks with programs: another one under the same name has none.
    indices: BTreeMap<String, u32>,
    /// What is being taken over, until every program has been swapped.
    conversion: Option<Conversion>,
    evictions: Evictions,
}

struct Maps {
    services: ServiceMaps,
    policies: PolicyMaps,
    endpoints: HashMap<MapData, Addr16, Endpoint>,
    links: HashMap<MapData, u32, Link>,
    namespaces: HashMap<MapData, u64, Link>,
    unmasked: Unmasked,
    paces: Paces,
    drops: PerCpuArray<MapData, Count>,
    paths: PerCpuArray<MapData, Count>,
    service_counts: PerCpuArray<MapData, ServiceCount>,
    xdp_devices: DevMapHash<MapData>,
}

impl LinuxKernel {
    /// Loads the programs and attaches the socket hooks. Must not run inside an async runtime.
    pub fn start(settings: Settings) -> Result<Self, KernelError> {
        let folder = folder(&settings.bpffs, settings.scale);
        generation::check(&settings.bpffs, &folder)?;
        let features = Features::probe().without(&settings.disabled);
        let netlink = Netlink::new()?;
        let node = Node { router: router::ensure(&netlink)?, ..facts(&settings, features)? };
        ensure_bpffs(&settings.bpffs)?;
        let conversion = Conversion::find(&settings.bpffs, &folder, settings.scale)?;
        let older = conversion.as_ref().map(Conversion::share).transpose()?;
        let mut objects = Objects::load(
            &settings.bpffs,
            &node,
            features,
            settings.scale,
            older.as_ref(),
            settings.tunnel_port,
        )?;
        let maps = Maps::take(&mut objects.ebpf)?;
        let cgroup = settings.cgroup.clone().or_else(cgroup2_mount).ok_or_else(|| KernelError::Io {
            action: "find the cgroup2 mount in /proc/mounts; mount one or give --cgroup-root".to_owned(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })?;
        match &conversion {
            Some(conversion) => take_over(conversion, &settings, &mut objects, &netlink)?,
            None => convert::take_attachments(&settings.bpffs, &objects.folder)?,
        }
        objects.attach_sockets(&cgroup)?;
        release_memory();
        Ok(Self {
            settings,
            features,
            objects,
            netlink,
            maps,
            uplinks: Uplinks::default(),
            indices: BTreeMap::new(),
            conversion,
            evictions: Evictions::default(),
        })
    }

    /// The node's own addresses, as a client.
    fn host(&self) -> Link {
        let [v4, v6] = [true, false].map(|v4| own_address(&self.settings, v4));
        Link { v4, v6, flags: link::HOST, ..Link::default() }
    }

    fn attach_endpoint(&mut self, row: &EndpointRow, policed: Policed) -> Result<(), KernelError> {
        let device = pod_link::create(&self.netlink, row)?;
        let link = &row.attachment.host_link;
        let (mut v4, mut v6) = (Addr16::NONE, Addr16::NONE);
        for address in &row.endpoint.addresses {
            *(if address.is_ipv4() { &mut v4 } else { &mut v6 }) = Addr16::from(*address);
        }
        let own = Link { v4, v6, flags: row.flags, mac: row.attachment.pod_mac, zero: [0; 2] };
        self.maps.links.insert(device.index, own, 0).map_err(map(name::LINKS))?;
        // Before the programs: no packet passes that policies have no say in.
        for address in &row.endpoint.addresses {
            let value = Endpoint {
                ifindex: device.index,
                mac: row.attachment.pod_mac,
                host_mac: row.attachment.host_mac,
                ingress: policed.ingress,
                egress: policed.egress,
                flags: audit_flag(policed),
            };
            self.maps.endpoints.insert(Addr16::from(*address), value, 0).map_err(map(name::ENDPOINTS))?;
        }
        let filters = if device.is_new {
            self.objects.pod_filters()?
        } else {
            self.objects.attach_tc(name::TC_POD_OUT, link, true)?;
            self.objects.attach_tc(name::TC_POD_IN, link, false)?;
            Vec::new()
        };
        pod_link::configure_host(&self.netlink, device.index, row, &self.settings.node, &filters)?;
        if let Some(cookie) = pod_link::configure_pod(row)? {
            self.maps.namespaces.insert(cookie, own, 0).map_err(map(name::NAMESPACES))?;
        }
        // Written last: a link without it is one whose making was interrupted.
        self.netlink.set_alias(device.index, &pod_link::alias(row))
    }

    fn police(
        &mut self,
        link: &str,
        addresses: &BTreeSet<IpAddr>,
        policed: Policed,
    ) -> Result<(), KernelError> {
        let device = self.netlink.device(link)?.ok_or_else(|| KernelError::NoDevice(link.to_owned()))?;
        for address in addresses {
            let key = Addr16::from(*address);
            let row = self.maps.endpoints.get(&key, 0).map_err(map(name::ENDPOINTS))?;
            if row.ifindex == device.index {
                let (ingress, egress) = (policed.ingress, policed.egress);
                let row = Endpoint { ingress, egress, flags: audit_flag(policed), ..row };
                self.maps.endpoints.insert(key, row, 0).map_err(map(name::ENDPOINTS))?;
            }
        }
        Ok(())
    }

    fn detach_endpoint(&mut self, link: &str, addresses: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
        let Some(device) = self.netlink.device(link)? else {
            // The pod's namespace has gone first and taken the link along.
            let devices = self.netlink.devices()?;
            return self.sweep(&devices);
        };
        for address in addresses {
            let key = Addr16::from(*address);
            // The address may belong to another link by now.
            if self.maps.endpoints.get(&key, 0).is_ok_and(|row| row.ifindex == device.index) {
                gone(self.maps.endpoints.remove(&key)).map_err(map(name::ENDPOINTS))?;
            }
        }
        if let Ok(own) = self.maps.links.get(&device.index, 0) {
            self.forget_namespaces(|link| *link == own)?;
            self.maps.paces.forget(own.mac)?;
        }
        gone(self.maps.links.remove(&device.index)).map_err(map(name::LINKS))?;
        // Its programs go with it.
        self.netlink.delete_device(device.index)?;
        self.objects.forget_tc(link)
    }

    /// Removes the rows of network namespaces whose pods are these.
    fn forget_namespaces(&mut self, is_stale: impl Fn(&Link) -> bool) -> Result<(), KernelError> {
        let rows = self.maps.namespaces.iter().filter_map(Result::ok);
        let stale: Vec<u64> = rows.filter(|(_, link)| is_stale(link)).map(|(cookie, _)| cookie).collect();
        for cookie in stale {
            gone(self.maps.namespaces.remove(&cookie)).map_err(map(name::NAMESPACES))?;
        }
        Ok(())
    }

    /// Removes rows and pins of devices that are gone.
    fn sweep(&mut self, devices: &[Device]) -> Result<(), KernelError> {
        let exists = |index: u32| devices.iter().any(|device| device.index == index);
        let stale: Vec<Addr16> = self
            .maps
            .endpoints
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, row)| !exists(row.ifindex))
            .map(|(address, _)| address)
            .collect();
        for address in stale {
            gone(self.maps.endpoints.remove(&address)).map_err(map(name::ENDPOINTS))?;
        }
        let stale: Vec<u32> =
            self.maps.links.keys().filter_map(Result::ok).filter(|index| !exists(*index)).collect();
        for index in stale {
            gone(self.maps.links.remove(&index)).map_err(map(name::LINKS))?;
        }
        let links: BTreeSet<Link> =
            self.maps.links.iter().filter_map(Result::ok).map(|(_, link)| link).collect();
        let host = self.host();
        self.forget_namespaces(|link| *link != host && !links.contains(link))?;
        self.maps.paces.sweep(|mac| links.iter().any(|link| link.mac == mac))?;
        self.objects.sweep_pins(|name| devices.iter().any(|device| device.name == name))
    }

    /// Pods' links that are complete: the alias is written last, programs are pinned, rows point at the device.
    fn read_endpoints(&self, actual: &mut Actual, devices: &[Device]) {
        for device in devices.iter().filter(|device| device.name.starts_with(LINK_PREFIX)) {
            let Some(addresses) = pod_link::addresses_of(&device.alias) else {
                continue;
            };
            let rows_are_right = addresses.iter().all(|address| {
                self.maps
                    .endpoints
                    .get(&Addr16::from(*address), 0)
                    .is_ok_and(|row| row.ifindex == device.index)
            });
            let link = self.maps.links.get(&device.index, 0).unwrap_or_default();
            // Rows of an older layout have no hardware address yet.
            if rows_are_right && link.mac != [0; 6] && self.objects.has_tc(&device.name) {
                let policed = self.policed(&addresses);
                let attached = Attached { addresses, flags: link.flags, policed };
                actual.endpoints.insert(device.name.clone(), attached);
                if self.maps.paces.has(link.mac) {
                    // The programs in its namespace may be those of another agent.
                    actual.limits.insert(device.name.clone(), None);
                }
            }
        }
    }
}

/// Puts the new programs in the place of those of an agent with other maps.
fn take_over(
    conversion: &Conversion,
    settings: &Settings,
    objects: &mut Objects,
    netlink: &Netlink,
) -> Result<(), KernelError> {
    Step::Loaded.done();
    conversion.copy()?;
    Step::Copied.done();
    convert::take_attachments(&settings.bpffs, &objects.folder)?;
    Step::Taken.done();
    if !conversion.has_crossed() {
        conversion.build()?;
        stand(objects, netlink, Stand::Bridges)?;
        Step::Bridged.done();
        conversion.cross()?;
        Step::Crossed.done();
    }
    stand(objects, netlink, Stand::Programs)?;
    Step::Swapped.done();
    conversion.follow()?;
    Step::Followed.done();
    Ok(())
}

/// Gives every attachment what is to stand there: pinned links, and the filters of pods' links and of uplinks without TCX.
fn stand(objects: &mut Objects, netlink: &Netlink, stand: Stand) -> Result<(), KernelError> {
    convert::swap(&objects.folder, objects.xdp_program(), stand)?;
    for device in netlink.devices()? {
        let uplink = [(name::TC_UPLINK_IN, true), (name::TC_UPLINK_OUT, false)];
        let pod = [(name::TC_POD_OUT, true), (name::TC_POD_IN, false)];
        let programs = match device.name.starts_with(LINK_PREFIX) {
            true if pod_link::addresses_of(&device.alias).is_some() => pod,
            false if !objects.attaches_by_link(&device.name) && has_filter(netlink, &device)? => uplink,
            _ => continue,
        };
        for (program, ingress) in programs {
            if let Some(program) = stand.at(program) {
                objects.attach_tc(program, &device.name, ingress)?;
            }
        }
    }
    Ok(())
}

/// Whether the device is an uplink that an agent has attached filters to.
fn has_filter(netlink: &Netlink, device: &Device) -> Result<bool, KernelError> {
    let ours = [Stand::Programs, Stand::Bridges].map(|stand| stand.at(name::TC_UPLINK_IN));
    Ok(netlink.filters(device.index)?.iter().any(|filter| ours.contains(&Some(filter.program.as_str()))))
}

impl LinuxKernel {
    /// Forgets flows that are over; answers how many entries of unanswered ones were removed by others than programs.
    fn walk_flows(&mut self) -> Result<u64, KernelError> {
        if !self.features.for_each {
            return flow_walk::expire(&self.objects.folder, monotonic_second());
        }
        let program: &mut SchedClassifier = typed(&mut self.objects.ebpf, name::FLOW_EXPIRE)?;
        // The smallest frame the kernel accepts; the program does not look at it.
        let frame = [0u8; 64];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        program.test_run(options).map(|_| 0).map_err(|source| KernelError::Program {
            action: "run",
            program: name::FLOW_EXPIRE.to_owned(),
            source: Box::new(source),
        })
    }

    /// What the addresses of a pod may do, if that is the same for all.
    fn policed(&self, addresses: &BTreeSet<IpAddr>) -> Option<Policed> {
        let row = |address: &IpAddr| self.maps.endpoints.get(&Addr16::from(*address), 0).ok();
        let all = addresses.iter().map(|address| {
            let Endpoint { ingress, egress, flags, .. } = row(address)?;
            Some(Policed { ingress, egress, audit: flags & bits::AUDIT != 0 })
        });
        let all: BTreeSet<Policed> = all.collect::<Option<_>>()?;
        all.first().filter(|_| all.len() == 1).copied()
    }
}

fn audit_flag(policed: Policed) -> u32 {
    if policed.audit { bits::AUDIT } else { 0 }
}

impl Kernel for LinuxKernel {
    fn read(&mut self) -> Result<Actual, KernelError> {
        let mut actual = Actual::default();
        self.maps.services.read(&mut actual)?;
        self.maps.policies.read(&mut actual)?;
        let devices = self.netlink.devices()?;
        self.sweep(&devices)?;
        self.read_endpoints(&mut actual, &devices);
        if let Some(cookie) = pod_link::namespace_cookie() {
            self.maps.namespaces.insert(cookie, self.host(), 0).map_err(map(name::NAMESPACES))?;
        }
        self.look(&mut actual)?;
        actual.unmasked = self.maps.unmasked.read()?;
        // The programs were loaded anew: links of pods and uplinks get them now, without a gap.
        for link in actual.endpoints.keys() {
            self.objects.attach_tc(name::TC_POD_OUT, link, true)?;
            self.objects.attach_tc(name::TC_POD_IN, link, false)?;
        }
        for device in devices.into_iter().filter(|device| !device.name.starts_with(LINK_PREFIX)) {
            // Filters leave nothing to recognize them by; where there is no TCX, uplinks are attached again.
            if self.features.tcx && self.objects.has_tc(&device.name) {
                self.attach_uplink(&device.name)?;
                actual.uplinks.insert(device.name);
            }
        }
        let conversion = self.conversion.take();
        if let Some(conversion) = &conversion {
            conversion.end()?;
        }
        convert::describe(&self.objects.folder, self.settings.scale)?;
        if conversion.is_some() {
            Step::Described.done();
        }
        convert::clear_others(&self.settings.bpffs, &self.objects.folder)?;
        Ok(actual)
    }

    fn look(&mut self, actual: &mut Actual) -> Result<(), KernelError> {
        let overlay::Seen { overlay, tunnels, rules, routes } = overlay::read(&self.netlink)?;
        (actual.overlay, actual.tunnels, actual.rules, actual.routes) = (overlay, tunnels, rules, routes);
        self.lose_uplinks(actual)?;
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), KernelError> {
        if let Some(done) = self.maps.services.apply(op) {
            return done;
        }
        if let Some(done) = self.maps.policies.apply(op) {
            return done;
        }
        match op {
            Op::AttachEndpoint(row, policed) => self.attach_endpoint(row, *policed),
            Op::Police { link, addresses, policed } => self.police(link, addresses, *policed),
            Op::DetachEndpoint { link, addresses } => self.detach_endpoint(link, addresses),
            Op::Limit(row, limits) => self.maps.paces.limit(&mut self.objects, row, *limits),
            Op::AddRoute { to, hop: Hop::Via(node) } => self.netlink.add_route(*to, *node),
            Op::AddRoute { to, hop: Hop::Tunnel(end) } => {
                overlay::route(&self.netlink, *to, *end, &self.settings.node)
            }
            Op::AddRoute { to, hop: Hop::Nowhere } => self.netlink.add_unreachable(*to),
            Op::DeleteRoute { to } => self.netlink.delete_route(*to),
            Op::EnsureOverlay(wanted) => {
                if !overlay::is_there(&self.netlink, wanted)? {
                    self.detach_uplink(DEVICE)?;
                }
                overlay::ensure(&self.netlink, wanted)
            }
            Op::RemoveOverlay => {
                self.detach_uplink(DEVICE)?;
                overlay::remove(&self.netlink)
            }
            Op::OpenTunnel { end, beside } => overlay::open(&self.netlink, *end, beside),
            Op::CloseTunnel { end } => overlay::close(&self.netlink, *end),
            Op::AddRule { from } => self.netlink.add_rule(*from),
            Op::DeleteRule { from } => self.netlink.delete_rule(*from),
            Op::Unmask { network } => self.maps.unmasked.add(*network),
            Op::Mask { network } => self.maps.unmasked.remove(*network),
            Op::AttachUplink { device } => self.attach_uplink(device),
            Op::DetachUplink { device } => self.detach_uplink(device),
            _ => Err(KernelError::Missing(format!("way to {op:?}"))),
        }
    }

    fn counters(&mut self) -> Result<Counters, KernelError> {
        let mut counters = Counters::default();
        for (index, path, _) in PATHS {
            counters.paths.insert((*path).to_owned(), tally(&self.maps.paths, *index, name::PATHS)?);
        }
        for (index, reason, _) in DROPS {
            counters.drops.insert((*reason).to_owned(), tally(&self.maps.drops, *index, name::DROPS)?);
        }
        for index in self.maps.services.indices() {
            let cells = self.maps.service_counts.get(&index, 0).map_err(map(name::SERVICE_COUNTS))?;
            let sum = cells.iter().fold((0, 0), |sum, cell| (sum.0 + cell.connections, sum.1 + cell.refused));
            counters.services.insert(index, sum);
        }
        Ok(counters)
    }

    fn expire_flows(&mut self) -> Result<(), KernelError> {
        let added = Evictions::before(&self.objects.folder)?;
        let removed = self.walk_flows()?;
        self.evictions.after(&self.objects.folder, added, removed, self.settings.scale)
    }

    fn write_frontends(&mut self, rows: &[(FrontendKey, Frontend)]) -> (usize, Option<KernelError>) {
        self.maps.services.write_frontends(rows)
    }

    fn scale(&self) -> u32 {
        self.settings.scale
    }

    fn pins(&self) -> Option<PathBuf> {
        Some(self.objects.folder.clone())
    }

    fn features(&self) -> Vec<Feature> {
        let mut list = self.features.list();
        list.push(self.maps.paces.feature());
        list.push(self.uplinks.feature());
        list
    }
}

impl Maps {
    fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            services: ServiceMaps::take(ebpf)?,
            policies: PolicyMaps::take(ebpf)?,
            endpoints: take(ebpf, name::ENDPOINTS)?,
            links: take(ebpf, name::LINKS)?,
            namespaces: take(ebpf, name::NAMESPACES)?,
            unmasked: Unmasked::take(ebpf)?,
            paces: Paces::take(ebpf)?,
            drops: take(ebpf, name::DROPS)?,
            paths: take(ebpf, name::PATHS)?,
            service_counts: take(ebpf, name::SERVICE_COUNTS)?,
            xdp_devices: take(ebpf, name::XDP_DEVICES)?,
        })
    }
}

pub(super) fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    let found = ebpf.take_map(name).ok_or_else(|| KernelError::Missing(format!("map {name}")))?;
    M::try_from(found).map_err(map(name))
}

fn tally(cells: &PerCpuArray<MapData, Count>, index: u32, name: &'static str) -> Result<Tally, KernelError> {
    let values = cells.get(&index, 0).map_err(map(name))?;
    Ok(values.iter().fold(Tally::default(), |sum, cell| Tally {
        packets: sum.packets + cell.packets,
        bytes: sum.bytes + cell.bytes,
    }))
}

pub(super) fn map(name: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map: name, source }
}

/// Loading takes tens of megabytes for a moment; the allocator would keep them.
fn release_memory() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// A key that is not there needs no removal.
pub(super) fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn facts(settings: &Settings, features: Features) -> Result<Node, KernelError> {
    let prefixes = |networks: &[IpNetwork]| {
        [true, false].map(|v4| {
            networks
                .iter()
                .find(|network| network.is_ipv4() == v4)
                .map_or(Prefix::NONE, |network| Prefix::new(network.network(), network.prefix()))
        })
    };
    let ports = source_ports::of_this_node()?;
    Ok(Node {
        v4: own_address(settings, true),
        v6: own_address(settings, false),
        services: prefixes(&settings.services),
        pods: prefixes(&settings.pods),
        cpus: aya::util::nr_cpus().map_or(1, |cpus| cpus as u32),
        port_min: Be16::new(*ports.start()),
        port_max: Be16::new(*ports.end()),
        features: features.bits(),
        router: 0,
        direct: most_direct(settings.scale),
        begun: most_begun(settings.scale),
    })
}

fn own_address(settings: &Settings, v4: bool) -> Addr16 {
    settings.node.iter().find(|own| own.is_ipv4() == v4).map_or(Addr16::NONE, |own| Addr16::from(*own))
}
