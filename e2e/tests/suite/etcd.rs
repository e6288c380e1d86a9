//! A cluster whose objects lie in etcd: pods run while etcd is dead, and everything is there when it is back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Binaries, Cluster, Layout};

use crate::support;

#[test]
fn a_cluster_over_etcd_survives_its_etcd() -> Result<()> {
    if support::is_skipped() {
        return Ok(());
    }
    let Some(etcd) = program() else {
        ensure!(std::env::var_os("CI").is_none(), "CI must have etcd: `cargo xtask test` unpacks it");
        println!("skipped: there is no etcd; `cargo xtask test` unpacks one, HAWSER_ETCD names one");
        return Ok(());
    };
    let _turn = support::turn()?;
    let layout: Layout = "etcd:17".parse()?;
    e2e::down(&layout, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(story(&layout, etcd));
    if outcome.is_err() {
        support::print_logs(&layout);
    }
    e2e::down(&layout, true)?;
    outcome?;
    support::nothing_is_left(&layout)
}

fn program() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/etcd/usr/bin/etcd");
    let given = std::env::var_os("HAWSER_ETCD").map(PathBuf::from);
    given.or_else(|| unpacked.exists().then_some(unpacked))
}

async fn story(layout: &Layout, etcd: PathBuf) -> Result<()> {
    let binaries = Binaries { etcd: Some(etcd), ..support::binaries()? };
    let up = || Cluster::up(layout.clone(), 1, binaries.clone(), &|line| println!("{line}"));
    let cluster = up().await?;
    e2e::demo(&cluster, &|line| println!("{line}")).await?;
    let pods = "/api/v1/namespaces/default/pods";
    let before = cluster.api.text(&format!("{pods}?labelSelector=app%3Dhello")).await?;
    ensure!(before.contains("\"phase\":\"Running\""), "{before}");

    cluster.etcd.kill()?;
    // The client asks again and again for minutes; each answer says that the list cannot be had.
    let asked = tokio::time::timeout(Duration::from_secs(5), cluster.api.text(pods)).await;
    ensure!(!matches!(asked, Ok(Ok(_))), "a consistent list was served without etcd");
    let old = cluster.api.text(&format!("{pods}?resourceVersion=0")).await.context("what may be old")?;
    ensure!(old.contains("\"phase\":\"Running\""), "{old}");

    // The second time, only what is missing is started.
    let cluster = up().await.context("up again, with etcd dead")?;
    e2e::demo(&cluster, &|line| println!("{line}")).await.context("after etcd came back")?;
    let embedded = Binaries { etcd: None, ..binaries.clone() };
    let refused = Cluster::up(layout.clone(), 1, embedded, &|_| ()).await;
    ensure!(refused.is_err(), "up went on as if the objects lay in the embedded store");
    Ok(())
}
