//! The Leases as the API server has them: followed by one watch, written one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::election::{Act, DURATION, Seen};

/// What the watch selects.
const LABEL: (&str, &str) = ("hawser.dev/lease", "load-balancer");
/// How long a write may take: after that somebody else may have taken the Lease.
const PATIENCE: Duration = Duration::from_secs(1);

/// A Lease as it was last seen.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who has it, and since when nothing has changed.
    pub seen: Seen,
    lease: Lease,
}

/// All Leases of one namespace that are ours.
#[derive(Debug, Clone)]
pub struct Leases {
    api: Api<Lease>,
    own: String,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

impl Leases {
    /// Those in a namespace, for the agent of the node `own`.
    pub fn new(client: Client, namespace: &str, own: String) -> Self {
        Self { api: Api::namespaced(client, namespace), own, known: Arc::default() }
    }

    /// One of them.
    pub fn seen(&self, name: &str) -> Option<Seen> {
        self.known.lock().get(name).map(|known| known.seen.clone())
    }

    /// Follows all until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let config = watcher::Config::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let mut events = std::pin::pin!(watch(self.api.clone(), config).default_backoff());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Some(Ok(Event::Apply(lease) | Event::InitApply(lease))) => self.learn(lease, Instant::now()),
                Some(Ok(Event::Delete(lease))) => drop(self.known.lock().remove(&lease.name_any())),
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of Leases was interrupted, reconnecting");
                }
                None => return,
            }
        }
    }

    /// A Lease that did not change has not been renewed: a new list alone proves nothing.
    fn learn(&self, lease: Lease, now: Instant) {
        let mut known = self.known.lock();
        if known
            .get(&lease.name_any())
            .is_some_and(|old| old.lease.resource_version() == lease.resource_version())
        {
            return;
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let seen = Seen { holder: holder.filter(|holder| !holder.is_empty()), at: now };
        known.insert(lease.name_any(), Known { seen, lease });
    }

    /// Does what was decided. A conflict means that somebody else was faster, which the watch tells of.
    pub async fn act(&self, name: &str, act: Act) -> Result<(), kube::Error> {
        let before = self.known.lock().get(name).map(|known| known.lease.clone());
        let lease = self.written(name, act, before.as_ref());
        let params = PostParams::default();
        let write = async {
            match before {
                Some(_) => self.api.replace(name, &params, &lease).await,
                None => self.api.create(&params, &lease).await,
            }
        };
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Ok(lease)) => self.learn(lease, Instant::now()),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => drop(self.known.lock().remove(name)),
            Ok(Err(error)) => return Err(error),
            Err(_) => tracing::debug!(lease = name, "the API server did not answer in time"),
        }
        Ok(())
    }

    fn written(&self, name: &str, act: Act, before: Option<&Lease>) -> Lease {
        let old = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let now = Some(MicroTime(Timestamp::now()));
        let renews = act == Act::Renew;
        let spec = LeaseSpec {
            holder_identity: Some(if act == Act::GiveBack { String::new() } else { self.own.clone() }),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: if renews { old.acquire_time } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!renews)),
            ..LeaseSpec::default()
        };
        let metadata = match before {
            Some(lease) => lease.metadata.clone(),
            None => ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
        };
        Lease { metadata, spec: Some(spec) }
    }
}
