//! What tests that were killed have left in the kernel: the names of pins and cgroups say which process made them.

use std::path::{Path, PathBuf};
use std::sync::Once;

/// What the names begin with; the number of the process follows.
const OURS: [&str; 4] = ["served-", "dataplane-home-", "dataplane-empty", "dataplane-"];

/// Removes it, once for a process.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let cgroups = agent::kernel::features::cgroup2_mount().expect("a cgroup2 mount");
        for left in left_in(&cgroups) {
            // Its processes are dead; somebody else may sweep as well.
            drop(std::fs::remove_dir(left));
        }
        for left in left_in(Path::new("/sys/fs/bpf")) {
            drop(std::fs::remove_dir_all(left));
        }
    });
}

/// What dead processes of ours have made in a folder.
pub fn left_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| maker(path).is_some_and(|pid| !is_alive(pid))).collect()
}

/// Which process made it, if it is one of ours.
fn maker(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let rest = OURS.iter().find_map(|begins| name.strip_prefix(begins))?;
    // Of empty cgroups the number of the node comes first, of all others a number may follow.
    let mut numbers = rest.split('-');
    let first = numbers.next();
    let pid = if name.starts_with("dataplane-empty") { numbers.next() } else { first };
    pid?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
