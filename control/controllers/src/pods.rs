//! What controllers ask about a pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::objects::{Pod, deleting};

/// Ended for good, by itself.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out: counts as a replica.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && deleting(&pod.metadata).is_none()
}

/// Whether the pod is ready, and since when it is that or not; `None` when nobody has said.
pub(crate) fn ready_condition(pod: &Pod) -> Option<(bool, Option<Timestamp>)> {
    let ready = pod.status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status == "True", ready.last_transition_time.as_ref().map(|time| time.0)))
}

/// Since when the pod has been ready without a break; `None` when it is not ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let (ready, since) = ready_condition(pod)?;
    ready.then(|| since.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// How others name the pod they stand for.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// How long the pod still has to stay ready to count as available: zero when it is, `None` when it is not ready.
pub(crate) fn until_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(min_ready.saturating_sub(ready_for))
}
