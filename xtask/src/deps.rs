//! Who may use whom: the table of rooms, held against what Cargo.toml files say.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output};

/// A crate, the crates of ours it may use, and what it must never use.
const ROOMS: &[(&str, &[&str], &[&str])] = &[
    ("abi", &[], &["tokio", "kube"]),
    ("prog", &["abi"], &["aya", "tokio", "kube"]),
    ("ebpf-test", &["abi"], &["kube"]),
    ("store", &[], &["kube", "k8s-openapi", "hyper"]),
    ("cron", &[], &["kube", "k8s-openapi", "tokio"]),
    ("apiserver", &["cron", "store"], &["kube", "aya", "redb"]),
    ("scheduler", &[], &["redb", "aya", "hyper"]),
    ("controllers", &["cron"], &["redb", "aya", "hyper"]),
    ("control", &["apiserver", "controllers", "scheduler", "store"], &["aya", "redb"]),
    ("cni", &[], &["aya", "rtnetlink", "kube", "k8s-openapi"]),
    ("agent", &["abi", "cni"], &["redb"]),
    ("e2e", &[], &["aya", "redb"]),
    ("fuzz", &["apiserver", "cni"], &["aya", "kube"]),
    ("xtask", &[], &["tokio", "kube"]),
];

/// Fails with every edge that is not in the table.
pub fn check() -> Result<()> {
    let mut packages = Vec::new();
    for workspace in ["Cargo.toml", "fuzz/Cargo.toml"] {
        packages.extend(packages_of(workspace)?);
    }
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        wrong.extend(wrong_edges(package, &ours)?);
    }
    if !wrong.is_empty() {
        bail!("the table in xtask/src/deps.rs does not allow:\n  {}", wrong.join("\n  "));
    }
    println!("deps: {} crates keep to the table", packages.len());
    Ok(())
}

fn packages_of(workspace: &str) -> Result<Vec<Value>> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", workspace];
    let text = output(cargo().args(arguments))?;
    let metadata: Value = serde_json::from_str(&text).context("read what `cargo metadata` printed")?;
    metadata["packages"].as_array().cloned().context("`cargo metadata` lists no packages")
}

fn wrong_edges(package: &Value, ours: &BTreeSet<&str>) -> Result<Vec<String>> {
    let name = package["name"].as_str().context("a package has a name")?;
    let Some((_, may, never)) = ROOMS.iter().find(|(room, ..)| *room == name) else {
        return Ok(vec![format!("{name}: a crate that is not in the table")]);
    };
    let dependencies = package["dependencies"].as_array().context("a package lists its dependencies")?;
    let mut wrong = Vec::new();
    for dependency in dependencies.iter().filter_map(|dependency| dependency["name"].as_str()) {
        let is_foreign_room = ours.contains(dependency) && !may.contains(&dependency);
        if is_foreign_room || never.contains(&dependency) {
            wrong.push(format!("{name} -> {dependency}"));
        }
    }
    Ok(wrong)
}
