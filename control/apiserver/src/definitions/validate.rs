//! Rules of CustomResourceDefinitions: names, versions, scope, columns, selectable fields; schemas are in `structural`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::conditions::{approval, condition_is, is_protected};
use super::structural;
use crate::printer::paths;
use crate::strategy::Change;
use crate::tree::{at, flag, list, set, set_default, text};
use crate::validate::{self, Errors};

/// What upstream fills in.
pub fn default_definition(definition: &mut Value) {
    let kind = text(definition, &["spec", "names", "kind"]).to_owned();
    if !kind.is_empty() {
        set_default(definition, &["spec", "names", "singular"], kind.to_ascii_lowercase());
        set_default(definition, &["spec", "names", "listKind"], format!("{kind}List"));
    }
    if at(definition, &["spec", "conversion"]).is_null() {
        set(definition, &["spec", "conversion"], json!({ "strategy": "None" }));
    }
}

/// Remembers every version in which objects may lie in the store.
pub fn prepare_definition(change: &mut Change<'_>) {
    let versions = list(change.new, &["spec", "versions"]);
    let stored =
        versions.iter().find(|version| flag(version, &["storage"])).map(|version| text(version, &["name"]));
    let Some(stored) = stored.map(|name| json!(name)) else { return };
    let mut known = list(change.new, &["status", "storedVersions"]).to_vec();
    if !known.contains(&stored) {
        known.push(stored);
        set(change.new, &["status", "storedVersions"], known);
    }
    if change.old.is_none() {
        set(change.new, &["status", "conditions"], json!([]));
    }
}

/// Sentences for whoever writes the definition: what it asks for that is not done.
pub fn warnings(definition: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for version in list(definition, &["spec", "versions"]) {
        if mentions(at(version, &["schema"]), "x-kubernetes-validations") {
            out.push(format!(
                "spec.versions[{}]: rules of x-kubernetes-validations are not evaluated yet: objects that break them are accepted",
                text(version, &["name"])
            ));
        }
    }
    out
}

fn mentions(schema: &Value, word: &str) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.contains_key(word) || fields.values().any(|value| mentions(value, word))
        }
        Value::Array(items) => items.iter().any(|value| mentions(value, word)),
        _ => false,
    }
}

/// Checks a definition that is to be written.
pub fn validate_definition(change: &Change<'_>, errors: &mut Errors) {
    let definition = &*change.new;
    let spec = at(definition, &["spec"]);
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    let name = text(definition, &["metadata", "name"]);
    if name != format!("{plural}.{group}") {
        errors.invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group");
    }
    validate_group(definition, group, errors);
    validate_names(at(spec, &["names"]), errors);
    match text(spec, &["scope"]) {
        "" => errors.required("spec.scope", ""),
        scope => errors.one_of("spec.scope", scope, &["Cluster", "Namespaced"]),
    }
    if flag(spec, &["preserveUnknownFields"]) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid("spec.preserveUnknownFields", &json!(true), detail);
    }
    validate_conversion(at(spec, &["conversion"]), errors);
    validate_versions(list(spec, &["versions"]), errors);
    validate_stored(definition, errors);
    if let Some(old) = change.old {
        validate_kept(old, definition, errors);
    }
}

fn validate_group(definition: &Value, group: &str, errors: &mut Errors) {
    if group.is_empty() {
        return errors.required("spec.group", "");
    }
    errors.check("spec.group", group, validate::subdomain);
    if !group.contains('.') {
        errors.invalid("spec.group", &json!(group), "should be a domain with at least one dot");
    }
    if is_protected(group) && approval(definition).is_empty() {
        let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        errors.required("metadata.annotations[api-approved.kubernetes.io]", detail);
    }
}

fn validate_names(names: &Value, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let word = text(names, &[field]);
        let here = format!("spec.names.{field}");
        match (field, word) {
            (_, "") => errors.required(here, ""),
            ("kind" | "listKind", word) => {
                errors.check(here, &word.to_ascii_lowercase(), validate::dns1035_label);
            }
            (_, word) => errors.check(here, word, validate::dns1035_label),
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, word) in list(names, &[field]).iter().enumerate() {
            let word = word.as_str().unwrap_or_default();
            errors.check(format!("spec.names.{field}[{index}]"), word, validate::dns1035_label);
        }
    }
    let kind = text(names, &["kind"]);
    if !kind.is_empty() && kind == text(names, &["listKind"]) {
        errors.invalid("spec.names.listKind", &json!(kind), "kind and listKind may not be the same");
    }
}

fn validate_conversion(conversion: &Value, errors: &mut Errors) {
    match text(conversion, &["strategy"]) {
        "" => errors.required("spec.conversion.strategy", ""),
        "Webhook" => {
            errors.forbidden("spec.conversion.strategy", "conversion by webhook is not served yet: use None, with which only the apiVersion of objects changes between versions");
        }
        strategy => errors.one_of("spec.conversion.strategy", strategy, &["None", "Webhook"]),
    }
    if text(conversion, &["strategy"]) == "None" && !at(conversion, &["webhook"]).is_null() {
        errors.forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook");
    }
}

fn validate_versions(versions: &[Value], errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required("spec.versions", "must have exactly one version marked as storage version");
    }
    let mut names = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let here = format!("spec.versions[{index}]");
        let name = text(version, &["name"]);
        errors.check(format!("{here}.name"), name, validate::dns1035_label);
        if !names.insert(name) {
            errors.invalid("spec.versions", &json!(name), "must contain unique version names");
        }
        validate_version(&here, version, errors);
    }
    if versions.iter().filter(|version| flag(version, &["storage"])).count() != 1 {
        errors.invalid(
            "spec.versions",
            &json!(versions_shown(versions)),
            "must have exactly one version marked as storage version",
        );
    }
}

fn versions_shown(versions: &[Value]) -> Vec<&str> {
    versions.iter().map(|version| text(version, &["name"])).collect()
}

fn validate_version(here: &str, version: &Value, errors: &mut Errors) {
    let schema = at(version, &["schema", "openAPIV3Schema"]);
    if schema.is_null() {
        errors.required(format!("{here}.schema.openAPIV3Schema"), "schemas are required");
    } else {
        structural::validate(&format!("{here}.schema.openAPIV3Schema"), schema, errors);
    }
    let warning = text(version, &["deprecationWarning"]);
    if !warning.is_empty() && !flag(version, &["deprecated"]) {
        errors.invalid(
            format!("{here}.deprecationWarning"),
            &json!(warning),
            "can only be set for deprecated versions",
        );
    }
    validate_columns(here, list(version, &["additionalPrinterColumns"]), errors);
    validate_selectable(here, version, schema, errors);
    let scale = at(version, &["subresources", "scale"]);
    if scale.is_object() {
        validate_scale(&format!("{here}.subresources.scale"), scale, errors);
    }
}

fn validate_columns(here: &str, columns: &[Value], errors: &mut Errors) {
    for (index, column) in columns.iter().enumerate() {
        let here = format!("{here}.additionalPrinterColumns[{index}]");
        if text(column, &["name"]).is_empty() {
            errors.required(format!("{here}.name"), "");
        }
        match text(column, &["type"]) {
            "" => {
                let detail = "must be one of boolean,date,integer,number,string";
                errors.required(format!("{here}.type"), detail);
            }
            kind if !["boolean", "date", "integer", "number", "string"].contains(&kind) => {
                let detail = "must be one of boolean,date,integer,number,string";
                errors.invalid(format!("{here}.type"), &json!(kind), detail);
            }
            _ => {}
        }
        let path = text(column, &["jsonPath"]);
        if path.is_empty() {
            errors.required(format!("{here}.jsonPath"), "");
        } else if let Err(error) = paths::parse(path) {
            let error = error.to_string();
            let detail = format!("must be a valid JSONPath: {}", error.lines().next().unwrap_or_default());
            errors.invalid(format!("{here}.jsonPath"), &json!(path), &detail);
        }
    }
}

/// Upstream's bound on selectable fields of a version.
const MAX_SELECTABLE: usize = 8;

fn validate_selectable(here: &str, version: &Value, schema: &Value, errors: &mut Errors) {
    let fields = list(version, &["selectableFields"]);
    if fields.len() > MAX_SELECTABLE {
        errors.too_many(format!("{here}.selectableFields"), fields.len() as u64, MAX_SELECTABLE as u64);
    }
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let here = format!("{here}.selectableFields[{index}].jsonPath");
        let path = text(field, &["jsonPath"]);
        if path.is_empty() {
            errors.required(here, "");
            continue;
        }
        if !seen.insert(path) {
            errors.duplicate(here, &json!(path));
            continue;
        }
        let leaf = path.strip_prefix('.').and_then(|path| {
            path.split('.').try_fold(schema, |schema, step| schema.get("properties")?.get(step))
        });
        match leaf.map(|leaf| text(leaf, &["type"])) {
            Some("string" | "boolean" | "integer") if !path.starts_with(".metadata") => {}
            Some(_) if path.starts_with(".metadata") => {
                errors.invalid(here, &json!(path), "must not point to fields in metadata");
            }
            Some(_) => {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.invalid(here, &json!(path), detail);
            }
            None => errors.invalid(
                here,
                &json!(path),
                "is an invalid path: does not refer to a field of the schema",
            ),
        }
    }
}

fn validate_scale(here: &str, scale: &Value, errors: &mut Errors) {
    for (field, root, required) in [
        ("specReplicasPath", ".spec", true),
        ("statusReplicasPath", ".status", true),
        ("labelSelectorPath", "", false),
    ] {
        let path = text(scale, &[field]);
        let here = format!("{here}.{field}");
        let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
        let simple = path.starts_with('.') && !path.contains(['[', ']', '*', '$', '@']);
        match path {
            "" if required => errors.required(here, ""),
            "" => {}
            _ if !simple => {
                errors.invalid(
                    here,
                    &json!(path),
                    "should be a simple json path: no array notation is supported",
                );
            }
            _ if field == "labelSelectorPath" && !(below(".spec") || below(".status")) => {
                errors.invalid(here, &json!(path), "should be a json path under .spec or .status");
            }
            _ if field != "labelSelectorPath" && !below(root) => {
                errors.invalid(here, &json!(path), &format!("should be a json path under {root}"));
            }
            _ => {}
        }
    }
}

/// A version in which objects may lie in the store must stay.
fn validate_stored(definition: &Value, errors: &mut Errors) {
    let versions = versions_shown(list(definition, &["spec", "versions"]));
    for (index, stored) in list(definition, &["status", "storedVersions"]).iter().enumerate() {
        let name = stored.as_str().unwrap_or_default();
        if !versions.contains(&name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(format!("status.storedVersions[{index}]"), stored, &detail);
        }
    }
}

/// Group and plural never change; what objects depend on does not once the definition is established.
fn validate_kept(old: &Value, new: &Value, errors: &mut Errors) {
    let established = condition_is(old, "Established", "True");
    for (path, always) in [
        (&["spec", "group"][..], true),
        (&["spec", "names", "plural"], true),
        (&["spec", "scope"], false),
        (&["spec", "names", "kind"], false),
    ] {
        if always || established {
            errors.immutable(&path.join("."), at(old, path), at(new, path));
        }
    }
}
