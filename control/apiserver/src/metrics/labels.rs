//! What a request is called in metrics. Nothing a client makes up becomes a label: what is not served has none.

use http::Method;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::name::Name;
use crate::query::Query;
use crate::resources::Table;
use crate::route::Route;

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&&**self, encoder)
    }
}

/// A question, as kube-apiserver's `apiserver_request_duration_seconds` names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Asked {
    pub verb: &'static str,
    dry_run: &'static str,
    group: Option<Name>,
    version: Option<Name>,
    resource: Option<Name>,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

/// A question and the code of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    #[prometheus(flatten)]
    pub asked: Asked,
    pub code: u16,
}

/// `mutating` or `readOnly`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Inflight {
    pub request_kind: &'static str,
}

/// `success` or `failure`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Attempts {
    pub result: &'static str,
}

/// `allowed` or `denied`, and by which authoriser.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Decision {
    pub r#type: &'static str,
    pub decision: &'static str,
}

/// A deprecated version that somebody used, and the release that no longer has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Deprecated {
    pub group: Name,
    pub version: Name,
    pub resource: Name,
    pub subresource: &'static str,
    pub removed_release: String,
}

/// `create`, `update`, `delete`: what a transaction does first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Operation {
    pub operation: &'static str,
}

impl Asked {
    /// The labels of a request.
    pub fn of(table: &Table, method: &Method, route: &Route, query: &Query, applies: bool) -> Self {
        let none = Self {
            verb: plain(method),
            dry_run: if query.first("dryRun") == Some("All") { "All" } else { "" },
            group: None,
            version: None,
            resource: None,
            subresource: "",
            scope: "",
            component: "apiserver",
        };
        let Route::Resource(target) = route else { return none };
        let Some(row) = table.find(&target.group, &target.version, &target.resource) else { return none };
        let sub = row.subresource(&target.subresource);
        let connects = sub.is_some_and(|sub| sub.is_stream() && sub.name() != "log");
        Self {
            verb: if connects { "CONNECT" } else { verb(target.verb, applies) },
            group: Some(row.group.clone()),
            version: Some(row.version.clone()),
            resource: Some(row.plural.clone()),
            subresource: sub.map_or("", |sub| sub.name()),
            scope: match (target.name.is_empty() && target.verb != "create", target.namespace.is_empty()) {
                (false, _) => "resource",
                (true, false) => "namespace",
                (true, true) => "cluster",
            },
            ..none
        }
    }

    /// Whether it may last for hours, so that it counts as open and not as being worked on.
    pub fn is_long(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT") || self.subresource == "log"
    }

    /// `mutating` or `readOnly`, as kube-apiserver divides what is in flight.
    pub fn request_kind(&self) -> &'static str {
        if matches!(self.verb, "GET" | "LIST" | "WATCH" | "HEAD" | "OPTIONS") {
            "readOnly"
        } else {
            "mutating"
        }
    }
}

fn verb(verb: &str, applies: bool) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if applies => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        _ => "DELETECOLLECTION",
    }
}

fn plain(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
