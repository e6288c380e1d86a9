//! Configurations of admission webhooks.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Change;
use super::admission_rules::{
    default_match, default_rules, validate_conditions, validate_failure_policy, validate_match, validate_rule,
};
use crate::tree::{at, int, list, list_mut, set_default, text};
use crate::validate::{self, Errors};

const REVIEWS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const REINVOCATIONS: &[&str] = &["IfNeeded", "Never"];
const SECONDS: std::ops::RangeInclusive<i64> = 1..=30;

pub fn default_validating(configuration: &mut Value) {
    for webhook in list_mut(configuration, &["webhooks"]) {
        default_webhook(webhook);
    }
}

pub fn default_mutating(configuration: &mut Value) {
    default_validating(configuration);
    for webhook in list_mut(configuration, &["webhooks"]) {
        set_default(webhook, &["reinvocationPolicy"], "Never");
    }
}

fn default_webhook(webhook: &mut Value) {
    set_default(webhook, &["failurePolicy"], "Fail");
    default_match(webhook);
    set_default(webhook, &["timeoutSeconds"], 10);
    default_rules(webhook, &["rules"]);
    if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|one| one.is_object()) {
        set_default(service, &["port"], 443);
    }
}

pub fn validate_webhooks(change: &Change<'_>, errors: &mut Errors) {
    // Who has lived with a version that nobody knows may go on.
    let recognized = |configuration: &Value| {
        let mut all = list(configuration, &["webhooks"]).iter();
        all.all(|webhook| list(webhook, &["admissionReviewVersions"]).iter().any(is_recognized))
    };
    let has_to_be_recognized = change.old.is_none_or(recognized);
    let mut names = HashSet::new();
    for (index, webhook) in list(change.new, &["webhooks"]).iter().enumerate() {
        let here = format!("webhooks[{index}]");
        validate_webhook(webhook, &here, errors);
        validate_reviews(webhook, &here, has_to_be_recognized, errors);
        let name = text(webhook, &["name"]);
        if !name.is_empty() && !names.insert(name) {
            errors.duplicate(format!("{here}.name"), at(webhook, &["name"]));
        }
    }
}

fn validate_webhook(webhook: &Value, here: &str, errors: &mut Errors) {
    match text(webhook, &["name"]) {
        "" => errors.required(format!("{here}.name"), ""),
        name => errors.check(format!("{here}.name"), name, fully_qualified),
    }
    for (index, rule) in list(webhook, &["rules"]).iter().enumerate() {
        validate_rule(rule, &format!("{here}.rules[{index}]"), errors);
    }
    validate_failure_policy(webhook, here, errors);
    match text(webhook, &["sideEffects"]) {
        "" => errors.required(format!("{here}.sideEffects"), "must specify one of None, NoneOnDryRun"),
        effects => errors.one_of(format!("{here}.sideEffects"), effects, SIDE_EFFECTS),
    }
    if let Some(seconds) = int(webhook, &["timeoutSeconds"]).filter(|seconds| !SECONDS.contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(format!("{here}.timeoutSeconds"), &json!(seconds), detail);
    }
    validate_match(webhook, here, errors);
    let reinvocation = text(webhook, &["reinvocationPolicy"]);
    errors.one_of(format!("{here}.reinvocationPolicy"), reinvocation, REINVOCATIONS);
    validate_client(at(webhook, &["clientConfig"]), &format!("{here}.clientConfig"), errors);
    validate_conditions(webhook, here, errors);
}

fn fully_qualified(name: &str) -> Result<(), String> {
    validate::subdomain(name)?;
    if name.split('.').count() < 3 {
        return Err("should be a domain with at least three segments separated by dots".to_owned());
    }
    Ok(())
}

fn is_recognized(version: &Value) -> bool {
    version.as_str().is_some_and(|version| REVIEWS.contains(&version))
}

fn validate_reviews(webhook: &Value, here: &str, has_to_be_recognized: bool, errors: &mut Errors) {
    let (versions, here) =
        (list(webhook, &["admissionReviewVersions"]), format!("{here}.admissionReviewVersions"));
    if versions.is_empty() {
        return errors.required(here, "must specify one of v1, v1beta1");
    }
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let place = format!("{here}[{index}]");
        if !seen.insert(version) {
            errors.invalid(place.clone(), version, "duplicate version");
        }
        errors.check(place, version.as_str().unwrap_or_default(), validate::dns1035_label);
    }
    if has_to_be_recognized && !versions.iter().any(is_recognized) {
        let given = at(webhook, &["admissionReviewVersions"]);
        errors.invalid(here, given, "must include at least one of v1, v1beta1");
    }
}

/// Checks where a webhook is reached: by one URL or one Service.
fn validate_client(client: &Value, here: &str, errors: &mut Errors) {
    let (url, service) = (at(client, &["url"]), at(client, &["service"]));
    if url.is_null() == service.is_null() {
        return errors.required(here, "exactly one of url or service is required");
    }
    if service.is_null() {
        return validate_url(url.as_str().unwrap_or_default(), &format!("{here}.url"), errors);
    }
    let here = format!("{here}.service");
    for field in ["name", "namespace"] {
        if text(service, &[field]).is_empty() {
            errors.required(format!("{here}.{field}"), &format!("service {field} is required"));
        }
    }
    if let Some(port) = int(service, &["port"]).filter(|port| !(1..=65535).contains(port)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(format!("{here}.port"), &json!(port), detail);
    }
    if let Some(path) = at(service, &["path"]).as_str() {
        errors.check(format!("{here}.path"), path, service_path);
    }
}

const FORM: &str = "; desired format: https://host[/path]";

fn validate_url(url: &str, here: &str, errors: &mut Errors) {
    let parsed = match url.parse::<http::Uri>() {
        Ok(parsed) => parsed,
        Err(error) => return errors.required(here, &format!("url must be a valid URL: {error}{FORM}")),
    };
    let scheme = parsed.scheme_str().unwrap_or_default();
    if scheme != "https" {
        errors.invalid(here, &json!(scheme), &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if parsed.host().unwrap_or_default().is_empty() {
        errors.invalid(here, &json!(""), &format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = parsed.authority().and_then(|authority| authority.as_str().rsplit_once('@')) {
        errors.invalid(here, &json!(user), "user information is not permitted in the URL");
    }
    // The parser leaves fragments out.
    if let Some((_, fragment)) = url.split_once('#') {
        errors.invalid(here, &json!(fragment), "fragments are not permitted in the URL");
    }
    if let Some(query) = parsed.query() {
        errors.invalid(here, &json!(query), "query parameters are not permitted in the URL");
    }
}

/// A path whose segments are names.
fn service_path(path: &str) -> Result<(), String> {
    let Some(rest) = path.strip_prefix('/') else { return Err("must start with a '/'".to_owned()) };
    if rest.is_empty() {
        return Ok(());
    }
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            return Err(format!("segment[{index}] may not be empty"));
        }
        validate::subdomain(segment).map_err(|why| format!("segment[{index}]: {why}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Value {
        json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "n", "name": "s", "path": "/validate/pods"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    }

    fn found(old: Option<&Value>, mut configuration: Value) -> Vec<String> {
        default_mutating(&mut configuration);
        let mut errors = Errors::default();
        validate_webhooks(&Change { old, new: &mut configuration }, &mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn what_is_not_said_is_completed() {
        let mut configuration = json!({ "webhooks": [webhook()] });
        default_mutating(&mut configuration);
        let webhook = &configuration["webhooks"][0];
        let said = |field: &str| webhook[field].clone();
        assert_eq!(said("failurePolicy"), "Fail");
        assert_eq!(said("matchPolicy"), "Equivalent");
        assert_eq!(said("timeoutSeconds"), 10);
        assert_eq!(said("reinvocationPolicy"), "Never");
        assert_eq!((said("namespaceSelector"), said("objectSelector")), (json!({}), json!({})));
        assert_eq!(
            (&webhook["rules"][0]["scope"], &webhook["clientConfig"]["service"]["port"]),
            (&json!("*"), &json!(443))
        );
        assert_eq!(found(None, configuration), Vec::<String>::new());
    }

    #[test]
    fn webhooks_are_validated() {
        let url = |url: &str| json!({ "url": url });
        for (field, value, want) in [
            ("name", json!("a.b"), &["name"][..]),
            ("name", json!(""), &["name"]),
            ("sideEffects", json!("Some"), &["sideEffects"]),
            ("sideEffects", json!(""), &["sideEffects"]),
            ("timeoutSeconds", json!(31), &["timeoutSeconds"]),
            ("timeoutSeconds", json!(0), &["timeoutSeconds"]),
            ("failurePolicy", json!("Abort"), &["failurePolicy"]),
            ("matchPolicy", json!("Same"), &["matchPolicy"]),
            ("reinvocationPolicy", json!("Always"), &["reinvocationPolicy"]),
            ("admissionReviewVersions", json!([]), &["admissionReviewVersions"]),
            ("admissionReviewVersions", json!(["v2"]), &["admissionReviewVersions"]),
            (
                "admissionReviewVersions",
                json!(["v1", "v1", "1"]),
                &["admissionReviewVersions[1]", "admissionReviewVersions[2]"],
            ),
            ("clientConfig", json!({}), &["clientConfig"]),
            ("clientConfig", url("https://example.com/path"), &[]),
            ("clientConfig", url("http://example.com"), &["clientConfig.url"]),
            ("clientConfig", url("https://u@example.com/?a=1#b"), &["clientConfig.url"; 3]),
            ("clientConfig", url("/path"), &["clientConfig.url"; 2]),
            ("clientConfig", url("https://a b"), &["clientConfig.url"]),
            ("clientConfig", json!({"url": "https://a", "service": {}}), &["clientConfig"]),
            (
                "clientConfig",
                json!({"service": {"port": 0}}),
                &["clientConfig.service.name", "clientConfig.service.namespace", "clientConfig.service.port"],
            ),
        ] {
            let mut webhook = webhook();
            webhook[field] = value.clone();
            let want: Vec<String> = want.iter().map(|field| format!("webhooks[0].{field}")).collect();
            assert_eq!(found(None, json!({ "webhooks": [webhook] })), want, "{field} {value}");
        }
        assert_eq!(found(None, json!({ "webhooks": [webhook(), webhook()] })), ["webhooks[1].name"]);
    }

    #[test]
    fn who_named_no_version_that_is_known_may_go_on() {
        let mut webhook = webhook();
        webhook["admissionReviewVersions"] = json!(["v2"]);
        let strange = json!({ "webhooks": [webhook] });
        assert_eq!(found(Some(&strange), strange.clone()), Vec::<String>::new());
    }

    #[test]
    fn paths_of_services_are_names() {
        for good in ["/", "/a", "/a/b.c", "/a/"] {
            assert_eq!(service_path(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "//", "/a//b", "/A", "/a?b"] {
            assert!(service_path(bad).is_err(), "{bad}");
        }
    }
}
