//! Debian's etcd, unpacked into `tools/etcd` and not installed: the package would start a service that nobody asked for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{root, run};

/// Fetches etcd once.
pub fn ready() -> Result<()> {
    let folder = root().join("tools/etcd");
    if program().exists() {
        return Ok(());
    }
    println!("setup: unpack Debian's etcd-server into tools/etcd");
    let downloads = folder.join("packages");
    if downloads.exists() {
        std::fs::remove_dir_all(&downloads).context("remove packages that were not unpacked")?;
    }
    std::fs::create_dir_all(&downloads).context("make room for packages")?;
    run(Command::new("apt-get").args(["download", "-q", "etcd-server"]).current_dir(&downloads))?;
    for package in std::fs::read_dir(&downloads).context("look for the packages")? {
        let package = package.context("look for the packages")?.path();
        run(Command::new("dpkg-deb").arg("-x").args([&package, &folder]))?;
    }
    std::fs::remove_dir_all(&downloads).context("remove the packages")
}

/// Where the program lies.
pub fn program() -> PathBuf {
    root().join("tools/etcd/usr/bin/etcd")
}
