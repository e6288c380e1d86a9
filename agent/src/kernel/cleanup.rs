//! Takes away everything of ours on this node, and says what it was.

use std::path::Path;

use super::KernelError;
use super::netlink::{Netlink, ROUTE_PROTOCOL};
use super::pod_link::ALIAS;

/// Removes links, routes, pins and with them attached programs; answers with one line for each thing removed.
///
/// Works without an agent, and twice. Must not run inside an async runtime.
pub fn cleanup(bpffs: &Path) -> Result<Vec<String>, KernelError> {
    let mut removed = Vec::new();
    let netlink = Netlink::new()?;
    for (to, via) in netlink.routes()? {
        netlink.delete_route(to)?;
        removed.push(format!("route {to} via {via} proto {ROUTE_PROTOCOL}"));
    }
    for device in netlink.devices()?.iter().filter(|device| device.alias.starts_with(ALIAS)) {
        netlink.delete_device(device.index)?;
        removed.push(format!("device {} ({})", device.name, device.alias));
    }
    remove_pins(bpffs, &mut removed)?;
    Ok(removed)
}

fn remove_pins(folder: &Path, removed: &mut Vec<String>) -> Result<(), KernelError> {
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
