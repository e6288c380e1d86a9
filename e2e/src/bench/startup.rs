//! How long it takes from nothing to something.

use std::time::Instant;

use anyhow::Result;

use super::RUNS;
use super::stats::Spread;
use crate::cluster::{Binaries, Cluster, down};
use crate::demo;
use crate::layout::Layout;

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
