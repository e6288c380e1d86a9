//! Jobs: what they may say when they are made, and what of it may change.

use serde_json::{Value, json};

use super::Change;
use super::job_policies::{validate_failure_policy, validate_success_policy};
use super::pod::validate_template;
use super::pod_spec::default_spec;
use super::workload::{selects, validate_label_selector};
use crate::resources::Sub;
use crate::tree::{at, copy, flag, int, list, object_mut, remove, set, set_default, text};
use crate::validate::{self, Errors};

const MAX_MANAGER: usize = 63;
/// Bounds of Jobs that count by index.
const MAX_PARALLELISM: i64 = 100_000;
const MAX_COMPLETIONS: i64 = 1_000_000_000;
/// More than so many indexes may not fail where each has a limit of its own.
const MAX_FAILED_INDEXES: i64 = 100_000;

pub fn default_job(object: &mut Value) {
    default_spec(object, &["spec", "template", "spec"]);
    default_job_spec(object, &["spec"]);
}

fn default_job_spec(object: &mut Value, path: &[&str]) {
    let pointer: String = path.iter().map(|name| format!("/{name}")).collect();
    let Some(spec) = object.pointer_mut(&pointer) else { return };
    if at(spec, &["completions"]).is_null() && at(spec, &["parallelism"]).is_null() {
        set(spec, &["completions"], 1);
    }
    set_default(spec, &["parallelism"], 1);
    // Where every index has a limit, all together have none.
    let limit = if at(spec, &["backoffLimitPerIndex"]).is_null() { 6 } else { i64::from(i32::MAX) };
    set_default(spec, &["backoffLimit"], limit);
    set_default(spec, &["completionMode"], "NonIndexed");
    set_default(spec, &["suspend"], false);
    let policy = if at(spec, &["podFailurePolicy"]).is_null() { "TerminatingOrFailed" } else { "Failed" };
    set_default(spec, &["podReplacementPolicy"], policy);
}

/// Labels by which a Job finds its pods when it is not told others, and their values.
fn own_labels(job: &Value) -> [(&'static str, String); 4] {
    let uid = text(job, &["metadata", "uid"]).to_owned();
    let name = text(job, &["metadata", "name"]).to_owned();
    [
        ("batch.kubernetes.io/controller-uid", uid.clone()),
        ("batch.kubernetes.io/job-name", name.clone()),
        ("controller-uid", uid),
        ("job-name", name),
    ]
}

/// A job without a selector of its own gets one by its uid.
pub fn prepare_job(change: &mut Change<'_>) {
    if change.old.is_some() || flag(change.new, &["spec", "manualSelector"]) {
        return;
    }
    let own = own_labels(change.new);
    let selector = json!({ "matchLabels": { own[0].0: own[0].1 } });
    let labels = object_mut(change.new, &["spec", "template", "metadata", "labels"]);
    for (key, value) in own {
        labels.entry(key).or_insert_with(|| Value::from(value));
    }
    set_default(change.new, &["spec", "selector"], selector);
}

pub fn validate_job(change: &Change<'_>, errors: &mut Errors) {
    let job = &*change.new;
    if !flag(job, &["spec", "manualSelector"]) {
        validate_own_labels(job, errors);
    }
    validate_job_spec(change, &["spec"], errors);
    let selector = at(job, &["spec", "selector"]);
    if selector.is_null() {
        errors.required("spec.selector", "");
    } else {
        validate_label_selector(selector, "spec.selector", errors);
        let labels = at(job, &["spec", "template", "metadata", "labels"]);
        if !selects(selector, labels) {
            let detail = "`selector` does not match template `labels`";
            errors.invalid("spec.template.metadata.labels", labels, detail);
        }
    }
    if let Some(old) = change.old {
        validate_changes(old, job, errors);
    }
}

/// What was not written by hand is what [`prepare_job`] writes.
fn validate_own_labels(job: &Value, errors: &mut Errors) {
    let selector = at(job, &["spec", "selector"]);
    let own = own_labels(job);
    let labels = at(job, &["spec", "template", "metadata", "labels"]);
    for (key, value) in own.iter().filter(|(_, value)| !value.is_empty()) {
        let place = format!("spec.template.metadata.labels[{key}]");
        match labels.get(*key).and_then(Value::as_str) {
            Some(given) if given == value => {}
            Some(_) => errors.invalid(place, labels, &format!("must be '{value}'")),
            None => errors.required(place, &format!("must be '{value}'")),
        }
    }
    let own: Value = own
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    if !selector.is_null() && !selects(selector, &own) {
        errors.invalid("spec.selector", selector, "`selector` not auto-generated");
    }
}

/// What a Job may not change once it is there.
fn validate_changes(old: &Value, new: &Value, errors: &mut Errors) {
    let spec = |job, field| at(job, &["spec", field]);
    validate_completions(at(old, &["spec"]), at(new, &["spec"]), errors);
    errors.immutable("spec.selector", spec(old, "selector"), spec(new, "selector"));
    let mut compared = new.clone();
    if flag(old, &["spec", "suspend"]) && at(old, &["status", "startTime"]).is_null() {
        keep_directives(old, &mut compared);
    }
    if spec(old, "template") != spec(&compared, "template") {
        errors.immutable("spec.template", spec(old, "template"), spec(new, "template"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.immutable(&format!("spec.{field}"), spec(old, field), spec(new, field));
    }
}

/// Where pods go, and what they are given, may change as long as a Job was suspended before it began.
fn keep_directives(old: &Value, new: &mut Value) {
    let fields: [&[&str]; 6] = [
        &["metadata", "annotations"],
        &["metadata", "labels"],
        &["spec", "nodeSelector"],
        &["spec", "tolerations"],
        &["spec", "schedulingGates"],
        &["spec", "affinity", "nodeAffinity"],
    ];
    for field in fields {
        let path = [&["spec", "template"], field].concat();
        copy(new, old, &path);
    }
    // Whether there is nothing else in it, or nothing at all.
    let affinity = ["spec", "template", "spec", "affinity"];
    let is_empty = |job: &Value| at(job, &affinity).as_object().is_none_or(serde_json::Map::is_empty);
    if is_empty(old) && is_empty(new) {
        match at(old, &affinity) {
            Value::Null => _ = remove(new, &affinity),
            empty => set(new, &affinity, empty.clone()),
        }
    }
    for group in ["containers", "initContainers"] {
        let before = list(old, &["spec", "template", "spec", group]).to_vec();
        let after = crate::tree::list_mut(new, &["spec", "template", "spec", group]);
        for (new, old) in after.iter_mut().zip(&before) {
            copy(new, old, &["resources"]);
        }
    }
}

/// Completions of Jobs that count by index may change together with parallelism.
fn validate_completions(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (at(old, &["completions"]), at(new, &["completions"]));
    if text(new, &["completionMode"]) != "Indexed" {
        errors.immutable("spec.completions", before, after);
        return;
    }
    let in_tandem = before == at(old, &["parallelism"]) && after == at(new, &["parallelism"]);
    if before != after && !in_tandem {
        errors.invalid("spec.completions", after, "can only be modified in tandem with spec.parallelism");
    }
}

/// The rules of a Job's spec, which those of a CronJob's template are too.
pub fn validate_job_spec(change: &Change<'_>, path: &[&str], errors: &mut Errors) {
    let (here, spec) = (path.join("."), at(change.new, path));
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.not_negative(format!("{here}.{field}"), int(spec, &[field]));
    }
    let has = |field: &str| !at(spec, &[field]).is_null();
    if has("maxFailedIndexes") && !has("backoffLimitPerIndex") {
        errors.required(format!("{here}.backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if has("managedBy") {
        validate_manager(text(spec, &["managedBy"]), &format!("{here}.managedBy"), errors);
    }
    let mode = text(spec, &["completionMode"]);
    errors.one_of(format!("{here}.completionMode"), mode, &["Indexed", "NonIndexed"]);
    if mode == "Indexed" {
        validate_indexed(spec, &here, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if has(field) {
                let place = format!("{here}.{field}");
                errors.invalid(place, at(spec, &[field]), "requires indexed completion mode");
            }
        }
    }
    validate_failure_policy(spec, &here, errors);
    if mode == "Indexed" {
        validate_success_policy(spec, &here, errors);
    }
    let replacement = text(spec, &["podReplacementPolicy"]);
    let known: &[&str] =
        if has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.one_of(format!("{here}.podReplacementPolicy"), replacement, known);
    validate_pods(change, path, errors);
}

/// `example.com/name`.
fn validate_manager(manager: &str, here: &str, errors: &mut Errors) {
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.required(here, ""),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            errors.check(here, domain, validate::subdomain);
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid(here, &manager.into(), detail);
        }
    }
    if manager.len() > MAX_MANAGER {
        errors.too_long(here, MAX_MANAGER);
    }
}

fn validate_indexed(spec: &Value, here: &str, errors: &mut Errors) {
    let Some(completions) = int(spec, &["completions"]) else {
        errors.required(format!("{here}.completions"), "when completion mode is Indexed");
        return;
    };
    let bounded = [("parallelism", MAX_PARALLELISM), ("completions", MAX_COMPLETIONS)];
    for (field, most) in bounded {
        if int(spec, &[field]).is_some_and(|value| value > most) {
            let detail = format!("must be less than or equal to {most} when completion mode is Indexed");
            errors.invalid(format!("{here}.{field}"), at(spec, &[field]), &detail);
        }
    }
    let Some(failed) = int(spec, &["maxFailedIndexes"]) else {
        if completions > MAX_FAILED_INDEXES && !at(spec, &["backoffLimitPerIndex"]).is_null() {
            let detail = format!("must be specified when completions is above {MAX_FAILED_INDEXES}");
            errors.required(format!("{here}.maxFailedIndexes"), &detail);
        }
        return;
    };
    if failed > completions {
        let place = format!("{here}.maxFailedIndexes");
        errors.invalid(place, &failed.into(), "must be less than or equal to completions");
    } else if failed > MAX_FAILED_INDEXES {
        let detail = format!("must be less than or equal to {MAX_FAILED_INDEXES}");
        errors.invalid(format!("{here}.maxFailedIndexes"), &failed.into(), &detail);
    }
}

fn validate_pods(change: &Change<'_>, path: &[&str], errors: &mut Errors) {
    let object = &*change.new;
    let template: Vec<&str> = path.iter().copied().chain(["template"]).collect();
    let restart = text(at(object, &template), &["spec", "restartPolicy"]);
    let place = format!("{}.spec.restartPolicy", template.join("."));
    // Pods are restarted for ever where nothing is said, which is not for Jobs.
    let is_always = matches!(restart, "" | "Always");
    let known: &[&str] = if is_always { &["Always", "Never", "OnFailure"] } else { &["Never", "OnFailure"] };
    validate_template(change, &template, known, errors);
    if is_always {
        errors.required(place, "valid values: \"OnFailure\", \"Never\"");
    } else if restart == "OnFailure" && !at(at(object, path), &["podFailurePolicy"]).is_null() {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.invalid(place, &restart.into(), detail);
    }
}

/// Counts are no less than nothing, and a Job does not end in two ways.
pub fn validate_job_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    let status = at(change.new, &["status"]);
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.not_negative(format!("status.{field}"), int(status, &[field]));
    }
    let holds = |kind: &str| {
        let mut all = list(status, &["conditions"]).iter();
        all.any(|one| text(one, &["type"]) == kind && text(one, &["status"]) == "True")
    };
    if holds("Complete") && holds("Failed") {
        let conditions = at(status, &["conditions"]);
        errors.invalid(
            "status.conditions",
            conditions,
            "cannot set Complete=True and Failed=true conditions",
        );
    }
    if !at(status, &["completionTime"]).is_null() && !holds("Complete") {
        let detail = "completionTime can only be set for Complete jobs";
        errors.invalid("status.completionTime", at(status, &["completionTime"]), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::device_claim::tests::fields;

    fn job(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec":
            {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}});
        json_patch::merge(&mut object["spec"], spec);
        default_job(&mut object);
        prepare_job(&mut Change { old: None, new: &mut object });
        object
    }

    fn found(old: Option<&Value>, mut new: Value) -> Vec<String> {
        fields(|errors| validate_job(&Change { old, new: &mut new }, errors))
    }

    #[test]
    fn what_a_job_says_fits_together() {
        for (spec, want) in [
            (json!({}), vec![]),
            (json!({"parallelism": -1}), vec!["spec.parallelism"]),
            (json!({"completionMode": "Indexed", "parallelism": 2}), vec!["spec.completions"]),
            (json!({"completionMode": "Sorted"}), vec!["spec.completionMode"]),
            (json!({"backoffLimitPerIndex": 1}), vec!["spec.backoffLimitPerIndex"]),
            (
                json!({"completionMode": "Indexed", "completions": 3, "maxFailedIndexes": 4, "backoffLimitPerIndex": 1}),
                vec!["spec.maxFailedIndexes"],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 3, "maxFailedIndexes": 2}),
                vec!["spec.backoffLimitPerIndex"],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 2, "parallelism": 100_001}),
                vec!["spec.parallelism"],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 100_001, "backoffLimitPerIndex": 1}),
                vec!["spec.maxFailedIndexes"],
            ),
            (json!({"managedBy": "me"}), vec!["spec.managedBy"]),
            (json!({"managedBy": "example.com/me"}), vec![]),
            (json!({"podReplacementPolicy": "Never"}), vec!["spec.podReplacementPolicy"]),
            (
                json!({"template": {"spec": {"restartPolicy": null}}}),
                vec!["spec.template.spec.restartPolicy"],
            ),
            (
                json!({"template": {"spec": {"restartPolicy": "Soon"}}}),
                vec!["spec.template.spec.restartPolicy"; 2],
            ),
        ] {
            assert_eq!(found(None, job(&spec)), want, "{spec}");
        }
    }

    #[test]
    fn pods_are_found_by_labels_that_were_made_or_by_hand() {
        let mut stolen = job(&json!({"template": {"metadata": {"labels": {"job-name": "other"}}}}));
        assert_eq!(found(None, stolen.clone()), ["spec.template.metadata.labels[job-name]"]);
        stolen["spec"]["manualSelector"] = json!(true);
        assert_eq!(found(None, stolen), Vec::<String>::new());
        let by_hand = json!({"selector": {"matchLabels": {"a": "b"}}});
        assert_eq!(found(None, job(&by_hand)), ["spec.selector", "spec.template.metadata.labels"]);
        let mut manual = by_hand;
        manual["manualSelector"] = json!(true);
        manual["template"] = json!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(found(None, job(&manual)), Vec::<String>::new());
    }

    #[test]
    fn a_job_changes_little_once_it_is_there() {
        let old = job(&json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed"}));
        for (spec, want) in [
            (json!({"parallelism": 1}), vec![]),
            (json!({"completions": 3}), vec!["spec.completions"]),
            (json!({"completions": 3, "parallelism": 3}), vec![]),
            (json!({"backoffLimitPerIndex": 1}), vec!["spec.backoffLimitPerIndex"]),
            (json!({"managedBy": "example.com/me"}), vec!["spec.managedBy"]),
            (json!({"template": {"spec": {"nodeSelector": {"a": "b"}}}}), vec!["spec.template"]),
        ] {
            let mut new = old.clone();
            json_patch::merge(&mut new["spec"], &spec);
            assert_eq!(found(Some(&old), new), want, "{spec}");
        }
        let mut plain = job(&json!({"completions": 2}));
        plain["spec"]["completions"] = json!(3);
        assert_eq!(found(Some(&job(&json!({"completions": 2}))), plain), ["spec.completions"]);
    }

    #[test]
    fn a_job_that_was_suspended_before_it_began_may_be_sent_elsewhere() {
        let old = job(&json!({"suspend": true}));
        let mut new = old.clone();
        let moved = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}}});
        json_patch::merge(&mut new["spec"]["template"], &moved);
        new["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        assert_eq!(found(Some(&old), new.clone()), Vec::<String>::new());
        let mut began = old.clone();
        began["status"] = json!({"startTime": "2026-01-01T00:00:00Z"});
        assert_eq!(found(Some(&began), new.clone()), ["spec.template"]);
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("c");
        assert_eq!(found(Some(&old), new), ["spec.template"]);
    }

    #[test]
    fn a_job_ends_in_one_way() {
        let check = |status: Value| {
            let (old, mut new) = (json!({}), json!({"status": status}));
            fields(|errors| {
                validate_job_status(Sub::Status, &Change { old: Some(&old), new: &mut new }, errors);
            })
        };
        let done = |kind: &str| json!({"type": kind, "status": "True"});
        assert_eq!(
            check(json!({"conditions": [done("Complete")], "completionTime": "x"})),
            Vec::<String>::new()
        );
        assert_eq!(check(json!({"conditions": [done("Complete"), done("Failed")]})), ["status.conditions"]);
        assert_eq!(
            check(json!({"completionTime": "x", "failed": -1})),
            ["status.failed", "status.completionTime"]
        );
    }
}
