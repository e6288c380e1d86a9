//! From a stored CustomResourceDefinition to the rows it stands for.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::Digest;

use super::condition_is;
use crate::name::Name;
use crate::object::{self, Stored};
use crate::printer::paths::PathColumn;
use crate::printer::{Columns, of_metadata};
use crate::resources::{BASE, Custom, Deprecation, Resource, Row, Scale, Sub};
use crate::tree::{at, flag, list, text};

/// What custom resources have in common.
const CUSTOM: Resource = Resource { unconditional_update: false, generation: true, ..BASE };

/// A row for every version that is served; none before the names are accepted. `before` are the rows of the definition
/// until now.
pub fn rows(definition: &Stored, tree: &Value, before: &[Arc<Row>]) -> Vec<Arc<Row>> {
    if !condition_is(tree, "Established", "True") {
        return Vec::new();
    }
    let versions = list(tree, &["spec", "versions"]).iter().enumerate();
    let served = versions.filter(|(_, version)| flag(version, &["served"]));
    served.map(|(position, version)| Arc::new(row(definition, tree, position, version, before))).collect()
}

/// The row of the version in which objects are stored, whether it is served or not.
pub fn stored(definition: &Stored) -> Option<Row> {
    let tree = object::decode(definition);
    let (position, version) = list(&tree, &["spec", "versions"])
        .iter()
        .enumerate()
        .find(|(_, version)| flag(version, &["storage"]))?;
    let named = !text(&tree, &["status", "acceptedNames", "plural"]).is_empty();
    named.then(|| row(definition, &tree, position, version, &[]))
}

fn row(definition: &Stored, tree: &Value, position: usize, version: &Value, before: &[Arc<Row>]) -> Row {
    let names = at(tree, &["status", "acceptedNames"]);
    let word = |field: &str| Name::from(text(names, &[field]));
    let words = |field: &str| {
        list(names, &[field]).iter().filter_map(Value::as_str).map(Name::from).collect::<Vec<_>>()
    };
    let group = text(tree, &["spec", "group"]);
    let version_name = text(version, &["name"]);
    let mut custom = custom(definition, tree, position, version);
    // A schema that did not change leaves what was written under it as it is.
    let same = before.iter().filter(|row| row.version == *version_name).filter_map(|row| row.custom.as_ref());
    if let Some(same) = same.into_iter().find(|same| same.digest == custom.digest) {
        custom.since = same.since;
    }
    let mut subresources = Vec::new();
    if at(version, &["subresources", "status"]).is_object() {
        subresources.push(Sub::Status);
    }
    if custom.scale.is_some() {
        subresources.push(Sub::Scale);
    }
    Row {
        group: group.into(),
        version: version_name.into(),
        kind: word("kind"),
        list_kind: word("listKind"),
        plural: word("plural"),
        singular: word("singular"),
        short: words("shortNames"),
        categories: words("categories"),
        namespaced: text(tree, &["spec", "scope"]) == "Namespaced",
        storage: Name::from(&*format!("{group}/{}", text(names, &["plural"]))),
        subresources,
        selectable: list(version, &["selectableFields"]).iter().map(selectable).collect(),
        printer: Columns::Paths(columns(version)),
        deprecation: deprecation(tree, version),
        custom: Some(Box::new(custom)),
        ..Row::of(&CUSTOM)
    }
}

fn custom(definition: &Stored, tree: &Value, position: usize, version: &Value) -> Custom {
    let group = text(tree, &["spec", "group"]);
    let stored = list(tree, &["spec", "versions"]).iter().find(|one| flag(one, &["storage"]));
    let stored_version = format!("{group}/{}", stored.map_or("", |version| text(version, &["name"])));
    let alone = list(tree, &["spec", "versions"]).len() == 1;
    let names = at(tree, &["status", "acceptedNames"]);
    let seen = json!([version, names, at(tree, &["spec", "scope"]), stored_version, alone]);
    Custom {
        definition: Arc::clone(definition),
        position,
        stored_version,
        alone,
        since: definition.mod_revision,
        digest: crate::documents::discovery::hex(&sha2::Sha256::digest(seen.to_string())),
        terminating: condition_is(tree, "Terminating", "True"),
        scale: scale(at(version, &["subresources", "scale"])),
    }
}

fn scale(given: &Value) -> Option<Scale> {
    let path = |field: &str| steps(text(given, &[field]));
    given.is_object().then(|| Scale {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: Some(path("labelSelectorPath")).filter(|path| !path.is_empty()),
    })
}

fn deprecation(tree: &Value, version: &Value) -> Option<Deprecation> {
    let name = format!("{}/{}", text(tree, &["spec", "group"]), text(version, &["name"]));
    let own = at(version, &["deprecationWarning"]).as_str().map(str::to_owned);
    let kind = text(tree, &["spec", "names", "kind"]);
    flag(version, &["deprecated"]).then(|| Deprecation {
        sentence: own.unwrap_or_else(|| format!("{name} {kind} is deprecated")),
        removed_release: String::new(),
    })
}

fn selectable(given: &Value) -> (Name, Vec<Name>) {
    let path = text(given, &["jsonPath"]);
    (Name::from(path.trim_start_matches('.')), steps(path))
}

/// The names of a path like `.spec.replicas`.
fn steps(path: &str) -> Vec<Name> {
    path.split('.').filter(|step| !step.is_empty()).map(Name::from).collect()
}

fn columns(version: &Value) -> Vec<PathColumn> {
    let given = list(version, &["additionalPrinterColumns"]);
    if given.is_empty() {
        let age = json!({ "name": "Age", "type": "date", "description": of_metadata("creationTimestamp"),
                          "jsonPath": ".metadata.creationTimestamp" });
        return vec![PathColumn::read(&age)];
    }
    given.iter().map(PathColumn::read).collect()
}
