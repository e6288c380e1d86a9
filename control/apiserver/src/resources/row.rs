//! A kind as it is served: from the table of this build, or made from a CustomResourceDefinition.

use std::sync::OnceLock;

use serde_json::Value;

use super::{Custom, Deprecation, Resource, Sub};
use crate::conversion::Conversion;
use crate::name::Name;
use crate::printer::Columns;
use crate::schema::{Node, schema};
use crate::strategy::Change;
use crate::validate::Errors;

/// One kind in one version. The fields mean what they mean in [`Resource`].
#[derive(Debug)]
pub struct Row {
    pub group: Name,
    pub version: Name,
    pub kind: Name,
    pub list_kind: Name,
    pub plural: Name,
    pub singular: Name,
    pub short: Vec<Name>,
    pub categories: Vec<Name>,
    pub namespaced: bool,
    pub storage: Name,
    pub subresources: Vec<Sub>,
    pub selectable: Vec<(Name, Vec<Name>)>,
    pub review: bool,
    pub computed: bool,
    pub create_on_update: bool,
    pub unconditional_update: bool,
    pub generation: bool,
    pub returns_deleted: bool,
    pub leaves_dependents: bool,
    pub lifetime: u64,
    pub missing: &'static str,
    pub deprecation: Option<Deprecation>,
    pub conversion: Option<&'static Conversion>,
    pub name: fn(&str) -> Result<(), String>,
    pub defaults: fn(&mut Value),
    pub prepare: fn(&mut Change<'_>),
    pub validate: fn(&Change<'_>, &mut Errors),
    pub validate_version: fn(&Change<'_>, &mut Errors),
    pub warnings: fn(&Change<'_>) -> Vec<String>,
    pub validate_part: fn(Sub, &Change<'_>, &mut Errors),
    pub printer: Columns,
    /// The schema of the kind, made when it is first needed.
    pub(crate) schema: OnceLock<Node>,
    /// For rows made at run time.
    pub custom: Option<Box<Custom>>,
}

fn names(words: &[&str]) -> Vec<Name> {
    words.iter().map(|word| Name::from(*word)).collect()
}

impl Row {
    /// The row of an entry of the table.
    pub fn of(entry: &Resource) -> Self {
        let mut row = Self {
            group: entry.group.into(),
            version: entry.version.into(),
            kind: entry.kind.into(),
            list_kind: Name::from(&*format!("{}List", entry.kind)),
            plural: entry.plural.into(),
            singular: Name::from(&*entry.kind.to_ascii_lowercase()),
            short: names(entry.short),
            categories: names(entry.categories),
            namespaced: entry.namespaced,
            storage: entry.storage.into(),
            subresources: entry.subresources.to_vec(),
            selectable: entry.selectable.iter().map(|(field, path)| ((*field).into(), names(path))).collect(),
            review: entry.review,
            computed: entry.computed,
            create_on_update: entry.create_on_update,
            unconditional_update: entry.unconditional_update,
            generation: entry.generation,
            returns_deleted: entry.returns_deleted,
            leaves_dependents: entry.leaves_dependents,
            lifetime: entry.lifetime,
            missing: entry.missing,
            deprecation: None,
            conversion: entry.conversion,
            name: entry.name,
            defaults: entry.defaults,
            prepare: entry.prepare,
            validate: entry.validate,
            validate_version: entry.validate_version,
            warnings: entry.warnings,
            validate_part: entry.validate_part,
            printer: Columns::fixed(entry.printer),
            schema: OnceLock::new(),
            custom: None,
        };
        row.deprecation = entry.deprecated.map(|deprecated| deprecated.told(&row.api_version(), entry.kind));
        row
    }

    /// A kind that is exchanged only below other resources, such as a TokenRequest.
    pub fn unlisted(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self::of(&Resource { group, version, kind, ..super::BASE })
    }

    /// The schema of the kind.
    pub fn node(&self) -> &Node {
        self.schema.get_or_init(|| match &self.custom {
            Some(custom) => custom.schema(),
            None => {
                let id = schema().kind(&self.group, &self.version, &self.kind);
                schema().root(id.expect("every row of this build has a schema"))
            }
        })
    }

    /// The plural of a kind of this build, for rules that only such a kind has. Empty for custom kinds, which may be called
    /// the same: there are others' services, roles and events.
    pub fn own(&self) -> &str {
        if self.custom.is_some() { "" } else { &self.plural }
    }

    /// `deployments.apps`, or `pods` in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn has(&self, sub: Sub) -> bool {
        self.subresources.contains(&sub)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<Sub> {
        self.subresources.iter().copied().find(|sub| sub.name() == name)
    }

    /// Verbs as discovery shows them.
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.review || self.own() == "bindings" {
            &["create"]
        } else if self.computed {
            &["get", "list"]
        } else if self.custom.as_ref().is_some_and(|custom| custom.terminating) {
            &["delete", "deletecollection", "get", "list", "watch"]
        } else if self.custom.is_some() {
            // In upstream's order, which is another for them.
            &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        } else if self.own() == "namespaces" {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// Whether there are objects of the kind in the store.
    pub fn is_kept(&self) -> bool {
        !self.review && !self.computed
    }

    /// Whether the kind has a status apart from its spec.
    pub fn has_status(&self) -> bool {
        self.has(Sub::Status)
    }
}
