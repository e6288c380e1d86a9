//! The table of kinds. Routes, discovery, OpenAPI, tables, storage keys, selectors and watches derive from its rows.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::conversion::Conversion;
use crate::printer::{self, Printer};
use crate::strategy::{self, Change};
use crate::validate::Errors;

mod custom;
mod families;
mod previews;
mod row;
mod rows;
mod runtime_config;
mod table;

pub use custom::{Custom, Scale};
pub use row::Row;
pub use rows::RESOURCES;
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use table::Table;

/// One kind of this build, as `rows.rs` writes it; [`Row`] is what the rest of the server sees.
#[derive(Debug, Clone, Copy)]
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
    /// Told from what the server sees: read, never written or stored.
    pub computed: bool,
    /// A PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// A PUT without resourceVersion overwrites whatever is there.
    pub unconditional_update: bool,
    /// `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// A deletion answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Who deletes one without saying what becomes of its dependents leaves them, as the first versions of Kubernetes did.
    pub leaves_dependents: bool,
    /// Seconds after its last write at which an object is deleted; 0: never.
    pub lifetime: u64,
    /// What does not happen yet with objects of this kind; whoever creates one is warned with this sentence.
    pub missing: &'static str,
    /// Since when users are to turn to something else.
    pub deprecated: Option<Deprecated>,
    /// How objects come into the version they are stored in, where that is another, and back.
    pub conversion: Option<&'static Conversion>,
    /// Syntax of `metadata.name`.
    pub name: fn(&str) -> Result<(), String>,
    /// Defaults that depend on other fields.
    pub defaults: fn(&mut Value),
    /// Sets what the server decides, on create and update of the main resource.
    pub prepare: fn(&mut Change<'_>),
    pub validate: fn(&Change<'_>, &mut Errors),
    /// What those who write in this version are held to besides, of the object as it is stored.
    pub validate_version: fn(&Change<'_>, &mut Errors),
    /// With what whoever creates or updates one is warned, when it is valid.
    pub warnings: fn(&Change<'_>) -> Vec<String>,
    /// Checks what a subresource changed.
    pub validate_part: fn(Sub, &Change<'_>, &mut Errors),
    pub printer: &'static Printer,
}

/// How long a version is still served.
#[derive(Debug, Clone, Copy)]
pub struct Deprecated {
    /// The minor release since which it is deprecated.
    pub since: u8,
    /// The minor release that no longer serves it.
    pub gone: Option<u8>,
    /// The version and kind to use.
    pub instead: Option<&'static str>,
}

impl Deprecated {
    /// What users of a version and kind are told.
    fn told(self, api_version: &str, kind: &str) -> Deprecation {
        let gone = self.gone.map(|minor| format!(", unavailable in v1.{minor}+")).unwrap_or_default();
        let instead = self.instead.map(|instead| format!("; use {instead}")).unwrap_or_default();
        Deprecation {
            sentence: format!("{api_version} {kind} is deprecated in v1.{}+{gone}{instead}", self.since),
            removed_release: self.gone.map(|minor| format!("1.{minor}")).unwrap_or_default(),
        }
    }
}

/// That a version is deprecated.
#[derive(Debug, Clone)]
pub struct Deprecation {
    /// With which its users are warned.
    pub sentence: String,
    /// The release that no longer serves it, such as `1.39`; empty where none is named.
    pub removed_release: String,
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
    Approval,
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
            Self::Approval => "approval",
        }
    }

    /// Whether it answers with bytes that are no object.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Log | Self::Exec | Self::Attach | Self::PortForward | Self::Proxy)
    }

    /// Verbs as discovery shows them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::EphemeralContainers | Self::Resize | Self::Approval => {
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
    computed: false,
    create_on_update: false,
    unconditional_update: true,
    generation: false,
    returns_deleted: false,
    leaves_dependents: false,
    lifetime: 0,
    missing: "",
    deprecated: None,
    conversion: None,
    name: crate::validate::subdomain,
    defaults: strategy::no_defaults,
    prepare: strategy::no_preparation,
    validate: strategy::no_validation,
    validate_version: strategy::no_validation,
    warnings: strategy::no_warnings,
    validate_part: strategy::no_validation_of_parts,
    printer: &printer::NAME_AND_AGE,
};

/// The table of this build: also what is served only when it is asked for, see [`RuntimeConfig`].
pub fn builtin() -> Arc<Table> {
    Arc::clone(&BUILTIN)
}

static BUILTIN: LazyLock<Arc<Table>> = LazyLock::new(|| {
    let all = RESOURCES.iter().copied().chain(previews::previews());
    Arc::new(Table::new(all.map(|entry| Arc::new(Row::of(&entry))).collect()))
});

/// The row of this build with a group and plural.
pub fn find(group: &str, plural: &str) -> Option<&'static Row> {
    BUILTIN.named(plural).iter().find(|row| row.group == *group).map(|row| &**row)
}

/// The row of this build that shows the objects of a storage, which rows of several versions share, in this version.
pub fn of_version(storage: &str, api_version: &str) -> Option<&'static Row> {
    static SHARED: LazyLock<Vec<&'static Row>> = LazyLock::new(|| {
        let rows = || BUILTIN.rows().iter().map(|row| &**row);
        let shared = |row: &&Row| rows().any(|one| one.conversion.is_some() && one.storage == row.storage);
        rows().filter(shared).collect()
    });
    SHARED.iter().copied().find(|row| *row.storage == *storage && row.api_version() == api_version)
}

/// The row whose objects have this storage, in the version they are stored in.
pub fn stored(storage: &str) -> Option<&'static Row> {
    static BY_STORAGE: LazyLock<HashMap<&'static str, &'static Row>> = LazyLock::new(|| {
        let plain = |row: &&Arc<Row>| row.conversion.is_none() && row.is_kept();
        BUILTIN.rows().iter().filter(plain).map(|row| (&*row.storage, &**row)).collect()
    });
    BY_STORAGE.get(storage).copied()
}

/// The row of a plural that is known to exist.
pub fn known(group: &str, plural: &str) -> &'static Row {
    find(group, plural).expect("the caller names a row of the table")
}
