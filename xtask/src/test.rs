//! The test ladder, from rules and tables to whole clusters; the same for people and for CI.

use anyhow::{Result, bail};

use crate::process::{cargo, run};
use crate::{build, deps, etcd, setup, tidy};

/// Runs everything. Steps that need root fail in CI and are skipped with a printed line elsewhere, by the tests
/// themselves.
pub fn all() -> Result<()> {
    setup::ready()?;
    setup::components()?;
    etcd::ready()?;
    step("rules");
    tidy::check()?;
    deps::check()?;
    step("format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]))?;
    step("eBPF object");
    build::bpf()?;
    step("lints");
    run(cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    step("programs for the cluster tests");
    build::binaries(true)?;
    step("unit, golden, packet, namespace and cluster tests");
    run(cargo().arg("test"))?;
    step("the API over etcd");
    run(cargo().args(["test", "--package", "apiserver", "--test", "wire"]).env("HAWSER_TEST_STORE", "etcd"))
}

/// Kills the API server that often; a few kills are part of [`all`].
pub fn kills(cycles: u32) -> Result<()> {
    setup::ready()?;
    let test = ["test", "--release", "--package", "control", "--test", "kills", "--", "--nocapture"];
    run(cargo().args(test).env("HAWSER_KILLS", cycles.to_string()))
}

/// Rewrites golden files: every golden test writes instead of comparing when `BLESS` is set.
pub fn bless() -> Result<()> {
    setup::ready()?;
    etcd::ready()?;
    build::bpf()?;
    let blessed = run(cargo().args(["test", "--no-fail-fast"]).env("BLESS", "1"));
    if let Err(error) = blessed {
        bail!("some tests fail for other reasons than a golden file: {error:#}");
    }
    run(std::process::Command::new("git").args(["status", "--short"]))
}

fn step(what: &str) {
    println!("\n== {what}");
}
