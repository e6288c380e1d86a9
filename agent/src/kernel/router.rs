//! A device of ours that forwards: uplinks keep the machine's own setting, so the programs look routes up as if their packets
//! had come by this one. Nothing is ever sent by it.

use rtnetlink::{LinkMessageBuilder, LinkVeth};

use super::KernelError;
use super::netlink::Netlink;
use super::pod_link::{ALIAS, set};

/// Both ends of it.
const NAMES: [&str; 2] = ["hawser0", "hawser1"];

/// The index of the device, which is made if it is not there.
pub fn ensure(netlink: &Netlink) -> Result<u32, KernelError> {
    let name = NAMES[0];
    if netlink.device(name)?.is_none() {
        netlink.add_device(LinkMessageBuilder::<LinkVeth>::new(name, NAMES[1]).build(), name)?;
    }
    let device = netlink.device(name)?.ok_or_else(|| KernelError::NoDevice(name.to_owned()))?;
    for family in ["ipv4/conf", "ipv6/conf"] {
        set(family, name, "forwarding=1")?;
    }
    // Cleanup knows our devices by their alias.
    netlink.set_alias(device.index, &format!("{ALIAS}router"))?;
    Ok(device.index)
}
