//! What the running kernel can do, found by trying.

use std::path::{Path, PathBuf};

use abi::name;
use abi::node::feature;
use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;

use super::Feature;

/// A feature that can be left unused, to see what its fallback does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Optional {
    /// TCX links.
    Tcx,
    /// `bpf_set_retval`.
    #[value(name = "set_retval")]
    SetRetval,
    /// `bpf_for_each_map_elem`.
    #[value(name = "for_each")]
    ForEach,
}

/// The features the agent takes decisions on.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// TCX links (6.6).
    pub tcx: bool,
    /// `bpf_set_retval` (5.18).
    pub set_retval: bool,
    /// `bpf_for_each_map_elem` (5.13).
    pub for_each: bool,
    /// `bpf_ktime_get_coarse_ns` (5.11).
    pub coarse_clock: bool,
    /// XDP on frames in several pieces (5.18).
    pub xdp_frags: bool,
}

impl Features {
    /// Asks the kernel.
    pub fn probe() -> Self {
        let version = KernelVersion::current().unwrap_or(KernelVersion::new(0, 0, 0));
        Self {
            tcx: SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok(),
            // None can be asked for without loading a program that uses it.
            set_retval: version >= KernelVersion::new(5, 18, 0),
            for_each: version >= KernelVersion::new(5, 13, 0),
            coarse_clock: version >= KernelVersion::new(5, 11, 0),
            xdp_frags: version >= KernelVersion::new(5, 18, 0),
        }
    }

    /// As if the kernel lacked these.
    pub fn without(mut self, disabled: &[Optional]) -> Self {
        for feature in disabled {
            match feature {
                Optional::Tcx => self.tcx = false,
                Optional::SetRetval => self.set_retval = false,
                Optional::ForEach => self.for_each = false,
            }
        }
        self
    }

    /// Whether this kernel takes a program, and has a use for it.
    pub fn wants(self, program: &str) -> bool {
        match program {
            name::FLOW_EXPIRE => self.for_each,
            name::XDP_UPLINK => !self.xdp_frags,
            name::XDP_UPLINK_FRAG => self.xdp_frags,
            _ => true,
        }
    }

    /// The XDP program this kernel takes.
    pub fn xdp_program(self) -> &'static str {
        if self.xdp_frags { name::XDP_UPLINK_FRAG } else { name::XDP_UPLINK }
    }

    /// The bits the programs read.
    pub fn bits(self) -> u32 {
        let bit = |present, bit| if present { bit } else { 0 };
        bit(self.set_retval, feature::SET_RETVAL) | bit(self.coarse_clock, feature::COARSE_CLOCK)
    }

    /// For people.
    pub fn list(self) -> Vec<Feature> {
        let feature = |name: &str, present: bool, without: &str| Feature {
            name: name.to_owned(),
            present,
            note: if present { String::new() } else { without.to_owned() },
        };
        vec![
            feature("tcx", self.tcx, "attached as clsact filters: no TCX (Linux 6.6), or disabled by flag"),
            feature(
                "set_retval",
                self.set_retval,
                "a refused connect reports EPERM: no bpf_set_retval (Linux 5.18), or disabled by flag",
            ),
            feature(
                "for_each",
                self.for_each,
                "the agent walks the flows itself: no bpf_for_each_map_elem (Linux 5.13), or disabled by flag",
            ),
        ]
    }
}

/// Version of the running kernel, and whether it is one that is supported (5.10 or newer).
pub fn version() -> (String, bool) {
    let version = KernelVersion::current().unwrap_or(KernelVersion::new(0, 0, 0));
    (version.to_string(), version >= KernelVersion::new(5, 10, 0))
}

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    cgroup2_in(&mounts).map(Path::to_path_buf)
}

fn cgroup2_in(mounts: &str) -> Option<&Path> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, target, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| Path::new(target))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_version_1_hierarchies() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_in(mounts), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_in("proc /proc proc rw 0 0\n"), None);
    }
}
