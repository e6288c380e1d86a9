//! What a node may do: read what its pods need, write its own objects.

use super::{Attempt, User};
use crate::object::{Objects, key, prefix};
use crate::resources::known;
use crate::tree::{list, text};

/// The name of the node whose kubelet this is.
pub fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

const READ: &[&str] = &["get", "list", "watch"];

/// Whether the Node authoriser allows an attempt of the node called `node`.
pub fn allows(node: &str, attempt: &Attempt, objects: &Objects) -> bool {
    let Attempt::Resource { verb, group, resource, subresource, namespace, name } = attempt else {
        return false;
    };
    let reads = READ.contains(&verb.as_str());
    let own = name == node;
    match (group.as_str(), resource.as_str(), subresource.as_str()) {
        ("", "nodes", "") => verb == "create" || (reads && (own || name.is_empty())) || (own && writes(verb)),
        ("", "nodes", "status") => own && writes(verb),
        ("", "pods", "") => match verb.as_str() {
            "create" => true,
            "delete" => is_on(node, namespace, name, objects),
            _ => reads,
        },
        ("", "pods", "status") => writes(verb) && is_on(node, namespace, name, objects),
        ("", "pods", "eviction") => verb == "create",
        ("", "secrets" | "configmaps", "") => {
            reads && !name.is_empty() && refers(node, resource, namespace, name, objects)
        }
        ("", "serviceaccounts", "token") => verb == "create" && uses_account(node, namespace, name, objects),
        ("", "serviceaccounts", "") => verb == "get" && uses_account(node, namespace, name, objects),
        ("", "services" | "persistentvolumes" | "persistentvolumeclaims" | "namespaces", "")
        | ("discovery.k8s.io", "endpointslices", "")
        | ("networking.k8s.io", "networkpolicies", "")
        | ("policy.networking.k8s.io", "clusternetworkpolicies", "")
        | ("storage.k8s.io", "csidrivers" | "volumeattachments", "") => reads,
        ("" | "events.k8s.io", "events", "") => matches!(verb.as_str(), "create" | "patch" | "update"),
        ("coordination.k8s.io", "leases", "") => {
            namespace == "kube-node-lease"
                && (verb == "create" || (own && (writes(verb) || verb == "get" || verb == "delete")))
        }
        ("storage.k8s.io", "csinodes", "") => verb == "create" || own,
        ("authentication.k8s.io", "tokenreviews", "")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            verb == "create"
        }
        _ => false,
    }
}

fn writes(verb: &str) -> bool {
    matches!(verb, "update" | "patch")
}

fn pod(namespace: &str, name: &str, objects: &Objects) -> Option<serde_json::Value> {
    let entry = objects.get(&key(known("", "pods"), namespace, name))?;
    serde_json::from_slice(&entry.value.bytes()).ok()
}

fn is_on(node: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pod(namespace, name, objects).is_some_and(|pod| text(&pod, &["spec", "nodeName"]) == node)
}

/// Pods of a namespace that are bound to the node.
fn pods_on(node: &str, namespace: &str, objects: &Objects) -> Vec<serde_json::Value> {
    let row = known("", "pods");
    let at = row.selectable.iter().position(|(name, _)| *name == "spec.nodeName").unwrap_or_default();
    let page = objects.range(&prefix(row, namespace), None, 0, None);
    let entries = page.into_iter().flat_map(|page| page.entries);
    entries
        .filter(|entry| entry.header.fields.get(at).is_some_and(|bound| **bound == *node))
        .filter_map(|entry| serde_json::from_slice(&entry.value.bytes()).ok())
        .collect()
}

/// Whether a pod on the node refers to a Secret or ConfigMap.
fn refers(node: &str, plural: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pods_on(node, namespace, objects).iter().any(|pod| mentions(&pod["spec"], plural, name))
}

/// Whether anything in a pod spec refers to the Secret or ConfigMap of that name.
fn mentions(spec: &serde_json::Value, plural: &str, name: &str) -> bool {
    let (sources, keys): (&[&str], &[&str]) = match plural {
        "secrets" => (&["secret", "secretRef", "secretKeyRef"], &["secretName", "name"]),
        _ => (&["configMap", "configMapRef", "configMapKeyRef"], &["name"]),
    };
    let pulls = plural == "secrets"
        && list(spec, &["imagePullSecrets"]).iter().any(|one| text(one, &["name"]) == name);
    pulls || walk(spec, sources, keys, name)
}

fn walk(value: &serde_json::Value, sources: &[&str], keys: &[&str], name: &str) -> bool {
    match value {
        serde_json::Value::Object(fields) => fields.iter().any(|(field, inner)| {
            let hit = sources.contains(&field.as_str()) && keys.iter().any(|key| text(inner, &[key]) == name);
            hit || walk(inner, sources, keys, name)
        }),
        serde_json::Value::Array(items) => items.iter().any(|inner| walk(inner, sources, keys, name)),
        _ => false,
    }
}

fn uses_account(node: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pods_on(node, namespace, objects).iter().any(|pod| text(pod, &["spec", "serviceAccountName"]) == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_mentions_what_its_volumes_and_variables_use() {
        let spec = json!({"volumes": [{"secret": {"secretName": "a"}}, {"projected": {"sources": [{"configMap": {"name": "c"}}]}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "d"}}]}], "imagePullSecrets": [{"name": "p"}]});
        for (plural, name, want) in [
            ("secrets", "a", true),
            ("secrets", "b", true),
            ("secrets", "p", true),
            ("secrets", "c", false),
            ("configmaps", "c", true),
            ("configmaps", "d", true),
            ("configmaps", "a", false),
        ] {
            assert_eq!(mentions(&spec, plural, name), want, "{plural} {name}");
        }
    }
}
