//! `hawser-agent check`: whether this node has what the agent needs, and who reaches whom in the cluster.
//!
//! The traffic is made by short-lived pods over the public API, so it says the same of any cluster. [`matrix`] says what is to be
//! asked, [`stage`] makes the pods, [`traffic`] runs in them.

pub mod matrix;
pub mod node;
pub mod nodes;
pub mod objects;
pub mod rows;
pub mod stage;
pub mod traffic;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::matrix::{Caller, Way, World};
use self::nodes::Chosen;
use self::rows::{Outcome, Row};
use self::stage::Stage;
use self::traffic::{Ask, Heard};
use crate::config::{Beside, Check, Scope};
use crate::kernel::beside::Machine;
use crate::kernel::netlink::Netlink;
use crate::wiring::api_client;

/// The image that `deploy/hawser.yaml` names.
const IMAGE: &str = "hawser.dev/hawser:latest";
/// Name of the row of everything that has to do with traffic, while there are no ways yet.
const TRAFFIC: &str = "traffic";

/// Checks, prints the rows, and fails when one has failed.
pub fn run(check: &Check) -> Result<()> {
    let mut rows = Vec::new();
    if check.scope != Scope::Traffic {
        rows.extend(node::rows(check));
    }
    if check.scope != Scope::Node {
        let own = own_addresses()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the runtime")?;
        rows.extend(runtime.block_on(traffic_rows(check, &own)));
    }
    if check.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", rows::text(&rows));
    }
    match rows.iter().filter(|row| row.outcome == Outcome::Failed).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", rows.len()),
    }
}

fn own_addresses() -> Result<BTreeSet<IpAddr>> {
    let addresses = Netlink::new().and_then(|netlink| netlink.addresses());
    let addresses = addresses.context("list this machine's addresses")?;
    Ok(addresses.into_values().flatten().map(|network| network.ip()).collect())
}

async fn traffic_rows(check: &Check, own: &BTreeSet<IpAddr>) -> Vec<Row> {
    // The credentials of the agent are not enough, and nobody said that there were others.
    let is_asked_for = check.scope == Scope::Traffic || check.access.kubeconfig.is_some();
    let refused = if is_asked_for { Outcome::Failed } else { Outcome::NotRun };
    let client = match api_client::connect(&check.access).await {
        Ok(client) => client,
        Err(error) => return vec![Row::new(TRAFFIC, refused, format!("{error:#}"))],
    };
    let failed = |error: anyhow::Error| Row::new(TRAFFIC, Outcome::Failed, format!("{error:#}"));
    let cast = match Cast::find(&client, check, own).await {
        Ok(cast) => cast,
        Err(error) => return vec![failed(error)],
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return vec![failed(anyhow::Error::new(error).context("listen for signals"))],
    };
    let stage = match Stage::make(client, cast.image.clone(), Duration::from_secs(check.patience)).await {
        Ok(stage) => stage,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return vec![Row::new(TRAFFIC, refused, format!("{}; see --kubeconfig", status.message))];
        }
        Err(error) => return vec![failed(anyhow::Error::new(error).context("make a namespace"))],
    };
    let begun = Instant::now();
    let mut rows = tokio::select! {
        rows = ways(&stage, &cast, check) => rows.unwrap_or_else(|error| vec![failed(error)]),
        () = signals.next() => vec![failed(anyhow::anyhow!("interrupted"))],
    };
    let removed = stage.remove().await.map(|()| format!("gone {:.1?} after it was made", begun.elapsed()));
    rows.push(Row::judged("namespace of check", removed));
    rows
}

/// SIGINT and SIGTERM, which end nothing by themselves any more: what was made has to be removed.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the first since they are listened for.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Who takes part.
struct Cast {
    first: Chosen,
    other: Result<Chosen, String>,
    no_outside: Option<String>,
    image: String,
}

impl Cast {
    async fn find(client: &kube::Client, check: &Check, own: &BTreeSet<IpAddr>) -> Result<Self> {
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
        let nodes = nodes.context("list the nodes")?.items;
        let (first, other) = nodes::choose(&nodes, &check.nodes).map_err(anyhow::Error::msg)?;
        let image = match &check.image {
            Some(image) => image.clone(),
            None => installed_image(client).await.unwrap_or_else(|| IMAGE.to_owned()),
        };
        if let Err(error) = Stage::sweep(client).await {
            eprintln!("hawser-agent: whether an earlier check left something is not known: {error}");
        }
        Ok(Self { first, other, no_outside: nodes::not_outside(&nodes, own), image })
    }
}

/// What the DaemonSet of `deploy/hawser.yaml` runs, if it is there and may be read.
async fn installed_image(client: &kube::Client) -> Option<String> {
    let sets = Api::<DaemonSet>::namespaced(client.clone(), "kube-system");
    let set = sets.get_opt("hawser").await.ok()??;
    set.spec?.template.spec?.containers.first()?.image.clone()
}

/// Makes the servers, asks, and judges every way.
async fn ways(stage: &Stage, cast: &Cast, check: &Check) -> Result<Vec<Row>> {
    let mut nodes = vec![("same", &cast.first)];
    if let Ok(other) = &cast.other {
        nodes.push(("other", other));
    }
    let mut servers = stage.serve(&nodes, check.load_balancer).await?.into_iter();
    let world = World {
        same: servers.next().context("there is a server")?,
        other: servers.next().ok_or_else(|| cast.other.clone().err().unwrap_or_default()),
        no_outside: cast.no_outside.clone().filter(|_| check.outside.is_none()),
        announced: check.load_balancer,
        routed: check.outside.is_some(),
        port: objects::PORT,
        service_port: objects::SERVICE_PORT,
    };
    let ways = matrix::ways();
    let asks: Vec<Result<Ask, String>> =
        ways.iter().enumerate().map(|(id, way)| world.ask(id, *way)).collect();
    let of = |caller: Caller| -> Vec<Ask> {
        let ours = ways.iter().zip(&asks).filter(|(way, _)| way.caller == caller);
        ours.filter_map(|(_, ask)| ask.clone().ok()).collect()
    };
    // Ways are tried over TCP, then over UDP, and pods have to start before and be heard after.
    let patience = Duration::from_secs((check.patience / 3).max(1));
    let outside = of(Caller::Outside);
    let beside = check.outside.clone().map(|Beside { link, addresses }| {
        let has_family = |to: &IpAddr| addresses.iter().any(|own| own.is_ipv4() == to.is_ipv4());
        let routes = world.routes().into_iter().filter(|(to, _)| has_family(to)).collect();
        Machine { link, addresses, routes }
    });
    let outside = tokio::task::spawn_blocking(move || match beside {
        Some(machine) => Ok(machine.run(|| traffic::call(&outside, patience))?),
        None => anyhow::Ok(traffic::call(&outside, patience)),
    });
    let (pod, host) = (of(Caller::Pod), of(Caller::Host));
    let (pod, host, outside) = tokio::join!(
        stage.ask(objects::POD_CALLER, &cast.first.name, &pod, patience),
        stage.ask(objects::HOST_CALLER, &cast.first.name, &host, patience),
        outside,
    );
    let outside = outside.context("ask from outside").and_then(|heard| heard);
    let heard = [pod, host, outside];
    Ok(ways.into_iter().zip(asks).map(|(way, ask)| row(way, ask, &heard)).collect())
}

/// The row of one way, given what every caller heard.
fn row(way: Way, ask: Result<Ask, String>, heard: &[Result<Vec<Heard>>; 3]) -> Row {
    let ask = match ask {
        Ok(ask) => ask,
        Err(why) => return Row::new(way.name(), Outcome::NotRun, why),
    };
    let answer = match &heard[way.caller as usize] {
        Ok(heard) => heard.iter().find(|one| one.id == ask.id),
        Err(error) => return Row::new(way.name(), Outcome::Failed, format!("{error:#}")),
    };
    let outcome = answer.map_or_else(|| Err("the caller did not ask".to_owned()), |one| one.outcome.clone());
    Row::traffic(way.name(), outcome.map_err(|why| format!("{}: {why}", ask.address)))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_way_works_when_its_caller_says_so_and_not_otherwise() {
        let way = matrix::ways()[0];
        let address = "10.244.0.2:8080".parse().unwrap();
        let ask = Ask { id: 7, address, udp_port: 8080, name: "same".into(), unchanged: true };
        let heard = |id, outcome| Ok(vec![Heard { id, outcome }]);
        let judge = |ask, own: Result<Vec<Heard>>| {
            // What others heard is about other ways.
            let row = row(way, ask, &[own, heard(7, Ok([9, 9])), heard(7, Ok([9, 9]))]);
            (row.outcome, row.detail, row.tcp_micros)
        };
        let asked = || Ok(ask.clone());
        let failed = |why: &str| (Outcome::Failed, why.to_owned(), None);
        assert_eq!(way.caller, Caller::Pod);
        let works = judge(asked(), heard(7, Ok([1, 2])));
        assert_eq!((works.0, works.2), (Outcome::Ok, Some(1)));
        assert_eq!(judge(asked(), heard(7, Err("silence".into()))), failed("10.244.0.2:8080: silence"));
        assert_eq!(judge(asked(), heard(8, Ok([1, 2]))), failed("10.244.0.2:8080: the caller did not ask"));
        assert_eq!(judge(asked(), Err(anyhow!("pod caller is away"))), failed("pod caller is away"));
        let not_run = (Outcome::NotRun, "one node".to_owned(), None);
        assert_eq!(judge(Err("one node".into()), heard(7, Ok([1, 2]))), not_run);
    }
}
