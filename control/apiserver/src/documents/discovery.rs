//! What is served: the old documents per group and version, and the aggregated one.

use http::HeaderMap;
use serde_json::{Value, json};
use sha2::Digest;

use crate::body::{self, Reply};
use crate::negotiate::{Accept, Form, Media, document};
use crate::resources::{Row, Table};
use crate::status::{Refusal, Result};

/// A group and its versions, the preferred one first.
struct Group<'a> {
    name: &'a str,
    versions: Vec<&'a str>,
}

/// Groups in the order of their first row, the core group among them.
fn groups(table: &Table) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (name, version) in table.group_versions() {
        match groups.iter_mut().find(|group| *name == *group.name) {
            Some(group) => group.versions.push(version),
            None => groups.push(Group { name, versions: vec![version] }),
        }
    }
    for group in &mut groups {
        group.versions.sort_by_cached_key(|version| priority(version));
    }
    groups
}

/// Sorts versions as upstream prefers them: `v10`, `v2`, `v1`, `v11beta2`, `v10beta3`, `v3alpha1`, then any other name.
fn priority(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    use std::cmp::Reverse;
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let (rank, minor) = match &rest[digits..] {
            "" => (0, 0),
            rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
                (Some(minor), _) => (1, minor.parse().ok()?),
                (_, Some(minor)) => (2, minor.parse().ok()?),
                _ => return None,
            },
        };
        Some((rank, Reverse(major), Reverse(minor), String::new()))
    });
    parsed.unwrap_or_else(|| (3, Reverse(0), Reverse(0), version.to_owned()))
}

/// `/api` and `/apis`.
pub fn root(table: &Table, named_groups: bool, accept: Accept, headers: &HeaderMap) -> Result<Reply> {
    if accept.form == Form::Discovery {
        return aggregated(table, named_groups, accept.media, headers);
    }
    if !named_groups {
        let versions = json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] });
        return document(accept.media, 200, &versions);
    }
    let groups: Vec<Value> =
        groups(table).iter().filter(|group| !group.name.is_empty()).map(api_group).collect();
    document(accept.media, 200, &json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
}

fn api_group(group: &Group<'_>) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{}/{version}", group.name), "version": version }))
        .collect();
    let preferred = versions.first().cloned();
    json!({ "name": group.name, "versions": versions, "preferredVersion": preferred })
}

/// `/api/v1`, `/apis/{group}` and `/apis/{group}/{version}`.
///
/// Nothing, where there is none of these.
pub fn group(table: &Table, path: &str, accept: Accept) -> Option<Result<Reply>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version) = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        ["apis", name] => {
            let found = groups(table).into_iter().find(|group| group.name == *name && !name.is_empty());
            let mut group = api_group(&found?);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            return Some(document(accept.media, 200, &group));
        }
        _ => return None,
    };
    let rows = table.of(group, version);
    if rows.is_empty() {
        return None;
    }
    let resources: Vec<Value> = rows.into_iter().flat_map(|row| resource_list(row)).collect();
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources });
    Some(document(accept.media, 200, &list))
}

fn resource_list(row: &Row) -> Vec<Value> {
    let mut main = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind,
        "verbs": row.verbs(),
    });
    if !row.short.is_empty() {
        main["shortNames"] = json!(row.short);
    }
    if !row.categories.is_empty() {
        main["categories"] = json!(row.categories);
    }
    if row.is_kept() {
        main["storageVersionHash"] = json!(storage_hash(row));
    }
    let mut out = vec![main];
    for sub in &row.subresources {
        let (group, version, kind) = sub.kind().unwrap_or(("", "", &*row.kind));
        let mut one = json!({
            "name": format!("{}/{}", row.plural, sub.name()), "singularName": "", "namespaced": row.namespaced,
            "kind": kind, "verbs": sub.verbs(),
        });
        if sub.kind().is_some() && (row.group != *group || row.version != *version) {
            one["group"] = json!(group);
            one["version"] = json!(version);
        }
        out.push(one);
    }
    out
}

/// By which clients see that objects are stored in another version; the same for all versions of a kind.
fn storage_hash(row: &Row) -> String {
    use base64::Engine;
    let stored = row.stored_as();
    let version = match &row.custom {
        Some(custom) => custom.stored_version.clone(),
        None => format!("{}/{}", stored.group, stored.version),
    };
    let digest = sha2::Sha256::digest(format!("{version}/{}", stored.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// What the media type of the aggregated document says besides the encoding.
const AGGREGATED: &str = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn aggregated(table: &Table, named_groups: bool, media: Media, headers: &HeaderMap) -> Result<Reply> {
    let items: Vec<Value> = groups(table)
        .iter()
        .filter(|group| group.name.is_empty() != named_groups)
        .map(|group| {
            let version = |version: &&str| {
                let resources: Vec<Value> =
                    table.of(group.name, version).into_iter().map(|row| aggregated_resource(row)).collect();
                json!({ "version": version, "freshness": "Current", "resources": resources })
            };
            let versions: Vec<Value> = group.versions.iter().map(version).collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({ "name": group.name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    let all = json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items });
    let tag = format!("\"{}\"", hex(&sha2::Sha256::digest(all.to_string())));
    let known =
        headers.get(http::header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut reply = document(media, 200, &all)?;
    if known {
        *reply.status_mut() = http::StatusCode::NOT_MODIFIED;
        *reply.body_mut() = body::full("");
    }
    let encoding = reply.headers()[http::header::CONTENT_TYPE].to_str().unwrap_or_default().to_owned();
    let named = [
        (http::header::CONTENT_TYPE, format!("{encoding};{AGGREGATED}")),
        (http::header::ETAG, tag),
        (http::header::VARY, "Accept".to_owned()),
    ];
    for (name, value) in named {
        reply.headers_mut().insert(name, value.parse().map_err(Refusal::internal)?);
    }
    Ok(reply)
}

/// The resource as the aggregated document shows it.
pub fn aggregated_resource(row: &Row) -> Value {
    let kind = |(group, version, kind): (&str, &str, &str)| json!({ "group": group, "version": version, "kind": kind });
    // Upstream leaves group and version of its own kinds to the document around them, and writes those of custom ones.
    let own = match &row.custom {
        Some(_) => (&*row.group, &*row.version, &*row.kind),
        None => ("", "", &*row.kind),
    };
    let mut out = json!({
        "resource": row.plural, "responseKind": kind(own),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": row.singular,
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
                let own = sub.kind().unwrap_or(own);
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

    #[test]
    fn versions_are_preferred_as_upstream_prefers_them() {
        let mut versions =
            ["foo1", "v3alpha1", "v10", "v2", "v11beta2", "v10beta3", "v1", "foo10", "v11alpha2"];
        versions.sort_by_cached_key(|version| priority(version));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v11alpha2", "v3alpha1", "foo1", "foo10"]
        );
    }

    #[test]
    fn the_hash_is_that_of_the_version_objects_are_stored_in() {
        let table = crate::resources::builtin();
        let hash = |group, version, plural| storage_hash(table.find(group, version, plural).unwrap());
        // As kube-apiserver says it.
        assert_eq!(hash("", "v1", "pods"), "xPOwRZ+Yhw8=");
        assert_eq!(hash("apps", "v1", "deployments"), "8aSe+NMegvE=");
        let of = |version| hash("autoscaling", version, "horizontalpodautoscalers");
        assert_eq!(of("v1"), of("v2"));
    }

    static UPSTREAM: &str = include_str!("../../data/discovery.json");

    #[test]
    fn rows_agree_with_upstreams_discovery() {
        let upstream: Value = serde_json::from_str(UPSTREAM).unwrap();
        for (group_version, resources) in upstream.as_object().unwrap() {
            let (group, version) = group_version.split_once('/').unwrap();
            for want in resources.as_array().unwrap() {
                let plural = want["resource"].as_str().unwrap();
                let table = crate::resources::builtin();
                let row = table.find(group, version, plural);
                let row = row.unwrap_or_else(|| panic!("{plural} of {group_version} is missing"));
                assert_eq!(&aggregated_resource(row), want, "{plural} of {group_version}");
            }
        }
    }
}
