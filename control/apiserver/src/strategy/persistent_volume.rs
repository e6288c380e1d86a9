//! PersistentVolumes: defaults, validation, and what of them may change.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Change;
use super::claim_spec::{VOLUME_MODES, positive, validate_class, validate_modes};
use super::pod_rules::affinity::validate_node_selector;
use super::volume_sources::{
    ISCSI_TOO_LONG, Source, aws_disk, azure_disk, azure_file_persistent, ceph, cinder_persistent,
    csi_persistent, fibre_channel, flex, flocker, gce_disk, glusterfs_persistent, host_path,
    iscsi_persistent, iscsi_session_is_long, local, nfs, photon, portworx, quobyte, rbd, scale_io, source,
    storage_os_persistent, validate_one, vsphere,
};
use crate::tree::{at, fields, list, list_mut, set, set_default, strings, text};
use crate::validate::{self, Errors};

pub fn default_volume(volume: &mut Value) {
    set_default(volume, &["status", "phase"], "Pending");
    set_default(volume, &["spec", "volumeMode"], "Filesystem");
    set_default(volume, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
    if let Some(host) = volume.pointer_mut("/spec/hostPath").and_then(Value::as_object_mut) {
        host.entry("type").or_insert_with(|| json!(""));
    }
}

pub fn prepare_volume(change: &mut Change<'_>) {
    if change.old.is_none() {
        set(change.new, &["status"], json!({ "phase": "Pending" }));
    }
}

/// What a PersistentVolume can be, in the order in which upstream looks.
const SOURCES: &[Source] = &[
    source("hostPath", host_path),
    Source { place: "persistentDisk", ..source("gcePersistentDisk", gce_disk) },
    source("awsElasticBlockStore", aws_disk),
    source("glusterfs", glusterfs_persistent),
    source("flocker", flocker),
    source("nfs", nfs),
    source("rbd", rbd),
    source("quobyte", quobyte),
    Source { refused: "cephFS", ..source("cephfs", ceph) },
    source("iscsi", iscsi_persistent),
    source("cinder", cinder_persistent),
    source("fc", fibre_channel),
    source("flexVolume", flex),
    source("azureFile", azure_file_persistent),
    source("vsphereVolume", vsphere),
    source("photonPersistentDisk", photon),
    source("portworxVolume", portworx),
    source("azureDisk", azure_disk),
    source("scaleIO", scale_io),
    source("local", local),
    source("storageos", storage_os_persistent),
    source("csi", csi_persistent),
];

pub fn validate_volume(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if list(spec, &["accessModes"]).is_empty() {
        errors.required("spec.accessModes", "");
    }
    validate_modes(spec, "spec", errors);
    validate_capacity(spec, errors);
    if let Some(policy) = at(spec, &["persistentVolumeReclaimPolicy"]).as_str().filter(|one| !one.is_empty())
    {
        errors.must_be("spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    }
    validate_nodes(spec, change.old, errors);
    validate_source(spec, text(change.new, &["metadata", "name"]), "spec", errors);
    validate_class(spec, "storageClassName", "spec", errors);
    if let Some(mode) = at(spec, &["volumeMode"]).as_str() {
        errors.must_be("spec.volumeMode", mode, VOLUME_MODES);
    }
    validate_attributes(spec, errors);
    if let Some(old) = change.old {
        validate_changes(at(old, &["spec"]), spec, errors);
    }
}

/// Where the volume can be used. Values that are no labels' may stay.
fn validate_nodes(spec: &Value, old: Option<&Value>, errors: &mut Errors) {
    let affinity = at(spec, &["nodeAffinity"]);
    if !affinity.is_object() {
        return;
    }
    let required = at(affinity, &["required"]);
    if required.is_object() {
        let hold = !old.is_some_and(has_bad_values);
        validate_node_selector(required, hold, "spec.nodeAffinity.required", errors);
    } else {
        errors.required("spec.nodeAffinity.required", "must specify required node constraints");
    }
}

fn has_bad_values(volume: &Value) -> bool {
    let terms = list(volume, &["spec", "nodeAffinity", "required", "nodeSelectorTerms"]).iter();
    let expressions = terms.flat_map(|term| list(term, &["matchExpressions"]));
    let mut values = expressions.flat_map(|one| list(one, &["values"]));
    values.any(|value| value.as_str().is_some_and(|value| validate::label_value(value).is_err()))
}

fn validate_capacity(spec: &Value, errors: &mut Errors) {
    let capacity = at(spec, &["capacity"]);
    let amounts = fields(capacity, &[]).count();
    if amounts == 0 {
        errors.required("spec.capacity", "");
    }
    if amounts != 1 || at(capacity, &["storage"]).is_null() {
        let sorted: BTreeMap<&str, &Value> = fields(capacity, &[]).collect();
        let shown = if capacity.is_null() { Value::Null } else { json!(sorted) };
        errors.not_among("spec.capacity", &shown, &[Value::from("storage")]);
    }
    for (name, amount) in strings(capacity, &[]) {
        positive(amount, &format!("spec.capacity[{name}]"), errors);
    }
}

/// What the volume is, at `here`.
fn validate_source(spec: &Value, name: &str, here: &str, errors: &mut Errors) {
    if !validate_one(SOURCES, spec, here, errors) {
        errors.required(here, "must specify a volume type");
    }
    if iscsi_session_is_long(at(spec, &["iscsi"]), name) {
        let portal = at(spec, &["iscsi", "targetPortal"]);
        errors.invalid(format!("{here}.iscsi.targetportal"), portal, ISCSI_TOO_LONG);
    }
    if at(spec, &["local"]).is_object() && !at(spec, &["nodeAffinity"]).is_object() {
        errors.required(format!("{here}.nodeAffinity"), "Local volume requires node affinity");
    }
    let recycled = text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle";
    if recycled && is_root(text(spec, &["hostPath", "path"])) {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(format!("{here}.persistentVolumeReclaimPolicy"), why);
    }
}

/// Whether a path leads to the root of the host.
fn is_root(path: &str) -> bool {
    let depth = path.split('/').fold(0_usize, |depth, part| match part {
        "" | "." => depth,
        ".." => depth.saturating_sub(1),
        _ => depth + 1,
    });
    path.starts_with('/') && depth == 0
}

fn validate_attributes(spec: &Value, errors: &mut Errors) {
    let class = at(spec, &["volumeAttributesClassName"]);
    if class.is_null() {
        return;
    }
    if class == "" {
        errors.required("spec.volumeAttributesClassName", "an empty string is disallowed");
    }
    validate_class(spec, "volumeAttributesClassName", "spec", errors);
    if !at(spec, &["csi"]).is_object() {
        errors.required("spec.csi", "has to be specified when using volumeAttributesClassName");
    }
}

/// Checks the spec of a volume that an attachment has in itself.
pub fn validate_inline(spec: &Value, here: &str, errors: &mut Errors) {
    const CONTEXT: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        if !at(spec, &[field]).is_null() {
            errors.forbidden(format!("{here}.{field}"), CONTEXT);
        }
    }
    if !at(spec, &["csi"]).is_object() {
        errors.required(format!("{here}.csi"), "has to be specified in the context of inline volumes");
    }
    if list(spec, &["accessModes"]).is_empty() {
        errors.required(format!("{here}.accessModes"), "");
    }
    validate_modes(spec, here, errors);
    if !matches!(text(spec, &["persistentVolumeReclaimPolicy"]), "" | "Retain") {
        let why = "may only be Retain in the context of inline volumes";
        errors.forbidden(format!("{here}.persistentVolumeReclaimPolicy"), why);
    }
    if at(spec, &["nodeAffinity"]).is_object() {
        errors.forbidden(format!("{here}.nodeAffinity"), CONTEXT);
    }
    validate_source(spec, "", here, errors);
    if !text(spec, &["storageClassName"]).is_empty() {
        errors.forbidden(format!("{here}.storageClassName"), CONTEXT);
    }
    if at(spec, &["volumeMode"]).as_str().is_some_and(|mode| mode != "Filesystem") {
        let why = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(format!("{here}.volumeMode"), why);
    }
}

/// What a volume may not change once it is there.
fn validate_changes(old: &Value, new: &Value, errors: &mut Errors) {
    // A secret for growing may come later.
    let secret = ["csi", "controllerExpandSecretRef"];
    let gets_secret =
        at(old, &["csi"]).is_object() && at(old, &secret).is_null() && !at(new, &secret).is_null();
    let same = |source: &Source| match at(new, &[source.field]) {
        csi if gets_secret && source.field == "csi" => {
            let mut compared = csi.clone();
            crate::tree::remove(&mut compared, &["controllerExpandSecretRef"]);
            compared == *at(old, &["csi"])
        }
        value => value == at(old, &[source.field]),
    };
    if !SOURCES.iter().all(same) {
        let why = "spec.persistentvolumesource is immutable after creation\n";
        errors.forbidden("spec.persistentvolumesource", why);
    }
    errors.immutable("volumeMode", at(old, &["volumeMode"]), at(new, &["volumeMode"]));
    validate_affinity(at(old, &["nodeAffinity"]), at(new, &["nodeAffinity"]), errors);
    let class = |spec| at(spec, &["volumeAttributesClassName"]);
    if !class(old).is_null() && class(new).is_null() {
        let why = "update from non-nil value to nil is forbidden";
        errors.forbidden("spec.volumeAttributesClassName", why);
    }
}

/// Labels of nodes that have a new name.
const RENAMED: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// Where a volume is stays as it is, once it is said; only labels may get their new names.
fn validate_affinity(old: &Value, new: &Value, errors: &mut Errors) {
    if old.is_null() || old == new {
        return;
    }
    let mut renamed = old.clone();
    let terms = list_mut(&mut renamed, &["required", "nodeSelectorTerms"]).iter_mut();
    for (term, after) in terms.zip(list(new, &["required", "nodeSelectorTerms"])) {
        let expressions = list_mut(term, &["matchExpressions"]).iter_mut();
        for (expression, after) in expressions.zip(list(after, &["matchExpressions"])) {
            let key = (text(expression, &["key"]), text(after, &["key"]));
            if RENAMED.contains(&key) {
                let name = key.1.to_owned();
                set(expression, &["key"], name);
            }
        }
    }
    errors.immutable("nodeAffinity", &renamed, new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::told;

    fn volume(more: &Value) -> Value {
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"}}});
        json_patch::merge(&mut volume["spec"], more);
        default_volume(&mut volume);
        volume
    }

    fn found(old: Option<&Value>, mut new: Value) -> String {
        told(|errors| validate_volume(&Change { old, new: &mut new }, errors)).join("; ")
    }

    fn csi() -> Value {
        json!({"hostPath": null, "csi": {"driver": "d.io", "volumeHandle": "h"}})
    }

    #[test]
    fn a_volume_says_what_it_is_and_how_large() {
        let with_class = json!({"hostPath": null, "csi": {"driver": "d.io", "volumeHandle": "h"}, "volumeAttributesClassName": "gold"});
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}});
        for (more, want) in [
            (json!({}), ""),
            (csi(), ""),
            (with_class, ""),
            (json!({"hostPath": null, "local": {"path": "/a"}, "nodeAffinity": affinity}), ""),
            (json!({"accessModes": []}), "spec.accessModes: Required value"),
            (
                json!({"capacity": null}),
                "spec.capacity: Required value; spec.capacity: Unsupported value: null: supported values: \"storage\"",
            ),
            (
                json!({"capacity": {"cpu": "1"}}),
                "spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"1Gi\"}: supported values: \"storage\"",
            ),
            (
                json!({"capacity": {"storage": "0"}}),
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                json!({"persistentVolumeReclaimPolicy": "Keep"}),
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            ),
            (
                json!({"nodeAffinity": {}}),
                "spec.nodeAffinity.required: Required value: must specify required node constraints",
            ),
            (json!({"hostPath": null}), "spec: Required value: must specify a volume type"),
            (
                json!({"nfs": {"server": "s", "path": "/"}}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                json!({"hostPath": null, "local": {"path": "/a"}}),
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ),
            (
                json!({"hostPath": {"path": "/."}, "persistentVolumeReclaimPolicy": "Recycle"}),
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ),
            (
                json!({"volumeMode": "Tape"}),
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ),
            (
                json!({"volumeAttributesClassName": ""}),
                "spec.volumeAttributesClassName: Required value: an empty string is disallowed; spec.csi: Required value: has to be specified when using volumeAttributesClassName",
            ),
            (json!({"hostPath": null, "csi": {"driver": "d"}}), "spec.csi.volumeHandle: Required value"),
            (
                json!({"hostPath": null, "csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s"}}}),
                "spec.csi.nodePublishSecretRef.namespace: Required value",
            ),
            (
                json!({"hostPath": null, "cinder": {"volumeID": "v", "secretRef": {"name": "s"}}}),
                "spec.cinder.secretRef.namespace: Required value",
            ),
            (
                json!({"hostPath": null, "azureFile": {"secretName": "s", "shareName": "n", "secretNamespace": ""}}),
                "spec.azureFile.secretNamespace: Required value",
            ),
            (
                json!({"hostPath": null, "glusterfs": {"endpoints": "e", "path": "p", "endpointsNamespace": ""}}),
                "spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid namespace name",
            ),
        ] {
            assert_eq!(found(None, volume(&more)), want, "{more}");
        }
    }

    #[test]
    fn a_volume_stays_what_it_is() {
        let zone = |label: &str| {
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": label, "operator": "In", "values": ["a"]}]}]}}})
        };
        let (old_zone, new_zone) = ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone");
        let with_secret = json!({"csi": {"controllerExpandSecretRef": {"name": "s", "namespace": "n"}}});
        for (before, change, want) in [
            (
                json!({}),
                json!({"capacity": {"storage": "2Gi"}, "persistentVolumeReclaimPolicy": "Delete"}),
                "",
            ),
            (json!({}), zone("a"), ""),
            (csi(), with_secret, ""),
            (zone(old_zone), zone(new_zone), ""),
            (
                json!({}),
                json!({"hostPath": {"path": "/b"}}),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n",
            ),
            (
                csi(),
                json!({"csi": {"volumeHandle": "g"}}),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n",
            ),
            (
                json!({}),
                json!({"volumeMode": "Block"}),
                "volumeMode: Invalid value: \"Block\": field is immutable",
            ),
        ] {
            let old = volume(&before);
            let mut new = old.clone();
            json_patch::merge(&mut new["spec"], &change);
            assert_eq!(found(Some(&old), new), want, "{change}");
        }
        let mut bad = zone("a");
        bad["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] =
            json!(["-"]);
        assert_eq!(found(Some(&volume(&bad)), volume(&bad)), "");
        assert!(found(None, volume(&bad)).contains(".values[0]: Invalid value: \"-\": a valid label must"));
        let old = volume(&zone("a"));
        assert!(found(Some(&old), volume(&zone("b"))).starts_with("nodeAffinity: Invalid value: {"));
    }

    #[test]
    fn an_inline_volume_is_of_a_driver_and_nobodys() {
        let good = json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d.io", "volumeHandle": "h"}});
        for (more, want) in [
            (json!({}), ""),
            (
                json!({"capacity": {"storage": "1"}}),
                "s.capacity: Forbidden: may not be specified in the context of inline volumes",
            ),
            (
                json!({"storageClassName": "a"}),
                "s.storageClassName: Forbidden: may not be specified in the context of inline volumes",
            ),
            (
                json!({"persistentVolumeReclaimPolicy": "Delete"}),
                "s.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
            ),
            (
                json!({"volumeMode": "Block"}),
                "s.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
            ),
            (
                json!({"csi": null}),
                "s.csi: Required value: has to be specified in the context of inline volumes; s: Required value: must specify a volume type",
            ),
        ] {
            let mut spec = good.clone();
            json_patch::merge(&mut spec, &more);
            assert_eq!(told(|errors| validate_inline(&spec, "s", errors)).join("; "), want, "{more}");
        }
    }
}
