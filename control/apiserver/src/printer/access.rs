//! Tables of roles, bindings and requests for certificates.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, duration, name, wide};
use crate::tree::{at, int, list, text};

pub static ROLE: Printer = Printer {
    columns: &[NAME, column("Created At")],
    cells: |object, _| vec![name(object), at(object, &["metadata", "creationTimestamp"]).clone()],
};

pub static BINDING: Printer = Printer {
    columns: &[NAME, column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    cells: |object, now| {
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
    },
};

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
        column("SignerName"),
        column("Requestor"),
        column("RequestedDuration"),
        column("Condition"),
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
