//! What a node may write of what it may write at all: upstream's NodeRestriction.

use serde_json::{Value, json};

use super::MIRROR;
use crate::api::Call;
use crate::auth::Attempt;
use crate::auth::node::{node_name, reaches_for};
use crate::object::{self, key};
use crate::resources::known;
use crate::status::{Refusal, Result};
use crate::strategy::certificate;
use crate::tree::{at, flag, list, remove, strings, text};

/// Why something is forbidden, or nothing.
type Verdict = std::result::Result<(), String>;

fn forbid(why: impl Into<String>) -> Verdict {
    Err(why.into())
}

/// The name of the node that asks, if a node does.
fn asking(call: &Call) -> Result<Option<&str>> {
    match node_name(&call.user) {
        Some("") => {
            let why = format!("could not determine node from user {:?}", call.user.name);
            Err(Refusal::forbidden(&call.row, &call.target.name, &why))
        }
        other => Ok(other),
    }
}

/// Whether a node may create the object.
pub fn create(call: &Call, object: &Value) -> Result<()> {
    let Some(node) = asking(call)? else { return Ok(()) };
    let name = text(object, &["metadata", "name"]);
    let verdict = match call.row.own() {
        "nodes" => own_node(node, name).and_then(|()| new_node(node, object)),
        "csinodes" => own_csi_node(node, name),
        "leases" => own_lease(node, &call.target.namespace, name),
        "pods" => mirror(node, object).and_then(|()| owner_is_there(call, node, object)),
        "resourceslices" if text(object, &["spec", "nodeName"]) != node => {
            forbid("can only create ResourceSlice with the same NodeName as the requesting node")
        }
        "certificatesigningrequests" => request(node, object),
        "persistentvolumeclaims" => forbid("may only update PVC status"),
        _ => Ok(()),
    };
    verdict.map_err(|why| Refusal::forbidden(&call.row, name, &why))
}

/// Whether a node may change the object, or what is below it.
pub fn change(call: &Call, sub: &str, old: &Value, new: &Value) -> Result<()> {
    let Some(node) = asking(call)? else { return Ok(()) };
    let name = call.target.name.as_str();
    let verdict = match (call.row.own(), sub) {
        ("nodes", _) => own_node(node, name).and_then(|()| changed_node(node, old, new)),
        ("csinodes", _) => own_csi_node(node, name),
        ("leases", _) => own_lease(node, &call.target.namespace, name),
        ("pods", "status") => pod_status(node, old, new),
        ("pods", "") => forbid(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
        ("pods", "eviction") => Ok(()),
        ("pods", other) => {
            forbid(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("persistentvolumeclaims", "status") => claim_status(node, old, new),
        ("persistentvolumeclaims", _) => forbid("may only update PVC status"),
        _ => Ok(()),
    };
    verdict.map_err(|why| Refusal::forbidden(&call.row, name, &why))
}

fn own_node(node: &str, name: &str) -> Verdict {
    if name == node {
        Ok(())
    } else {
        forbid(format!("node {node:?} is not allowed to modify node {name:?}"))
    }
}

fn own_csi_node(node: &str, name: &str) -> Verdict {
    let why = "can only access CSINode with the same name as the requesting node";
    if name == node { Ok(()) } else { forbid(why) }
}

/// Leases of nodes have their own namespace. Elsewhere nodes have what roles give them: our agents have those by which they
/// agree on who announces an address.
fn own_lease(node: &str, namespace: &str, name: &str) -> Verdict {
    if namespace != "kube-node-lease" || name == node {
        return Ok(());
    }
    forbid("can only access node lease with the same name as the requesting node")
}

/// A node that could give itself labels or lose its taints could draw pods to itself that are not for it.
fn new_node(node: &str, new: &Value) -> Verdict {
    if !at(new, &["spec", "configSource"]).is_null() {
        return forbid(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
    }
    match forbidden_labels(&Value::Null, new) {
        labels if labels.is_empty() => Ok(()),
        labels => {
            forbid(format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", ")))
        }
    }
}

fn changed_node(node: &str, old: &Value, new: &Value) -> Verdict {
    let source = |of| at(of, &["spec", "configSource"]);
    if !source(new).is_null() && source(new) != source(old) {
        return forbid(format!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if list(old, &["spec", "taints"]) != list(new, &["spec", "taints"]) {
        return forbid(format!("node {node:?} is not allowed to modify taints"));
    }
    match forbidden_labels(old, new) {
        labels if labels.is_empty() => Ok(()),
        labels => forbid(format!("is not allowed to modify labels: {}", labels.join(", "))),
    }
}

/// Labels of Kubernetes that say what a kubelet knows of its machine.
const OF_KUBELETS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Labels that differ and that a node may not touch, in order.
fn forbidden_labels<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    const LABELS: &[&str] = &["metadata", "labels"];
    let label = |of: &'a Value, name: &str| at(of, &["metadata", "labels", name]).as_str();
    let changed = strings(new, LABELS).chain(strings(old, LABELS)).map(|(name, _)| name);
    let mut forbidden: Vec<&str> =
        changed.filter(|name| label(old, name) != label(new, name) && !may_label(name)).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    forbidden
}

/// Whether a node may give itself the label.
fn may_label(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |whole: &str| domain == whole || domain.strip_suffix(whole).is_some_and(|rest| rest.ends_with('.'));
    let of_kubernetes = within("kubernetes.io") || within("k8s.io");
    let of_kubelets =
        OF_KUBELETS.contains(&name) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    !within("node-restriction.kubernetes.io") && (!of_kubernetes || of_kubelets)
}

/// A node makes mirrors of what it runs by itself, and nothing else.
fn mirror(node: &str, pod: &Value) -> Verdict {
    if at(pod, &["metadata", "annotations", MIRROR]).is_null() {
        return forbid(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(pod, &["spec", "nodeName"]) != node {
        return forbid(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let only = |what: &str| forbid(format!("node {node:?} can only create pods with {what} set to itself"));
    match list(pod, &["metadata", "ownerReferences"]) {
        [owner] => {
            let said = ["apiVersion", "kind", "name"].map(|field| text(owner, &[field]));
            if said != ["v1", "Node", node] {
                return only("an owner reference");
            }
            if !flag(owner, &["controller"]) {
                return only("a controller owner reference");
            }
            if flag(owner, &["blockOwnerDeletion"]) {
                return forbid(format!(
                    "node {node:?} must not set blockOwnerDeletion on an owner reference"
                ));
            }
        }
        [] => return only("an owner reference"),
        _ => return only("a single owner reference"),
    }
    match reaches_for(pod) {
        Some(what) => forbid(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The owner of a mirror is the Node that there is now.
fn owner_is_there(call: &Call, node: &str, pod: &Value) -> Verdict {
    let stored = call.api.objects.get(&key(known("", "nodes"), "", node));
    let Some(stored) = stored else { return forbid(format!("nodes {node:?} not found")) };
    let said = text(&list(pod, &["metadata", "ownerReferences"])[0], &["uid"]);
    if *said == *stored.header.uid {
        return Ok(());
    }
    forbid(format!("node {node} UID mismatch: expected {said} got {}", stored.header.uid))
}

fn pod_status(node: &str, old: &Value, new: &Value) -> Verdict {
    if text(old, &["spec", "nodeName"]) != node {
        let why = "can only update pod status for pods with spec.nodeName set to itself";
        return forbid(format!("node {node:?} {why}"));
    }
    if strings(old, &["metadata", "labels"]).ne(strings(new, &["metadata", "labels"])) {
        return forbid(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |of| list(of, &["status", "resourceClaimStatuses"]);
    if claims(old) != claims(new) {
        return forbid(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

/// What of a claim a node says: how far its volume has grown.
fn claim_status(node: &str, old: &Value, new: &Value) -> Verdict {
    let rest = |of: &Value| {
        let mut rest = of.clone();
        for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
            remove(&mut rest, &["status", field]);
        }
        for field in ["resourceVersion", "managedFields"] {
            remove(&mut rest, &["metadata", field]);
        }
        rest
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let why = "is not allowed to update fields other than status.quantity and status.conditions";
    forbid(format!("node {node:?} {why}"))
}

/// A node asks for certificates in its own name.
fn request(node: &str, request: &Value) -> Verdict {
    const SIGNERS: &[&str] =
        &["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let spec = at(request, &["spec"]);
    if !SIGNERS.contains(&text(spec, &["signerName"])) {
        return Ok(());
    }
    let subject = certificate::subject(spec).map_err(|why| format!("unable to parse csr: {why}"))?;
    if subject.common_name == format!("system:node:{node}") {
        return Ok(());
    }
    forbid(format!("can only create a node CSR with CN=system:node:{node}"))
}

/// Whether whoever asks may have a token of an account: a node only for a pod of its own, which uses it.
pub fn token(call: &Call, spec: &Value) -> Result<()> {
    let Some(node) = asking(call)? else { return Ok(()) };
    let refuse = |why: &str| Err(Refusal::forbidden(&call.row, &call.target.name, why));
    let bound = at(spec, &["boundObjectRef"]);
    let said = |field: &str| text(bound, &[field]);
    if said("apiVersion") != "v1" || said("kind") != "Pod" || said("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if said("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pods = known("", "pods");
    let entry = call.api.objects.get(&key(pods, &call.target.namespace, said("name")));
    let entry = entry.ok_or_else(|| Refusal::not_found(pods, said("name")))?;
    let pod = object::decode(&entry);
    if said("uid") != text(&pod, &["metadata", "uid"]) {
        return refuse(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            said("uid")
        ));
    }
    if text(&pod, &["spec", "nodeName"]) != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match list(spec, &["audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    if speaks_to(call, &pod, audience) || may_speak_to(call, audience) {
        return Ok(());
    }
    refuse(&format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        call.user.name
    ))
}

/// Whether a role lets the node have tokens for an audience that no volume of the pod names.
fn may_speak_to(call: &Call, audience: &str) -> bool {
    let verb = "request-serviceaccounts-token-audience";
    let attempt = Attempt::resource(verb, "", audience, &call.target.namespace, &call.target.name);
    call.api.allows(&call.user, &attempt)
}

/// Whether a volume of the pod holds a token for the audience, or is of a driver that asks for one.
fn speaks_to(call: &Call, pod: &Value, audience: &str) -> bool {
    list(pod, &["spec", "volumes"]).iter().any(|volume| {
        let mut tokens = list(volume, &["projected", "sources"]).iter();
        tokens.any(|source| {
            let token = at(source, &["serviceAccountToken"]);
            token.is_object() && text(token, &["audience"]) == audience
        }) || driver_asks(call, &driver(call, pod, volume), audience)
    })
}

/// The CSI driver of a pod's volume; empty for other volumes.
fn driver(call: &Call, pod: &Value, volume: &Value) -> String {
    let claim = if at(volume, &["ephemeral", "volumeClaimTemplate"]).is_object() {
        format!("{}-{}", text(pod, &["metadata", "name"]), text(volume, &["name"]))
    } else {
        text(volume, &["persistentVolumeClaim", "claimName"]).to_owned()
    };
    if claim.is_empty() {
        return text(volume, &["csi", "driver"]).to_owned();
    }
    let stored = |row, namespace: &str, name: &str| {
        call.api.objects.get(&key(row, namespace, name)).map(|entry| object::decode(&entry))
    };
    let claim = stored(known("", "persistentvolumeclaims"), &call.target.namespace, &claim);
    let name = claim.map(|claim| text(&claim, &["spec", "volumeName"]).to_owned()).unwrap_or_default();
    let volume = stored(known("", "persistentvolumes"), "", &name).unwrap_or(json!({}));
    text(&volume, &["spec", "csi", "driver"]).to_owned()
}

fn driver_asks(call: &Call, driver: &str, audience: &str) -> bool {
    let entry = call.api.objects.get(&key(known("storage.k8s.io", "csidrivers"), "", driver));
    let driver = entry.map(|entry| object::decode(&entry)).unwrap_or_default();
    let mut asks = list(&driver, &["spec", "tokenRequests"]).iter();
    asks.any(|ask| text(ask, &["audience"]) == audience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_labels_itself_with_what_steers_no_pods() {
        for (label, may) in [
            ("color", true),
            ("example.com/color", true),
            ("kubernetes.io/hostname", true),
            ("kubernetes.io/arch", true),
            ("topology.kubernetes.io/zone", true),
            ("beta.kubernetes.io/os", true),
            ("node.kubernetes.io/anything", true),
            ("a.node.kubernetes.io/anything", true),
            ("kubelet.kubernetes.io/anything", true),
            ("kubernetes.io/role", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/a", false),
            ("a.node-restriction.kubernetes.io/a", false),
            ("k8s.io/a", false),
            ("a.k8s.io/a", false),
            ("ak8s.io/a", true),
            ("notkubernetes.io/a", true),
        ] {
            assert_eq!(may_label(label), may, "{label}");
        }
    }

    fn node(labels: Value, taints: Value) -> Value {
        json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}})
    }

    #[test]
    fn labels_and_taints_that_stay_are_no_matter() {
        let mine = json!({"kubernetes.io/role": "a", "k8s.io/b": "b"});
        let taints = json!([{"key": "k", "effect": "NoSchedule"}]);
        let old = node(mine.clone(), taints.clone());
        assert_eq!(changed_node("n", &old, &node(mine, taints)), Ok(()));
        let bare = node(json!({"c": "d"}), json!([{"key": "k", "effect": "NoSchedule"}]));
        let why = "is not allowed to modify labels: k8s.io/b, kubernetes.io/role";
        assert_eq!(changed_node("n", &old, &bare), forbid(why));
        let free = node(json!({}), json!([]));
        assert_eq!(changed_node("n", &old, &free), forbid("node \"n\" is not allowed to modify taints"));
        let why = "node \"n\" is not allowed to set the following labels: k8s.io/b, kubernetes.io/role";
        assert_eq!(new_node("n", &old), forbid(why));
    }

    #[test]
    fn a_mirror_belongs_to_its_node_alone() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
        let with = |field: &str, value: Value| {
            let mut owner = owner.clone();
            owner[field] = value;
            json!([owner])
        };
        let itself = "node \"n\" can only create pods with an owner reference set to itself";
        for (owners, want) in [
            (json!([owner]), Ok(())),
            (json!([]), forbid(itself)),
            (with("kind", json!("Pod")), forbid(itself)),
            (with("name", json!("m")), forbid(itself)),
            (with("apiVersion", json!("v2")), forbid(itself)),
            (
                json!([owner, owner]),
                forbid("node \"n\" can only create pods with a single owner reference set to itself"),
            ),
            (
                with("controller", json!(false)),
                forbid("node \"n\" can only create pods with a controller owner reference set to itself"),
            ),
            (
                with("blockOwnerDeletion", json!(true)),
                forbid("node \"n\" must not set blockOwnerDeletion on an owner reference"),
            ),
        ] {
            let pod = json!({"metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": owners},
                "spec": {"nodeName": "n"}});
            assert_eq!(mirror("n", &pod), want, "{owners}");
        }
    }

    #[test]
    fn a_node_says_of_a_claim_only_how_far_it_has_grown() {
        let claim = |capacity: &str, phase: &str, label: &str| {
            json!({"metadata": {"name": "c", "labels": {"a": label}},
                "status": {"capacity": {"storage": capacity}, "phase": phase}})
        };
        let old = claim("1Gi", "Bound", "b");
        assert_eq!(claim_status("n", &old, &claim("2Gi", "Bound", "b")), Ok(()));
        assert!(claim_status("n", &old, &claim("2Gi", "Lost", "b")).is_err());
        assert!(claim_status("n", &old, &claim("2Gi", "Bound", "c")).is_err());
    }
}
