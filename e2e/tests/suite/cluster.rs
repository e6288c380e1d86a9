//! One cluster of three nodes, and everything that only shows when all parts run together.
//!
//! The cases share the cluster, because bringing one up costs more than any of them; each makes its own objects.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bandwidth;
use crate::check;
use crate::kinds;
use crate::loss;
use crate::policies;
use crate::pooled;
use crate::rolling;
use crate::support::{self, REPLICAS, Subject, is_skipped};
use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Layout, Place};

const NODES: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_works_from_up_to_down() -> Result<()> {
    if is_skipped() {
        return Ok(());
    }
    let _turn = support::turn()?;
    let layout: Layout = "test:1".parse()?;
    e2e::down(&layout, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(cases(layout.clone()));
    if outcome.is_err() {
        support::print_logs(&layout);
    }
    e2e::down(&layout, true)?;
    e2e::down(&layout, true).context("taking down twice")?;
    outcome?;
    support::nothing_is_left(&layout)
}

async fn cases(layout: Layout) -> Result<()> {
    let cluster =
        Cluster::up(layout.clone(), NODES, support::binaries()?, &|line| println!("{line}")).await?;
    let subject = Subject::deploy(&cluster).await.context("deploy the example")?;
    case("every replica answers, on every node", subject.is_spread().await)?;
    case(
        "services answer nodes, pods and the outside, in both families and protocols",
        services(&subject).await,
    )?;
    case("check finds every way and every node in order", check::cases(&cluster).await)?;
    case("services of every kind and policy", kinds::cases(&cluster, &subject).await)?;
    case("a load balancer's address from a pool", pooled::cases(&cluster).await)?;
    case("pods reach pods without NAT", subject.pods_reach_pods().await)?;
    case("upstream's cases of network policy", policies::cases(&cluster).await)?;
    case("pods reach the outside with their node's address", subject.masquerade().await)?;
    case("a pod has no more bandwidth than its annotations say", bandwidth::cases(&cluster, &subject).await)?;
    case("map dumps name their fields", subject.dumps_name_fields())?;
    case(
        "killing an agent interrupts nothing and its restart changes no map",
        subject.survives_agent_kill().await,
    )?;
    case(
        "agents are replaced on all nodes, by SIGTERM and by kill -9, and no connection is lost",
        rolling::cases(&cluster, &subject).await,
    )?;
    case("a node is lost and comes back", loss::cases(&cluster, &subject).await)?;
    case("a pod that is deleted is replaced", subject.replaces_pods().await)?;
    case("logs and exec reach containers", subject.logs_and_exec().await)?;
    case("a second up finds everything running", again(&cluster).await)?;
    case("objects survive down and up", objects_survive(layout).await)
}

fn case(name: &str, outcome: Result<()>) -> Result<()> {
    outcome.with_context(|| name.to_owned())?;
    println!("ok: {name}");
    Ok(())
}

/// {node, other node, pod, outside} x {ClusterIP, NodePort} x {IPv4, IPv6} x {TCP, UDP}.
async fn services(subject: &Subject<'_>) -> Result<()> {
    for target in subject.targets().await? {
        for (from, place) in subject.callers()? {
            if target.is_cluster_ip && from == "outside" {
                continue;
            }
            let what = format!("{} from {from}", target.name);
            subject.answers(&place, &target).with_context(|| what.clone())?;
            println!("  {what}");
        }
        subject.answers_a_pod(&target).await.with_context(|| format!("{} from a pod", target.name))?;
        println!("  {} from a pod", target.name);
    }
    Ok(())
}

async fn again(cluster: &Cluster) -> Result<()> {
    let before = cluster.control.pid();
    Cluster::up(cluster.layout.clone(), NODES, cluster.binaries.clone(), &|_| ()).await?;
    ensure!(cluster.control.pid() == before && before.is_some(), "the control plane was started anew");
    Ok(())
}

async fn objects_survive(layout: Layout) -> Result<()> {
    e2e::down(&layout, false)?;
    let cluster = Cluster::up(layout, NODES, support::binaries()?, &|line| println!("{line}")).await?;
    let subject = Subject::find(&cluster).await?;
    let vip = SocketAddr::new(subject.cluster_ips().await?[0], 80);
    e2e::answers_from(&support::binaries()?.local, &cluster.nodes[0].place()?, vip, REPLICAS, PATIENCE)?;
    e2e::answers_from(&support::binaries()?.local, &Place::host(), subject.node_port(0), REPLICAS, PATIENCE)?;
    Ok(())
}
