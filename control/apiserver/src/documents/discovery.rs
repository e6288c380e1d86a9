//! What is served: the old documents per group and version, and the aggregated one.

use http::HeaderMap;
use serde_json::{Value, json};
use sha2::Digest;

use crate::body::{self, Reply};
use crate::negotiate::{Accept, Form};
use crate::resources::{RESOURCES, Resource};
use crate::status::{Refusal, Result};

/// Group and version of everything served, the core group first.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = RESOURCES.iter().map(|row| (row.group, row.version)).collect();
    all.dedup();
    let mut seen = Vec::new();
    all.retain(|one| {
        let new = !seen.contains(one);
        seen.push(*one);
        new
    });
    all
}

/// `/api` and `/apis`.
pub fn root(named_groups: bool, accept: Accept, headers: &HeaderMap) -> Result<Reply> {
    if accept.form == Form::Discovery {
        return Ok(aggregated(named_groups, headers));
    }
    if !named_groups {
        return Ok(body::json(
            200,
            &json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ));
    }
    let groups: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, version)| api_group(group, version))
        .collect();
    Ok(body::json(200, &json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })))
}

fn api_group(group: &str, version: &str) -> Value {
    let one = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({ "name": group, "versions": [one], "preferredVersion": one })
}

/// `/api/v1`, `/apis/{group}` and `/apis/{group}/{version}`.
pub fn group(path: &str, _accept: Accept) -> Result<Reply> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let wanted = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        ["apis", group] => {
            let found = group_versions().into_iter().find(|(name, _)| name == group && !name.is_empty());
            let (group, version) = found.ok_or_else(Refusal::no_path)?;
            let mut document = api_group(group, version);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            return Ok(body::json(200, &document));
        }
        _ => return Err(Refusal::no_path()),
    };
    let rows = rows_of(wanted);
    if rows.is_empty() {
        return Err(Refusal::no_path());
    }
    let resources: Vec<Value> = rows.into_iter().flat_map(resource_list).collect();
    let name = if wanted.0.is_empty() { wanted.1.to_owned() } else { format!("{}/{}", wanted.0, wanted.1) };
    Ok(body::json(
        200,
        &json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources }),
    ))
}

/// Rows of a group and version, by plural.
pub fn rows_of((group, version): (&str, &str)) -> Vec<&'static Resource> {
    let mut rows: Vec<&Resource> =
        RESOURCES.iter().filter(|row| row.group == group && row.version == version).collect();
    rows.sort_by_key(|row| row.plural);
    rows
}

fn resource_list(row: &'static Resource) -> Vec<Value> {
    let mut main = json!({
        "name": row.plural, "singularName": row.singular(), "namespaced": row.namespaced, "kind": row.kind,
        "verbs": row.verbs(),
    });
    if !row.short.is_empty() {
        main["shortNames"] = json!(row.short);
    }
    if !row.categories.is_empty() {
        main["categories"] = json!(row.categories);
    }
    if !row.review {
        let digest = sha2::Sha256::digest(format!("{}/{}/{}", row.group, row.version, row.kind));
        use base64::Engine;
        main["storageVersionHash"] = json!(base64::engine::general_purpose::STANDARD.encode(&digest[..8]));
    }
    let mut out = vec![main];
    for sub in row.subresources {
        let (group, version, kind) = sub.kind().unwrap_or(("", "", row.kind));
        let mut one = json!({
            "name": format!("{}/{}", row.plural, sub.name()), "singularName": "", "namespaced": row.namespaced,
            "kind": kind, "verbs": sub.verbs(),
        });
        if sub.kind().is_some() && (group, version) != (row.group, row.version) {
            one["group"] = json!(group);
            one["version"] = json!(version);
        }
        out.push(one);
    }
    out
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn aggregated(named_groups: bool, headers: &HeaderMap) -> Reply {
    let items: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() != named_groups)
        .map(|(group, version)| {
            let resources: Vec<Value> =
                rows_of((group, version)).into_iter().map(aggregated_resource).collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
            json!({ "metadata": metadata,
                    "versions": [{ "version": version, "freshness": "Current", "resources": resources }] })
        })
        .collect();
    let document = json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items });
    let text = document.to_string();
    let tag = format!("\"{}\"", hex(&sha2::Sha256::digest(&text)));
    let known =
        headers.get(http::header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut reply = if known {
        body::reply(304, AGGREGATED, body::full(""))
    } else {
        body::reply(200, AGGREGATED, body::full(text))
    };
    if let Ok(tag) = tag.parse() {
        reply.headers_mut().insert(http::header::ETAG, tag);
    }
    reply.headers_mut().insert(http::header::VARY, http::HeaderValue::from_static("Accept"));
    reply
}

/// The resource as the aggregated document shows it.
pub fn aggregated_resource(row: &'static Resource) -> Value {
    let kind = |(group, version, kind): (&str, &str, &str)| json!({ "group": group, "version": version, "kind": kind });
    let mut out = json!({
        "resource": row.plural, "responseKind": kind(("", "", row.kind)),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": row.singular(),
        "verbs": row.verbs(),
    });
    if !row.short.is_empty() {
        out["shortNames"] = json!(row.short);
    }
    if !row.categories.is_empty() {
        out["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        let subs: Vec<Value> = row
            .subresources
            .iter()
            .map(|sub| {
                let own = sub.kind().unwrap_or(("", "", row.kind));
                json!({ "subresource": sub.name(), "responseKind": kind(own), "verbs": sub.verbs() })
            })
            .collect();
        out["subresources"] = json!(subs);
    }
    out
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static UPSTREAM: &str = include_str!("../../data/discovery.json");

    #[test]
    fn rows_agree_with_upstreams_discovery() {
        let upstream: Value = serde_json::from_str(UPSTREAM).unwrap();
        for (group_version, resources) in upstream.as_object().unwrap() {
            let (group, _) = group_version.split_once('/').unwrap();
            for want in resources.as_array().unwrap() {
                let plural = want["resource"].as_str().unwrap();
                let row =
                    crate::resources::find(group, plural).unwrap_or_else(|| panic!("{plural} is missing"));
                assert_eq!(&aggregated_resource(row), want, "{plural}");
            }
        }
    }
}
