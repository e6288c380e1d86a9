//! Removes the cgroup a pod's containers were in: the runtime removes only those of the containers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Removes `cgroup`, given from the root of the hierarchies, from all of them.
pub fn remove(cgroup: &str) -> io::Result<()> {
    for mount in mounts()? {
        let path = mount.join(cgroup.trim_start_matches('/'));
        remove_tree(&path)?;
    }
    Ok(())
}

/// Cgroups are removed from the leaves; their files go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn mounts() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

fn parse(mountinfo: &str) -> Vec<PathBuf> {
    let cgroup = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        let path = place.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
    };
    mountinfo.lines().filter_map(cgroup).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_are_read_from_mountinfo() {
        let text = "30 29 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                    31 29 0:28 / /proc rw - proc proc rw\n\
                    32 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n";
        assert_eq!(parse(text), [PathBuf::from("/sys/fs/cgroup/cpu"), "/sys/fs/cgroup/unified".into()]);
    }
}
