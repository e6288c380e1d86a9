//! Bundles of trust anchors (`ClusterTrustBundle`, certificates.k8s.io/v1beta1).

use std::collections::HashSet;

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Change;
use super::certificate::{Unreadable, signer_name};
use crate::tree::{at, text};
use crate::validate::{self, Errors};

/// Bytes of a bundle, as upstream.
const MAX_BUNDLE: usize = 1 << 20;

/// Bundles of a signer are named after it: `example.com:mysigner:name`.
pub fn bundle_name(name: &str) -> Result<(), String> {
    name.split(':').try_for_each(validate::path_segment)
}

pub fn validate_bundle(change: &Change<'_>, errors: &mut Errors) {
    let (name, spec) = (at(change.new, &["metadata", "name"]), at(change.new, &["spec"]));
    let signer = text(spec, &["signerName"]);
    validate_owned_name(text(name, &[]), signer, errors);
    if !signer.is_empty() {
        errors.check("spec.signerName", signer, signer_name);
    }
    if let Some(old) = change.old {
        errors.immutable("spec.signerName", at(old, &["spec", "signerName"]), at(spec, &["signerName"]));
    }
    let bundle = text(spec, &["trustBundle"]);
    if bundle.len() > MAX_BUNDLE {
        errors.too_long("spec.trustBundle", MAX_BUNDLE);
    } else if let Err(why) = anchors(bundle) {
        errors.invalid("spec.trustBundle", &"<value omitted>".into(), &why);
    }
}

fn validate_owned_name(name: &str, signer: &str, errors: &mut Errors) {
    if signer.is_empty() {
        if name.contains(':') {
            let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
            errors.invalid("metadata.name", &name.into(), detail);
        }
        errors.check("metadata.name", name, validate::subdomain);
        return;
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&*prefix) {
        Some(rest) => errors.check("metadata.name", rest, validate::subdomain),
        None => {
            let detail =
                format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
            errors.invalid("metadata.name", &name.into(), &detail);
        }
    }
}

/// Certificates in PEM, each once, and at least one.
fn anchors(bundle: &str) -> Result<(), String> {
    let blocks = Pem::iter_from_buffer(bundle.as_bytes()).collect::<Result<Vec<_>, _>>();
    let blocks = blocks.map_err(|error| Unreadable::from(error).to_string())?;
    let mut seen = HashSet::new();
    for (index, block) in blocks.iter().enumerate() {
        if block.label != "CERTIFICATE" {
            return Err(format!("entry {index} has bad block type: {}", block.label));
        }
        X509Certificate::from_der(&block.contents)
            .map_err(|error| format!("entry {index} does not parse as X.509: {}", Unreadable::from(error)))?;
        if !seen.insert(&block.contents) {
            return Err(format!("entry {index} is a duplicate of another entry"));
        }
    }
    if seen.is_empty() { Err("at least one trust anchor must be provided".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::device_claim::tests::fields;

    #[test]
    fn a_bundle_is_of_its_signer_and_holds_anchors() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let check = |name: &str, signer: &str, bundle: &str| {
            let mut new =
                json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": bundle}});
            fields(|errors| validate_bundle(&Change { old: None, new: &mut new }, errors))
        };
        assert_eq!(check("mine", "", &pem), Vec::<String>::new());
        assert_eq!(check("example.com:s:mine", "example.com/s", &pem), Vec::<String>::new());
        assert_eq!(check("mine", "example.com/s", &pem), ["metadata.name"]);
        assert_eq!(check("a:b", "", &pem), ["metadata.name", "metadata.name"]);
        assert_eq!(check("s:mine", "s", &pem), ["spec.signerName"]);
        for bundle in ["", "nothing", &pem.repeat(2), &pem.replace("CERTIFICATE", "PUBLIC KEY")] {
            assert_eq!(check("mine", "", bundle), ["spec.trustBundle"], "{bundle}");
        }
        assert!(bundle_name("a/b").is_err() && bundle_name("example.com:s:mine").is_ok());
    }
}
