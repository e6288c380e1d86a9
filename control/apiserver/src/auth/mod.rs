//! Who a request comes from, and whether that may do what it asks.

pub mod authenticate;
mod bootstrap_token;
pub mod escalation;
pub mod legacy_token;
pub mod node;
pub mod rbac;
pub mod token;
mod volumes;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::query::Query;
use crate::route::{Route, Target};

/// An authenticated identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Who sends neither certificate nor token.
const ANONYMOUS: &str = "system:anonymous";

impl User {
    /// A user with these groups and `system:authenticated`.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ];
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.to_owned(),
            groups: groups.to_vec(),
            extra: BTreeMap::new(),
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The `userInfo` of reviews.
    pub fn json(&self) -> Value {
        let mut out = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            out["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            out["extra"] = json!(self.extra);
        }
        out
    }
}

/// What a request wants to do, as authorisers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    Resource {
        verb: String,
        group: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
        /// The node whose objects a field selector narrows a list, a watch or a deletion to.
        node: String,
    },
    Path {
        verb: String,
        path: String,
    },
}

/// The value to which a field selector narrows a field.
fn selected<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    let terms = selector.split(',');
    let mut values = terms.filter_map(|term| term.trim().strip_prefix(field)?.strip_prefix('='));
    values.next().map(|value| value.trim_start_matches('=')).filter(|value| !value.is_empty())
}

impl Attempt {
    /// The attempt a route stands for. A list or watch narrowed to one name counts as one of that name.
    pub fn of(route: &Route, query: &Query) -> Self {
        match route {
            Route::Resource(target) => {
                let mut attempt = Self::on(target);
                if let Self::Resource { verb, name, node, .. } = &mut attempt
                    && matches!(verb.as_str(), "list" | "watch" | "deletecollection")
                    && let Some(selector) = query.first("fieldSelector")
                {
                    if verb != "deletecollection"
                        && let Some(only) = selected(selector, "metadata.name")
                    {
                        only.clone_into(name);
                    }
                    selected(selector, "spec.nodeName").unwrap_or_default().clone_into(node);
                }
                attempt
            }
            Route::Other { verb, path } => Self::Path { verb: (*verb).to_owned(), path: path.clone() },
        }
    }

    fn on(target: &Target) -> Self {
        Self::Resource {
            verb: target.verb.to_owned(),
            group: target.group.clone(),
            resource: target.resource.clone(),
            subresource: target.subresource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            node: String::new(),
        }
    }

    /// An attempt on a resource without a subresource.
    pub fn resource(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        let [verb, group, resource, namespace, name] =
            [verb, group, resource, namespace, name].map(str::to_owned);
        let (subresource, node) = (String::new(), String::new());
        Self::Resource { verb, group, resource, subresource, namespace, name, node }
    }

    /// The sentence in which it is refused.
    pub fn refusal(&self, user: &User) -> crate::status::Refusal {
        let message = match self {
            Self::Resource { verb, group, resource, subresource, namespace, name, .. } => {
                let qualified =
                    if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                let subject = if name.is_empty() { qualified } else { format!("{qualified} \"{name}\"") };
                let full = if subresource.is_empty() {
                    resource.clone()
                } else {
                    format!("{resource}/{subresource}")
                };
                let scope = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{namespace}\"")
                };
                format!(
                    "{subject} is forbidden: User \"{}\" cannot {verb} resource \"{full}\" in API group \"{group}\" {scope}",
                    user.name
                )
            }
            Self::Path { verb, path } => {
                format!("forbidden: User \"{}\" cannot {verb} path \"{path}\"", user.name)
            }
        };
        let refusal = crate::status::Refusal::new(403, "Forbidden", message);
        match self {
            Self::Resource { group, resource, name, .. } => match crate::resources::find(group, resource) {
                Some(row) => refusal.about(row, name),
                None => refusal,
            },
            Self::Path { .. } => refusal,
        }
    }
}
