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
    if !matches!(incoming.method.as_str(), "GET" | "HEAD") {
        return Err(Refusal::method_not_allowed(crate::status::NO_METHOD));
    }
    if let Some(reply) = health::answer(api, path.trim_end_matches('/'), query) {
        return reply;
    }
    if incoming.method == http::Method::HEAD && !has_head(path) {
        return Err(Refusal::method_not_allowed(crate::status::NO_METHOD));
    }
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
            None => discovery::group(&table, path, accept?),
        },
    }
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
