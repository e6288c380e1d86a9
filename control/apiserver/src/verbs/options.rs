//! Options of requests, as the query has them: CreateOptions, UpdateOptions, PatchOptions, DeleteOptions and ListOptions
//! of `meta.k8s.io`.

use crate::api::Call;
use crate::negotiate::{APPLY, content_type};
use crate::query::Query;
use crate::resources::Sub;
use crate::status::{Cause, Refusal, Result};

/// Names of managers are at most this long, in bytes.
const MAX_MANAGER: usize = 128;

/// Refuses options that no request of the call's verb can have.
///
/// # Errors
/// 422 with one cause per option.
pub fn check(call: &Call) -> Result<()> {
    let kind = match call.target.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        "list" | "watch" => "ListOptions",
        _ => return Ok(()),
    };
    let causes = match call.target.verb {
        "list" => wrong_for_list(&call.query),
        "watch" => wrong_for_watch(&call.query),
        _ => wrong(&call.query, kind, content_type(&call.headers) == APPLY),
    };
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid_kind("meta.k8s.io", kind, "", causes)) }
}

/// Whether options mean what they say here: what is connected to, and read, has options of its own.
pub fn has_options(sub: Sub) -> bool {
    !matches!(sub, Sub::Log | Sub::Exec | Sub::Attach | Sub::PortForward | Sub::Proxy)
}

fn forbidden(field: &str, why: &str) -> Cause {
    let message = format!("Forbidden: {why}");
    Cause { reason: "FieldValueForbidden", message, field: field.to_owned() }
}

fn unsupported(field: &str, value: &str, supported: &str) -> Cause {
    let message = format!("Unsupported value: {value:?}: supported values: {supported}");
    Cause { reason: "FieldValueNotSupported", message, field: field.to_owned() }
}

fn of_manager(reason: &'static str, message: String) -> Cause {
    Cause { reason, message, field: "fieldManager".to_owned() }
}

/// What is wrong with a list of stages of dry runs that names another than `All`.
pub fn dry_run(given: &serde_json::Value) -> Cause {
    let message = format!("Unsupported value: {given}: supported values: \"All\"");
    Cause { reason: "FieldValueNotSupported", message, field: "dryRun".to_owned() }
}

/// What is wrong with a policy that nobody knows.
pub fn propagation_policy(given: &str) -> Cause {
    unsupported("propagationPolicy", given, r#""Foreground", "Background", "Orphan", "nil""#)
}

const MATCH: &str = "resourceVersionMatch";
const MATCH_AND_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

fn wrong_for_list(query: &Query) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(matching) = query.given(MATCH) {
        let revision = query.given("resourceVersion");
        if revision.is_none() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if query.given("continue").is_some() {
            causes.push(forbidden(MATCH, MATCH_AND_CONTINUE));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            causes.push(unsupported(MATCH, matching, r#""Exact", "NotOlderThan", """#));
        }
        if matching == "Exact" && revision == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(forbidden(MATCH, why));
        }
    }
    if query.given("sendInitialEvents").is_some() {
        causes.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    causes
}

fn wrong_for_watch(query: &Query) -> Vec<Cause> {
    let mut causes = Vec::new();
    let matching = query.given(MATCH);
    match (query.given("sendInitialEvents"), matching) {
        (None, Some(_)) => {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            causes.push(forbidden(MATCH, why));
        }
        (Some(_), matching) if matching != Some("NotOlderThan") => {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(forbidden(MATCH, why));
        }
        _ => {}
    }
    if let Some(other) = matching.filter(|matching| *matching != "NotOlderThan") {
        causes.push(unsupported(MATCH, other, "\"NotOlderThan\""));
    }
    if query.given("continue").is_some() {
        causes.push(forbidden(MATCH, MATCH_AND_CONTINUE));
    }
    causes
}

fn wrong(query: &Query, kind: &str, is_apply: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let manager = query.first("fieldManager").unwrap_or_default();
    if kind == "PatchOptions" {
        if is_apply && manager.is_empty() {
            let why = "Required value: is required for apply patch".to_owned();
            causes.push(of_manager("FieldValueRequired", why));
        }
        if !is_apply && query.first("force").is_some() {
            causes.push(forbidden("force", "may not be specified for non-apply patch"));
        }
    }
    if kind != "DeleteOptions" {
        if manager.len() > MAX_MANAGER {
            let why = format!("Too long: may not be more than {MAX_MANAGER} bytes");
            causes.push(of_manager("FieldValueTooLong", why));
        }
        if manager.chars().any(char::is_control) {
            let why = format!("Invalid value: {manager:?}: should only contain printable characters");
            causes.push(of_manager("FieldValueInvalid", why));
        }
    }
    let dry: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
    if dry.iter().any(|value| *value != "All") {
        causes.push(dry_run(&serde_json::json!(dry)));
    }
    let validation = query.first("fieldValidation").unwrap_or_default();
    if kind != "DeleteOptions" && !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        causes.push(unsupported("fieldValidation", validation, r#""", "Ignore", "Strict", "Warn""#));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(kind: &str, query: &str, is_apply: bool) -> Vec<String> {
        let query = Query::of(&format!("/x?{query}").parse().unwrap());
        wrong(&query, kind, is_apply).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn options_that_no_write_can_have_are_named() {
        let long = format!("fieldManager={}", "m".repeat(MAX_MANAGER + 1));
        for (kind, query, is_apply, want) in [
            ("CreateOptions", "dryRun=All&fieldManager=m&fieldValidation=Strict", false, &[][..]),
            ("CreateOptions", "dryRun=Some", false, &["dryRun"]),
            ("CreateOptions", "fieldValidation=Perhaps&dryRun=", false, &["fieldValidation"]),
            ("UpdateOptions", &long, false, &["fieldManager"]),
            ("UpdateOptions", "fieldManager=a%0Ab", false, &["fieldManager"]),
            ("PatchOptions", "fieldManager=m&force=true", true, &[]),
            ("PatchOptions", "force=true", true, &["fieldManager"]),
            ("PatchOptions", "fieldManager=m&force=false", false, &["force"]),
            ("DeleteOptions", "fieldValidation=Perhaps&dryRun=All&dryRun=None", false, &["dryRun"]),
        ] {
            assert_eq!(fields(kind, query, is_apply), want, "{kind} {query}");
        }
    }

    #[test]
    fn options_of_lists_and_watches_exclude_each_other() {
        for (query, list, watch) in [
            ("resourceVersion=1&resourceVersionMatch=Exact", 0, 2),
            ("resourceVersionMatch=Exact", 1, 2),
            ("resourceVersion=0&resourceVersionMatch=Exact", 1, 2),
            ("resourceVersion=1&resourceVersionMatch=Sometimes", 1, 2),
            ("resourceVersion=1&resourceVersionMatch=NotOlderThan&continue=x", 1, 2),
            ("resourceVersion=1&resourceVersionMatch=NotOlderThan", 0, 1),
            ("sendInitialEvents=true", 1, 1),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", 2, 0),
            ("continue=x", 0, 1),
            ("limit=5&resourceVersion=7", 0, 0),
        ] {
            let read = Query::of(&format!("/x?{query}").parse().unwrap());
            assert_eq!(wrong_for_list(&read).len(), list, "list {query}");
            assert_eq!(wrong_for_watch(&read).len(), watch, "watch {query}");
        }
    }
}
