//! The eBPF object: loaded, its maps and programs pinned, its programs attached.
//!
//! Everything lies under `<bpffs>/v<generation>-<layout hash>x<scale>/`: `hw_*` are maps, `prog_*` programs, `link_*` attachments. Pins keep all
//! of it alive while no agent runs; the next agent takes the maps over and swaps the programs under the same links.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use abi::name;
use abi::node::Node;
use abi::older::Older;
use aya::programs::links::{CgroupAttachMode, FdLink, LinkOrder};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{CgroupSock, CgroupSockAddr, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::KernelError;
use super::bpf::{ensure_bpffs, open_pin, update_link};
use super::convert::crossing;
use super::convert::generation::Version;
use super::features::Features;
use super::netlink::filters::NewFilter;
use crate::desired::endpoints::LINK_PREFIX;

/// What `cargo xtask bpf` built; empty when the agent was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hawser.bpf.o"));

/// Priority of our filters where there is no TCX.
const CLSACT_PRIORITY: u16 = 1;

/// The number of our filters among those of that priority.
const CLSACT_HANDLE: u32 = 1;

/// The loaded object.
pub struct Objects {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// Where all of it is pinned.
    pub folder: PathBuf,
    features: Features,
}

/// The folder of this generation and layout, with maps of this scale.
pub fn folder(bpffs: &Path, scale: u32) -> PathBuf {
    bpffs.join(Version::own(scale).to_string())
}

impl Objects {
    /// Loads all programs against the pinned maps, which are made where they do not exist.
    ///
    /// `older` says how the rows of tables lie that are laid out to be taken over; then bridges are loaded as well.
    pub fn load(
        bpffs: &Path,
        node: &Node,
        features: Features,
        scale: u32,
        older: Option<&Older>,
        tunnel_port: u16,
    ) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoPrograms);
        }
        let folder = folder(bpffs, scale);
        ensure_bpffs(&folder)?;
        let mut loader = EbpfLoader::new();
        loader.override_global(name::NODE, node, true);
        loader.override_global(name::TUNNEL_PORT, &tunnel_port, true);
        for map in name::MAPS {
            loader.map_pin_path(map.name, folder.join(map.name));
            if map.scaled {
                loader.map_max_entries(map.name, u32::try_from(map.capacity(scale)).unwrap_or(u32::MAX));
            }
        }
        if let Some(older) = older {
            loader.override_global(name::OLDER, older, true);
            for map in crossing::PASSING {
                loader.map_pin_path(map, folder.join(map));
            }
        }
        let mut ebpf = loader.load(OBJECT)?;
        let bridges = name::BRIDGES.iter().map(|(bridge, _)| *bridge).filter(|_| older.is_some());
        let wanted = name::PROGRAMS.iter().copied().filter(|program| features.wants(program));
        for program in wanted.chain(bridges) {
            load_program(&mut ebpf, program, &folder)?;
        }
        Ok(Self { ebpf, folder, features })
    }

    /// Attaches the socket hooks to a cgroup; hooks that are attached get the new programs.
    pub fn attach_sockets(&mut self, cgroup: &Path) -> Result<(), KernelError> {
        let group =
            File::open(cgroup).map_err(KernelError::io(format!("open cgroup {}", cgroup.display())))?;
        for hook in name::SOCKET_PROGRAMS {
            let pin = self.folder.join(format!("link_{hook}"));
            let program: &mut CgroupSockAddr = typed(&mut self.ebpf, hook)?;
            if takes_over(&pin, program.fd().map_err(refused("attach", hook))?.as_fd())? {
                continue;
            }
            let id = program.attach(&group, CgroupAttachMode::Single).map_err(refused("attach", hook))?;
            let link = program.take_link(id).map_err(refused("attach", hook))?;
            let link = FdLink::try_from(link)
                .map_err(|source| KernelError::Link { program: (*hook).to_owned(), source })?;
            pin_link(link, &pin)?;
        }
        self.attach_release(&group)
    }

    /// Attaches the program that sees sockets go.
    fn attach_release(&mut self, group: &File) -> Result<(), KernelError> {
        let hook = name::SOCK_RELEASE;
        let pin = self.folder.join(format!("link_{hook}"));
        let program: &mut CgroupSock = typed(&mut self.ebpf, hook)?;
        if takes_over(&pin, program.fd().map_err(refused("attach", hook))?.as_fd())? {
            return Ok(());
        }
        let id = program.attach(group, CgroupAttachMode::Single).map_err(refused("attach", hook))?;
        let link = program.take_link(id).map_err(refused("attach", hook))?;
        let link = FdLink::try_from(link)
            .map_err(|source| KernelError::Link { program: hook.to_owned(), source })?;
        pin_link(link, &pin)
    }

    /// Attaches a TC program to a device; one that is attached is replaced.
    ///
    /// The kernel waits for a grace period of RCU, about ten milliseconds, for each program attached by TCX (Linux 6.6,
    /// `tcx_entry_sync`), and everybody who changes a device waits with it. Filters cost nothing of the kind, so that pods'
    /// links, which come and go, have those.
    pub fn attach_tc(&mut self, program_name: &str, device: &str, ingress: bool) -> Result<(), KernelError> {
        let pin = self.tc_pin(device, ingress);
        let direction = if ingress { TcAttachType::Ingress } else { TcAttachType::Egress };
        let by_link = self.attaches_by_link(device);
        let program: &mut SchedClassifier = typed(&mut self.ebpf, program_name)?;
        if !by_link {
            attach_clsact(program, program_name, device, direction)?;
            // Left by an agent that used TCX here.
            return remove_pin(&pin);
        }
        if takes_over(&pin, program.fd().map_err(refused("attach", program_name))?.as_fd())? {
            return Ok(());
        }
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id =
            program.attach_with_options(device, direction, order).map_err(refused("attach", program_name))?;
        let link = program.take_link(id).map_err(refused("attach", program_name))?;
        let link = FdLink::try_from(link)
            .map_err(|source| KernelError::Link { program: program_name.to_owned(), source })?;
        pin_link(link, &pin)?;
        // A filter left by an agent that did without TCX would see every packet a second time; usually there is none.
        _ = qdisc_detach_program(device, direction, program_name);
        Ok(())
    }

    /// Attaches a TC program to a device of the calling thread's namespace, as a filter; one that is attached is replaced.
    pub fn attach_filter(
        &mut self,
        program_name: &str,
        device: &str,
        ingress: bool,
    ) -> Result<(), KernelError> {
        let direction = if ingress { TcAttachType::Ingress } else { TcAttachType::Egress };
        attach_clsact(typed(&mut self.ebpf, program_name)?, program_name, device, direction)
    }

    /// Takes the filter away again, if it is there.
    pub fn detach_filter(&mut self, program_name: &str, device: &str, ingress: bool) {
        let direction = if ingress { TcAttachType::Ingress } else { TcAttachType::Egress };
        _ = qdisc_detach_program(device, direction, program_name);
    }

    /// What hangs on a pod's link: what comes in, and what goes out.
    pub fn pod_filters(&self) -> Result<Vec<NewFilter<'_>>, KernelError> {
        [(name::TC_POD_OUT, true), (name::TC_POD_IN, false)]
            .into_iter()
            .map(|(program, ingress)| {
                let missing = || KernelError::Missing(format!("program {program}"));
                let loaded = self.ebpf.program(program).ok_or_else(missing)?;
                let loaded: &SchedClassifier = loaded.try_into().map_err(refused("find", program))?;
                let fd = loaded.fd().map_err(refused("attach", program))?.as_fd();
                Ok(NewFilter { program, fd, ingress, priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE })
            })
            .collect()
    }

    /// Whether programs of TC are attached to a device by links that are pinned.
    pub fn attaches_by_link(&self, device: &str) -> bool {
        self.features.tcx && !device.starts_with(LINK_PREFIX)
    }

    /// Detaches what [`Objects::attach_tc`] attached in both directions.
    pub fn detach_tc(&mut self, device: &str, programs: [&str; 2]) -> Result<(), KernelError> {
        for (ingress, program) in [(true, programs[0]), (false, programs[1])] {
            remove_pin(&self.tc_pin(device, ingress))?;
            let direction = if ingress { TcAttachType::Ingress } else { TcAttachType::Egress };
            if !self.attaches_by_link(device) {
                // A device that is gone has taken its filters with it.
                _ = qdisc_detach_program(device, direction, program);
            }
        }
        Ok(())
    }

    /// Removes pins of a device that is gone, and with it what was attached.
    pub fn forget_tc(&self, device: &str) -> Result<(), KernelError> {
        [true, false].iter().try_for_each(|ingress| remove_pin(&self.tc_pin(device, *ingress)))
    }

    /// Attaches the XDP program to a device's driver; one that is attached is replaced in one step.
    pub fn attach_xdp(&mut self, device: &str) -> Result<(), KernelError> {
        let pin = self.pin(device, "xdp");
        let name = self.features.xdp_program();
        let program: &mut Xdp = typed(&mut self.ebpf, name)?;
        if takes_over(&pin, program.fd().map_err(refused("attach", name))?.as_fd())? {
            return Ok(());
        }
        let id = program.attach(device, XdpMode::Driver).map_err(refused("attach", name))?;
        let link = program.take_link(id).map_err(refused("attach", name))?;
        let link = FdLink::try_from(link)
            .map_err(|source| KernelError::Link { program: name.to_owned(), source })?;
        pin_link(link, &pin)
    }

    /// The XDP program this kernel takes.
    pub fn xdp_program(&self) -> &'static str {
        self.features.xdp_program()
    }

    /// Detaches what [`Objects::attach_xdp`] attached.
    pub fn detach_xdp(&self, device: &str) -> Result<(), KernelError> {
        remove_pin(&self.pin(device, "xdp"))
    }

    /// Whether a device has our programs in both directions, as far as pins tell.
    pub fn has_tc(&self, device: &str) -> bool {
        !self.attaches_by_link(device)
            || [true, false].iter().all(|ingress| self.tc_pin(device, *ingress).exists())
    }

    /// Removes pins of attachments to pods' links that are gone.
    pub fn sweep_pins(&self, exists: impl Fn(&str) -> bool) -> Result<(), KernelError> {
        let shown = self.folder.display().to_string();
        let entries = std::fs::read_dir(&self.folder).map_err(KernelError::io(format!("read {shown}")))?;
        for entry in entries {
            let path = entry.map_err(KernelError::io(format!("read {shown}")))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let device =
                name.strip_prefix("link_").and_then(|rest| rest.rsplit_once('_')).map(|(device, _)| device);
            if device.is_some_and(|device| device.starts_with(LINK_PREFIX) && !exists(device)) {
                remove_pin(&path)?;
            }
        }
        Ok(())
    }

    fn tc_pin(&self, device: &str, ingress: bool) -> PathBuf {
        self.pin(device, if ingress { "in" } else { "out" })
    }

    fn pin(&self, device: &str, hook: &str) -> PathBuf {
        // bpffs has no dots in names, devices may.
        self.folder.join(format!("link_{}_{hook}", device.replace('.', "_")))
    }
}

fn load_program(ebpf: &mut Ebpf, program: &'static str, folder: &Path) -> Result<(), KernelError> {
    let pin = folder.join(format!("prog_{program}"));
    remove_pin(&pin)?;
    let pinned = if program == name::SOCK_RELEASE {
        let hook: &mut CgroupSock = typed(ebpf, program)?;
        hook.load().map_err(refused("load", program))?;
        hook.pin(&pin)
    } else if name::SOCKET_PROGRAMS.contains(&program) {
        let hook: &mut CgroupSockAddr = typed(ebpf, program)?;
        hook.load().map_err(refused("load", program))?;
        hook.pin(&pin)
    } else if [name::XDP_UPLINK, name::XDP_UPLINK_FRAG].contains(&program) {
        let frames: &mut Xdp = typed(ebpf, program)?;
        frames.load().map_err(refused("load", program))?;
        frames.pin(&pin)
    } else {
        let classifier: &mut SchedClassifier = typed(ebpf, program)?;
        classifier.load().map_err(refused("load", program))?;
        classifier.pin(&pin)
    };
    pinned.map_err(|source| KernelError::Pin { path: pin, source })
}

/// The program called `name`, as its type.
pub fn typed<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| KernelError::Missing(format!("program {name}")))?
        .try_into()
        .map_err(refused("find", name))
}

fn attach_clsact(
    program: &mut SchedClassifier,
    program_name: &str,
    device: &str,
    direction: TcAttachType,
) -> Result<(), KernelError> {
    // Exists already on every start but the first.
    _ = qdisc_add_clsact(device);
    let handle = TcHandle::from(CLSACT_HANDLE);
    let known = SchedClassifierLink::attached(device, direction, CLSACT_PRIORITY, handle, None)
        .map_err(KernelError::io(format!("look for filters of {device}")))?;
    // A filter of the last agent is given the new program in one step; there is none on the first start.
    let id = match program.attach_to_link(known) {
        Ok(id) => id,
        Err(_) => program
            .attach_with_options(
                device,
                direction,
                TcAttachOptions::Netlink(NlOptions { priority: CLSACT_PRIORITY, handle, classid: None }),
            )
            .map_err(refused("attach", program_name))?,
    };
    let link = program.take_link(id).map_err(refused("attach", program_name))?;
    // Dropping it would detach: the filter has to outlive the agent.
    std::mem::forget(link);
    Ok(())
}

/// Puts the program under the link pinned at `pin`; a link whose device is gone is forgotten.
fn takes_over(pin: &Path, program: BorrowedFd<'_>) -> Result<bool, KernelError> {
    if !pin.exists() {
        return Ok(false);
    }
    let taken = open_pin(pin).and_then(|link| update_link(link.as_fd(), program)).is_ok();
    if !taken {
        remove_pin(pin)?;
    }
    Ok(taken)
}

fn pin_link(link: FdLink, pin: &Path) -> Result<(), KernelError> {
    link.pin(pin).map(|_| ()).map_err(|source| KernelError::Pin { path: pin.to_path_buf(), source })
}

fn remove_pin(pin: &Path) -> Result<(), KernelError> {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(KernelError::io(format!("remove {}", pin.display()))(error))
        }
        _ => Ok(()),
    }
}

fn refused(action: &'static str, program: &str) -> impl FnOnce(ProgramError) -> KernelError {
    let program = program.to_owned();
    move |source| KernelError::Program { action, program, source: Box::new(source) }
}
