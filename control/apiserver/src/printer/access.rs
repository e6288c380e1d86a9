//! Tables of roles and bindings.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, name, wide};
use crate::tree::{at, list, text};

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
