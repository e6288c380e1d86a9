//! `cargo xtask bench`: figures as medians of interleaved runs, with their spread and the conditions they hold under.

mod services;
mod startup;
mod stats;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::{Binaries, Cluster, down};
use crate::layout::Layout;

/// Runs of everything that is compared.
const RUNS: usize = 5;

/// Measures everything on clusters of its own and prints it.
pub async fn run(binaries: Binaries) -> Result<()> {
    let layout: Layout = "bnch:2".parse()?;
    down(&layout, true)?;
    let measured = measure(&layout, binaries).await;
    down(&layout, true)?;
    measured
}

async fn measure(layout: &Layout, binaries: Binaries) -> Result<()> {
    println!("conditions: {}", conditions()?);
    startup::first_answer(layout, &binaries).await?;
    let cluster = Cluster::up(layout.clone(), 1, binaries, &|_| ()).await?;
    memory(&cluster).await?;
    services::against_direct(&cluster).await
}

fn conditions() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    let cpus = std::thread::available_parallelism().context("count the processors")?;
    let model = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model =
        model.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown processor");
    Ok(format!(
        "Linux {}, {cpus} x {model}, medians of {RUNS} interleaved runs (lowest to highest)",
        kernel.trim()
    ))
}

/// Resident memory after ten quiet seconds.
async fn memory(cluster: &Cluster) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("\nresident memory, idle cluster of one node");
    for (program, pid) in
        [("hawser-control", cluster.control.pid()), ("hawser-agent", cluster.nodes[0].agent.pid())]
    {
        let pid = pid.with_context(|| format!("{program} does not run"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown");
        println!("  {program:<16} {}", resident.trim());
    }
    Ok(())
}
