//! Events of events.k8s.io/v1, which are stored as those of the core group: some fields have other names there.

use serde_json::Value;

use super::Conversion;
use crate::tree::{remove, text};

/// Names here and in storage.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub static V1: Conversion = Conversion {
    store: |event| NAMES.iter().for_each(|(here, there)| rename(event, here, there)),
    show: |event| {
        NAMES.iter().for_each(|(here, there)| rename(event, there, here));
        REPORTERS.iter().for_each(|field| remove_empty(event, field));
    },
};

/// What the core group writes also when it is empty.
const REPORTERS: &[&str] = &["reportingController", "reportingInstance"];

fn remove_empty(event: &mut Value, field: &str) {
    if text(event, &[field]).is_empty() {
        remove(event, &[field]);
    }
}

fn rename(event: &mut Value, from: &str, to: &str) {
    let Some(fields) = event.as_object_mut() else { return };
    if let Some(value) = fields.shift_remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_in_both_groups() {
        let table = crate::resources::builtin();
        let row = table.find("events.k8s.io", "v1", "events").unwrap();
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "p"}, "note": "n"});
        let mut stored = event.clone();
        row.store(&mut stored);
        let want =
            json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"}, "message": "n"});
        assert_eq!(stored, want);
        assert_eq!(*row.shown(&stored), event);
        stored["reportingComponent"] = json!("");
        stored["reportingInstance"] = json!("");
        assert_eq!(*row.shown(&stored), event);
    }
}
