//! The loop: pools are read, Leases held, addresses given and announced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use super::election::{Act, decide, holds};
use super::groups::{GIVER, Group, groups};
use super::leases::Leases;
use super::{announcer, give};
use crate::pools::{self, Place, Pool};
use crate::tables::{Complaint, ObjectName, Source, Tables};

/// How often Leases are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often addresses are given without a change: what others wrote over them is put right.
const PASS: Duration = Duration::from_secs(30);

/// Runs until `stop`.
pub async fn run(client: Client, place: Place, node: String, tables: Arc<Tables>, stop: CancellationToken) {
    let (pools, read) = channel::channel(Arc::<[Pool]>::default());
    let (announced, addresses) = channel::channel(BTreeSet::new());
    let leases = Leases::new(client.clone(), &place.namespace, node.clone());
    let holder = Holder {
        client: client.clone(),
        node,
        tables: Arc::clone(&tables),
        leases: leases.clone(),
        pools: read,
        announced,
        written: BTreeMap::new(),
        complained: BTreeMap::new(),
        passed: None,
    };
    tokio::join!(
        follow_pools(client, place, Arc::clone(&tables), pools, stop.clone()),
        leases.follow(stop.clone()),
        announcer::run(tables, addresses, stop.clone()),
        holder.run(stop),
    );
}

async fn follow_pools(
    client: Client,
    place: Place,
    tables: Arc<Tables>,
    pools: channel::Sender<Arc<[Pool]>>,
    stop: CancellationToken,
) {
    let api = Api::<ConfigMap>::namespaced(client, &place.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", place.name));
    let mut events = std::pin::pin!(watch(api, config).default_backoff());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        let text = match event {
            Some(Ok(Event::Apply(map) | Event::InitApply(map))) => {
                map.data.and_then(|mut data| data.remove(pools::KEY)).unwrap_or_default()
            }
            Some(Ok(Event::Delete(_))) => String::new(),
            Some(Ok(Event::Init | Event::InitDone)) => continue,
            Some(Err(error)) => {
                tracing::warn!(%error, "the watch of the pools was interrupted, reconnecting");
                continue;
            }
            None => return,
        };
        match pools::parse(&text) {
            Ok(list) => drop(pools.send_replace(list.into())),
            Err(error) => {
                tracing::warn!(%error, "the pools before stay in use");
                tables.complain(Complaint {
                    kind: "ConfigMap",
                    object: ObjectName { namespace: place.namespace.clone(), name: place.name.clone() },
                    uid: 0,
                    reason: "InvalidPools",
                    message: error.to_string(),
                });
            }
        }
    }
}

/// What the addresses were last given for: the pools, and how many changes of Services had arrived.
type Basis = (Arc<[Pool]>, u64);

/// Holds Leases, and does what comes with them.
struct Holder {
    client: Client,
    node: String,
    tables: Arc<Tables>,
    leases: Leases,
    pools: channel::Receiver<Arc<[Pool]>>,
    announced: channel::Sender<BTreeSet<IpAddr>>,
    /// When this agent last wrote into each Lease.
    written: BTreeMap<String, Instant>,
    complained: BTreeMap<ObjectName, String>,
    passed: Option<(Instant, Basis)>,
}

impl Holder {
    async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.tables.changes();
        let mut pools = self.pools.clone();
        let mut groups = self.groups();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick(), if !groups.is_empty() => {}
                // Without pools there is nothing to look at.
                changed = pools.changed(), if groups.is_empty() => if changed.is_err() { return },
                () = stop.cancelled() => return self.give_back(&groups).await,
            }
            let news = changes.has_changed().unwrap_or(false) | pools.has_changed().unwrap_or(false);
            if news || groups.is_empty() {
                changes.mark_unchanged();
                pools.mark_unchanged();
                groups = self.groups();
            }
            self.write(&groups, Instant::now()).await;
            self.announce(&groups);
            if groups.contains_key(GIVER) && holds(&self.node, self.leases.seen(GIVER).as_ref()) {
                self.give(Instant::now()).await;
            }
        }
    }

    fn groups(&self) -> BTreeMap<String, Group> {
        let pools = Arc::clone(&self.pools.borrow());
        self.tables.consult(|rows| groups(rows, &pools, &self.node))
    }

    async fn write(&mut self, groups: &BTreeMap<String, Group>, now: Instant) {
        self.written.retain(|name, _| groups.contains_key(name));
        let acts: Vec<(&String, Act)> = groups
            .iter()
            .map(|(name, group)| {
                let (seen, written) = (self.leases.seen(name), self.written.get(name).copied());
                (name, decide(&self.node, group.wanted, seen.as_ref(), written, now))
            })
            .filter(|(_, act)| *act != Act::Wait)
            .collect();
        self.written.extend(acts.iter().map(|(name, _)| ((*name).clone(), now)));
        let done = join_all(acts.iter().map(|(name, act)| self.leases.act(name, *act))).await;
        for error in done.into_iter().filter_map(Result::err) {
            match error {
                kube::Error::Api(status) => tracing::warn!(%status, "a Lease was refused"),
                // The watches tell of an API server that is away.
                error => tracing::debug!(%error, "a Lease could not be written"),
            }
        }
    }

    fn announce(&self, groups: &BTreeMap<String, Group>) {
        let held = groups.iter().filter(|(name, _)| holds(&self.node, self.leases.seen(name).as_ref()));
        let addresses: BTreeSet<IpAddr> =
            held.flat_map(|(_, group)| group.addresses.iter().copied()).collect();
        self.announced.send_if_modified(|known| {
            let news = *known != addresses;
            if news {
                tracing::info!(?addresses, "announcing");
                *known = addresses;
            }
            news
        });
    }

    async fn give(&mut self, now: Instant) {
        let basis = (Arc::clone(&self.pools.borrow()), self.tables.changes_of(Source::Services));
        let is_due = self.passed.as_ref().is_none_or(|(at, before)| *before != basis || *at + PASS <= now);
        if !is_due {
            return;
        }
        match give::pass(&self.client, &basis.0, &self.tables, &mut self.complained).await {
            Ok(()) => self.passed = Some((now, basis)),
            Err(error) => tracing::warn!(%error, "addresses could not be given, trying again"),
        }
    }

    /// Whoever comes next need not wait.
    async fn give_back(&self, groups: &BTreeMap<String, Group>) {
        let held = groups.keys().filter(|name| holds(&self.node, self.leases.seen(name).as_ref()));
        for error in join_all(held.map(|name| self.leases.act(name, Act::GiveBack))).await {
            if let Err(error) = error {
                tracing::debug!(%error, "a Lease could not be given back");
            }
        }
    }
}
