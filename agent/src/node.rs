//! This node at the API server: its Node object, its conditions, its Lease.

mod machine;
mod status;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub use self::machine::Machine;
pub use self::status::{Health, status};
use crate::pods::cri::Cri;
use crate::pods::events::Recorder;
use crate::tables::Tables;

/// How often the Lease is renewed and the status computed.
const BEAT: Duration = Duration::from_secs(10);
/// Until the node is Ready somebody waits for it.
const BEAT_UNREADY: Duration = Duration::from_millis(250);
/// The node is given up after this without a renewal.
const LEASE_SECONDS: i32 = 40;
/// Where Leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// What the Node object is made from.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node's name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Port of the kubelet API.
    pub kubelet_port: u16,
    /// Where pods' files are, for the size of the disk.
    pub state_dir: PathBuf,
    /// The runtime's name and version, as in `containerd://1.6.20`.
    pub runtime: String,
}

/// Keeps the node known.
pub struct Registration {
    identity: Identity,
    machine: Machine,
    client: kube::Client,
    cri: Cri,
    tables: Arc<Tables>,
    recorder: Recorder,
    ready: bool,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// One beat did not come through.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct BeatError {
    what: &'static str,
    #[source]
    source: Box<kube::Error>,
}

fn cannot(what: &'static str) -> impl FnOnce(kube::Error) -> BeatError {
    move |source| BeatError { what, source: Box::new(source) }
}

impl Registration {
    /// Not known yet.
    pub fn new(
        identity: Identity,
        client: kube::Client,
        cri: Cri,
        tables: Arc<Tables>,
        recorder: Recorder,
    ) -> Self {
        let machine = Machine::read(&identity.state_dir);
        Self { identity, machine, client, cri, tables, recorder, ready: false }
    }

    /// Registers and keeps the node known until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut leased = None;
        loop {
            if let Err(error) = self.beat(&mut leased).await {
                tracing::warn!(error = crate::pods::worker::chain(&error), "the node is not kept known");
            }
            let pause = if self.ready { BEAT } else { BEAT_UNREADY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn beat(&mut self, leased: &mut Option<tokio::time::Instant>) -> Result<(), BeatError> {
        let node = self.register().await?;
        if leased.is_none_or(|when| when.elapsed() >= BEAT - BEAT_UNREADY) {
            self.renew(&node).await?;
            *leased = Some(tokio::time::Instant::now());
        }
        let health = self.health().await;
        let now = Timestamp::now();
        let before = node.status.unwrap_or_default();
        let after = status(&self.identity, &self.machine, &health, &before, now);
        if !status::is_news(&before, &after, now) {
            self.ready = health.is_ready();
            return Ok(());
        }
        let api: Api<core::Node> = Api::all(self.client.clone());
        let patch = json!({ "status": after });
        api.patch_status(&self.identity.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(cannot("write the node's status"))?;
        if health.is_ready() && !self.ready {
            tracing::info!(node = self.identity.name, "the node is Ready");
            let message = format!("Node {} status is now: NodeReady", self.identity.name);
            self.recorder.node(&self.identity.name, "NodeReady", message);
        }
        self.ready = health.is_ready();
        Ok(())
    }

    /// The Node object, made when it is not there, with our labels on it.
    async fn register(&self) -> Result<core::Node, BeatError> {
        let api: Api<core::Node> = Api::all(self.client.clone());
        let labels = self.machine.labels(&self.identity.name);
        let known = api.get_opt(&self.identity.name).await.map_err(cannot("read the Node object"))?;
        let Some(node) = known else {
            let metadata = ObjectMeta {
                name: Some(self.identity.name.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            };
            let node = core::Node { metadata, ..core::Node::default() };
            let made =
                api.create(&PostParams::default(), &node).await.map_err(cannot("register the node"))?;
            tracing::info!(node = self.identity.name, "the node is registered");
            return Ok(made);
        };
        let present = node.metadata.labels.clone().unwrap_or_default();
        if labels.iter().all(|(key, value)| present.get(key) == Some(value)) {
            return Ok(node);
        }
        let patch = json!({ "metadata": { "labels": labels } });
        api.patch(&self.identity.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(cannot("label the node"))
    }

    async fn renew(&self, node: &core::Node) -> Result<(), BeatError> {
        let api: Api<coordination::Lease> = Api::namespaced(self.client.clone(), LEASES);
        let spec = coordination::LeaseSpec {
            holder_identity: Some(self.identity.name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..Default::default()
        };
        let patch = Patch::Merge(json!({ "spec": spec }));
        match api.patch(&self.identity.name, &PatchParams::default(), &patch).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(error) => return Err(cannot("renew the node's Lease")(error)),
        }
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.identity.name.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ..Default::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.identity.name.clone()),
            namespace: Some(LEASES.to_owned()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        };
        let lease = coordination::Lease { metadata, spec: Some(spec) };
        api.create(&PostParams::default(), &lease).await.map(drop).map_err(cannot("make the node's Lease"))
    }

    async fn health(&self) -> Health {
        let has_network = !self.tables.pod_cidrs().borrow().is_empty();
        match self.cri.status().await {
            Err(error) => Health { runtime: Err(error.to_string()), network: Ok(()) },
            Ok(response) => {
                let conditions = response.status.unwrap_or_default().conditions;
                let judge = |kind: &str| {
                    let condition = conditions.iter().find(|condition| condition.r#type == kind);
                    match condition {
                        Some(condition) if condition.status => Ok(()),
                        Some(condition) => Err(format!("{}: {}", condition.reason, condition.message)),
                        None => Err(format!("the runtime does not tell {kind}")),
                    }
                };
                let network = if has_network {
                    judge("NetworkReady")
                } else {
                    Err("the node has no podCIDR yet".to_owned())
                };
                Health { runtime: judge("RuntimeReady"), network }
            }
        }
    }
}
