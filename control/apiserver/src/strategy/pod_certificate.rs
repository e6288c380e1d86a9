//! Requests of kubelets for the certificates of pods (`PodCertificateRequest`, certificates.k8s.io/v1beta1).

use base64::Engine;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::Change;
use super::certificate::{Unreadable, chain, signer_name};
use crate::resources::Sub;
use crate::tree::{at, int, list, strings, text};
use crate::validate::{self, Errors};

/// Seconds a certificate may be asked for: from an hour to 91 days.
const LIFETIME: std::ops::RangeInclusive<i64> = 3600..=91 * 86_400;
/// What may have been decided, of which one at most.
const DECISIONS: &[&str] = &["Issued", "Denied", "Failed"];
const RESULT: &[&str] = &["certificateChain", "notBefore", "beginRefreshAt", "notAfter"];

pub fn validate_request(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(old) = change.old {
        errors.immutable("spec", at(old, &["spec"]), spec);
        return;
    }
    errors.check("spec.signerName", text(spec, &["signerName"]), signer_name);
    for field in ["podName", "serviceAccountName", "nodeName"] {
        errors.check(format!("spec.{field}"), text(spec, &[field]), validate::subdomain);
    }
    for field in ["podUID", "serviceAccountUID", "nodeUID"] {
        match text(spec, &[field]) {
            "" => errors.required(format!("spec.{field}"), "must not be empty"),
            uid if uid.len() > 128 => errors.too_long(format!("spec.{field}"), 128),
            _ => {}
        }
    }
    let lifetime = at(spec, &["maxExpirationSeconds"]);
    if !int(lifetime, &[]).is_some_and(|seconds| LIFETIME.contains(&seconds)) {
        let detail = format!("must be in the range [{}, {}]", LIFETIME.start(), LIFETIME.end());
        errors.invalid("spec.maxExpirationSeconds", lifetime, &detail);
    }
    for field in ["pkixPublicKey", "proofOfPossession"] {
        if !text(spec, &[field]).is_empty() {
            errors.forbidden(format!("spec.{field}"), "must not be set beside stubPKCS10Request");
        }
    }
    if let Err(why) = proven(text(spec, &["stubPKCS10Request"])) {
        errors.invalid("spec.stubPKCS10Request", &"<value omitted>".into(), &why);
    }
    for (key, _) in strings(spec, &["unverifiedUserAnnotations"]) {
        let check = |key: &str| {
            let domain = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            if key.contains('/') { validate::label_key(key) } else { Err(domain.to_owned()) }
        };
        errors.check("spec.unverifiedUserAnnotations", key, check);
    }
}

/// A request in DER, signed with the key it is about.
fn proven(request: &str) -> Result<(), String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(request);
    let bytes = bytes.map_err(|error| Unreadable::from(error).to_string())?;
    let (_, request) =
        X509CertificationRequest::from_der(&bytes).map_err(|error| Unreadable::from(error).to_string())?;
    request.verify_signature().map_err(|error| format!("the signature does not fit the key: {error}"))
}

/// What was decided and issued stays.
pub fn validate_part(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    let Some(old) = change.old else { return };
    let new = &*change.new;
    let decisions: Vec<&Value> = decisions(new);
    for decision in &decisions {
        errors.one_of("status.conditions", text(decision, &["status"]), &["True"]);
    }
    if decisions.len() > 1 {
        let detail = "there may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
        errors.invalid("status.conditions", &Value::Null, detail);
    }
    if !self::decisions(old).is_empty() && at(old, &["status"]) != at(new, &["status"]) {
        errors.forbidden("status", "a request that was issued, denied or failed does not change");
    }
    let is_issued = decisions.iter().any(|decision| text(decision, &["type"]) == "Issued");
    for field in RESULT {
        let is_set = !text(new, &["status", field]).is_empty();
        if is_issued && !is_set {
            errors.required(format!("status.{field}"), "must be set when the certificate is issued");
        } else if is_set && !is_issued {
            errors.forbidden(format!("status.{field}"), "may be set only when the certificate is issued");
        }
    }
    if is_issued && let Err(why) = issued(text(new, &["status", "certificateChain"])) {
        errors.invalid("status.certificateChain", &"<value omitted>".into(), &why.to_string());
    }
}

fn decisions(request: &Value) -> Vec<&Value> {
    let all = list(request, &["status", "conditions"]).iter();
    all.filter(|condition| DECISIONS.contains(&text(condition, &["type"]))).collect()
}

/// One or more certificates in PEM.
fn issued(text: &str) -> Result<(), Unreadable> {
    chain(Pem::iter_from_buffer(text.as_bytes()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::device_claim::tests::fields;

    fn request() -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let der = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let stub = base64::engine::general_purpose::STANDARD.encode(der.der());
        json!({"spec": {"signerName": "example.com/s", "podName": "p", "podUID": "1", "serviceAccountName": "a",
            "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "maxExpirationSeconds": 86400, "stubPKCS10Request": stub}})
    }

    #[test]
    fn a_request_names_its_pod_and_proves_its_key() {
        let check =
            |mut new: Value| fields(|errors| validate_request(&Change { old: None, new: &mut new }, errors));
        assert_eq!(check(request()), Vec::<String>::new());
        let mut forged = base64::engine::general_purpose::STANDARD
            .decode(request()["spec"]["stubPKCS10Request"].as_str().unwrap())
            .unwrap();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let forged = base64::engine::general_purpose::STANDARD.encode(forged);
        for (field, value) in [
            ("signerName", json!("s")),
            ("podName", json!("")),
            ("nodeUID", json!("")),
            ("maxExpirationSeconds", json!(3599)),
            ("maxExpirationSeconds", json!(91 * 86_400 + 1)),
            ("pkixPublicKey", json!("AAAA")),
            ("stubPKCS10Request", json!("AAAA")),
            ("stubPKCS10Request", json!(forged)),
            ("unverifiedUserAnnotations", json!({"bare": "x"})),
        ] {
            let mut request = request();
            request["spec"][field] = value;
            assert_eq!(check(request), [format!("spec.{field}")]);
        }
        let (old, mut new) = (request(), request());
        let change = Change { old: Some(&old), new: &mut new };
        assert_eq!(fields(|errors| validate_request(&change, errors)), ["spec"], "another key");
    }

    #[test]
    fn what_was_issued_is_whole_and_stays() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let issued = json!({"conditions": [{"type": "Issued", "status": "True"}], "certificateChain": pem,
            "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-02T00:00:00Z", "beginRefreshAt": "2026-01-01T12:00:00Z"});
        let check = |old: &Value, new: &Value| {
            let (old, mut new) = (json!({"status": old}), json!({"status": new}));
            fields(|errors| validate_part(Sub::Status, &Change { old: Some(&old), new: &mut new }, errors))
        };
        assert_eq!(check(&json!({}), &issued), Vec::<String>::new());
        let mut partial = issued.clone();
        partial["notAfter"] = json!("");
        assert_eq!(check(&json!({}), &partial), ["status.notAfter"]);
        let denied = json!({"conditions": [{"type": "Denied", "status": "True"}]});
        assert_eq!(check(&json!({}), &denied), Vec::<String>::new());
        assert_eq!(check(&denied, &issued), ["status"]);
        assert_eq!(check(&json!({}), &json!({"certificateChain": pem})), ["status.certificateChain"]);
    }
}
