//! ClusterNetworkPolicies, a kind that an API server may not have, may have in several versions, or may not let us read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::objects::PolicyVersion;
use super::{Row, follow_while};
use crate::tables::policy::ClusterPolicy;
use crate::tables::{Complaint, ObjectName, Tables};

/// How often it is asked whether there is by now what was not there, or not allowed.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

/// The kind, as it is named where it cannot be read.
pub(super) const KIND: &str = "ClusterNetworkPolicy";

/// Why a kind cannot be read.
#[derive(Debug, Clone, PartialEq)]
enum Refusal {
    /// The API server does not have it.
    Absent,
    /// The agent may not; as the API server says it.
    Forbidden(String),
}

/// Follows ClusterNetworkPolicies until `stop`, in the first version that is served. Where the API server has none of them,
/// there are no such policies. Where it does not let us read them, what was read before holds, and the node's events say so.
pub(super) async fn follow(client: Client, tables: Arc<Tables>, node: &str, stop: &CancellationToken) {
    loop {
        let refusal = tokio::select! {
            refusal = follow_first(&client, &tables) => refusal,
            () = stop.cancelled() => return,
        };
        match refusal {
            Some(Refusal::Absent) => ClusterPolicy::replace(&tables, BTreeMap::new()),
            Some(Refusal::Forbidden(why)) => tell(&tables, node, &why),
            None => return,
        }
        tables.synced(ClusterPolicy::SOURCE);
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn follow_first(client: &Client, tables: &Tables) -> Option<Refusal> {
    for version in [PolicyVersion::Alpha2, PolicyVersion::Beta1] {
        let api = Api::all_with(client.clone(), &version);
        let refusal =
            follow_while::<ClusterPolicy, _>(api, watcher::Config::default(), tables, refusal).await;
        if refusal != Some(Refusal::Absent) {
            return refusal;
        }
        tracing::debug!(version = version.name(), "the API server does not have ClusterNetworkPolicies");
    }
    Some(Refusal::Absent)
}

/// What an error of a watch says about the kind, if it is about that.
fn refusal(error: &watcher::Error) -> Option<Refusal> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    match status.code {
        403 => Some(Refusal::Forbidden(status.message.clone())),
        404 => Some(Refusal::Absent),
        _ => None,
    }
}

/// Tells the owner of the node, once.
fn tell(tables: &Tables, node: &str, why: &str) {
    let is_empty = tables.look(|rows| rows.policy.cluster.is_empty());
    let effect = if is_empty { "none is enforced" } else { "those that were read before hold on" };
    let message = format!(
        "ClusterNetworkPolicies are not read, because the API server does not allow it; {effect}, NetworkPolicies are \
         not affected: {why}"
    );
    if tables.set_unread(KIND, Some(message.clone())) {
        let object = ObjectName { namespace: String::new(), name: node.to_owned() };
        tables.complain(Complaint { kind: "Node", object, uid: 0, reason: "PoliciesNotRead", message });
    }
}

#[cfg(test)]
mod tests;
