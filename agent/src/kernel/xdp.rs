//! XDP on uplinks: which devices run the program before the stack, and why the others do not.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Feature;
use crate::desired::overlay::DEVICE;

/// Where packets from outside are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// In the driver where it can, and the device's senders are on other machines; else in TC.
    #[default]
    Auto,
    /// In TC.
    Off,
    /// In the driver, of whatever kind it is.
    Native,
}

/// How every uplink is met: the reason where it is not XDP.
#[derive(Debug, Default)]
pub struct Uplinks(BTreeMap<String, Option<String>>);

impl Mode {
    /// Why a device is not to be tried.
    pub fn objection(self, device: &str) -> Option<String> {
        match self {
            _ if device == DEVICE => Some("its packets come out of tunnels".to_owned()),
            Self::Off => Some("switched off by --xdp".to_owned()),
            Self::Native => None,
            // Senders on this machine leave checksums to a device that never computes them.
            Self::Auto if driver(device).as_deref() == Some("veth") => {
                Some("its packets come from this machine, without checksums".to_owned())
            }
            Self::Auto => None,
        }
    }
}

impl Uplinks {
    /// Notes how a device is met.
    pub fn note(&mut self, device: &str, objection: Option<String>) {
        self.0.insert(device.to_owned(), objection);
    }

    /// Forgets a device.
    pub fn forget(&mut self, device: &str) {
        self.0.remove(device);
    }

    /// For people.
    pub fn feature(&self) -> Feature {
        let notes: Vec<String> = self
            .0
            .iter()
            .map(|(device, objection)| match objection {
                None => format!("{device}: native"),
                Some(reason) => format!("{device}: TC ({reason})"),
            })
            .collect();
        Feature {
            name: "xdp".to_owned(),
            present: self.0.values().any(Option::is_none),
            note: if notes.is_empty() { "there are no uplinks".to_owned() } else { notes.join("; ") },
        }
    }
}

/// Name of the driver of a device, where it says.
fn driver(device: &str) -> Option<String> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    const NAME: usize = 32;
    let socket: OwnedFd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    // `struct ethtool_drvinfo`: the command, then the driver's name.
    let mut answer = [0u8; 196];
    answer[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    // SAFETY: all-zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = answer.as_mut_ptr().cast();
    // SAFETY: the request names the device and leads to a buffer as long as the answer, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } != 0 {
        return None;
    }
    let name = &answer[4..4 + NAME];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_uplink_has_its_reason() {
        let mut uplinks = Uplinks::default();
        assert!(!uplinks.feature().present);
        uplinks.note("eth0", None);
        uplinks.note("eth1", Mode::Off.objection("eth1"));
        let feature = uplinks.feature();
        assert!(feature.present);
        assert_eq!(feature.note, "eth0: native; eth1: TC (switched off by --xdp)");
        uplinks.forget("eth0");
        assert!(!uplinks.feature().present);
    }
}
