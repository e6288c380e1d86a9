//! Conditions of the form that many kinds share (`metav1.Condition`).

use std::collections::HashSet;

use serde_json::Value;

use crate::tree::{at, int, text};
use crate::validate::{self, Errors};

const LONGEST_REASON: usize = 1 << 10;
const LONGEST_MESSAGE: usize = 32 << 10;

pub fn validate_conditions(conditions: &[Value], here: &str, errors: &mut Errors) {
    let mut types = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let here = format!("{here}[{index}]");
        if !types.insert(text(condition, &["type"])) {
            errors.duplicate(format!("{here}.type"), at(condition, &["type"]));
        }
        validate_condition(condition, &here, errors);
    }
}

fn validate_condition(condition: &Value, here: &str, errors: &mut Errors) {
    errors.check(format!("{here}.type"), text(condition, &["type"]), validate::label_key);
    errors.must_be(format!("{here}.status"), text(condition, &["status"]), &["False", "True", "Unknown"]);
    if let Some(generation) = int(condition, &["observedGeneration"]).filter(|generation| *generation < 0) {
        let place = format!("{here}.observedGeneration");
        errors.invalid(place, &Value::from(generation), "must be greater than or equal to zero");
    }
    if text(condition, &["lastTransitionTime"]).is_empty() {
        errors.required(format!("{here}.lastTransitionTime"), "must be set");
    }
    match text(condition, &["reason"]) {
        "" => errors.required(format!("{here}.reason"), "must be set"),
        why => {
            errors.check(format!("{here}.reason"), why, reason);
            too_long(why, LONGEST_REASON, format!("{here}.reason"), errors);
        }
    }
    too_long(text(condition, &["message"]), LONGEST_MESSAGE, format!("{here}.message"), errors);
}

fn too_long(text: &str, limit: usize, place: String, errors: &mut Errors) {
    if text.len() > limit {
        errors.too_long(place, limit);
    }
}

fn reason(text: &str) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(word)
        && text.chars().all(|c| word(c) || matches!(c, ',' | ':'));
    if fits {
        return Ok(());
    }
    Err("a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
         'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
         '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_says_what_since_when_and_why() {
        let whole =
            || json!({ "type": "x.io/A", "status": "True", "reason": "A_1:b", "lastTransitionTime": "t" });
        let check = |more: Value| {
            let mut condition = whole();
            json_patch::merge(&mut condition, &more);
            let mut errors = Errors::default();
            validate_conditions(&[condition], "c", &mut errors);
            errors
                .into_causes()
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect::<Vec<_>>()
        };
        assert_eq!(check(json!({})), [""; 0]);
        for (more, want) in [
            (json!({ "type": "" }), "c[0].type: Invalid value: \"\": name part must be non-empty"),
            (
                json!({ "status": "" }),
                "c[0].status: Unsupported value: \"\": supported values: \"False\", \"True\", \"Unknown\"",
            ),
            (
                json!({ "observedGeneration": -1 }),
                "c[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            ),
            (json!({ "lastTransitionTime": null }), "c[0].lastTransitionTime: Required value: must be set"),
            (json!({ "reason": "" }), "c[0].reason: Required value: must be set"),
            (
                json!({ "reason": "1a" }),
                "c[0].reason: Invalid value: \"1a\": a condition reason must start with",
            ),
            (
                json!({ "reason": "a:" }),
                "c[0].reason: Invalid value: \"a:\": a condition reason must start with",
            ),
            (json!({ "reason": "a".repeat(1025) }), "c[0].reason: Too long: may not be more than 1024 bytes"),
            (
                json!({ "message": "a".repeat(32_769) }),
                "c[0].message: Too long: may not be more than 32768 bytes",
            ),
        ] {
            let found = check(more);
            assert!(found.len() == 1 && found[0].starts_with(want), "{found:?}, not {want}");
        }
        let mut errors = Errors::default();
        validate_conditions(&[whole(), whole()], "c", &mut errors);
        assert_eq!(errors.into_causes()[0].message, "Duplicate value: \"x.io/A\"");
    }
}
