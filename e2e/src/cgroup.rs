//! Cgroups of a node: made in the unified hierarchy, removed in every hierarchy with all that is in them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::layout::Layout;

/// Where the unified hierarchy (cgroup2) is mounted: `/sys/fs/cgroup`, or a folder of it beside version 1.
pub(crate) fn unified() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let found = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|parts| parts.get(2) == Some(&"cgroup2"));
    found.and_then(|parts| parts.get(1).map(PathBuf::from)).context("no cgroup2 file system is mounted")
}

/// Makes the node's cgroup in the unified hierarchy.
pub(crate) fn make(scope: &str) -> Result<PathBuf> {
    let folder = unified()?.join(scope);
    std::fs::create_dir_all(&folder).with_context(|| format!("make the cgroup {}", folder.display()))?;
    Ok(folder)
}

/// Removes every cgroup of the cluster, in all hierarchies, killing what still runs in them.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    leftovers(layout)?.iter().try_for_each(|cgroup| empty_and_remove(cgroup))
}

/// Removes the cgroups of a node, in all hierarchies.
pub(crate) fn remove_node(scope: &str) -> Result<()> {
    hierarchies()?
        .iter()
        .map(|root| root.join(scope))
        .filter(|cgroup| cgroup.exists())
        .try_for_each(|cgroup| empty_and_remove(&cgroup))
}

/// Ends every process in the cgroups of a node.
pub(crate) fn kill_node(scope: &str) -> Result<()> {
    for root in hierarchies()? {
        kill_all(&root.join(scope));
    }
    Ok(())
}

/// Cgroups of the cluster that are there.
pub(crate) fn leftovers(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for root in hierarchies()? {
        let ours = names(&root)?.into_iter().filter(|name| layout.owns(name));
        found.extend(ours.map(|name| root.join(name)));
    }
    Ok(found)
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let parts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(parts
        .filter(|parts| matches!(parts.get(2), Some(&("cgroup" | "cgroup2"))))
        .filter_map(|parts| parts.get(1).map(PathBuf::from))
        .collect())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn empty_and_remove(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        kill_all(cgroup);
        if remove_tree(cgroup) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the cgroup {} cannot be removed: something in it does not end", cgroup.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill_all(cgroup: &Path) {
    for child in names(cgroup).unwrap_or_default() {
        kill_all(&cgroup.join(child));
    }
    let listed = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in listed.lines().filter_map(|line| line.parse().ok()) {
        // A process that ended meanwhile needs no signal.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
    }
}

/// Removes from the leaves up; says whether it is all gone.
fn remove_tree(cgroup: &Path) -> bool {
    let children = names(cgroup).unwrap_or_default();
    let emptied = children.into_iter().all(|child| remove_tree(&cgroup.join(child)));
    emptied && (std::fs::remove_dir(cgroup).is_ok() || !cgroup.exists())
}
