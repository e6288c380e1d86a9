//! Policies that somebody asks about: read as their watches would read them.

use std::fmt;

use kube::ResourceExt;
use serde_json::Value;
use thiserror::Error;

use super::decode::{Context, object_name};
use super::{cluster_policy, objects, policy};
use crate::tables::policy::{ClusterPolicy, Policy};
use crate::tables::{Complaint, ObjectName};

/// A policy.
#[derive(Debug)]
pub enum Read {
    /// A NetworkPolicy.
    Namespaced(ObjectName, Policy),
    /// A ClusterNetworkPolicy.
    Cluster(String, ClusterPolicy),
}

/// Why something is no policy.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// It is something else.
    #[error("a document is a {0}, not a NetworkPolicy or a ClusterNetworkPolicy")]
    Kind(String),
    /// It has fields of other types.
    #[error("a policy cannot be read")]
    Fields(#[from] serde_json::Error),
}

/// One policy, and what would be said about it. What does not say its kind is a NetworkPolicy.
pub fn read_policy(object: Value) -> Result<(Read, Vec<Complaint>), Unreadable> {
    let mut context = Context::default();
    let read = match object["kind"].as_str() {
        None | Some("NetworkPolicy") => {
            let object: objects::NetworkPolicy = serde_json::from_value(object)?;
            let mut name = object_name(&object);
            if name.namespace.is_empty() {
                "default".clone_into(&mut name.namespace);
            }
            Read::Namespaced(name, policy::policy(object, &mut context))
        }
        Some("ClusterNetworkPolicy") => {
            let object: objects::ClusterNetworkPolicy = serde_json::from_value(object)?;
            Read::Cluster(object.name_any(), cluster_policy::cluster_policy(object, &mut context))
        }
        Some(other) => return Err(Unreadable::Kind(other.to_owned())),
    };
    Ok((read, context.complaints))
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(ObjectName { namespace, name }, _) => write!(f, "{namespace}/{name}"),
            Self::Cluster(name, _) => write!(f, "{name}"),
        }
    }
}
