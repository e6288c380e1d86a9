//! Objects that Kubernetes publishes in both forms with every field set, as its generated code writes them.
//!
//! They come with the library that `cargo xtask clients` unpacks, which names their folder in `HAWSER_PUBLISHED`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{decode, tree};
use crate::resources::{self, Row};
use crate::schema::decode::from_slice;

/// Groups of which nothing is published there.
const ELSEWHERE: &[&str] = &["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// An object as a client sends it: what is unknown is named, times have their form.
fn sent(row: &Row, object: &Value) -> (Value, Vec<String>) {
    let decoded = from_slice(row.node(), object.to_string().as_bytes()).unwrap();
    (decoded.value, decoded.strange)
}

fn compare(folder: &Path, row: &Row) {
    let group = if row.group.is_empty() { "core" } else { &*row.group };
    let read = |form| {
        let file = folder.join(format!("{group}.{}.{}.{form}", row.version, row.kind));
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    let published: Value = serde_json::from_slice(&read("json")).unwrap();
    let (want, strange) = sent(row, &published);
    assert!(strange.is_empty(), "{} does not know {strange:?}", row.qualified());
    let name = &*row.node().object().unwrap().name;
    let (found, _) = sent(row, &decode(name, &read("pb")).unwrap());
    assert_eq!(found, want, "{} is read from protobuf as what it is in JSON", row.qualified());
    let written = tree(&published).expect("the kind has a message").unwrap();
    let (again, _) = sent(row, &decode(name, &written).unwrap());
    assert_eq!(again, want, "{} is written to protobuf with every field", row.qualified());
}

#[test]
fn what_kubernetes_publishes_is_read_and_written_with_every_field() {
    let Some(folder) = std::env::var_os("HAWSER_PUBLISHED").map(PathBuf::from) else {
        println!("skipped: no published objects; `cargo xtask clients` brings them");
        return;
    };
    let builtin = resources::builtin();
    let rows: Vec<_> = builtin.rows().iter().filter(|row| !ELSEWHERE.contains(&&*row.group)).collect();
    rows.iter().for_each(|row| compare(&folder, row));
    println!("{} kinds were compared", rows.len());
}
