//! The packet tests on other kernels: Debian's, booted under qemu's software emulation with nothing but a file system in memory.
//!
//! Kernels come as packages from the suites of the mirror this machine is set up with; nothing is installed but qemu and
//! the tools that unpack. `image.rs` makes the file system, `machine.rs` runs a machine and listens, `passes.rs` keeps what
//! has passed, so that a run that was cut short is taken up.

mod image;
mod machine;
mod passes;

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::apt::Apt;
use crate::build;
use crate::process::{cargo, output, root};
use crate::setup;
use image::Kernel;
use machine::{SILENCE, Said, emulated, listen};
use passes::{Passes, stamp};

/// Debian's suites, and what their kernels are known as here.
const KERNELS: &[(&str, &str)] =
    &[("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), ("newest", "trixie-backports")];
/// The kernels of virtual machines: the same source, fewer drivers.
const FLAVOUR: &str = "linux-image-cloud-amd64";
/// What is needed here, and the package that brings it.
const NEEDS: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/xz", "xz-utils"),
    ("/sbin/modinfo", "kmod"),
];
/// The tests that are left out: costs are one machine's, and the long ones show nothing about a kernel.
const LEFT_OUT: &[&str] = &["cost", "flood", "hostile"];
/// The tests that make flows older than they are.
const AGED: &[&str] = &["flows", "cases", "tunnel", "sctp"];

/// A packet test.
struct Test {
    /// The file of `ebpf/test/tests` it is, without its ending.
    name: String,
    /// What cargo built of it.
    executable: PathBuf,
    /// What [`stamp`] says of it and the programs.
    stamp: u64,
}

impl Test {
    fn is_aged(&self) -> bool {
        AGED.contains(&self.name.as_str())
    }
}

/// Runs the packet tests on the named kernels, or on all; those that have passed there as they are now are not run again,
/// unless all of them are wanted `again`.
pub fn run_on(wanted: &[String], again: bool) -> Result<()> {
    let known: Vec<&str> = KERNELS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no kernel {unknown}; there are {}", known.join(", "));
    }
    setup::ready()?;
    setup::install(NEEDS)?;
    build::bpf()?;
    let tests = tests()?;
    let suites: Vec<&str> = KERNELS.iter().map(|(_, suite)| *suite).collect();
    let apt = Apt::new(root().join("target/vm"), &suites)?;
    let mut failed = Vec::new();
    for (name, suite) in KERNELS {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == name) {
            continue;
        }
        let kernel = kernel_of(&apt, suite)?;
        println!("vm: {name} is Linux {}", kernel.release);
        let failures = run_tests(&kernel, &tests, again)?;
        failed.extend(failures.into_iter().map(|test| format!("{name}: {test}")));
    }
    ensure!(failed.is_empty(), "failed:\n  {}", failed.join("\n  "));
    Ok(())
}

/// The packet tests, those that want an old machine last.
fn tests() -> Result<Vec<Test>> {
    let listed =
        output(cargo().args(["test", "--package", "ebpf-test", "--no-run", "--message-format=json"]))?;
    let mut found = Vec::new();
    for line in listed.lines() {
        let message: Value = serde_json::from_str(line).context("cargo prints JSON")?;
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let is_test = message["target"]["kind"][0] == "test";
        if let (true, Some(path)) = (is_test, message["executable"].as_str())
            && !LEFT_OUT.contains(&name)
        {
            let executable = PathBuf::from(path);
            let stamp = stamp(&[&executable, &object()])?;
            found.push(Test { name: name.to_owned(), executable, stamp });
        }
    }
    ensure!(!found.is_empty(), "cargo has built no packet test");
    found.sort_by_key(Test::is_aged);
    Ok(found)
}

/// The programs, where the tests look for them.
fn object() -> PathBuf {
    root().join("target/bpf/hawser.bpf.o")
}

/// The kernel of a suite, unpacked.
fn kernel_of(apt: &Apt, suite: &str) -> Result<Kernel> {
    let flavour = apt.depends(&format!("{FLAVOUR}/{suite}"))?;
    let image = flavour
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{FLAVOUR} of {suite} names no kernel"))?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    let folder = root().join("target/vm").join(&release);
    // Newer packages have the kernel and its modules in two more.
    let parts = apt.depends(&image)?.into_iter().filter(|name| name.ends_with(&release));
    let parts = parts.filter(|name| !name.starts_with("linux-base-")).chain([image.clone()]);
    apt.unpack(&parts.collect::<Vec<_>>(), &folder)?;
    Ok(Kernel { release, folder })
}

/// Runs the tests that have not passed on a kernel yet; answers with those that fail.
fn run_tests(kernel: &Kernel, tests: &[Test], again: bool) -> Result<Vec<String>> {
    let mut passes = Passes::open(&kernel.folder.join("passes"), again)?;
    let (before, mut left): (Vec<&Test>, Vec<&Test>) =
        tests.iter().partition(|test| passes.has(&test.name, test.stamp));
    if !before.is_empty() {
        let names: Vec<&str> = before.iter().map(|test| test.name.as_str()).collect();
        println!("  passed before (--again runs them anew): {}", names.join(", "));
    }
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let (image, boots) = (kernel.image(tests)?, kernel.boots()?);
    let log = kernel.folder.join("log");
    let kept = File::create(&log).with_context(|| format!("write {}", log.display()))?;
    let mut failed = Vec::new();
    // A machine that hangs or dies takes the test it was at with it; the next one goes on behind that.
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|test| test.name.as_str()).collect();
        let mut ended = Vec::new();
        let end = listen(&mut emulated(&boots, &image, &names), &kept, SILENCE, |said| {
            let (Said::Passed(name) | Said::Failed(name)) = said;
            let Some(test) = left.iter().find(|test| test.name == name) else {
                bail!("the machine ran {name}, which nobody asked for");
            };
            ended.push(name.to_owned());
            if let Said::Passed(_) = said {
                println!("  passed {name}");
                passes.add(name, test.stamp)
            } else {
                println!("  FAILED {name}");
                failed.push(format!("{name}, see {}", log.display()));
                Ok(())
            }
        })?;
        left.retain(|test| !ended.contains(&test.name));
        if let Some(culprit) = left.first() {
            println!("  FAILED {}: {end}", culprit.name);
            failed.push(format!("{}: {end}, see {}", culprit.name, log.display()));
            left.remove(0);
        }
    }
    Ok(failed)
}
