//! Validation of what a claim asks for, in claims and in templates of them.

use serde_json::{Value, json};

use super::workload::validate_label_selector;
use crate::schema::Quantity;
use crate::tree::{at, list, strings, text};
use crate::validate::{self, Errors};

pub const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Checks the spec of a claim at `here`. What was wrong in `old` may go on.
pub fn validate(spec: &Value, old: &Value, here: &str, errors: &mut Errors) {
    if list(spec, &["accessModes"]).is_empty() {
        errors.required(format!("{here}.accessModes"), "at least 1 access mode is required");
    }
    if !selects_wrongly(old) {
        validate_label_selector(at(spec, &["selector"]), &format!("{here}.selector"), errors);
    }
    validate_modes(spec, here, errors);
    validate_size(spec, here, errors);
    validate_class(spec, "storageClassName", here, errors);
    if let Some(mode) = at(spec, &["volumeMode"]).as_str() {
        errors.must_be(format!("{here}.volumeMode"), mode, VOLUME_MODES);
    }
    let had_group = ["dataSource", "dataSourceRef"].iter().any(|one| !at(old, &[one, "apiGroup"]).is_null());
    validate_sources(spec, had_group, here, errors);
    validate_class(spec, "volumeAttributesClassName", here, errors);
}

fn selects_wrongly(old: &Value) -> bool {
    let mut errors = Errors::default();
    validate_label_selector(at(old, &["selector"]), "", &mut errors);
    !errors.is_empty()
}

/// How a volume is to be mounted; by one pod alone means in no other way.
pub fn validate_modes(spec: &Value, here: &str, errors: &mut Errors) {
    let place = format!("{here}.accessModes");
    let modes = || list(spec, &["accessModes"]).iter().filter_map(Value::as_str);
    modes().for_each(|mode| errors.must_be(&place, mode, MODES));
    let alone = modes().any(|mode| mode == "ReadWriteOncePod");
    if alone && modes().any(|mode| mode != "ReadWriteOncePod" && MODES.contains(&mode)) {
        errors.forbidden(place, "may not use ReadWriteOncePod with other access modes");
    }
}

fn validate_size(spec: &Value, here: &str, errors: &mut Errors) {
    let (size, place) =
        (text(spec, &["resources", "requests", "storage"]), format!("{here}.resources[storage]"));
    match size {
        "" => errors.required(place, ""),
        _ => positive(size, &place, errors),
    }
}

/// An amount that is more than nothing.
pub fn positive(amount: &str, here: &str, errors: &mut Errors) {
    let Some((amount, nothing)) = Quantity::parse(amount).zip(Quantity::parse("0")) else { return };
    if amount <= nothing {
        errors.invalid(here, &Value::from(amount.to_string()), "must be greater than zero");
    }
}

/// The name of a class, if there is one.
pub fn validate_class(spec: &Value, field: &str, here: &str, errors: &mut Errors) {
    match text(spec, &[field]) {
        "" => {}
        name => errors.check(format!("{here}.{field}"), name, validate::subdomain),
    }
}

fn validate_sources(spec: &Value, had_group: bool, here: &str, errors: &mut Errors) {
    for field in ["dataSource", "dataSourceRef"] {
        let source = at(spec, &[field]);
        if source.is_object() {
            validate_source(source, had_group, &format!("{here}.{field}"), errors);
        }
    }
    let (source, reference) = (at(spec, &["dataSource"]), at(spec, &["dataSourceRef"]));
    let elsewhere = !text(reference, &["namespace"]).is_empty();
    if !source.is_object() || !reference.is_object() {
        return;
    }
    let same =
        ["apiGroup", "kind", "name"].iter().all(|field| at(source, &[field]) == at(reference, &[field]));
    if elsewhere {
        errors.invalid(here, &json!({}), "may not be specified when dataSourceRef.namespace is specified");
    } else if !same {
        errors.invalid(here, &json!({}), "must match dataSourceRef");
    }
}

fn validate_source(source: &Value, had_group: bool, here: &str, errors: &mut Errors) {
    for field in ["name", "kind"] {
        if text(source, &[field]).is_empty() {
            errors.required(format!("{here}.{field}"), "");
        }
    }
    let (group, kind) = (text(source, &["apiGroup"]), text(source, &["kind"]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(here, &Value::from(kind), why);
    }
    if !group.is_empty() && !had_group {
        errors.check(format!("{here}.apiGroup"), group, validate::subdomain);
    }
    match text(source, &["namespace"]) {
        "" => {}
        name => errors.check(format!("{here}.namespace"), name, validate::label),
    }
}

/// Fields of metadata that a template has not, and their names in upstream's errors.
const NOT_OF_TEMPLATES: &[(&str, &str)] = &[
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

/// Checks the template of a claim at `here`.
pub fn validate_template(template: &Value, here: &str, errors: &mut Errors) {
    let metadata = at(template, &["metadata"]);
    for (key, _) in strings(metadata, &["annotations"]) {
        if let Err(why) = validate::label_key(&key.to_lowercase()) {
            errors.invalid(format!("{here}.metadata.annotations"), &Value::from(key), &why);
        }
    }
    for (key, value) in strings(metadata, &["labels"]) {
        errors.check(format!("{here}.metadata.labels"), key, validate::label_key);
        errors.check(format!("{here}.metadata.labels"), value, validate::label_value);
    }
    for (field, shown) in NOT_OF_TEMPLATES {
        let value = at(metadata, &[field]);
        if !value.is_null() && value != "" {
            errors.forbidden(format!("{here}.metadata.{shown}"), "cannot be set");
        }
    }
    validate(at(template, &["spec"]), &Value::Null, &format!("{here}.spec"), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::told;

    fn spec(more: &Value) -> Value {
        let mut spec =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        json_patch::merge(&mut spec, more);
        spec
    }

    #[test]
    fn claims_ask_for_what_there_can_be() {
        let pvc = json!({"kind": "PersistentVolumeClaim", "name": "c"});
        for (more, want) in [
            (json!({}), ""),
            (
                json!({"volumeMode": "Block", "storageClassName": "", "selector": {"matchLabels": {"a": "b"}}}),
                "",
            ),
            (json!({"accessModes": []}), "s.accessModes: Required value: at least 1 access mode is required"),
            (
                json!({"accessModes": ["Often"]}),
                "s.accessModes: Unsupported value: \"Often\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
            (
                json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}),
                "s.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            (json!({"resources": null}), "s.resources[storage]: Required value"),
            (
                json!({"resources": {"requests": {"storage": "0"}}}),
                "s.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                json!({"volumeMode": "Tape"}),
                "s.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ),
            (json!({"dataSource": pvc, "dataSourceRef": pvc}), ""),
            (
                json!({"dataSource": pvc, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "d"}}),
                "s: Invalid value: {}: must match dataSourceRef",
            ),
            (
                json!({"dataSource": pvc, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "c", "namespace": "n"}}),
                "s: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified",
            ),
            (
                json!({"dataSource": {"kind": "Secret", "name": "c"}}),
                "s.dataSource: Invalid value: \"Secret\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ),
            (
                json!({"dataSourceRef": {"kind": "PersistentVolumeClaim"}}),
                "s.dataSourceRef.name: Required value",
            ),
        ] {
            let found = told(|errors| validate(&spec(&more), &Value::Null, "s", errors));
            assert_eq!(found.join("; "), want, "{more}");
        }
        let wrong =
            told(|errors| validate(&spec(&json!({"storageClassName": "A"})), &Value::Null, "s", errors));
        assert!(
            wrong[0].starts_with("s.storageClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain")
        );
    }

    #[test]
    fn what_was_wrong_may_go_on() {
        let source = json!({"dataSource": {"apiGroup": "A_b", "kind": "x", "name": "c"}});
        let old = spec(&source);
        assert_eq!(told(|errors| validate(&old, &old, "s", errors)), [""; 0]);
        assert_eq!(told(|errors| validate(&old, &Value::Null, "s", errors)).len(), 1);
        let old = spec(&json!({"selector": {"matchLabels": {"a": "-"}}}));
        assert_eq!(told(|errors| validate(&old, &old, "s", errors)), [""; 0]);
        assert_eq!(told(|errors| validate(&old, &Value::Null, "s", errors)).len(), 1);
    }

    #[test]
    fn templates_of_claims_have_no_names() {
        let template =
            json!({"metadata": {"name": "a", "uid": "b", "labels": {"a": "b"}}, "spec": spec(&json!({}))});
        let found = told(|errors| validate_template(&template, "t", errors));
        assert_eq!(
            found,
            ["t.metadata.name: Forbidden: cannot be set", "t.metadata.uID: Forbidden: cannot be set"]
        );
    }
}
