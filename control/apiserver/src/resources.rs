//! The table of kinds. Routes, discovery, OpenAPI, tables, storage keys, selectors and watches derive from these rows.

use serde_json::Value;

use crate::printer::{self, Printer};
use crate::schema::{Node, schema};
use crate::strategy::{self, Change};
use crate::validate::Errors;

mod rows;

pub use rows::RESOURCES;

/// One kind that is served.
#[derive(Debug)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// What follows `/registry/` in keys; rows with the same storage show the same objects.
    pub storage: &'static str,
    pub subresources: &'static [Sub],
    /// Fields a field selector may name, and where they are.
    pub selectable: &'static [(&'static str, &'static [&'static str])],
    /// Reviews: created, answered, never stored.
    pub review: bool,
    /// A PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// A PUT without resourceVersion overwrites whatever is there.
    pub unconditional_update: bool,
    /// `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// A deletion answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// What does not happen yet with objects of this kind; whoever creates one is warned with this sentence.
    pub missing: &'static str,
    /// Fields that have another name in storage: (here, there).
    pub renamed: &'static [(&'static str, &'static str)],
    /// Syntax of `metadata.name`.
    pub name: fn(&str) -> Result<(), String>,
    /// Defaults that depend on other fields.
    pub defaults: fn(&mut Value),
    /// Sets what the server decides, on create and update of the main resource.
    pub prepare: fn(&mut Change<'_>),
    pub validate: fn(&Change<'_>, &mut Errors),
    pub printer: &'static Printer,
}

/// A path below an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sub {
    Status,
    Scale,
    Binding,
    Eviction,
    EphemeralContainers,
    Resize,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
    Token,
    Finalize,
}

impl Sub {
    /// The name in paths and RBAC rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Token => "token",
            Self::Finalize => "finalize",
        }
    }

    /// Verbs as discovery shows them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::EphemeralContainers | Self::Resize => {
                &["get", "patch", "update"]
            }
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Finalize => &["update"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
        }
    }

    /// Group, version and kind of what is exchanged, when it is not the object's own kind.
    pub fn kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            _ => None,
        }
    }
}

/// What most rows have in common.
pub const BASE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short: &[],
    categories: &[],
    namespaced: true,
    storage: "",
    subresources: &[],
    selectable: &[],
    review: false,
    create_on_update: false,
    unconditional_update: true,
    generation: false,
    returns_deleted: false,
    missing: "",
    renamed: &[],
    name: crate::validate::subdomain,
    defaults: strategy::no_defaults,
    prepare: strategy::no_preparation,
    validate: strategy::no_validation,
    printer: &printer::NAME_AND_AGE,
};

/// The row of a group and plural.
pub fn find(group: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|row| row.group == group && row.plural == plural)
}

/// The row of a plural that is known to exist.
pub fn known(group: &str, plural: &str) -> &'static Resource {
    find(group, plural).expect("the caller names a row of the table")
}

impl Resource {
    /// `deployments.apps`, or `pods` in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn singular(&self) -> String {
        self.kind.to_ascii_lowercase()
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
        if self.review || self.plural == "bindings" {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// The schema of the kind.
    pub fn node(&self) -> Node {
        let id = schema().kind(self.group, self.version, self.kind).expect("every row's kind has a schema");
        schema().root(id)
    }

    /// The row under whose names the objects are stored.
    pub fn stored_as(&self) -> &'static Resource {
        let own =
            RESOURCES.iter().find(|row| row.storage == self.storage && row.renamed.is_empty() && !row.review);
        own.expect("every storage has a row without renamed fields")
    }

    /// Whether the kind has a status apart from its spec.
    pub fn has_status(&self) -> bool {
        self.has(Sub::Status)
    }
}
