//! What a node may read for the volumes of its pods: the claims, what they are bound to, and the Secrets these name.

use serde_json::Value;

use super::node::pods_on;
use crate::object::{Objects, Stored, key, prefix};
use crate::resources::known;
use crate::tree::{at, list, text};

/// Whether a pod on the node uses the claim of a volume, its own by name or one made for it.
pub fn claims(node: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    pods_on(node, namespace, objects).iter().any(|pod| {
        list(pod, &["spec", "volumes"]).iter().any(|volume| {
            let made = || format!("{}-{}", text(pod, &["metadata", "name"]), text(volume, &["name"]));
            text(volume, &["persistentVolumeClaim", "claimName"]) == name
                || (volume.get("ephemeral").is_some() && made() == name)
        })
    })
}

/// Whether a pod on the node uses the claim to which a PersistentVolume is bound.
pub fn uses(node: &str, name: &str, objects: &Objects) -> bool {
    let entry = objects.get(&key(known("", "persistentvolumes"), "", name));
    entry.is_some_and(|entry| is_claimed(node, &tree(&entry), objects))
}

fn is_claimed(node: &str, volume: &Value, objects: &Objects) -> bool {
    let claim = at(volume, &["spec", "claimRef"]);
    claim.is_object() && claims(node, text(claim, &["namespace"]), text(claim, &["name"]), objects)
}

/// Whether a volume that a pod on the node uses cannot be mounted without a Secret.
pub fn need(node: &str, namespace: &str, name: &str, objects: &Objects) -> bool {
    let quoted = Value::from(name).to_string();
    let page = objects.range(&prefix(known("", "persistentvolumes"), ""), None, 0, None);
    let mut entries = page.into_iter().flat_map(|page| page.entries);
    entries.any(|entry| {
        // Nearly none names the Secret, and those need not be read.
        memchr::memmem::find(&entry.value.bytes(), quoted.as_bytes()).is_some() && {
            let volume = tree(&entry);
            secrets(&volume).contains(&(namespace, name)) && is_claimed(node, &volume, objects)
        }
    })
}

/// Whether something is attached to the node.
pub fn is_attached(node: &str, name: &str, objects: &Objects) -> bool {
    let entry = objects.get(&key(known("storage.k8s.io", "volumeattachments"), "", name));
    entry.is_some_and(|entry| text(&tree(&entry), &["spec", "nodeName"]) == node)
}

fn tree(entry: &Stored) -> Value {
    serde_json::from_slice(&entry.value.bytes()).unwrap_or_default()
}

/// Kinds of volumes of which old objects leave the namespace of their Secret to the claim.
const CLAIMED: &[&str] = &["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi"];
/// Kinds that always say it.
const SAID: &[&str] = &["cinder", "storageos"];
/// What of CSI is done on nodes; the rest is for controllers.
const ON_NODES: &[&str] = &["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];

/// Namespaces and names of the Secrets that a node needs for a PersistentVolume.
fn secrets(volume: &Value) -> Vec<(&str, &str)> {
    let spec = at(volume, &["spec"]);
    let claimed = text(spec, &["claimRef", "namespace"]);
    let named = |path: &[&str], fallback| {
        let said = text(spec, &[path, &["namespace"]].concat());
        (if said.is_empty() { fallback } else { said }, text(spec, &[path, &["name"]].concat()))
    };
    let mut all: Vec<(&str, &str)> =
        CLAIMED.iter().map(|kind| named(&[kind, "secretRef"], claimed)).collect();
    all.extend(SAID.iter().map(|kind| named(&[kind, "secretRef"], "")));
    all.extend(ON_NODES.iter().map(|step| named(&["csi", step], "")));
    let azure = text(spec, &["azureFile", "secretNamespace"]);
    let azure = if azure.is_empty() { claimed } else { azure };
    all.push((azure, text(spec, &["azureFile", "secretName"])));
    all.retain(|(_, name)| !name.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_needs_the_secrets_of_its_kind_in_the_namespace_it_says_or_that_of_its_claim() {
        let secret = json!({"name": "s"});
        let far = json!({"name": "s", "namespace": "far"});
        let csi = json!({"driver": "d", "volumeHandle": "v", "nodePublishSecretRef": {"name": "a", "namespace": "x"},
            "nodeStageSecretRef": {"name": "b", "namespace": "y"}, "nodeExpandSecretRef": {"name": "c", "namespace": "z"},
            "controllerPublishSecretRef": {"name": "d", "namespace": "z"},
            "controllerExpandSecretRef": {"name": "e", "namespace": "z"}});
        for (source, want) in [
            (json!({"hostPath": {"path": "/"}}), &[][..]),
            (json!({"cephfs": {"secretRef": secret}}), &[("near", "s")]),
            (json!({"cephfs": {"secretRef": far}}), &[("far", "s")]),
            (json!({"flexVolume": {"secretRef": secret}}), &[("near", "s")]),
            (json!({"rbd": {"secretRef": secret}}), &[("near", "s")]),
            (json!({"scaleIO": {"secretRef": far}}), &[("far", "s")]),
            (json!({"iscsi": {"secretRef": secret}}), &[("near", "s")]),
            (json!({"cinder": {"secretRef": secret}}), &[("", "s")]),
            (json!({"cinder": {"secretRef": far}}), &[("far", "s")]),
            (json!({"storageos": {"secretRef": far}}), &[("far", "s")]),
            (json!({"azureFile": {"secretName": "s"}}), &[("near", "s")]),
            (json!({"azureFile": {"secretName": "s", "secretNamespace": "far"}}), &[("far", "s")]),
            (json!({"csi": csi}), &[("x", "a"), ("y", "b"), ("z", "c")]),
        ] {
            let mut volume = json!({"spec": source});
            volume["spec"]["claimRef"] = json!({"namespace": "near", "name": "c"});
            assert_eq!(secrets(&volume), want, "{source}");
        }
    }
}
