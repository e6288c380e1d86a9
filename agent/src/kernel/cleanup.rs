//! Takes away everything of ours on this node, and says what it was.

use std::path::Path;

use abi::name;
use aya::programs::TcAttachType;
use aya::programs::tc::qdisc_detach_program;

use super::convert::crossing::Stand;
use super::features::Features;
use super::netlink::{Netlink, ROUTE_PROTOCOL};
use super::pod_link::ALIAS;
use super::{KernelError, overlay};

/// Removes links, routes, pins and with them attached programs; answers with one line for each thing removed.
///
/// Works without an agent, and twice. Must not run inside an async runtime.
pub fn cleanup(bpffs: &Path) -> Result<Vec<String>, KernelError> {
    let mut removed = Vec::new();
    let netlink = Netlink::new()?;
    let routes = overlay::read(&netlink)?.routes;
    for (to, hop) in routes {
        netlink.delete_route(to)?;
        removed.push(format!("route {to} {hop} proto {ROUTE_PROTOCOL}"));
    }
    for from in netlink.rules()? {
        netlink.delete_rule(from)?;
        removed.push(format!("rule for packets from {from} proto {ROUTE_PROTOCOL}"));
    }
    for device in netlink.devices()?.iter().filter(|device| device.alias.starts_with(ALIAS)) {
        netlink.delete_device(device.index)?;
        removed.push(format!("device {} ({})", device.name, device.alias));
    }
    remove_pins(bpffs, &mut removed)?;
    if !Features::probe().tcx {
        remove_filters(&netlink, &mut removed)?;
    }
    Ok(removed)
}

/// Where there is no TCX, filters hang on devices that are not ours: they have our programs' names.
fn remove_filters(netlink: &Netlink, removed: &mut Vec<String>) -> Result<(), KernelError> {
    let places = [(TcAttachType::Ingress, name::TC_UPLINK_IN), (TcAttachType::Egress, name::TC_UPLINK_OUT)];
    for device in netlink.devices()? {
        for (direction, program) in places {
            // An agent that was killed while it took over from another has left a bridge.
            for program in [Stand::Programs, Stand::Bridges].iter().filter_map(|stand| stand.at(program)) {
                if qdisc_detach_program(&device.name, direction, program).is_ok() {
                    removed.push(format!("filter {program} of {}", device.name));
                }
            }
        }
    }
    Ok(())
}

/// Removes the pins of agents with other layouts, and with them what they attached. This agent's own programs are loaded and
/// have been accepted by the verifier by now; connections that were translated by the old ones begin anew.
pub fn remove_other_layouts(bpffs: &Path, own: &Path) -> Result<Vec<String>, KernelError> {
    let shown = bpffs.display().to_string();
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(bpffs).map_err(KernelError::io(format!("read {shown}")))? {
        let path = entry.map_err(KernelError::io(format!("read {shown}")))?.path();
        let is_layout = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"v"));
        if is_layout && path != own {
            remove_pins(&path, &mut removed)?;
        }
    }
    Ok(removed)
}

pub(super) fn remove_pins(folder: &Path, removed: &mut Vec<String>) -> Result<(), KernelError> {
    let shown = folder.display().to_string();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(KernelError::io(format!("read {shown}"))(error)),
    };
    for entry in entries {
        let entry = entry.map_err(KernelError::io(format!("read {shown}")))?;
        let path = entry.path();
        if path.is_dir() {
            remove_pins(&path, removed)?;
        } else {
            std::fs::remove_file(&path).map_err(KernelError::io(format!("remove {}", path.display())))?;
            removed.push(format!("pin {}", path.display()));
        }
    }
    std::fs::remove_dir(folder).map_err(KernelError::io(format!("remove {shown}")))?;
    Ok(())
}
