//! Validation of volumes that are put together: fields of the pod, and projections of many things.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::certificate::signer_name;
use super::local_path::{key_to_path, mode, not_reserved};
use super::pod_rules::references;
use super::workload::validate_label_selector;
use crate::tree::{at, int, list, text};
use crate::validate::{self, Errors};

pub fn downward_files(source: &Value, here: &str, errors: &mut Errors) {
    mode(source, "defaultMode", here, errors);
    for file in list(source, &["items"]) {
        validate_file(file, here, errors);
    }
}

/// Fields of the pod that a file may hold.
const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

fn validate_file(file: &Value, here: &str, errors: &mut Errors) {
    let path = text(file, &["path"]);
    if path.is_empty() {
        errors.required(format!("{here}.path"), "");
    }
    not_reserved(path, &format!("{here}.path"), errors);
    let (field, size) = (at(file, &["fieldRef"]), at(file, &["resourceFieldRef"]));
    if field.is_object() {
        references::validate_field(field, FIELDS, &format!("{here}.fieldRef"), errors);
        if size.is_object() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.invalid(here, &Value::from("resource"), why);
        }
    } else if size.is_object() {
        references::validate_size(size, true, &format!("{here}.resourceFieldRef"), errors);
    } else {
        errors.required(here, "one of fieldRef and resourceFieldRef is required");
    }
    mode(file, "mode", here, errors);
}

/// The files of one volume, each there once.
struct Files<'a> {
    taken: HashSet<&'a str>,
    here: &'a str,
}

impl<'a> Files<'a> {
    /// Takes a path, and shows `owner` where it is taken.
    fn take(&mut self, path: &'a str, owner: &str, errors: &mut Errors) {
        if !self.taken.insert(path) {
            errors.invalid(self.here, &Value::from(owner), "conflicting duplicate paths");
        }
    }
}

pub fn projected(source: &Value, here: &str, errors: &mut Errors) {
    mode(source, "defaultMode", here, errors);
    let mut files = Files { taken: HashSet::new(), here };
    for (index, one) in list(source, &["sources"]).iter().enumerate() {
        let place = format!("{here}.sources[{index}]");
        validate_projection(one, &place, &mut files, errors);
    }
}

fn validate_projection<'a>(one: &'a Value, place: &str, files: &mut Files<'a>, errors: &mut Errors) {
    let mut count = 0;
    for kind in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"] {
        let source = at(one, &[kind]);
        if !source.is_object() {
            continue;
        }
        count += 1;
        let here = format!("{place}.{kind}");
        match kind {
            "secret" | "configMap" => validate_keys(source, &here, files, errors),
            "downwardAPI" => validate_files(source, &here, files, errors),
            "serviceAccountToken" => validate_token(source, &here, files.here, errors),
            _ => validate_bundle(source, &here, files, errors),
        }
    }
    count += usize::from(at(one, &["podCertificate"]).is_object());
    if count > 1 {
        errors.forbidden(place, "may not specify more than 1 volume type per source");
    }
}

fn validate_keys<'a>(source: &'a Value, here: &str, files: &mut Files<'a>, errors: &mut Errors) {
    let name = text(source, &["name"]);
    if name.is_empty() {
        errors.required(format!("{here}.name"), "");
    }
    for (index, item) in list(source, &["items"]).iter().enumerate() {
        key_to_path(item, &format!("{here}.items[{index}]"), errors);
        match text(item, &["path"]) {
            "" => {}
            path => files.take(path, name, errors),
        }
    }
}

fn validate_files<'a>(source: &'a Value, here: &str, files: &mut Files<'a>, errors: &mut Errors) {
    for file in list(source, &["items"]) {
        validate_file(file, here, errors);
        match text(file, &["path"]) {
            "" => {}
            path => files.take(path, path, errors),
        }
    }
}

/// Seconds that a token may live.
const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;

/// Reports a token's life that is too short or too long.
pub fn validate_expiration(seconds: i64, here: &str, errors: &mut Errors) {
    if seconds < SHORTEST {
        errors.invalid(here, &seconds.into(), "may not specify a duration less than 10 minutes");
    }
    if seconds > LONGEST {
        errors.invalid(here, &seconds.into(), "may not specify a duration larger than 2^32 seconds");
    }
}

/// The path of a token is reported at the volume's place, as upstream does.
fn validate_token(token: &Value, here: &str, volume: &str, errors: &mut Errors) {
    let seconds = int(token, &["expirationSeconds"]).unwrap_or_default();
    validate_expiration(seconds, &format!("{here}.expirationSeconds"), errors);
    match text(token, &["path"]) {
        "" => errors.required(format!("{volume}.path"), ""),
        path => not_reserved(path, &format!("{volume}.path"), errors),
    }
}

fn validate_bundle<'a>(bundle: &'a Value, here: &str, files: &mut Files<'a>, errors: &mut Errors) {
    let (name, signer) = (at(bundle, &["name"]), at(bundle, &["signerName"]));
    match (name.as_str(), signer.as_str()) {
        (Some(_), Some(_)) => {
            errors.invalid(here, &shown(bundle), "only one of name and signerName may be used");
        }
        (Some(name), None) => validate_bundle_name(name, bundle, here, errors),
        (None, Some(signer)) => validate_signer(signer, bundle, here, errors),
        (None, None) => errors.required(here, "either name or signerName must be specified"),
    }
    let path = text(bundle, &["path"]);
    if path.is_empty() {
        errors.required(format!("{here}.path"), "");
    }
    not_reserved(path, &format!("{here}.path"), errors);
    files.take(path, path, errors);
}

fn validate_bundle_name(name: &str, bundle: &Value, here: &str, errors: &mut Errors) {
    let place = format!("{here}.name");
    if name.is_empty() {
        errors.required(&place, "must be a valid object name");
    }
    // What comes before the last colon is its signer's.
    let own = name.rsplit_once(':').map_or(name, |(_, own)| own);
    if let Err(why) = validate::subdomain(own) {
        let why = format!("not a valid clustertrustbundlename: {why}");
        errors.invalid(place, &Value::from(name), &why);
    }
    let selector = at(bundle, &["labelSelector"]);
    if selector.is_object() {
        let why = "labelSelector must be unset if name is specified";
        errors.invalid(format!("{here}.labelSelector"), selector, why);
    }
}

fn validate_signer(signer: &str, bundle: &Value, here: &str, errors: &mut Errors) {
    let place = format!("{here}.signerName");
    if signer.is_empty() {
        errors.required(&place, "must be a valid signer name");
        errors.required(&place, "");
    } else {
        errors.check(place, signer, signer_name);
    }
    validate_label_selector(at(bundle, &["labelSelector"]), &format!("{here}.labelSelector"), errors);
}

/// A projection with the names of its fields in Go, as upstream shows it.
fn shown(bundle: &Value) -> Value {
    let field = |name: &str| at(bundle, &[name]).clone();
    json!({ "Name": field("name"), "SignerName": field("signerName"), "LabelSelector": field("labelSelector"),
        "Optional": field("optional"), "Path": text(bundle, &["path"]) })
}
