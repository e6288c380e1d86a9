//! The paths of OpenAPI documents that tell what there is: the API's groups and versions, their resources, and the server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::openapi::Form;
use super::operation::{Content, Operation, item};
use super::paths::{capitalized, group_words, meta, uncapitalized};
use crate::resources::{Row, Table};

/// One of these paths.
#[derive(Debug)]
pub struct Index {
    /// With the slash upstream ends them with.
    path: String,
    operation: Operation<'static>,
}

impl Index {
    fn new(path: String, id: String, description: &str, tag: String, gives: Content) -> Self {
        let operation = Operation {
            method: "get",
            action: "",
            id,
            description: description.to_owned(),
            tag,
            kind: ("", "", ""),
            is_custom: false,
            takes: None,
            gives,
        };
        Self { path, operation }
    }

    /// The name of its document of version 3, where it is alone.
    pub fn document(&self) -> &str {
        self.path.trim_matches('/')
    }

    /// The published name of the type it answers with.
    pub fn answers(&self) -> Option<&str> {
        match &self.operation.gives {
            Content::Object(name) => Some(name),
            _ => None,
        }
    }

    /// The path with its item.
    pub fn item(&self, form: Form) -> Map<String, Value> {
        let item = item(&self.path, std::slice::from_ref(&self.operation), form);
        Map::from_iter([(self.path.clone(), item)])
    }
}

/// What tells the resources of a group's version, if any of them is of this build: upstream publishes no others.
pub fn resources(rows: &[&Row]) -> Option<Index> {
    let row = rows.iter().find(|row| row.custom.is_none())?;
    let (words, version) = (group_words(&row.group), &*row.version);
    let path = if row.group.is_empty() {
        format!("/api/{version}/")
    } else {
        format!("/apis/{}/{version}/", row.group)
    };
    let id = format!("get{words}{}APIResources", capitalized(version));
    let tag = format!("{}_{version}", uncapitalized(&words));
    Some(Index::new(path, id, "get available resources", tag, Content::Object(meta("APIResourceList"))))
}

/// What tells the versions of a group.
fn group(group: &str) -> Index {
    let words = group_words(group);
    let (path, gives, description) = if group.is_empty() {
        ("/api/".to_owned(), "APIVersions", "get available API versions")
    } else {
        (format!("/apis/{group}/"), "APIGroup", "get information of a group")
    };
    let id = if group.is_empty() { "getCoreAPIVersions".to_owned() } else { format!("get{words}APIGroup") };
    Index::new(path, id, description, uncapitalized(&words), Content::Object(meta(gives)))
}

/// Those that have a document of their own.
pub fn alone(table: &Table) -> Vec<Index> {
    let own = table.rows().iter().filter(|row| row.custom.is_none());
    let groups: BTreeSet<&str> = own.map(|row| &*row.group).collect();
    let plain = |path: &str, id: &str, description: &str, tag: &str, gives| {
        Index::new(path.to_owned(), id.to_owned(), description, tag.to_owned(), gives)
    };
    let fixed = [
        plain(
            "/.well-known/openid-configuration/",
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "WellKnown",
            Content::Text,
        ),
        plain(
            "/apis/",
            "getAPIVersions",
            "get available API versions",
            "apis",
            Content::Object(meta("APIGroupList")),
        ),
        plain(
            "/openid/v1/jwks/",
            "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            "openid",
            Content::Text,
        ),
        plain(
            "/version/",
            "getCodeVersion",
            "get the version information for this server",
            "version",
            Content::Object("io.k8s.apimachinery.pkg.version.Info".to_owned()),
        ),
    ];
    groups.into_iter().map(group).chain(fixed).collect()
}

/// All of them.
pub fn all(table: &Table) -> Vec<Index> {
    let mut versions: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in table.rows() {
        versions.entry(row.api_version()).or_default().push(row);
    }
    alone(table).into_iter().chain(versions.values().filter_map(|rows| resources(rows))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::builtin;

    #[test]
    fn what_there_is_is_told_at_the_paths_kubernetes_publishes() {
        let all = all(&builtin());
        let paths: BTreeSet<&str> = all.iter().map(|index| &*index.path).collect();
        for path in
            ["/api/", "/api/v1/", "/apis/", "/apis/apps/", "/apis/apps/v1/", "/apis/policy/v1/", "/version/"]
        {
            assert!(paths.contains(path), "{path}");
        }
        // All but the logs of the server, which are not served.
        assert_eq!(paths.len(), 63);
        let ids: BTreeSet<&str> = all.iter().map(|index| &*index.operation.id).collect();
        assert_eq!(ids.len(), all.len());
        for id in [
            "getCoreAPIVersions",
            "getCoreV1APIResources",
            "getAppsAPIGroup",
            "getRbacAuthorizationV1APIResources",
        ] {
            assert!(ids.contains(id), "{id}");
        }
    }

    #[test]
    fn an_index_says_what_it_answers_and_is_about_no_kind() {
        let index = group("apps").item(Form::V2);
        let get = &index["/apis/apps/"]["get"];
        assert_eq!(get["operationId"], "getAppsAPIGroup");
        let answer = &get["responses"]["200"]["schema"]["$ref"];
        assert_eq!(answer, "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup");
        assert!(get.get("x-kubernetes-action").is_none() && index["/apis/apps/"].get("parameters").is_none());
    }
}
