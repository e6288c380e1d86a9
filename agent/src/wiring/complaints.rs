//! Complaints about objects become events, so that their owners see them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio_util::sync::CancellationToken;

use crate::pods::events::Recorder;
use crate::tables::{Complaint, Tables};

/// Writes complaints until `stop`.
pub(super) async fn run(tables: Arc<Tables>, recorder: Recorder, stop: CancellationToken) {
    let Some(mut complaints) = tables.complaints() else { return };
    loop {
        let complaint = tokio::select! {
            complaint = complaints.recv() => complaint,
            () = stop.cancelled() => return,
        };
        let Some(complaint) = complaint else { return };
        recorder.object(reference(&tables, &complaint), complaint.reason, complaint.message);
    }
}

/// `kubectl describe` shows events of an object by its unique number.
fn reference(tables: &Tables, complaint: &Complaint) -> ObjectReference {
    let object = &complaint.object;
    let is_service = complaint.kind == "Service";
    let known = tables.look(|rows| rows.services.get(object).filter(|_| is_service).map(|row| row.uid));
    let uid = if complaint.uid == 0 { known.unwrap_or(0) } else { complaint.uid };
    ObjectReference {
        api_version: Some(api_version(complaint.kind).to_owned()),
        kind: Some(complaint.kind.to_owned()),
        namespace: Some(object.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(object.name.clone()),
        uid: unique(complaint, uid),
        ..ObjectReference::default()
    }
}

/// `kubectl describe node` looks for events by the node's name, as kubelets write them.
fn unique(complaint: &Complaint, uid: u128) -> Option<String> {
    if complaint.kind == "Node" {
        return Some(complaint.object.name.clone());
    }
    (uid != 0).then(|| hyphenated(uid))
}

fn api_version(kind: &str) -> &'static str {
    match kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "v1",
    }
}

fn hyphenated(uid: u128) -> String {
    let digits = format!("{uid:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::ObjectName;

    #[test]
    fn events_of_a_node_are_found_by_its_name() {
        let object = ObjectName { namespace: String::new(), name: "n1".into() };
        let complaint =
            Complaint { kind: "Node", object, uid: 0, reason: "NoPodNetworks", message: String::new() };
        let about = reference(&Tables::default(), &complaint);
        assert_eq!((about.uid.as_deref(), about.name.as_deref()), (Some("n1"), Some("n1")));
        assert_eq!((about.namespace, about.api_version.as_deref()), (None, Some("v1")));
    }

    #[test]
    fn a_unique_number_is_written_as_it_was_read() {
        let uid = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        assert_eq!(hyphenated(uid), "01234567-89ab-cdef-0123-456789abcdef");
    }
}
