//! References to fields of the pod and to the sizes of its containers, in variables and in volumes.

use serde_json::Value;

use crate::schema::Quantity;
use crate::tree::{at, text};
use crate::validate::{self, Errors};

/// Fields that a label of a field may lead to at all.
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// Checks a reference to a field, which is one of `known`.
pub fn validate_field(reference: &Value, known: &[&str], here: &str, errors: &mut Errors) {
    let (version, path) = (text(reference, &["apiVersion"]), text(reference, &["fieldPath"]));
    if version.is_empty() {
        errors.required(format!("{here}.apiVersion"), "");
        return;
    }
    if path.is_empty() {
        errors.required(format!("{here}.fieldPath"), "");
        return;
    }
    let meant = match meant_field(version, path) {
        Ok(meant) => meant,
        Err(why) => {
            let why = format!("error converting fieldPath: {why}");
            errors.invalid(format!("{here}.fieldPath"), &Value::from(path), &why);
            return;
        }
    };
    match subscripted(meant) {
        Some(("metadata.annotations", key)) => {
            errors.check(here, &key.to_lowercase(), validate::label_key);
        }
        Some((_, key)) => errors.check(here, key, validate::label_key),
        None => errors.must_be(format!("{here}.fieldPath"), meant, known),
    }
}

/// The field that a label leads to in that version of pods.
fn meant_field<'a>(version: &str, path: &'a str) -> Result<&'a str, String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    match subscripted(path) {
        Some(("metadata.annotations" | "metadata.labels", _)) => Ok(path),
        Some(_) => Err(format!("field label does not support subscript: {path}")),
        None if FIELDS.contains(&path) => Ok(path),
        None if path == "spec.host" => Ok("spec.nodeName"),
        None => Err(format!("field label not supported: {path}")),
    }
}

/// `metadata.labels['app']` as the field and the key.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(field, _)| !field.is_empty())
}

const SIZES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Checks a reference to a size. In a volume it says whose.
pub fn validate_size(reference: &Value, in_volume: bool, here: &str, errors: &mut Errors) {
    let resource = text(reference, &["resource"]);
    let of_pages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && text(reference, &["containerName"]).is_empty() {
        errors.required(format!("{here}.containerName"), "");
    } else if resource.is_empty() {
        errors.required(format!("{here}.resource"), "");
    } else if !of_pages {
        errors.must_be(format!("{here}.resource"), resource, SIZES);
    }
    validate_divisor(resource, at(reference, &["divisor"]), here, errors);
}

fn validate_divisor(resource: &str, divisor: &Value, here: &str, errors: &mut Errors) {
    let divisor = match divisor {
        Value::String(text) => Quantity::parse(text).map_or_else(String::new, |amount| amount.to_string()),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if divisor == "0" {
        return;
    }
    let (known, of): (&[&str], &str) = match resource.split_once('.').map_or("", |(_, of)| of) {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (BYTES, "memory"),
        "ephemeral-storage" => (BYTES, "local ephemeral storage"),
        pages if pages.starts_with("hugepages-") => (BYTES, "hugepages"),
        _ => return,
    };
    if !known.contains(&divisor.as_str()) {
        let listed = if of == "cpu" { "1m and 1".to_owned() } else { known.join(", ") };
        let why = format!("only divisor's values {listed} are supported with the {of} resource");
        errors.invalid(format!("{here}.divisor"), &Value::from(resource), &why);
    }
}
