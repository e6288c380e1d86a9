//! Volumes, claims and storage classes.

use serde_json::{Value, json};

use super::Change;
use crate::tree::{at, list, set, set_default, text};
use crate::validate::Errors;

pub fn default_claim(claim: &mut Value) {
    set_default(claim, &["spec", "volumeMode"], "Filesystem");
}

pub fn default_volume(volume: &mut Value) {
    set_default(volume, &["spec", "volumeMode"], "Filesystem");
    set_default(volume, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
    if let Some(host) = volume.pointer_mut("/spec/hostPath").and_then(Value::as_object_mut) {
        host.entry("type").or_insert_with(|| json!(""));
    }
}

pub fn default_class(class: &mut Value) {
    set_default(class, &["reclaimPolicy"], "Delete");
    set_default(class, &["volumeBindingMode"], "Immediate");
}

pub fn default_csi_driver(driver: &mut Value) {
    for (field, value) in [
        ("attachRequired", json!(true)),
        ("podInfoOnMount", json!(false)),
        ("storageCapacity", json!(false)),
        ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
        ("volumeLifecycleModes", json!(["Persistent"])),
        ("requiresRepublish", json!(false)),
        ("seLinuxMount", json!(false)),
    ] {
        set_default(driver, &["spec", field], value);
    }
}

pub fn prepare_claim(change: &mut Change<'_>) {
    if change.old.is_none() {
        set(change.new, &["status"], json!({ "phase": "Pending" }));
    }
}

pub fn prepare_volume(change: &mut Change<'_>) {
    if change.old.is_none() {
        set(change.new, &["status"], json!({ "phase": "Pending" }));
    }
}

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn validate_modes(object: &Value, errors: &mut Errors) {
    let modes = list(object, &["spec", "accessModes"]);
    if modes.is_empty() {
        errors.required("spec.accessModes", "at least 1 access mode is required");
    }
    for mode in modes {
        errors.one_of("spec.accessModes", mode.as_str().unwrap_or_default(), MODES);
    }
}

pub fn validate_claim(change: &Change<'_>, errors: &mut Errors) {
    validate_modes(change.new, errors);
    if text(change.new, &["spec", "resources", "requests", "storage"]).is_empty() {
        errors.required("spec.resources[storage]", "");
    }
    if let Some(old) = change.old {
        let fixed = |claim: &Value| {
            let mut spec = at(claim, &["spec"]).clone();
            for field in ["resources", "volumeName", "volumeAttributesClassName"] {
                crate::tree::remove(&mut spec, &[field]);
            }
            spec
        };
        if fixed(old) != fixed(change.new) {
            errors.forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            );
        }
    }
}

pub fn validate_volume(change: &Change<'_>, errors: &mut Errors) {
    validate_modes(change.new, errors);
    if text(change.new, &["spec", "capacity", "storage"]).is_empty() {
        errors.required("spec.capacity", "");
    }
    let policies = ["Delete", "Recycle", "Retain"];
    errors.one_of(
        "spec.persistentVolumeReclaimPolicy",
        text(change.new, &["spec", "persistentVolumeReclaimPolicy"]),
        &policies,
    );
}

pub fn validate_class(change: &Change<'_>, errors: &mut Errors) {
    if text(change.new, &["provisioner"]).is_empty() {
        errors.required("provisioner", "");
    }
    errors.one_of("reclaimPolicy", text(change.new, &["reclaimPolicy"]), &["Delete", "Retain"]);
    errors.one_of(
        "volumeBindingMode",
        text(change.new, &["volumeBindingMode"]),
        &["Immediate", "WaitForFirstConsumer"],
    );
    if let Some(old) = change.old {
        for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
            errors.immutable(field, at(old, &[field]), at(change.new, &[field]));
        }
    }
}
