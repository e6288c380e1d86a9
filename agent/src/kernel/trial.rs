//! Runs pinned programs on a made-up packet, and takes back what they remember of it.

use std::path::{Path, PathBuf};

use abi::count::Count;
use abi::drops::DROPS;
use abi::endpoint::Link;
use abi::flow::{Flow, FlowKey};
use abi::name;
use abi::service::{Affinity, AffinityKey, Backend, Frontend, FrontendKey, Segment, Service};
use aya::TestRunOptions;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun};

use super::KernelError;
use super::meters::open;

/// `struct __sk_buff`, as far as this kernel wants it, and where its `ifindex` is.
const SKB_CONTEXT: usize = 192;
const SKB_IFINDEX: usize = 40;
/// Room for headers that a program puts before the packet.
const GROWTH: usize = 128;

/// Programs and maps as they are pinned.
#[derive(Debug, Clone)]
pub struct Trial {
    folder: PathBuf,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The program's return code, a `TC_ACT_*`.
    pub code: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Drop reasons that were counted meanwhile: on a busy node others may be among them.
    pub drops: Vec<&'static str>,
}

/// What the maps say about an address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The row of the frontend.
    pub frontend: Frontend,
    /// Its service.
    pub service: Service,
    /// Backends of the cluster segment.
    pub cluster: Vec<Backend>,
    /// Backends of the local segment.
    pub local: Vec<Backend>,
}

impl Trial {
    /// Of what is pinned in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Runs a TC program on a frame that arrived on the device `ifindex` of this namespace; on a pod's link, from the pod.
    pub fn run(&self, program: &'static str, ifindex: u32, frame: &[u8]) -> Result<Ran, KernelError> {
        let failed = |source| KernelError::Program {
            action: "run",
            program: program.to_owned(),
            source: Box::new(source),
        };
        let pinned =
            SchedClassifier::from_pin(self.folder.join(format!("prog_{program}"))).map_err(failed)?;
        let mut context = [0u8; SKB_CONTEXT];
        context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut frame = frame.to_vec();
        if let (Some(link), Some(sender)) = (self.link(ifindex)?, frame.get_mut(6..12)) {
            sender.copy_from_slice(&link.mac);
        }
        let mut out = vec![0; frame.len() + GROWTH];
        let before = self.drops()?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result = pinned.test_run(options).map_err(failed)?;
        let after = self.drops()?;
        out.truncate(result.data_size_out as usize);
        let counted = DROPS.iter().zip(before.iter().zip(after));
        let drops = counted.filter(|(_, (before, after))| after > before).map(|((_, name, _), _)| *name);
        Ok(Ran { code: result.return_value.cast_signed(), frame: out, drops: drops.collect() })
    }

    fn link(&self, ifindex: u32) -> Result<Option<Link>, KernelError> {
        let links: HashMap<MapData, u32, Link> = open(&self.folder, name::LINKS)?;
        found(links.get(&ifindex, 0), name::LINKS)
    }

    fn drops(&self) -> Result<Vec<u64>, KernelError> {
        let cells: PerCpuArray<MapData, Count> = open(&self.folder, name::DROPS)?;
        DROPS
            .iter()
            .map(|(index, ..)| {
                let values = cells.get(index, 0).map_err(failed(name::DROPS))?;
                Ok(values.iter().map(|cell| cell.packets).sum())
            })
            .collect()
    }

    /// The flow a packet belongs to.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, KernelError> {
        for map in [name::FLOWS, name::EMBRYOS] {
            let flows: HashMap<MapData, FlowKey, Flow> = open(&self.folder, map)?;
            if let Some(flow) = found(flows.get(key, 0), map)? {
                return Ok(Some(flow));
            }
        }
        Ok(None)
    }

    /// Forgets both directions of a flow.
    pub fn forget(&self, key: &FlowKey) -> Result<(), KernelError> {
        let Some(flow) = self.flow(key)? else {
            return Ok(());
        };
        let answer = FlowKey { tuple: flow.to.reversed(), ..*key };
        for map in [name::FLOWS, name::EMBRYOS] {
            let mut flows: HashMap<MapData, FlowKey, Flow> = open(&self.folder, map)?;
            for key in [key, &answer] {
                found(flows.remove(key), map)?;
            }
        }
        Ok(())
    }

    /// The backend a client keeps.
    pub fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>, KernelError> {
        let kept: HashMap<MapData, AffinityKey, Affinity> = open(&self.folder, name::AFFINITY)?;
        found(kept.get(key, 0), name::AFFINITY)
    }

    /// Puts back what [`Trial::affinity`] had answered.
    pub fn restore(&self, key: &AffinityKey, kept: Option<Affinity>) -> Result<(), KernelError> {
        let mut map: HashMap<MapData, AffinityKey, Affinity> = open(&self.folder, name::AFFINITY)?;
        match kept {
            Some(kept) => map.insert(key, kept, 0).map_err(failed(name::AFFINITY)),
            None => found(map.remove(key), name::AFFINITY).map(|_| ()),
        }
    }

    /// What the maps say about an address and port.
    pub fn place(&self, key: &FrontendKey) -> Result<Option<Place>, KernelError> {
        let frontends: HashMap<MapData, FrontendKey, Frontend> = open(&self.folder, name::FRONTENDS)?;
        let Some(frontend) = found(frontends.get(key, 0), name::FRONTENDS)? else {
            return Ok(None);
        };
        let services: Array<MapData, Service> = open(&self.folder, name::SERVICES)?;
        let service = services.get(&frontend.service, 0).map_err(failed(name::SERVICES))?;
        let (cluster, local) = (self.backends(&service.cluster)?, self.backends(&service.local)?);
        Ok(Some(Place { frontend, service, cluster, local }))
    }

    fn backends(&self, segment: &Segment) -> Result<Vec<Backend>, KernelError> {
        let backends: Array<MapData, Backend> = open(&self.folder, name::BACKENDS)?;
        let slots: Array<MapData, u32> = open(&self.folder, name::SLOTS)?;
        let mut members: Vec<Backend> = (segment.base..segment.base + segment.len())
            .map(|at| {
                let at =
                    if segment.has_slots() { slots.get(&at, 0).map_err(failed(name::SLOTS))? } else { at };
                backends.get(&at, 0).map_err(failed(name::BACKENDS))
            })
            .collect::<Result<_, _>>()?;
        members.sort();
        members.dedup();
        Ok(members)
    }
}

fn found<T>(result: Result<T, MapError>, map: &'static str) -> Result<Option<T>, KernelError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(source) => Err(KernelError::Map { map, source }),
    }
}

fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}
