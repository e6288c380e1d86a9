//! Events: what completes them, and what those of every version are held to.

use serde_json::Value;

use super::Change;
use crate::tree::{set_default, text};
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
}
