//! The only place that touches the kernel: maps, programs, links, routes.
//!
//! [`Kernel`] is the seam: [`linux`] is the real one, [`fake`] its twin in memory that fails when told to.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use abi::service::{Frontend, FrontendKey};

use self::convert::generation::TooOld;
use crate::reconcile::actual::{Actual, Op};

pub mod beside;
pub mod bpf;
pub mod cleanup;
pub mod convert;
pub mod events;
pub mod evictions;
pub mod fake;
pub mod features;
pub mod flow_table;
pub mod flow_walk;
pub mod kube_proxy;
pub mod link_socket;
pub mod linux;
pub mod mapped;
pub mod meters;
pub mod netlink;
pub mod news;
pub mod objects;
pub mod overlay;
pub mod pace;
pub mod pod_link;
pub mod policy_maps;
pub mod router;
pub mod service_maps;
pub mod source_ports;
pub mod trial;
pub mod unmasked;
pub mod xdp;

/// What the reconciler needs from a kernel.
pub trait Kernel: Send {
    /// Reads everything of ours.
    fn read(&mut self) -> Result<Actual, KernelError>;

    /// Reads again what the kernel takes along with devices and addresses: the tunnels' device, tunnels, rules and routes.
    fn look(&mut self, actual: &mut Actual) -> Result<(), KernelError>;

    /// Carries out one operation; doing it twice is the same as once.
    fn apply(&mut self, op: &Op) -> Result<(), KernelError>;

    /// Writes frontends until one is refused; answers how many are written.
    fn write_frontends(&mut self, rows: &[(FrontendKey, Frontend)]) -> (usize, Option<KernelError>) {
        for (written, (key, frontend)) in rows.iter().enumerate() {
            if let Err(error) = self.apply(&Op::WriteFrontend { key: *key, frontend: *frontend }) {
                return (written, Some(error));
            }
        }
        (rows.len(), None)
    }

    /// By how much the maps are larger than at scale one.
    fn scale(&self) -> u32;

    /// Reads the counters.
    fn counters(&mut self) -> Result<Counters, KernelError>;

    /// Forgets flows that have been silent for too long.
    fn expire_flows(&mut self) -> Result<(), KernelError>;

    /// Folder where maps and programs are pinned, if they are.
    fn pins(&self) -> Option<PathBuf>;

    /// What this kernel can do, and what is done instead where it cannot.
    fn features(&self) -> Vec<Feature>;
}

/// A property of the running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// What is done without it, and why it was found missing.
    pub note: String,
}

/// A number of packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counters, summed over CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// By [`abi::count::Path`].
    pub paths: BTreeMap<String, Tally>,
    /// By [`abi::drops::Drop`].
    pub drops: BTreeMap<String, Tally>,
    /// Connections and refusals by service index.
    pub services: BTreeMap<u32, (u64, u64)>,
}

/// Why the kernel did not do what it was asked.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The agent was built before the programs were.
    #[error("this agent was built without its eBPF programs; run `cargo xtask bpf`, then build it again")]
    NoPrograms,
    /// The object could not be loaded; the verifier's last words are in the source.
    #[error("load the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// One program was refused.
    #[error("{action} program {program}: {source}")]
    Program {
        /// `load`, `attach`, `pin`.
        action: &'static str,
        /// Its name.
        program: String,
        /// The verifier's or kernel's answer.
        source: Box<aya::programs::ProgramError>,
    },
    /// A link could not be kept.
    #[error("keep the link of program {program}: {source}")]
    Link {
        /// Its program.
        program: String,
        /// The kernel's answer.
        source: aya::programs::links::LinkError,
    },
    /// The object lacks a program or map this agent wants.
    #[error("the eBPF object has no {0}")]
    Missing(String),
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: aya::maps::MapError,
    },
    /// Something could not be pinned.
    #[error("pin {path}: {source}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: aya::pin::PinError,
    },
    /// A netlink request failed.
    #[error("{action}: {source}")]
    Netlink {
        /// What was asked.
        action: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// A file, namespace or system call failed.
    #[error("{action}: {source}")]
    Io {
        /// What was done.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An agent that was here last is newer.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// A device that should exist does not.
    #[error("there is no device {0}")]
    NoDevice(String),
    /// Told to fail, by a test.
    #[error("injected fault at {0}")]
    Injected(String),
}

impl KernelError {
    /// Whether a map has no room for another row.
    pub fn is_full(&self) -> bool {
        let code = match self {
            Self::Map { source: aya::maps::MapError::SyscallError(error), .. } => {
                error.io_error.raw_os_error()
            }
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        };
        matches!(code, Some(libc::E2BIG | libc::ENOSPC))
    }

    /// What rtnetlink refused a request with.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Netlink { source, .. } => netlink::code(source),
            _ => None,
        }
    }

    /// Wraps an I/O error with what was being done.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
