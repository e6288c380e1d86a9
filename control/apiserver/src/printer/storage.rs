//! Tables of volumes, claims and classes.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, boolean, column, name, number, shown, wide, words};
use crate::tree::{at, flag, list, strings, text};

fn modes(object: &Value, path: &[&str]) -> Value {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO".to_owned(),
        "ReadOnlyMany" => "ROX".to_owned(),
        "ReadWriteMany" => "RWX".to_owned(),
        "ReadWriteOncePod" => "RWOP".to_owned(),
        other => other.to_owned(),
    };
    json!(words(object, path).into_iter().map(short).collect::<Vec<_>>().join(","))
}

/// The phase, or that the object is being deleted.
fn phase(object: &Value) -> Value {
    if at(object, &["metadata", "deletionTimestamp"]).is_null() {
        at(object, &["status", "phase"]).clone()
    } else {
        json!("Terminating")
    }
}

pub static CLAIM: Printer = Printer {
    columns: &[
        NAME,
        column("Status").of("core.v1.PersistentVolumeClaimStatus", "phase"),
        column("Volume").of("core.v1.PersistentVolumeClaimSpec", "volumeName"),
        column("Capacity").of("core.v1.PersistentVolumeClaimStatus", "capacity"),
        column("Access Modes").of("core.v1.PersistentVolumeClaimStatus", "accessModes"),
        column("StorageClass").says("StorageClass of the pvc"),
        column("VolumeAttributesClass").says("VolumeAttributesClass of the pvc"),
        AGE,
        wide("VolumeMode").of("core.v1.PersistentVolumeClaimSpec", "volumeMode"),
    ],
    cells: |claim, now| {
        vec![
            name(claim),
            phase(claim),
            json!(text(claim, &["spec", "volumeName"])),
            json!(text(claim, &["status", "capacity", "storage"])),
            modes(claim, &["status", "accessModes"]),
            json!(text(claim, &["spec", "storageClassName"])),
            shown(claim, &["spec", "volumeAttributesClassName"]),
            age(claim, now),
            shown(claim, &["spec", "volumeMode"]),
        ]
    },
};

pub static VOLUME: Printer = Printer {
    columns: &[
        NAME,
        column("Capacity").of("core.v1.PersistentVolumeSpec", "capacity"),
        column("Access Modes").of("core.v1.PersistentVolumeSpec", "accessModes"),
        column("Reclaim Policy").of("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy"),
        column("Status").of("core.v1.PersistentVolumeStatus", "phase"),
        column("Claim").of("core.v1.PersistentVolumeSpec", "claimRef"),
        column("StorageClass").says("StorageClass of the pv"),
        column("VolumeAttributesClass").says("VolumeAttributesClass of the pv"),
        column("Reason").of("core.v1.PersistentVolumeStatus", "reason"),
        AGE,
        wide("VolumeMode").of("core.v1.PersistentVolumeSpec", "volumeMode"),
    ],
    cells: |volume, now| {
        let claim = at(volume, &["spec", "claimRef"]);
        let claimed = if claim.is_object() {
            format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"]))
        } else {
            String::new()
        };
        vec![
            name(volume),
            json!(text(volume, &["spec", "capacity", "storage"])),
            modes(volume, &["spec", "accessModes"]),
            json!(text(volume, &["spec", "persistentVolumeReclaimPolicy"])),
            phase(volume),
            json!(claimed),
            json!(text(volume, &["spec", "storageClassName"])),
            shown(volume, &["spec", "volumeAttributesClassName"]),
            json!(text(volume, &["status", "reason"])),
            age(volume, now),
            shown(volume, &["spec", "volumeMode"]),
        ]
    },
};

pub static CLASS: Printer = Printer {
    columns: &[
        NAME,
        column("Provisioner").of("storage.v1.StorageClass", "provisioner"),
        column("ReclaimPolicy").of("storage.v1.StorageClass", "reclaimPolicy"),
        column("VolumeBindingMode").of("storage.v1.StorageClass", "volumeBindingMode"),
        column("AllowVolumeExpansion").of("storage.v1.StorageClass", "allowVolumeExpansion"),
        AGE,
    ],
    cells: |class, now| {
        let default = strings(class, &["metadata", "annotations"])
            .any(|(key, value)| key == "storageclass.kubernetes.io/is-default-class" && value == "true");
        let shown = text(class, &["metadata", "name"]);
        vec![
            json!(if default { format!("{shown} (default)") } else { shown.to_owned() }),
            at(class, &["provisioner"]).clone(),
            at(class, &["reclaimPolicy"]).clone(),
            at(class, &["volumeBindingMode"]).clone(),
            json!(flag(class, &["allowVolumeExpansion"])),
            age(class, now),
        ]
    },
};

pub static CSI_DRIVER: Printer = Printer {
    columns: &[
        NAME,
        boolean("AttachRequired").of("storage.v1.CSIDriverSpec", "attachRequired"),
        boolean("PodInfoOnMount").of("storage.v1.CSIDriverSpec", "podInfoOnMount"),
        boolean("StorageCapacity").of("storage.v1.CSIDriverSpec", "storageCapacity"),
        column("TokenRequests").of("storage.v1.CSIDriverSpec", "tokenRequests"),
        boolean("RequiresRepublish").of("storage.v1.CSIDriverSpec", "requiresRepublish"),
        column("Modes").of("storage.v1.CSIDriverSpec", "volumeLifecycleModes"),
        AGE,
    ],
    cells: |driver, now| {
        let spec = |field: &str| json!(flag(driver, &["spec", field]));
        let tokens: Vec<&str> =
            list(driver, &["spec", "tokenRequests"]).iter().map(|token| text(token, &["audience"])).collect();
        vec![
            name(driver),
            spec("attachRequired"),
            spec("podInfoOnMount"),
            spec("storageCapacity"),
            json!(if tokens.is_empty() { "<unset>".to_owned() } else { tokens.join(",") }),
            spec("requiresRepublish"),
            json!(words(driver, &["spec", "volumeLifecycleModes"]).join(",")),
            age(driver, now),
        ]
    },
};

pub static CSI_NODE: Printer = Printer {
    columns: &[
        NAME,
        number("Drivers").says("Drivers indicates the number of CSI drivers registered on the node"),
        AGE,
    ],
    cells: |node, now| vec![name(node), json!(list(node, &["spec", "drivers"]).len()), age(node, now)],
};

pub static CSI_CAPACITY: Printer = Printer {
    columns: &[
        NAME,
        column("StorageClassName").of("storage.v1.CSIStorageCapacity", "storageClassName"),
        column("Capacity").of("storage.v1.CSIStorageCapacity", "capacity"),
    ],
    cells: |object, _| {
        vec![name(object), at(object, &["storageClassName"]).clone(), json!(text(object, &["capacity"]))]
    },
};

pub static ATTACHMENT: Printer = Printer {
    columns: &[
        NAME,
        column("Attacher").formatted("name").of("storage.v1.VolumeAttachmentSpec", "attacher"),
        column("PV").of("storage.v1.VolumeAttachmentSource", "persistentVolumeName"),
        column("Node").of("storage.v1.VolumeAttachmentSpec", "nodeName"),
        boolean("Attached").of("storage.v1.VolumeAttachmentStatus", "attached"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            at(object, &["spec", "attacher"]).clone(),
            json!(text(object, &["spec", "source", "persistentVolumeName"])),
            at(object, &["spec", "nodeName"]).clone(),
            json!(flag(object, &["status", "attached"])),
            age(object, now),
        ]
    },
};

pub static ATTRIBUTES_CLASS: Printer = Printer {
    columns: &[NAME, column("DriverName").of("storage.v1.VolumeAttributesClass", "driverName"), AGE],
    cells: |object, now| vec![name(object), at(object, &["driverName"]).clone(), age(object, now)],
};
