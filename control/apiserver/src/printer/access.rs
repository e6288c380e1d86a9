//! Tables of roles, bindings and requests for certificates.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, duration, name, wide};
use crate::tree::{int, list, text};

pub static ROLE_BINDING: Printer = Printer {
    columns: &[
        NAME,
        column("Role").of("rbac.v1.RoleBinding", "roleRef"),
        AGE,
        wide("Users").says("Users in the roleBinding"),
        wide("Groups").says("Groups in the roleBinding"),
        wide("ServiceAccounts").says("ServiceAccounts in the roleBinding"),
    ],
    cells: binding,
};

pub static CLUSTER_ROLE_BINDING: Printer = Printer {
    columns: &[
        NAME,
        column("Role").of("rbac.v1.ClusterRoleBinding", "roleRef"),
        AGE,
        wide("Users").says("Users in the clusterRoleBinding"),
        wide("Groups").says("Groups in the clusterRoleBinding"),
        wide("ServiceAccounts").says("ServiceAccounts in the clusterRoleBinding"),
    ],
    cells: binding,
};

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", text(object, &["roleRef", "kind"]), text(object, &["roleRef", "name"]));
    let subjects = |kind: &str| json!(subjects(object, kind));
    vec![
        name(object),
        json!(role),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let of_kind = list(binding, &["subjects"]).iter().filter(|subject| text(subject, &["kind"]) == kind);
    let names: Vec<String> = of_kind
        .map(|subject| match text(subject, &["namespace"]) {
            "" => text(subject, &["name"]).to_owned(),
            namespace => format!("{namespace}/{}", text(subject, &["name"])),
        })
        .collect();
    names.join(", ")
}

pub static SIGNING_REQUEST: Printer = Printer {
    columns: &[
        NAME,
        AGE,
        column("SignerName").of("certificates.v1.CertificateSigningRequestSpec", "signerName"),
        column("Requestor").of("certificates.v1.CertificateSigningRequestSpec", "request"),
        column("RequestedDuration").of("certificates.v1.CertificateSigningRequestSpec", "expirationSeconds"),
        column("Condition").of("certificates.v1.CertificateSigningRequestStatus", "conditions"),
    ],
    cells: |object, now| {
        let seconds = int(object, &["spec", "expirationSeconds"]);
        vec![
            name(object),
            age(object, now),
            json!(text(object, &["spec", "signerName"])),
            json!(text(object, &["spec", "username"])),
            json!(seconds.map_or("<none>".to_owned(), duration)),
            json!(decision(object)),
        ]
    },
};

/// What became of a request for a certificate.
fn decision(request: &Value) -> String {
    let conditions = list(request, &["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|condition| text(condition, &["type"]) == kind);
    let mut state = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(request, &["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state
}
