//! Who asks for a certificate, and who may approve and sign it: upstream's admission of certificates.

use serde_json::{Value, json};

use crate::api::Call;
use crate::auth::{Attempt, MASTERS};
use crate::resources::Sub;
use crate::status::{Refusal, Result};
use crate::strategy::certificate::{Subject, subject};
use crate::tree::{at, remove, set, text};

/// Signs certificates with which clients are known to the API server.
const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";

/// Writes down who asks, and refuses to make an administrator of anybody.
pub fn create(call: &Call, request: &mut Value) -> Result<()> {
    let user = &call.user;
    let said = [
        ("username", json!(user.name)),
        ("uid", json!(user.uid)),
        ("groups", json!(user.groups)),
        ("extra", json!(user.extra)),
    ];
    for (field, value) in said {
        let nothing = value == "" || value == json!([]) || value == json!({});
        if nothing {
            remove(request, &["spec", field]);
        } else {
            set(request, &["spec", field], value);
        }
    }
    let spec = at(request, &["spec"]);
    let masters = |subject: Subject| subject.organizations.iter().any(|group| group == MASTERS);
    // What cannot be read is for validation to refuse.
    if text(spec, &["signerName"]) == CLIENTS && subject(spec).is_ok_and(masters) {
        let why = format!("use of {CLIENTS} signer with {MASTERS} group is not allowed");
        return Err(Refusal::forbidden(&call.row, text(request, &["metadata", "name"]), &why));
    }
    Ok(())
}

/// Whoever approves or signs must be allowed to for the signer that the request has had all along.
pub fn part(call: &Call, sub: Sub, old: &Value, new: &Value) -> Result<()> {
    let changed = |field: &str| at(old, &["status", field]) != at(new, &["status", field]);
    let verb = match sub {
        Sub::Approval => "approve",
        Sub::Status if changed("certificate") || changed("conditions") => "sign",
        _ => return Ok(()),
    };
    let signer = text(old, &["spec", "signerName"]);
    if may(call, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Refusal::forbidden(&call.row, &call.target.name, &why))
}

/// Whoever says whom clients of a signer are to trust must be allowed to for that signer.
pub fn attest(call: &Call, old: Option<&Value>, new: &Value) -> Result<()> {
    let signer = text(new, &["spec", "signerName"]);
    if signer.is_empty() || old.is_some_and(|old| old["spec"] == new["spec"]) || may(call, "attest", signer) {
        return Ok(());
    }
    let why = format!("user not permitted to attest for signerName {signer:?}");
    Err(Refusal::forbidden(&call.row, text(new, &["metadata", "name"]), &why))
}

/// Whether the user may do something for a signer, or for all of its domain.
fn may(call: &Call, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let attempt = Attempt::resource(verb, &call.row.group, "signers", "", name);
        call.api.allows(&call.user, &attempt)
    })
}
