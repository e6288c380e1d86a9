//! What a node may do: read what its pods need, write its own objects.

use serde_json::Value;

use super::volumes::{claims, is_attached, need, uses};
use super::{Attempt, User};
use crate::object::{Objects, key, prefix};
use crate::resources::known;
use crate::tree::{at, list, text};

/// The name of the node whose kubelet this is.
pub fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

const READ: &[&str] = &["get", "list", "watch"];

/// Whether the Node authoriser allows an attempt of the node called `node`.
pub fn allows(node: &str, attempt: &Attempt, objects: &Objects) -> bool {
    let Attempt::Resource { verb, group, resource, subresource, namespace, name, node: selected } = attempt
    else {
        return false;
    };
    // A user of a node without a name is no node's.
    if node.is_empty() {
        return false;
    }
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
        ("", "pods", "eviction") => verb == "create" && is_on(node, namespace, name, objects),
        ("", "secrets" | "configmaps", "") => {
            let read_one = reads && !name.is_empty() && !namespace.is_empty();
            read_one
                && (refers(node, resource, namespace, name, objects)
                    || (resource == "secrets" && need(node, namespace, name, objects)))
        }
        ("", "serviceaccounts", "token") => verb == "create" && uses_account(node, namespace, name, objects),
        ("", "serviceaccounts", "") => verb == "get" && uses_account(node, namespace, name, objects),
        ("", "services" | "namespaces", "")
        | ("discovery.k8s.io", "endpointslices", "")
        | ("networking.k8s.io", "networkpolicies", "")
        | ("policy.networking.k8s.io", "clusternetworkpolicies", "")
        | ("storage.k8s.io", "csidrivers", "") => reads,
        ("", "persistentvolumeclaims", "") => verb == "get" && claims(node, namespace, name, objects),
        ("", "persistentvolumes", "") => verb == "get" && uses(node, name, objects),
        ("storage.k8s.io", "volumeattachments", "") => verb == "get" && is_attached(node, name, objects),
        ("" | "events.k8s.io", "events", "") => matches!(verb.as_str(), "create" | "patch" | "update"),
        ("coordination.k8s.io", "leases", "") => {
            namespace == "kube-node-lease"
                && (verb == "create" || (own && (writes(verb) || verb == "get" || verb == "delete")))
        }
        ("storage.k8s.io", "csinodes", "") => {
            verb == "create" || (own && (writes(verb) || verb == "get" || verb == "delete"))
        }
        ("", "endpoints", "") => verb == "get",
        ("", "persistentvolumeclaims", "status") => writes(verb) && claims(node, namespace, name, objects),
        ("node.k8s.io", "runtimeclasses", "") | ("certificates.k8s.io", "clustertrustbundles", "") => reads,
        // With which a kubelet has its certificates renewed; it reads what became of them.
        ("certificates.k8s.io", "certificatesigningrequests", "") => verb == "create" || reads,
        ("resource.k8s.io", "resourceclaims", "") => {
            verb == "get" && claims_devices(node, namespace, name, objects)
        }
        ("resource.k8s.io", "resourceslices", "") => match verb.as_str() {
            "create" => true,
            "get" | "update" | "patch" | "delete" => offers(node, name, objects),
            "list" | "watch" | "deletecollection" => selected == node,
            _ => false,
        },
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

fn pod(namespace: &str, name: &str, objects: &Objects) -> Option<Value> {
    let entry = objects.get(&key(known("", "pods"), namespace, name))?;
    serde_json::from_slice(&entry.value.bytes()).ok()
}

fn is_on(node: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pod(namespace, name, objects).is_some_and(|pod| text(&pod, &["spec", "nodeName"]) == node)
}

/// Marks a pod that a node shows of what it runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Pods of a namespace that are bound to the node. Those it made itself give it no rights.
pub(super) fn pods_on(node: &str, namespace: &str, objects: &Objects) -> Vec<Value> {
    let bound = objects.marked(&prefix(known("", "pods"), namespace), node).entries;
    bound
        .into_iter()
        .filter_map(|entry| serde_json::from_slice(&entry.value.bytes()).ok())
        .filter(|pod| at(pod, &["metadata", "annotations", MIRROR]).is_null())
        .collect()
}

/// Whether a pod on the node refers to a Secret or ConfigMap.
fn refers(node: &str, plural: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pods_on(node, namespace, objects).iter().any(|pod| mentions(&pod["spec"], plural, Some(name)))
}

/// Whether anything in a pod spec refers to the Secret or ConfigMap of that name, or with `None` to any.
fn mentions(spec: &Value, plural: &str, name: Option<&str>) -> bool {
    let (sources, keys): (&[&str], &[&str]) = match plural {
        "secrets" => {
            let sources = &["secret", "secretRef", "secretKeyRef", "nodePublishSecretRef", "azureFile"];
            (sources, &["secretName", "name"])
        }
        _ => (&["configMap", "configMapRef", "configMapKeyRef"], &["name"]),
    };
    let is_meant = |one: &Value| {
        keys.iter().any(|key| name.map_or(!text(one, &[key]).is_empty(), |name| text(one, &[key]) == name))
    };
    let pulls = plural == "secrets" && list(spec, &["imagePullSecrets"]).iter().any(is_meant);
    pulls || walk(spec, sources, &is_meant)
}

fn walk(value: &Value, sources: &[&str], is_meant: &impl Fn(&Value) -> bool) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(field, inner)| {
            (sources.contains(&field.as_str()) && is_meant(inner)) || walk(inner, sources, is_meant)
        }),
        Value::Array(items) => items.iter().any(|inner| walk(inner, sources, is_meant)),
        _ => false,
    }
}

/// Whether a ResourceSlice tells of the node's devices.
fn offers(node: &str, name: &str, objects: &Objects) -> bool {
    let entry = objects.get(&key(known("resource.k8s.io", "resourceslices"), "", name));
    let slice = entry.and_then(|entry| serde_json::from_slice::<Value>(&entry.value.bytes()).ok());
    slice.is_some_and(|slice| text(&slice, &["spec", "nodeName"]) == node)
}

/// Whether a pod on the node uses a claim of devices.
fn claims_devices(node: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pods_on(node, namespace, objects).iter().any(|pod| {
        let named = list(pod, &["spec", "resourceClaims"]);
        let made = list(pod, &["status", "resourceClaimStatuses"]);
        let extended = text(pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"]);
        extended == name || named.iter().chain(made).any(|claim| text(claim, &["resourceClaimName"]) == name)
    })
}

/// What a pod that a node makes may not refer to, if it does: it could read that as its own then.
pub fn reaches_for(pod: &Value) -> Option<&'static str> {
    let spec = at(pod, &["spec"]);
    let volumes = || list(spec, &["volumes"]).iter();
    match () {
        () if !text(spec, &["serviceAccountName"]).is_empty() => Some("a service account"),
        () if mentions(spec, "secrets", None) => Some("secrets"),
        () if mentions(spec, "configmaps", None) => Some("configmaps"),
        () if volumes().any(trusts) => Some("clustertrustbundles"),
        () if volumes()
            .any(|one| one.get("persistentVolumeClaim").is_some() || one.get("ephemeral").is_some()) =>
        {
            Some("persistentvolumeclaims")
        }
        () if !list(spec, &["resourceClaims"]).is_empty() => Some("resourceclaims"),
        () => None,
    }
}

fn trusts(volume: &Value) -> bool {
    list(volume, &["projected", "sources"]).iter().any(|source| source.get("clusterTrustBundle").is_some())
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
        let spec = json!({"volumes": [{"secret": {"secretName": "a"}}, {"projected": {"sources": [{"configMap": {"name": "c"}}]}},
            {"azureFile": {"secretName": "z", "shareName": "y"}}],
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
            ("secrets", "z", true),
        ] {
            assert_eq!(mentions(&spec, plural, Some(name)), want, "{plural} {name}");
        }
    }

    #[test]
    fn a_pod_reaches_for_what_its_node_could_not_read() {
        for (spec, want) in [
            (
                json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                None,
            ),
            (json!({"serviceAccountName": "a"}), Some("a service account")),
            (json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), Some("secrets")),
            (json!({"imagePullSecrets": [{"name": "s"}]}), Some("secrets")),
            (json!({"containers": [{"envFrom": [{"configMapRef": {"name": "m"}}]}]}), Some("configmaps")),
            (
                json!({"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}),
                Some("persistentvolumeclaims"),
            ),
            (
                json!({"volumes": [{"projected": {"sources": [{"clusterTrustBundle": {"name": "t"}}]}}]}),
                Some("clustertrustbundles"),
            ),
            (json!({"volumes": [{"ephemeral": {}}]}), Some("persistentvolumeclaims")),
            (json!({"resourceClaims": [{"name": "r"}]}), Some("resourceclaims")),
        ] {
            assert_eq!(reaches_for(&json!({"spec": spec})), want, "{spec}");
        }
    }
}
