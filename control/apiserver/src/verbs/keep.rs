//! What a write leaves as it was: what only the server says, and the parts another path is for.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::Call;
use crate::resources::{Row, Sub};
use crate::status::{Refusal, Result};
use crate::strategy;
use crate::tree::{self, copy, remove, text, transfer};

/// Whether two objects differ in other fields than these.
pub fn differs_outside(old: &Value, new: &Value, ignored: &[&str]) -> bool {
    let part = |value| tree::fields(value, &[]).filter(|(name, _)| !ignored.contains(name));
    part(old).count() != part(new).count()
        || part(old).any(|(name, value)| new.get(name).is_none_or(|other| other != value))
}

/// What only the server writes stays as it is.
pub fn keep_system_metadata(call: &Call, old: &Value, new: &mut Value) -> Result<()> {
    let uid = text(new, &["metadata", "uid"]);
    if !uid.is_empty() && uid != text(old, &["metadata", "uid"]) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(old, &["metadata", "uid"])
        );
        return Err(Refusal::conflict(&call.row, &call.target.name, &why));
    }
    let name = text(new, &["metadata", "name"]);
    if !name.is_empty() && name != call.target.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.target.name
        )));
    }
    let namespace = text(new, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != text(old, &["metadata", "namespace"]) {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
    ] {
        copy(new, old, &["metadata", field]);
    }
    remove(new, &["metadata", "selfLink"]);
    Ok(())
}

/// What of the metadata is written with the status. Of most kinds that is all a client may write at all: upstream's strategies
/// put back the spec and no more. Those of its newer kinds, and the one of custom objects, put back both.
fn with_status(row: &Row) -> &'static [&'static str] {
    const WRITERS: &str = "managedFields";
    match row.own() {
        ""
        | "apiservices"
        | "flowschemas"
        | "prioritylevelconfigurations"
        | "resourceclaims"
        | "validatingadmissionpolicies"
        | "volumeattachments" => &[WRITERS],
        "deployments" => &["annotations", "finalizers", "ownerReferences", WRITERS],
        // Old kubelets damaged them.
        "pods" => &["annotations", "finalizers", "labels", WRITERS],
        _ => &["annotations", "finalizers", "labels", "ownerReferences", WRITERS],
    }
}

/// A write of the main resource leaves the status alone; one of a subresource leaves the rest alone.
pub fn isolate(row: &Row, sub: Option<Sub>, old: &Value, new: &mut Value) {
    match sub {
        None if row.has_status() => copy(new, old, &["status"]),
        None | Some(Sub::Scale) => {}
        Some(sub) if row.own() == "certificatesigningrequests" => {
            strategy::certificate::keep_rest(sub, old, new, Timestamp::now());
        }
        Some(Sub::Status) => {
            let mut kept = old.clone();
            transfer(&mut kept, new, &["status"]);
            for field in with_status(row) {
                transfer(&mut kept, new, &["metadata", field]);
            }
            // The two names of a pod's addresses always agree.
            if row.own() == "pods" {
                strategy::pod::agree_on_addresses(&mut kept);
                strategy::pod_status::keep_unsaid(old, &mut kept);
            }
            *new = kept;
        }
        Some(sub @ (Sub::EphemeralContainers | Sub::Resize)) => {
            strategy::pod_changes::keep_rest(sub, old, new);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::known;

    #[test]
    fn a_status_takes_what_upstreams_strategies_leave_of_the_metadata_along() {
        let object = |text: &str| {
            json!({ "metadata": { "labels": text, "annotations": text, "finalizers": text, "ownerReferences": text,
                                  "managedFields": text, "name": text }, "spec": text, "status": text })
        };
        for (group, plural, want) in [
            ("", "replicationcontrollers", "annotations finalizers labels managedFields ownerReferences"),
            ("", "pods", "annotations finalizers labels managedFields"),
            ("apps", "deployments", "annotations finalizers managedFields ownerReferences"),
            ("apps", "replicasets", "annotations finalizers labels managedFields ownerReferences"),
            ("apiregistration.k8s.io", "apiservices", "managedFields"),
            ("admissionregistration.k8s.io", "validatingadmissionpolicies", "managedFields"),
            ("storage.k8s.io", "volumeattachments", "managedFields"),
        ] {
            let (old, mut new) = (object("old"), object("new"));
            isolate(known(group, plural), Some(Sub::Status), &old, &mut new);
            assert_eq!((&new["spec"], &new["status"]), (&json!("old"), &json!("new")), "{plural}");
            let metadata = tree::fields(&new, &["metadata"]);
            let mut taken: Vec<&str> =
                metadata.filter(|(_, value)| *value == "new").map(|(name, _)| name).collect();
            taken.sort_unstable();
            assert_eq!(taken.join(" "), want, "{plural}");
        }
    }
}
