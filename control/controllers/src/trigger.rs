//! When the change began that Endpoints or slices carry: for those who measure how long it takes to arrive.
//!
//! The rule is that of upstream's `TriggerTimeTracker`: a new Service's own beginning; later the first of the times at which
//! pods became what they were not when the objects were written last, or nothing if no pod did. What the pods were is read
//! from the objects, so that nothing has to be remembered.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::objects::{Pod, Service};
use crate::pods::ready_condition;

/// The annotation that says it.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Whether those who are listed are ready, by the uid of the pod.
pub(crate) type Listed<'a> = BTreeMap<&'a str, bool>;

/// When the change from what was `noted`, if anything was, to what is to be `listed` began.
pub(crate) fn trigger<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
    listed: &Listed<'_>,
    noted: Option<&Listed<'_>>,
) -> Option<Timestamp> {
    let Some(noted) = noted else { return service.metadata.creation_timestamp.as_ref().map(|time| time.0) };
    let began = |pod: &Pod| {
        let (ready, since) = ready_condition(pod)?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let changed = match (listed.get(uid), noted.get(uid)) {
            (Some(now), before) => before != Some(now),
            (None, Some(before)) => *before != ready,
            (None, None) => false,
        };
        since.filter(|_| changed)
    };
    pods.filter_map(began).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_begins_when_the_first_pod_changed_and_a_service_with_itself() {
        let at = |second: u8| -> Timestamp { format!("2026-01-01T00:00:{second:02}Z").parse().unwrap() };
        let service: Service =
            serde_json::from_value(json!({ "metadata": { "creationTimestamp": at(1).to_string() } }))
                .unwrap();
        let pod = |uid: &str, ready: bool, second: u8| -> Pod {
            let status = if ready { "True" } else { "False" };
            let ready =
                json!({ "type": "Ready", "status": status, "lastTransitionTime": at(second).to_string() });
            let other =
                json!({ "type": "Initialized", "status": "True", "lastTransitionTime": at(0).to_string() });
            let object = json!({ "metadata": { "uid": uid }, "status": { "conditions": [other, ready] } });
            serde_json::from_value(object).unwrap()
        };
        let pods = [pod("a", true, 10), pod("b", false, 20), pod("c", true, 30)];
        let (yes, no) = (true, false);
        for (listed, noted, want) in [
            (vec![("a", yes)], None, Some(1)),
            (vec![("a", yes), ("b", no), ("c", yes)], Some(vec![("a", yes), ("b", no), ("c", yes)]), None),
            (vec![("a", yes), ("b", no), ("c", yes)], Some(vec![("a", yes), ("b", no)]), Some(30)),
            (vec![("a", yes), ("b", no)], Some(vec![("b", yes)]), Some(10)),
            (vec![("a", yes), ("b", no)], Some(vec![("a", yes), ("b", yes)]), Some(20)),
            // Somebody who is deleted does not change before; who ended is not ready any more.
            (vec![("a", yes)], Some(vec![("a", yes), ("c", yes)]), None),
            (vec![("a", yes)], Some(vec![("a", yes), ("b", yes)]), Some(20)),
            (vec![("a", yes)], Some(vec![("a", yes), ("gone", yes)]), None),
        ] {
            let noted: Option<Listed<'_>> = noted.map(|all| all.into_iter().collect());
            let listed = listed.into_iter().collect();
            let found = trigger(&service, pods.iter(), &listed, noted.as_ref());
            assert_eq!(found, want.map(at), "{listed:?} after {noted:?}");
        }
    }
}
