//! Where a process runs: in which network namespace and which cgroup.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// The host, or a node's namespace and cgroup.
#[derive(Debug, Clone, Default)]
pub struct Place {
    pub netns: Option<PathBuf>,
    pub cgroup: Option<PathBuf>,
}

impl Place {
    /// Outside of the cluster.
    pub fn host() -> Self {
        Self::default()
    }

    /// Makes the child enter this place before it runs its program.
    pub fn enter_before_exec(&self, command: &mut Command) -> Result<()> {
        let netns = self
            .netns
            .as_ref()
            .map(|path| File::open(path).with_context(|| format!("open {}", path.display())));
        let netns = netns.transpose()?;
        let procs = self.cgroup.as_ref().map(|cgroup| {
            let path = cgroup.join("cgroup.procs");
            File::options().write(true).open(&path).with_context(|| format!("open {}", path.display()))
        });
        let procs = procs.transpose()?;
        // SAFETY: the closure makes only the system calls setns and write, on handles opened beforehand.
        unsafe {
            command.pre_exec(move || {
                if let Some(procs) = &procs {
                    // 0 stands for the process that writes.
                    nix::unistd::write(procs, b"0")?;
                }
                if let Some(netns) = &netns {
                    nix::sched::setns(netns.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
                }
                Ok(())
            });
        }
        Ok(())
    }
}
