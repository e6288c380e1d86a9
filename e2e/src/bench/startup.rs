//! How long it takes from nothing to something.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::RUNS;
use super::stats::Spread;
use crate::api::connect;
use crate::cluster::{Binaries, Cluster, down};
use crate::demo;
use crate::layout::Layout;

/// From the start of `hawser-control` to its first 200 on /readyz: the first time (PKI is made), and later.
pub(super) async fn api_server(layout: &Layout, binaries: &Binaries) -> Result<()> {
    let mut first = Vec::new();
    let mut later = Vec::new();
    for _ in 0..RUNS {
        down(layout, true)?;
        std::fs::create_dir_all(layout.control()).context("make the data folder")?;
        first.push(until_ready(layout, binaries).await?);
        later.push(until_ready(layout, binaries).await?);
    }
    down(layout, true)?;
    println!("\nAPI server, start to ready, ms");
    println!("  with a new PKI   {}", Spread::of(first));
    println!("  afterwards       {}", Spread::of(later));
    Ok(())
}

async fn until_ready(layout: &Layout, binaries: &Binaries) -> Result<f64> {
    let began = Instant::now();
    let mut child = Command::new(&binaries.control)
        .args(["run", "--roles", "apiserver", "--data-dir"])
        .arg(layout.control())
        .args(["--bind-address", &format!("127.0.0.1:{}", layout.api_port())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start hawser-control")?;
    let ready = loop {
        if layout.kubeconfig().exists()
            && let Ok(api) = connect(&layout.kubeconfig()).await
            && api.text("/readyz").await.is_ok()
        {
            break Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        if began.elapsed() > Duration::from_secs(20) {
            break Err(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    child.kill().context("stop hawser-control")?;
    child.wait().context("wait for hawser-control")?;
    match ready {
        Ok(time) => Ok(time),
        Err(()) => bail!("hawser-control was not ready within 20 s"),
    }
}

/// From `up` on a built tree to the first answer through the ClusterIP.
pub(super) async fn first_answer(layout: &Layout, binaries: &Binaries) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        down(layout, true)?;
        let began = Instant::now();
        let cluster = Cluster::up(layout.clone(), 1, binaries.clone(), &|_| ()).await?;
        demo::first_answer(&cluster).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    down(layout, true)?;
    println!("\nup to the first answer through the ClusterIP, s\n  {}", Spread::of(times));
    Ok(())
}
