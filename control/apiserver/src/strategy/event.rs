//! Events: what completes them, and what those of every version are held to.

use serde_json::Value;

use super::Change;
use crate::tree::{at, int, set_default, text};
use crate::validate::{self, Errors};

const LONGEST_WORD: usize = 128;
const LONGEST_MESSAGE: usize = 1024;

/// Who reports is always written, if only as nobody.
pub fn default_event(event: &mut Value) {
    for field in ["reportingComponent", "reportingInstance"] {
        set_default(event, &[field], "");
    }
}

/// An event lies where what it is about lies. One that says when it was seen says more about who saw it.
pub fn validate_event(change: &Change<'_>, errors: &mut Errors) {
    let event = &*change.new;
    let (here, about) =
        (text(event, &["metadata", "namespace"]), text(event, &["involvedObject", "namespace"]));
    let is_new = !text(event, &["eventTime"]).is_empty();
    let fits = match about {
        "" => here == "default" || (is_new && here == "kube-system"),
        about => is_new || here == about,
    };
    if !fits {
        let place = "involvedObject.namespace";
        errors.invalid(place, &Value::from(about), "does not match event.namespace");
    }
    if is_new {
        validate_report(event, errors);
    }
}

fn validate_report(event: &Value, errors: &mut Errors) {
    let controller = text(event, &["reportingComponent"]);
    if controller.is_empty() {
        errors.required("reportingController", "");
    }
    errors.check("reportingController", controller, validate::label_key);
    for (field, needed, most) in [
        ("reportingInstance", true, LONGEST_WORD),
        ("action", true, LONGEST_WORD),
        ("reason", true, LONGEST_WORD),
        ("message", false, LONGEST_MESSAGE),
    ] {
        let given = text(event, &[field]);
        if needed && given.is_empty() {
            errors.required(field, "");
        }
        if given.len() > most {
            errors.invalid(field, &Value::from(""), &format!("can have at most {most} characters"));
        }
    }
}

/// What only the old generation has.
const OLD_FIELDS: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];
/// What an event of the new generation says once: all but how often it happened again.
const FIXED_FIELDS: [(&str, &str); 10] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingComponent"),
    ("reportingInstance", "reportingInstance"),
];

/// An event that is written as one of `events.k8s.io/v1`.
pub fn validate_new_event(change: &Change<'_>, errors: &mut Errors) {
    let event = &*change.new;
    let before = change.old.and_then(|old| old.get("series"));
    if let Some(series) = event.get("series").filter(|series| before != Some(*series)) {
        if int(series, &["count"]).unwrap_or_default() < 2 {
            errors.invalid("series.count", &Value::from(""), "should be at least 2");
        }
        if text(series, &["lastObservedTime"]).is_empty() {
            errors.required("series.lastObservedTime", "");
        }
    }
    if let Some(old) = change.old {
        for field in ["firstTimestamp", "lastTimestamp", "count"] {
            errors.immutable(field, at(old, &[field]), at(event, &[field]));
        }
        for (field, stored) in FIXED_FIELDS {
            errors.immutable(field, at(old, &[stored]), at(event, &[stored]));
        }
        return;
    }
    if text(event, &["eventTime"]).is_empty() {
        errors.required("eventTime", "");
    }
    let kind = text(event, &["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid("type", &Value::from(""), &format!("has invalid value: {kind}"));
    }
    for field in OLD_FIELDS {
        if event.get(field).is_some_and(|given| *given != 0 && !is_empty(given)) {
            errors.invalid(field, &Value::from(""), "needs to be unset");
        }
    }
}

fn is_empty(given: &Value) -> bool {
    match given {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(|one| one == "" || one.is_null()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(here: &str, about: &str, more: &Value) -> Vec<String> {
        let mut event =
            json!({ "metadata": { "namespace": here }, "involvedObject": { "namespace": about } });
        json_patch::merge(&mut event, more);
        default_event(&mut event);
        let mut errors = Errors::default();
        validate_event(&Change { old: None, new: &mut event }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn seen() -> Value {
        json!({ "eventTime": "t", "reportingComponent": "x.io/c", "reportingInstance": "i", "action": "a", "reason": "r" })
    }

    #[test]
    fn an_event_lies_where_what_it_is_about_lies() {
        let old = json!({});
        for (here, about, event, fits) in [
            ("a", "a", &old, true),
            ("default", "", &old, true),
            ("a", "b", &old, false),
            ("a", "", &old, false),
            ("kube-system", "", &old, false),
            ("kube-system", "", &seen(), true),
            ("default", "", &seen(), true),
            ("a", "", &seen(), false),
        ] {
            let want =
                format!("involvedObject.namespace: Invalid value: {about:?}: does not match event.namespace");
            let want = if fits { vec![] } else { vec![want] };
            assert_eq!(refused(here, about, event), want, "{here} {about}");
        }
    }

    #[test]
    fn one_that_was_seen_at_a_time_says_by_whom() {
        assert_eq!(refused("a", "a", &seen()), [""; 0]);
        let with = |more: Value| {
            let mut event = seen();
            json_patch::merge(&mut event, &more);
            refused("a", "a", &event)
        };
        for (more, want) in [
            (json!({ "action": null }), "action: Required value"),
            (json!({ "reason": "" }), "reason: Required value"),
            (json!({ "reportingInstance": null }), "reportingInstance: Required value"),
            (
                json!({ "action": "a".repeat(129) }),
                "action: Invalid value: \"\": can have at most 128 characters",
            ),
            (
                json!({ "message": "a".repeat(1025) }),
                "message: Invalid value: \"\": can have at most 1024 characters",
            ),
        ] {
            assert_eq!(with(more), [want]);
        }
        assert_eq!(with(json!({ "reportingComponent": null }))[0], "reportingController: Required value");
        assert_eq!(with(json!({ "reportingComponent": "a b" })).len(), 1);
    }

    fn told(old: Option<&Value>, mut event: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate_new_event(&Change { old, new: &mut event }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn the_new_generation_leaves_out_what_the_old_one_said() {
        let event = json!({ "eventTime": "t", "type": "Normal", "source": {} });
        assert_eq!(told(None, event.clone()), [""; 0]);
        for (more, want) in [
            (json!({ "eventTime": null }), "eventTime: Required value"),
            (json!({ "type": "Odd" }), "type: Invalid value: \"\": has invalid value: Odd"),
            (json!({ "type": null }), "type: Invalid value: \"\": has invalid value: "),
            (json!({ "count": 1 }), "count: Invalid value: \"\": needs to be unset"),
            (json!({ "source": { "host": "n" } }), "source: Invalid value: \"\": needs to be unset"),
            (json!({ "firstTimestamp": "t" }), "firstTimestamp: Invalid value: \"\": needs to be unset"),
            (
                json!({ "series": { "count": 1, "lastObservedTime": "t" } }),
                "series.count: Invalid value: \"\": should be at least 2",
            ),
            (json!({ "series": { "count": 2 } }), "series.lastObservedTime: Required value"),
        ] {
            let mut given = event.clone();
            json_patch::merge(&mut given, &more);
            assert_eq!(told(None, given), [want], "{more}");
        }
    }

    #[test]
    fn only_how_often_it_happened_changes() {
        let event = json!({ "eventTime": "t", "type": "Normal", "reason": "r", "count": 3 });
        let mut again = event.clone();
        again["series"] = json!({ "count": 2, "lastObservedTime": "t" });
        assert_eq!(told(Some(&event), again), [""; 0]);
        let mut once = event.clone();
        once["series"] = json!({ "count": 1 });
        assert_eq!(told(Some(&once), once.clone()), [""; 0], "it was so before");
        let mut other = event.clone();
        other["reason"] = json!("s");
        assert_eq!(told(Some(&event), other), ["reason: Invalid value: \"s\": field is immutable"]);
    }
}
