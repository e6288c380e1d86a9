//! Markers that do not agree with the Services are put right: a server may have been killed between two writes of another
//! version, and people delete what they should not.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use store::{Compare, RangeError, Txn};

use super::{Allocator, address_key, held};
use crate::object::{self, Objects, ROOT, encode};
use crate::resources::known;
use crate::tree::text;

impl Allocator {
    /// Makes the markers agree with the Services: adds missing ones, removes those of Services that are gone.
    pub async fn repair(
        &self,
        objects: &Objects,
    ) -> std::result::Result<(), store::TxnError<object::Header>> {
        let disagreements = loop {
            // The log no longer reaches back to the moment before: a newer one is looked at.
            if let Ok(found) = disagreements(objects) {
                break found;
            }
        };
        for txn in Txn::grouped(disagreements) {
            objects.txn(txn).await?;
        }
        Ok(())
    }
}

/// What to write so that markers and Services agree, as they are at one revision.
fn disagreements(objects: &Objects) -> std::result::Result<Vec<Txn>, RangeError> {
    let revision = objects.revision();
    let all = |prefix: &str| objects.range(prefix, None, 0, Some(revision)).map(|page| page.entries);
    let mut wanted = std::collections::BTreeMap::new();
    for entry in all(&object::prefix(known("", "services"), ""))? {
        let service = object::decode(&entry);
        for key in held(&service) {
            wanted.insert(key, (Arc::clone(&entry), service.clone()));
        }
    }
    let mut writes = Vec::new();
    let addresses = object::prefix(known("networking.k8s.io", "ipaddresses"), "");
    for prefix in [addresses, format!("{ROOT}ranges/servicenodeports/")] {
        for entry in all(&prefix)? {
            if wanted.remove(&*entry.key).is_none() && managed_here(&entry) {
                tracing::debug!(key = %entry.key, "gives back what no Service holds");
                writes.push(Txn::delete(&*entry.key, entry.mod_revision));
            }
        }
    }
    for (key, (service, tree)) in wanted {
        tracing::debug!(%key, "takes again what a Service holds");
        let value = marker(&key, &tree);
        let mut txn = Txn::create(key, value);
        txn.compares.push(Compare { key: service.key.to_string(), mod_revision: service.mod_revision });
        writes.push(txn);
    }
    Ok(writes)
}

/// Whether an IPAddress or port marker was made by this allocator.
fn managed_here(entry: &object::Stored) -> bool {
    let label = "ipaddress.kubernetes.io/managed-by";
    let labels = &entry.header.labels;
    labels.is_empty() || labels.iter().any(|(key, value)| **key == *label && &**value == MANAGER)
}

const MANAGER: &str = "ipallocator.k8s.io";

/// The value stored under a key that a Service holds.
pub(super) fn marker(key: &str, service: &Value) -> Bytes {
    let meta = |field: &str| text(service, &["metadata", field]).to_owned();
    let name = key.rsplit('/').next().unwrap_or_default();
    if !key.starts_with(&address_key("")) {
        return encode(&json!({ "service": format!("{}/{}", meta("namespace"), meta("name")) }));
    }
    let family = if name.contains(':') { "IPv6" } else { "IPv4" };
    encode(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": name, "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": crate::verbs::write::timestamp(jiff::Timestamp::now()),
            "labels": { "ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": MANAGER },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": meta("namespace"), "name": meta("name") } },
    }))
}
