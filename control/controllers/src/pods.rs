//! What controllers ask about a pod.

use std::time::Duration;

use jiff::Timestamp;

use crate::objects::{Pod, deleting};

/// Ended for good, by itself.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out: counts as a replica.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && deleting(&pod.metadata).is_none()
}

/// Since when the pod has been ready without a break; `None` when it is not ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pod
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
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
