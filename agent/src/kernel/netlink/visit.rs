//! Work in another network namespace.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::kernel::KernelError;

/// The namespace a thread comes from, and goes back to in any case.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            // Whatever this thread did next would be done to somebody's pod.
            tracing::error!(%error, "a thread cannot leave the network namespace of a pod: the agent ends");
            std::process::abort();
        }
    }
}

/// Runs `work` in the network namespace at `path`, on the calling thread. Threads it starts stay there.
pub fn visit<T>(path: &Path, work: impl FnOnce() -> Result<T, KernelError>) -> Result<T, KernelError> {
    let namespace =
        File::open(path).map_err(KernelError::io(format!("open network namespace {}", path.display())))?;
    let own = File::open("/proc/thread-self/ns/net");
    let home = Home(own.map_err(KernelError::io("open the network namespace of this thread"))?);
    setns(&namespace, CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(KernelError::io(format!("enter network namespace {}", path.display())))?;
    let done = work();
    drop(home);
    done
}
