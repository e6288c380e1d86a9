//! One archive for a report of a fault: what the agent and the kernel say, and no credentials. A part that cannot be had holds
//! the reason instead.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::client;
use crate::kernel::netlink::Netlink;

/// What the kernel writes about itself and the network.
const FILES: &[&str] = &[
    "/proc/version",
    "/proc/cmdline",
    "/proc/mounts",
    "/proc/meminfo",
    "/proc/net/snmp",
    "/proc/net/snmp6",
    "/proc/net/netstat",
    "/proc/net/softnet_stat",
    "/proc/net/dev",
];
/// Settings of every device that decide whether packets pass.
const SETTINGS: &[&str] = &[
    "ipv4/conf/{}/forwarding",
    "ipv4/conf/{}/rp_filter",
    "ipv4/conf/{}/accept_local",
    "ipv6/conf/{}/forwarding",
    "ipv6/conf/{}/disable_ipv6",
    "ipv6/conf/{}/accept_ra",
];

/// A part of the archive: its name and its text.
pub type Part = (String, String);

/// Collects all parts. Must not run inside an async runtime.
pub fn collect(run_dir: &Path, bpffs: &Path) -> Vec<Part> {
    let report = client::report(run_dir).and_then(|report| Ok(serde_json::to_string_pretty(&report)?));
    let mut parts = vec![
        (
            "agent.txt".to_owned(),
            format!("{} layout v{}-{:08x}\n", env!("CARGO_PKG_VERSION"), abi::GENERATION, abi::LAYOUT_HASH),
        ),
        ("report.json".to_owned(), report.unwrap_or_else(|error| format!("not to be had: {error:#}\n"))),
        ("pins.txt".to_owned(), pins(bpffs)),
        ("settings.txt".to_owned(), settings(Path::new("/proc/sys/net"))),
    ];
    match Netlink::new().and_then(|netlink| netlink.everything()) {
        Ok(lists) => {
            parts.extend(lists.into_iter().map(|(name, lines)| (format!("{name}.txt"), lines.join("\n"))));
        }
        Err(error) => parts.push(("netlink.txt".to_owned(), format!("not to be had: {error}\n"))),
    }
    parts.extend(FILES.iter().map(|path| (path.trim_start_matches('/').to_owned(), text(Path::new(path)))));
    parts
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("not to be had: {error}\n"))
}

fn pins(folder: &Path) -> String {
    let mut shown = String::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        match std::fs::read_dir(&folder) {
            Ok(entries) => {
                for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
                    _ = writeln!(shown, "{}", path.display());
                    left.extend(path.is_dir().then_some(path));
                }
            }
            Err(error) => _ = writeln!(shown, "{}: {error}", folder.display()),
        }
    }
    shown
}

fn settings(root: &Path) -> String {
    let mut shown = String::new();
    let mut devices: Vec<PathBuf> = match std::fs::read_dir(root.join("ipv4/conf")) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) => return format!("not to be had: {error}\n"),
    };
    devices.sort();
    for device in devices.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()) {
        for setting in SETTINGS {
            let setting = setting.replace("{}", &device);
            // IPv6 may be switched off for a device, or everywhere.
            if let Ok(value) = std::fs::read_to_string(root.join(&setting)) {
                _ = writeln!(shown, "{setting} = {}", value.trim());
            }
        }
    }
    shown
}

/// Size of a block of an archive.
const BLOCK: usize = 512;

/// The parts as a tar archive (POSIX ustar) below one folder, written at this second.
pub fn archive(parts: &[Part], folder: &str, second: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, text) in parts {
        bytes.extend(header(&format!("{folder}/{name}"), text.len(), second));
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

fn header(name: &str, size: usize, second: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{second:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_archive_holds_every_part_also_where_no_agent_runs() {
        let folder = tempfile::tempdir().unwrap();
        let parts = collect(folder.path(), folder.path());
        let path = folder.path().join("dump.tar");
        std::fs::write(&path, archive(&parts, "node", 1_700_000_000)).unwrap();
        let tar = |arguments: &[&str]| {
            let output = Command::new("tar").args(arguments).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let listed = tar(&["-tf"]);
        for name in ["report.json", "links.txt", "routes.txt", "rules.txt", "forwarding.txt", "proc/version"]
        {
            assert!(listed.lines().any(|line| line == format!("node/{name}")), "{name}: {listed}");
        }
        let part = |name: &str| &parts.iter().find(|(known, _)| known == name).unwrap().1;
        assert!(part("report.json").starts_with("not to be had: "), "{}", part("report.json"));
        assert!(part("links.txt").contains("IfName(\"lo\")"), "{}", part("links.txt"));
        assert!(part("settings.txt").contains("ipv4/conf/lo/rp_filter = "), "{}", part("settings.txt"));
        assert_eq!(tar(&["-xOf"]).len(), parts.iter().map(|(_, text)| text.len()).sum::<usize>());
    }
}
