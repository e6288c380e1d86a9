//! Documents about the server itself: discovery, OpenAPI, version, health, metrics, keys.

mod custom;
pub mod descriptions;
pub mod discovery;
pub mod health;
mod indexes;
pub mod openapi;
mod operation;
mod packed;
mod paths;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{Api, Incoming};
use crate::auth::token::ISSUER;
use crate::body::{self, Reply};
use crate::metrics;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::resources::Table;
use crate::status::{Refusal, Result};

/// The version this server claims: the API level it serves, and itself.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+hawser.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// Answers a path that is no resource.
pub fn answer(api: &Arc<Api>, incoming: &Incoming, path: &str, query: &Query) -> Result<Reply> {
    let no_method = || Err(Refusal::method_not_allowed(crate::status::NO_METHOD));
    let (found, has_head) = match health::answer(api, path.trim_end_matches('/'), query) {
        Some(reply) => (reply, true),
        None => (document(api, incoming, path), has_head(path)),
    };
    match incoming.method.as_str() {
        _ if found.as_ref().is_err_and(|refusal| refusal.code == 404) => found,
        "GET" => found,
        "HEAD" if has_head => found,
        _ => no_method(),
    }
}

/// What there is to read at the path.
fn document(api: &Arc<Api>, incoming: &Incoming, path: &str) -> Result<Reply> {
    let accept = Accept::of(&incoming.headers, Accept::is_served);
    let table = api.table.load();
    match path.trim_end_matches('/') {
        "" => Ok(body::json(200, &json!({ "paths": paths(&table) }))),
        "/version" => Ok(body::json(200, &version())),
        "/metrics" => Ok(body::reply(200, metrics::MEDIA, body::full(api.metrics.text(api)))),
        "/api" | "/apis" => {
            discovery::root(&table, path.trim_end_matches('/') == "/apis", accept?, &incoming.headers)
        }
        "/openapi/v2" => openapi::v2(&table, &incoming.headers),
        "/openapi/v3" => Ok(openapi::index(&table)),
        "/.well-known/openid-configuration" => Ok(body::json(200, &openid())),
        "/openid/v1/jwks" => {
            Ok(body::reply(200, "application/jwk-set+json", body::full(api.tokens.jwks().to_string())))
        }
        path => match path.strip_prefix("/openapi/v3/") {
            Some(group_version) => openapi::group_version(&table, group_version, &incoming.headers),
            None => {
                let media = accept.as_ref().map(|accept| *accept).unwrap_or(Accept::JSON);
                match discovery::group(&table, path, media) {
                    Some(found) => accept.and(found),
                    None => Err(absent(&api.own, path)),
                }
            }
        },
    }
}

/// Below these a router of kube-apiserver's own finds no route, and says so in a Status.
const ROUTED: &[&str] = &["/api", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks"];

/// The refusal of a path that leads to nothing. Groups of this build (`own`) are routed too; anything else falls through all of
/// upstream's servers to the end, where nobody speaks of a Status.
pub fn absent(own: &Table, path: &str) -> Refusal {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut parts = path.split('/').skip(1);
    let group = parts.next().filter(|first| *first == "apis").and_then(|_| parts.next());
    let is_own = |group: &str| !group.is_empty() && own.rows().iter().any(|row| row.group == *group);
    if ROUTED.iter().any(|root| below(root)) || group.is_some_and(is_own) {
        return Refusal::no_path();
    }
    Refusal::no_page()
}

/// Whether upstream answers HEAD at a path: where it says that nothing but GET is meant, it does not.
fn has_head(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "" | "/metrics") || path.starts_with("/openapi/")
}

fn openid() -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn paths(table: &Table) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    let named = table.group_versions().into_iter().filter(|(group, _)| !group.is_empty());
    for (group, version) in named {
        let group = format!("/apis/{group}");
        if !paths.contains(&group) {
            paths.push(group.clone());
        }
        paths.push(format!("{group}/{version}"));
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths
}
