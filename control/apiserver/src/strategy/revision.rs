//! ControllerRevisions.

use super::Change;
use crate::tree::{at, int};
use crate::validate::Errors;

/// What a revision holds never changes; which one it is may.
pub fn validate_revision(change: &Change<'_>, errors: &mut Errors) {
    let data = at(change.new, &["data"]);
    if data.is_null() {
        errors.required("data", "data is mandatory");
    }
    errors.not_negative("revision", int(change.new, &["revision"]));
    if let Some(old) = change.old {
        errors.immutable("data", at(old, &["data"]), data);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_revision_keeps_its_data() {
        let check = |old: Option<&Value>, mut new: Value| {
            let mut errors = Errors::default();
            validate_revision(&Change { old, new: &mut new }, &mut errors);
            errors
                .into_causes()
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect::<Vec<_>>()
        };
        let old = json!({ "data": { "a": 1 }, "revision": 1 });
        assert_eq!(check(None, old.clone()), [""; 0]);
        assert_eq!(check(Some(&old), json!({ "data": { "a": 1 }, "revision": 2 })), [""; 0]);
        assert_eq!(check(None, json!({})), ["data: Required value: data is mandatory"]);
        let want = [
            "revision: Invalid value: -1: must be greater than or equal to 0",
            "data: Invalid value: {\"a\":2}: field is immutable",
        ];
        assert_eq!(check(Some(&old), json!({ "data": { "a": 2 }, "revision": -1 })), want);
    }
}
