//! Local pods: how they are attached, what they wish for, and where the kernel is with them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Protocol, Tables, policy};

/// Names the attachment of one pod: a sandbox and the interface inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId {
    /// CNI's container id: the pod's sandbox.
    pub container_id: String,
    /// Name of the interface inside the pod, usually `eth0`.
    pub ifname: String,
}

/// A port of the host that leads to a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The host's address; `None` stands for all that NodePorts answer on.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A local pod's attachment, as CNI ADD asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// CNI's container id: the pod's sandbox.
    pub container_id: String,
    /// Name of the interface inside the pod, usually `eth0`.
    pub ifname: String,
    /// Path of the pod's network namespace.
    pub netns_path: PathBuf,
    /// Namespace of the Pod object.
    pub pod_namespace: String,
    /// Name of the Pod object.
    pub pod_name: String,
    /// Unique number of the Pod, as the runtime has written it; empty where it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// At most one address per family.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// Whether two numbers of pods with the same name are not of different pods; zero is not known.
pub fn is_same_pod(one: u128, other: u128) -> bool {
    one == 0 || other == 0 || one == other
}

/// A unique number as objects have it: hexadecimal digits, with hyphens or without; zero for anything else.
pub fn uid(text: &str) -> u128 {
    u128::from_str_radix(&text.replace('-', ""), 16).unwrap_or(0)
}

impl Endpoint {
    /// Whether it is this pod's, and not one's that had the same name before or has it since.
    pub fn is_of(&self, pod: &policy::ClusterPod) -> bool {
        is_same_pod(uid(&self.pod_uid), pod.uid)
    }

    /// The endpoint's key.
    pub fn id(&self) -> EndpointId {
        EndpointId { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}

/// How an endpoint was attached: what a CNI result reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Name of the veth's end on the host.
    pub host_link: String,
    /// Its hardware address.
    pub host_mac: [u8; 6],
    /// Hardware address of the interface inside the pod.
    pub pod_mac: [u8; 6],
    /// The default gateways inside the pod, one per family of the endpoint.
    pub gateways: Vec<IpAddr>,
    /// Largest packet of the interface inside the pod.
    pub mtu: u32,
}

/// Where the kernel is with one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointState {
    /// Not seen by the reconciler yet.
    Pending,
    /// In place; packets flow.
    Applied(Attachment),
    /// The last attempt failed; it is retried.
    Failed(Arc<str>),
}

/// Why waiting for an endpoint ended without it.
#[derive(Debug, Error)]
pub enum NotApplied {
    /// The row was removed while somebody waited for it.
    #[error("endpoint {0:?} was removed before it was attached")]
    Removed(EndpointId),
    /// The time was up; carries the last failure.
    #[error("endpoint {id:?} is not attached after {waited:?}: {reason}")]
    Timeout {
        /// The endpoint.
        id: EndpointId,
        /// How long was waited.
        waited: Duration,
        /// The last failure of the reconciler.
        reason: Arc<str>,
    },
}

/// What a Pod of this node says about its own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodOptions {
    /// Its sockets are left alone, every packet is translated.
    pub no_sockets: bool,
    /// How fast it may send and receive (`kubernetes.io/egress-bandwidth`, `kubernetes.io/ingress-bandwidth`).
    pub limits: Limits,
}

/// Bytes per second of all traffic of a Pod; nothing is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// What it sends.
    pub egress: Option<u64>,
    /// What comes to it.
    pub ingress: Option<u64>,
}

impl Tables {
    /// Adds or replaces an endpoint. The CNI journal restores all of them at start, then calls
    /// [`Tables::synced`] with [`Source::Endpoints`].
    pub fn put_endpoint(&self, endpoint: Endpoint) {
        let id = endpoint.id();
        self.states.send_modify(|states| {
            states.insert(id.clone(), EndpointState::Pending);
        });
        self.write(|rows| {
            rows.changes.node = true;
            rows.snapshot.endpoints.insert(id, endpoint);
        });
    }

    /// Removes an endpoint; the reconciler takes its link away.
    pub fn remove_endpoint(&self, id: &EndpointId) -> Option<Endpoint> {
        self.states.send_modify(|states| {
            states.remove(id);
        });
        self.write(|rows| {
            rows.changes.node = true;
            rows.snapshot.endpoints.remove(id)
        })
    }

    /// Waits until the endpoint is in the kernel: packets flow when this returns.
    pub async fn attached(&self, id: &EndpointId, patience: Duration) -> Result<Attachment, NotApplied> {
        let mut states = self.states.subscribe();
        let found = tokio::time::timeout(
            patience,
            states.wait_for(|states| {
                !matches!(states.get(id), Some(EndpointState::Pending | EndpointState::Failed(_)))
            }),
        )
        .await;
        if let Ok(Ok(states)) = found {
            return match states.get(id) {
                Some(EndpointState::Applied(attachment)) => Ok(attachment.clone()),
                _ => Err(NotApplied::Removed(id.clone())),
            };
        }
        let reason = match self.states.borrow().get(id) {
            Some(EndpointState::Failed(reason)) => Arc::clone(reason),
            _ => Arc::from("the reconciler has not reached it"),
        };
        Err(NotApplied::Timeout { id: id.clone(), waited: patience, reason })
    }

    /// The state of one endpoint; `None` when no such row exists.
    pub fn endpoint_state(&self, id: &EndpointId) -> Option<EndpointState> {
        self.states.borrow().get(id).cloned()
    }

    /// Reported by the reconciler alone.
    pub fn report_endpoint(&self, id: &EndpointId, state: EndpointState) {
        self.states.send_if_modified(|states| match states.get_mut(id) {
            Some(known) if *known != state => {
                *known = state;
                true
            }
            _ => false,
        });
    }
}
