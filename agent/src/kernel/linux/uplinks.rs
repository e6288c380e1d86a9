//! Programs on uplinks: TC always, XDP where it can be.

use abi::name;
use aya::maps::xdp::XdpMapError;

use super::{LinuxKernel, gone, map};
use crate::kernel::KernelError;
use crate::reconcile::actual::Actual;

impl LinuxKernel {
    pub(super) fn attach_uplink(&mut self, device: &str) -> Result<(), KernelError> {
        let index =
            self.netlink.device(device)?.ok_or_else(|| KernelError::NoDevice(device.to_owned()))?.index;
        self.objects.attach_tc(name::TC_UPLINK_IN, device, true)?;
        self.objects.attach_tc(name::TC_UPLINK_OUT, device, false)?;
        let objection = match self.settings.xdp.objection(device) {
            Some(reason) => {
                self.detach_xdp(device)?;
                Some(reason)
            }
            None => self.attach_xdp(device).err().map(|error| {
                let reason = error.to_string();
                tracing::warn!(device, %error, "XDP is not possible here; packets from outside are met in TC");
                reason
            }),
        };
        self.uplinks.note(device, objection);
        self.indices.insert(device.to_owned(), index);
        Ok(())
    }

    pub(super) fn detach_uplink(&mut self, device: &str) -> Result<(), KernelError> {
        self.detach_xdp(device)?;
        self.uplinks.forget(device);
        if let Some(index) = self.indices.remove(device) {
            gone(self.maps.xdp_devices.remove(index)).map_err(map(name::XDP_DEVICES))?;
        }
        self.objects.detach_tc(device, [name::TC_UPLINK_IN, name::TC_UPLINK_OUT])
    }

    /// Uplinks whose devices were made anew have no programs, whatever their pins say.
    pub(super) fn lose_uplinks(&mut self, actual: &mut Actual) -> Result<(), KernelError> {
        let devices = self.netlink.devices()?;
        let indices = &self.indices;
        let is_same = |name: &String| {
            devices.iter().any(|device| device.name == *name && indices.get(name) == Some(&device.index))
        };
        let lost: Vec<String> = actual.uplinks.iter().filter(|name| !is_same(name)).cloned().collect();
        for device in lost {
            self.detach_uplink(&device)?;
            actual.uplinks.remove(&device);
        }
        Ok(())
    }

    pub(super) fn attach_xdp(&mut self, device: &str) -> Result<(), KernelError> {
        self.objects.attach_xdp(device)?;
        let index =
            self.netlink.device(device)?.ok_or_else(|| KernelError::NoDevice(device.to_owned()))?.index;
        self.maps.xdp_devices.insert(index, index, None, 0).map_err(|error| match error {
            XdpMapError::MapError(source) => map(name::XDP_DEVICES)(source),
            XdpMapError::ChainedProgramNotSupported => {
                KernelError::Missing("programs behind devices, which are not asked for".to_owned())
            }
        })
    }

    pub(super) fn detach_xdp(&mut self, device: &str) -> Result<(), KernelError> {
        self.objects.detach_xdp(device)?;
        match self.netlink.device(device)? {
            Some(found) => gone(self.maps.xdp_devices.remove(found.index)).map_err(map(name::XDP_DEVICES)),
            None => Ok(()),
        }
    }
}
