//! Requests for certificates: what one must say, and who may say what of it later.
//!
//! Rules of `certificates.k8s.io/v1`: the request never changes, `approval` writes what was decided, `status` what was
//! signed.

use std::collections::HashSet;

use base64::Engine;
use jiff::Timestamp;
use serde_json::Value;
use x509_parser::error::{PEMError, X509Error};
use x509_parser::nom;
use x509_parser::pem::Pem;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509CertificationRequest};

use super::Change;
use crate::resources::Sub;
use crate::tree::{at, copy, int, list, list_mut, set, text, transfer};
use crate::validate::{self, Errors};
use crate::verbs::write::timestamp;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Why bytes are no request or no certificates.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("not in base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("not in PEM: {0}")]
    Pem(#[from] PEMError),
    #[error("not in DER: {0}")]
    Der(#[from] nom::Err<X509Error>),
    #[error("a name of the subject is no text: {0}")]
    Name(#[from] X509Error),
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NoRequest,
    #[error("must contain at least one CERTIFICATE PEM block")]
    NoCertificate,
    #[error("only CERTIFICATE PEM blocks are allowed, found {0:?}")]
    Other(String),
}

/// What was asked for stays.
pub fn prepare_request(change: &mut Change<'_>) {
    if let Some(old) = change.old {
        copy(change.new, old, &["spec"]);
    }
}

/// The request with nothing changed but what the subresource is for, and its conditions with the time they got.
pub fn keep_rest(sub: Sub, old: &Value, new: &mut Value, now: Timestamp) {
    let mut kept = old.clone();
    for field in ["resourceVersion", "managedFields", "annotations", "labels"] {
        transfer(&mut kept, new, &["metadata", field]);
    }
    let part: &[&str] = if sub == Sub::Approval { &["status", "conditions"] } else { &["status"] };
    transfer(&mut kept, new, part);
    if sub == Sub::Status {
        // A signer that read the request before it was written again does not undo what others decided.
        for kind in [APPROVED, DENIED] {
            keep_conditions(kind, old, &mut kept);
        }
    }
    date_conditions(old, &mut kept, now);
    *new = kept;
}

fn conditions<'a>(request: &'a Value, kind: &str) -> Vec<&'a Value> {
    let all = list(request, &["status", "conditions"]).iter();
    all.filter(|condition| text(condition, &["type"]) == kind).collect()
}

fn keep_conditions(kind: &str, old: &Value, new: &mut Value) {
    let before = conditions(old, kind);
    if before.len() != conditions(new, kind).len() {
        return;
    }
    let all = list_mut(new, &["status", "conditions"]).iter_mut();
    for (after, before) in all.filter(|condition| text(condition, &["type"]) == kind).zip(before) {
        after.clone_from(before);
    }
}

fn date_conditions(old: &Value, new: &mut Value, now: Timestamp) {
    let now = timestamp(now);
    for condition in list_mut(new, &["status", "conditions"]) {
        if text(condition, &["lastUpdateTime"]).is_empty() {
            set(condition, &["lastUpdateTime"], now.as_str());
        }
        if text(condition, &["lastTransitionTime"]).is_empty() {
            let mut before = conditions(old, text(condition, &["type"])).into_iter();
            let same = before.find(|one| one["status"] == condition["status"]);
            let since = same.map_or("", |one| text(one, &["lastTransitionTime"])).to_owned();
            set(condition, &["lastTransitionTime"], if since.is_empty() { now.clone() } else { since });
        }
    }
}

pub fn validate_request(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Err(why) = subject(spec) {
        errors.invalid("spec.request", at(spec, &["request"]), &why.to_string());
    }
    validate_usages(spec, errors);
    match text(spec, &["signerName"]) {
        "" => errors.required("spec.signerName", ""),
        "kubernetes.io/legacy-unknown" => {
            let detail = "the legacy signerName is not allowed via this API version";
            errors.invalid("spec.signerName", at(spec, &["signerName"]), detail);
        }
        name => errors.check("spec.signerName", name, signer_name),
    }
    if int(spec, &["expirationSeconds"]).is_some_and(|seconds| seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid("spec.expirationSeconds", at(spec, &["expirationSeconds"]), detail);
    }
}

/// Whom a certificate is asked for: the name and the groups of whoever shows it.
#[derive(Debug)]
pub struct Subject {
    /// The last one that is given, as Go reads it.
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// The subject of the request in a CertificateSigningRequest's spec.
pub fn subject(spec: &Value) -> Result<Subject, Unreadable> {
    let blocks = blocks(at(spec, &["request"]))?;
    let block = blocks.first().filter(|block| block.label == "CERTIFICATE REQUEST");
    let (_, request) = X509CertificationRequest::from_der(&block.ok_or(Unreadable::NoRequest)?.contents)?;
    let subject = &request.certification_request_info.subject;
    let organizations = subject.iter_organization().map(|one| Ok(one.as_str()?.to_owned()));
    let common_name = subject.iter_common_name().last().map(AttributeTypeAndValue::as_str).transpose()?;
    Ok(Subject {
        common_name: common_name.unwrap_or_default().to_owned(),
        organizations: organizations.collect::<Result<_, X509Error>>()?,
    })
}

/// The blocks of PEM in the bytes of a field.
fn blocks(value: &Value) -> Result<Vec<Pem>, Unreadable> {
    let text = value.as_str().unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
    Ok(Pem::iter_from_buffer(&bytes).collect::<Result<_, _>>()?)
}

fn validate_usages(spec: &Value, errors: &mut Errors) {
    let usages = list(spec, &["usages"]);
    if usages.is_empty() {
        errors.required("spec.usages", "");
    }
    let mut seen = HashSet::new();
    for (index, usage) in usages.iter().enumerate() {
        let (here, name) = (format!("spec.usages[{index}]"), usage.as_str().unwrap_or_default());
        if !USAGES.contains(&name) {
            errors.unsupported(here.as_str(), name, USAGES);
        }
        if !seen.insert(name) {
            errors.duplicate(here, usage);
        }
    }
}

/// `example.com/name`: a domain of at least two labels, and a path of one segment.
pub fn signer_name(name: &str) -> Result<(), String> {
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        return Err(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'".to_owned()
        );
    };
    if !domain.contains('.') {
        return Err("should be a domain with at least two segments separated by dots".to_owned());
    }
    validate::subdomain(domain)?;
    // A segment may name an object and its namespace.
    if path.len() > 253 + 1 + 63 {
        return Err("must be no more than 317 bytes".to_owned());
    }
    path.split('.').try_for_each(|label| {
        validate::subdomain(label).map_err(|why| format!("validating label {label:?}: {why}"))
    })
}

/// Checks what `status` or `approval` changed.
pub fn validate_part(sub: Sub, change: &Change<'_>, errors: &mut Errors) {
    let Some(old) = change.old else { return };
    let new = &*change.new;
    validate_conditions(new, errors);
    for kind in [APPROVED, DENIED, FAILED] {
        let (before, after) = (conditions(old, kind), conditions(new, kind));
        let decides = kind != FAILED && sub != Sub::Approval;
        let why = match after.len().cmp(&before.len()) {
            std::cmp::Ordering::Less => "remove",
            std::cmp::Ordering::Greater if decides => "add",
            std::cmp::Ordering::Equal if decides && before != after => "modify",
            _ => continue,
        };
        errors.forbidden("status.conditions", &format!("updates may not {why} a condition of type {kind:?}"));
    }
    let (before, after) = (at(old, &["status", "certificate"]), at(new, &["status", "certificate"]));
    if before == after {
        return;
    }
    if !text(before, &[]).is_empty() {
        errors.forbidden("status.certificate", "updates may not modify existing certificate content");
    }
    if let Err(why) = certificates(after) {
        errors.invalid("status.certificate", after, &why.to_string());
    }
}

fn validate_conditions(request: &Value, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, condition) in list(request, &["status", "conditions"]).iter().enumerate() {
        let here = format!("status.conditions[{index}]");
        let (kind, status) = (text(condition, &["type"]), text(condition, &["status"]));
        if kind.is_empty() {
            errors.required(format!("{here}.type"), "");
        }
        let known: &[&str] = match kind {
            APPROVED | DENIED | FAILED => &["True"],
            _ => &["True", "False", "Unknown"],
        };
        if status.is_empty() {
            errors.required(format!("{here}.status"), "");
        }
        errors.one_of(format!("{here}.status"), status, known);
        let opposite = if kind == APPROVED { DENIED } else { APPROVED };
        if matches!(kind, APPROVED | DENIED) && seen.contains(opposite) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(format!("{here}.type"), at(condition, &["type"]), detail);
        }
        if !seen.insert(kind) {
            errors.duplicate(format!("{here}.type"), at(condition, &["type"]));
        }
    }
}

/// A chain of certificates in PEM and nothing else; or none.
fn certificates(value: &Value) -> Result<(), Unreadable> {
    let blocks = blocks(value)?;
    if blocks.is_empty() && value.as_str().is_some_and(str::is_empty) {
        return Ok(());
    }
    chain(blocks)
}

/// One or more certificates and nothing else.
pub fn chain(blocks: Vec<Pem>) -> Result<(), Unreadable> {
    if blocks.is_empty() {
        return Err(Unreadable::NoCertificate);
    }
    blocks.into_iter().try_for_each(|block| {
        if block.label != "CERTIFICATE" {
            return Err(Unreadable::Other(block.label));
        }
        X509Certificate::from_der(&block.contents)?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    fn encoded(text: &str) -> Value {
        json!(base64::engine::general_purpose::STANDARD.encode(text))
    }

    fn request() -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        json!({"spec": {"request": encoded(&pem), "signerName": "example.com/signer", "usages": ["client auth"]}})
    }

    #[test]
    fn a_request_says_what_for_and_of_whom() {
        let check = |mut request: Value| {
            fields(|errors| validate_request(&Change { old: None, new: &mut request }, errors))
        };
        assert_eq!(check(request()), Vec::<String>::new());
        let bad = [
            ("request", encoded("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), "spec.request"),
            ("request", json!("AAAA"), "spec.request"),
            ("signerName", json!(""), "spec.signerName"),
            ("signerName", json!("signer"), "spec.signerName"),
            ("signerName", json!("com/signer"), "spec.signerName"),
            ("signerName", json!("example.com/a/b"), "spec.signerName"),
            ("signerName", json!("kubernetes.io/legacy-unknown"), "spec.signerName"),
            ("usages", json!([]), "spec.usages"),
            ("usages", json!(["sleeping"]), "spec.usages[0]"),
            ("usages", json!(["any", "any"]), "spec.usages[1]"),
            ("expirationSeconds", json!(599), "spec.expirationSeconds"),
        ];
        for (field, value, place) in bad {
            let mut request = request();
            request["spec"][field] = value;
            assert_eq!(check(request), [place], "{field}");
        }
    }

    fn decided(conditions: &Value) -> Value {
        json!({"metadata": {}, "spec": {}, "status": {"conditions": conditions}})
    }

    #[test]
    fn what_was_decided_stays_decided() {
        let approved = json!({"type": "Approved", "status": "True"});
        let denied = json!({"type": "Denied", "status": "True"});
        let failed = json!({"type": "Failed", "status": "True"});
        let cases = [
            (Sub::Approval, json!([]), json!([approved]), vec![]),
            (Sub::Approval, json!([]), json!([approved, denied]), vec!["status.conditions[1].type"]),
            (Sub::Approval, json!([approved]), json!([]), vec!["status.conditions"]),
            (Sub::Approval, json!([failed]), json!([]), vec!["status.conditions"]),
            (
                Sub::Approval,
                json!([]),
                json!([{"type": "Approved", "status": "False"}]),
                vec!["status.conditions[0].status"],
            ),
            (Sub::Status, json!([]), json!([approved]), vec!["status.conditions"]),
            (Sub::Status, json!([]), json!([failed]), vec![]),
            (Sub::Status, json!([]), json!([failed, failed]), vec!["status.conditions[1].type"]),
            (Sub::Status, json!([]), json!([{"type": "Mine", "status": "False"}]), vec![]),
        ];
        for (sub, old, new, want) in cases {
            let (old, mut new) = (decided(&old), decided(&new));
            let found =
                fields(|errors| validate_part(sub, &Change { old: Some(&old), new: &mut new }, errors));
            assert_eq!(found, want, "{sub:?}: {new}");
        }
    }

    #[test]
    fn a_signer_cannot_rewrite_why_a_request_was_approved() {
        let now = Timestamp::from_second(100).unwrap();
        let old = decided(
            &json!([{"type": "Approved", "status": "True", "reason": "a", "lastUpdateTime": "x", "lastTransitionTime": "y"}]),
        );
        let mut new = decided(
            &json!([{"type": "Approved", "status": "True", "reason": "b"}, {"type": "Failed", "status": "True"}]),
        );
        keep_rest(Sub::Status, &old, &mut new, now);
        let stamp = "1970-01-01T00:01:40Z";
        let failed =
            json!({"type": "Failed", "status": "True", "lastUpdateTime": stamp, "lastTransitionTime": stamp});
        assert_eq!(new["status"]["conditions"], json!([old["status"]["conditions"][0], failed]));
        let mut again = decided(&json!([{"type": "Approved", "status": "True", "reason": "b"}]));
        keep_rest(Sub::Approval, &old, &mut again, now);
        let condition = &again["status"]["conditions"][0];
        let got = (&condition["reason"], &condition["lastUpdateTime"], &condition["lastTransitionTime"]);
        assert_eq!(got, (&json!("b"), &json!(stamp), &json!("y")));
    }

    #[test]
    fn what_is_issued_is_certificates_and_is_issued_once() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let issued = |value: Value| json!({"status": {"certificate": value}});
        let wrong = encoded(&pem.replace("CERTIFICATE", "NONSENSE"));
        let cases = [
            (json!(""), encoded(&pem), vec![]),
            (json!(""), encoded(&pem.repeat(2)), vec![]),
            (json!(""), wrong, vec!["status.certificate"]),
            (json!(""), encoded("nothing"), vec!["status.certificate"]),
            (encoded(&pem), encoded(&pem.repeat(2)), vec!["status.certificate"]),
        ];
        for (old, new, want) in cases {
            let (old, mut new) = (issued(old), issued(new));
            let change = Change { old: Some(&old), new: &mut new };
            assert_eq!(fields(|errors| validate_part(Sub::Status, &change, errors)), want);
        }
    }
}
