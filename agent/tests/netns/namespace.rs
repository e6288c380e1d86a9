//! A network namespace without a name: gone when its last descriptor is.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace held by a descriptor.
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A fresh one, with its loopback up.
    pub fn new() -> Self {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = Self { file: thread.join().unwrap().expect("a fresh network namespace") };
        namespace.ip("link set lo up");
        namespace
    }

    /// A path that leads to it as long as it lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) -> String {
        self.run(|| {
            let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
            assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    }
}
