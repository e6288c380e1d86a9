//! What this machine is: read once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Facts of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub processors: usize,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of the disk pods write to.
    pub disk: u64,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Kernel version.
    pub kernel: String,
    /// Name of the distribution.
    pub os: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// The machine's own id.
    pub machine_id: String,
}

impl Machine {
    /// Reads them; what cannot be read stays empty.
    pub fn read(state_dir: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let uname = nix::sys::utsname::uname();
        let kernel = uname.map(|uname| uname.release().to_string_lossy().into_owned()).unwrap_or_default();
        let disk = nix::sys::statvfs::statvfs(state_dir)
            .map(|statvfs| statvfs.blocks() * statvfs.fragment_size())
            .unwrap_or_default();
        Self {
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            memory: memory(&text("/proc/meminfo")),
            disk,
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            kernel,
            os: pretty_name(&text("/etc/os-release")),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            machine_id: text("/etc/machine-id"),
        }
    }

    /// The labels every node has.
    pub fn labels(&self, name: &str) -> BTreeMap<String, String> {
        let pairs = [
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", &self.architecture),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

fn memory(meminfo: &str) -> i64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}

fn pretty_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_the_usual_files() {
        assert_eq!(memory("MemTotal:       24689744 kB\nMemFree: 1 kB\n"), 24_689_744 * 1024);
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert!(Machine::read(Path::new("/")).memory > 0);
    }
}
